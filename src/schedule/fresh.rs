//! When a tracker that brings nothing new becomes stale.
//!
//! In: its latest success, or since when it is followed, and how long that may be ago. Out: an instant.
//! Must not know: the clock.

use jiff::Timestamp;
use std::time::Duration;

/// From this moment on it is stale, unless it succeeds before.
pub fn stale_at(last_success: Option<Timestamp>, followed_since: Timestamp, within: Duration) -> Timestamp {
    last_success.unwrap_or(followed_since).checked_add(within).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_latest_success_or_from_when_it_is_followed() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let within = Duration::from_secs(45);
        assert_eq!(stale_at(Some(at(100)), at(7), within), at(145));
        assert_eq!(stale_at(None, at(7), within), at(52));
        assert_eq!(stale_at(None, at(7), Duration::MAX), Timestamp::MAX);
    }
}
