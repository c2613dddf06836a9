//! How a database is: plain values, and what of them is not as it should be.
//!
//! Pure. Must not know: how the server is asked, who is told.

use super::Pool;
use jiff::SignedDuration;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// A clock that is off by more makes instants of two hosts hard to compare.
const SKEW: SignedDuration = SignedDuration::from_secs(2);
/// A standby that is further behind would lose that much at a failover.
const LAG: Duration = Duration::from_secs(60);
/// The oldest major version that trackd is tested with.
const OLDEST: u32 = 13;

/// The database as it is now, as far as can be told from here.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// What the server says of itself; `None` while it does not answer.
    pub server: Option<Server>,
    /// Connections of this process.
    pub pool: Pool,
    /// Why the server could not be asked, or why no connection could be made since the last one that was.
    pub last_error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A database server at one moment. In JSON, lengths of time are seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Server {
    /// As it names itself: `15.14 (Debian 15.14-0+deb12u1)`.
    pub version: String,
    /// Its major version.
    pub major: u32,
    /// Since its start.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// It is in recovery: it follows another server and takes no writes.
    pub standby: bool,
    /// A standby: how far behind it is. A primary: how far its slowest standby is behind, if it has one and says so.
    #[serde(rename = "replication_lag_seconds", serialize_with = "some_seconds")]
    pub replication_lag: Option<Duration>,
    /// Standbys that follow it.
    pub standbys: u32,
    /// The database.
    pub database: String,
    /// Of the database, on its disk.
    pub database_size_bytes: u64,
    /// The server's clock minus this host's; right to half of `answered_in`.
    #[serde(rename = "clock_skew_seconds", serialize_with = "signed_seconds")]
    pub clock_skew: SignedDuration,
    /// From the question to the answer.
    #[serde(rename = "answered_in_seconds", serialize_with = "seconds")]
    pub answered_in: Duration,
    /// Sessions of all clients of the server.
    pub connections: u32,
    /// The most it takes.
    pub max_connections: u32,
    /// The version of TLS on the way there; `None` without.
    pub tls: Option<String>,
    /// The way there is a Unix socket or this host's loopback.
    pub local: bool,
}

fn seconds<S: Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(length.as_secs_f64())
}

fn some_seconds<S: Serializer>(length: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    length.map(|length| length.as_secs_f64()).serialize(to)
}

fn signed_seconds<S: Serializer>(length: &SignedDuration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(length.as_secs_f64())
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was looked at: `clock`, `replication`.
    pub check: &'static str,
    /// Whether runs cannot land.
    pub fatal: bool,
    /// One line.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Server {
    /// What is not as it should be; empty for a server in order.
    pub fn troubles(&self) -> Vec<Trouble> {
        [self.version_trouble(), self.recovery_trouble(), self.lag_trouble(), self.clock_trouble(), self.room_trouble()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn version_trouble(&self) -> Option<Trouble> {
        (self.major < OLDEST).then(|| Trouble {
            check: "server",
            fatal: false,
            what: format!("version {}, expected {OLDEST} or newer", self.version),
            hint: "bring it to a newer version with pg_upgrade".into(),
        })
    }

    fn recovery_trouble(&self) -> Option<Trouble> {
        self.standby.then(|| Trouble {
            check: "recovery",
            fatal: true,
            what: "the server is a read-only standby".into(),
            hint: "name the primary in database.url, or several hosts with target_session_attrs=read-write".into(),
        })
    }

    fn lag_trouble(&self) -> Option<Trouble> {
        let lag = self.replication_lag.filter(|lag| *lag > LAG)?;
        let who = if self.standby { "it is" } else { "its slowest standby is" };
        Some(Trouble {
            check: "replication",
            fatal: false,
            what: format!("{who} {}s behind, expected at most {}s", lag.as_secs(), LAG.as_secs()),
            hint: "see pg_stat_replication on the primary".into(),
        })
    }

    fn clock_trouble(&self) -> Option<Trouble> {
        // What the question took to arrive is not the clock's fault.
        let unknown = SignedDuration::try_from(self.answered_in / 2).unwrap_or_default();
        (self.clock_skew.abs() > SKEW + unknown).then(|| Trouble {
            check: "clock",
            fatal: false,
            what: format!("the server's clock is {:.1}s off this host's", self.clock_skew.as_secs_f64()),
            hint: "run a time service (chrony, systemd-timesyncd) on both".into(),
        })
    }

    fn room_trouble(&self) -> Option<Trouble> {
        (u64::from(self.connections) * 10 >= u64::from(self.max_connections) * 9).then(|| Trouble {
            check: "connections",
            fatal: false,
            what: format!("{} of the server's {} connections are taken", self.connections, self.max_connections),
            hint: "raise max_connections on the server, or lower database.pool_size and max_overflow".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Server {
        Server {
            version: "15.14".into(),
            major: 15,
            uptime: Duration::from_secs(90),
            standby: false,
            replication_lag: Some(Duration::from_millis(1500)),
            standbys: 1,
            database: "trackd".into(),
            database_size_bytes: 8_000_000,
            clock_skew: SignedDuration::from_millis(-1500),
            answered_in: Duration::from_millis(2),
            connections: 89,
            max_connections: 100,
            tls: None,
            local: true,
        }
    }

    fn checks(server: &Server) -> Vec<(&'static str, bool)> {
        server.troubles().iter().map(|trouble| (trouble.check, trouble.fatal)).collect()
    }

    #[test]
    fn a_server_in_order_has_no_trouble_and_each_limit_is_one() {
        assert_eq!(checks(&well()), []);
        assert_eq!(checks(&Server { major: 12, ..well() }), [("server", false)]);
        assert_eq!(checks(&Server { standby: true, ..well() }), [("recovery", true)]);
        let late = Some(Duration::from_secs(61));
        assert_eq!(checks(&Server { replication_lag: late, ..well() }), [("replication", false)]);
        assert_eq!(checks(&Server { connections: 90, ..well() }), [("connections", false)]);
    }

    #[test]
    fn a_slow_answer_is_no_skew() {
        let off = Server { clock_skew: SignedDuration::from_secs(-5), ..well() };
        assert_eq!(checks(&off), [("clock", false)]);
        assert_eq!(off.troubles()[0].what, "the server's clock is -5.0s off this host's");
        assert_eq!(checks(&Server { answered_in: Duration::from_secs(7), ..off }), []);
    }

    #[test]
    fn lengths_are_seconds_in_json() {
        let json = serde_json::to_value(well()).expect("plain values");
        assert_eq!((&json["uptime_seconds"], &json["clock_skew_seconds"]), (&90.0.into(), &(-1.5).into()));
        assert_eq!((&json["replication_lag_seconds"], &json["tls"]), (&1.5.into(), &serde_json::Value::Null));
    }
}
