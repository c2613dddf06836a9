//! `trackd psql`: psql on whatever database is configured.

use super::database::Database;
use super::failure::Failure;
use crate::config::Config;
use crate::store::connect;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::config::Host;

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
    command.args(&args.args).envs(variables(database.conninfo())?);
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

/// The address in psql's environment: a password in its arguments could be read by everybody.
fn variables(conninfo: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let address = connect::parse(conninfo)?;
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let mut variables = vec![
        ("PGHOST", address.get_hosts().iter().map(host).collect::<Vec<_>>().join(",")),
        ("PGPORT", address.get_ports().iter().map(u16::to_string).collect::<Vec<_>>().join(",")),
    ];
    variables.extend(address.get_user().map(|user| ("PGUSER", user.to_owned())));
    variables.extend(address.get_dbname().map(|name| ("PGDATABASE", name.to_owned())));
    variables.extend(address.get_password().map(|word| ("PGPASSWORD", String::from_utf8_lossy(word).into_owned())));
    variables.retain(|(_, value)| !value.is_empty());
    Ok(variables)
}
