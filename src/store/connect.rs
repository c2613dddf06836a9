//! From the words of a connection string to the driver's configuration.
//!
//! In: `postgres://…` or `key=value` words. Out: a `tokio_postgres::Config` with the timeouts and keepalives that
//! notice a dead peer. Must not know: the environment, configuration files.

use super::Error;
use std::str::FromStr;
use std::time::Duration;

/// One deadline for the TCP connection; the whole connect has its own in the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a connection string.
///
/// Keepalives find a half-open link within about a minute, `tcp_user_timeout` an unanswered send within 30 s,
/// where the string does not say otherwise.
///
/// # Errors
/// Class standing: the string is not understood. The message never repeats the string (it may hold a password).
pub fn parse(url: &str) -> Result<tokio_postgres::Config, Error> {
    let mut config = tokio_postgres::Config::from_str(url).map_err(|error| {
        Error::refused(
            "database.url",
            error.to_string(),
            Some(
                "postgres://user@host:5432/database, or words like host=/run/postgresql user=trackd dbname=trackd"
                    .into(),
            ),
        )
    })?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(30));
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.keepalives_interval(Duration::from_secs(10));
    config.keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("trackd");
    }
    Ok(config)
}
