//! The agenda: for each tracker its next instant, and which of all comes first.
//!
//! In: schedules, and the time as an argument. Out: each instant exactly once, in the order of its firing.
//! An instant's successor is computed from the instant, never from now, so that a late wake-up loses none.
//! Pure: must not know tokio, the clock, what a tracker does.

use crate::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The next instants of any number of trackers.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    slots: HashMap<Arc<str>, Slot>,
    made: u64,
}

/// What a tracker's time that has come, or a tracker that goes with some of it unfired, amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// This instant, and no other.
    One { tracker: Arc<str>, scheduled_at: Timestamp },
    /// `first` and at least one more have passed: the process or the machine stood still, or its jitter is longer
    /// than its period.
    Lapse { tracker: Arc<str>, first: Timestamp },
}

impl Due {
    /// The earliest of its instants.
    pub fn first(&self) -> Timestamp {
        match self {
            Due::One { scheduled_at, .. } => *scheduled_at,
            Due::Lapse { first, .. } => *first,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fire_at: Timestamp,
    scheduled_at: Timestamp,
    tracker: Arc<str>,
    /// An entry whose slot has another number was replaced and means nothing.
    number: u64,
}

#[derive(Debug)]
struct Slot {
    schedule: Schedule,
    jitter: SignedDuration,
    /// The instant that is on the heap for it.
    next: Option<Timestamp>,
    /// All instants up to here were handed out: a clock that is set back brings none of them again.
    dealt_until: Option<Timestamp>,
    number: u64,
}

impl Agenda {
    /// Enters a tracker, or replaces it: its next instant is the first after `after`, and after those of the replaced
    /// one, fired `jitter` later.
    ///
    /// Shape: gives back what of the replaced one had come by `after` and still waited for its firing.
    /// It belongs to no new schedule: the caller hands it over, or it is lost.
    pub fn set(&mut self, tracker: &Arc<str>, schedule: Schedule, jitter: Duration, after: Timestamp) -> Option<Due> {
        self.made += 1;
        let jitter = SignedDuration::try_from(jitter).unwrap_or_default();
        let dealt_until = self.slots.get(tracker).and_then(|slot| slot.dealt_until);
        let slot = Slot { schedule, jitter, next: None, dealt_until, number: self.made };
        let replaced = self.slots.insert(Arc::clone(tracker), slot);
        self.plan(tracker, dealt_until.map_or(after, |dealt_until| dealt_until.max(after)));
        replaced?.waits(tracker, after)
    }

    /// Takes a tracker out. Gives back what had come by `now` and still waited for its firing.
    pub fn remove(&mut self, tracker: &Arc<str>, now: Timestamp) -> Option<Due> {
        self.slots.remove(tracker)?.waits(tracker, now)
    }

    /// Plans every tracker anew from `now` on, after the clock was set back.
    pub fn restart(&mut self, now: Timestamp) {
        let names: Vec<Arc<str>> = self.slots.keys().cloned().collect();
        self.heap.clear();
        for tracker in &names {
            if let Some(slot) = self.slots.get_mut(tracker) {
                slot.dealt_until = None;
            }
            self.plan(tracker, now);
        }
    }

    /// When the next one fires.
    pub fn next_fire(&mut self) -> Option<Timestamp> {
        loop {
            let Reverse(entry) = self.heap.peek()?;
            if self.slots.get(&entry.tracker).is_some_and(|slot| slot.number == entry.number) {
                return Some(entry.fire_at);
            }
            self.heap.pop();
        }
    }

    /// The earliest instant that was not handed out.
    pub fn next_instant(&self) -> Option<Timestamp> {
        self.slots.values().filter_map(|slot| slot.next).min()
    }

    /// All that is due at `now`, earliest first; each tracker at most once.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        while self.next_fire().is_some_and(|fire_at| fire_at <= now) {
            let Some(Reverse(Entry { tracker, scheduled_at, .. })) = self.heap.pop() else { break };
            self.dealt(&tracker, scheduled_at);
            if self.plan(&tracker, scheduled_at).is_some_and(|next| next <= now) {
                self.plan_after_lapse(&tracker, now);
                self.dealt(&tracker, now);
                due.push(Due::Lapse { tracker, first: scheduled_at });
            } else {
                due.push(Due::One { tracker, scheduled_at });
            }
        }
        due
    }

