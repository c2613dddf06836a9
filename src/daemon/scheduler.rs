//! The scheduler: fires each tracker at its instants.
//!
//! ```text
//!  heartbeat, each second --\
//!  timer, to the millisecond -> what is due? --> Intake
//!  configuration changed ----/       \ the clock jumped? say so
//! ```
//!
//! The heartbeat finds the clock stepped and keeps the watchdog fed; a timer armed for the next firing within
//! `HORIZON` makes runs punctual. Each does the other's work, late, when the other fails.
//! Must not know: what a run does, SQL, HTTP.

use super::agenda::{self, Agenda};
use super::heartbeat::Heart;
use super::intake::Intake;
use super::pulse::Pulse;
use crate::clock;
use crate::config::Tracker;
use crate::config::diff::Diff;
use crate::schedule::jitter::jitter;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Timers are armed at most so far ahead: a stepped clock is found within it, also without a heartbeat.
const HORIZON: Duration = Duration::from_secs(2);
/// Wall and monotonic clock may drift apart by so much between two looks.
const JUMP: SignedDuration = SignedDuration::from_secs(2);
/// A clock set back by more was wrong before: trackers are planned anew instead of waiting for the old future.
const WRONG: SignedDuration = SignedDuration::from_hours(1);
/// Housekeeping: once an hour, when few schedules are due.
const CHORES: &str = "37 17 * * * *";
/// So long without a beat means that the heartbeat is dead.
const SILENCE: Duration = Duration::from_secs(5);

/// The trackers and their timers.
#[derive(Debug)]
pub struct Scheduler {
    intake: Arc<Intake>,
    book: Mutex<Book>,
    changed: Notify,
    looks: AtomicU64,
    /// When what was due had last been handed over, in milliseconds since the epoch.
    handed: AtomicI64,
    chores: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Book {
    agenda: Agenda,
    trackers: HashMap<Arc<str>, Arc<Tracker>>,
}

impl Scheduler {
    /// A scheduler without trackers.
    pub fn new(intake: Arc<Intake>) -> Scheduler {
        Scheduler {
            intake,
            book: Mutex::default(),
            changed: Notify::new(),
            looks: AtomicU64::new(0),
            handed: AtomicI64::new(0),
            chores: Arc::default(),
        }
    }

    /// Told when it is time for housekeeping.
    pub fn chores(&self) -> Arc<Notify> {
        Arc::clone(&self.chores)
    }

