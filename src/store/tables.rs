//! Data tables: made and extended to match the configuration, inside the caller's guard.
//!
//! ```text
//!  tables of the configuration + the server's catalog --plan--> changes, or refusals with the statement to run
//! ```
//!
//! Only additions and safe widenings happen by themselves. trackd never drops or rewrites a user's column.
//! Must not know: rows, runs.

use super::merge::{qualified, quote};
use super::{Error, Guard, Pool, Statement};
use crate::shape::{Column, History, Scalar, Table, Type};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_postgres::types::Type as PgType;

/// Everybody who makes or extends tables takes this lock first: "trackd" and a 2, as bytes. Who finds that they stand does
/// not: it may be held by somebody who waits for a table that is locked.
const LOCK: i64 = 0x7472_6163_6b64_0002;

/// One statement that brings a table to its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The statement.
    pub sql: String,
    /// What it does, for people: `create table trades`.
    pub describe: String,
}

/// Makes and extends these tables; those they refer to must be among them.
///
/// Shape: what was done, in order; empty when everything stands.
///
/// Cancel safety: dropping the future leaves the guard failed; it can only be rolled back.
///
/// # Errors
/// Class standing: a table cannot be brought to its configuration by additions; the hint is the statement that
/// would do it. Otherwise as the guard's.
pub async fn ensure(guard: &mut Guard, tables: &[Arc<Table>]) -> Result<Vec<Change>, Error> {
    if plan(tables, &read(guard, tables).await?).is_ok_and(|changes| changes.is_empty()) {
        return Ok(Vec::new());
    }
    guard.defer(Statement::new("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(LOCK, PgType::INT8));
    let changes = plan(tables, &read(guard, tables).await?)?;
    for change in &changes {
        tracing::info!(target: "trackd::store", change = change.describe, "table changed");
        guard.defer(Statement::new(change.sql.clone()));
    }
    guard.flush().await?;
    Ok(changes)
}

/// What `ensure` would do, without doing it.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As `ensure`; and class standing where a column's check is no condition.
pub async fn preview(pool: &Pool, tables: &[Arc<Table>]) -> Result<Vec<Change>, Error> {
    let mut guard = pool.begin().await?;
    let changes = plan(tables, &read(&mut guard, tables).await?)?;
    let checked = |table: &&Arc<Table>| table.columns.iter().any(|column| column.check.is_some());
    let checked: Vec<_> = tables.iter().filter(checked).collect();
    if !checked.is_empty() && may_ask(&mut guard).await? {
        for table in checked {
            try_checks(&mut guard, table).await?;
        }
    }
    Ok(changes)
}

/// Whether this role may make temporary tables; a run of few rows needs none, so that nothing is wrong without.
async fn may_ask(guard: &mut Guard) -> Result<bool, Error> {
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')";
    Ok(guard.query(Statement::new(sql)).await?.first().is_some_and(|row| row.get(0)))
}

/// Only the server knows whether a check is SQL: it is asked with a temporary table, which the guard takes back.
async fn try_checks(guard: &mut Guard, table: &Table) -> Result<(), Error> {
    let columns = table.columns.iter().map(|column| format!("{}{}", definition(column), constraints(column, &[])));
    let history = history_columns(table.history).into_iter().map(|(name, ty, _)| format!("{} {ty}", quote(name)));
    let columns = columns.chain(history).collect::<Vec<_>>().join(", ");
    guard.defer(Statement::new(format!("CREATE TEMP TABLE trackd_checks ({columns})")));
    guard.defer(Statement::new("DROP TABLE pg_temp.trackd_checks"));
    match guard.flush().await {
        Err(error) if !error.is_away() => {
            let hint = "`check` is an SQL condition over the columns of its table";
            Err(Error::refused(format!("table {}", table.name), format!("check: {error}"), Some(hint.into())))
        }
        other => other.map(drop),
    }
}

/// What the server has of the tables that are asked for.
#[derive(Debug, Default)]
struct Catalog {
    /// By the configuration's names; a table that is not there is missing.
    tables: HashMap<String, Found>,
    missing_schemas: HashSet<String>,
}

#[derive(Debug, Default)]
struct Found {
    /// `r` table, `p` partitioned, `v` view …
    kind: String,
    /// Name → its type as `format_type` says it, and whether an insert must give it a value.
    columns: HashMap<String, (String, bool)>,
    primary_key: Vec<String>,
    /// The name of its constraint.
    primary_key_name: String,
    /// The first column of each index.
    indexed: HashSet<String>,
    /// The columns of the unique indexes over rows whose valid_to is null.
    open_versions: Vec<Vec<String>>,
}

async fn read(guard: &mut Guard, tables: &[Arc<Table>]) -> Result<Catalog, Error> {
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let quoted: Vec<String> = tables.iter().map(|table| qualified(&table.name)).collect();
    let bind = |sql: &'static str| {
        Statement::new(sql).bind(names.clone(), PgType::TEXT_ARRAY).bind(quoted.clone(), PgType::TEXT_ARRAY)
    };
    let mut catalog = Catalog::default();
    let columns = bind(
        "SELECT t.name, c.relkind::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
         FROM unnest($1::text[], $2::text[]) AS t(name, quoted) \
         JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(t.quoted) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped",
    );
    for row in guard.query(columns).await? {
        let found = catalog.tables.entry(row.get(0)).or_default();
        found.kind = row.get(1);
        found.columns.insert(row.get(2), (row.get(3), row.get(4)));
    }
    let indexes = bind(
        "SELECT t.name, i.indisprimary, \
         i.indisunique AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) IS NOT DISTINCT FROM '(valid_to IS NULL)', ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k::int, true) \
         FROM pg_catalog.generate_series(1, i.indnkeyatts) AS k ORDER BY k), c.relname::text \
         FROM unnest($1::text[], $2::text[]) AS t(name, quoted) \
         JOIN pg_catalog.pg_index i ON i.indrelid = pg_catalog.to_regclass(t.quoted) \
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid",
    );
    for row in guard.query(indexes).await? {
        let found = catalog.tables.entry(row.get(0)).or_default();
        let columns: Vec<String> = row.get::<_, Vec<String>>(3).iter().map(|name| unquoted(name)).collect();
        found.indexed.extend(columns.first().cloned());
        if row.get(1) {
            (found.primary_key, found.primary_key_name) = (columns, row.get(4));
        } else if row.get(2) {
            found.open_versions.push(columns);
        }
    }
    let schemas: Vec<String> = tables.iter().filter_map(|table| schema(table)).map(str::to_owned).collect();
    if !schemas.is_empty() {
        let missing = "SELECT name FROM unnest($1::text[]) AS s(name) \
             WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = name)";
        let rows = guard.query(Statement::new(missing).bind(schemas, PgType::TEXT_ARRAY)).await?;
        catalog.missing_schemas = rows.iter().map(|row| row.get(0)).collect();
    }
    Ok(catalog)
}

/// The schema a table's name begins with.
fn schema(table: &Table) -> Option<&str> {
    table.name.split_once('.').map(|(schema, _)| schema)
}

/// Only for one that is missing: IF NOT EXISTS demands the privilege to make schemas even where there is nothing to do.
fn create_schema(name: &str) -> Change {
    Change { sql: format!("CREATE SCHEMA {}", quote(name)), describe: format!("create schema {name}") }
}

/// `pg_get_indexdef` quotes names that need it.
fn unquoted(name: &str) -> String {
    name.trim_matches('"').replace("\"\"", "\"")
}

fn plan(tables: &[Arc<Table>], catalog: &Catalog) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    let mut missing = catalog.missing_schemas.clone();
    for table in Table::in_order(tables) {
        match catalog.tables.get(&table.name) {
            None => {
                changes.extend(schema(&table).filter(|name| missing.remove(*name)).map(create_schema));
                create(&table, tables, &mut changes);
            }
            Some(found) => extend(&table, tables, found, &mut changes)?,
        }
    }
    Ok(changes)
}

