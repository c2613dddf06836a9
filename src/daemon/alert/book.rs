//! What was told of which state, and what is to be told next.
//!
//! ```text
//!            fires              `after` later              over
//!   (none) ────────▶ noticed ───────────────▶ told ──────────────────▶ to be resolved ──told──▶ (none)
//!     ▲                 │ over                 │  ▲ `repeat`: again      │ fires again
//!     └─────────────────┘                      └──┘        told ◀────────┘
//! ```
//!
//! One entry a subject: however often a state flaps, there is one thing to tell of it, and what was not told is not
//! taken back. In: statuses, deliveries, and the time. Out: notices. Pure: must not know the clock, who is told.

use crate::status::Status;
use crate::status::alert::{Fires, Judge, Notice, Subject, firing};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// `alert.after` and `alert.repeat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) after: Duration,
    pub(super) repeat: Option<Duration>,
}

/// Every state that fires, and those whose end is still to be told.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<Subject, Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Timestamp,
    text: String,
    state: Fires,
    /// When somebody was told that it fires.
    told_at: Option<Timestamp>,
    /// When there is something to tell; `None`: not while nothing changes.
    due: Option<Instant>,
}

/// A state of which somebody was told, by this process or the one before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) since: Timestamp,
    pub(super) told_at: Timestamp,
    pub(super) text: String,
}

impl Book {
    /// What the process before told: not new, and repeated when it would have been, but not before this one has had
    /// the time to see how it is now.
    pub(super) fn recalled(told: Vec<Told>, rules: Rules, now: Instant, wall: Timestamp) -> Book {
        let entry = |told: Told| {
            let ago = Duration::try_from(wall.duration_since(told.told_at)).unwrap_or_default();
            let due = rules.repeat.map(|repeat| now + repeat.saturating_sub(ago).max(rules.after));
            let (since, text, told_at) = (told.since, told.text, Some(told.told_at));
            (told.subject, Entry { since, text, state: Fires::Firing, told_at, due })
        };
        Book { entries: told.into_iter().map(entry).collect() }
    }

    /// What somebody was told that it fires.
    pub(super) fn told(&self) -> Vec<Told> {
        let told = |(subject, entry): (&Subject, &Entry)| {
            let (since, told_at, text) = (entry.since, entry.told_at?, entry.text.clone());
            Some(Told { subject: subject.clone(), since, told_at, text })
        };
        self.entries.iter().filter_map(told).collect()
    }

    /// Takes in how everything is.
    pub(super) fn look(&mut self, status: &Status, rules: Rules, now: Instant, wall: Timestamp) {
        let mut fires = BTreeMap::new();
        for (subject, since, text) in firing(status, wall) {
            fires.insert(subject, (since, text));
        }
        if !self.entries.is_empty() {
            let judge = Judge::new(status);
            self.entries.retain(|subject, entry| match fires.remove(subject) {
                Some((_, text)) => {
                    entry.fires(text, rules, now);
                    true
                }
                None => entry.is_kept(judge.is_over(subject), now),
            });
        }
        for (subject, (since, text)) in fires {
            let due = Some(now + rules.after);
            self.entries.insert(subject, Entry { since, text, state: Fires::Firing, told_at: None, due });
        }
    }

    /// When there is next something to tell.
    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// What is to be told now, the gravest first.
    pub(super) fn due(&self, now: Instant) -> Vec<Notice> {
        let due = self.entries.iter().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        let notice = |(subject, entry): (&Subject, &Entry)| Notice {
            subject: subject.clone(),
            state: entry.state,
            repeated: entry.state == Fires::Firing && entry.told_at.is_some(),
            since: entry.since,
            text: entry.text.clone(),
        };
        due.map(notice).collect()
    }

    /// These were told: they are repeated, and ends are forgotten.
    pub(super) fn delivered(&mut self, notices: &[Notice], rules: Rules, now: Instant, wall: Timestamp) {
        for notice in notices {
            if notice.state == Fires::Resolved {
                self.entries.remove(&notice.subject);
            } else if let Some(entry) = self.entries.get_mut(&notice.subject) {
                (entry.told_at, entry.due) = (Some(wall), rules.repeat.map(|repeat| now + repeat));
            }
        }
    }

    /// Nobody could be told: again with the repeat. Without one it is given up until the state changes.
    pub(super) fn failed(&mut self, notices: &[Notice], rules: Rules, now: Instant) {
        for notice in notices {
            match (rules.repeat, self.entries.get_mut(&notice.subject)) {
                (None, _) if notice.state == Fires::Resolved => drop(self.entries.remove(&notice.subject)),
                (repeat, Some(entry)) => entry.due = repeat.map(|repeat| now + repeat),
                (_, None) => {}
            }
        }
    }

    /// Who is told, or how often, is another now: what could not be told is told at once, what was told is repeated as
    /// the new rules say.
    pub(super) fn reconfigured(&mut self, rules: Rules, now: Instant) {
        for entry in self.entries.values_mut() {
            let last = entry.state == Fires::Firing && entry.told_at.is_some();
            let repeat = rules.repeat.map(|repeat| now + repeat);
            entry.due = if last { repeat } else { Some(entry.due.map_or(now, |due| due.min(now + rules.after))) };
        }
    }
}

impl Entry {
    fn fires(&mut self, text: String, rules: Rules, now: Instant) {
        if self.state == Fires::Resolved {
            // Nobody was told that it was over, so nothing is new.
            self.state = Fires::Firing;
            self.due = rules.repeat.map(|repeat| now + repeat);
        }
        self.text = text;
    }

    /// It does not fire: whether there is still something to tell of it.
    fn is_kept(&mut self, over: Option<String>, now: Instant) -> bool {
        if let (Some(over), Fires::Firing) = (over, self.state) {
            (self.state, self.text, self.due) = (Fires::Resolved, over, Some(now));
        }
        self.told_at.is_some()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
