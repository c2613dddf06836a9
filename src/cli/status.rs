//! `trackd status`: each tracker with its last and next runs, and whether it is stale, from the ledger and the schedules.

use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::class::Class;
use crate::clock;
use crate::config::{Config, Tracker};
use crate::schedule::fresh::stale_at;
use crate::status::{Run, RunStatus};
use crate::store::ledger;
use jiff::Timestamp;
use std::collections::HashMap;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(config: &Config, args: Args) -> Result<(), Failure> {
    let database = Database::of(config)?;
    database.migrate().await?;
    let names: Vec<String> = config.trackers.iter().map(|tracker| tracker.name.clone()).collect();
    let latest = ledger::latest(database.pool(), &names).await;
    let since = ledger::since(database.pool(), &names).await;
    database.end().await;
    let since: HashMap<String, Timestamp> = since?.into_iter().collect();
    let latest: HashMap<String, _> =
        latest?.into_iter().map(|(run, success)| (run.tracker.clone(), (run, success))).collect();
    let now = clock::now();
    let stale_since = |tracker: &Tracker| {
        let success = latest.get(&tracker.name).and_then(|(_, success)| *success);
        let since = since.get(&tracker.name).copied().unwrap_or(now);
        tracker.fresh_within.map(|within| stale_at(success, since, within)).filter(|at| *at <= now)
    };
    if args.json {
        return print::json_lines(config.trackers.iter().map(|tracker| {
            let last = latest.get(&tracker.name);
            serde_json::json!({
                "name": tracker.name, "schedule": tracker.schedule_text, "next_run": tracker.schedule.next_after(now),
                "last": last.map(|(run, _)| run), "last_success": last.and_then(|(_, success)| *success),
                "stale": stale_since(tracker).is_some(), "stale_since": stale_since(tracker),
            })
        }));
    }
    let headers = ["tracker", "schedule", "last run", "status", "rows", "last success", "next run", "error"];
    let rows: Vec<Vec<String>> = config
        .trackers
        .iter()
        .map(|tracker| {
            let last = latest.get(&tracker.name);
            let run = last.map(|(run, _)| run);
            vec![
                tracker.name.clone(),
                tracker.schedule_text.clone(),
                print::maybe(run.map(|run| run.scheduled_at)),
                state(run, stale_since(tracker).is_some()),
                run.map(|run| run.rows_written.to_string()).unwrap_or_default(),
                print::maybe(last.and_then(|(_, success)| *success)),
                print::maybe(tracker.schedule.next_after(now)),
                run.and_then(|run| run.error.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    print::table(&headers, &rows)
}

/// "failed, standing fault, stale"
fn state(run: Option<&Run>, is_stale: bool) -> String {
    let mut words = vec![run.map_or("never ran", |run| run.status.as_str())];
    if run.is_some_and(|run| run.status == RunStatus::Failed && run.error_class == Some(Class::Standing)) {
        words.push("standing fault");
    }
    if is_stale {
        words.push("stale");
    }
    words.join(", ")
}
