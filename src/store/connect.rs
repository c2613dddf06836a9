//! From the words of a connection string to the driver's configuration.
//!
//! In: `postgres://…` or `key=value` words. Out: a `tokio_postgres::Config` with the timeouts and keepalives that
//! notice a dead peer. Must not know: the environment, configuration files.

use super::Error;
use std::error::Error as _;
use std::str::FromStr;
use std::time::Duration;

/// One deadline for the TCP connection; the whole connect has its own in the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Words of libpq that the driver does not have.
const NOT_TAKEN: [&str; 8] =
    ["sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "service", "require_auth", "client_encoding"];

/// Reads a connection string.
///
/// Keepalives find a half-open link within about a minute, `tcp_user_timeout` an unanswered send within 30 s,
/// where the string does not say otherwise.
///
/// # Errors
/// Class standing: the string is not understood. The message never repeats the string (it may hold a password).
pub fn parse(url: &str) -> Result<tokio_postgres::Config, Error> {
    let mut config = tokio_postgres::Config::from_str(url).map_err(|error| refused(&reason(&error)))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(refused("no host: expected an address, or the directory of a Unix socket"));
    }
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

fn refused(what: &str) -> Error {
    let hint = "postgres://user@host:5432/database, or words like host=/run/postgresql user=trackd dbname=trackd";
    Error::refused("database.url", what, Some(hint.into()))
}

/// The driver's reason where it cannot be a part of the string that was given: half a password may be taken for a
/// name of an option.
fn reason(error: &tokio_postgres::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let option = |words: &str| cause.strip_prefix(words).map(|name| name.trim_matches('`').to_owned());
    if let Some(name) = option("invalid value for option ") {
        let known = if name == "sslmode" { ": expected disable, prefer or require" } else { "" };
        return format!("invalid value of {name}{known}");
    }
    match option("unknown option ") {
        Some(name) if NOT_TAKEN.contains(&name.as_str()) => format!("{name} is not supported"),
        Some(_) => "an option that is not known".into(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_wrong_is_told_without_a_part_of_the_string() {
        for (url, expected) in [
            (
                "postgres://u:hunter2@h/d?sslmode=verify-full",
                "invalid value of sslmode: expected disable, prefer or require",
            ),
            ("host=h port=hunter2", "invalid value of port"),
            ("host=h password=hun hunter2=x", "an option that is not known"),
            ("host=h sslrootcert=hunter2", "sslrootcert is not supported"),
            ("dbname=d password=hunter2", "no host: expected an address, or the directory of a Unix socket"),
            ("host=h password='hunter2", "invalid connection string"),
        ] {
            assert_eq!(parse(url).unwrap_err().to_string(), format!("database.url: {expected}"), "{url}");
        }
        assert!(parse("host=/run/postgresql user=u dbname=d").is_ok());
    }
}
