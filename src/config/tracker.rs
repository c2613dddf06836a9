//! `[[tracker]]`, with `[defaults]` laid under it.
//!
//! In: a tracker's node and what it may depend on. Out: a `Draft`. Must not know: other trackers.

use super::checked::{OnBadRow, Retry, SourceSpec, Tracker};
use super::credential::Credentials;
use super::fault::{Fault, quote};
use super::node::{Entry, Node, Place, Value};
use super::read::{Fields, Sink};
use super::{fingerprint, request, table, template};
use crate::schedule::{Missed, MissedPolicy, Overlap, Schedule, cron::Cron, every::Every};
use crate::shape::Table;
use jiff::tz::TimeZone;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SHORTEST: Duration = Duration::from_millis(1);

/// What a tracker may depend on besides its own keys.
pub(super) struct Context<'s> {
    pub(super) sink: &'s Sink,
    /// For templates.
    pub(super) vars: minijinja::Value,
    pub(super) credentials: Arc<Credentials>,
    /// The folder of the file.
    pub(super) folder: PathBuf,
    /// What a change of the vars or the folder changes in each fingerprint.
    salt: u64,
    defaults: Option<Node>,
}

/// A tracker as far as it could be read, for the checks across trackers.
#[derive(Debug)]
pub(super) struct Draft {
    /// Its name, where it stands.
    pub(super) name: Option<(String, Place)>,
    /// Its tables, good and bad.
    pub(super) tables: Vec<table::Draft>,
    /// `None` if anything is missing; whether it holds, the sink knows.
    pub(super) tracker: Option<Tracker>,
}

/// The keys that `[defaults]` may hold too.
struct Common {
    schedule: Option<(Schedule, String)>,
    jitter: Duration,
    missed: Missed,
    overlap: Overlap,
    fresh_within: Option<Duration>,
    timeout: Duration,
    retry: Retry,
    on_bad_row: OnBadRow,
}

impl<'s> Context<'s> {
    pub(super) fn new(
        sink: &'s Sink,
        vars: &serde_json::Value,
        defaults: Option<Node>,
        folder: PathBuf,
        credentials: Arc<Credentials>,
    ) -> Self {
        let salt = fingerprint::of_text(&format!("{}\0{vars}", folder.display()));
        Context { sink, vars: template::value(vars), credentials, folder, salt, defaults }
    }

    /// Reads `[defaults]` by itself, so that a fault in it is found whatever the trackers override.
    pub(super) fn check_defaults(&self) {
        let Some(node) = &self.defaults else { return };
        let Some(mut fields) =
            self.sink.keep(Fields::new("defaults", node, self.sink).map_err(|f| f.about("defaults")))
        else {
            return;
        };
        common(&mut fields);
        fields.get("http", |node| request::check_defaults(node, self));
        fields.finish();
    }
}

/// Reads one tracker; every fault goes to the sink.
pub(super) fn read(node: &Node, context: &Context<'_>) -> Option<Draft> {
    let sink = context.sink;
    let mut fields = sink.keep(Fields::new("tracker", node, sink).map_err(|fault| fault.about("tracker")))?;
    if let Some(defaults) = context.defaults.as_ref().and_then(|node| node.table().ok()) {
        under(&mut fields.entries, defaults);
    }
    let entries = fields.entries.clone();
    context.credentials.take_used();
    let name = fields.require("name", |node| Ok((tracker_name(node)?, node.place.clone())));
    fields.exclusive("schedule", "every");
    let common = common(&mut fields);
    fields.exclusive("http", "file");
    let http = fields.get("http", |node| request::http(node, context)).flatten().map(SourceSpec::Http);
    let file = fields.get("file", |node| request::file(node, context)).flatten().map(SourceSpec::File);
    let nodes = fields.require("table", |node| match node.list() {
        Ok(items) if items.is_empty() => Err(node.fault("expected at least one table")),
        other => other.map_err(|fault| fault.hint("a table is written as [[tracker.table]]")),
    });
    fields.finish();
    let used = fingerprint::of_text(&context.credentials.take_used().join("\0"));
    let fingerprint = fingerprint::of_entries(&entries, context.salt ^ used);
    let tables: Vec<_> = nodes.unwrap_or_default().iter().map(|node| table::read(node, sink)).collect();
    let built: Option<Vec<_>> = tables.iter().map(|draft| draft.table.clone()).collect();
    let tracker = match (&name, common.schedule, http.or(file), built) {
        (Some((name, _)), Some((schedule, schedule_text)), Some(source), Some(tables)) => Some(Tracker {
            name: name.clone(),
            schedule,
            schedule_text,
            jitter: common.jitter,
            missed: common.missed,
            overlap: common.overlap,
            fresh_within: common.fresh_within,
            timeout: common.timeout,
            retry: common.retry,
            on_bad_row: common.on_bad_row,
            source,
            // A row lands after the one it refers to, or it would be set aside.
            tables: Table::in_order(&tables),
            fingerprint,
        }),
        _ => None,
    };
    Some(Draft { name, tables, tracker })
}

/// Lays defaults under a tracker's own keys; `http` and `retry` are merged key by key.
fn under(own: &mut Vec<Entry>, defaults: Vec<Entry>) {
    let has = |own: &[Entry], key: &str| own.iter().any(|entry| entry.key == key);
    let (every, schedule, http) = (has(own, "every"), has(own, "schedule"), has(own, "http"));
    for default in defaults {
        match default.key.as_str() {
            "schedule" | "timezone" if every => {}
            "every" if schedule => {}
            "http" if !http => {}
            // Not keys of the defaults: `check_defaults` says so.
            "name" | "table" | "file" => {}
            _ => merge(own, default),
        }
    }
}

