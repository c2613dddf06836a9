//! What waits, in memory: which instants of which tracker, how much of the disk it takes, and which plans it needs.
//!
//! Values only: must not know files.

use super::name::{Slot, Tag};
use super::{Full, Stats, Waiting};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What file systems give out.
const BLOCK: u64 = 4096;

/// What a file takes of the disk, in whole blocks: a spool of many small payloads would else take far more than
/// its limit.
pub(super) fn occupied(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// The same of a file in `bad/`, with the reason beside it.
pub(super) fn occupied_aside(bytes: u64) -> u64 {
    occupied(bytes) + BLOCK
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// No set is empty.
    waiting: BTreeMap<String, BTreeSet<Slot>>,
    entries: u64,
    entry_bytes: u64,
    /// Being written, with what they will occupy, or being set aside.
    busy: HashMap<(String, Timestamp), u64>,
    /// How many entries need a plan: waiting, being written or set aside ones.
    needs: HashMap<Tag, u64>,
    pub(super) plan_bytes: u64,
    bad: u64,
    bad_bytes: u64,
    /// How often a file was set aside.
    asides: u64,
    /// Trackers whose directory lasts.
    pub(super) lasting: HashSet<String>,
    /// Trackers of which an entry was removed, which may not last yet.
    pub(super) loose: BTreeSet<String>,
}

impl Index {
    /// Takes in what was found at the start.
    pub(super) fn found(&mut self, tracker: String, slots: Vec<Slot>) {
        for slot in &slots {
            self.need(slot.plan);
            self.entries += 1;
            self.entry_bytes += occupied(slot.bytes);
        }
        self.lasting.insert(tracker.clone());
        self.waiting.insert(tracker, slots.into_iter().collect());
    }

    /// Upwards.
    pub(super) fn instants(&self, tracker: &str) -> Vec<Timestamp> {
        self.waiting.get(tracker).into_iter().flatten().map(|slot| slot.at).collect()
    }

    pub(super) fn find(&self, tracker: &str, at: Timestamp) -> Option<Slot> {
        let first = Slot { at, bytes: 0, plan: Tag(0) };
        self.waiting.get(tracker)?.range(first..).next().filter(|slot| slot.at == at).copied()
    }

    /// Whether somebody is at this identity's files.
    pub(super) fn is_busy(&self, tracker: &str, at: Timestamp) -> bool {
        self.busy.contains_key(&(tracker.to_owned(), at)) || self.find(tracker, at).is_some()
    }

    /// Holds room for an entry to be written; `plan_bytes` is what its plan will occupy besides.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn reserve(&mut self, tracker: &str, slot: Slot, plan_bytes: u64, limit: u64) -> Result<(), Full> {
        let (used, needed) = (self.used(), occupied(slot.bytes) + plan_bytes);
        if used.saturating_add(needed) > limit {
            return Err(Full { used, bad: self.bad_bytes, limit, needed, disk: false });
        }
        self.busy.insert((tracker.to_owned(), slot.at), occupied(slot.bytes));
        self.need(slot.plan);
        Ok(())
    }

    /// What was reserved waits now.
    pub(super) fn written(&mut self, tracker: &str, slot: Slot) {
        self.busy.remove(&(tracker.to_owned(), slot.at));
        self.waiting.entry(tracker.to_owned()).or_default().insert(slot);
        self.entries += 1;
        self.entry_bytes += occupied(slot.bytes);
    }

    /// What was reserved was not written. Whether nothing needs the plan any more.
    pub(super) fn unwritten(&mut self, tracker: &str, slot: Slot) -> bool {
        self.busy.remove(&(tracker.to_owned(), slot.at));
        self.need_no_more(slot.plan)
    }

    /// Forgets what waited. `None` if it did not, else whether nothing needs the plan any more.
    pub(super) fn remove(&mut self, tracker: &str, slot: Slot) -> Option<bool> {
        self.take(tracker, slot).then(|| self.need_no_more(slot.plan))
    }

    /// What waited is being set aside until it is `moved`; its plan is kept. Whether it waited.
    pub(super) fn set_aside(&mut self, tracker: &str, slot: Slot) -> bool {
        let waited = self.take(tracker, slot);
        if waited {
            self.busy.insert((tracker.to_owned(), slot.at), 0);
            self.count_bad(slot.bytes);
        }
        waited
    }

    /// It is set aside.
    pub(super) fn moved(&mut self, tracker: &str, slot: Slot) {
        self.busy.remove(&(tracker.to_owned(), slot.at));
    }

    /// Counts a file in `bad/`.
    pub(super) fn count_bad(&mut self, bytes: u64) {
        self.asides += 1;
        self.bad += 1;
        self.bad_bytes += occupied_aside(bytes);
    }

    /// To be given back when `bad/` was counted; `None` while a file is on its way there.
    pub(super) fn counting_bad(&self) -> Option<u64> {
        self.busy.values().all(|held| *held > 0).then_some(self.asides)
    }

    /// So much is in `bad/`, unless a file was set aside since it was begun to count.
    pub(super) fn counted_bad(&mut self, counting: u64, bad: u64, bad_bytes: u64) {
        if counting == self.asides {
            (self.bad, self.bad_bytes) = (bad, bad_bytes);
        }
    }

    pub(super) fn need(&mut self, plan: Tag) {
        *self.needs.entry(plan).or_default() += 1;
    }

    pub(super) fn needs(&self, plan: Tag) -> bool {
        self.needs.contains_key(&plan)
    }

    fn need_no_more(&mut self, plan: Tag) -> bool {
        let left = self.needs.get_mut(&plan).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.needs.remove(&plan);
        }
        left == 0
    }

    fn take(&mut self, tracker: &str, slot: Slot) -> bool {
        let Some(slots) = self.waiting.get_mut(tracker) else { return false };
        if !slots.remove(&slot) {
            return false;
        }
        if slots.is_empty() {
            self.waiting.remove(tracker);
        }
        self.entries -= 1;
        self.entry_bytes -= occupied(slot.bytes);
        true
    }

    /// The first of a tracker.
    pub(super) fn first(&self, tracker: &str) -> Option<Slot> {
        self.waiting.get(tracker)?.first().copied()
    }

    /// Trackers that wait, the longest waiting first.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let of = |(tracker, slots): (&String, &BTreeSet<Slot>)| {
            Some(Waiting { oldest: slots.first()?.at, entries: slots.len() as u64, tracker: tracker.clone() })
        };
        let mut waiting: Vec<Waiting> = self.waiting.iter().filter_map(of).collect();
        waiting.sort_by_key(|waiting| waiting.oldest);
        waiting
    }

    pub(super) fn stats(&self, limit: u64) -> Stats {
        Stats {
            entries: self.entries,
            bytes: self.entry_bytes,
            oldest: self.waiting.values().filter_map(|slots| slots.first()).map(|slot| slot.at).min(),
            bad: self.bad,
            used: self.used(),
            limit,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.entry_bytes + self.busy.values().sum::<u64>() + self.plan_bytes + self.bad_bytes
    }

    /// As a refusal for want of room on the disk.
    pub(super) fn disk_full(&self, needed: u64, limit: u64) -> Full {
        Full { used: self.used(), bad: self.bad_bytes, limit, needed, disk: true }
    }
}
