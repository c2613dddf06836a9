//! Proof of progress of one service: at rest, or at work since when.
//!
//! At rest a service waits for something that may never come, and that is fine; at work it has to come to an end.
//! Must not know: what the work is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Shared by a service, which says what it does, and the supervisor, which looks.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

/// A service is at work for as long as this lives.
#[derive(Debug)]
pub struct AtWork<'a>(&'a Pulse);

impl Pulse {
    /// Work begins, or its next part: the time counts anew.
    pub fn work(&self) -> AtWork<'_> {
        self.set(Some(Instant::now()));
        AtWork(self)
    }

    /// Whether one part of the work takes longer than `longest`.
    pub fn is_stuck(&self, now: Instant, longest: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > longest)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_rests_is_never_stuck_and_who_works_is_from_the_begin_of_its_part() {
        let (pulse, longest) = (Pulse::default(), Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert!(!pulse.is_stuck(Instant::now(), longest), "it rests");
        let part = pulse.work();
        tokio::time::advance(longest).await;
        assert!(!pulse.is_stuck(Instant::now(), longest));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pulse.is_stuck(Instant::now(), longest));
        drop(part);
        assert!(!pulse.is_stuck(Instant::now(), longest), "it rests again");
    }
}
