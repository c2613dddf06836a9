//! The breaker: while no connection can be made, one borrower at a time tries, and all others are told why at once.
//!
//! ```text
//!  Closed --a connect failed, and no connection is left--> Open --after a pause, one--> Probe
//!    ^                                                       ^                            |
//!    +------------------------ connected --------------------+-------- failed ------------+
//! ```
//!
//! In: what became of connects. Out: whether to go on, wait, or give up with the last cause.
//! Must not know: how connections are made.

use crate::store::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The first pause after a failure; doubled at each further one.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause: a server that is back is found within this time, if anybody asks.
const LONGEST: Duration = Duration::from_millis(500);

/// Whether connections can be made.
#[derive(Debug)]
pub(super) struct Breaker {
    pause: Mutex<Pause>,
    /// The last failure; nothing while connections can be made.
    cause: watch::Sender<Option<Error>>,
}

#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    /// Connects under way.
    connecting: u32,
    /// No probe before.
    until: Option<Instant>,
    probing: bool,
}

/// The right to try. Dropped, it passes to the next who asks.
#[derive(Debug)]
pub(super) struct Probe<'a>(&'a Breaker);

/// A connect under way, until its connection can be lent. Dropped, it is none any more.
#[derive(Debug)]
pub(super) struct Connecting(Arc<Breaker>);

/// Why a borrower may not try: the last cause, and how long that holds at most.
pub(super) type Refused = (Error, Duration);

impl Breaker {
    pub(super) fn new() -> Breaker {
        Breaker { pause: Mutex::default(), cause: watch::channel(None).0 }
    }

    /// Asks before a connection is waited for: `None` goes on freely, a probe as the only one.
    pub(super) fn admit(&self, now: Instant) -> Result<Option<Probe<'_>>, Refused> {
        let Some(cause) = self.cause.borrow().clone() else { return Ok(None) };
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let left = pause.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if pause.probing {
            return Err((cause, LONGEST));
        }
        if !left.is_zero() {
            return Err((cause, left));
        }
        pause.probing = true;
        Ok(Some(Probe(self)))
    }

    /// Whether a connect failed so lately that another one is not worth it yet.
    ///
    /// Those who wait are told the cause again: with connections left they go on waiting for one of them.
    pub(super) fn is_pausing(&self, now: Instant) -> bool {
        let pausing = self.pause.lock().unwrap_or_else(PoisonError::into_inner).until.is_some_and(|until| now < until);
        if pausing {
            self.cause.send_modify(|_| {});
        }
        pausing
    }

    /// A connect begins.
    pub(super) fn connecting(self: &Arc<Self>) -> Connecting {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).connecting += 1;
        Connecting(Arc::clone(self))
    }

    /// Whether a connect is under way that may still serve, the probe's own left out.
    pub(super) fn is_connecting(&self) -> bool {
        let pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.connecting > u32::from(pause.probing)
    }

    /// A connection was made.
    pub(super) fn connected(&self) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        (pause.failures, pause.until) = (0, None);
        drop(pause);
        self.cause.send_if_modified(|cause| cause.take().is_some());
    }

    /// A connect failed. `jitter` is in 0..1.
    pub(super) fn failed(&self, connecting: Connecting, error: Error, now: Instant, jitter: f64) {
        drop(connecting);
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = FIRST.saturating_mul(1 << pause.failures.min(8)).min(LONGEST);
        pause.failures = pause.failures.saturating_add(1);
        // Half of it fixed, half at random: many daemons must not come back at once.
        pause.until = Some(now + longest.mul_f64(0.5 + jitter / 2.0));
        drop(pause);
        self.cause.send_replace(Some(error));
    }

    /// The last failure, if nothing was connected since.
    pub(super) fn cause(&self) -> Option<Error> {
        self.cause.borrow().clone()
    }

    /// Told of each failure, and of the connection that ends them.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Error>> {
        self.cause.subscribe()
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.pause.lock().unwrap_or_else(PoisonError::into_inner).connecting -= 1;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.pause.lock().unwrap_or_else(PoisonError::into_inner).probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Error {
        Error::unavailable("connect", "refused")
    }

    #[test]
    fn one_tries_while_the_others_are_told() {
        let (breaker, start) = (Arc::new(Breaker::new()), Instant::now());
        assert!(matches!(breaker.admit(start), Ok(None)));
        breaker.failed(breaker.connecting(), away(), start, 1.0);
        let Err((error, left)) = breaker.admit(start) else { panic!("refused") };
        assert_eq!((error.to_string().as_str(), left), ("connect: refused", FIRST));
        let later = start + FIRST;
        let Ok(Some(probe)) = breaker.admit(later) else { panic!("a probe") };
        assert!(breaker.admit(later).is_err(), "one at a time");
        drop(probe);
        assert!(matches!(breaker.admit(later), Ok(Some(_))), "given up, the next one tries");
        breaker.connected();
        assert!(matches!(breaker.admit(later), Ok(None)));
        assert!(breaker.cause().is_none());
    }

    #[test]
    fn a_connect_that_may_still_serve_is_known() {
        let (breaker, start) = (Arc::new(Breaker::new()), Instant::now());
        let (first, second) = (breaker.connecting(), breaker.connecting());
        breaker.failed(first, away(), start, 0.0);
        assert!(breaker.is_connecting(), "the other one");
        breaker.failed(second, away(), start, 0.0);
        assert!(!breaker.is_connecting());
        let Ok(Some(_probe)) = breaker.admit(start + LONGEST) else { panic!("a probe") };
        let _its = breaker.connecting();
        assert!(!breaker.is_connecting(), "a probe is nobody else's");
    }

    #[test]
    fn who_waits_is_told_the_cause_again_by_a_try_that_is_passed_over() {
        let (breaker, start) = (Arc::new(Breaker::new()), Instant::now());
        assert!(!breaker.is_pausing(start));
        breaker.failed(breaker.connecting(), away(), start, 1.0);
        let mut told = breaker.subscribe();
        assert!(breaker.is_pausing(start) && told.has_changed().unwrap());
        told.mark_unchanged();
        assert!(!breaker.is_pausing(start + FIRST) && !told.has_changed().unwrap());
        breaker.connected();
        assert!(!breaker.is_pausing(start));
    }

    #[test]
    fn pauses_grow_to_half_a_second_and_begin_anew() {
        let (breaker, start) = (Arc::new(Breaker::new()), Instant::now());
        let pause = || match breaker.admit(start) {
            Err((_, left)) => left,
            other => panic!("{other:?}"),
        };
        let mut pauses = Vec::new();
        for _ in 0..6 {
            breaker.failed(breaker.connecting(), away(), start, 1.0);
            pauses.push(pause().as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500]);
        breaker.connected();
        breaker.failed(breaker.connecting(), away(), start, 0.0);
        assert_eq!(pause(), FIRST / 2);
    }
}
