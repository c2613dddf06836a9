//! What systemd is told: READY, RELOADING, STOPPING, STATUS, and that the watchdog need not bite.
//!
//! Without $NOTIFY_SOCKET all of it is silent. Must not know: what the daemon does.

use crate::status::{Phase, Status};
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::Instant;

/// The service is up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; `ready` ends it. Both facts in one datagram, as Type=notify-reload demands.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "read the monotonic clock"),
    }
}

/// The service stops, within `at_most`.
pub fn stopping(at_most: Duration) {
    let microseconds = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// The one line of `systemctl status`.
pub fn status(status: &Status) {
    tell(&[NotifyState::Status(&line(status))]);
}

fn line(status: &Status) -> String {
    let failing = status.trackers.iter().filter(|tracker| tracker.failures_in_a_row > 0).count();
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Degraded => "degraded",
        Phase::Draining => "draining",
    };
    let mut line = format!(
        "{phase}: {} trackers, {failing} failing, {} running, {} queued; {} runs succeeded, {} failed, {} rows",
        status.trackers.len(),
        status.workers_busy,
        status.queued,
        status.totals.succeeded,
        status.totals.failed,
        status.totals.rows_written,
    );
    for (count, what) in [(status.stale, "stale"), (status.standing, "with a standing fault")] {
        if count > 0 {
            line.push_str(&format!("; {count} {what}"));
        }
    }
    if let Some(error) = &status.database_error {
        line.push_str("; database: ");
        line.push_str(error);
    }
    if status.spool.entries > 0 {
        line.push_str(&format!("; {} payloads wait in the spool", status.spool.entries));
    }
    // A line feed would begin another assignment of the protocol.
    line.replace(['\n', '\r'], " ")
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "notify systemd");
    }
}

/// systemd's watchdog, fed only while `progress` moves.
#[derive(Debug)]
pub struct Watchdog {
    /// Half of WATCHDOG_USEC; `None` where systemd does not watch this process.
    every: Option<Duration>,
    fed: Instant,
    progress: u64,
}

impl Watchdog {
    /// From the environment of the process.
    pub fn from_environment() -> Watchdog {
        Watchdog { every: sd_notify::watchdog_enabled().map(|whole| whole / 2), fed: Instant::now(), progress: 0 }
    }

    /// Feeds it when it is time and `progress` is another number than at the last feeding. Returns whether it did.
    pub fn feed(&mut self, progress: u64, now: Instant) -> bool {
        let due = self.every.is_some_and(|every| now.duration_since(self.fed) + Duration::from_secs(1) >= every);
        if !due || progress == self.progress {
            return false;
        }
        (self.fed, self.progress) = (now, progress);
        tell(&[NotifyState::Watchdog]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_in_time_and_only_while_something_moves() {
        let mut watchdog = Watchdog { every: Some(Duration::from_secs(15)), fed: Instant::now(), progress: 0 };
        assert!(!watchdog.feed(1, Instant::now()), "too early");
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(watchdog.feed(1, Instant::now()));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!watchdog.feed(1, Instant::now()), "nothing moved");
        assert!(watchdog.feed(2, Instant::now()));
    }

    #[test]
    fn the_status_line_is_one_line_whatever_the_database_says() {
        let status = Status { database_error: Some("a\nREADY=1".into()), ..Status::default() };
        assert_eq!(line(&status).lines().count(), 1);
    }
}
