//! A fixed period, aligned to the unix epoch, so that its instants are the same on every instance.
//!
//! In: a period, an instant. Out: the next multiple of the period since 1970-01-01T00:00:00Z.
//! Must not know: the clock, zones, trackers.

use jiff::Timestamp;
use std::time::Duration;

/// The shortest period.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// The longest period.
pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A period of whole milliseconds, [`SHORTEST`] to [`LONGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    period: Duration,
}

impl Every {
    /// Takes a period of 100 ms to 365 days, in whole milliseconds.
    ///
    /// # Errors
    /// One line: what was expected and got.
    pub fn new(period: Duration) -> Result<Every, String> {
        if !(SHORTEST..=LONGEST).contains(&period) {
            return Err(format!("period {period:?}: expected 100ms to 365 days"));
        }
        if !period.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(format!("period {period:?}: expected whole milliseconds"));
        }
        Ok(Every { period })
    }

    /// The period.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The first multiple of the period strictly after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        Timestamp::from_nanosecond((self.index(after) + 1) * self.nanoseconds()).ok()
    }

    /// How many instants lie strictly after `after` and not after `until`.
    pub fn count(&self, after: Timestamp, until: Timestamp) -> u64 {
        u64::try_from(self.index(until) - self.index(after)).unwrap_or(0)
    }

    /// The start of a span that ends with `until` and holds its `newest` last instants.
    pub(super) fn before_newest(&self, until: Timestamp, newest: u64) -> Option<Timestamp> {
        Timestamp::from_nanosecond((self.index(until) - i128::from(newest)) * self.nanoseconds()).ok()
    }

    fn nanoseconds(&self) -> i128 {
        self.period.as_nanos().cast_signed()
    }

    fn index(&self, at: Timestamp) -> i128 {
        at.as_nanosecond().div_euclid(self.nanoseconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn periods_outside_the_range_are_refused() {
        let refused = |period| Every::new(period).expect_err("refused");
        assert_eq!(refused(Duration::from_millis(99)), "period 99ms: expected 100ms to 365 days");
        assert_eq!(refused(LONGEST + SHORTEST), "period 31536000.1s: expected 100ms to 365 days");
        assert_eq!(refused(Duration::from_micros(100_500)), "period 100.5ms: expected whole milliseconds");
        assert!(Every::new(SHORTEST).is_ok() && Every::new(LONGEST).is_ok());
    }

    proptest! {
        #[test]
        fn instants_are_multiples_of_the_period_and_none_is_left_out(
            millis in 100u64..31_536_000_000, at in -4_000_000_000_000_000i64..4_000_000_000_000_000,
        ) {
            let every = Every::new(Duration::from_millis(millis)).unwrap();
            let at = Timestamp::from_microsecond(at).unwrap();
            let next = every.next_after(at).unwrap();
            prop_assert_eq!(next.as_millisecond().rem_euclid(millis as i64), 0);
            prop_assert!(next > at && next.duration_since(at).unsigned_abs() <= every.period());
            prop_assert_eq!(every.count(at, next), 1);
            prop_assert_eq!(every.count(next, at), 0);
        }
    }
}