fn merge(own: &mut Vec<Entry>, default: Entry) {
    const MERGED: [&str; 4] = ["http", "retry", "headers", "query"];
    // A header's name has no case.
    let Some(entry) = own.iter_mut().find(|entry| entry.key.eq_ignore_ascii_case(&default.key)) else {
        return own.push(default);
    };
    if MERGED.contains(&default.key.as_str())
        && let (Ok(mut inner), Ok(defaults)) = (entry.node.table(), default.node.table())
    {
        defaults.into_iter().for_each(|default| merge(&mut inner, default));
        entry.node.value = Value::Table(inner);
    }
}

fn tracker_name(node: &Node) -> Result<String, Fault> {
    let name = node.text()?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good) {
        return Ok(name.to_owned());
    }
    Err(node
        .fault(format!("expected a name, got {}", quote(name)))
        .hint("letters, digits, `_`, `.` and `-`, a letter or digit first, at most 63"))
}

fn common(fields: &mut Fields<'_>) -> Common {
    let policies = [("skip", MissedPolicy::Skip), ("once", MissedPolicy::Once), ("all", MissedPolicy::All)];
    let overlaps = [("coalesce", Overlap::Coalesce), ("skip", Overlap::Skip)];
    let bad_rows = [("reject", OnBadRow::Reject), ("fail", OnBadRow::Fail)];
    let sink = fields.sink;
    Common {
        schedule: schedule(fields),
        jitter: fields.get("jitter", |node| node.duration(Duration::ZERO..=DAY)).unwrap_or_default(),
        missed: Missed {
            policy: fields.get("missed", |node| node.word(&policies)).unwrap_or(MissedPolicy::Once),
            max_age: fields.get("missed_max_age", |node| node.duration(Duration::ZERO..=DAY * 365)).unwrap_or(DAY),
            limit: fields
                .get("missed_limit", |node| node.integer(1..=10_000))
                .map_or(100, |limit| u32::try_from(limit).expect("checked against 1..=10000")),
        },
        overlap: fields.get("overlap", |node| node.word(&overlaps)).unwrap_or(Overlap::Coalesce),
        fresh_within: fields.get("fresh_within", fresh_within).flatten(),
        timeout: fields.get("timeout", |node| node.duration(SHORTEST..=DAY)).unwrap_or(SECOND * 30),
        retry: fields.get("retry", |node| Ok(retry(Fields::new("retry", node, sink)?))).unwrap_or(Retry {
            attempts: 4,
            base: SECOND,
            max: SECOND * 60,
        }),
        on_bad_row: fields.get("on_bad_row", |node| node.word(&bad_rows)).unwrap_or(OnBadRow::Reject),
    }
}

/// "off" is for a tracker that need not be fresh where the defaults say that all are.
fn fresh_within(node: &Node) -> Result<Option<Duration>, Fault> {
    match node.text() {
        Ok("off") => Ok(None),
        _ => {
            let length = node.duration(SECOND..=DAY * 3650).map(Some);
            length.map_err(|fault| fault.hint("for example \"45m\"; \"off\" turns it off"))
        }
    }
}

fn schedule(fields: &mut Fields<'_>) -> Option<(Schedule, String)> {
    let given = (fields.entry("schedule"), fields.entry("every"), fields.entry("timezone"));
    let zone = fields.get("timezone", |node| {
        let name = node.text()?;
        TimeZone::get(name).map(|zone| (zone, name.to_owned())).map_err(|_| {
            node.fault(format!("expected an IANA time zone, got {}", quote(name)))
                .hint("for example \"UTC\" or \"Europe/Berlin\"")
        })
    });
    let every = fields.get("every", |node| {
        let period = node.duration(Duration::from_millis(100)..=DAY * 365)?;
        let every = Every::new(period).map_err(|message| node.fault(message))?;
        Ok((Schedule::Every(every), format!("every {}", humantime::format_duration(period))))
    });
    if let (None, Some(_), Some(timezone)) = given {
        let fault = Fault::new(timezone.place, "`timezone` has no effect on `every`");
        fields.sink.push(fault.hint("`every` counts from the epoch; remove `timezone`, or use `schedule`"));
    }
    let (zone, zone_name) = zone.unwrap_or((TimeZone::UTC, "UTC".into()));
    let cron = fields.get("schedule", |node| {
        let text = node.text()?;
        let cron = Cron::parse(text, zone).map_err(|error| {
            let fault = Fault::new(node.place.part(error.span), error.message);
            match error.hint {
                Some(hint) => fault.hint(hint),
                None => fault,
            }
        })?;
        Ok((Schedule::Cron(cron), format!("{text} ({zone_name})")))
    });
    cron.or(every)
}

fn retry(mut fields: Fields<'_>) -> Retry {
    let attempts = fields.get("attempts", |node| node.integer(1..=20)).unwrap_or(4);
    let base = fields.get("base", |node| node.duration(Duration::ZERO..=HOUR)).unwrap_or(SECOND);
    let max = fields.get("max", |node| {
        let max = node.duration(Duration::ZERO..=DAY)?;
        let show = humantime::format_duration;
        match max < base {
            true => Err(node.fault(format!("expected at least `base` ({}), got {}", show(base), show(max)))),
            false => Ok(max),
        }
    });
    fields.finish();
    let attempts = u32::try_from(attempts).expect("checked against 1..=20");
    Retry { attempts, base, max: max.unwrap_or_else(|| base.max(SECOND * 60)) }
}
