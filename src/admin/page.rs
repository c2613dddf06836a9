//! Status values → the status page's HTML.
//!
//! Pure: the time comes in. Every value is escaped by the template engine. Must not know: HTTP.

use crate::status::{Phase, Run, RunStatus, Sample, Status, Tracker, TrackerState};
use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Environment, Error};
use serde::Serialize;

/// A page of ten thousand trackers serves nobody: the failing ones first, then in the order of the file.
const TRACKERS: usize = 500;
const TABLES: usize = 60;
const NAME: &str = "page.html";

/// The page's template, compiled.
pub(super) struct Page {
    environment: Environment<'static>,
}

impl Page {
    pub(super) fn new() -> Page {
        let mut environment = Environment::new();
        environment.add_filter("grouped", grouped);
        environment.add_template(NAME, include_str!("page.html")).expect("the template is part of the program");
        Page { environment }
    }

    /// # Errors
    /// The template engine's; no status value leads to one.
    pub(super) fn render(&self, status: &Status, now: Timestamp) -> Result<String, Error> {
        self.environment.get_template(NAME)?.render(Serde(View::new(status, now)))
    }
}

#[derive(Serialize)]
struct View<'a> {
    status: &'a Status,
    phase: &'static str,
    uptime: String,
    reloaded: Option<When>,
    /// Of the database.
    size: Option<String>,
    /// What is not in order, and keeps no run from landing.
    troubles: Vec<String>,
    trackers: Vec<Row<'a>>,
    more: usize,
    failing: usize,
    tables: Vec<Newest<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    schedule: &'a str,
    /// A word that CSS colours: ok, bad, warn, busy, idle.
    tone: &'static str,
    state: &'static str,
    last: Option<Last<'a>>,
    next: Option<When>,
    last_success: Option<When>,
    /// Since when it is stale.
    stale: Option<When>,
    /// It is tried at one in so many instants.
    every_nth: u32,
    failures: u32,
}

#[derive(Serialize)]
struct Last<'a> {
    status: &'static str,
    tone: &'static str,
    when: When,
    took: String,
    run: &'a Run,
}

#[derive(Serialize)]
struct Newest<'a> {
    tracker: &'a str,
    table: &'a str,
    when: When,
    columns: Vec<Heading<'a>>,
    rows: &'a [Vec<Option<String>>],
}

#[derive(Serialize)]
struct Heading<'a> {
    name: &'a str,
    number: bool,
}

/// An instant, for people and for machines.
#[derive(Serialize)]
struct When {
    /// "12 s ago", "in 3 min".
    text: String,
    at: String,
}

