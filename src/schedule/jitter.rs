//! The delay that spreads trackers of one schedule, fixed per tracker.
//!
//! In: a name and the longest delay. Out: always the same delay, on every instance and after every restart.
//! Must not know: chance, the clock.

use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// The delay of `tracker`: 0 to `max`, in whole milliseconds.
pub fn jitter(tracker: &str, max: Duration) -> Duration {
    let choices = max.as_millis().saturating_add(1);
    let millis = u128::from(xxh3_64(tracker.as_bytes())) % choices;
    Duration::from_millis(u64::try_from(millis).expect("a remainder of a u64 is a u64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_stays_in_its_range_and_never_changes() {
        let max = Duration::from_secs(5);
        let delays: Vec<_> = (0..1_000).map(|n| jitter(&format!("tracker-{n}"), max)).collect();
        assert!(delays.iter().all(|delay| *delay <= max));
        let early = delays.iter().filter(|delay| **delay < max / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
        // A value of this build that the next must give too.
        assert_eq!(jitter("leaderboard", max), Duration::from_millis(4_333));
        assert_eq!(jitter("leaderboard", Duration::ZERO), Duration::ZERO);
    }
}
