//! For how long the database may refuse what may pass another time, before it is taken at its word.
//!
//! Must not know: what is refused, why.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So long a tracker's payloads wait for one that is refused.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// Since when which trackers are refused.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<HashMap<String, Instant>>);

/// How a refusal is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    First,
    Again,
    /// Nothing of this tracker landed for too long.
    Last,
}

impl Patience {
    pub(super) fn refused(&self, tracker: &str) -> Refusal {
        let now = Instant::now();
        let mut since = self.since();
        match since.get(tracker) {
            None => {
                since.insert(tracker.to_owned(), now);
                Refusal::First
            }
            Some(since) if now.duration_since(*since) < LONGEST => Refusal::Again,
            Some(_) => Refusal::Last,
        }
    }

    /// One landed, or the database was away.
    pub(super) fn restored(&self, tracker: &str) {
        self.since().remove(tracker);
    }

    fn since(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tracker_is_given_up_when_nothing_of_it_landed_for_too_long() {
        let patience = Patience::default();
        assert_eq!(
            ["a", "b", "a"].map(|tracker| patience.refused(tracker)),
            [Refusal::First, Refusal::First, Refusal::Again]
        );
        tokio::time::advance(LONGEST / 2).await;
        patience.restored("b");
        assert_eq!(patience.refused("b"), Refusal::First);
        tokio::time::advance(LONGEST / 2).await;
        // And the next one, which would else hold up all others for as long.
        assert_eq!(
            ["a", "a", "b"].map(|tracker| patience.refused(tracker)),
            [Refusal::Last, Refusal::Last, Refusal::Again]
        );
    }
}
