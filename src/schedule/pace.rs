//! How often a tracker is tried that fails again and again until somebody changes something.
//!
//! ```text
//!  standing failures in a row   1  2  3  4  5  6…
//!  tried every Nth instant      1  1  2  4  8  10
//! ```
//!
//! In: ticks, and ends of runs. Out: run, or pass over. Two failures may be one answer of a server that hiccups: they
//! slow nothing down. Must not know: the clock, what a fault is.

use jiff::Timestamp;

/// Failures that do not slow it down.
const PATIENCE: u32 = 2;
/// Never slower than one in so many.
const SLOWEST: u32 = 10;

/// One tracker. Starts at full pace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    fault: Option<Standing>,
    /// Instants still to be passed over before it is tried.
    pass: u32,
}

/// A fault that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    /// The scheduled instant of the first run that failed of it.
    pub since: Timestamp,
    /// The scheduled instant of the latest.
    pub latest: Timestamp,
    /// Runs that failed of it in a row.
    pub failures: u32,
    /// It is tried every so many instants; 1: at each.
    pub every_nth: u32,
}

impl Pace {
    /// The run at `at` failed, and will fail again. A run known already, or before one known, changes nothing.
    pub fn failed(&mut self, at: Timestamp) {
        let known = self.fault;
        if known.is_some_and(|fault| at <= fault.latest) {
            return;
        }
        let failures = known.map_or(0, |fault| fault.failures).saturating_add(1);
        let every_nth = every_nth(failures);
        self.fault = Some(Standing { since: known.map_or(at, |fault| fault.since), latest: at, failures, every_nth });
        self.pass = every_nth - 1;
    }

    /// The run at `at` succeeded: full pace, unless it is older than what failed.
    pub fn succeeded(&mut self, at: Timestamp) {
        if self.fault.is_some_and(|fault| at >= fault.latest) {
            self.reset();
        }
    }

    /// Something has changed: tried at once.
    pub fn reset(&mut self) {
        *self = Pace::default();
    }

    /// An instant is here: the fault for which it is passed over, or `None` to run it.
    pub fn tick(&mut self) -> Option<Standing> {
        self.pass = self.pass.checked_sub(1)?;
        self.fault
    }

    /// The fault that stands.
    pub fn fault(&self) -> Option<Standing> {
        self.fault
    }
}

fn every_nth(failures: u32) -> u32 {
    2u32.saturating_pow(failures.saturating_sub(PATIENCE)).min(SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// The instants that run, of a tracker that always fails.
    fn tried(instants: i64) -> Vec<i64> {
        let mut pace = Pace::default();
        let mut tried = Vec::new();
        for second in 0..instants {
            if pace.tick().is_none() {
                tried.push(second);
                pace.failed(at(second));
            }
        }
        tried
    }

    #[test]
    fn it_slows_down_to_one_in_ten_and_no_further() {
        assert_eq!(tried(60), [0, 1, 2, 4, 8, 16, 26, 36, 46, 56]);
    }

    #[test]
    fn a_success_and_a_change_bring_full_pace_back_at_once() {
        for heal in [(|pace: &mut Pace| pace.succeeded(at(9))) as fn(&mut Pace), |pace| pace.reset()] {
            let mut pace = Pace::default();
            (0..9).for_each(|second| pace.failed(at(second)));
            let fault = pace.tick().expect("it is slow");
            assert_eq!((fault.since, fault.latest, fault.failures, fault.every_nth), (at(0), at(8), 9, 10));
            heal(&mut pace);
            assert_eq!((pace.tick(), pace.fault()), (None, None));
        }
    }

    #[test]
    fn what_is_heard_twice_or_late_counts_once() {
        let mut pace = Pace::default();
        pace.failed(at(5));
        pace.failed(at(5));
        pace.failed(at(4));
        pace.succeeded(at(4));
        assert_eq!(pace.fault().map(|fault| fault.failures), Some(1));
    }
}