/// The columns a history adds, after those of the configuration.
fn history_columns(history: History) -> Vec<(&'static str, &'static str, bool)> {
    let mut columns = vec![(history.instant_column(), "timestamp with time zone", true)];
    if matches!(history, History::Change { .. }) {
        columns.push(("valid_to", "timestamp with time zone", false));
    }
    columns.push(("run_id", "uuid", true));
    columns
}

fn primary_key(table: &Table) -> Vec<String> {
    let mut key: Vec<String> = table.key_names().map(str::to_owned).collect();
    if matches!(table.history, History::Snapshot | History::Change { .. }) && !key.is_empty() {
        key.push(table.history.instant_column().to_owned());
    }
    key
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

fn create(table: &Table, all: &[Arc<Table>], changes: &mut Vec<Change>) {
    let mut parts: Vec<String> = Vec::new();
    for (i, column) in table.columns.iter().enumerate() {
        let not_null = if column.required || table.key.contains(&i) { " NOT NULL" } else { "" };
        parts.push(format!("{}{not_null}{}", definition(column), constraints(column, all)));
    }
    for (name, ty, required) in history_columns(table.history) {
        parts.push(format!("{} {ty}{}", quote(name), if required { " NOT NULL" } else { "" }));
    }
    let key = primary_key(table);
    if !key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", list(&key)));
    }
    let target = qualified(&table.name);
    changes.push(Change {
        sql: format!("CREATE TABLE {target} ({})", parts.join(", ")),
        describe: format!("create table {}", table.name),
    });
    changes.extend(open_version(table).map(|(_, index)| index));
    if key.is_empty() {
        changes.push(index(table, table.history.instant_column()));
    }
    changes.extend(table.columns.iter().filter(|column| column.index).map(|column| index(table, &column.name)));
}

