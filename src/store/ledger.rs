//! The ledger: `trackd.runs` and `trackd.rejects`, one row for each run and each row set aside.
//!
//! In: `status::Run` values. Out: statements for the guard that lands the run, and look-ups.
//! Must not know: what a run does.

use super::claim::FREE;
use super::{Error, Pool, Statement};
use crate::class::Class;
use crate::shape::Reject;
use crate::status::{Run, RunStatus};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

/// A run's id: the same for the same tracker and instant, on every instance and at every attempt.
///
/// Shape: UUID version 8; 48 bits of milliseconds since the epoch, so that new rows stay at the right edge of an
/// index, then 74 bits of SHA-256 over tracker and instant.
pub fn run_id(tracker: &str, scheduled_at: Timestamp) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(tracker.as_bytes());
    hash.update([0]);
    hash.update(scheduled_at.as_nanosecond().to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&scheduled_at.as_millisecond().to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&digest[..10]);
    Uuid::new_v8(bytes)
}

const COLUMNS: &str = "run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at, \
    fetched_bytes, http_status, rows_read, rows_written, rows_rejected, payload_sha256, error_class, error";

/// What an outcome changes of a claim.
const ENDS: [&str; 12] = [
    "status",
    "attempt",
    "instance",
    "started_at",
    "finished_at",
    "fetched_bytes",
    "http_status",
    "rows_read",
    "rows_rejected",
    "payload_sha256",
    "error_class",
    "error",
];

/// The values of `COLUMNS`, `$1` to `$17`.
pub(super) fn bind_run(statement: Statement, run: &Run) -> Statement {
    statement
        .bind(run.run_id, Type::UUID)
        .bind(run.tracker.clone(), Type::TEXT)
        .bind(run.scheduled_at, Type::TIMESTAMPTZ)
        .bind(run.kind.as_str(), Type::TEXT)
        .bind(run.status.as_str(), Type::TEXT)
        .bind(run.attempt, Type::INT4)
        .bind(run.instance.clone(), Type::TEXT)
        .bind(run.started_at, Type::TIMESTAMPTZ)
        .bind(run.finished_at, Type::TIMESTAMPTZ)
        .bind(run.fetched_bytes, Type::INT8)
        .bind(run.http_status, Type::INT4)
        .bind(run.rows_read, Type::INT8)
        .bind(run.rows_written, Type::INT8)
        .bind(run.rows_rejected, Type::INT8)
        .bind(run.payload_sha256.clone(), Type::TEXT)
        .bind(run.error_class.map(Class::as_str), Type::TEXT)
        .bind(run.error.clone(), Type::TEXT)
}

/// The statement that keeps the rows set aside of one table.
pub fn set_aside(run_id: Uuid, table: &str, rejects: &[Reject]) -> Statement {
    let rows: Vec<String> = rejects.iter().map(|reject| reject.row.clone()).collect();
    let reasons: Vec<String> = rejects.iter().map(|reject| reject.reason.clone()).collect();
    Statement::new(
        "INSERT INTO trackd.rejects (run_id, \"table\", row, reason) \
         SELECT $1, $2, r.row::jsonb, r.reason FROM unnest($3::text[], $4::text[]) AS r(row, reason)",
    )
    .bind(run_id, Type::UUID)
    .bind(table.to_owned(), Type::TEXT)
    .bind(rows, Type::TEXT_ARRAY)
    .bind(reasons, Type::TEXT_ARRAY)
}

/// Writes runs that landed nothing: failed, missed, skipped. An instant that has its outcome keeps it, and one that
/// another process is at stays with it.
///
/// Shape: any number; 1,000 in a statement. All of them, or none. `claimed_by` is this process's number.
///
/// Cancel safety: safe; all of them landed or none, and they may be written again.
///
/// # Errors
/// As the guard's; nothing is written then.
pub async fn record(pool: &Pool, claimed_by: i64, runs: &[Run]) -> Result<(), Error> {
    let mut guard = pool.begin().await?;
    for some in runs.chunks(1_000) {
        guard.defer(record_statement(claimed_by, some));
    }
    let _receipt = guard.commit().await?;
    Ok(())
}

