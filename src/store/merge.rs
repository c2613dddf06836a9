//! The SQL that moves incoming rows into a data table: one set of statements for each history.
//!
//! In: a table and where its rows wait (arrays, or a staging table). Out: statement texts whose parameters are
//! `$1` the run's instant, `$2` its id, then for `Arrays` one array a column, for `Range` the first and last row.
//! Pure: must not know connections.

use crate::shape::{Absent, History, OnChange, Table};
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

/// The staging table's own columns, quoted. In capitals: no column of a configuration is called so.
const AT: &str = "\"AT\"";
const RUN: &str = "\"RUN\"";
const ROW: &str = "\"ROW\"";

/// Where incoming rows wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// In the parameters, `$3` on: one array a column.
    Arrays,
    /// In the staging table.
    Staged,
    /// In the staging table, rows `$3..=$4` of it.
    Range,
}

/// One statement of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) sql: String,
    /// Whether the rows it touches are rows written (closing a version that is then replaced is not).
    pub(super) counts: bool,
}

/// The statements that bring rows in, in order.
pub(super) fn rows(table: &Table, incoming: Incoming) -> Vec<Merge> {
    let parts = Parts::new(table, incoming);
    match table.history {
        History::Snapshot => vec![counted(parts.insert())],
        History::Event { on_change: OnChange::Ignore } => vec![counted(parts.insert_missing())],
        History::Event { on_change: OnChange::Update } => vec![counted(parts.upsert(&["run_id"]))],
        History::State { .. } => vec![counted(parts.upsert(&["updated_at", "run_id"]))],
        History::Change { .. } => {
            vec![Merge { sql: parts.close_changed(), counts: false }, counted(parts.open_versions())]
        }
    }
}

/// The statement for keys that the source no longer shows, if the table asks for one.
pub(super) fn absent(table: &Table, incoming: Incoming) -> Option<Merge> {
    let parts = Parts::new(table, incoming);
    match table.history {
        History::Change { absent: Absent::Close } => Some(counted(format!(
            "UPDATE {} AS t SET valid_to = $1 WHERE t.valid_to IS NULL AND t.valid_from < $1 \
             AND NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            parts.target,
            parts.source,
            parts.same_key("t")
        ))),
        History::State { absent: Absent::Delete } => Some(counted(format!(
            "DELETE FROM {} AS t WHERE coalesce(t.updated_at <= $1, true) AND NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            parts.target,
            parts.source,
            parts.same_key("t")
        ))),
        _ => None,
    }
}

/// The staging table of a data table: dropped with the transaction, numbered rows on request.
pub(super) fn create_staging(table: &Table, numbered: bool) -> String {
    let mut sql = format!("CREATE TEMP TABLE {} (", staging(table));
    for column in &table.columns {
        let _ = write!(sql, "{} {}, ", quote(&column.name), column.ty);
    }
    let _ = write!(sql, "{AT} timestamptz, {RUN} uuid");
    if numbered {
        let _ = write!(sql, ", {ROW} bigint GENERATED ALWAYS AS IDENTITY");
    }
    sql.push_str(") ON COMMIT DROP");
    sql
}

/// `COPY … FROM STDIN` into the data table itself (snapshot), or into its staging table.
pub(super) fn copy(table: &Table, staged: bool) -> String {
    let columns = list(table.columns.iter().map(|column| column.name.as_str()));
    match staged {
        true => format!("COPY {} ({columns}, {AT}, {RUN}) FROM STDIN (FORMAT binary)", staging(table)),
        false => format!(
            "COPY {} ({columns}, {}, run_id) FROM STDIN (FORMAT binary)",
            qualified(&table.name),
            table.history.instant_column()
        ),
    }
}

/// Keeps a data table's columns as they are to the end of the transaction, by the lock that rows are written with.
pub(super) fn hold(table: &Table) -> String {
    format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", qualified(&table.name))
}

/// Of the columns `$2` of table `$1`, how many have the types `$3`.
pub(super) const OF_THESE_TYPES: &str = "SELECT count(*) FROM pg_catalog.pg_attribute a \
    JOIN unnest($2::text[], $3::text[]) AS w(name, type) ON w.name = a.attname \
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND pg_catalog.format_type(a.atttypid, a.atttypmod) = w.type";

/// Gathers the staging table's statistics: without them a merge of many rows is planned as one of few.
pub(super) fn analyze_staging(table: &Table) -> String {
    format!("ANALYZE {}", staging(table))
}

/// The JSON of staged row `$1`, for `trackd.rejects`.
pub(super) fn staged_row(table: &Table) -> String {
    // `s.*`, for a column may be called s.
    format!("SELECT (to_jsonb(s.*) - 'AT' - 'RUN' - 'ROW')::text FROM {} AS s WHERE s.{ROW} = $1", staging(table))
}

