//! Watching the server while faults go on: every session whose transaction is older than a second, a line each.
//!
//! Must not know: who they are, what is wrong.

use super::source::now;
use super::support::postgres::Database;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls};

const OFTEN: Duration = Duration::from_millis(500);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Writes to `file`; the server may be away, and come back.
    pub fn start(database: &Database, file: &Path) -> std::io::Result<Watch> {
        let (url, mut file) = (database.url(), File::create(file)?);
        Ok(Watch(tokio::spawn(async move {
            loop {
                if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                    let connection = tokio::spawn(connection);
                    while look(&client, &mut file).await.is_ok() {
                        tokio::time::sleep(OFTEN).await;
                    }
                    connection.abort();
                }
                tokio::time::sleep(OFTEN).await;
            }
        })))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(client: &Client, file: &mut File) -> Result<(), Error> {
    let sql = "SELECT pid || ' ' || (extract(epoch FROM now() - xact_start) * 1000)::int8 || ' ms ' || state || ' waits ' || \
               coalesce(wait_event_type || '/' || wait_event, 'not') || ' behind ' || pg_blocking_pids(pid)::text || ': ' || \
               left(query, 120) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
               AND xact_start < now() - interval '1 s'";
    for row in client.query(sql, &[]).await? {
        // A full disk costs this line, nothing else.
        let _ = writeln!(file, "{} {}", now(), row.get::<_, String>(0));
    }
    Ok(())
}
