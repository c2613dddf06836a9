//! States that somebody is to be told of, when they begin and when they are over.
//!
//! ```text
//!  Status --firing--> what is not as it should be
//!         \--is_over--> of a state that was: over, and how that reads; or not to be told yet
//! ```
//!
//! Between the two lies what nobody knows: a daemon that has just started has not heard of its past, a spool of 60 % is
//! neither filling nor drained. Pure. Must not know: who is told, and when.

use super::{Phase, RunStatus, Status, Tracker};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A spool that is so full, in percent, is filling; below the second it has drained.
const FILLING: u64 = 70;
const DRAINED: u64 = 50;
/// States that a text names.
const NAMED: usize = 5;
/// States that one alert lists.
const LISTED: usize = 1_000;

/// Whose state it is. The gravest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    /// `None` for what is not a tracker's.
    pub tracker: Option<String>,
}

/// What kind of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The database is away.
    Database,
    /// The spool is filling.
    Spool,
    /// A tracker fails until somebody changes something.
    Standing,
    /// A tracker has had no success for `fresh_within`.
    Stale,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Database => "database",
            Kind::Spool => "spool",
            Kind::Standing => "standing",
            Kind::Stale => "stale",
        }
    }
}

/// Whether it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fires {
    Firing,
    Resolved,
}

impl Fires {
    pub const fn as_str(self) -> &'static str {
        match self {
            Fires::Firing => "firing",
            Fires::Resolved => "resolved",
        }
    }
}

/// A state that began, lasts, or is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    #[serde(flatten)]
    pub subject: Subject,
    pub state: Fires,
    /// It was told before.
    pub repeated: bool,
    /// Since when it fires, or fired, as far as known.
    pub since: Timestamp,
    /// One line.
    pub text: String,
}

/// What is told at once.
#[derive(Debug, Clone, Serialize)]
pub struct Alert {
    /// `host:pid`.
    pub instance: String,
    pub at: Timestamp,
    /// One line. Slack, Mattermost and others show this field.
    pub text: String,
    /// Firing if any of them is.
    pub state: Fires,
    /// At least one, at most 1,000; the gravest first.
    pub alerts: Vec<Notice>,
    /// Further ones that are not listed.
    pub more: usize,
}

impl Alert {
    /// Of at least one notice.
    pub fn new(instance: &str, at: Timestamp, mut alerts: Vec<Notice>) -> Alert {
        let texts: Vec<&str> = alerts.iter().take(NAMED).map(|notice| notice.text.as_str()).collect();
        let unnamed = alerts.len() - texts.len();
        let and = if unnamed > 0 { format!("; and {unnamed} more") } else { String::new() };
        let text = format!("trackd on {instance}: {}{and}", texts.join("; "));
        let fires = alerts.iter().any(|notice| notice.state == Fires::Firing);
        let more = alerts.len().saturating_sub(LISTED);
        alerts.truncate(LISTED);
        let state = if fires { Fires::Firing } else { Fires::Resolved };
        Alert { instance: instance.to_owned(), at, text, state, alerts, more }
    }
}

/// What fires: whose state, since when, and how it reads.
pub fn firing(status: &Status, now: Timestamp) -> Vec<(Subject, Timestamp, String)> {
    let mut firing = Vec::new();
    let mut add = |kind, tracker: Option<&Tracker>, since, text| {
        firing.push((Subject { kind, tracker: tracker.map(|tracker| tracker.name.clone()) }, since, text));
    };
    let error = status.database_error.as_deref();
    if status.phase == Phase::Degraded || status.phase == Phase::Running && error.is_some() {
        add(Kind::Database, None, now, format!("database away: {}", error.unwrap_or("no error known")));
    }
    if let Some(percent) = percent(status).filter(|percent| *percent >= FILLING) {
        let waiting = status.spool.entries;
        add(Kind::Spool, None, now, format!("spool is {percent} % full: {waiting} payloads wait for the database"));
    }
    for tracker in &status.trackers {
        if let Some(fault) = tracker.standing {
            let error = tracker.last.as_ref().and_then(|run| run.error.as_deref()).unwrap_or("no error known");
            let text = format!("{} fails until somebody changes something: {error}", tracker.name);
            add(Kind::Standing, Some(tracker), fault.since, text);
        }
        if let Some(since) = tracker.stale_at.filter(|_| tracker.stale) {
            let success = tracker.last_success.map_or_else(|| "so far".to_owned(), |at| format!("since {at}"));
            add(Kind::Stale, Some(tracker), since, format!("{} is stale: no success {success}", tracker.name));
        }
    }
    firing
}

