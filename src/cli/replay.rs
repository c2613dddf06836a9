//! `trackd spool replay`: lands now what was set aside, beside the daemon or without one.

use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::config::Config;
use crate::run::{Recipe, Replay, Replayed, Shared};
use crate::spool::{Bad, Entry, Found, Listed, SetAside};
use crate::store::notify;
use jiff::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this tracker only.
    name: Option<String>,
    /// Shape by the configuration as it is now, not as it was when the payload was fetched.
    #[arg(long)]
    current: bool,
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A file, and what became of it.
#[derive(Debug, Serialize)]
struct Line {
    tracker: Option<String>,
    scheduled_at: Option<Timestamp>,
    outcome: What,
    rows: Option<i64>,
    reason: Option<String>,
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Landed,
    Failed,
    NotWhole,
    Elsewhere,
}

pub(super) async fn replay(config: &Config, dir: &Path, args: Args) -> Result<(), Failure> {
    let bad = Bad::new(dir);
    let (mut listed, mut foreign) = bad.files()?;
    if let Some(name) = &args.name {
        listed.retain(|listed| listed.tracker == *name);
        foreign.clear();
        if listed.is_empty() && !config.trackers.iter().any(|tracker| tracker.name == *name) {
            return Err(super::once::unknown(config, name));
        }
    }
    let mut lines = Vec::with_capacity(listed.len() + foreign.len());
    let landed = match listed.is_empty() {
        true => Ok(()),
        false => land_all(config, &bad, &listed, args.current, &mut lines).await,
    };
    lines.extend(foreign.into_iter().map(Line::foreign));
    show(&lines, args.json)?;
    landed?;
    let stay = lines.iter().filter(|line| line.outcome != What::Landed).count();
    if stay == 0 { Ok(()) } else { Err(Failure::work(format!("{stay} of {} files stay set aside", lines.len()))) }
}

/// Up to the first that finds the database away.
async fn land_all(
    config: &Config,
    bad: &Bad,
    listed: &[Listed],
    current: bool,
    lines: &mut Vec<Line>,
) -> Result<(), Failure> {
    let database = Database::of(config)?;
    database.migrate().await?;
    database.instance().renew(database.pool(), None).await?;
    let (notifier, inbox) = notify::channel();
    let shared = Shared::without_spool(database.pool().clone(), Arc::clone(database.instance()), notifier);
    let mut replay = Replay::new(&shared);
    let landing = async {
        for listed in listed {
            lines.extend(land(config, bad, listed, current, &mut replay).await?);
        }
        Ok(())
    };
    let done = tokio::select! {
        done = landing => done,
        never = database.keep_lease() => match never {},
    };
    // Who listens may miss a notice; the runs landed all the same.
    let _ = inbox.flush(database.pool()).await;
    database.end().await;
    done
}

/// `None`: somebody took the file away.
async fn land(
    config: &Config,
    bad: &Bad,
    listed: &Listed,
    current: bool,
    replay: &mut Replay,
) -> Result<Option<Line>, Failure> {
    let mut entry = match bad.read(listed)? {
        Found::Whole(entry, _) => *entry,
        Found::Bad(reason) => return Ok(Some(Line::of(listed, What::NotWhole, Some(reason)))),
        Found::Gone => return Ok(None),
    };
    let replayed = match current.then(|| reshape(config, &mut entry)) {
        Some(Err(reason)) => Replayed::Failed(reason),
        _ => replay.land(entry).await?,
    };
    match replayed {
        Replayed::Landed(run) => {
            bad.landed(listed)?;
            Ok(Some(Line { rows: Some(run.rows_written), ..Line::of(listed, What::Landed, None) }))
        }
        Replayed::Failed(reason) => {
            bad.stays(listed, &format!("its run failed: {reason}"))?;
            Ok(Some(Line::of(listed, What::Failed, Some(reason))))
        }
        Replayed::Elsewhere => {
            let reason = "another trackd is at this run".to_owned();
            Ok(Some(Line::of(listed, What::Elsewhere, Some(reason))))
        }
    }
}

/// Puts the configuration of now in the place of the plan that was kept.
fn reshape(config: &Config, entry: &mut Entry) -> Result<(), String> {
    let tracker = config.trackers.iter().find(|tracker| tracker.name == entry.tracker);
    let tracker = tracker.ok_or_else(|| format!("no tracker of this name in {}", config.path.display()))?;
    let plan = serde_json::to_vec(&Recipe::of(config, tracker)).map_err(|error| error.to_string())?;
    entry.plan = plan.into();
    Ok(())
}

impl Line {
    fn of(listed: &Listed, outcome: What, reason: Option<String>) -> Line {
        let (tracker, scheduled_at) = (Some(listed.tracker.clone()), Some(listed.scheduled_at));
        Line { tracker, scheduled_at, outcome, rows: None, reason, file: listed.file.clone() }
    }

    fn foreign(SetAside { file, reason }: SetAside) -> Line {
        Line { tracker: None, scheduled_at: None, outcome: What::NotWhole, rows: None, reason: Some(reason), file }
    }
}

fn show(lines: &[Line], json: bool) -> Result<(), Failure> {
    if json {
        return print::json_lines(lines);
    }
    if lines.is_empty() {
        return print::line("nothing is set aside");
    }
    let row = |line: &Line| {
        let outcome = match line.outcome {
            What::Landed => "landed",
            What::Failed => "failed",
            What::NotWhole => "not whole",
            What::Elsewhere => "elsewhere",
        };
        let at = line.scheduled_at.map_or_else(|| line.file.display().to_string(), print::time);
        let rows = line.rows.map_or_else(String::new, |rows| rows.to_string());
        vec![
            line.tracker.clone().unwrap_or_default(),
            at,
            outcome.into(),
            rows,
            line.reason.clone().unwrap_or_default(),
        ]
    };
    print::table(&["tracker", "scheduled at", "outcome", "rows", "reason"], &lines.iter().map(row).collect::<Vec<_>>())
}