impl<'a> View<'a> {
    fn new(status: &'a Status, now: Timestamp) -> View<'a> {
        let mut trackers: Vec<&Tracker> = status.trackers.iter().collect();
        let failing = trackers.iter().filter(|tracker| tracker.failures_in_a_row > 0).count();
        if trackers.len() > TRACKERS {
            trackers.sort_by_key(|tracker| tracker.failures_in_a_row == 0 && !tracker.stale);
            trackers.truncate(TRACKERS);
        }
        let samples = trackers.iter().flat_map(|tracker| tracker.newest.iter().map(|sample| (&*tracker.name, sample)));
        let tables = samples.filter(|(_, sample)| !sample.rows.is_empty()).take(TABLES);
        View {
            status,
            phase: match status.phase {
                Phase::Starting => "starting",
                Phase::Running => "running",
                Phase::Degraded => "degraded",
                Phase::Draining => "draining",
            },
            uptime: length(seconds(status.started_at, now)),
            reloaded: status.last_reload.as_ref().map(|reload| When::new(reload.at, now)),
            size: status
                .server
                .as_ref()
                .map(|server| bytesize::ByteSize::b(server.database_size_bytes).display().iec().to_string()),
            troubles: super::routes::troubles(status),
            more: status.trackers.len() - trackers.len(),
            failing,
            tables: tables.map(|(tracker, sample)| Newest::new(tracker, sample, now)).collect(),
            trackers: trackers.into_iter().map(|tracker| Row::new(tracker, now)).collect(),
        }
    }
}

impl<'a> Row<'a> {
    fn new(tracker: &'a Tracker, now: Timestamp) -> Row<'a> {
        let (state, tone) = match (tracker.state, tracker.failures_in_a_row, &tracker.last) {
            (TrackerState::Running, ..) => ("running", "busy"),
            (TrackerState::Queued, ..) => ("queued", "warn"),
            _ if tracker.standing.is_some() => ("standing fault", "bad"),
            _ if tracker.stale => ("stale", "bad"),
            (TrackerState::Idle, 1.., _) => ("failing", "bad"),
            (TrackerState::Idle, 0, Some(_)) => ("idle", "ok"),
            (TrackerState::Idle, 0, None) => ("no run yet", "idle"),
        };
        Row {
            name: &tracker.name,
            schedule: &tracker.schedule,
            tone,
            state,
            last: tracker.last.as_ref().map(|run| Last::new(run, now)),
            next: tracker.next_run.map(|at| When::new(at, now)),
            last_success: tracker.last_success.map(|at| When::new(at, now)),
            stale: tracker.stale_at.filter(|_| tracker.stale).map(|at| When::new(at, now)),
            every_nth: tracker.standing.map_or(1, |fault| fault.every_nth),
            failures: tracker.failures_in_a_row,
        }
    }
}

impl<'a> Last<'a> {
    fn new(run: &'a Run, now: Timestamp) -> Last<'a> {
        let tone = match run.status {
            RunStatus::Succeeded => "ok",
            RunStatus::Failed => "bad",
            RunStatus::Missed | RunStatus::Skipped => "warn",
        };
        let took = run.finished_at.duration_since(run.started_at);
        let took = match took.as_millis() {
            millis @ ..10_000 => format!("{} ms", millis.max(0)),
            millis => length(millis / 1000),
        };
        Last { status: run.status.as_str(), tone, when: When::new(run.finished_at, now), took, run }
    }
}

impl<'a> Newest<'a> {
    fn new(tracker: &'a str, sample: &'a Sample, now: Timestamp) -> Newest<'a> {
        let number = |index: usize| {
            let mut cells = sample.rows.iter().filter_map(|row| row.get(index)?.as_deref()).peekable();
            cells.peek().is_some() && cells.all(|cell| cell.parse::<f64>().is_ok())
        };
        let columns = sample.columns.iter().enumerate();
        Newest {
            tracker,
            table: &sample.table,
            when: When::new(sample.at, now),
            columns: columns.map(|(index, name)| Heading { name, number: number(index) }).collect(),
            rows: &sample.rows,
        }
    }
}

impl When {
    fn new(at: Timestamp, now: Timestamp) -> When {
        let ahead = seconds(now, at);
        let text = match ahead {
            0 => "now".to_owned(),
            1.. => format!("in {}", length(ahead)),
            _ => format!("{} ago", length(-ahead)),
        };
        When { text, at: at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string() }
    }
}

/// 1284114 as "1 284 114", with spaces that do not break.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn seconds(from: Timestamp, to: Timestamp) -> i128 {
    (to.as_millisecond() - from.as_millisecond()).div_euclid(1000).into()
}

/// "42 s", "3 min", "2 h 5 min", "4 d 2 h": as exact as somebody looking wants it.
fn length(seconds: i128) -> String {
    let two = |big: i128, unit: &str, small: i128, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match seconds.max(0) {
        seconds @ ..100 => format!("{seconds} s"),
        seconds @ ..3600 => format!("{} min", seconds / 60),
        seconds @ ..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        seconds => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_as_people_say_them() {
        let texts: Vec<String> = [0, 99, 100, 3599, 3600, 7500, 86_400, 100_000].map(length).into();
        assert_eq!(texts, ["0 s", "99 s", "1 min", "59 min", "1 h", "2 h 5 min", "1 d", "1 d 3 h"]);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, -123_456].map(grouped), ["0", "999", "1\u{202f}000", "-123\u{202f}456"]);
        assert_eq!(grouped(1_284_114), "1\u{202f}284\u{202f}114");
    }

    #[test]
    fn instants_are_told_from_now() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let text = |second| When::new(Timestamp::from_second(second).expect("a time"), now).text;
        assert_eq!([text(1_000_000), text(1_000_003), text(999_940)], ["now", "in 3 s", "60 s ago"]);
    }
}
