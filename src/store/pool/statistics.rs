//! What a pool counts. Every number is exact: what was asked for is what was lent, refused, failed or given up.
//!
//! Must not know: pages, metrics' names.

use super::events::End;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in seconds; the last bucket has none.
pub const BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// A counter.
#[derive(Debug, Default)]
pub(in crate::store) struct Counter(AtomicU64);

impl Counter {
    pub(in crate::store) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub(in crate::store) struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    pub(in crate::store) fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Histogram {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Histogram {
            count: buckets.iter().sum(),
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            buckets,
        }
    }
}

/// The counters of a pool, from its first use on, through resets and changes.
#[derive(Debug, Default)]
pub(in crate::store) struct Counters {
    pub asked: Counter,
    pub lent: Counter,
    pub timed_out: Counter,
    pub refused: Counter,
    pub failed: Counter,
    pub given_up: Counter,
    pub returned: Counter,
    pub connected: Counter,
    pub connect_failed: Counter,
    ended: [Counter; 5],
    pub committed: Counter,
    pub rolled_back: Counter,
    pub retried: Counter,
    pub unknown: Counter,
    pub wait: Durations,
    pub hold: Durations,
    pub connect: Durations,
}

impl Counters {
    pub(super) fn ended(&self, why: End) {
        self.ended[why as usize].add();
    }

    pub(super) fn get(&self) -> Statistics {
        let ended = |why: End| self.ended[why as usize].get();
        // What follows is read before what it follows from: nobody sees more lent than asked for.
        let (returned, lent) = (self.returned.get(), self.lent.get());
        Statistics {
            returned,
            lent,
            timed_out: self.timed_out.get(),
            refused: self.refused.get(),
            failed: self.failed.get(),
            given_up: self.given_up.get(),
            asked: self.asked.get(),
            recycled: ended(End::Recycled),
            broken: ended(End::Broken),
            invalid: ended(End::Invalid),
            overflow: ended(End::Overflow),
            reset: ended(End::Reset),
            connected: self.connected.get(),
            connect_failed: self.connect_failed.get(),
            committed: self.committed.get(),
            rolled_back: self.rolled_back.get(),
            retried: self.retried.get(),
            unknown: self.unknown.get(),
            wait: self.wait.get(),
            hold: self.hold.get(),
            connect: self.connect.get(),
        }
    }
}

/// What a pool did since its first use.
///
/// At rest `asked = lent + timed_out + refused + failed + given_up`, `lent = returned`, and
/// `connected = size + recycled + broken + invalid + overflow + reset`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Connections asked for.
    pub asked: u64,
    /// Connections lent.
    pub lent: u64,
    /// Waits that reached `pool_timeout`.
    pub timed_out: u64,
    /// Refused at once, because no connection can be made.
    pub refused: u64,
    /// Connects that failed for the one who asked.
    pub failed: u64,
    /// Waits that were cancelled.
    pub given_up: u64,
    /// Connections that came back.
    pub returned: u64,
    /// Connections made.
    pub connected: u64,
    /// Connects that failed.
    pub connect_failed: u64,
    /// Closed because of their age.
    pub recycled: u64,
    /// Closed because they were lost, or their state was not known.
    pub broken: u64,
    /// Closed because they did not answer the ping as they should.
    pub invalid: u64,
    /// Closed because nobody needed them any more.
    pub overflow: u64,
    /// Closed because the pool was reset, changed or closed.
    pub reset: u64,
    /// Transactions that landed.
    pub committed: u64,
    /// Transactions rolled back.
    pub rolled_back: u64,
    /// Transactions tried again after a serialization failure or a deadlock.
    pub retried: u64,
    /// Commits whose answer was lost.
    pub unknown: u64,
    /// Waits for a connection.
    pub wait: Histogram,
    /// How long connections were held.
    pub hold: Histogram,
    /// How long connecting took.
    pub connect: Histogram,
}

/// How long things took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: Duration,
    /// How many up to each of `BOUNDS`, and above the last; each in one bucket only.
    pub buckets: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_one_bucket() {
        let durations = Durations::default();
        for took in [0, 100, 101, 1_000_000, 30_000_000, 30_000_001] {
            durations.add(Duration::from_micros(took));
        }
        let histogram = durations.get();
        assert_eq!((histogram.count, histogram.sum), (6, Duration::from_micros(61_000_202)));
        assert_eq!(histogram.buckets[..2], [2, 1]);
        assert_eq!(histogram.buckets[12..], [1, 0, 1, 1]);
    }

    #[test]
    fn ends_are_counted_apart() {
        let counters = Counters::default();
        for why in
            [End::Recycled, End::Broken, End::Broken, End::Invalid, End::Overflow, End::Reset, End::Reset, End::Reset]
        {
            counters.ended(why);
        }
        let seen = counters.get();
        assert_eq!((seen.recycled, seen.broken, seen.invalid, seen.overflow, seen.reset), (1, 2, 1, 1, 3));
    }
}