/// What keeps a change table to one open version a key: its columns, and the index.
fn open_version(table: &Table) -> Option<(Vec<String>, Change)> {
    if !matches!(table.history, History::Change { .. }) {
        return None;
    }
    let key: Vec<String> = table.key_names().map(str::to_owned).collect();
    let (target, columns) = (qualified(&table.name), list(&key));
    let index = Change {
        sql: format!("CREATE UNIQUE INDEX ON {target} ({columns}) WHERE valid_to IS NULL"),
        describe: format!("create index on {}: one open version a key", table.name),
    };
    Some((key, index))
}

fn definition(column: &Column) -> String {
    format!("{} {}", quote(&column.name), column.ty)
}

fn constraints(column: &Column, all: &[Arc<Table>]) -> String {
    let check = column.check.as_ref().map(|check| format!(" CHECK ({check})")).unwrap_or_default();
    let references = column.references.as_ref().and_then(|name| {
        let other = all.iter().find(|table| table.name == *name)?;
        Some(format!(" REFERENCES {} ({})", qualified(name), quote(other.key_names().next()?)))
    });
    check + &references.unwrap_or_default()
}

fn index(table: &Table, column: &str) -> Change {
    Change {
        sql: format!("CREATE INDEX ON {} ({})", qualified(&table.name), quote(column)),
        describe: format!("create index on {}.{column}", table.name),
    }
}

fn extend(table: &Table, all: &[Arc<Table>], found: &Found, changes: &mut Vec<Change>) -> Result<(), Error> {
    let target = qualified(&table.name);
    if !matches!(found.kind.as_str(), "r" | "p") {
        return Err(refuse(
            table,
            "it is there, but not as a table",
            "give the table another name in the configuration",
        ));
    }
    keyed(table, found)?;
    for column in &table.columns {
        match found.columns.get(&column.name) {
            // Added columns may be null: the rows that are there already have no value for them.
            None => changes.push(Change {
                sql: format!("ALTER TABLE {target} ADD COLUMN {}{}", definition(column), constraints(column, all)),
                describe: format!("add column {}.{} {}", table.name, column.name, column.ty),
            }),
            Some((have, _)) => changes.extend(widen(table, column, have)?),
        }
        if column.index && !found.indexed.contains(&column.name) {
            changes.push(index(table, &column.name));
        }
    }
    extend_history(table, found, changes)?;
    let known = |name: &String| {
        table.columns.iter().any(|column| column.name == *name)
            || history_columns(table.history).iter().any(|(history, ..)| history == name)
    };
    match found.columns.iter().find(|(name, (_, must))| *must && !known(name)) {
        Some((name, _)) => Err(refuse(
            table,
            format!("column {name} takes no null and has no default, and the configuration does not fill it"),
            format!("ALTER TABLE {target} ALTER COLUMN {} DROP NOT NULL", quote(name)),
        )),
        None => Ok(()),
    }
}

