//! Payloads that could not land: kept in the spool, and landed from there as the same runs.
//!
//! ```text
//!  a run --database away, or refuses, or others of its tracker wait--> Spool --in order, a few trackers at a time--> Outcome
//! ```
//!
//! Must not know: where payloads came from, the daemon.

use super::draft::{Draft, End, Outcome};
use super::kept::{self, Fate, Last};
use super::patience::{Patience, Refusal};
use super::plan::Shared;
use super::{Error, Landing};
use crate::class::Class;
use crate::clock;
use crate::log::Event;
use crate::shape::History;
use crate::source::Payload;
use crate::spool::{Entry, Key, Loaded, Spool, Stats, Waiting};
use crate::status::{Kind, Run};
use crate::store::{self, ledger};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

/// Of so many connections that there may be, so many land what waits: the others are for runs that are due. Not fewer, as
/// whoever has a tracker's payloads waiting adds its next ones to them, and more would come than land.
const LANES: (usize, usize) = (3, 4);
/// Entries of a tracker in one turn, or as many as waited when the turns began: more come to wait behind them meanwhile, and
/// a tracker is through when none does.
const LEAST: u64 = 50;
/// Between two looks at the spool; also how soon a database that is back is found.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest landing of one payload, whatever it waits for; each of its steps has a shorter limit of its own.
const LONGEST: Duration = Duration::from_secs(10 * 60);

impl Landing {
    /// Whether the spool would take what the source gives, where it cannot land: what is worth least is refused first.
    ///
    /// A state is replaced by the next one, a change is seen later, a snapshot leaves a gap; an event may be gone for good.
    pub(super) fn has_room(&self, is_claimed: bool) -> Result<(), Error> {
        let Some(spool) = &self.shared.spool else { return Ok(()) };
        if is_claimed && spool.next(&self.recipe.tracker).is_none() {
            return Ok(());
        }
        let percent = self.recipe.tables.iter().map(|table| share(table.history)).max().unwrap_or(100);
        let stats = spool.stats();
        if stats.used.saturating_mul(100) < stats.limit.saturating_mul(percent) {
            return Ok(());
        }
        let (used, limit) = (bytesize::ByteSize(stats.used), bytesize::ByteSize(stats.limit));
        let reason =
            format!("{used} of {limit} are in use, this tracker's share is {percent} %: its source is not asked");
        Err(Error::NoRoom {
            reason,
            hint: Some("bring the database back, raise daemon.spool_max, or free some room on its disk".into()),
        })
    }

    /// Keeps a payload for later. It is durable when this returns.
    ///
    /// Cancel safety: what was begun is finished; the payload may be kept then.
    pub(super) async fn keep(&self, spool: &Arc<Spool>, draft: &Draft, payload: Payload) -> Result<End, Error> {
        let entry = Entry {
            tracker: self.recipe.tracker.clone(),
            scheduled_at: draft.scheduled_at,
            kind: draft.run.kind,
            attempt: draft.run.attempt,
            started_at: draft.run.started_at,
            fetched_at: clock::now(),
            response: serde_json::to_value(&payload.response).unwrap_or_default(),
            plan: self.kept()?,
            body: payload.body,
        };
        let spool = Arc::clone(spool);
        let put = spawn_blocking(move || spool.put(&entry)).await;
        match put {
            Ok(Ok(_)) => Ok(End::Kept),
            Ok(Err(error)) => Err(Error::NoRoom { reason: error.to_string(), hint: error.hint() }),
            Err(error) => Err(Error::NoRoom { reason: error.to_string(), hint: None }),
        }
    }

    /// Whether a payload of this run waits.
    pub(super) fn is_kept(&self, scheduled_at: Timestamp) -> bool {
        self.shared.spool.as_ref().is_some_and(|spool| spool.has(&self.recipe.tracker, scheduled_at))
    }

    fn kept(&self) -> Result<Bytes, Error> {
        if let Some(kept) = self.kept.get() {
            return Ok(kept.clone());
        }
        let kept = serde_json::to_vec(&self.recipe);
        let kept = kept.map_err(|error| Error::NoRoom { reason: format!("keep the recipe: {error}"), hint: None })?;
        Ok(self.kept.get_or_init(|| kept.into()).clone())
    }
}

