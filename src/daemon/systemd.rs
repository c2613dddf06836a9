//! What systemd is told: READY, RELOADING, STOPPING, STATUS, more time, and that the watchdog need not bite.
//!
//! Without $NOTIFY_SOCKET all of it is silent. Must not know: what the daemon does.

use crate::clock;
use crate::status::{Phase, Run, RunStatus, Status};
use jiff::Timestamp;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::Instant;

/// Time that a start asks for at once, and how often: it makes the embedded database, has it replay its log, migrates.
const MORE: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(20);
/// Each step of a start has limits of its own; one that takes longer than all of them is systemd's to end.
const LONGEST_START: Duration = Duration::from_secs(60 * 60);
/// Characters of a run's error in the status line; all of it is in the journal.
const ERROR: usize = 120;

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
    tell(&[NotifyState::Stopping, more(at_most)]);
}

fn more(length: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(length.as_micros()).unwrap_or(u32::MAX))
}

/// Asks for more time while the service starts.
#[derive(Debug)]
pub struct Start {
    begun: Instant,
    asked: Option<Instant>,
}

impl Start {
    /// It starts now.
    pub fn now() -> Start {
        Start { begun: Instant::now(), asked: None }
    }

    /// It still starts. Returns whether more time was asked for.
    pub fn goes_on(&mut self, now: Instant) -> bool {
        let asked = self.asked.is_some_and(|at| now.duration_since(at) < ASK);
        if asked || now.duration_since(self.begun) > LONGEST_START {
            return false;
        }
        self.asked = Some(now);
        tell(&[more(MORE)]);
        true
    }
}

/// The one line of `systemctl status`, told when it is another.
#[derive(Debug, Default)]
pub struct Line {
    degraded_since: Option<Timestamp>,
    told: String,
}

impl Line {
    /// Tells it, unless it says what it said.
    pub fn show(&mut self, status: &Status) {
        let degraded = status.phase == Phase::Degraded;
        self.degraded_since = self.degraded_since.or_else(|| Some(clock::now())).filter(|_| degraded);
        let line = line(status, self.degraded_since);
        if line != self.told {
            tell(&[NotifyState::Status(&line)]);
            self.told = line;
        }
    }
}

fn line(status: &Status, degraded_since: Option<Timestamp>) -> String {
    let phase = match (status.phase, degraded_since) {
        (Phase::Starting, _) => "starting".to_owned(),
        (Phase::Running, _) => "running".to_owned(),
        (Phase::Draining, _) => "draining".to_owned(),
        (Phase::Degraded, since) => format!("degraded since {}", time(since.unwrap_or(status.started_at))),
    };
    let mut line = format!("{phase}: {}", trackers(status));
    if let Some(error) = &status.database_error {
        line += &format!("; database: {}", short(error));
    }
    if status.spool.entries > 0 {
        line += &format!("; {} waiting in the spool", count(status.spool.entries, "payload"));
    }
    let next = status.trackers.iter().filter_map(|tracker| Some((tracker.next_run?, &tracker.name))).min();
    if let Some((at, name)) = next.filter(|_| status.phase != Phase::Draining) {
        line += &format!("; next {name} at {}", time(at));
    }
    if let Some(run) = last_failure(status) {
        let error = run.error.as_deref().unwrap_or("no error was given");
        line += &format!("; last failure {} at {}: {}", run.tracker, time(run.scheduled_at), short(error));
    }
    // A line feed would begin another assignment of the protocol.
    line.replace(['\n', '\r'], " ")
}

