//! Instants on their way in: from the scheduler's ticks and from the time trackd was down.
//!
//! In: instants. Out: due runs in the dispatch, and a ledger row for every one that will not run.
//! Must not know: what a run does.

use super::dispatch::{Dispatch, Offer};
use super::report::Reports;
use super::work::Due;
use crate::config::Tracker;
use crate::schedule::missed::{Span, catch_up};
use crate::status::{Kind, RunStatus};
use jiff::Timestamp;
use std::sync::Arc;

/// Where instants come in.
#[derive(Debug)]
pub struct Intake {
    pub dispatch: Arc<Dispatch>,
    pub reports: Arc<Reports>,
}

impl Intake {
    /// An instant of the schedule is here.
    pub fn due(&self, tracker: &Arc<str>, scheduled_at: Timestamp) {
        let due = Due { tracker: Arc::clone(tracker), scheduled_at, kind: Kind::Scheduled };
        match self.dispatch.offer(due) {
            Offer::Taken => self.reports.queued(tracker),
            Offer::Displaced(due) => {
                self.reports.unrun(&due, RunStatus::Skipped, "a later instant came before it could begin")
            }
            Offer::Refused(due) => self.reports.unrun(&due, RunStatus::Skipped, "the run before it was not over"),
            Offer::Gone(due) => {
                tracing::debug!(tracker = %due.tracker, scheduled_at = %due.scheduled_at, "nobody to run it")
            }
        }
    }

    /// Deals out the instants after `last` and up to `now`, by the tracker's `missed` rules.
    ///
    /// Shape: how many run, and how many are recorded as missed.
    pub fn catch_up(&self, tracker: &Tracker, last: Timestamp, now: Timestamp) -> (usize, usize) {
        let dealt = catch_up(&tracker.schedule, &tracker.missed, &Span::new(last, now));
        let name: Arc<str> = Arc::from(tracker.name.as_str());
        let due = |scheduled_at| Due { tracker: Arc::clone(&name), scheduled_at, kind: Kind::CatchUp };
        for &scheduled_at in &dealt.missed {
            self.reports.unrun(&due(scheduled_at), RunStatus::Missed, "trackd did not run at that time");
        }
        if dealt.uncounted > 0 {
            tracing::warn!(
                tracker = tracker.name,
                at_least = dealt.uncounted,
                "instants too long ago for a row each were missed"
            );
        }
        let runs = dealt.run.len();
        if runs > 0 {
            self.dispatch.catch_up(&name, dealt.run.into_iter().map(due).collect());
            self.reports.queued(&name);
        }
        (runs, dealt.missed.len())
    }

    /// These waited for trackers that are gone from the configuration.
    pub fn removed(&self, dues: &[Due]) {
        for due in dues {
            self.reports.unrun(due, RunStatus::Skipped, "its tracker was removed from the configuration");
        }
    }
}
