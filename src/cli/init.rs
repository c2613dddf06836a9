//! `trackd init`: waits for the database, then brings schema and tables to what this program and the configuration need.
//!
//! For a container's start, or a deployment that must not go on before the database is ready. May be run again.

use super::database::Database;
use super::failure::{Failure, unusable};
use super::interrupt::unless_interrupted;
use super::print;
use crate::class::Class;
use crate::config::Config;
use crate::daemon::ledger::Unusable;
use crate::store::Error;
use crate::store::tables::Change;
use std::time::Duration;

/// Between the first two attempts; doubled at each further one.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often a database that is away is tried, with pauses of half a second, doubled up to 15 s.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: u32,
}

pub(super) async fn init(config: &Config, args: Args) -> Result<(), Failure> {
    let database = Database::of(config)?;
    let done = unless_interrupted(try_again(&database, args.attempts)).await;
    database.end().await;
    let Done { migrations, tables } = done?;
    match migrations.as_slice() {
        [] => print::line("schema trackd is up to date")?,
        migrations => print::line(format!("applied {}", migrations.join(", ")))?,
    }
    if tables.is_empty() {
        print::line("all tables are as configured")?;
    }
    let mut refused = Vec::new();
    for table in tables {
        match table {
            Ok(change) => print::line(change.describe)?,
            Err(error) => refused.push(error),
        }
    }
    match refused.into_iter().next() {
        Some(error) => Err(Failure::config(error.to_string()).with_hint(error.hint())),
        None => Ok(()),
    }
}

/// What was done.
struct Done {
    migrations: Vec<String>,
    tables: Vec<Result<Change, Error>>,
}

async fn try_again(database: &Database, attempts: u32) -> Result<Done, Failure> {
    let mut attempt = 1;
    // Of an attempt that got no further, too.
    let mut migrations = Vec::new();
    loop {
        let error = match once(database, &mut migrations).await {
            Ok(tables) => return Ok(Done { migrations, tables }),
            // A person must act: to wait helps nobody.
            Err(error) if error.class != Class::Retry => return Err(error.into()),
            Err(error) => error,
        };
        if attempt == attempts {
            return Err(Failure::database(format!("{error} (attempt {attempt} of {attempts})"), error.hint));
        }
        let pause = pause(attempt, fastrand::f64());
        print::diagnostic(format!("attempt {attempt} of {attempts}: {error}; again in {:.1}s", pause.as_secs_f64()));
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

async fn once(database: &Database, migrations: &mut Vec<String>) -> Result<Vec<Result<Change, Error>>, Unusable> {
    migrations.extend(database.migrate().await?);
    let tables = database.make_tables().await?;
    match tables.iter().filter_map(|table| table.as_ref().err()).find(|error| error.class() == Class::Retry) {
        Some(error) => Err(unusable(error)),
        None => Ok(tables),
    }
}

/// Half of it fixed, half at random: many that wait for one database must not come at once. `jitter` is in 0..1.
fn pause(attempt: u32, jitter: f64) -> Duration {
    let longest = FIRST.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST);
    longest.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::pause;

    #[test]
    fn pauses_double_up_to_a_quarter_of_a_minute_and_are_spread() {
        let longest: Vec<u128> = [1, 2, 3, 5, 6, 1000].map(|attempt| pause(attempt, 1.0).as_millis()).into();
        assert_eq!(longest, [500, 1000, 2000, 8000, 15_000, 15_000]);
        assert_eq!(pause(1, 0.0).as_millis(), 250);
    }
}