/// Whether a payload that the database refused is kept, to land another time or to be set aside for a person.
///
/// What is refused until somebody mends it never takes the room that an outage needs.
pub(super) fn is_worth_keeping(error: &store::Error, stats: &Stats) -> bool {
    match error.class() {
        Class::Retry => true,
        Class::Standing => stats.used.saturating_mul(2) < stats.limit,
        Class::Row => false,
    }
}

/// Up to how many percent of the spool a table's payloads may fill.
const fn share(history: History) -> u64 {
    match history {
        History::State { .. } => 70,
        History::Change { .. } => 80,
        History::Snapshot => 90,
        History::Event { .. } => 100,
    }
}

/// Lands what waits in the spool.
#[derive(Debug)]
pub struct Backlog {
    spool: Arc<Spool>,
    shared: Shared,
    patience: Patience,
}

/// What becomes of an entry.
enum Next {
    /// It is dealt with: the next one of its tracker.
    Go,
    /// It cannot land now.
    Wait,
}

impl Backlog {
    /// Of this spool; nothing lands before `work`.
    pub fn new(spool: Arc<Spool>, shared: &Shared) -> Backlog {
        // What cannot land stays where it is.
        Backlog { spool, shared: Shared { spool: None, ..shared.clone() }, patience: Patience::default() }
    }

    /// Lands what waits, and what comes to wait, for ever. Says of each run what became of it.
    ///
    /// A turn is each tracker once; the next begins when all of this one have begun, so that one that hangs holds up no
    /// other.
    ///
    /// Cancel safety: safe; an entry whose landing was dropped is rolled back and waits.
    pub async fn work(&self, report: &(dyn Fn(Outcome) + Send + Sync)) {
        let (mut turn, mut lanes, mut busy) = (VecDeque::new(), FuturesUnordered::new(), HashSet::new());
        let (mut look_at, mut open) = (Instant::now(), self.shared.open.clone());
        loop {
            if turn.is_empty() && look_at <= Instant::now() {
                turn = self.turn(&busy).await;
                look_at = Instant::now() + PAUSE;
            }
            while lanes.len() < self.lanes()
                && let Some(Waiting { tracker, entries, .. }) = turn.pop_front()
            {
                busy.insert(tracker.clone());
                lanes.push(async move {
                    let done = self.drain(&tracker, entries.max(LEAST), report).await;
                    (tracker, done)
                });
            }
            tokio::select! {
                Some((tracker, done)) = lanes.next() => {
                    busy.remove(&tracker);
                    if done > 0 {
                        look_at = Instant::now();
                    }
                }
                () = sleep_until(look_at), if turn.is_empty() => {}
                // A start has found its database, and what waits was never looked at.
                Ok(()) = open.changed() => look_at = Instant::now(),
            }
        }
    }

    /// Whose entries wait, but for the busy; nobody's while the database cannot be had.
    async fn turn(&self, busy: &HashSet<String>) -> VecDeque<Waiting> {
        let mut waiting = VecDeque::from(self.spool.waiting());
        waiting.retain(|waits| !busy.contains(&waits.tracker));
        let is_open = *self.shared.open.borrow();
        // One that is back is told of at once. Those at work see it themselves, and must not wait for this.
        if waiting.is_empty() || !is_open || busy.is_empty() && self.shared.pool.begin_within(PAUSE).await.is_err() {
            waiting.clear();
        }
        waiting
    }

    /// Trackers that land at a time.
    fn lanes(&self) -> usize {
        (self.shared.pool.numbers().limit as usize * LANES.0 / LANES.1).max(1)
    }

    /// So many entries of a tracker, in order, up to the first that cannot land now. Says how many were dealt with.
    async fn drain(&self, tracker: &str, most: u64, report: &(dyn Fn(Outcome) + Send + Sync)) -> u64 {
        let mut last = Last::default();
        for done in 0..most {
            let Some(key) = self.spool.next(tracker) else { return done };
            // A panic is this entry's alone.
            let one = AssertUnwindSafe(self.one(&key, &mut last, report)).catch_unwind();
            let Ok(next) = timeout(LONGEST, one).await else {
                tracing::warn!(tracker, scheduled_at = %key.scheduled_at(), after = ?LONGEST, "spool: a payload does not land");
                return done;
            };
            match next {
                Ok(Next::Go) => {}
                Ok(Next::Wait) => return done,
                Err(_) => {
                    last = Last::default();
                    self.unlandable(&key, "landing it panicked", report).await;
                }
            }
        }
        most
    }

