//! States that begin and end, in the log: once each, with ids that an administrator can look for.
//!
//! ```text
//!  Status --status::alert--> began --told within `QUIET`?--no--> a line
//!                      \---> is over --its begin was told?--yes--> a line
//! ```
//!
//! What comes and goes all the time is told once in `QUIET`, with how often it came meanwhile; of many that come at once
//! the first are told, and a count of the others. Must not know: who else is told of them.

use super::pulse::Pulse;
use crate::clock;
use crate::log::Event;
use crate::status::Status;
use crate::status::alert::{Fires, Judge, Kind, Subject, firing};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A state that was told to have begun is not told to begin again within it.
const QUIET: Duration = Duration::from_secs(60);
/// Lines of one look.
const LINES: usize = 50;

/// Tells of states, for ever.
///
/// Cancel safety: safe; begun again, it tells again what lasts.
pub(super) async fn tell(mut status: watch::Receiver<Arc<Status>>, pulse: Arc<Pulse>) {
    let mut known = Known::default();
    loop {
        let seen = status.borrow_and_update().clone();
        let at_work = pulse.work();
        let turns = known.look(&seen, Instant::now(), clock::now());
        turns.iter().take(LINES).for_each(Turn::tell);
        if let Some(states) = turns.len().checked_sub(LINES).filter(|more| *more > 0) {
            tracing::warn!(states, hint = "trackd status", "further states began or ended");
        }
        drop(at_work);
        sleep(LOOK).await;
        // What was passed over is told later, also if nothing changes any more.
        let _ = timeout(QUIET, status.changed()).await;
    }
}

/// The states that were seen.
#[derive(Debug, Default)]
struct Known(BTreeMap<Subject, Seen>);

#[derive(Debug, Default)]
struct Seen {
    lasts: bool,
    /// Its begin was told, its end was not.
    is_told: bool,
    told_at: Option<Instant>,
    /// How often it began since, untold.
    untold: u32,
}

/// A state that began, or is over.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    subject: Subject,
    fires: Fires,
    since: Option<Timestamp>,
    text: String,
    /// How often it began before, and was not told.
    untold: u32,
}

impl Known {
    /// What is to be told; the gravest of what began first, then what is over.
    fn look(&mut self, status: &Status, now: Instant, at: Timestamp) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (subject, since, text) in firing(status, at) {
            let seen = self.0.entry(subject.clone()).or_default();
            seen.untold += u32::from(!seen.lasts);
            seen.lasts = true;
            if !seen.is_told && !seen.is_recent(now) {
                let untold = std::mem::take(&mut seen.untold).saturating_sub(1);
                (seen.is_told, seen.told_at) = (true, Some(now));
                turns.push(Turn { subject, fires: Fires::Firing, since: Some(since), text, untold });
            }
        }
        turns.sort_by(|a, b| a.subject.cmp(&b.subject));
        let judge = Judge::new(status);
        self.0.retain(|subject, seen| {
            if let Some(text) = judge.is_over(subject).filter(|_| seen.lasts) {
                seen.lasts = false;
                if std::mem::take(&mut seen.is_told) {
                    let subject = subject.clone();
                    turns.push(Turn { subject, fires: Fires::Resolved, since: None, text, untold: 0 });
                }
            }
            seen.lasts || seen.is_recent(now)
        });
        turns
    }
}

impl Seen {
    fn is_recent(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|told_at| now.duration_since(told_at) < QUIET)
    }
}