    fn dealt(&mut self, tracker: &Arc<str>, until: Timestamp) {
        if let Some(slot) = self.slots.get_mut(tracker) {
            slot.dealt_until = Some(until);
        }
    }

    /// Puts the first instant after `after` on the heap. Returns when it fires.
    fn plan(&mut self, tracker: &Arc<str>, after: Timestamp) -> Option<Timestamp> {
        let slot = self.slots.get_mut(tracker)?;
        slot.next = slot.schedule.next_after(after);
        let scheduled_at = slot.next?;
        let fire_at = scheduled_at.checked_add(slot.jitter).ok()?;
        self.heap.push(Reverse(Entry { fire_at, scheduled_at, tracker: Arc::clone(tracker), number: slot.number }));
        Some(fire_at)
    }

    /// The entry that `plan` just made has passed, too: the missed rules deal with it, the agenda goes on from now.
    fn plan_after_lapse(&mut self, tracker: &Arc<str>, now: Timestamp) {
        self.made += 1;
        if let Some(slot) = self.slots.get_mut(tracker) {
            slot.number = self.made;
        }
        self.plan(tracker, now);
    }
}

impl Slot {
    /// The instants that have come by `now`.
    fn waits(&self, tracker: &Arc<str>, now: Timestamp) -> Option<Due> {
        let (tracker, first) = (Arc::clone(tracker), self.next.filter(|scheduled_at| *scheduled_at <= now)?);
        Some(match self.schedule.next_after(first).is_some_and(|next| next <= now) {
            true => Due::Lapse { tracker, first },
            false => Due::One { tracker, scheduled_at: first },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::every::Every;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn every(millis: u64) -> Schedule {
        Schedule::Every(Every::new(Duration::from_millis(millis)).unwrap())
    }

    fn agenda(trackers: &[(&str, u64, u64)], after: i64) -> Agenda {
        let mut agenda = Agenda::default();
        for (name, period, jitter) in trackers {
            agenda.set(&Arc::from(*name), every(*period), Duration::from_millis(*jitter), at(after));
        }
        agenda
    }

    fn one(tracker: &str, millis: i64) -> Due {
        Due::One { tracker: Arc::from(tracker), scheduled_at: at(millis) }
    }

    #[test]
    fn each_instant_comes_once_and_in_order() {
        let mut agenda = agenda(&[("slow", 3000, 0), ("fast", 1000, 0)], 0);
        let mut seen = Vec::new();
        for now in 1..=6 {
            seen.extend(agenda.take_due(at(now * 1000)));
        }
        let expected = [
            one("fast", 1000),
            one("fast", 2000),
            one("fast", 3000),
            one("slow", 3000),
            one("fast", 4000),
            one("fast", 5000),
            one("fast", 6000),
            one("slow", 6000),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn ten_thousand_on_the_same_second_lose_and_double_none() {
        let names: Vec<String> = (0..10_000).map(|i| format!("t{i}")).collect();
        let trackers: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), 1000, 0)).collect();
        let mut agenda = agenda(&trackers, 0);
        let mut seen = std::collections::HashSet::new();
        for now in 1..=5 {
            for due in agenda.take_due(at(now * 1000 + 3)) {
                assert!(matches!(&due, Due::One { scheduled_at, .. } if *scheduled_at == at(now * 1000)));
                assert!(seen.insert(format!("{due:?}")), "twice: {due:?}");
            }
        }
        assert_eq!(seen.len(), 50_000);
    }

    #[test]
    fn jitter_delays_the_firing_and_not_the_instant() {
        let mut agenda = agenda(&[("a", 1000, 250)], 0);
        assert_eq!(agenda.next_fire(), Some(at(1250)));
        assert_eq!(agenda.take_due(at(1249)), []);
        assert_eq!(agenda.take_due(at(1250)), [one("a", 1000)]);
    }

    #[test]
    fn a_stall_is_one_lapse_and_then_goes_on() {
        let mut agenda = agenda(&[("a", 1000, 0)], 0);
        assert_eq!(agenda.take_due(at(9_500)), [Due::Lapse { tracker: Arc::from("a"), first: at(1000) }]);
        assert_eq!(agenda.take_due(at(9_500)), []);
        assert_eq!(agenda.take_due(at(10_000)), [one("a", 10_000)]);
    }

    #[test]
    fn a_replaced_tracker_follows_its_new_schedule_only_and_others_keep_their_place() {
        let mut agenda = agenda(&[("a", 1000, 0), ("b", 1000, 0), ("c", 1000, 0)], 0);
        agenda.set(&Arc::from("a"), every(5000), Duration::ZERO, at(500));
        assert_eq!(agenda.remove(&Arc::from("b"), at(500)), None);
        assert_eq!(agenda.take_due(at(1000)), [one("c", 1000)]);
        assert_eq!(agenda.take_due(at(2000)), [one("c", 2000)]);
        assert_eq!(agenda.next_fire(), Some(at(3000)));
    }

    #[test]
    fn a_replaced_tracker_gives_back_what_waited_for_its_jitter() {
        let mut agenda = agenda(&[("a", 1000, 500)], 0);
        let a = Arc::from("a");
        assert_eq!(agenda.set(&a, every(1000), Duration::from_millis(500), at(900)), None, "it has not come yet");
        assert_eq!(agenda.set(&a, every(5000), Duration::ZERO, at(1200)), Some(one("a", 1000)));
        assert_eq!(agenda.take_due(at(4999)), []);
        assert_eq!(agenda.take_due(at(5000)), [one("a", 5000)]);
    }

    #[test]
    fn a_tracker_replaced_while_the_clock_is_set_back_does_not_run_its_instants_again() {
        let mut agenda = agenda(&[("a", 1000, 0), ("b", 1000, 0)], 10_000);
        assert_eq!(agenda.take_due(at(11_000)), [one("a", 11_000), one("b", 11_000)]);
        agenda.set(&Arc::from("a"), every(1000), Duration::ZERO, at(5_000));
        assert_eq!(agenda.take_due(at(6_000)), []);
        assert_eq!(agenda.take_due(at(12_000)), [one("a", 12_000), one("b", 12_000)]);
        assert_eq!(agenda.take_due(at(15_500)).len(), 2, "both lapsed");
        agenda.set(&Arc::from("b"), every(1000), Duration::ZERO, at(9_000));
        assert_eq!(agenda.take_due(at(15_000)), []);
        // One that was wrong by more is planned anew.
        agenda.restart(at(2_000));
        agenda.set(&Arc::from("a"), every(1000), Duration::ZERO, at(2_000));
        assert_eq!(agenda.take_due(at(3_000)), [one("a", 3_000), one("b", 3_000)]);
    }

    #[test]
    fn a_removed_tracker_gives_back_what_waited_for_its_jitter() {
        let mut agenda = agenda(&[("a", 1000, 500)], 0);
        let a = Arc::from("a");
        assert_eq!(agenda.remove(&a, at(1200)), Some(one("a", 1000)));
        assert_eq!(agenda.remove(&a, at(1200)), None);
        assert_eq!(agenda.take_due(at(5000)), []);
    }

    #[test]
    fn a_tracker_whose_jitter_is_longer_than_its_period_gives_back_all_that_waited() {
        let mut agenda = agenda(&[("a", 1000, 3500)], 0);
        let a = Arc::from("a");
        assert_eq!(agenda.take_due(at(4500)), [one("a", 1000)]);
        let waited = Some(Due::Lapse { tracker: Arc::clone(&a), first: at(2000) });
        assert_eq!(agenda.set(&a, every(1000), Duration::from_millis(3500), at(4700)), waited);
        let waited = Some(Due::Lapse { tracker: Arc::clone(&a), first: at(5000) });
        assert_eq!(agenda.remove(&a, at(8499)), waited);
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_trackers() {
        let mut agenda = agenda(&[("a", 1000, 0)], 1_000_000);
        agenda.restart(at(2_000));
        assert_eq!(agenda.take_due(at(3_000)), [one("a", 3_000)]);
    }
}
