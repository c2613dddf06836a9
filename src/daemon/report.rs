//! What is said of every run: to the log, to the status, to the ledger.
//!
//! In: runs that begin and outcomes. Out: one log line an outcome (or a sum, when they come fast), the status's
//! counts, and the recorder's queue. Must not know: what a run does.

use super::manual::Hands;
use super::recorder;
use super::state::State;
use super::work::Due;
use super::work::Identity;
use crate::log::Event;
use crate::run::Outcome;
use crate::status::{ByHand, Run, RunStatus};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Of each kind of outcome, told one by one in a second; further ones are told as a sum.
const LINES_A_SECOND: u32 = 50;

/// Where outcomes go.
#[derive(Debug)]
pub struct Reports {
    pub identity: Identity,
    /// Who waits for a run by hand.
    pub hands: Hands,
    state: Arc<State>,
    recorder: recorder::Sender,
    pace: Mutex<Pace>,
}

/// Outcomes of the second that goes on.
#[derive(Debug)]
struct Pace {
    since: Instant,
    succeeded: Told,
    failed: Told,
    not_taken: Told,
}

/// Those of one kind.
#[derive(Debug, Default)]
struct Told {
    told: u32,
    untold_runs: u64,
    untold_rows: i64,
}

impl Reports {
    pub fn new(identity: Identity, state: Arc<State>, recorder: recorder::Sender) -> Reports {
        let pace = Pace::new();
        Reports { identity, hands: Hands::default(), state, recorder, pace: Mutex::new(pace) }
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

    /// A run ended. `generation` is the number of the configuration that its plan was of, where that is known.
    pub fn ended(&self, outcome: Outcome, generation: Option<u64>) {
        // The ledger first: it does not depend on a log that works.
        match outcome.recorded {
            true => self.recorder.landed(),
            false => self.recorder.send(outcome.run.clone()),
        }
        self.by_hand(&outcome.run);
        self.tell(&outcome.run, generation);
        self.state.ended(outcome);
    }

    /// Its payload waits in the spool: it lands later.
    pub fn kept(&self, due: &Due) {
        tracing::debug!(tracker = &*due.tracker, scheduled_at = %due.scheduled_at, "payload kept for later");
        self.hands.tell(&due.tracker, due.scheduled_at, || ByHand::Kept(due.tracker.to_string()));
        self.state.kept();
    }

    /// Another process is at this instant.
    pub fn elsewhere(&self, due: &Due) {
        tracing::debug!(tracker = &*due.tracker, scheduled_at = %due.scheduled_at, "another trackd is at it");
        self.hands.tell(&due.tracker, due.scheduled_at, || ByHand::Elsewhere(due.tracker.to_string()));
        self.state.elsewhere(&due.tracker);
    }

    /// An instant is not run: it is counted, and its row is on its way to the ledger.
    pub fn unrun(&self, run: Run) {
        self.note(&run);
        self.by_hand(&run);
        self.recorder.send(run);
    }

    fn by_hand(&self, run: &Run) {
        self.hands.tell(&run.tracker, run.scheduled_at, || ByHand::Ended(Box::new(run.clone())));
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

    fn tell(&self, run: &Run, config_generation: Option<u64>) {
        if !self.is_told_alone(run) {
            return;
        }
        let duration_ms = run.finished_at.duration_since(run.started_at).as_millis();
        match run.status {
            // Where there is room for little, the beginning is what is seen.
            RunStatus::Failed => tracing::warn!(
                tracker = run.tracker, error = run.error, error_class = run.error_class.map(|class| class.as_str()),
                scheduled_at = %run.scheduled_at, attempt = run.attempt, rows_read = run.rows_read,
                rows_rejected = run.rows_rejected, bytes = run.fetched_bytes, duration_ms, status = run.status.as_str(),
                http_status = run.http_status, run_id = %run.run_id, config_generation, event = %Event::RunFailed, "run failed"
            ),
            RunStatus::Missed | RunStatus::Skipped => tracing::info!(
                tracker = run.tracker, error = run.error, scheduled_at = %run.scheduled_at, status = run.status.as_str(),
                run_id = %run.run_id, config_generation, event = %Event::RunNotTaken, "run did not take place"
            ),
            RunStatus::Succeeded => tracing::info!(
                tracker = run.tracker, rows = run.rows_written, rows_read = run.rows_read,
                rows_rejected = run.rows_rejected, bytes = run.fetched_bytes, duration_ms, scheduled_at = %run.scheduled_at,
                status = run.status.as_str(), run_id = %run.run_id, config_generation, event = %Event::RunSucceeded,
                "run succeeded"
            ),
        }
    }

    fn is_told_alone(&self, run: &Run) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.since.elapsed() >= Duration::from_secs(1) {
            pace.turn();
        }
        let told = match run.status {
            RunStatus::Succeeded => &mut pace.succeeded,
            RunStatus::Failed => &mut pace.failed,
            RunStatus::Missed | RunStatus::Skipped => &mut pace.not_taken,
        };
        if told.told < LINES_A_SECOND {
            told.told += 1;
            return true;
        }
        told.untold_runs += 1;
        told.untold_rows += run.rows_written;
        false
    }
}

impl Pace {
    fn new() -> Pace {
        let [succeeded, failed, not_taken] = Default::default();
        Pace { since: Instant::now(), succeeded, failed, not_taken }
    }

