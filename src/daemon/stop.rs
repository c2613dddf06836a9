//! The stop: softly, then hard, then saying what was left.
//!
//! ```text
//!  no new run --> drain (at most `drain`, or until a second signal) --> abort, roll back --> ledger --> close
//! ```
//!
//! Must not know: SQL.

use super::signal::{Asked, Signals};
use super::{Daemon, LOOK, systemd};
use crate::log::Event;
use crate::status::{Phase, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// To write the last outcomes.
const FLUSH: Duration = Duration::from_secs(5);
/// To close connections, and to stop a server that is ours: its last checkpoint takes what the disk takes.
const CLOSE: Duration = Duration::from_secs(50);

impl Daemon {
    /// Stops everything. Returns the last status.
    pub(super) async fn stop(mut self, signals: &mut Signals) -> Arc<Status> {
        let drain = self.config.daemon.drain;
        systemd::stopping(drain + FLUSH + CLOSE);
        self.state.phase(Phase::Draining);
        self.line.show(&self.snapshot());
        self.asks.close();
        self.supervisor.dismiss("scheduler");
        // What waited has no row: the next start finds these instants missed and follows `missed`.
        let waiting = self.intake.dispatch.stop();
        self.intake.reports.hands.drop_waiting(&waiting);
        let waiting = waiting.len();
        tracing::info!(running = self.intake.dispatch.running(), waiting, event = %Event::Stopping, "stopping");
        self.drain(drain, signals).await;
        self.stop_recorder.cancel();
        if !self.supervisor.await_service("recorder", FLUSH).await {
            tracing::error!(
                runs = self.recorder.pending(),
                "outcomes of runs are not in the ledger: the database is away"
            );
        }
        let status = self.snapshot();
        self.supervisor.end().await;
        if timeout(CLOSE, self.setup.ledger.close()).await.is_err() {
            tracing::warn!(after = ?CLOSE, "the database did not close in time");
        }
        let lost = (self.setup.lost_lines)();
        tracing::info!(
            succeeded = status.totals.succeeded,
            failed = status.totals.failed,
            rows_written = status.totals.rows_written,
            log_lines_lost = lost.dropped_lines + lost.write_errors,
            event = %Event::Stopped,
            "stopped"
        );
        status
    }

    async fn drain(&mut self, at_most: Duration, signals: &mut Signals) {
        let (over, again) = (sleep(at_most), told_again(signals));
        tokio::pin!(over, again);
        let mut look = tokio::time::interval(LOOK);
        let mut looks = self.scheduler.beats();
        let why = loop {
            tokio::select! {
                () = self.supervisor.drained() => return,
                () = &mut over => break format!("stopped: not done within {}", humantime::format_duration(at_most)),
                () = &mut again => break "stopped at once".to_owned(),
                // The scheduler is gone: that this loop moves is all the progress there is, and it has an end.
                _ = look.tick() => {
                    looks += 1;
                    self.watchdog.feed(looks, Instant::now());
                }
            }
        };
        let runs = self.supervisor.cut_off(&why).await;
        tracing::warn!(runs, why, "runs were cut off and rolled back");
    }
}

async fn told_again(signals: &mut Signals) {
    while signals.next().await != Asked::Stop {}
}
