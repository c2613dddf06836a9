//! Schedules: cron and `every` → instants, and the rules for missed and overlapping ones.
//!
//! Pure: times come in as arguments. Must not know: tokio, the database, the clock, configuration files, logging.

pub mod cron;
pub mod every;
mod field;
pub mod fresh;
pub mod jitter;
pub mod missed;
pub mod overlap;
pub mod pace;

use jiff::Timestamp;

/// When a tracker is due.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// A cron expression in a time zone.
    Cron(cron::Cron),
    /// A period, aligned to the epoch.
    Every(every::Every),
}

impl Schedule {
    /// The first instant strictly after `after`, or `None` when there is none before the year 9999.
    ///
    /// Always later than `after`, to the whole second (cron) or the period's millisecond (every).
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Cron(cron) => cron.next_after(after),
            Schedule::Every(every) => every.next_after(after),
        }
    }
}

/// What to do with instants that passed while trackd was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedPolicy {
    /// None of them is run.
    Skip,
    /// The latest is run (default).
    Once,
    /// All are run, oldest first.
    All,
}

/// `missed`, `missed_max_age`, `missed_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// Which are run.
    pub policy: MissedPolicy,
    /// Older ones are never run.
    pub max_age: std::time::Duration,
    /// At most so many are run.
    pub limit: u32,
}

/// What a tick that finds its tracker busy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// One waits, the latest; the ones it displaces are recorded as skipped (default).
    Coalesce,
    /// It is recorded as skipped.
    Skip,
}