    async fn one(&self, key: &Key, last: &mut Last, report: &(dyn Fn(Outcome) + Send + Sync)) -> Next {
        let (spool, wanted) = (Arc::clone(&self.spool), key.clone());
        let entry = match spawn_blocking(move || spool.load(&wanted)).await {
            Ok(Ok(Loaded::Entry(entry))) => entry,
            Ok(Ok(Loaded::Gone)) => return Next::Go,
            Ok(Ok(Loaded::SetAside(aside))) => {
                tracing::error!(file = %aside.file.display(), reason = aside.reason, event = %Event::PayloadAside, "spool: a payload is not whole");
                report(self.fails(key, &format!("its payload in the spool is not whole: {}", aside.reason)));
                return Next::Go;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "spool: a payload cannot be read now");
                return Next::Wait;
            }
            Err(_) => return Next::Wait,
        };
        let landing = match last.landing(&entry.plan, &self.shared) {
            Ok(landing) => landing,
            Err(reason) => {
                self.unlandable(key, &reason, report).await;
                return Next::Go;
            }
        };
        match kept::land(landing, *entry).await {
            Fate::Landed(outcome) => self.landed(outcome, key, report).await,
            Fate::Elsewhere => Next::Wait,
            Fate::Away(_) => {
                self.patience.restored(key.tracker());
                Next::Wait
            }
            Fate::NotNow(outcome) => match self.patience.refused(key.tracker()) {
                Refusal::First => {
                    let (tracker, error) = (key.tracker(), outcome.run.error);
                    tracing::warn!(tracker, error, scheduled_at = %key.scheduled_at(), "spool: a payload does not land now");
                    Next::Wait
                }
                Refusal::Again => Next::Wait,
                Refusal::Last => self.failed(outcome, key, report).await,
            },
            Fate::Failed(outcome) => self.failed(outcome, key, report).await,
        }
    }

    async fn landed(&self, outcome: Outcome, key: &Key, report: &(dyn Fn(Outcome) + Send + Sync)) -> Next {
        self.patience.restored(key.tracker());
        report(outcome);
        let (spool, done) = (Arc::clone(&self.spool), key.clone());
        if let Ok(Err(error)) = spawn_blocking(move || spool.remove(&done)).await {
            tracing::warn!(error = %error, "spool: a payload that landed is still there");
        }
        Next::Go
    }

    /// It will not land. The ledger says why, and the payload stays on the disk, for a person.
    async fn failed(&self, outcome: Outcome, key: &Key, report: &(dyn Fn(Outcome) + Send + Sync)) -> Next {
        if kept::record(&self.shared, &outcome).await.is_err() {
            return Next::Wait;
        }
        let reason = outcome.run.error.clone().unwrap_or_default();
        report(Outcome { recorded: true, ..outcome });
        self.set_aside(key.clone(), format!("its run failed: {reason}")).await;
        Next::Go
    }

    /// As `failed`, of one of which no more is known than its name.
    async fn unlandable(&self, key: &Key, reason: &str, report: &(dyn Fn(Outcome) + Send + Sync)) {
        report(self.fails(key, reason));
        self.set_aside(key.clone(), reason.to_owned()).await;
    }

    fn fails(&self, key: &Key, reason: &str) -> Outcome {
        let (tracker, at, instance) = (key.tracker(), key.scheduled_at(), self.shared.instance.name());
        let run = Run::begun(ledger::run_id(tracker, at), tracker, at, Kind::Scheduled, instance, clock::now());
        // Not standing: it says nothing of the source or the tables, and must not slow the tracker down.
        let (error, error_class) = (Some(reason.to_owned()), Some(Class::Retry));
        Outcome { run: Run { error, error_class, ..run }, fresh: Vec::new(), recorded: false }
    }

    async fn set_aside(&self, key: Key, reason: String) {
        let spool = Arc::clone(&self.spool);
        let aside = spawn_blocking(move || spool.set_aside(&key, reason)).await;
        if let Ok(Some(aside)) = aside {
            tracing::error!(file = %aside.file.display(), reason = aside.reason, event = %Event::PayloadAside, "spool: a payload is set aside");
        }
    }
}
