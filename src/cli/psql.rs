//! `trackd psql`: psql on whatever database is configured.

use super::database::Database;
use super::failure::Failure;
use crate::config::Config;
use crate::store::Target;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Arguments for psql, after `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

pub(super) async fn psql(config: &Config, args: Args) -> Result<(), Failure> {
    let database = Database::of(config)?;
    database.start().await?;
    let mut command = tokio::process::Command::new("psql");
    // In its environment: a password in its arguments could be read by everybody.
    for variable in Target::variables_of_libpq() {
        command.env_remove(variable);
    }
    command.args(&args.args).envs(database.target().environment());
    let status = match catch_keys() {
        Ok(_caught) => command.status().await,
        Err(error) => Err(error),
    };
    database.end().await;
    match status {
        Ok(status) if status.success() => Ok(()),
        // psql said why.
        Ok(_) => Err(Failure::work("")),
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let hint = missing.then(|| "apt-get install postgresql-client".to_owned());
            Err(Failure::work(format!("run psql: {error}")).with_hint(hint))
        }
    }
}

/// Ctrl-C and Ctrl-\ reach both processes and are psql's: a trackd that died of them would leave its server running.
/// Caught, not ignored, which psql would inherit.
fn catch_keys() -> std::io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::quit())?])
}
