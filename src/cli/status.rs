//! `trackd status`: each tracker with its last and next runs, from the ledger and the schedules.

use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::clock;
use crate::config::Config;
use crate::store::ledger;
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
    database.end().await;
    let latest: HashMap<String, _> =
        latest?.into_iter().map(|(run, success)| (run.tracker.clone(), (run, success))).collect();
    let now = clock::now();
    if args.json {
        return print::json_lines(config.trackers.iter().map(|tracker| {
            let last = latest.get(&tracker.name);
            serde_json::json!({
                "name": tracker.name, "schedule": tracker.schedule_text, "next_run": tracker.schedule.next_after(now),
                "last": last.map(|(run, _)| run), "last_success": last.and_then(|(_, success)| *success),
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
                run.map_or("never ran", |run| run.status.as_str()).to_owned(),
                run.map(|run| run.rows_written.to_string()).unwrap_or_default(),
                print::maybe(last.and_then(|(_, success)| *success)),
                print::maybe(tracker.schedule.next_after(now)),
                run.and_then(|run| run.error.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    print::table(&headers, &rows)
}
