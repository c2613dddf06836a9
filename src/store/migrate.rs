//! Brings the private schema `trackd` to the version this program knows.
//!
//! In: a connection of its own, which nothing else uses meanwhile. Out: the names of what was applied.
//! Must not know: data tables (those follow the configuration, see `tables`).

use super::connect::Opened;
use super::{Error, Guard, Pool, Statement, Target};
use crate::class::Class;
use refinery::{Migration, error::Kind};
use std::fmt;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, error::SqlState};

mod embedded {
    #![allow(clippy::unwrap_used, unreachable_pub)] // the macro's own code; the files' names are constants
    refinery::embed_migrations!("src/store/migrations");
}

/// Where refinery keeps what it applied.
const HISTORY: &str = "trackd.schema_history";
const EXISTS: &str = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
/// The advisory lock of everybody who migrates: "trackd" and a 1, as bytes.
const LOCK: i64 = 0x7472_6163_6b64_0001;
/// Longest wait for another process that migrates.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tries where the lock could not keep others out (a pooler may hand the lock to another session).
const ATTEMPTS: u32 = 8;

/// Applies what is missing; gives the names of what was applied, in order.
///
/// Takes a session lock, so that many may start at once, and gives it back: `client` must be a session
/// of its own (not a pooler in transaction mode, unless nothing is missing: then no lock is taken).
///
/// Cancel safety: each migration is one transaction; dropped in the middle, the connection must be dropped too.
///
/// # Errors
/// Standing: the schema is newer than this program, or not the one it knows, or privileges lack.
/// Retry: the server is away, or another process migrates for longer than a minute.
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    if is_applied(client).await? {
        return Ok(Vec::new());
    }
    let lock = format!("SELECT pg_catalog.pg_advisory_lock({LOCK})");
    match tokio::time::timeout(PATIENCE, client.batch_execute(&lock)).await {
        Err(_) => return Err(MigrateError::busy()),
        Ok(locked) => locked?,
    }
    let applied = apply(client).await;
    let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({LOCK})");
    let unlocked = client.batch_execute(&unlock).await;
    let applied = applied?;
    unlocked?;
    Ok(applied)
}

/// Applies what is missing on a session of its own, as `migrate` does.
///
/// Cancel safety: safe; the session ends with the call.
///
/// # Errors
/// As `migrate`, or nothing answers at the target.
pub async fn migrate_at(target: &Target) -> Result<Vec<String>, MigrateError> {
    // Of several hosts the one that the pool will write to, too: the first may be its standby.
    let opened = target.for_writing().open().await;
    let Opened { mut client, link, .. } = opened.map_err(|error| MigrateError::from_store(&error))?;
    // On this task: nothing is left behind when it is cancelled.
    tokio::select! {
        applied = migrate(&mut client) => applied,
        _ = link => Err(MigrateError::closed()),
    }
}

