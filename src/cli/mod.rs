//! The command line: one file a subcommand.
//!
//! In: arguments. Out: text on stdout, diagnostics on stderr, an exit code (sysexits):
//! 0, 1 the work failed, 64 usage, 69 database or daemon unavailable, 78 configuration.
//! Nothing imports this room.

mod alert;
mod answers;
mod backup;
mod check;
mod completions;
mod control;
mod database;
mod demo;
mod doctor;
mod failure;
mod init;
mod interrupt;
mod maintain;
mod man;
mod migrate;
mod once;
mod pages;
mod print;
mod psql;
mod reload;
mod replay;
mod run;
mod runs;
mod spool;
mod spooled;
mod status;

use crate::config::{self, Config, Environment};
use crate::daemon::signal::Signals;
use clap::{Parser, Subcommand};
use failure::Failure;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Follows what changes elsewhere and keeps its history in PostgreSQL: cron + curl + jq + psql, as one daemon.
#[derive(Debug, Parser)]
#[command(name = "trackd", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// The configuration; else $TRACKD_CONFIG, ./config.toml, /etc/trackd/config.toml.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM; SIGHUP reloads, SIGUSR1 logs the status.
    Run,
    /// Have the running daemon read its configuration again, and wait for how it went.
    Reload(reload::Args),
    /// Check configuration and database: what is wrong, what would be created.
    Check(check::Args),
    /// What may keep runs from landing, and what to do about it.
    Doctor(doctor::Args),
    /// Run trackers now; by the running daemon, if there is one.
    Once(once::Args),
    /// Trackers with their last and next runs.
    Status(status::Args),
    /// What became of runs, newest first.
    Runs(runs::Args),
    /// Payloads that wait for the database: look at them, beside the daemon or without one.
    #[command(subcommand)]
    Spool(spool::Command),
    /// Wait for the database, then make schema and tables.
    Init(init::Args),
    /// Bring the schema trackd up to date.
    Migrate,
    /// Remove old rows of the ledger, as daemon.keep_runs says.
    Prune(maintain::PruneArgs),
    /// Bring the statistics of tables that changed up to date.
    Analyze,
    /// Write the whole database into a file, with pg_dump.
    Backup(backup::BackupArgs),
    /// Bring a backup into an empty database, whole or not at all.
    Restore(backup::RestoreArgs),
    /// Open psql on the configured database.
    Psql(psql::Args),
    /// A small arena, polled every few seconds into a private database.
    Demo(demo::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual, or write its pages into a directory.
    Man(man::Args),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::work(format!("start: {error}")).tell(),
    };
    // A daemon's handlers stand before its arguments are read: a SIGHUP in its first millisecond must not end it.
    let signals = is_daemon(std::env::args_os()).then(|| runtime.block_on(async { Signals::install() }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let done = runtime.block_on(dispatch(cli, signals));
    // A stuck jq program keeps its thread; the process ends all the same.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Whether the subcommand is one that takes signals as events. Only the subcommand counts: handlers are never taken
/// back, and `trackd once run` must still end at Ctrl-C.
fn is_daemon(args: impl Iterator<Item = OsString>) -> bool {
    let mut args = args.skip(1);
    while let Some(arg) = args.next() {
        match arg.to_string_lossy().as_ref() {
            "--config" | "-c" => drop(args.next()),
            flag if flag.starts_with('-') => {}
            word => return matches!(word, "run" | "demo"),
        }
    }
    false
}

fn usage(error: &clap::Error) -> ExitCode {
    // A reader that went away is no failure.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS }
}

async fn dispatch(cli: Cli, signals: Option<std::io::Result<Signals>>) -> Result<(), Failure> {
    let path = cli.config.as_deref();
    match cli.command {
        Command::Run => run::run(path, installed(signals)?).await,
        Command::Reload(args) => reload::reload(path, args).await,
        Command::Check(args) => check::check(path, args).await,
        Command::Doctor(args) => doctor::doctor(&load(path)?, args).await,
        Command::Once(args) => once::once(path, args).await,
        Command::Status(args) => status::status(path, args).await,
        Command::Runs(args) => runs::runs(path, args).await,
        Command::Spool(command) => spool::spool(path, command).await,
        Command::Init(args) => init::init(&load(path)?, args).await,
        Command::Migrate => migrate::migrate(&load(path)?).await,
        Command::Prune(args) => maintain::prune(&load(path)?, args).await,
        Command::Analyze => maintain::analyze(&load(path)?).await,
        Command::Backup(args) => backup::backup(&load(path)?, args).await,
        Command::Restore(args) => backup::restore(&load(path)?, args).await,
        Command::Psql(args) => psql::psql(&load(path)?, args).await,
        Command::Demo(args) => demo::demo(args, installed(signals)?).await,
        Command::Completions(args) => completions::completions(args),
        Command::Man(args) => man::man(args),
    }
}

fn installed(signals: Option<std::io::Result<Signals>>) -> Result<Signals, Failure> {
    let signals = signals.unwrap_or_else(Signals::install);
    signals.map_err(|error| Failure::work(format!("install signal handlers: {error}")))
}

/// Finds and checks the configuration.
fn load(explicit: Option<&Path>) -> Result<Config, Failure> {
    let environment = Environment::of_process();
    let colour = std::io::stderr().is_terminal();
    let faults = |faults: config::Faults| Failure::config(faults.render(colour));
    let path = config::locate(explicit, &environment).map_err(faults)?;
    config::load(&path, &environment).map_err(faults)
}

/// `daemon.state_dir` of a configuration with faults; `None`: it cannot be read.
fn readable_state_dir(explicit: Option<&Path>) -> Option<PathBuf> {
    let environment = Environment::of_process();
    let path = config::locate(explicit, &environment).ok()?;
    config::is_readable(&path).then(|| config::state_dir(&path, &environment))
}

#[cfg(test)]
mod tests {
    use super::is_daemon;

    #[test]
    fn only_the_subcommand_makes_it_a_daemon() {
        let is = |line: &str| is_daemon(line.split(' ').map(Into::into));
        for line in [
            "trackd run",
            "trackd demo --for 3s",
            "trackd --config x run",
            "trackd -c run run",
            "trackd --config=x run",
        ] {
            assert!(is(line), "{line}");
        }
        for line in [
            "trackd",
            "trackd once run",
            "trackd runs demo",
            "trackd -c run check",
            "trackd psql -- run",
            "trackd --help",
        ] {
            assert!(!is(line), "{line}");
        }
    }
}