impl Turn {
    fn tell(&self) {
        let (tracker, text) = (self.subject.tracker.as_deref(), &self.text);
        let (since, untold) = (self.since.map(tracing::field::display), (self.untold > 0).then_some(self.untold));
        macro_rules! say {
            ($level:ident, $event:expr, $message:literal) => {
                tracing::$level!(tracker, text, since, untold, event = %$event, $message)
            };
        }
        match (self.subject.kind, self.fires) {
            (Kind::Database, Fires::Firing) => say!(warn, Event::Degraded, "degraded"),
            (Kind::Database, Fires::Resolved) => say!(info, Event::Recovered, "recovered"),
            (Kind::Spool, Fires::Firing) => say!(warn, Event::SpoolFilling, "spool is filling"),
            (Kind::Spool, Fires::Resolved) => say!(info, Event::SpoolDrained, "spool has drained"),
            (Kind::Standing, Fires::Firing) => say!(error, Event::FaultStanding, "standing fault"),
            (Kind::Standing, Fires::Resolved) => say!(info, Event::FaultHealed, "standing fault is over"),
            (Kind::Stale, Fires::Firing) => say!(warn, Event::TrackerStale, "tracker is stale"),
            (Kind::Stale, Fires::Resolved) => say!(info, Event::TrackerFresh, "tracker is fresh again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::journal::tests::entries;
    use crate::status::Phase;

    fn status(phase: Phase, error: Option<&str>) -> Status {
        Status { phase, database_error: error.map(str::to_owned), ..Status::default() }
    }

    fn told(known: &mut Known, status: &Status, now: Instant) -> Vec<(Fires, u32)> {
        known.look(status, now, Timestamp::UNIX_EPOCH).into_iter().map(|turn| (turn.fires, turn.untold)).collect()
    }

    #[test]
    fn a_state_is_told_when_it_begins_and_when_it_is_over_and_not_in_between() {
        let (mut known, now) = (Known::default(), Instant::now());
        let (away, back) = (status(Phase::Degraded, Some("gone")), status(Phase::Running, None));
        assert_eq!(told(&mut known, &back, now), []);
        assert_eq!(told(&mut known, &away, now), [(Fires::Firing, 0)]);
        assert_eq!(told(&mut known, &away, now + 2 * QUIET), []);
        assert_eq!(told(&mut known, &status(Phase::Starting, None), now), [], "nobody knows");
        assert_eq!(told(&mut known, &back, now + 2 * QUIET), [(Fires::Resolved, 0)]);
        assert!(known.0.is_empty(), "{known:?}");
    }

    #[test]
    fn what_comes_and_goes_is_told_once_in_a_while_with_a_count() {
        let (mut known, now) = (Known::default(), Instant::now());
        let (away, back) = (status(Phase::Degraded, Some("gone")), status(Phase::Running, None));
        assert_eq!(told(&mut known, &away, now), [(Fires::Firing, 0)]);
        assert_eq!(told(&mut known, &back, now), [(Fires::Resolved, 0)]);
        for _ in 0..3 {
            assert_eq!(told(&mut known, &away, now + QUIET / 2), []);
            assert_eq!(told(&mut known, &back, now + QUIET / 2), []);
        }
        assert_eq!(told(&mut known, &away, now + QUIET / 2), []);
        assert_eq!(told(&mut known, &away, now + QUIET), [(Fires::Firing, 3)], "it lasts");
        assert_eq!(told(&mut known, &back, now + QUIET), [(Fires::Resolved, 0)]);
    }

    #[test]
    fn each_kind_of_state_has_an_event_of_its_own_and_the_priority_of_who_must_act() {
        let priority = |kind, fires| {
            let subject = Subject { kind, tracker: Some("a".into()) };
            let turn = Turn { subject, fires, since: None, text: "why".into(), untold: 0 };
            let entry = entries(|| turn.tell()).remove(0);
            assert_eq!((entry["TRACKER"].as_str(), entry["TEXT"].as_str()), ("a", "why"));
            (entry["EVENT"].clone(), entry["PRIORITY"].clone())
        };
        let told = [Kind::Database, Kind::Spool, Kind::Standing, Kind::Stale]
            .map(|kind| [priority(kind, Fires::Firing), priority(kind, Fires::Resolved)])
            .concat();
        let told: Vec<String> = told.into_iter().map(|(event, priority)| format!("{event} {priority}")).collect();
        assert_eq!(
            told.join(", "),
            "degraded 4, recovered 6, spool-filling 4, spool-drained 6, fault-standing 3, fault-healed 6, \
             tracker-stale 4, tracker-fresh 6"
        );
    }
}
