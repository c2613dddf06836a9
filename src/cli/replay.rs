//! `trackd spool replay`: lands now what was set aside; the daemon does, if one runs.

use super::control::Control;
use super::database::Database;
use super::failure::Failure;
use super::print;
use super::spooled::{self, Aside, Spooled};
use crate::admin::control::SpoolWish;
use crate::blocking::OneThread;
use crate::config::Config;
use crate::run::{Recipe, Replay, Replayed, Shared};
use crate::spool::{self, Bad, Entry, Found, Listed, SetAside};
use crate::store::notify;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the disk may be at what was asked of it before.
const DISK: Duration = Duration::from_secs(30);

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

/// A file, for people.
#[derive(Debug, Serialize)]
struct Line {
    tracker: Option<String>,
    scheduled_at: Option<Timestamp>,
    #[serde(flatten)]
    became: Became,
    file: String,
}

/// What became of a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Became {
    pub(super) outcome: What,
    /// Rows written.
    rows: Option<i64>,
    /// Why it stays.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Landed,
    Failed,
    NotWhole,
    Elsewhere,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Landed => "landed",
            What::Failed => "failed",
            What::NotWhole => "not whole",
            What::Elsewhere => "elsewhere",
        }
    }
}

pub(super) async fn replay(spooled: Spooled, args: Args) -> Result<(), Failure> {
    let Aside { listed, others } = spooled.aside(args.name).await?;
    let mut lines = Vec::with_capacity(listed.len() + others.len());
    let landed = match spooled {
        _ if listed.is_empty() => Ok(()),
        Spooled::Daemon(control) => by_daemon(&control, listed, args.current, &mut lines).await,
        Spooled::Here(files) => here(&*files.into_config()?, listed, args.current, &mut lines).await,
    };
    lines.extend(others.into_iter().map(Line::other));
    // Where not even the first could be tried, something is set aside all the same.
    if landed.is_ok() || !lines.is_empty() {
        show(&lines, args.json)?;
    }
    landed?;
    let stay = lines.iter().filter(|line| line.became.outcome != What::Landed).count();
    if stay == 0 { Ok(()) } else { Err(Failure::work(format!("{stay} of {} files stay set aside", lines.len()))) }
}

/// Up to the first that the daemon cannot land now.
async fn by_daemon(
    control: &Control,
    listed: Vec<Listed>,
    current: bool,
    lines: &mut Vec<Line>,
) -> Result<(), Failure> {
    for listed in listed {
        let (tracker, file) = (listed.tracker.clone(), listed.file.clone());
        let became: Option<Became> = spooled::ask(control, SpoolWish::Land { tracker, file, current }).await?;
        lines.extend(became.map(|became| Line::of(listed, became)));
    }
    Ok(())
}

/// Up to the first that finds the database away.
async fn here(config: &Config, listed: Vec<Listed>, current: bool, lines: &mut Vec<Line>) -> Result<(), Failure> {
    let database = Database::of(config)?;
    database.migrate().await?;
    database.instance().begin(database.pool(), None).await?;
    let (notifier, inbox) = notify::channel();
    let shared = Shared::without_spool(database.pool().clone(), Arc::clone(database.instance()), notifier);
    let mut lander = Lander::new(Replay::new(&shared));
    let landing = async {
        for listed in listed {
            let became = lander.land(config, &listed.tracker, &listed.file, current).await?;
            lines.extend(became.map(|became| Line::of(listed, became)));
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

/// Lands files that were set aside, for who asks here or asks the daemon.
#[derive(Debug)]
pub(super) struct Lander {
    thread: OneThread,
    replay: Replay,
}

impl Lander {
    pub(super) fn new(replay: Replay) -> Lander {
        Lander { thread: OneThread::new(), replay }
    }

    /// Lands one; `None`: somebody took the file away.
    ///
    /// Cancel safety: as a run's. One that has landed and is still there is known as landed the next time.
    ///
    /// # Errors
    /// The disk, or the database: what became of it is not known, and it may be tried again.
    pub(super) async fn land(
        &mut self,
        config: &Config,
        tracker: &str,
        file: &Path,
        current: bool,
    ) -> Result<Option<Became>, Failure> {
        let found = self.on_disk(config, tracker, file, |bad, tracker, file| bad.read(tracker, file)).await?;
        let mut entry = match found {
            Found::Whole(entry, _) => *entry,
            Found::Bad(reason) => return Ok(Some(Became::not(What::NotWhole, reason))),
            Found::Gone => return Ok(None),
        };
        let replayed = match current.then(|| reshape(config, &mut entry)) {
            Some(Err(reason)) => Replayed::Failed(reason),
            _ => self.replay.land(entry).await?,
        };
        Ok(Some(match replayed {
            Replayed::Landed(run) => {
                self.on_disk(config, tracker, file, |bad, tracker, file| bad.landed(tracker, file)).await?;
                Became { outcome: What::Landed, rows: Some(run.rows_written), reason: None }
            }
            Replayed::Failed(reason) => {
                let told = format!("its run failed: {reason}");
                self.on_disk(config, tracker, file, move |bad, tracker, file| bad.stays(tracker, file, &told)).await?;
                Became::not(What::Failed, reason)
            }
            Replayed::Elsewhere => Became::not(What::Elsewhere, "another trackd is at this run".into()),
        }))
    }

    /// On one thread, for the disk may hang.
    async fn on_disk<T: Send + 'static>(
        &self,
        config: &Config,
        tracker: &str,
        file: &Path,
        work: impl FnOnce(&Bad, &str, &Path) -> Result<T, spool::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let (bad, tracker, file) = (Bad::new(&spooled::dir(config)), tracker.to_owned(), file.to_owned());
        let begun = self.thread.start(DISK, move || work(&bad, &tracker, &file)).await;
        let begun = begun.map_err(|_| Failure::work(format!("the spool's disk does not answer within {DISK:?}")))?;
        Ok(begun.await.map_err(|error| Failure::work(error.to_string()))??)
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

impl Became {
    fn not(outcome: What, reason: String) -> Became {
        Became { outcome, rows: None, reason: Some(reason) }
    }
}

impl Line {
    fn of(listed: Listed, became: Became) -> Line {
        let file = listed.file.display().to_string();
        Line { tracker: Some(listed.tracker), scheduled_at: Some(listed.scheduled_at), became, file }
    }

    fn other(SetAside { file, reason }: SetAside) -> Line {
        let file = file.display().to_string();
        Line { tracker: None, scheduled_at: None, became: Became::not(What::NotWhole, reason), file }
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
        let at = line.scheduled_at.map_or_else(|| line.file.clone(), print::time);
        let rows = line.became.rows.map_or_else(String::new, |rows| rows.to_string());
        vec![
            line.tracker.clone().unwrap_or_default(),
            at,
            line.became.outcome.name().into(),
            rows,
            line.became.reason.clone().unwrap_or_default(),
        ]
    };
    print::table(&["tracker", "scheduled at", "outcome", "rows", "reason"], &lines.iter().map(row).collect::<Vec<_>>())
}