/// Whether the primary key is the configuration's; the order of its columns is the user's.
fn keyed(table: &Table, found: &Found) -> Result<(), Error> {
    let key = primary_key(table);
    if key.is_empty() || sorted(&key) == sorted(&found.primary_key) {
        return Ok(());
    }
    let (have, drop) = match found.primary_key.as_slice() {
        [] => ("none".to_owned(), String::new()),
        have => (format!("({})", have.join(", ")), format!("DROP CONSTRAINT {}, ", quote(&found.primary_key_name))),
    };
    let what = format!("primary key: expected ({}), got {have}", key.join(", "));
    let target = qualified(&table.name);
    Err(refuse(table, what, format!("ALTER TABLE {target} {drop}ADD PRIMARY KEY ({})", list(&key))))
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_unstable();
    names
}

/// The columns a history adds, and what `change` needs to stay right.
fn extend_history(table: &Table, found: &Found, changes: &mut Vec<Change>) -> Result<(), Error> {
    let target = qualified(&table.name);
    for (name, ty, _) in history_columns(table.history) {
        match found.columns.get(name) {
            None => changes.push(Change {
                sql: format!("ALTER TABLE {target} ADD COLUMN {} {ty}", quote(name)),
                describe: format!("add column {}.{name} {ty}", table.name),
            }),
            Some((have, _)) if have != ty => {
                let column = quote(name);
                let statement = format!("ALTER TABLE {target} ALTER COLUMN {column} TYPE {ty} USING {column}::{ty}");
                return Err(refuse(table, format!("column {name}: expected {ty}, got {have}"), statement));
            }
            Some(_) => {}
        }
    }
    let missing =
        open_version(table).filter(|(key, _)| !found.open_versions.iter().any(|have| sorted(have) == sorted(key)));
    changes.extend(missing.map(|(_, index)| index));
    Ok(())
}

/// integer → bigint → numeric, and numeric(p,s) → one that holds all its values.
fn widen(table: &Table, column: &Column, have: &str) -> Result<Option<Change>, Error> {
    let want = column.ty.to_string();
    // One that holds more stands: it was widened since, and what waited in a spool or another daemon asks as before.
    if want == have || Type::parse(have, None).is_ok_and(|have| holds(&have, &want)) {
        return Ok(None);
    }
    let sql = format!("ALTER TABLE {} ALTER COLUMN {} TYPE {want}", qualified(&table.name), quote(&column.name));
    if !holds(&column.ty, have) {
        let what = format!("column {}: expected {want}, got {have}", column.name);
        return Err(refuse(table, what, format!("{sql} USING {}::{want}", quote(&column.name))));
    }
    Ok(Some(Change { sql, describe: format!("widen {}.{} from {have} to {want}", table.name, column.name) }))
}

/// Whether every value of the type `have` is a value of the wanted type.
fn holds(want: &Type, have: &str) -> bool {
    let whole_digits = |text: &str| -> Option<(i32, i32)> {
        let (precision, scale) = text.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
        let (precision, scale): (i32, i32) = (precision.parse().ok()?, scale.parse().ok()?);
        Some((precision - scale, scale))
    };
    if want.array {
        return false;
    }
    match (&want.scalar, have) {
        (Scalar::Bigint | Scalar::Numeric(None), "integer") | (Scalar::Numeric(None), "bigint") => true,
        (Scalar::Numeric(None), have) => have.starts_with("numeric("),
        (Scalar::Numeric(Some((precision, scale))), have) => {
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            whole_digits(have).is_some_and(|(whole, fraction)| precision - scale >= whole && scale >= fraction)
        }
        _ => false,
    }
}

fn refuse(table: &Table, what: impl Into<String>, statement: impl Into<String>) -> Error {
    let hint = format!("trackd does not change this by itself; you could run: {}", statement.into());
    Error::refused(format!("table {}", table.name), what, Some(hint))
}