/// Whether nothing is missing, asked on a connection of the pool: a start that finds it so needs no session of its own.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// Nobody is let in, or the database is away. What else is wrong, `migrate` tells.
pub async fn is_current(pool: &Pool) -> Result<bool, Error> {
    match record(pool.begin().await?).await {
        Ok(record) => Ok(record.is_some_and(|record| record == known())),
        Err(error) if error.is_away() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Version, name and checksum of what is on record; `None` without a record.
async fn record(mut guard: Guard) -> Result<Option<Vec<(i32, String, String)>>, Error> {
    let exists = Statement::new(EXISTS).bind(HISTORY, Type::TEXT);
    if !guard.query(exists).await?.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let sql = format!("SELECT version, name, checksum FROM {HISTORY} ORDER BY version");
    let (rows, _receipt) = guard.commit_with(Statement::new(sql)).await?;
    Ok(Some(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()))
}

/// As `record`, of what this program knows.
fn known() -> Vec<(i32, String, String)> {
    let of =
        |migration: &Migration| (migration.version(), migration.name().to_owned(), migration.checksum().to_string());
    let mut known: Vec<_> = runner().get_migrations().iter().map(of).collect();
    known.sort_unstable();
    known
}

/// How far the schema `trackd` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// At the version this program knows.
    Current(i32),
    /// Not there.
    Missing,
    /// These are missing.
    Behind(Vec<String>),
}

/// How far the schema is, on a session of its own. Changes nothing.
///
/// Cancel safety: safe; the session ends with the call.
///
/// # Errors
/// As `migrate`, or nothing answers at the target.
pub async fn look_at(target: &Target) -> Result<Standing, MigrateError> {
    let Opened { mut client, link, .. } = target.open().await.map_err(|error| MigrateError::from_store(&error))?;
    tokio::select! {
        standing = look(&mut client) => standing,
        _ = link => Err(MigrateError::closed()),
    }
}

async fn look(client: &mut Client) -> Result<Standing, MigrateError> {
    let Some(applied) = applied(client).await? else { return Ok(Standing::Missing) };
    let runner = runner();
    let known = runner.get_migrations();
    for migration in &applied {
        match known.iter().find(|other| other.version() == migration.version()) {
            None => return Err(MigrateError::foreign(migration)),
            Some(other) if other != migration => return Err(MigrateError::divergent(migration, other)),
            Some(_) => {}
        }
    }
    let missing: Vec<String> = known.iter().filter(|m| !applied.contains(m)).map(Migration::to_string).collect();
    let version = applied.iter().map(Migration::version).max().unwrap_or_default();
    Ok(if missing.is_empty() { Standing::Current(version) } else { Standing::Behind(missing) })
}

/// The migrations on record, asked without a lock and without privileges to create; `None` without a record.
async fn applied(client: &mut Client) -> Result<Option<Vec<Migration>>, MigrateError> {
    if !client.query_typed(EXISTS, &[(&HISTORY, Type::TEXT)]).await?.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    runner().get_applied_migrations_async(client).await.map(Some).map_err(MigrateError::from_refinery)
}

/// Whether every migration is applied already.
async fn is_applied(client: &mut Client) -> Result<bool, MigrateError> {
    let Some(applied) = applied(client).await? else { return Ok(false) };
    let runner = runner();
    Ok(applied.len() == runner.get_migrations().len() && runner.get_migrations().iter().all(|m| applied.contains(m)))
}

async fn apply(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    let mut attempt = 1;
    loop {
        match apply_once(client).await {
            Err(error) if error.raced && attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn apply_once(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    // IF NOT EXISTS still demands the privilege where the schema exists, so it is asked first.
    let missing = "SELECT pg_catalog.to_regnamespace('trackd') IS NULL";
    if client.query_typed(missing, &[]).await?.first().is_some_and(|row| row.get(0)) {
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS trackd").await?;
    }
    let report = runner().run_async(client).await.map_err(MigrateError::from_refinery)?;
    Ok(report.applied_migrations().iter().map(Migration::to_string).collect())
}

fn runner() -> refinery::Runner {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    runner
}

/// Why the schema `trackd` is not what it should be.
#[derive(Debug)]
pub struct MigrateError {
    message: String,
    class: Class,
    hint: Option<String>,
    sqlstate: Option<SqlState>,
    raced: bool,
}

impl MigrateError {
    /// What happens next.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The server's code, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        self.sqlstate.as_ref()
    }

    fn busy() -> MigrateError {
        MigrateError {
            message: format!("migrate schema trackd: another process migrates for longer than {}s", PATIENCE.as_secs()),
            class: Class::Retry,
            hint: Some("see pg_stat_activity for who holds the advisory lock".into()),
            sqlstate: None,
            raced: false,
        }
    }

    fn closed() -> MigrateError {
        MigrateError {
            message: "migrate schema trackd: the server closed the connection".into(),
            class: Class::Retry,
            hint: None,
            sqlstate: None,
            raced: false,
        }
    }

    fn from_store(error: &Error) -> MigrateError {
        MigrateError {
            message: error.to_string(),
            class: error.class(),
            hint: error.hint(),
            sqlstate: error.sqlstate().map(SqlState::from_code),
            raced: false,
        }
    }

    fn standing(message: String, hint: &str) -> MigrateError {
        MigrateError { message, class: Class::Standing, hint: Some(hint.into()), sqlstate: None, raced: false }
    }

    /// Applied by a program that is not this one.
    fn foreign(applied: &Migration) -> MigrateError {
        let newest = runner().get_migrations().iter().map(Migration::version).max().unwrap_or_default();
        if applied.version() > newest {
            return MigrateError::standing(
                format!("migrate schema trackd: the database is at version {applied}, this program knows {newest}"),
                "a newer trackd has been here: run that version, or point database.url at another database",
            );
        }
        MigrateError::standing(
            format!("migrate schema trackd: version {applied} is not among those applied in order"),
            "the history in trackd.schema_history was changed by hand: restore it from a backup",
        )
    }

    fn divergent(applied: &Migration, known: &Migration) -> MigrateError {
        MigrateError::standing(
            format!("migrate schema trackd: applied version {applied} differs from this program's {known}"),
            "another build of trackd made this schema: run that build, or point database.url at another database",
        )
    }

    fn from_refinery(error: refinery::Error) -> MigrateError {
        match error.kind() {
            Kind::MissingVersion(applied) => MigrateError::foreign(applied),
            Kind::DivergentVersion(applied, known) => MigrateError::divergent(applied, known),
            Kind::Connection(_, cause) => match cause.downcast_ref::<tokio_postgres::Error>() {
                Some(cause) => MigrateError::from_server(cause),
                None => MigrateError::standing(format!("migrate schema trackd: {cause}"), "this is a defect of trackd"),
            },
            other => MigrateError::standing(format!("migrate schema trackd: {other}"), "this is a defect of trackd"),
        }
    }

    fn from_server(error: &tokio_postgres::Error) -> MigrateError {
        let sqlstate = error.code().cloned();
        let cause = match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()),
            None => error.to_string(),
        };
        let hint = (sqlstate.as_ref() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
            .then(|| "let its owner run: CREATE SCHEMA trackd AUTHORIZATION <role of database.url>".into());
        // What two sessions that create the same thing at once are told.
        let raced = matches!(&sqlstate, Some(code) if [
            SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_SCHEMA, SqlState::DUPLICATE_OBJECT,
        ].contains(code));
        let class = match &sqlstate {
            Some(_) if raced => Class::Retry,
            Some(code) => Class::of_sqlstate(code.code()),
            None => Class::Retry,
        };
        MigrateError { message: format!("migrate schema trackd: {cause}"), class, hint, sqlstate, raced }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Error {
        match error.class {
            Class::Retry => Error::unavailable("migrate", error.message),
            _ => Error::refused("migrate", error.message, error.hint),
        }
    }
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> MigrateError {
        MigrateError::from_server(&error)
    }
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MigrateError {}
