//! `trackd status`: each tracker with its last and next runs, and whether it is stale.
//!
//! From the running daemon, which knows what goes on; where none runs, from the ledger and the schedules.

use super::control::{self, Control};
use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::class::Class;
use crate::clock;
use crate::config::{Config, Tracker};
use crate::schedule::fresh::stale_at;
use crate::status::{Phase, Pool, Run, RunStatus, Spool, TrackerState};
use crate::store::ledger;
use axum::http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A daemon's answer: of `status::Status` what is shown here.
#[derive(Debug, Deserialize)]
struct Live {
    instance: String,
    phase: Phase,
    workers_busy: usize,
    workers: usize,
    queued: usize,
    database_error: Option<String>,
    pool: Pool,
    spool: Spool,
    trackers: Vec<Seen>,
}

/// A tracker, wherever it is known from.
#[derive(Debug, Deserialize)]
struct Seen {
    name: String,
    schedule: String,
    /// What goes on; only a daemon knows.
    state: Option<TrackerState>,
    next_run: Option<Timestamp>,
    last: Option<Run>,
    last_success: Option<Timestamp>,
    /// When it becomes stale, or became.
    stale_at: Option<Timestamp>,
}

pub(super) async fn status(explicit: Option<&Path>, args: Args) -> Result<(), Failure> {
    let now = clock::now();
    let asked = async |control: Control| control.ask(Method::GET, "/api/status").await?.json::<Live>();
    let trackers = match control::prefer(explicit, asked).await {
        Some(live) => {
            print::diagnostic(live.line());
            live.trackers
        }
        None => of_ledger(&super::load(explicit)?, now).await?,
    };
    if args.json { json(&trackers, now) } else { table(&trackers, now) }
}

async fn of_ledger(config: &Config, now: Timestamp) -> Result<Vec<Seen>, Failure> {
    let database = Database::of(config)?;
    database.migrate().await?;
    let names: Vec<String> = config.trackers.iter().map(|tracker| tracker.name.clone()).collect();
    let latest = ledger::latest(database.pool(), &names).await;
    let since = ledger::since(database.pool(), &names).await;
    database.end().await;
    let since: HashMap<String, Timestamp> = since?.into_iter().collect();
    let mut latest: HashMap<String, _> =
        latest?.into_iter().map(|(run, success)| (run.tracker.clone(), (run, success))).collect();
    let mut seen = |tracker: &Tracker| {
        let (last, last_success) =
            latest.remove(&tracker.name).map_or((None, None), |(run, success)| (Some(run), success));
        let since = since.get(&tracker.name).copied().unwrap_or(now);
        Seen {
            name: tracker.name.clone(),
            schedule: tracker.schedule_text.clone(),
            state: None,
            next_run: tracker.schedule.next_after(now),
            last,
            last_success,
            stale_at: tracker.fresh_within.map(|within| stale_at(last_success, since, within)),
        }
    };
    Ok(config.trackers.iter().map(|tracker| seen(tracker)).collect())
}

fn json(trackers: &[Seen], now: Timestamp) -> Result<(), Failure> {
    print::json_lines(trackers.iter().map(|tracker| {
        let stale_since = tracker.stale_since(now);
        serde_json::json!({
            "name": tracker.name, "schedule": tracker.schedule, "state": tracker.state, "next_run": tracker.next_run,
            "last": tracker.last, "last_success": tracker.last_success, "stale": stale_since.is_some(),
            "stale_since": stale_since,
        })
    }))
}

fn table(trackers: &[Seen], now: Timestamp) -> Result<(), Failure> {
    let headers = ["tracker", "schedule", "last run", "status", "rows", "last success", "next run", "error"];
    let row = |tracker: &Seen| {
        let run = tracker.last.as_ref();
        vec![
            tracker.name.clone(),
            tracker.schedule.clone(),
            print::maybe(run.map(|run| run.scheduled_at)),
            tracker.words(now),
            run.map(|run| run.rows_written.to_string()).unwrap_or_default(),
            print::maybe(tracker.last_success),
            print::maybe(tracker.next_run),
            run.and_then(|run| run.error.clone()).unwrap_or_default(),
        ]
    };
    print::table(&headers, &trackers.iter().map(row).collect::<Vec<_>>())
}

impl Seen {
    fn stale_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.stale_at.filter(|at| *at <= now)
    }

    /// "running, failed, standing fault, stale"
    fn words(&self, now: Timestamp) -> String {
        let run = self.last.as_ref();
        let going_on = match self.state {
            Some(TrackerState::Running) => Some("running"),
            Some(TrackerState::Queued) => Some("queued"),
            _ => None,
        };
        let standing =
            run.is_some_and(|run| run.status == RunStatus::Failed && run.error_class == Some(Class::Standing));
        let words = [
            going_on,
            Some(run.map_or("never ran", |run| run.status.as_str())),
            standing.then_some("standing fault"),
            self.stale_since(now).map(|_| "stale"),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Live {
    /// "trackd host:4711 running: 1 of 16 workers busy, 0 runs wait, 2 of 15 connections open, 0 payloads in the spool"
    fn line(&self) -> String {
        let phase = match self.phase {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Degraded => "degraded",
            Phase::Draining => "draining",
        };
        let away = self.database_error.as_ref().map_or_else(String::new, |error| format!("; database: {error}"));
        print::harmless(&format!(
            "trackd {} {phase}: {} of {} workers busy, {} runs wait, {} of {} connections open, {} payloads in the spool{away}",
            self.instance,
            self.workers_busy,
            self.workers,
            self.queued,
            self.pool.size,
            self.pool.limit,
            self.spool.entries,
        ))
    }
}
