//! Instants on their way in: from the scheduler's ticks and from the time trackd was down.
//!
//! In: instants. Out: due runs in the dispatch, and a ledger row for every one that will not run.
//! Must not know: what a run does.

use super::dispatch::{Dispatch, Offer};
use super::report::Reports;
use super::work::Due;
use crate::class::Class;
use crate::clock;
use crate::config::Tracker;
use crate::schedule::missed::{Span, catch_up, share};
use crate::schedule::{Missed, MissedPolicy};
use crate::status::{Kind, Run, RunStatus};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Why an instant is missed.
const MISSED: &str = "trackd did not run at that time";

/// What became of instants that passed while the process or the machine stood still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lapsed {
    /// Those that are run.
    pub runs: usize,
    /// Those that are not, and get a row.
    pub missed: usize,
    /// Older ones that get none; a lower bound.
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
        if let Some(reason) = self.reports.passes_over(tracker) {
            return self.skipped(&due, &reason);
        }
        match self.dispatch.offer(due) {
            Offer::Taken => self.reports.moved(),
            Offer::Displaced(due) => self.skipped(&due, "a later instant came before it could begin"),
            Offer::Refused(due) => self.skipped(&due, "the run before it was not over"),
            Offer::Gone(due) => self.removed(&[due]),
            // No row: the next start finds it missed.
            Offer::Stopped => {}
        }
    }

    /// The ledger rows of instants that are missed, in their order; each is made when it is asked for.
    pub fn missed(
        &self,
        tracker: &Tracker,
        instants: Vec<Timestamp>,
    ) -> impl ExactSizeIterator<Item = Run> + Send + 'static + use<> {
        let (name, identity, now) = (Arc::from(tracker.name.as_str()), self.reports.identity.clone(), clock::now());
        instants.into_iter().map(move |scheduled_at| {
            let due = Due { tracker: Arc::clone(&name), scheduled_at, kind: Kind::CatchUp };
            identity.not_run(&due, RunStatus::Missed, now, MISSED)
        })
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

    /// The process or the machine stood still: `first` and others up to `now` have passed, of so many `trackers`.
    pub fn lapsed(&self, tracker: &Tracker, first: Timestamp, now: Timestamp, trackers: usize) -> Lapsed {
        let span = Span { most_listed: share(trackers), ..Span::new(just_before(first), now) };
        let dealt = catch_up(&tracker.schedule, &tracker.missed, &span);
        let lapsed = Lapsed { runs: dealt.run.len(), missed: dealt.missed.len(), uncounted: dealt.uncounted };
        // First: a run that lands hides from the next start what has no row before it.
        self.reports.missed(&tracker.name, first, self.missed(tracker, dealt.missed));
        self.catch_up(&tracker.name, &dealt.run);
        lapsed
    }

    /// The tracker is gone from the configuration while its instants from `first` up to `now` still waited for their
    /// firing: none of them runs.
    pub fn outlived(&self, tracker: &Tracker, first: Timestamp, now: Timestamp) {
        let none = Missed { policy: MissedPolicy::Skip, ..tracker.missed };
        let waited = catch_up(&tracker.schedule, &none, &Span::new(just_before(first), now)).missed;
        let due = |scheduled_at| Due { tracker: tracker.name.as_str().into(), scheduled_at, kind: Kind::Scheduled };
        self.removed(&waited.into_iter().map(due).collect::<Vec<_>>());
    }

    /// These instants are of trackers that are gone from the configuration.
    pub fn removed(&self, dues: &[Due]) {
        for due in dues {
            self.skipped(due, "its tracker was removed from the configuration");
        }
    }

    /// The process that ran this instant is gone, and nobody runs it again.
    pub fn cut_off(&self, due: &Due) {
        let now = clock::now();
        let run = self.reports.identity.unrun(due, RunStatus::Failed, now, now);
        let error = Some("its process ended in the middle of it".to_owned());
        self.reports.unrun(Run { error_class: Some(Class::Retry), error, ..run });
    }

    fn skipped(&self, due: &Due, reason: &str) {
        self.reports.unrun(self.reports.identity.not_run(due, RunStatus::Skipped, clock::now(), reason));
    }
}

/// The end of what is dealt with, where `at` is not: instants are whole milliseconds.
fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_millis(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::daemon::recorder;
    use crate::daemon::state::State;
    use crate::daemon::work::Identity;

    #[test]
    fn a_night_that_the_machine_slept_has_room_for_a_row_of_each_instant() {
        let tracker = |n: usize| {
            format!(
                "[[tracker]]\nname = \"t{n}\"\nevery = \"3s\"\nfile = {{ path = \"x\" }}\n[[tracker.table]]\nname = \"t{n}\"\n\
                 history = \"snapshot\"\nrows = \".\"\ncolumns = {{ v = \"text\" }}\n"
            )
        };
        let text: String = (0..100).map(tracker).collect();
        let none = Environment::new(Vec::<(String, String)>::new(), false);
        let config = config::parse(&text, std::path::Path::new("c.toml"), &none).expect("configuration");
        let state = Arc::new(State::new(&config, "test:1", Timestamp::UNIX_EPOCH));
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let (recorder, _inbox) = recorder::channel();
        let reports = Arc::new(Reports::new(identity, Arc::clone(&state), recorder.clone()));
        let intake = Intake { dispatch: Arc::new(Dispatch::new(Vec::new())), reports };
        let (first, now) = (Timestamp::from_second(3).unwrap(), Timestamp::from_second(8 * 3600).unwrap());
        for tracker in &config.trackers {
            let lapsed = intake.lapsed(tracker, first, now, config.trackers.len());
            assert_eq!(lapsed, Lapsed { runs: 1, missed: 9_599, uncounted: 0 });
        }
        // Nobody runs them: the runs of trackers that are gone are recorded, too.
        assert_eq!((recorder.pending(), recorder.dropped()), (100 * 9_600, 0));
        assert_eq!(state.snapshot(crate::daemon::state::Gauges::default(), now).totals.missed, 100 * 9_599);
    }
}
