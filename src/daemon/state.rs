//! What the daemon knows of itself, kept up to date by events and turned into a `Status` when somebody is to see it.
//!
//! In: ends of runs, reloads, phases; what goes on comes with the gauges. Out: `status::Status`. Must not know: how it is shown, SQL.

use crate::class::Class;
use crate::config::{Config, Tracker};
use crate::run::{FreshRows, Outcome};
use crate::schedule::fresh;
use crate::schedule::pace::{Pace, Standing};
use crate::status::{Phase, Pool, Reload, Run, RunStatus, Server, Spool, Status, Totals, TrackerState};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The state; cheap to change, read as a whole by `snapshot`.
#[derive(Debug)]
pub struct State {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    /// Everything but the trackers.
    head: Status,
    /// What the ledger refuses although its database is there.
    refused: Option<String>,
    trackers: Vec<Entry>,
    /// Name to place in `trackers`.
    index: HashMap<String, usize>,
}

#[derive(Debug)]
struct Entry {
    config: Arc<Tracker>,
    last: Option<Run>,
    last_success: Option<Timestamp>,
    /// Since when it is followed.
    since: Timestamp,
    failures_in_a_row: u32,
    pace: Pace,
    /// Another process was at its instant: what is known here may be old.
    elsewhere: bool,
    totals: Totals,
    /// Decoded when somebody looks.
    fresh: Vec<FreshRows>,
}

/// What only the caller knows when a snapshot is taken.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    pub workers_busy: usize,
    pub queued: usize,
    /// Of the trackers that are not idle.
    pub states: HashMap<Arc<str>, TrackerState>,
    pub database_error: Option<String>,
    pub pool: Pool,
    pub spool: Spool,
}

impl State {
    /// The state at the start of the daemon.
    pub fn new(config: &Config, instance: &str, now: Timestamp) -> State {
        let head = Status {
            version: env!("CARGO_PKG_VERSION"),
            instance: instance.to_owned(),
            started_at: now,
            config_path: std::path::absolute(&config.path).as_ref().unwrap_or(&config.path).display().to_string(),
            workers: config.daemon.workers,
            ..Status::default()
        };
        let inner = Inner { head, refused: None, trackers: Vec::new(), index: HashMap::new() };
        let state = State { inner: Mutex::new(inner), changed: Notify::new() };
        state.configure(config, now);
        state
    }

    /// Takes a configuration's trackers; those that were there keep their history, and none is slowed down any more.
    pub fn configure(&self, config: &Config, now: Timestamp) {
        let mut inner = self.lock();
        inner.head.config_generation += 1;
        let index = std::mem::take(&mut inner.index);
        let mut old: Vec<Option<Entry>> = std::mem::take(&mut inner.trackers).into_iter().map(Some).collect();
        for (place, tracker) in config.trackers.iter().enumerate() {
            let kept = index.get(&tracker.name).and_then(|&place| old[place].take());
            let (config, pace) = (Arc::clone(tracker), Pace::default());
            let entry =
                kept.map_or_else(|| Entry::new(Arc::clone(tracker), now), |entry| Entry { config, pace, ..entry });
            inner.trackers.push(entry);
            inner.index.insert(tracker.name.clone(), place);
        }
        drop(inner);
        self.touch();
    }

    /// Whether who waited for the start has been told that it is over.
    pub fn is_up(&self) -> bool {
        self.lock().head.phase != Phase::Starting
    }

    /// What the ledger remembers of a tracker from before this process.
    pub fn remember(&self, last: Run, last_success: Option<Timestamp>) {
        let tracker = last.tracker.clone();
        self.entry(&tracker, |entry, _| {
            if entry.last.is_none() {
                entry.failures_in_a_row = u32::from(last.status == RunStatus::Failed);
                entry.paced(&last);
                entry.last = Some(last);
            }
            entry.last_success = entry.last_success.max(last_success);
        });
    }

    /// Since when the ledger says that a tracker is followed.
    pub fn followed(&self, tracker: &str, since: Timestamp) {
        self.entry(tracker, |entry, _| entry.since = entry.since.min(since));
    }

    /// Another process is at an instant of this tracker: it may know more.
    pub fn elsewhere(&self, tracker: &str) {
        self.entry(tracker, |entry, _| entry.elsewhere = true);
    }

