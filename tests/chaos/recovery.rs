//! How long after a heal until a run that began after it has landed.
//!
//! Where other faults keep everything from landing at that time, on all daemons at once or on each by itself, there is
//! nothing to measure.
//! In: faults, runs. Out: milliseconds. Pure.

use super::fleet::Millis;
use super::truth::Injected;

/// A run that landed: when its answer was asked for, and when it was committed.
#[derive(Debug, Clone, Copy)]
pub struct Success {
    pub began: Millis,
    pub committed: Millis,
}

/// The recovery from `fault`, with so many daemons. `successes` in the order of `began`.
pub fn recovery(fault: &Injected, all: &[Injected], daemons: usize, successes: &[Success]) -> Option<Millis> {
    // Others may go on while one daemon is out.
    let own = fault.outage.filter(|outage| outage.only.is_none());
    let healed = own.map_or(fault.healed, |outage| outage.to.max(fault.healed));
    let first = successes.partition_point(|success| success.began < healed);
    let committed = successes[first..].iter().map(|success| success.committed).min()?;
    let disturbing: Vec<Option<usize>> = (all.iter().filter_map(|other| other.outage))
        .filter(|outage| outage.from < committed && healed < outage.to)
        .map(|outage| outage.only)
        .collect();
    let is_out = |daemon| disturbing.iter().any(|only| only.is_none_or(|only| only == daemon));
    (!(0..daemons).all(is_out)).then_some(committed - healed)
}

/// The middle one and the largest.
pub fn p50_and_max(mut all: Vec<Millis>) -> Option<(Millis, Millis)> {
    all.sort_unstable();
    Some((*all.get(all.len() / 2)?, *all.last()?))
}
