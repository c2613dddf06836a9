//! A proxy between trackd and PostgreSQL that loses the server's answers on command.

use super::postgres::Database;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A Unix socket in a directory of its own that forwards to the server's.
pub struct Proxy {
    dir: tempfile::TempDir,
    lose: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn start(server: PathBuf) -> Proxy {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let lose = Arc::new(AtomicBool::new(false));
        let flag = lose.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server.clone(), flag.clone()));
            }
        });
        Proxy { dir, lose }
    }

    /// The database, through the proxy.
    pub fn url(&self, database: &Database) -> String {
        database.url_at(self.dir.path())
    }

    /// Requests still reach the server; its answers do not arrive, and the connection ends when it has committed.
    pub fn lose_answers_from_now(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }
}

async fn forward(client: UnixStream, server: PathBuf, lose: Arc<AtomicBool>) {
    let Ok(server) = UnixStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if lose.load(Ordering::SeqCst) {
                // Closed only when the server has said that it committed.
                match buffer[..read].windows(7).any(|bytes| bytes == b"COMMIT\0") {
                    true => return Ok(()),
                    false => continue,
                }
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    let _ended: Result<(), std::io::Error> = tokio::select! { end = up => end, end = down => end };
}
