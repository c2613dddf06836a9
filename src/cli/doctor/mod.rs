//! `trackd doctor`: what may keep runs from landing, now or later, and what to do about it. Changes nothing.

mod finding;
mod host;

use super::database::Database;
use super::failure::{Failure, migration_unusable};
use super::print;
use crate::config::Config;
use crate::status::{Health, Server};
use crate::store::embedded::search_path;
use crate::store::migrate::{self, Standing};
use crate::store::{health, privileges};
use finding::{Finding, Outcome, show};
use std::time::Duration;

/// How long the reader's connection may take to come back.
const CLOSE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn doctor(config: &Config, args: Args) -> Result<(), Failure> {
    let trackers = format!("{}: {} trackers", config.path.display(), config.trackers.len());
    let mut findings = vec![Finding::ok("config", trackers)];
    findings.extend(host::disks(config));
    let database = Database::of(config)?;
    let away = if !database.is_made() {
        findings.push(host::embedded());
        None
    } else {
        let examined = examine(&database, config, &mut findings).await;
        database.end().await;
        examined.err()
    };
    if let Some(failure) = &away {
        findings.push(Finding::fail("database", failure.message(), failure.hint().map(str::to_owned)));
    }
    show(&findings, args.json)?;
    let failed = findings.iter().filter(|finding| finding.outcome == Outcome::Fail).count();
    match away {
        Some(failure) => Err(failure),
        None if failed > 0 => Err(Failure::work(format!("{failed} of {} checks failed", findings.len()))),
        None => Ok(()),
    }
}

/// Everything that only the server can tell.
async fn examine(database: &Database, config: &Config, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    database.start().await?;
    // A pool that writes refuses a standby; one that reads can say what there is to know of it.
    let reader = database.reader();
    let mut pool = database.pool();
    let mut asked = health(pool).await;
    if asked.server.is_none() {
        let read = health(&reader).await;
        if read.server.is_some() {
            (pool, asked) = (&reader, read);
        }
    }
    let server = answered(asked)?;
    findings.extend(of_server(&server, database));
    let tables: Vec<_> = config.trackers.iter().flat_map(|tracker| &tracker.tables).cloned().collect();
    findings.extend(match privileges::lacks(pool, &tables).await?.as_slice() {
        [] => vec![Finding::ok("privileges", "all that trackd needs")],
        lacks => lacks.iter().map(|lack| Finding::fail("privileges", &lack.what, Some(lack.grant.clone()))).collect(),
    });
    findings.push(schema(migrate::look_at(&database.target()).await)?);
    findings.extend(host::tools(&search_path(), server.major).await);
    reader.close(CLOSE).await;
    Ok(())
}

pub(super) fn answered(health: Health) -> Result<Server, Failure> {
    let cause = health.last_error.unwrap_or_else(|| "the database does not answer".into());
    health.server.ok_or_else(|| Failure::database(cause, health.hint))
}

/// Each check of the server once: its trouble, or how it is.
fn of_server(server: &Server, database: &Database) -> Vec<Finding> {
    let size = bytesize::ByteSize::b(server.database_size_bytes).display().iec().to_string();
    let up = print::length(Duration::from_secs(server.uptime.as_secs()));
    let lag = server.replication_lag.map(|lag| format!(", {:.1}s behind", lag.as_secs_f64())).unwrap_or_default();
    let well = [
        ("server", format!("PostgreSQL {}, up {up}; database {}, {size}", server.version, server.database)),
        ("recovery", "the server takes writes".to_owned()),
        ("replication", format!("{} standbys{lag}", server.standbys)),
        ("clock", format!("{:+.3}s off this host's", server.clock_skew.as_secs_f64())),
        ("connections", format!("{} of {} taken", server.connections, server.max_connections)),
    ];
    let mut troubles = server.troubles();
    let mut findings: Vec<Finding> = Vec::new();
    for (check, text) in well {
        match troubles.iter().position(|trouble| trouble.check == check) {
            Some(at) => findings.push(Finding::of(troubles.swap_remove(at))),
            None => findings.push(Finding::ok(check, text)),
        }
    }
    findings.push(room(server.max_connections.saturating_sub(server.connections), database.pool().numbers().limit));
    findings.push(tls(server.tls.as_deref(), server.local));
    findings
}

/// Whether the server has room for the whole pool.
fn room(free: u32, limit: u32) -> Finding {
    match free < limit {
        true => Finding::warn(
            "pool",
            format!("up to {limit} connections, and the server has {free} left"),
            "lower database.pool_size and max_overflow, or raise max_connections on the server",
        ),
        false => Finding::ok("pool", format!("up to {limit} connections")),
    }
}

fn tls(version: Option<&str>, local: bool) -> Finding {
    match (version, local) {
        (Some(version), _) => Finding::ok("tls", version),
        (None, true) => Finding::ok("tls", "not needed: the server is on this host"),
        (None, false) => Finding::warn(
            "tls",
            "not in use: what is sent can be read on the way",
            "set ssl = on on the server, and sslmode=verify-full in database.url",
        ),
    }
}

/// How far the schema `trackd` is.
fn schema(standing: Result<Standing, migrate::MigrateError>) -> Result<Finding, Failure> {
    use crate::class::Class;
    match standing {
        Ok(Standing::Current(version)) => Ok(Finding::ok("schema", format!("trackd is at version {version}"))),
        Ok(Standing::Missing) => Ok(Finding::ok("schema", "trackd is made at the first start")),
        Ok(Standing::Behind(missing)) => {
            Ok(Finding::ok("schema", format!("trackd gets {} at the next start", missing.join(", "))))
        }
        Err(error) if error.class() == Class::Standing => {
            Ok(Finding::fail("schema", error.to_string(), error.hint().map(str::to_owned)))
        }
        Err(error) => Err(migration_unusable(&error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_does_not_fit_and_a_line_that_can_be_read_are_warned_of() {
        assert_eq!([14, 15].map(|free| room(free, 15).outcome), [Outcome::Warn, Outcome::Ok]);
        let outcomes = [tls(None, false), tls(None, true), tls(Some("TLSv1.3"), false)].map(|finding| finding.outcome);
        assert_eq!(outcomes, [Outcome::Warn, Outcome::Ok, Outcome::Ok]);
    }
}
