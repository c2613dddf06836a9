//! Looking for what was left over: files and memory of the daemons, sessions and transactions of the server, files in
//! the state directories, secrets wherever they were told.
//!
//! Must not know: the data.

use super::daemons::{Daemon, Usage};
use super::stage::Stage;
use super::support::marked::marked_below;
use super::support::postgres::Server;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Open files more than after the warm-up: a full pool and a connection for each worker, twice.
const MORE_FILES: usize = 48;
/// Memory more than after the warm-up: half as much, and what queues and the allocator may keep.
const MORE_KIB: u64 = 64 * 1024;
/// Transactions last as long as their statements may, and the server ends what is idle in one.
const OLDEST_TRANSACTION: &str = "15 s";
/// What a stopped daemon may leave.
const STATE: [&str; 4] = ["lock", "trackd.lock", "trackd.sock.lock", "instance"];

/// The most of a few looks.
pub async fn usage(daemon: &Daemon) -> Option<Usage> {
    let mut most: Option<Usage> = None;
    for _ in 0..8 {
        let now = daemon.usage()?;
        most = Some(most.map_or(now, |most| Usage { files: most.files.max(now.files), kib: most.kib.max(now.kib) }));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    most
}

/// Compares with the usage after the warm-up.
pub fn grown(daemon: usize, warm: Usage, end: Usage) -> Vec<String> {
    let mut leaks = Vec::new();
    if end.files > warm.files + MORE_FILES {
        leaks.push(format!("daemon {daemon}: {} open files, {} after the warm-up", end.files, warm.files));
    }
    if end.kib > warm.kib * 3 / 2 + MORE_KIB {
        leaks.push(format!("daemon {daemon}: {} KiB resident, {} after the warm-up", end.kib, warm.kib));
    }
    leaks
}

/// Transactions that nobody ends, while the daemons run.
pub async fn transactions(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT state || ' since ' || xact_start || ': ' || left(query, 80) FROM pg_stat_activity WHERE \
         backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start < now() - interval '{OLDEST_TRANSACTION}'"
    );
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| format!("open transaction: {}", row.get::<_, String>(0))).collect())
}

/// Sessions that outlive their daemon.
pub async fn sessions(server: &Server, database: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    const GONE_WITHIN: Duration = Duration::from_secs(10);
    let client = server.connect(database).await;
    let sql = "SELECT coalesce(application_name, '') || ' ' || coalesce(state, '') FROM pg_stat_activity WHERE \
               backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let rows = client.query(sql, &[]).await?;
        if rows.is_empty() || Instant::now() > deadline {
            return Ok(rows.iter().map(|row| format!("stray session: {}", row.get::<_, String>(0))).collect());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Files of stopped daemons that do not belong there.
pub async fn files(stage: &Stage) -> Vec<String> {
    let mut left = Vec::new();
    for daemon in &stage.daemons {
        let state = daemon.lock().await.state_dir();
        walk(&state, &mut left);
    }
    left.retain(|path| !STATE.iter().any(|name| path.file_name().is_some_and(|file| file == *name)));
    // What is no answer at all, and was kept while the database was away, is on record as failed and waits for a person.
    let failed = |path: &Path| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".reason");
        let reason = std::fs::read_to_string(beside).or_else(|_| std::fs::read_to_string(path)).unwrap_or_default();
        // Where the disk was full, nothing beside it says so.
        is_in(path, "bad") && (reason.is_empty() || reason.starts_with("its run failed: shape: "))
    };
    let waits = left.iter().any(|path| failed(path));
    left.retain(|path| !(failed(path) || waits && is_in(path, "plans")));
    left.iter().map(|path| format!("left over: {}", path.display())).collect()
}

/// What the daemons logged, kept and recorded that holds a secret of the configuration.
pub fn secrets(stage: &Stage) -> Vec<String> {
    let told = marked_below(&stage.dir, &["config.toml", "config.new"].map(|name| stage.dir.join(name)));
    told.iter().map(|path| format!("a secret is in {}", path.display())).collect()
}

fn is_in(path: &Path, dir: &str) -> bool {
    path.components().any(|component| component.as_os_str() == dir)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
