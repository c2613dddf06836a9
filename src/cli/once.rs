//! `trackd once`: runs trackers now: the daemon does, through its own workers; where none runs they run here, one after
//! another.

use super::control::{self, Control};
use super::database::Database;
use super::failure::Failure;
use super::{print, runs};
use crate::admin::control::OnceWish;
use crate::clock;
use crate::config::{Config, Tracker};
use crate::daemon::manual;
use crate::run::{DryTable, End, Plan, Shared};
use crate::shape::decode;
use crate::source::Hosts;
use crate::status::{ByHand, Kind, Run, RunStatus};
use crate::store::{ledger, notify};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the daemon may take: longer than it waits itself.
const PATIENCE: Duration = manual::LONGEST.saturating_add(Duration::from_secs(30));

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The trackers to run.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All trackers, in the order of the file.
    #[arg(long)]
    all: bool,
    /// Print the rows that would land; touch no database. Done here, without the daemon: needs the configuration and its
    /// credentials.
    #[arg(long)]
    dry_run: bool,
    /// A JSON object a line: the runs, or with --dry-run the rows.
    #[arg(long)]
    json: bool,
}

pub(super) async fn once(explicit: Option<&Path>, args: Args) -> Result<(), Failure> {
    // Whoever may ask the daemon needs no way to the database, nor to its secrets.
    let running = if args.dry_run { None } else { control::running(explicit).await };
    match running {
        Some(control) => by_daemon(&control, args).await,
        None => here(&super::load(explicit)?, args).await,
    }
}

async fn by_daemon(control: &Control, args: Args) -> Result<(), Failure> {
    let wish = OnceWish { trackers: (!args.all).then_some(args.names) };
    tell(control.want("once", "/control/once", &wish, PATIENCE).await?.json()?, args.json)
}

/// The runs that ended, and of each other why it has not.
fn tell(all: Vec<ByHand>, json: bool) -> Result<(), Failure> {
    let (count, mut done, mut kept, mut open) = (all.len(), Vec::new(), 0, 0);
    for one in all {
        let (name, why) = match one {
            ByHand::Ended(run) => {
                done.push(*run);
                continue;
            }
            ByHand::Kept(name) => {
                kept += 1;
                print::diagnostic(format!(
                    "trackd: tracker \"{name}\": its payload waits in the spool for the database"
                ));
                continue;
            }
            ByHand::Elsewhere(name) => (name, "another trackd is at this run"),
            ByHand::Unfinished(name) => (name, "not over yet; trackd runs will tell"),
            ByHand::NotBegun(name) => (name, "the daemon stops, it was not begun"),
        };
        open += 1;
        print::diagnostic(format!("trackd: tracker \"{name}\": {why}"));
    }
    show(&done, json)?;
    let failed = open + done.iter().filter(|run| run.status != RunStatus::Succeeded).count();
    match (failed, kept) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::database(
            format!("{kept} of {count} runs wait for the database"),
            Some("they land by themselves when it is back".into()),
        )),
        _ => Err(Failure::work(format!("{failed} of {count} runs failed"))),
    }
}

fn show(done: &[Run], json: bool) -> Result<(), Failure> {
    if json { print::json_lines(done) } else { runs::show(done) }
}

async fn here(config: &Config, args: Args) -> Result<(), Failure> {
    let trackers = chosen(config, &args)?;
    let database = Database::of(config)?;
    let (notifier, inbox) = notify::channel();
    let hosts = Hosts::new(config.daemon.per_host);
    let shared =
        Shared { hosts, ..Shared::without_spool(database.pool().clone(), Arc::clone(database.instance()), notifier) };
    let mut plans = Vec::with_capacity(trackers.len());
    for tracker in trackers {
        let plan = Plan::new(config, tracker, &shared);
        plans.push(plan.map_err(|error| Failure::config(format!("tracker \"{}\": {error}", tracker.name)))?);
    }
    if args.dry_run {
        return dry_run(&plans, args.json).await;
    }
    database.migrate().await?;
    database.instance().begin(database.pool(), None).await?;
    let mut done = Vec::with_capacity(plans.len());
    for plan in &plans {
        done.push(land(&database, plan).await?);
    }
    // Who listens may miss a notice; the runs landed all the same.
    let _ = inbox.flush(database.pool()).await;
    database.end().await;
    show(&done, args.json)?;
    let failed = done.iter().filter(|run| run.status == RunStatus::Failed).count();
    if failed == 0 { Ok(()) } else { Err(Failure::work(format!("{failed} of {} runs failed", done.len()))) }
}

fn chosen<'a>(config: &'a Config, args: &Args) -> Result<Vec<&'a Arc<Tracker>>, Failure> {
    if args.all {
        return Ok(config.trackers.iter().collect());
    }
    let find = |name: &String| {
        let found = config.trackers.iter().find(|tracker| tracker.name == *name);
        found.ok_or_else(|| unknown(config, name))
    };
    args.names.iter().map(find).collect()
}

/// A name that no tracker has.
pub(super) fn unknown(config: &Config, name: &str) -> Failure {
    let known: Vec<&str> = config.trackers.iter().map(|tracker| tracker.name.as_str()).collect();
    Failure::usage(format!("no tracker \"{name}\" in {}: it has {}", config.path.display(), known.join(", ")))
}

async fn land(database: &Database, plan: &Plan) -> Result<Run, Failure> {
    let ended = tokio::select! {
        ended = plan.run(clock::now(), Kind::Manual) => ended,
        never = database.keep_lease() => match never {},
    };
    let End::Ended(outcome) = ended else { return Err(Failure::work("another trackd is at this run")) };
    if !outcome.recorded {
        ledger::record(database.pool(), database.instance().id(), std::slice::from_ref(&outcome.run)).await?;
    }
    Ok(outcome.run)
}

async fn dry_run(plans: &[Plan], json: bool) -> Result<(), Failure> {
    let mut failed = 0;
    for plan in plans {
        match plan.dry_run(clock::now()).await {
            Ok(tables) => tables.iter().try_for_each(|table| if json { show_json(table) } else { show_rows(table) })?,
            Err(error) => {
                failed += 1;
                print::diagnostic(format!("trackd: tracker \"{}\": {error}", plan.tracker().name));
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::work(format!("{failed} of {} trackers failed", plans.len()))) }
}

fn show_rows(dry: &DryTable) -> Result<(), Failure> {
    let rejected = dry.tally.rejected;
    print::line(format!("{}: {} rows, {rejected} set aside", dry.table.name, dry.rows.count))?;
    let headers: Vec<&str> = dry.table.columns.iter().map(|column| column.name.as_str()).collect();
    let rows: Vec<Vec<String>> = decode::texts(&dry.table, &dry.rows, usize::MAX)
        .into_iter()
        .map(|row| row.into_iter().map(|cell| cell.map_or_else(String::new, |text| short(&text))).collect())
        .collect();
    print::table(&headers, &rows)?;
    dry.tally
        .rejects
        .iter()
        .map(|reject| print::harmless(&format!("set aside: {}: {}", reject.reason, short(&reject.row))))
        .try_for_each(print::line)
}

fn show_json(dry: &DryTable) -> Result<(), Failure> {
    for tuple in dry.rows.tuples() {
        let row = decode::row_json(&dry.table, tuple);
        print::line(format!("{{\"table\":{},\"row\":{row}}}", serde_json::Value::from(dry.table.name.as_str())))?;
    }
    Ok(())
}

/// A cell that a terminal can show.
fn short(text: &str) -> String {
    const LENGTH: usize = 60;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
