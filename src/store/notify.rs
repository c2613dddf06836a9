//! `NOTIFY trackd` after commits, many runs in one message round.
//!
//! A NOTIFY inside a run's own transaction takes a lock that makes all commits of the server wait for each other:
//! measured, it halves the runs a second. So runs that landed are told after their commit, by one task, in batches.
//! A notice is a hint: who listens still reads `trackd.runs`, as after any lost connection.
//! Must not know: what listeners do.

use super::{Error, Pool, Statement};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::types::Type;
use uuid::Uuid;

/// Notices that wait; more are dropped, which a listener cannot tell from a lost connection.
const WAITING: usize = 10_000;
/// Notices of one statement: PostgreSQL keeps them in memory until its commit.
const BATCH: usize = 1_000;
/// The least time between two batches.
const PAUSE: Duration = Duration::from_millis(20);

/// Where landed runs are announced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier(mpsc::Sender<String>);

/// What was announced and not yet told.
#[derive(Debug)]
pub struct Inbox(Mutex<mpsc::Receiver<String>>);

/// A notifier and its inbox.
pub fn channel() -> (Notifier, Arc<Inbox>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Notifier(sender), Arc::new(Inbox(Mutex::new(receiver))))
}

impl Notifier {
    /// Announces a run that landed. Never waits.
    pub fn landed(&self, tracker: &str, run_id: Uuid) {
        let notice = serde_json::json!({ "tracker": tracker, "run_id": run_id }).to_string();
        // Full, or nobody tells any more: the run is in the ledger all the same.
        let _ = self.0.try_send(notice);
    }
}

impl Inbox {
    /// Tells what is announced until the last notifier is gone.
    ///
    /// Cancel safety: what was taken and not told is lost, which a listener must stand anyway.
    pub async fn tell(&self, pool: &Pool) {
        let mut receiver = self.0.lock().await;
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(error) = notify(pool, std::mem::take(&mut batch)).await {
                tracing::debug!(target: "trackd::store", error = %error, "listeners were not told");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells what is announced by now.
    ///
    /// Cancel safety: notices on their way may be lost; they are hints.
    ///
    /// # Errors
    /// As the guard's.
    pub async fn flush(&self, pool: &Pool) -> Result<(), Error> {
        let mut receiver = self.0.lock().await;
        let mut batch = Vec::new();
        while let Ok(notice) = receiver.try_recv() {
            batch.push(notice);
        }
        if batch.is_empty() { Ok(()) } else { notify(pool, batch).await }
    }
}

async fn notify(pool: &Pool, notices: Vec<String>) -> Result<(), Error> {
    let mut guard = pool.begin().await?;
    let sql = "SELECT pg_notify('trackd', notice) FROM unnest($1::text[]) AS t(notice)";
    guard.defer(Statement::new(sql).bind(notices, Type::TEXT_ARRAY));
    let _receipt = guard.commit().await?;
    Ok(())
}
