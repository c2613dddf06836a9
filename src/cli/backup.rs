//! `trackd backup` and `trackd restore`: the whole database in one file, and back.

use super::database::Database;
use super::doctor::answered;
use super::failure::Failure;
use super::interrupt::unless_interrupted;
use super::print;
use crate::config::Config;
use crate::status::Server;
use crate::store::backup::{self, Options};
use crate::store::embedded::search_path;
use crate::store::tools::Tool;
use crate::store::{Error, Pool, health};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The file; one that is there is replaced, once the new one is whole.
    file: PathBuf,
    /// Name each table on stderr, also where that is no terminal.
    #[arg(long, short)]
    verbose: bool,
    /// Arguments for pg_dump, after `--`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// A file of `trackd backup`, or of pg_dump --format=custom.
    file: PathBuf,
    /// Into a database that is not empty: what the file holds is dropped there first, the rest stays. A daemon that works
    /// on it must be stopped all the same.
    #[arg(long)]
    force: bool,
    /// Name each table on stderr, also where that is no terminal.
    #[arg(long, short)]
    verbose: bool,
    /// Arguments for pg_restore, after `--`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(super) async fn backup(config: &Config, args: BackupArgs) -> Result<(), Failure> {
    let database = Database::of(config)?;
    if !database.is_made() {
        return Err(Failure::work(format!("backup {}: there is no database yet", args.file.display())));
    }
    // A standby will do: nothing is written.
    let (reader, target) = (database.reader(), database.target());
    let work = async {
        database.start().await?;
        let server = server(&reader).await?;
        let tool = Tool::find("pg_dump", &search_path(), server.major).await.map_err(failure)?;
        let mut progress = progress(args.verbose);
        let saved = backup::backup(&target, &tool, &args.file, &args.arguments, &mut progress);
        let saved = saved.await.map_err(failure)?;
        let size = bytesize::ByteSize::b(saved.bytes).display().iec();
        print::line(format!(
            "{}: {} tables of database {}, {size}, written by pg_dump {}",
            args.file.display(),
            saved.tables,
            server.database,
            tool.major
        ))
    };
    let done = unless_interrupted(work).await;
    database.end().await;
    done
}

pub(super) async fn restore(config: &Config, args: RestoreArgs) -> Result<(), Failure> {
    let database = Database::of(config)?;
    let work = async {
        database.start().await?;
        let pool = database.single();
        let server = server(&pool).await?;
        alone(&pool, &args.file, &server.database).await?;
        let tool = Tool::find("pg_restore", &search_path(), server.major).await.map_err(failure)?;
        let options = Options { force: args.force, arguments: args.arguments };
        let mut progress = progress(args.verbose);
        let restored = backup::restore(&pool, &server.database, &tool, &args.file, &options, &mut progress).await;
        let tables = restored.map_err(failure)?;
        print::line(format!("{}: {tables} tables restored into database {}", args.file.display(), server.database))
    };
    let done = unless_interrupted(work).await;
    database.end().await;
    done
}

/// A daemon at work would write into what is being replaced, and its runs would be half in the one and half in the other.
async fn alone(pool: &Pool, file: &Path, database: &str) -> Result<(), Failure> {
    let others = backup::others(pool).await.map_err(failure)?;
    if others.is_empty() {
        return Ok(());
    }
    let message = format!(
        "restore {}: trackd works on database {database}, in the sessions {}",
        file.display(),
        others.join(", ")
    );
    let hint = "stop it first; sessions that a dead one or a pooler left are ended by SELECT pg_terminate_backend(…)";
    Err(Failure::work(message).with_hint(Some(hint.into())))
}

async fn server(pool: &Pool) -> Result<Server, Failure> {
    answered(health(pool).await)
}

/// Not the database's absence is what most of these are: a program is missing, a file cannot be written.
fn failure(error: Error) -> Failure {
    if error.is_away() { error.into() } else { Failure::work(error.to_string()).with_hint(error.hint()) }
}

/// Names the tables where somebody looks.
fn progress(verbose: bool) -> impl FnMut(&str) + Send {
    let told = verbose || std::io::stderr().is_terminal();
    let mut number = 0;
    move |table: &str| {
        number += 1;
        if told {
            print::diagnostic(print::harmless(&format!("{number:>5} {table}")));
        }
    }
}
