//! What becomes of instants that passed while nobody looked.
//!
//! In: a schedule, its rules, and a span of time. Out: which of its instants are run, which are recorded as missed.
//! Must not know: the clock, the ledger. Bounded in time and memory however long the absence was.

use super::{Missed, MissedPolicy, Schedule};
use jiff::Timestamp;
use std::collections::VecDeque;

/// The most instants that are listed as missed, and the most that are run.
pub const MOST_LISTED: usize = 10_000;

/// Instants of all trackers together that are listed at once: half a minute of writing, and 16 MB while they wait.
const MOST_ROWS: usize = 1_000_000;
/// Every tracker may list so many, however many trackers there are.
const FEWEST_LISTED: usize = 100;

/// How many each of so many trackers may list.
pub fn share(trackers: usize) -> usize {
    (MOST_ROWS / trackers.max(1)).clamp(FEWEST_LISTED, MOST_LISTED)
}

/// The time nobody looked: after `last`, and up to `now`.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// All instants up to this one are dealt with.
    pub last: Timestamp,
    pub now: Timestamp,
    /// Instants in between that are dealt with already, upwards.
    pub recorded: &'a [Timestamp],
    /// At most so many are listed as missed; [`MOST_LISTED`] or fewer.
    pub most_listed: usize,
}

impl Span<'_> {
    /// A span of which nothing is dealt with.
    pub fn new(last: Timestamp, now: Timestamp) -> Span<'static> {
        Span { last, now, recorded: &[], most_listed: MOST_LISTED }
    }
}

/// Every instant of a span, dealt out: each is in one place, none in two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// To be run, oldest first, at most [`MOST_LISTED`].
    pub run: Vec<Timestamp>,
    /// Never run, oldest first, the newest `most_listed` of them.
    pub missed: Vec<Timestamp>,
    /// Older ones that are not listed. A lower bound for a cron expression with far more instants than are listed.
    pub uncounted: u64,
}

/// Deals out the instants of the span that are not dealt with yet.
///
/// `once` runs the newest, `all` the newest `limit`, never one older than `max_age`; all others are missed.
pub fn catch_up(schedule: &Schedule, missed: &Missed, span: &Span<'_>) -> CatchUp {
    let limit = match missed.policy {
        MissedPolicy::Skip => 0,
        MissedPolicy::Once => 1,
        MissedPolicy::All => usize::try_from(missed.limit).unwrap_or(MOST_LISTED).min(MOST_LISTED),
    };
    let listed = span.most_listed.min(MOST_LISTED);
    let (mut newest, older) = newest(schedule, span, listed + limit + span.recorded.len());
    let first = newest.first().copied().unwrap_or(span.now);
    newest.retain(|at| span.recorded.binary_search(at).is_err());
    let oldest_run = span.now.checked_sub(missed.max_age).unwrap_or(Timestamp::MIN);
    let young = newest.partition_point(|at| *at < oldest_run);
    let first_run = young.max(newest.len().saturating_sub(limit));
    let first_missed = first_run.saturating_sub(listed);
    CatchUp {
        run: newest[first_run..].to_vec(),
        missed: newest[first_missed..first_run].to_vec(),
        uncounted: (older + first_missed as u64).saturating_sub(span.recorded.partition_point(|at| *at < first) as u64),
    }
}

/// The newest `most` instants of the span, oldest first, and how many are older.
fn newest(schedule: &Schedule, span: &Span<'_>, most: usize) -> (Vec<Timestamp>, u64) {
    let now = span.now;
    let mut kept = VecDeque::new();
    let mut older = 0;
    let mut at = span.last;
    if let Schedule::Every(every) = schedule {
        older = every.count(at, now).saturating_sub(most as u64);
        if older > 0 {
            at = every.before_newest(now, most as u64).unwrap_or(at);
        }
    }
    // Instants that one stretch of a cron expression is walked for, before the search moves nearer to now.
    let most_walked = 4 * most.max(1);
    let (mut walked, mut stretch) = (0, at);
    while let Some(next) = schedule.next_after(at).filter(|next| *next <= now) {
        if kept.len() >= most {
            kept.pop_front();
            older += 1;
        }
        if most > 0 {
            kept.push_back(next);
        }
        at = next;
        walked += 1;
        if walked == most_walked {
            // Years of a fast expression: go on where one more such stretch reaches now. What is left at least halves
            // each time, so that the work grows with its logarithm.
            at = at.max(now.checked_sub(at.duration_since(stretch)).unwrap_or(at));
            (walked, stretch) = (0, at);
        }
    }
    (kept.into(), older)
}

#[cfg(test)]
#[path = "missed_tests.rs"]
mod tests;