fn record_statement(claimed_by: i64, runs: &[Run]) -> Statement {
    fn all<T>(runs: &[Run], value: impl Fn(&Run) -> T) -> Vec<T> {
        runs.iter().map(value).collect()
    }
    let sql = format!(
        "INSERT INTO trackd.runs AS r ({COLUMNS}, claimed_by) SELECT r.run_id, r.tracker, r.scheduled_at, r.kind, r.status, r.attempt, \
         r.instance, r.started_at, r.finished_at, r.fetched_bytes, r.http_status, r.rows_read, 0, r.rows_rejected, \
         decode(r.payload_sha256, 'hex'), r.error_class, r.error, $17 FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], \
         $4::text[], $5::text[], $6::int4[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::int8[], $11::int4[], \
         $12::int8[], $13::int8[], $14::text[], $15::text[], $16::text[]) AS r(run_id, tracker, scheduled_at, kind, \
         status, attempt, instance, started_at, finished_at, fetched_bytes, http_status, rows_read, rows_rejected, \
         payload_sha256, error_class, error) ON CONFLICT (run_id) DO UPDATE SET {} WHERE {FREE}",
        ENDS.map(|column| format!("{column} = excluded.{column}")).join(", ")
    );
    Statement::new(sql)
        .bind(all(runs, |run| run.run_id), Type::UUID_ARRAY)
        .bind(all(runs, |run| run.tracker.clone()), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.scheduled_at), Type::TIMESTAMPTZ_ARRAY)
        .bind(all(runs, |run| run.kind.as_str()), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.status.as_str()), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.attempt), Type::INT4_ARRAY)
        .bind(all(runs, |run| run.instance.clone()), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.started_at), Type::TIMESTAMPTZ_ARRAY)
        .bind(all(runs, |run| run.finished_at), Type::TIMESTAMPTZ_ARRAY)
        .bind(all(runs, |run| run.fetched_bytes), Type::INT8_ARRAY)
        .bind(all(runs, |run| run.http_status), Type::INT4_ARRAY)
        .bind(all(runs, |run| run.rows_read), Type::INT8_ARRAY)
        .bind(all(runs, |run| run.rows_rejected), Type::INT8_ARRAY)
        .bind(all(runs, |run| run.payload_sha256.clone()), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.error_class.map(Class::as_str)), Type::TEXT_ARRAY)
        .bind(all(runs, |run| run.error.clone()), Type::TEXT_ARRAY)
        .bind(claimed_by, Type::INT8)
}

/// The outcome of a run, if it has ended. Waits for a transaction that is about to end it.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn settled(pool: &Pool, run_id: Uuid) -> Result<Option<Run>, Error> {
    // Its lock is with the transaction whose answer was lost, as long as that goes on.
    let sql = format!("SELECT {COLUMNS} FROM trackd.runs WHERE run_id = $1 FOR UPDATE");
    let mut guard = pool.begin().await?;
    let rows = guard.query(Statement::new(sql).bind(run_id, Type::UUID)).await?;
    let _receipt = guard.commit().await?;
    Ok(rows.first().and_then(run_of))
}

/// A tracker's instants on record.
#[derive(Debug)]
pub struct Instants {
    pub tracker: String,
    /// All up to this one are dealt with: the latest that was run to an end, if no process died since with others in its
    /// memory; with none, since when it is followed, or the first on record.
    pub whole_until: Timestamp,
    /// Later ones, upwards: the newest `most` of them.
    pub later: Vec<Timestamp>,
}

/// Notes since when trackers are followed; those that were known keep their time.
///
/// Cancel safety: safe; it landed or it did not. It may be said again.
///
/// # Errors
/// As the guard's.
pub async fn meet(pool: &Pool, trackers: &[String], since: Timestamp) -> Result<(), Error> {
    let sql =
        "INSERT INTO trackd.trackers (tracker, since) SELECT t, $2 FROM unnest($1::text[]) AS t ON CONFLICT DO NOTHING";
    let mut guard = pool.begin().await?;
    guard.defer(Statement::new(sql).bind(trackers.to_vec(), Type::TEXT_ARRAY).bind(since, Type::TIMESTAMPTZ));
    guard.commit().await.map(drop)
}

/// Since when those of these trackers are followed that are known.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn since(pool: &Pool, trackers: &[String]) -> Result<Vec<(String, Timestamp)>, Error> {
    let statement = Statement::new("SELECT tracker, since FROM trackd.trackers WHERE tracker = ANY($1)")
        .bind(trackers.to_vec(), Type::TEXT_ARRAY);
    Ok(pool.query(statement).await?.iter().map(|row| (row.get("tracker"), row.get("since"))).collect())
}