    fn turn(&mut self) {
        let Pace { succeeded, failed, not_taken, .. } = std::mem::replace(self, Pace::new());
        if succeeded.untold_runs > 0 {
            tracing::info!(runs = succeeded.untold_runs, rows = succeeded.untold_rows, "further runs succeeded");
        }
        if failed.untold_runs > 0 {
            tracing::warn!(runs = failed.untold_runs, hint = "trackd runs --failed", "further runs failed");
        }
        if not_taken.untold_runs > 0 {
            tracing::info!(runs = not_taken.untold_runs, "further runs did not take place");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::log::journal::tests::entries;
    use crate::status::Kind;

    fn reports() -> Reports {
        let config = crate::config::parse("", std::path::Path::new("c.toml"), &Default::default());
        let state = State::new(&config.expect("an empty file is a configuration"), "test:1", Timestamp::UNIX_EPOCH);
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        Reports::new(identity, Arc::new(state), recorder::channel().0)
    }

    fn outcome(status: RunStatus) -> Outcome {
        let at = Timestamp::UNIX_EPOCH;
        let run_id = crate::store::ledger::run_id("a", at);
        let begun = Run::begun(run_id, "a", at, Kind::Scheduled, "test:1", at);
        let run = match status {
            RunStatus::Succeeded => Run { rows_written: 2, ..begun },
            _ => Run { error: Some("why".into()), error_class: Some(Class::Standing), ..begun },
        };
        Outcome { run: Run { status, ..run }, fresh: Vec::new(), recorded: true }
    }

    #[tokio::test]
    async fn an_outcome_is_one_entry_with_each_value_in_its_field() {
        let reports = reports();
        let told = |status, fields: [&str; 9]| {
            let entries = entries(|| reports.ended(outcome(status), Some(7)));
            assert_eq!(entries.len(), 1, "{entries:?}");
            fields.map(|field| entries[0].get(field).cloned().unwrap_or_default()).join(" ")
        };
        let id = crate::store::ledger::run_id("a", Timestamp::UNIX_EPOCH);
        let fields = [
            "PRIORITY",
            "MESSAGE_ID",
            "TRACKER",
            "RUN_ID",
            "SCHEDULED_AT",
            "STATUS",
            "ROWS",
            "ERROR_CLASS",
            "CONFIG_GENERATION",
        ];
        assert_eq!(
            told(RunStatus::Succeeded, fields),
            format!("6 {} a {id} 1970-01-01T00:00:00Z succeeded 2  7", Event::RunSucceeded.id())
        );
        assert_eq!(
            told(RunStatus::Failed, fields),
            format!("4 {} a {id} 1970-01-01T00:00:00Z failed  standing 7", Event::RunFailed.id())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_of_outcomes_in_a_second_are_some_lines_and_a_sum_of_each_kind() {
        let reports = reports();
        let entries = entries(|| {
            for _ in 0..1_000 {
                for status in [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Skipped] {
                    reports.ended(outcome(status), None);
                }
            }
        });
        assert_eq!(entries.len(), 3 * LINES_A_SECOND as usize);
        tokio::time::advance(Duration::from_secs(1)).await;
        let sums = crate::log::journal::tests::entries(|| reports.tell_sum());
        let sum =
            |field: &str| sums.iter().map(|entry| entry.get(field).cloned().unwrap_or_default()).collect::<Vec<_>>();
        assert_eq!(
            (sum("RUNS"), sum("ROWS")),
            (vec!["950".to_owned(); 3], ["1900", "", ""].map(str::to_owned).to_vec())
        );
        assert_eq!(sum("PRIORITY"), ["6", "4", "6"]);
    }
}
