//! `trackd check`: configuration and database, what is wrong and what would be created. Changes nothing.

use super::alert;
use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::class::Class;
use crate::config::Config;
use crate::run::{Plan, Shared};
use crate::store::{notify, tables};
use std::sync::Arc;

pub(super) async fn check(config: &Config) -> Result<(), Failure> {
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
    print::line(format!("{}: {} trackers, {} tables", config.path.display(), config.trackers.len(), all.len()))?;
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
