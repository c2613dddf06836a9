//! What the daemon knows of itself, kept up to date by events and turned into a `Status` when somebody is to see it.
//!
//! In: ends of runs, reloads, phases; what goes on comes with the gauges. Out: `status::Status`. Must not know: how it is shown, SQL.

use crate::config::{Config, Tracker};
use crate::run::{FreshRows, Outcome};
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
    trackers: Vec<Entry>,
    /// Name to place in `trackers`.
    index: HashMap<String, usize>,
}

#[derive(Debug)]
struct Entry {
    config: Arc<Tracker>,
    last: Option<Run>,
    last_success: Option<Timestamp>,
    failures_in_a_row: u32,
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
            config_path: config.path.display().to_string(),
            workers: config.daemon.workers,
            ..Status::default()
        };
        let inner = Inner { head, trackers: Vec::new(), index: HashMap::new() };
        let state = State { inner: Mutex::new(inner), changed: Notify::new() };
        state.configure(config);
        state
    }

    /// Takes a configuration's trackers; those that were there keep their history.
    pub fn configure(&self, config: &Config) {
        let mut inner = self.lock();
        inner.head.config_generation += 1;
        let index = std::mem::take(&mut inner.index);
        let mut old: Vec<Option<Entry>> = std::mem::take(&mut inner.trackers).into_iter().map(Some).collect();
        for (place, tracker) in config.trackers.iter().enumerate() {
            let kept = index.get(&tracker.name).and_then(|&place| old[place].take());
            let config = Arc::clone(tracker);
            let entry = kept.map_or_else(|| Entry::new(Arc::clone(tracker)), |entry| Entry { config, ..entry });
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
                entry.last = Some(last);
            }
            entry.last_success = entry.last_success.max(last_success);
        });
    }

    /// A run ended.
    pub fn ended(&self, outcome: Outcome) {
        let tracker = outcome.run.tracker.clone();
        self.entry(&tracker, |entry, totals| {
            count(&outcome.run, &mut entry.totals);
            count(&outcome.run, totals);
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
        self.lock().head.phase = phase;
        self.touch();
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
        drop(inner);
        if status.phase == Phase::Running && gauges.database_error.is_some() {
            status.phase = Phase::Degraded;
        }
        Status {
            workers_busy: gauges.workers_busy,
            queued: gauges.queued,
            database_error: gauges.database_error,
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
    fn new(config: Arc<Tracker>) -> Entry {
        Entry {
            config,
            last: None,
            last_success: None,
            failures_in_a_row: 0,
            totals: Totals::default(),
            fresh: Vec::new(),
        }
    }

    fn show(&self, states: &HashMap<Arc<str>, TrackerState>, now: Timestamp) -> crate::status::Tracker {
        crate::status::Tracker {
            name: self.config.name.clone(),
            schedule: self.config.schedule_text.clone(),
            state: states.get(self.config.name.as_str()).copied().unwrap_or(TrackerState::Idle),
            next_run: self.config.schedule.next_after(now),
            last: self.last.clone(),
            last_success: self.last_success,
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