/// Tells of states that fired whether they are over.
#[derive(Debug)]
pub struct Judge<'a> {
    status: &'a Status,
    trackers: HashMap<&'a str, &'a Tracker>,
}

impl<'a> Judge<'a> {
    /// By this status.
    pub fn new(status: &'a Status) -> Judge<'a> {
        let trackers = status.trackers.iter().map(|tracker| (tracker.name.as_str(), tracker)).collect();
        Judge { status, trackers }
    }

    /// How it reads that this state is over; `None` while it fires, and while nobody knows.
    pub fn is_over(&self, subject: &Subject) -> Option<String> {
        let name = match (&subject.tracker, subject.kind) {
            (None, Kind::Database) => return self.is_back(),
            (None, _) => return self.has_drained(),
            (Some(name), _) => name,
        };
        let Some(tracker) = self.trackers.get(name.as_str()) else {
            return Some(format!("{name} is not followed any more"));
        };
        let succeeded = tracker.last.as_ref().is_some_and(|run| run.status == RunStatus::Succeeded);
        match subject.kind {
            Kind::Standing if tracker.standing.is_none() && succeeded => Some(format!("{name} is healed")),
            Kind::Stale if tracker.stale_at.is_none() => Some(format!("{name} need not be fresh any more")),
            Kind::Stale if !tracker.stale && tracker.last_success.is_some() => Some(format!("{name} is fresh again")),
            _ => None,
        }
    }

    fn is_back(&self) -> Option<String> {
        let is_back = self.status.phase == Phase::Running && self.status.database_error.is_none();
        is_back.then(|| "database is back".to_owned())
    }

    fn has_drained(&self) -> Option<String> {
        let percent = percent(self.status).filter(|percent| *percent < DRAINED)?;
        Some(format!("spool has drained: it is {percent} % full"))
    }
}

/// How full the spool is; `None` before it is known.
fn percent(status: &Status) -> Option<u64> {
    status.spool.used.saturating_mul(100).checked_div(status.spool.limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Spool;

    fn subject(kind: Kind, tracker: Option<&str>) -> Subject {
        Subject { kind, tracker: tracker.map(str::to_owned) }
    }

    fn kinds(status: &Status) -> Vec<Kind> {
        firing(status, Timestamp::UNIX_EPOCH).into_iter().map(|(subject, ..)| subject.kind).collect()
    }

    #[test]
    fn a_spool_between_its_limits_is_neither_filling_nor_drained() {
        let of = |used| Status { spool: Spool { used, limit: 1_000, ..Spool::default() }, ..Status::default() };
        let told = |used| {
            let status = of(used);
            (kinds(&status) == [Kind::Spool], Judge::new(&status).is_over(&subject(Kind::Spool, None)).is_some())
        };
        assert_eq!([700, 699, 500, 499].map(told), [(true, false), (false, false), (false, false), (false, true)]);
        let unknown = Status::default();
        assert_eq!(Judge::new(&unknown).is_over(&subject(Kind::Spool, None)), None, "no limit is known yet");
    }

    #[test]
    fn a_start_knows_nothing_of_the_database_and_a_tracker_that_is_gone_is_over() {
        let status = Status { database_error: Some("refused".into()), ..Status::default() };
        assert_eq!((kinds(&status), Judge::new(&status).is_over(&subject(Kind::Database, None))), (Vec::new(), None));
        let away = Status { phase: Phase::Degraded, ..status };
        assert_eq!(firing(&away, Timestamp::UNIX_EPOCH)[0].2, "database away: refused");
        let back = Status { phase: Phase::Running, database_error: None, ..away };
        let judge = Judge::new(&back);
        assert_eq!(judge.is_over(&subject(Kind::Database, None)).as_deref(), Some("database is back"));
        assert_eq!(judge.is_over(&subject(Kind::Stale, Some("x"))).as_deref(), Some("x is not followed any more"));
    }

    #[test]
    fn an_alert_of_many_names_a_few_and_lists_most() {
        let notice = |n: usize| Notice {
            subject: subject(Kind::Stale, Some("x")),
            state: if n == 0 { Fires::Firing } else { Fires::Resolved },
            repeated: false,
            since: Timestamp::UNIX_EPOCH,
            text: format!("t{n}"),
        };
        let alert = Alert::new("h:1", Timestamp::UNIX_EPOCH, (0..1_200).map(notice).collect());
        assert_eq!(alert.text, "trackd on h:1: t0; t1; t2; t3; t4; and 1195 more");
        assert_eq!((alert.alerts.len(), alert.more, alert.state), (1_000, 200, Fires::Firing));
    }
}
