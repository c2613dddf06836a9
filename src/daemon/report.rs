//! What is said of every run: to the log, to the status, to the ledger.
//!
//! In: runs that begin and outcomes. Out: one log line an outcome (or a sum, when they come fast), the status's
//! counts, and the recorder's queue. Must not know: what a run does.

use super::recorder;
use super::state::State;
use super::work::Due;
use super::work::Identity;
use crate::run::Outcome;
use crate::status::{Run, RunStatus};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Successes told one by one in a second; further ones are told as a sum.
const LINES_A_SECOND: u32 = 50;

/// Where outcomes go.
#[derive(Debug)]
pub struct Reports {
    pub identity: Identity,
    state: Arc<State>,
    recorder: recorder::Sender,
    pace: Mutex<Pace>,
}

/// Successes of the second that goes on.
#[derive(Debug)]
struct Pace {
    since: Instant,
    told: u32,
    untold_runs: u64,
    untold_rows: i64,
}

impl Reports {
    pub fn new(identity: Identity, state: Arc<State>, recorder: recorder::Sender) -> Reports {
        let pace = Pace { since: Instant::now(), told: 0, untold_runs: 0, untold_rows: 0 };
        Reports { identity, state, recorder, pace: Mutex::new(pace) }
    }

    /// An instant of the schedule is here: why it is passed over, or `None` to run it.
    pub fn passes_over(&self, tracker: &str) -> Option<String> {
        let fault = self.state.tick(tracker)?;
        Some(format!("standing fault since {}: tried at one in {} instants", fault.since, fault.every_nth))
    }

    /// A run is due, or begins.
    pub fn moved(&self) {
        self.state.touch();
    }

    /// A run ended.
    pub fn ended(&self, outcome: Outcome) {
        // The ledger first: it does not depend on a log that works.
        match outcome.recorded {
            true => self.recorder.landed(),
            false => self.recorder.send(outcome.run.clone()),
        }
        self.tell(&outcome.run);
        self.state.ended(outcome);
    }

    /// Its payload waits in the spool: it lands later.
    pub fn kept(&self, due: &Due) {
        tracing::debug!(tracker = &*due.tracker, scheduled_at = %due.scheduled_at, "payload kept for later");
        self.state.kept();
    }

    /// Another process is at this instant.
    pub fn elsewhere(&self, due: &Due) {
        tracing::debug!(tracker = &*due.tracker, scheduled_at = %due.scheduled_at, "another trackd is at it");
        self.state.elsewhere(&due.tracker);
    }

    /// An instant is not run: it is counted, and its row is on its way to the ledger.
    pub fn unrun(&self, run: Run) {
        self.note(&run);
        self.recorder.send(run);
    }

    /// These instants of a tracker, from `oldest` on, were missed: they are counted, and their rows are on their way to
    /// the ledger.
    pub fn missed(&self, tracker: &str, oldest: Timestamp, rows: impl ExactSizeIterator<Item = Run> + Send + 'static) {
        if rows.len() > 0 {
            tracing::debug!(tracker, instants = rows.len(), "missed");
            self.state.missed(tracker, rows.len() as u64);
            self.recorder.send_all(Some(oldest), rows);
        }
    }

    /// These instants were not run, and the ledger has their rows.
    pub fn recorded(&self, runs: &[Run]) {
        runs.iter().for_each(|run| self.note(run));
    }

    fn note(&self, run: &Run) {
        let (status, reason) = (run.status.as_str(), run.error.as_deref());
        tracing::debug!(tracker = run.tracker, scheduled_at = %run.scheduled_at, status, reason, "not run");
        self.state.unrun(run);
    }

    /// Tells the sum of the successes that were not told; called about once a second.
    pub fn tell_sum(&self) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.since.elapsed() >= Duration::from_secs(1) {
            pace.turn();
        }
    }

    fn tell(&self, run: &Run) {
        let duration_ms = run.finished_at.duration_since(run.started_at).as_millis();
        match run.status {
            // Where there is room for little, the beginning is what is seen.
            RunStatus::Failed => tracing::warn!(
                tracker = run.tracker, error = run.error, error_class = run.error_class.map(|class| class.as_str()),
                scheduled_at = %run.scheduled_at, attempt = run.attempt, rows_read = run.rows_read,
                rows_rejected = run.rows_rejected, bytes = run.fetched_bytes, duration_ms, status = run.status.as_str(),
                run_id = %run.run_id, "run failed"
            ),
            RunStatus::Missed | RunStatus::Skipped => tracing::info!(
                tracker = run.tracker, error = run.error, scheduled_at = %run.scheduled_at, status = run.status.as_str(),
                run_id = %run.run_id, "run did not take place"
            ),
            RunStatus::Succeeded if self.is_told_alone(run) => tracing::info!(
                tracker = run.tracker, rows_written = run.rows_written, rows_read = run.rows_read,
                rows_rejected = run.rows_rejected, bytes = run.fetched_bytes, duration_ms, scheduled_at = %run.scheduled_at,
                status = run.status.as_str(), run_id = %run.run_id, "run succeeded"
            ),
            RunStatus::Succeeded => {}
        }
    }

    fn is_told_alone(&self, run: &Run) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.since.elapsed() >= Duration::from_secs(1) {
            pace.turn();
        }
        if pace.told < LINES_A_SECOND {
            pace.told += 1;
            return true;
        }
        pace.untold_runs += 1;
        pace.untold_rows += run.rows_written;
        false
    }
}

impl Pace {
    fn turn(&mut self) {
        if self.untold_runs > 0 {
            let (runs, rows_written) = (self.untold_runs, self.untold_rows);
            tracing::info!(runs, rows_written, "further runs succeeded");
        }
        *self = Pace { since: Instant::now(), told: 0, untold_runs: 0, untold_rows: 0 };
    }
}
