//! `trackd check`: configuration and database, what is wrong and what would be created; or what a reload would change.
//! Changes nothing.

use super::alert;
use super::control::Control;
use super::database::Database;
use super::failure::Failure;
use super::print;
use super::reload;
use crate::class::Class;
use crate::config::Config;
use crate::run::{Plan, Shared};
use crate::store::{notify, tables};
use axum::http::Method;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the daemon may take to read its configuration.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask the running daemon instead of the database: what a reload would change, or why it would be refused.
    #[arg(long)]
    against_running: bool,
}

pub(super) async fn check(explicit: Option<&Path>, args: Args) -> Result<(), Failure> {
    let config = super::load(explicit)?;
    if args.against_running { against_running(explicit).await } else { against_database(&config).await }
}

/// The daemon reads the file itself: its environment and credentials may be others than ours.
async fn against_running(explicit: Option<&Path>) -> Result<(), Failure> {
    let asked = async {
        let control = Control::find(explicit).await?;
        let answer = control.ask(Method::POST, "/control/rehearsal").await;
        let answer = answer.map_err(|error| Failure::work(format!("check: the daemon went away: {error}")))?;
        reload::outcome("a reload would be refused", &answer)
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    let changes =
        answered.map_err(|_| Failure::work(format!("check: the daemon did not answer within {PATIENCE:?}")))?;
    print::line(format!("a reload would do: {}", changes?))
}

async fn against_database(config: &Config) -> Result<(), Failure> {
    let all: Vec<_> = config.trackers.iter().flat_map(|tracker| &tracker.tables).cloned().collect();
    let database = Database::of(config)?;
    let (notifier, _inbox) = notify::channel();
    let shared = Shared::without_spool(database.pool().clone(), Arc::clone(database.instance()), notifier);
    let broken: Vec<String> = config
        .trackers
        .iter()
        .filter_map(|tracker| {
            Plan::new(config, tracker, &shared).err().map(|error| format!("tracker \"{}\": {error}", tracker.name))
        })
        .collect();
    if !broken.is_empty() {
        return Err(Failure::config(broken.join("\n")));
    }
    if let Some(alert) = &config.alert {
        let broken = alert::faults(alert);
        if !broken.is_empty() {
            return Err(Failure::config(broken.join("\n")));
        }
    }
    print::line(format!("{}: {} trackers, {} tables", files(config), config.trackers.len(), all.len()))?;
    if !database.is_made() {
        return print::line("database: embedded, made at the first start, with all tables");
    }
    database.start().await?;
    let changes = tables::preview(database.pool(), &all).await;
    database.end().await;
    match changes {
        Ok(changes) if changes.is_empty() => print::line("database: all tables are as configured"),
        Ok(changes) => changes.iter().try_for_each(|change| print::line(format!("would {}", change.describe))),
        Err(error) if error.class() == Class::Standing => {
            Err(Failure::config(error.to_string()).with_hint(error.hint()))
        }
        Err(error) => Err(error.into()),
    }
}

/// `config.toml, conf.d/10-prices.toml`: every file that was read.
fn files(config: &Config) -> String {
    let names = std::iter::once(&config.path).chain(&config.drop_ins).map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}
