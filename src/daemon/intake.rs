//! Instants on their way in: from the scheduler's ticks and from the time trackd was down.
//!
//! In: instants. Out: due runs in the dispatch, and a ledger row for every one that will not run.
//! Must not know: what a run does.

use super::dispatch::{Dispatch, Offer};
use super::report::Reports;
use super::work::Due;
use crate::config::Tracker;
use crate::schedule::missed::{Span, catch_up};
use crate::status::{Kind, Run, RunStatus};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// The instants of a span.
#[derive(Debug)]
pub struct Dealt {
    /// The ledger rows of those that are not run, oldest first.
    pub missed: Vec<Run>,
    /// Those to run, oldest first.
    pub runs: Vec<Timestamp>,
    /// Older ones that get no row; a lower bound.
    pub uncounted: u64,
}

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
            Offer::Taken => self.reports.moved(),
            Offer::Displaced(due) => self.skipped(&due, "a later instant came before it could begin"),
            Offer::Refused(due) => self.skipped(&due, "the run before it was not over"),
            Offer::Gone(due) => self.removed(&[due]),
            // No row: the next start finds it missed.
            Offer::Stopped => {}
        }
    }

    /// Deals out the instants of a span by the tracker's `missed` rules; nothing is done with them yet.
    pub fn deal(&self, tracker: &Tracker, span: &Span<'_>) -> Dealt {
        let dealt = catch_up(&tracker.schedule, &tracker.missed, span);
        let name: Arc<str> = Arc::from(tracker.name.as_str());
        let row = |&scheduled_at: &Timestamp| {
            let due = Due { tracker: Arc::clone(&name), scheduled_at, kind: Kind::CatchUp };
            self.reports.not_run(&due, RunStatus::Missed, "trackd did not run at that time")
        };
        Dealt { missed: dealt.missed.iter().map(row).collect(), runs: dealt.run, uncounted: dealt.uncounted }
    }

    /// These instants of the past run, oldest first, as soon as their tracker is free.
    pub fn catch_up(&self, tracker: &str, instants: &[Timestamp]) {
        if instants.is_empty() {
            return;
        }
        let name: Arc<str> = Arc::from(tracker);
        let due = |&scheduled_at| Due { tracker: Arc::clone(&name), scheduled_at, kind: Kind::CatchUp };
        let gone = self.dispatch.catch_up(&name, instants.iter().map(due).collect());
        self.removed(&gone);
        self.reports.moved();
    }

    /// The process or the machine stood still: `first` and others up to `now` have passed.
    pub fn lapsed(&self, tracker: &Tracker, first: Timestamp, now: Timestamp) {
        // Everything after the latest instant that was dealt with, `first` included.
        let last = first.checked_sub(SignedDuration::from_millis(1)).unwrap_or(first);
        let dealt = self.deal(tracker, &Span::new(last, now));
        dealt.missed.into_iter().for_each(|row| self.reports.unrun(row));
        if dealt.uncounted > 0 {
            tracing::warn!(
                tracker = tracker.name,
                at_least = dealt.uncounted,
                "instants too long ago for a row each were missed"
            );
        }
        self.catch_up(&tracker.name, &dealt.runs);
    }

    /// These instants are of trackers that are gone from the configuration.
    pub fn removed(&self, dues: &[Due]) {
        for due in dues {
            self.skipped(due, "its tracker was removed from the configuration");
        }
    }

    fn skipped(&self, due: &Due, reason: &str) {
        self.reports.unrun(self.reports.not_run(due, RunStatus::Skipped, reason));
    }
}