    /// Sets the timers of trackers: the first instant of each is after its time.
    pub fn begin<'a>(&self, trackers: impl Iterator<Item = (&'a Arc<Tracker>, Timestamp)>) {
        let mut book = self.book();
        trackers.for_each(|(tracker, after)| drop(book.enter(tracker, after)));
        drop(book);
        self.changed.notify_one();
    }

    /// Follows a changed configuration; trackers that did not change keep their timers.
    pub fn change(&self, trackers: &[Arc<Tracker>], diff: &Diff, now: Timestamp) {
        let mut book = self.book();
        let removed: Vec<_> = diff.removed.iter().filter_map(|name| book.remove(name, now)).collect();
        let fresh =
            |tracker: &&Arc<Tracker>| diff.added.contains(&tracker.name) || diff.changed.contains(&tracker.name);
        let waited: Vec<_> = trackers.iter().filter(fresh).filter_map(|tracker| book.enter(tracker, now)).collect();
        drop(book);
        for (tracker, due) in &removed {
            self.intake.outlived(tracker, due.first(), now);
        }
        for (tracker, due) in &waited {
            match due {
                agenda::Due::One { tracker, scheduled_at } => self.intake.due(tracker, *scheduled_at),
                agenda::Due::Lapse { first, .. } => drop(self.intake.lapsed(tracker, *first, now, waited.len())),
            }
        }
        self.changed.notify_one();
    }

    /// How often it looked: proof of progress for the watchdog.
    pub fn beats(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// All instants before have been handed over, those that wait for their jitter left out.
    pub fn handed_until(&self) -> Timestamp {
        let handed = Timestamp::from_millisecond(self.handed.load(Ordering::Acquire)).unwrap_or(Timestamp::UNIX_EPOCH);
        let next = self.book().agenda.next_instant();
        next.and_then(|next| next.checked_sub(SignedDuration::from_millis(1)).ok())
            .map_or(handed, |next| next.min(handed))
    }

    /// Fires until it is dropped.
    ///
    /// Cancel safety: safe between instants; each instant is handed over without an await.
    pub async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        let mut heart = match self.heart() {
            Ok(heart) => Some(heart),
            Err(error) => {
                tracing::error!(error = %error, "no heartbeat: timers go on without it");
                None
            }
        };
        let mut watch = ClockWatch::new(clock::now());
        let mut last_beat = Instant::now();
        loop {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let at_work = pulse.work();
            let now = clock::now();
            self.look_at_the_clock(&mut watch, now);
            let wait = self.fire(now);
            drop(at_work);
            tokio::select! {
                () = beat(&mut heart) => last_beat = Instant::now(),
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
            if heart.is_some() && last_beat.elapsed() > SILENCE {
                tracing::warn!(seconds = last_beat.elapsed().as_secs(), "no heartbeat: starting it again");
                heart = self.heart().ok();
                last_beat = Instant::now();
            }
        }
    }

    fn heart(&self) -> std::io::Result<Heart> {
        Heart::start(CHORES, self.chores())
    }

    /// Hands over what is due. Returns how long nothing will be.
    fn fire(&self, now: Timestamp) -> Duration {
        let mut book = self.book();
        let due = book.agenda.take_due(now);
        let next = book.agenda.next_fire();
        let lapsed: Vec<(Arc<Tracker>, Timestamp)> = due.iter().filter_map(|due| book.lapsed(due)).collect();
        drop(book);
        for due in due {
            if let agenda::Due::One { tracker, scheduled_at } = due {
                self.intake.due(&tracker, scheduled_at);
            }
        }
        self.lapse(&lapsed, now);
        self.handed.store(now.as_millisecond(), Ordering::Release);
        match next {
            Some(at) => Duration::try_from(at.duration_since(clock::now())).unwrap_or_default().min(HORIZON),
            None => HORIZON,
        }
    }

    /// The process or the machine stood still: these instants, and others up to now, have passed.
    fn lapse(&self, lapsed: &[(Arc<Tracker>, Timestamp)], now: Timestamp) {
        let (mut caught_up, mut missed, mut uncounted) = (0, 0, 0);
        for (tracker, first) in lapsed {
            let lapse = self.intake.lapsed(tracker, *first, now, lapsed.len());
            (caught_up, missed, uncounted) =
                (caught_up + lapse.runs, missed + lapse.missed, uncounted + lapse.uncounted);
        }
        let since = lapsed.iter().map(|(_, first)| *first).min().unwrap_or(now);
        // A busy moment is enough for trackers of 100 ms: their rows tell of it.
        if now.duration_since(since) > JUMP {
            let trackers = lapsed.len();
            tracing::warn!(%since, trackers, caught_up, missed, uncounted, "trackd stood still: instants passed");
        }
    }

    fn look_at_the_clock(&self, watch: &mut ClockWatch, now: Timestamp) {
        let Some(jump) = watch.look(now) else { return };
        tracing::warn!(seconds = jump.as_secs_f64(), "the wall clock jumped, or the machine slept");
        if jump < -WRONG {
            self.book().agenda.restart(now);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Gives back the replaced tracker if instants of it had come and were not fired yet, and these.
    fn enter(&mut self, tracker: &Arc<Tracker>, now: Timestamp) -> Option<(Arc<Tracker>, agenda::Due)> {
        let name: Arc<str> = Arc::from(tracker.name.as_str());
        let waited = self.agenda.set(&name, tracker.schedule.clone(), jitter(&name, tracker.jitter), now);
        let replaced = self.trackers.insert(name, Arc::clone(tracker));
        replaced.zip(waited)
    }

    /// As `enter`, of a tracker that is gone.
    fn remove(&mut self, name: &str, now: Timestamp) -> Option<(Arc<Tracker>, agenda::Due)> {
        let waited = self.agenda.remove(&Arc::from(name), now);
        self.trackers.remove(name).zip(waited)
    }

    fn lapsed(&self, due: &agenda::Due) -> Option<(Arc<Tracker>, Timestamp)> {
        match due {
            agenda::Due::Lapse { tracker, first } => Some((Arc::clone(self.trackers.get(tracker)?), *first)),
            agenda::Due::One { .. } => None,
        }
    }
}

async fn beat(heart: &mut Option<Heart>) {
    match heart {
        Some(heart) => heart.beat().await,
        None => std::future::pending().await,
    }
}

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
struct ClockWatch {
    wall: Timestamp,
    monotonic: Instant,
}

impl ClockWatch {
    fn new(now: Timestamp) -> ClockWatch {
        ClockWatch { wall: now, monotonic: Instant::now() }
    }

    /// By how much the wall clock moved beyond the time that passed, if by more than `JUMP`.
    fn look(&mut self, now: Timestamp) -> Option<SignedDuration> {
        let passed = SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or_default();
        let jump = now.duration_since(self.wall) - passed;
        *self = ClockWatch::new(now);
        (jump.abs() > JUMP).then_some(jump)
    }
}
