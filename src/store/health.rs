//! How the database is: what its server says of itself, and the pool's numbers, in one round trip.
//!
//! In: a pool. Out: `status::Health`, also of a server that does not answer. Must not know: who asks, and what for.

use super::Error;
use super::pool::{Lease, Pool};
use crate::clock;
use crate::status::Pool as Connections;
pub use crate::status::{Health, Server};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_postgres::Row;

/// The longest a look takes, the wait for a connection included.
const LIMIT: Duration = Duration::from_secs(5);
/// The server gives up before: the size of a database of very many files is the only slow part.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 4000";

/// A standby that has replayed all it received is behind all the same once nobody sends it anything. The clock first: what comes after it must not count as skew.
const QUESTION: &str = "SELECT pg_catalog.clock_timestamp() AS at, \
    pg_catalog.current_setting('server_version') AS version, \
    pg_catalog.current_setting('server_version_num')::int4 AS version_num, \
    extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time())::float8 AS uptime, \
    pg_catalog.pg_is_in_recovery() AS standby, \
    (CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
          THEN (SELECT extract(epoch FROM max(replay_lag)) FROM pg_catalog.pg_stat_replication) \
          WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() \
           AND EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver) THEN 0 \
          ELSE extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) \
     END)::float8 AS lag, \
    (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int4 AS standbys, \
    pg_catalog.current_database()::text AS database, \
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS size, \
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')::int4 AS connections, \
    pg_catalog.current_setting('max_connections')::int4 AS max_connections, \
    (SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl) AS tls, \
    coalesce(pg_catalog.inet_client_addr() <<= '127.0.0.0/8' OR pg_catalog.inet_client_addr() = '::1', true) AS local";

/// How the database is, within five seconds, whatever its state.
///
/// Costs one round trip on a borrowed connection, and leaves nothing on it.
///
/// Cancel safety: safe; a connection whose answer is still to come is not lent again.
pub async fn health(pool: &Pool) -> Health {
    let asked = match timeout(LIMIT, ask(pool)).await {
        Ok(asked) => asked,
        // Why no connection can be had says more than that there was none in time.
        Err(_) => Err(pool.last_error().unwrap_or_else(|| Error::timeout("ask the server how it is", LIMIT))),
    };
    let (server, error) = match asked {
        Ok(server) => (Some(server), pool.last_error()),
        Err(error) => (None, Some(error)),
    };
    Health {
        server,
        pool: connections(pool),
        last_error: error.as_ref().map(Error::to_string),
        hint: error.as_ref().and_then(Error::hint),
    }
}

/// The pool's numbers, as the status shows them.
pub fn connections(pool: &Pool) -> Connections {
    let numbers = pool.numbers();
    Connections {
        size: numbers.size,
        idle: numbers.idle,
        borrowed: numbers.size.saturating_sub(numbers.idle),
        waiting: numbers.waiting,
        limit: numbers.limit,
    }
}

async fn ask(pool: &Pool) -> Result<Server, Error> {
    let mut look = Look { lease: pool.look().await?, answered: false };
    let client = look.lease.client();
    let (asked_at, asked) = (clock::now(), Instant::now());
    // Queued in this order at the first poll, and sent together: the transaction costs no round trip of its own.
    let (begun, rows, ended) = tokio::join!(
        biased;
        client.batch_execute(BEGIN),
        client.query_typed(QUESTION, &[]),
        client.batch_execute("COMMIT"),
    );
    let answered_in = asked.elapsed();
    let failed = |error| Error::driver("ask the server how it is", error);
    // An answered error leaves the connection as it was: COMMIT ended the transaction.
    look.answered = !client.is_closed() && ended.is_ok();
    begun.and(ended).map_err(failed)?;
    let rows = rows.map_err(failed)?;
    let row = rows.first().ok_or_else(|| Error::unavailable("ask the server how it is", "it answered with no row"))?;
    Ok(server(row, asked_at, answered_in))
}

fn server(row: &Row, asked_at: Timestamp, answered_in: Duration) -> Server {
    let number = |name: &str| u32::try_from(row.get::<_, i32>(name)).unwrap_or_default();
    let at: Timestamp = row.get("at");
    let halfway = asked_at.checked_add(answered_in / 2).unwrap_or(asked_at);
    Server {
        version: row.get("version"),
        major: number("version_num") / 10_000,
        uptime: length(row.get("uptime")),
        standby: row.get("standby"),
        replication_lag: row.get::<_, Option<f64>>("lag").map(length),
        standbys: number("standbys"),
        database: row.get("database"),
        database_size_bytes: u64::try_from(row.get::<_, i64>("size")).unwrap_or_default(),
        clock_skew: at.duration_since(halfway),
        answered_in,
        connections: number("connections"),
        max_connections: number("max_connections"),
        tls: row.get("tls"),
        local: row.get("local"),
    }
}

/// Nought for what is below it: a clock that was set back.
fn length(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

/// A connection whose answer may still be to come.
struct Look {
    lease: Lease,
    answered: bool,
}

impl Drop for Look {
    fn drop(&mut self) {
        if !self.answered {
            self.lease.condemn();
        }
    }
}
