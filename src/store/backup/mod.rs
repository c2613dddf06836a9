//! The whole database in one file, and back: pg_dump and pg_restore.
//!
//! ```text
//!  backup   pg_dump --> .FILE.part, mode 0600 --whole, an archive--> rename to FILE
//!  restore  FILE is an archive? --> is anything in the way? --> pg_restore, in one transaction
//! ```
//!
//! Must not know: which version of the programs fits (see `tools`), what the database holds.

mod others;
mod part;
mod program;

pub use others::others;

use super::tools::Tool;
use super::{Error, Pool, Statement, Target};
use part::Part;
use program::{Program, Said};
use std::path::{Path, PathBuf};
use tokio_postgres::types::Type;

/// What an archive of pg_dump begins with.
const MAGIC: &[u8] = b"PGDMP";
/// So many names of what is in the way are told.
const NAMED: i64 = 8;

/// Told of each table when its rows are copied.
pub type Progress<'a> = &'a mut (dyn FnMut(&str) + Send);

/// What a backup has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Tables with their rows.
    pub tables: usize,
    /// Of the file.
    pub bytes: u64,
}

/// Writes the whole database of `target` into `file`, which readers of the file's owner alone may open.
///
/// `file` is there whole, or as it was before. `arguments` go to pg_dump as they are; one that makes it write something
/// else than an archive into `file` is a failure.
///
/// Cancel safety: safe; pg_dump is killed and what it wrote is removed.
///
/// # Errors
/// Class standing: pg_dump failed, with what it said; or the file cannot be written.
pub async fn backup(
    target: &Target,
    tool: &Tool,
    file: &Path,
    arguments: &[String],
    progress: Progress<'_>,
) -> Result<Saved, Error> {
    let operation = format!("backup {}", file.display());
    let failed = |message: String| Error::refused(operation.clone(), message, None);
    let part = Part::beside(file).map_err(failed)?;
    let mut program = Program::new(tool, target);
    program.args(["--format=custom", "--verbose", "--lock-wait-timeout=60s"]);
    program.arg("--file").arg(part.path()).args(arguments);
    let mut tables = 0;
    let said = program.run(|table| {
        tables += 1;
        progress(table);
    });
    said.await.map_err(|said| fault(&operation, &said))?;
    if !part.begins_with(MAGIC).map_err(failed)? {
        // It was told to write elsewhere, or what restore does not read. The backup before is worth more.
        let hint = "leave out --file and --format, and call pg_dump yourself for what is not restored by trackd";
        return Err(Error::refused(operation, "pg_dump wrote no archive into it", Some(hint.into())));
    }
    let bytes = part.finish(file).map_err(failed)?;
    Ok(Saved { tables, bytes })
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Drops first what the file holds and the database has.
    pub force: bool,
    /// For pg_restore, as they are.
    pub arguments: Vec<String>,
}

/// Brings what `file` holds into `database`, the one of `pool` and `target`, in one transaction. Returns how many
/// tables have their rows back.
///
/// Everything belongs to the role that restores, whoever had it before.
///
/// Cancel safety: safe; pg_restore is killed, and the server rolls back.
///
/// # Errors
/// Class standing: the file is no archive; something is in the way; pg_restore failed. Nothing has changed then.
pub async fn restore(
    pool: &Pool,
    database: &str,
    tool: &Tool,
    file: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<usize, Error> {
    let operation = format!("restore {}", file.display());
    let target = pool.target().ok_or_else(|| Error::unavailable(operation.clone(), "the pool is closed"))?;
    // pg_restore reads a pipe only once, and a directory as another format.
    let file: PathBuf = file.canonicalize().map_err(|error| Error::refused(&operation, error.to_string(), None))?;
    let mut list = Program::new(tool, &target);
    list.arg("--list").arg(&file);
    list.run(|_| {}).await.map_err(|said| fault(&operation, &said))?;
    if !options.force {
        nothing_in_the_way(pool, &operation, database).await?;
    }
    let mut program = Program::new(tool, &target);
    program.writes();
    program.args(["--single-transaction", "--exit-on-error", "--no-owner", "--verbose"]);
    if options.force {
        program.args(["--clean", "--if-exists"]);
    }
    // With the name of a database it connects, instead of printing a script; all else is in its environment.
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    program.arg(format!("--dbname=dbname='{quoted}'")).args(&options.arguments).arg(&file);
    let mut tables = 0;
    let said = program.run(|table| {
        tables += 1;
        progress(table);
    });
    said.await.map_err(|said| fault(&operation, &said))?;
    Ok(tables)
}

/// What users make, but not what extensions brought.
const THINGS: &str = "SELECT name, count(*) OVER () FROM (\
    SELECT n.nspname || '.' || c.relname AS name, 1 AS place FROM pg_catalog.pg_class c \
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
    UNION ALL SELECT 'schema ' || n.nspname, 2 FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' \
      AND n.nspname NOT IN ('information_schema', 'public') AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
        WHERE d.classid = 'pg_catalog.pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')) AS things \
    ORDER BY place, name LIMIT $1";

async fn nothing_in_the_way(pool: &Pool, operation: &str, database: &str) -> Result<(), Error> {
    let rows = pool.query(Statement::new(THINGS).bind(NAMED, Type::INT8)).await?;
    let Some(all) = rows.first().map(|row| row.get::<_, i64>(1)) else { return Ok(()) };
    let mut names = rows.iter().map(|row| row.get(0)).collect::<Vec<String>>().join(", ");
    if all > NAMED {
        names.push_str(&format!(" and {} more", all - NAMED));
    }
    Err(Error::refused(
        operation,
        format!("database {database} is not empty, it has {names}"),
        Some("restore into a fresh database, or --force replaces what the file holds and leaves the rest".into()),
    ))
}

/// What a program said last, as an error.
fn fault(operation: &str, said: &Said) -> Error {
    let hint = HINTS.iter().find(|(words, _)| said.text.contains(words)).map(|(_, hint)| (*hint).to_owned());
    Error::refused(operation, &said.text, hint)
}

/// Words of pg_dump and pg_restore, and what a person does about them.
const HINTS: [(&str, &str); 6] = [
    ("permission denied", "the role of database.url must be able to read, or make, all of it"),
    ("does not appear to be a valid archive", "it must come from `trackd backup` or pg_dump --format=custom"),
    ("unsupported version", "a newer pg_dump wrote it: install the client programs of that version"),
    ("already exists", "restore into a fresh database, or --force replaces what the file holds and leaves the rest"),
    (
        "other objects depend on it",
        "drop those objects, which the file does not hold, or restore into a fresh database",
    ),
    ("role \"", "create the role, or give pg_restore the argument: -- --no-privileges"),
];
