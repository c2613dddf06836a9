//! Debian's PgBouncer in transaction mode, in front of a test server, on a Unix socket of its own.

use super::postgres::{Database, eventually};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use trackd::store::embedded::Account;

/// A running PgBouncer; gone when dropped.
pub struct Bouncer {
    dir: tempfile::TempDir,
    child: Child,
}

impl Bouncer {
    /// In front of the server of `database`, with so many connections to it.
    pub async fn start(database: &Database, connections: u32) -> Bouncer {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::for_server().unwrap();
        let socket = database.socket();
        let server = socket.parent().unwrap().display();
        let settings = format!(
            "[databases]\n* = host={server} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 5432\n\
             unix_socket_dir = {}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             max_client_conn = 200\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("pgbouncer.ini"), settings).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(account.uid), Some(account.gid)).unwrap();
        std::os::unix::fs::chown(dir.path().join("pgbouncer.ini"), Some(account.uid), Some(account.gid)).unwrap();
        let child = run(dir.path(), &account).await;
        Bouncer { dir, child }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again; returns when it takes connections.
    pub async fn again(&mut self) {
        self.child = run(self.dir.path(), &Account::for_server().unwrap()).await;
    }

    pub fn url(&self, database: &Database) -> String {
        database.url_at(self.dir.path())
    }
}

async fn run(dir: &Path, account: &Account) -> Child {
    let mut command = Command::new(program());
    command.arg("-q").arg(dir.join("pgbouncer.ini")).current_dir("/");
    account.apply(&mut command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let socket = dir.join(".s.PGSQL.5432");
    eventually("PgBouncer", Duration::from_secs(30), async || UnixStream::connect(&socket).is_ok()).await;
    child
}

fn program() -> PathBuf {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists()).expect("PgBouncer is installed")
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.kill();
    }
}
