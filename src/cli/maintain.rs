//! `trackd prune` and `trackd analyze`: at once what the daemon's housekeeping does each hour.

use super::database::Database;
use super::failure::Failure;
use super::interrupt::unless_interrupted;
use super::print;
use crate::clock;
use crate::config::Config;
use crate::store::Pool;
use crate::store::analyze as statistics;
use crate::store::prune::{self as old, Pruned};
use std::io::IsTerminal;
use std::time::Duration;

/// Batches between two lines of progress.
const TOGETHER: u32 = 10;

#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Instead of daemon.keep_runs.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
}

pub(super) async fn prune(config: &Config, args: PruneArgs) -> Result<(), Failure> {
    let Some(keep) = args.older_than.or(config.daemon.keep_runs) else {
        return print::line(
            "daemon.keep_runs is \"forever\": nothing is removed (--older-than TIME does it all the same)",
        );
    };
    let database = Database::of(config)?;
    let work = async {
        database.migrate().await?;
        until_done(database.pool(), keep).await
    };
    let done = unless_interrupted(work).await;
    database.end().await;
    let Pruned { runs, rejects, .. } = done?;
    print::line(format!(
        "removed {runs} runs older than {}, with {rejects} rows they had set aside",
        print::length(keep)
    ))
}

async fn until_done(pool: &Pool, keep: Duration) -> Result<Pruned, Failure> {
    let (now, told) = (clock::now(), std::io::stderr().is_terminal());
    let mut pruned = Pruned::default();
    loop {
        pruned += old::prune(pool, keep, now, TOGETHER).await?;
        if !pruned.more {
            return Ok(pruned);
        }
        if told {
            print::diagnostic(format!("{} runs so far", pruned.runs));
        }
    }
}

pub(super) async fn analyze(config: &Config) -> Result<(), Failure> {
    let tables = config.trackers.iter().flat_map(|tracker| &tracker.tables).map(|table| table.name.clone());
    let tables: Vec<String> = tables.collect();
    let database = Database::of(config)?;
    let work = async {
        database.migrate().await?;
        Ok(statistics::analyze(database.pool(), &tables).await?)
    };
    let done = unless_interrupted(work).await;
    database.end().await;
    let analyzed = done?;
    match analyzed.tables.as_slice() {
        [] => print::line("no table has changed since it was last analyzed")?,
        tables => print::line(format!("analyzed {}", tables.join(", ")))?,
    }
    let failed: Vec<String> = analyzed.failed.iter().map(|(table, error)| format!("table {table}: {error}")).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::work(failed.join("\n"))) }
}
