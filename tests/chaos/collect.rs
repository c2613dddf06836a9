//! Reading the end state: SQL → `Found`.
//!
//! Must not know: what should be there.

use super::fleet::{History, Millis, Tracker};
use super::found::{Found, Proof, Run};
use super::model::Kept;
use std::path::Path;
use tokio_postgres::{Client, Error, Row};

/// Milliseconds of a timestamptz.
const MILLIS: &str = "(extract(epoch FROM {}) * 1000)::int8";

fn millis(column: &str) -> String {
    MILLIS.replace("{}", column)
}

/// Everything that the audit looks at.
pub async fn collect(client: &Client, trackers: &[Tracker], states: &[impl AsRef<Path>]) -> Result<Found, Error> {
    let mut found = Found { runs: runs(client).await?, ..Found::default() };
    for tracker in trackers {
        if !exists(client, &tracker.name).await? {
            continue;
        }
        found.proof.insert(tracker.name.clone(), proof(client, &tracker.name).await?);
        if tracker.history != History::Snapshot {
            found.kept.insert(tracker.name.clone(), kept(client, tracker).await?);
        }
    }
    let rejects = client.query("SELECT run_id::text, count(*) FROM trackd.rejects GROUP BY 1", &[]).await?;
    found.rejects = rejects.iter().map(|row| (row.get(0), row.get(1))).collect();
    states.iter().for_each(|state| serials(state.as_ref(), &mut found.spooled));
    Ok(found)
}

async fn exists(client: &Client, table: &str) -> Result<bool, Error> {
    let row = client.query_one("SELECT to_regclass('public.' || quote_ident($1)) IS NOT NULL", &[&table]).await?;
    Ok(row.get(0))
}

async fn runs(client: &Client) -> Result<Vec<Run>, Error> {
    let sql = format!(
        "SELECT run_id::text, tracker, {}, status, coalesce(substring(instance FROM ':([0-9]+)'), '0')::int8, \
         (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::int8, rows_written, rows_rejected, \
         payload_sha256 IS NOT NULL, error_class, error FROM trackd.runs",
        millis("scheduled_at")
    );
    let run = |row: &Row| Run {
        run_id: row.get(0),
        tracker: row.get(1),
        at: row.get(2),
        status: row.get(3),
        pid: row.get::<_, i64>(4) as u32,
        committed: row.get::<_, Option<i64>>(5).unwrap_or(0),
        rows_written: row.get(6),
        rows_rejected: row.get(7),
        fetched: row.get(8),
        class: row.get(9),
        error: row.get(10),
    };
    Ok(client.query(&sql, &[]).await?.iter().map(run).collect())
}

async fn proof(client: &Client, table: &str) -> Result<Vec<Proof>, Error> {
    let sql = format!("SELECT run_id::text, {}, k, serial FROM public.{table}", millis("taken_at"));
    let proof = |row: &Row| Proof {
        run_id: row.get(0),
        at: row.get(1),
        k: row.get(2),
        serial: row.get::<_, Option<i64>>(3).unwrap_or(0) as u64,
    };
    Ok(client.query(&sql, &[]).await?.iter().map(proof).collect())
}

async fn kept(client: &Client, tracker: &Tracker) -> Result<Vec<Kept>, Error> {
    let table = format!("{}_kept", tracker.name);
    if !exists(client, &table).await? {
        return Ok(Vec::new());
    }
    let (v, serial, from, to) = match tracker.history {
        History::Event => ("NULL::int8", "serial", "first_seen_at", "NULL::timestamptz"),
        History::Change => ("v", "NULL::int8", "valid_from", "valid_to"),
        _ => ("v", "serial", "updated_at", "NULL::timestamptz"),
    };
    let sql = format!("SELECT k, {v}, {serial}, {}, {}, run_id::text FROM public.{table}", millis(from), millis(to));
    let kept = |row: &Row| Kept {
        k: row.get(0),
        v: row.get(1),
        serial: row.get::<_, Option<i64>>(2).map(|serial| serial as u64),
        from: row.get::<_, Millis>(3),
        to: row.get(4),
        run_id: row.get(5),
    };
    Ok(client.query(&sql, &[]).await?.iter().map(kept).collect())
}

/// The serial numbers in the files below, those that are being written left out: a payload on disk begins with its own.
pub fn serials(dir: &Path, found: &mut Vec<u64>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            serials(&path, found);
            continue;
        }
        if entry.file_name().as_encoded_bytes().starts_with(b".tmp-") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        const WORD: &[u8] = b"{\"serial\":";
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(WORD)) {
            let digits = bytes[at + WORD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            found.push(digits.fold(0, |number: u64, digit| number.wrapping_mul(10) + u64::from(digit - b'0')));
        }
    }
}