/// For each of these trackers that is known, or ever was due by schedule, where its record ends.
///
/// Manual runs do not count: they are no instants of the schedule. Nor does where a run after `until` ended: it may
/// have ended before anybody looked at what is missing before it. Nor do claims of process `but_by`. With a
/// tracker comes the earliest of its instants whose payload waits on disk: it was followed then, whatever has landed since.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn instants(
    pool: &Pool,
    but_by: i64,
    trackers: &[(String, Option<Timestamp>)],
    until: Option<Timestamp>,
    most: i64,
) -> Result<Vec<Instants>, Error> {
    // A few index probes a tracker: never a scan of the history.
    let statement = Statement::new(
        "SELECT t.tracker, m.whole_until, ARRAY(SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = t.tracker \
         AND r.kind <> 'manual' AND r.scheduled_at > m.whole_until \
         AND NOT (r.status = 'running' AND r.claimed_by = $4) ORDER BY r.scheduled_at DESC LIMIT $2) AS later \
         FROM unnest($1::text[], $5::timestamptz[]) AS t(tracker, waits) CROSS JOIN (SELECT min(i.whole_until) AS until FROM trackd.instances i \
           WHERE i.lease_until <= pg_catalog.clock_timestamp()) AS dead \
         CROSS JOIN LATERAL (SELECT least((SELECT s.since FROM trackd.trackers s WHERE s.tracker = t.tracker), \
            (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = t.tracker AND r.kind <> 'manual' \
             ORDER BY r.scheduled_at LIMIT 1)) AS since) AS f \
         CROSS JOIN LATERAL (SELECT least(t.waits, greatest(f.since, least(dead.until, coalesce(\
           (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = t.tracker AND r.kind <> 'manual' \
            AND r.status NOT IN ('missed', 'skipped', 'running') AND ($3::timestamptz IS NULL OR r.scheduled_at <= $3) \
            ORDER BY r.scheduled_at DESC LIMIT 1), f.since)))) AS whole_until) AS m WHERE m.whole_until IS NOT NULL",
    )
    .bind(trackers.iter().map(|(tracker, _)| tracker.clone()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
    .bind(most, Type::INT8)
    .bind(until, Type::TIMESTAMPTZ)
    .bind(but_by, Type::INT8)
    .bind(trackers.iter().map(|(_, waits)| *waits).collect::<Vec<_>>(), Type::TIMESTAMPTZ_ARRAY);
    let instants = |row: &Row| {
        let mut later: Vec<Timestamp> = row.get("later");
        later.reverse();
        Instants { tracker: row.get("tracker"), whole_until: row.get("whole_until"), later }
    };
    Ok(pool.query(statement).await?.iter().map(instants).collect())
}

/// Which runs to show.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of one tracker only.
    pub tracker: Option<String>,
    /// Failed ones only.
    pub failed: bool,
    /// At most so many.
    pub limit: u32,
}

/// Runs, newest instant first.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn recent(pool: &Pool, query: &Query) -> Result<Vec<Run>, Error> {
    // Each has an index that ends with the newest; ids grow with the instants, to the millisecond.
    let newest = if query.tracker.is_some() { "scheduled_at" } else { "run_id" };
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM trackd.runs WHERE ($1::text IS NULL OR tracker = $1) \
         AND (NOT $2 OR status = 'failed') ORDER BY {newest} DESC LIMIT $3) AS r ORDER BY scheduled_at DESC, tracker"
    );
    let statement = Statement::new(sql)
        .bind(query.tracker.clone(), Type::TEXT)
        .bind(query.failed, Type::BOOL)
        .bind(i64::from(query.limit), Type::INT8);
    Ok(pool.query(statement).await?.iter().filter_map(run_of).collect())
}

/// For each of these trackers its latest run, and the instant of its latest success.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn latest(pool: &Pool, trackers: &[String]) -> Result<Vec<(Run, Option<Timestamp>)>, Error> {
    let sql = format!(
        "SELECT {}, s.success FROM unnest($1::text[]) AS t(name) CROSS JOIN LATERAL \
         (SELECT * FROM trackd.runs r WHERE r.tracker = t.name ORDER BY scheduled_at DESC LIMIT 1) r LEFT JOIN LATERAL \
         (SELECT scheduled_at AS success FROM trackd.runs r WHERE r.tracker = t.name AND r.status = 'succeeded' \
          ORDER BY scheduled_at DESC LIMIT 1) s ON true",
        COLUMNS.split(", ").map(|column| format!("r.{column}")).collect::<Vec<_>>().join(", ")
    );
    let statement = Statement::new(sql).bind(trackers.to_vec(), Type::TEXT_ARRAY);
    let rows = pool.query(statement).await?;
    Ok(rows.iter().filter_map(|row| Some((run_of(row)?, row.get("success")))).collect())
}

/// A row of `COLUMNS`; `None` for one that is still running or of a kind this version does not know.
fn run_of(row: &Row) -> Option<Run> {
    let sha256: Option<Vec<u8>> = row.get("payload_sha256");
    Some(Run {
        run_id: row.get("run_id"),
        tracker: row.get("tracker"),
        scheduled_at: row.get("scheduled_at"),
        kind: word(row.get("kind"))?,
        status: word::<RunStatus>(row.get("status"))?,
        attempt: row.get("attempt"),
        instance: row.get("instance"),
        started_at: row.get("started_at"),
        finished_at: row.get("finished_at"),
        fetched_bytes: row.get("fetched_bytes"),
        http_status: row.get("http_status"),
        rows_read: row.get("rows_read"),
        rows_written: row.get("rows_written"),
        rows_rejected: row.get("rows_rejected"),
        payload_sha256: sha256.map(|bytes| hex(&bytes)),
        error_class: row.get::<_, Option<&str>>("error_class").and_then(word),
        error: row.get("error"),
    })
}

/// The value whose serialised word this is.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::run_id;
    use jiff::Timestamp;

    #[test]
    fn a_run_has_one_id_and_later_runs_sort_after_it() {
        let (early, late) = (Timestamp::from_second(1_000).unwrap(), Timestamp::from_second(1_001).unwrap());
        assert_eq!(run_id("a", early), run_id("a", early));
        assert_ne!(run_id("a", early), run_id("b", early));
        assert!(run_id("b", early) < run_id("a", late));
        assert_eq!(run_id("a", early).get_version_num(), 8);
    }
}