/// An identifier in double quotes.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name with its schema, `public` where none is written.
///
/// Not left to search_path: it begins with the role's own schema, and a role named trackd would find its tables
/// in trackd's private one.
pub(super) fn qualified(name: &str) -> String {
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    format!("{}.{}", quote(schema), quote(table))
}

/// The name is a hash: two tables of one run may differ only after the 63 bytes that an identifier has.
fn staging(table: &Table) -> String {
    format!("pg_temp.trackd_in_{:016x}", xxh3_64(table.name.as_bytes()))
}

fn counted(sql: String) -> Merge {
    Merge { sql, counts: true }
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

/// The pieces that the statements of one table share.
pub(super) struct Parts<'a> {
    pub(super) table: &'a Table,
    pub(super) target: String,
    /// A FROM item named `s`, with the range condition where there is one.
    pub(super) source: String,
}

impl<'a> Parts<'a> {
    pub(super) fn new(table: &'a Table, incoming: Incoming) -> Parts<'a> {
        let source = match incoming {
            Incoming::Arrays => {
                let arrays: Vec<String> = table
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, column)| format!("${}::{}[]", i + 3, column.ty))
                    .collect();
                let names = list(table.columns.iter().map(|column| column.name.as_str()));
                format!("unnest({}) AS s({names})", arrays.join(", "))
            }
            Incoming::Staged => format!("{} AS s", staging(table)),
            Incoming::Range => format!("(SELECT * FROM {} WHERE {ROW} BETWEEN $3 AND $4) AS s", staging(table)),
        };
        Parts { table, target: qualified(&table.name), source }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.table.columns.iter().map(|column| column.name.as_str())
    }

    fn others(&self) -> Vec<&'a str> {
        let is_key = |i: &usize| self.table.key.contains(i);
        self.names().enumerate().filter(|(i, _)| !is_key(i)).map(|(_, name)| name).collect()
    }

    fn key(&self) -> String {
        list(self.table.key_names())
    }

    /// Whether a row of the table, by this alias, is that of an incoming one.
    pub(super) fn same_key(&self, alias: &str) -> String {
        let same = |name: &str| format!("{alias}.{0} = s.{0}", quote(name));
        self.table.key_names().map(same).collect::<Vec<_>>().join(" AND ")
    }

    fn insert(&self) -> String {
        let values: Vec<String> = self.names().map(|name| format!("s.{}", quote(name))).collect();
        format!(
            "INSERT INTO {} AS t ({}, {}, run_id) SELECT {}, $1, $2 FROM {}",
            self.target,
            list(self.names()),
            self.table.history.instant_column(),
            values.join(", "),
            self.source
        )
    }

    pub(super) fn insert_missing(&self) -> String {
        format!("{} ON CONFLICT ({}) DO NOTHING", self.insert(), self.key())
    }

    /// Inserts, or corrects what differs; a row that is the same is not touched at all, nor one of a later run: ids of
    /// runs grow with their instants, and a payload that waited in the spool may land after newer ones.
    fn upsert(&self, stamps: &[&str]) -> String {
        let others = self.others();
        if others.is_empty() {
            return self.insert_missing();
        }
        let set: Vec<String> =
            others.iter().chain(stamps).map(|name| format!("{0} = EXCLUDED.{0}", quote(name))).collect();
        format!(
            "{} ON CONFLICT ({}) DO UPDATE SET {} WHERE coalesce(t.run_id <= EXCLUDED.run_id, true) AND {}",
            self.insert(),
            self.key(),
            set.join(", "),
            differs(&others, "t", "EXCLUDED")
        )
    }

    /// Whether an incoming row says other things than the row `t` of its key.
    pub(super) fn changed(&self) -> String {
        let others = self.others();
        if others.is_empty() { "false".to_owned() } else { differs(&others, "t", "s") }
    }

    fn close_changed(&self) -> String {
        format!(
            "UPDATE {} AS t SET valid_to = $1 FROM {} WHERE {} AND t.valid_to IS NULL AND t.valid_from < $1 AND {}",
            self.target,
            self.source,
            self.same_key("t"),
            self.changed()
        )
    }

    fn open_versions(&self) -> String {
        format!(
            "{} WHERE NOT EXISTS (SELECT 1 FROM {} AS t WHERE {} AND t.valid_to IS NULL)",
            self.insert(),
            self.target,
            self.same_key("t")
        )
    }
}

fn differs(names: &[&str], left: &str, right: &str) -> String {
    let row = |side: &str| names.iter().map(|name| format!("{side}.{}", quote(name))).collect::<Vec<_>>().join(", ");
    format!("({}) IS DISTINCT FROM ({})", row(left), row(right))
}
