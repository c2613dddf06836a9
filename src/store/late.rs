//! The SQL of a run that lands after one of a later instant: its rows are fitted in, and have no say of what is now.
//!
//! ```text
//!  state, event   what is not there at all; of a state that deletes, nothing
//!  change         before   |------------- v1 ------------->
//!                 late            v2, at $1
//!                 after    |--v1--|--v2--|------ v1 ------>    as if all had landed in order
//!                                 $1     next
//! ```
//!
//! A row that did not change is not written again, so that a table does not tell how late its rows are known to be so:
//! the ledger does. In: a table, where its rows wait, and the next run that landed. Out: statements, as `merge`'s.
//! Must not know: connections, but for the question for that run.

use super::merge::{Incoming, Merge, Parts, list, quote};
use super::{Error, Guard, Statement};
use crate::shape::{Absent, History, OnChange, Stamp, Table};
use jiff::Timestamp;
use tokio_postgres::types::Type;
use uuid::Uuid;

/// Until when a version went on that is ended; in capitals: no column of a configuration is called so.
const UNTIL: &str = "\"UNTIL\"";

/// Of the runs of a later instant that landed already, the first.
#[derive(Debug)]
pub(super) struct Next {
    at: Timestamp,
    run_id: Uuid,
}

/// The next run of the same tracker that has landed, where the table's history depends on it. Whoever else lands runs of
/// this tracker waits meanwhile: `claim::turn`.
///
/// # Errors
/// As the guard's.
pub(super) async fn next(guard: &mut Guard, table: &Table, stamp: &Stamp) -> Result<Option<Next>, Error> {
    if matches!(table.history, History::Snapshot | History::Event { on_change: OnChange::Ignore }) {
        return Ok(None);
    }
    let later = "SELECT l.scheduled_at, l.run_id FROM trackd.runs r JOIN trackd.runs l ON l.tracker = r.tracker \
                 AND l.scheduled_at > r.scheduled_at AND l.status = 'succeeded' \
                 WHERE r.run_id = $1 ORDER BY l.scheduled_at LIMIT 1";
    let rows = guard.query(Statement::new(later).bind(stamp.run_id, Type::UUID)).await?;
    Ok(rows.first().map(|row| Next { at: row.get(0), run_id: row.get(1) }))
}

/// The statements that fit rows in, in order.
pub(super) fn rows(table: &Table, incoming: Incoming, next: &Next) -> Vec<Merge> {
    let parts = Parts::new(table, incoming);
    match table.history {
        History::State { absent: Absent::Delete } => Vec::new(),
        History::Change { .. } => {
            let changed = format!(
                "EXISTS (SELECT 1 FROM {} WHERE {} AND {})",
                parts.source,
                parts.same_key("t"),
                parts.changed()
            );
            vec![
                Merge { sql: end(&parts, next, &changed), counts: false },
                Merge { sql: begin_earlier(&parts, next), counts: true },
                Merge { sql: insert(&parts, next), counts: true },
            ]
        }
        _ => vec![Merge { sql: parts.insert_missing(), counts: true }],
    }
}

/// The statement for keys that the source did not show then.
pub(super) fn absent(table: &Table, incoming: Incoming, next: &Next) -> Option<Merge> {
    let parts = Parts::new(table, incoming);
    let gone = format!("NOT EXISTS (SELECT 1 FROM {} WHERE {})", parts.source, parts.same_key("t"));
    matches!(table.history, History::Change { absent: Absent::Close })
        .then(|| Merge { sql: end(&parts, next, &gone), counts: true })
}

impl Next {
    fn at(&self) -> String {
        format!("'{}'::timestamptz", self.at)
    }

    fn run_id(&self) -> String {
        format!("'{}'::uuid", self.run_id)
    }
}

/// Whether a version is one of the run's instant.
fn covers(version: &str) -> String {
    format!("{version}.valid_from <= $1 AND ({version}.valid_to IS NULL OR {version}.valid_to > $1)")
}

/// Ends the versions of the run's instant that `wrong` says are none; they go on where the next run found them.
fn end(parts: &Parts<'_>, next: &Next, wrong: &str) -> String {
    let (target, names) = (&parts.target, list(parts.names()));
    let same =
        parts.table.key_names().map(|name| format!("c.{0} = t.{0}", quote(name))).collect::<Vec<_>>().join(" AND ");
    let ended: Vec<String> = parts.names().map(|name| format!("t.{}", quote(name))).collect();
    format!(
        "WITH ended AS (UPDATE {target} AS t SET valid_to = $1 FROM {target} AS c WHERE {same} \
         AND c.valid_from = t.valid_from AND {} AND {wrong} RETURNING {}, c.valid_to AS {UNTIL}), \
         rest AS (INSERT INTO {target} ({names}, valid_from, valid_to, run_id) SELECT {names}, {}, {UNTIL}, {} FROM ended \
         WHERE {UNTIL} IS NULL OR {UNTIL} > {}) SELECT 1 FROM ended",
        covers("t"),
        ended.join(", "),
        next.at(),
        next.run_id(),
        next.at()
    )
}

/// A version that the next run began, and that was there already, began with this one.
fn begin_earlier(parts: &Parts<'_>, next: &Next) -> String {
    let target = &parts.target;
    format!(
        "UPDATE {target} AS t SET valid_from = $1, run_id = $2 FROM {} WHERE {} AND t.valid_from = {} AND NOT ({}) \
         AND NOT EXISTS (SELECT 1 FROM {target} AS c WHERE {} AND {})",
        parts.source,
        parts.same_key("t"),
        next.at(),
        parts.changed(),
        parts.same_key("c"),
        covers("c")
    )
}

/// The others have versions of their own, up to the next that is known.
fn insert(parts: &Parts<'_>, next: &Next) -> String {
    let target = &parts.target;
    let values: Vec<String> = parts.names().map(|name| format!("s.{}", quote(name))).collect();
    let later =
        format!("(SELECT min(t.valid_from) FROM {target} AS t WHERE {} AND t.valid_from > $1)", parts.same_key("t"));
    let until = match parts.table.history {
        History::Change { absent: Absent::Close } => format!("least({}, {later})", next.at()),
        // What the source no longer shows stays as it is.
        _ => later,
    };
    format!(
        "INSERT INTO {target} ({}, valid_from, valid_to, run_id) SELECT {}, $1, {until}, $2 FROM {} \
         WHERE NOT EXISTS (SELECT 1 FROM {target} AS t WHERE {} AND {})",
        list(parts.names()),
        values.join(", "),
        parts.source,
        parts.same_key("t"),
        covers("t")
    )
}
