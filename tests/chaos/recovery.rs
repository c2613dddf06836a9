//! How long after a heal until a run that began after it has landed.
//!
//! Where another fault keeps everything from landing at that time, there is nothing to measure.
//! In: faults, runs. Out: milliseconds. Pure.

use super::fleet::Millis;
use super::truth::Injected;

/// A run that landed: when its answer was asked for, and when it was committed.
#[derive(Debug, Clone, Copy)]
pub struct Success {
    pub began: Millis,
    pub committed: Millis,
}

/// The recovery from `fault`. `successes` in the order of `began`.
pub fn recovery(fault: &Injected, all: &[Injected], successes: &[Success]) -> Option<Millis> {
    let healed = fault.outage.map_or(fault.healed, |(_, over)| over.max(fault.healed));
    let first = successes.partition_point(|success| success.began < healed);
    let committed = successes[first..].iter().map(|success| success.committed).min()?;
    let disturbs = |other: &Injected| other.outage.is_some_and(|(from, to)| from < committed && healed < to);
    (!all.iter().any(disturbs)).then_some(committed - healed)
}

/// The middle one and the largest.
pub fn p50_and_max(mut all: Vec<Millis>) -> Option<(Millis, Millis)> {
    all.sort_unstable();
    Some((*all.get(all.len() / 2)?, *all.last()?))
}