    /// Trackers of which the ledger may know more than this process: of another one, or of a run by hand. Each of
    /// those that another process is at is named once.
    pub fn doubtful(&self, now: Timestamp) -> Vec<String> {
        let mut inner = self.lock();
        let doubtful = |entry: &mut Entry| {
            let elsewhere = std::mem::take(&mut entry.elsewhere);
            let is_doubtful = elsewhere || entry.pace.fault().is_some() || entry.stale_at().is_some_and(|at| at <= now);
            is_doubtful.then(|| entry.config.name.clone())
        };
        inner.trackers.iter_mut().filter_map(doubtful).collect()
    }

    /// The ledger's latest run of a tracker, whoever ran it, and the instant of its latest success.
    pub fn learned(&self, last: Run, last_success: Option<Timestamp>) {
        let mut inner = self.lock();
        let place = inner.index.get(&last.tracker).copied();
        let news = place.is_some_and(|place| inner.trackers[place].learn(last, last_success));
        drop(inner);
        if news {
            self.touch();
        }
    }

    /// An instant of the schedule is here: the fault for which it is passed over, or `None` to run it.
    pub fn tick(&self, tracker: &str) -> Option<Standing> {
        let mut inner = self.lock();
        let place = *inner.index.get(tracker)?;
        inner.trackers[place].pace.tick()
    }

    /// A run ended.
    pub fn ended(&self, outcome: Outcome) {
        let tracker = outcome.run.tracker.clone();
        self.entry(&tracker, |entry, totals| {
            count(&outcome.run, &mut entry.totals);
            count(&outcome.run, totals);
            entry.paced(&outcome.run);
            if outcome.run.status == RunStatus::Succeeded {
                entry.failures_in_a_row = 0;
                entry.last_success = entry.last_success.max(Some(outcome.run.scheduled_at));
                entry.fresh = outcome.fresh;
            } else {
                entry.failures_in_a_row += 1;
            }
            entry.last = Some(outcome.run);
        });
    }

    /// The payload of a run waits for the database.
    pub fn kept(&self) {
        self.lock().head.totals.kept += 1;
        self.touch();
    }

    /// An instant was not run: it counts, but is no latest run.
    pub fn unrun(&self, run: &Run) {
        self.entry(&run.tracker, |entry, totals| {
            count(run, &mut entry.totals);
            count(run, totals);
        });
    }

    /// So many instants were missed.
    pub fn missed(&self, tracker: &str, instants: u64) {
        self.entry(tracker, |entry, totals| {
            entry.totals.missed += instants;
            totals.missed += instants;
        });
    }

    /// Where the daemon is in its life.
    pub fn phase(&self, phase: Phase) {
        let mut inner = self.lock();
        inner.head.phase = phase;
        if phase == Phase::Running {
            inner.head.database_error = None;
        }
        drop(inner);
        self.touch();
    }

    /// Why the ledger cannot be opened. It is told where the connections know no better: they may be well.
    pub fn away(&self, error: String) {
        self.lock().head.database_error = Some(error);
        self.touch();
    }

    /// What the ledger refuses although its database is there, until somebody mends it; `None`: nothing.
    pub fn refused(&self, error: Option<String>) {
        let mut inner = self.lock();
        if inner.refused != error {
            inner.refused = error;
            drop(inner);
            self.touch();
        }
    }

    /// The database was asked how it is.
    pub fn looked(&self, server: Option<Server>) {
        self.lock().head.server = server;
        self.touch();
    }

    /// A reload ended.
    pub fn reloaded(&self, reload: Reload) {
        self.lock().head.last_reload = Some(reload);
        self.touch();
    }

    /// Whole, at `now`.
    ///
    /// Shape: trackers in the order of the file.
    pub fn snapshot(&self, gauges: Gauges, now: Timestamp) -> Status {
        let inner = self.lock();
        let mut status = inner.head.clone();
        status.trackers = inner.trackers.iter().map(|entry| entry.show(&gauges.states, now)).collect();
        let database_error = gauges.database_error.or_else(|| inner.refused.clone());
        drop(inner);
        status.stale = status.trackers.iter().filter(|tracker| tracker.stale).count();
        status.standing = status.trackers.iter().filter(|tracker| tracker.standing.is_some()).count();
        if status.phase == Phase::Running && database_error.is_some() {
            status.phase = Phase::Degraded;
        }
        Status {
            workers_busy: gauges.workers_busy,
            queued: gauges.queued,
            database_error: database_error.or(status.database_error),
            pool: gauges.pool,
            spool: gauges.spool,
            ..status
        }
    }

