//! `trackd runs`: what became of runs, from the ledger; through the running daemon, where one runs.

use super::control::{self, Control};
use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::admin::control::RUNS;
use crate::config::Config;
use crate::status::Run;
use crate::store::ledger::{self, Query};
use axum::http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this tracker only.
    name: Option<String>,
    /// Failed ones only.
    #[arg(long)]
    failed: bool,
    /// At most so many.
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: u32,
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn runs(explicit: Option<&Path>, args: Args) -> Result<(), Failure> {
    let found = if args.limit > RUNS { None } else { of_daemon(explicit, &args).await };
    let found = match found {
        Some(found) => found,
        None => of_ledger(&super::load(explicit)?, &args).await?,
    };
    // One that left the configuration still has its runs; one that has neither is misspelt.
    if let Some(name) = args.name.as_ref().filter(|_| found.is_empty()) {
        let config = super::load(explicit)?;
        if !config.trackers.iter().any(|tracker| tracker.name == *name) {
            return Err(super::once::unknown(&config, name));
        }
    }
    if args.json { print::json_lines(&found) } else { show(&found) }
}

async fn of_daemon(explicit: Option<&Path>, args: &Args) -> Option<Vec<Run>> {
    let name = args.name.as_ref().map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC));
    let name = name.map_or_else(String::new, |name| format!("&tracker={name}"));
    let target = format!("/api/runs?limit={}&failed={}{name}", args.limit, args.failed);
    let asked = async |control: Control| {
        let answer = control.ask(Method::GET, &target).await?;
        match answer.status {
            StatusCode::OK => answer.json(),
            _ => Err(io::Error::other(answer.text())),
        }
    };
    control::prefer(explicit, asked).await
}

async fn of_ledger(config: &Config, args: &Args) -> Result<Vec<Run>, Failure> {
    let database = Database::of(config)?;
    database.migrate().await?;
    let query = Query { tracker: args.name.clone(), failed: args.failed, limit: args.limit };
    let found = ledger::recent(database.pool(), &query).await;
    database.end().await;
    Ok(found?)
}

/// Runs as a table.
pub(super) fn show(runs: &[Run]) -> Result<(), Failure> {
    let headers = ["tracker", "scheduled at", "status", "ms", "read", "written", "rejected", "bytes", "error"];
    let row = |run: &Run| {
        let took = run.finished_at.duration_since(run.started_at).as_millis();
        let error = match (&run.error_class, &run.error) {
            (Some(class), Some(error)) => format!("{class}: {error}"),
            (None, Some(error)) => error.clone(),
            _ => String::new(),
        };
        vec![
            run.tracker.clone(),
            print::time(run.scheduled_at),
            run.status.as_str().to_owned(),
            took.to_string(),
            run.rows_read.to_string(),
            run.rows_written.to_string(),
            run.rows_rejected.to_string(),
            run.fetched_bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
            error,
        ]
    };
    print::table(&headers, &runs.iter().map(row).collect::<Vec<_>>())
}
