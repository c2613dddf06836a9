//! What the second table of a tracker must hold, given the runs that landed, in the order of their commits.
//!
//! The rules of the four histories, said once more and otherwise than in `src`: row by row.
//! In: a tracker and its landed runs. Out: rows, and how many each run wrote. Pure.

use super::fleet::{History, Millis, Tracker};
use std::collections::BTreeMap;

/// A run that landed.
#[derive(Debug, Clone)]
pub struct Landed {
    pub run_id: String,
    pub at: Millis,
    pub serial: u64,
}

/// A row of an event, change or state table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kept {
    pub k: String,
    pub v: Option<i64>,
    pub serial: Option<u64>,
    /// first_seen_at, valid_from or updated_at.
    pub from: Millis,
    /// valid_to.
    pub to: Option<Millis>,
    pub run_id: String,
}

/// The table after `landed`, sorted; and the rows that each of them wrote.
pub fn kept(tracker: &Tracker, landed: &[Landed]) -> (Vec<Kept>, Vec<i64>) {
    let mut table = Table { rows: Vec::new(), open: BTreeMap::new() };
    let mut latest = Millis::MIN;
    let mut written = Vec::with_capacity(landed.len());
    for (n, run) in landed.iter().enumerate() {
        let is_late = run.at < latest;
        latest = latest.max(run.at);
        written.push(match tracker.history {
            History::Snapshot => 0,
            History::Event => table.event(tracker, run),
            History::Change if is_late => table.late_change(tracker, &landed[..=n], run),
            History::Change => table.change(tracker, run),
            History::State if is_late => table.late_state(tracker, run),
            History::State => table.state(tracker, run),
        });
    }
    let mut rows = table.rows;
    rows.extend(table.open.into_values());
    rows.sort();
    (rows, written)
}

struct Table {
    /// Versions that are over.
    rows: Vec<Kept>,
    /// By key: events, states, open versions.
    open: BTreeMap<String, Kept>,
}

impl Table {
    /// The first run that shows it has it.
    fn event(&mut self, tracker: &Tracker, run: &Landed) -> i64 {
        let mut written = 0;
        for (k, _) in tracker.content(run.at).rows {
            self.open.entry(k.clone()).or_insert_with(|| {
                written += 1;
                row(run, k, None, Some(run.serial))
            });
        }
        written
    }

    /// A version ends where another value, or nothing, is shown by a run of a later instant than its beginning.
    fn change(&mut self, tracker: &Tracker, run: &Landed) -> i64 {
        let shown: BTreeMap<String, i64> = tracker.content(run.at).rows.into_iter().collect();
        let mut written = 0;
        let over = |open: &Kept| open.from < run.at && shown.get(&open.k).copied() != open.v;
        let ended: Vec<String> = self.open.values().filter(|open| over(open)).map(|open| open.k.clone()).collect();
        for k in ended {
            let version = self.open.remove(&k).expect("just seen");
            // One that another follows is no further row written.
            written += i64::from(!shown.contains_key(&k));
            self.rows.push(Kept { to: Some(run.at), ..version });
        }
        for (k, v) in shown {
            self.open.entry(k.clone()).or_insert_with(|| {
                written += 1;
                row(run, k, Some(v), None)
            });
        }
        written
    }

    /// The same versions as if all had landed in the order of their instants.
    fn late_change(&mut self, tracker: &Tracker, landed: &[Landed], run: &Landed) -> i64 {
        let mut in_order = landed.to_vec();
        in_order.sort_by_key(|run| run.at);
        *self = Table { rows: Vec::new(), open: BTreeMap::new() };
        for run in &in_order {
            self.change(tracker, run);
        }
        let shown: BTreeMap<String, i64> = tracker.content(run.at).rows.into_iter().collect();
        let all = || self.rows.iter().chain(self.open.values());
        let begun = all().filter(|version| version.run_id == run.run_id).count();
        let gone = all().filter(|version| version.to == Some(run.at) && !shown.contains_key(&version.k)).count();
        (begun + gone) as i64
    }

    /// A later instant has the last word: only what is not there at all, and nothing where it may have been deleted.
    fn late_state(&mut self, tracker: &Tracker, run: &Landed) -> i64 {
        let mut written = 0;
        for (k, v) in tracker.content(run.at).rows.into_iter().filter(|_| !tracker.deletes) {
            self.open.entry(k.clone()).or_insert_with(|| {
                written += 1;
                row(run, k, Some(v), Some(run.serial))
            });
        }
        written
    }

    fn state(&mut self, tracker: &Tracker, run: &Landed) -> i64 {
        let shown: BTreeMap<String, i64> = tracker.content(run.at).rows.into_iter().collect();
        let mut written = 0;
        for (k, v) in &shown {
            self.open.insert(k.clone(), row(run, k.clone(), Some(*v), Some(run.serial)));
            written += 1;
        }
        if tracker.deletes {
            let before = self.open.len();
            self.open.retain(|k, _| shown.contains_key(k));
            written += (before - self.open.len()) as i64;
        }
        written
    }
}

fn row(run: &Landed, k: String, v: Option<i64>, serial: Option<u64>) -> Kept {
    Kept { k, v, serial, from: run.at, to: None, run_id: run.run_id.clone() }
}