/// `10 trackers, 2 failing, 1 stale, 3 running, 1 queued`; what is nothing is left out.
fn trackers(status: &Status) -> String {
    let failing = status.trackers.iter().filter(|tracker| tracker.failures_in_a_row > 0).count();
    let mut text = count(status.trackers.len() as u64, "tracker");
    for (count, what) in [
        (failing, "failing"),
        (status.standing, "with a standing fault"),
        (status.stale, "stale"),
        (status.workers_busy, "running"),
        (status.queued, "queued"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// The latest run that failed, of trackers that have not succeeded since.
fn last_failure(status: &Status) -> Option<&Run> {
    let last = status.trackers.iter().filter_map(|tracker| tracker.last.as_ref());
    last.filter(|run| run.status == RunStatus::Failed).max_by_key(|run| run.finished_at)
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn time(at: Timestamp) -> String {
    at.strftime("%F %TZ").to_string()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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

    #[tokio::test(start_paused = true)]
    async fn a_start_asks_for_more_time_again_and_again_but_not_for_ever() {
        let mut start = Start::now();
        assert!(start.goes_on(Instant::now()));
        assert!(!start.goes_on(Instant::now()), "just asked");
        tokio::time::advance(ASK).await;
        assert!(start.goes_on(Instant::now()));
        tokio::time::advance(LONGEST_START).await;
        assert!(!start.goes_on(Instant::now()));
        assert!(MORE > 2 * ASK, "one that comes late is not too late");
    }

    #[test]
    fn the_status_line_is_one_line_whatever_the_database_says() {
        let status = Status { database_error: Some("a\nREADY=1".into()), ..Status::default() };
        assert_eq!(line(&status, None).lines().count(), 1);
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn tracker(name: &str, next: &str, failed_at: Option<&str>) -> crate::status::Tracker {
        let last = failed_at.map(|failed_at| Run {
            error: Some(format!("status 503, expected 200{}", "!".repeat(ERROR))),
            ..Run::begun(uuid::Uuid::nil(), name, at(failed_at), crate::status::Kind::Scheduled, "h:1", at(failed_at))
        });
        crate::status::Tracker {
            name: name.into(),
            schedule: "@hourly".into(),
            state: crate::status::TrackerState::Idle,
            next_run: Some(at(next)),
            failures_in_a_row: u32::from(last.is_some()),
            last,
            last_success: None,
            stale_at: None,
            stale: false,
            standing: None,
            totals: Default::default(),
            newest: Vec::new(),
        }
    }

    #[test]
    fn the_status_line_says_what_is_next_what_failed_and_since_when_the_database_is_away() {
        let trackers = vec![
            tracker("a", "2026-01-01T12:00:00Z", Some("2026-01-01T10:00:00Z")),
            tracker("b", "2026-01-01T11:30:00Z", Some("2026-01-01T11:00:00Z")),
            tracker("c", "2026-01-01T13:00:00Z", None),
        ];
        let running = Status { phase: Phase::Running, trackers, workers_busy: 1, ..Status::default() };
        let failure = format!("last failure b at 2026-01-01 11:00:00Z: status 503, expected 200{}…", "!".repeat(96));
        let next = "next b at 2026-01-01 11:30:00Z";
        let expected = format!("running: 3 trackers, 2 failing, 1 running; {next}; {failure}");
        assert_eq!(line(&running, None), expected);
        let spool = crate::status::Spool { entries: 1, ..Default::default() };
        let database_error = Some("connection refused".to_owned());
        let degraded = Status { phase: Phase::Degraded, database_error, spool, workers_busy: 0, ..running };
        let expected = format!(
            "degraded since 2026-01-01 11:05:00Z: 3 trackers, 2 failing; database: connection refused; \
             1 payload waiting in the spool; {next}; {failure}"
        );
        assert_eq!(line(&degraded, Some(at("2026-01-01T11:05:00Z"))), expected);
    }

    #[test]
    fn since_when_it_is_degraded_is_remembered_until_it_is_not() {
        let (mut shown, status) = (Line::default(), |phase| Status { phase, ..Status::default() });
        shown.show(&status(Phase::Degraded));
        let since = shown.degraded_since;
        shown.show(&status(Phase::Degraded));
        assert!(since.is_some() && shown.degraded_since == since);
        shown.show(&status(Phase::Running));
        assert_eq!((shown.degraded_since, shown.told.as_str()), (None, "running: 0 trackers"));
    }
}
