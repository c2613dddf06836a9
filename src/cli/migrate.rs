//! `trackd migrate`: brings the schema `trackd` up to date.

use super::database::Database;
use super::failure::Failure;
use super::print;
use crate::config::Config;

pub(super) async fn migrate(config: &Config) -> Result<(), Failure> {
    let database = Database::of(config)?;
    let applied = database.migrate().await;
    database.end().await;
    match applied?.as_slice() {
        [] => print::line("schema trackd is up to date"),
        applied => print::line(format!("applied {}", applied.join(", "))),
    }
}