    /// Waits until something changed since the last time it said so.
    ///
    /// Cancel safety: safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Something that a snapshot shows is another now.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    fn entry(&self, tracker: &str, change: impl FnOnce(&mut Entry, &mut Totals)) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(&place) = inner.index.get(tracker) {
            change(&mut inner.trackers[place], &mut inner.head.totals);
        }
        self.touch();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(config: Arc<Tracker>, since: Timestamp) -> Entry {
        Entry {
            config,
            last: None,
            last_success: None,
            since,
            failures_in_a_row: 0,
            pace: Pace::default(),
            elsewhere: false,
            totals: Totals::default(),
            fresh: Vec::new(),
        }
    }

    /// What a run that ended says of the pace.
    fn paced(&mut self, run: &Run) {
        match (run.status, run.error_class) {
            (RunStatus::Succeeded, _) => self.pace.succeeded(run.scheduled_at),
            (RunStatus::Failed, Some(Class::Standing)) => self.pace.failed(run.scheduled_at),
            _ => {}
        }
    }

    /// Whether any of it is new.
    fn learn(&mut self, last: Run, last_success: Option<Timestamp>) -> bool {
        let before = (self.last_success, self.pace.fault());
        self.last_success = self.last_success.max(last_success);
        if let Some(success) = last_success {
            self.pace.succeeded(success);
        }
        let known = self.last.as_ref().is_some_and(|known| known.scheduled_at >= last.scheduled_at);
        let ended = matches!(last.status, RunStatus::Succeeded | RunStatus::Failed);
        if ended && !known {
            self.paced(&last);
            self.failures_in_a_row = match last.status {
                RunStatus::Succeeded => 0,
                _ => self.failures_in_a_row + 1,
            };
            self.last = Some(last);
            return true;
        }
        before != (self.last_success, self.pace.fault())
    }

    fn stale_at(&self) -> Option<Timestamp> {
        self.config.fresh_within.map(|within| fresh::stale_at(self.last_success, self.since, within))
    }

    fn show(&self, states: &HashMap<Arc<str>, TrackerState>, now: Timestamp) -> crate::status::Tracker {
        crate::status::Tracker {
            name: self.config.name.clone(),
            schedule: self.config.schedule_text.clone(),
            state: states.get(self.config.name.as_str()).copied().unwrap_or(TrackerState::Idle),
            next_run: self.config.schedule.next_after(now),
            last: self.last.clone(),
            last_success: self.last_success,
            stale_at: self.stale_at(),
            stale: self.stale_at().is_some_and(|at| at <= now),
            standing: self.pace.fault(),
            failures_in_a_row: self.failures_in_a_row,
            totals: self.totals.clone(),
            newest: self.fresh.iter().map(FreshRows::sample).collect(),
        }
    }
}

fn count(run: &Run, totals: &mut Totals) {
    match run.status {
        RunStatus::Succeeded => totals.succeeded += 1,
        RunStatus::Failed => totals.failed += 1,
        RunStatus::Skipped => totals.skipped += 1,
        RunStatus::Missed => totals.missed += 1,
    }
    totals.rows_written += u64::try_from(run.rows_written).unwrap_or(0);
    totals.rows_rejected += u64::try_from(run.rows_rejected).unwrap_or(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_the_ledger_is_not_open_is_known_where_no_connection_says_so_and_until_it_is() {
        let config = crate::config::parse("", std::path::Path::new("c.toml"), &Default::default());
        let config = config.expect("an empty file is a configuration");
        let state = State::new(&config, "test:1", Timestamp::UNIX_EPOCH);
        let shown = |of_connections: Option<&str>| {
            let gauges = Gauges { database_error: of_connections.map(str::to_owned), ..Gauges::default() };
            state.snapshot(gauges, Timestamp::UNIX_EPOCH).database_error
        };
        state.away("refused".into());
        state.phase(Phase::Degraded);
        assert_eq!([shown(None).as_deref(), shown(Some("reset")).as_deref()], [Some("refused"), Some("reset")]);
        state.phase(Phase::Running);
        assert_eq!(shown(None), None);
        state.refused(Some("permission denied".into()));
        let status = state.snapshot(Gauges::default(), Timestamp::UNIX_EPOCH);
        assert_eq!((status.phase, status.database_error.as_deref()), (Phase::Degraded, Some("permission denied")));
        state.refused(None);
        assert_eq!(state.snapshot(Gauges::default(), Timestamp::UNIX_EPOCH).phase, Phase::Running);
    }
}
