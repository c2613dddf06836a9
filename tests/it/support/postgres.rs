//! Throw-away PostgreSQL from the installed binaries, on a Unix socket in a temporary directory.
//!
//! A watchdog process owns each server: it reads a pipe that this process holds, and when the pipe closes (drop,
//! exit, panic, kill -9) it stops the server and removes the directory.

use super::marked::{MARK, unmarked_rows};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};
use trackd::store::embedded::{Account, Binaries, search_path};

/// Starts a server, says "up" when it takes connections, restarts it on "start", stops all at the end of its input and
/// lists what files of it hold a test's secret. A server may have died of itself before it is told to.
const WATCHDOG: &str = r#"
bin=$1 dir=$2 port=$3 mark=$4
try() {
    "$bin/postgres" -D "$dir/data" -k "$dir" -p "$port" >>"$dir/log" 2>&1 </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! "$bin/pg_isready" -q -h "$dir" -p "$port" -U postgres; do sleep 0.05; done
    kill -0 $pid 2>/dev/null
}
start() {
    # After a kill the backends of the old server hold its memory for a moment.
    for _ in 1 2 3 4 5 6 7 8 9 10; do try && { echo up; return; }; sleep 0.3; done
    echo down; cat "$dir/log" >&2
}
start
while read -r order; do
    case $order in
        kill) kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; echo down ;;
        stop) kill -INT $pid 2>/dev/null; wait $pid; echo down ;;
        start) start ;;
    esac
done
kill -QUIT $pid 2>/dev/null; wait $pid
grep -rlaF -D skip "$mark" "$dir"
rm -rf "$dir"
"#;

/// A table `t` of numbers, in which the commit of a 1 takes a minute.
pub const SLOW_COMMIT: &str = "CREATE TABLE t (n int8); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                               'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'; \
                               CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
                               FOR EACH ROW WHEN (NEW.n = 1) EXECUTE FUNCTION slow()";

/// One cluster.
pub struct Server {
    dir: PathBuf,
    /// Names the socket; also its TCP port, where it listens on one.
    port: u16,
    watchdog: Mutex<Watchdog>,
}

struct Watchdog {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

/// The cluster of this test process; a static is never dropped, the watchdog sees the pipe close.
static SHARED: LazyLock<Server> = LazyLock::new(Server::own);

impl Server {
    /// The one cluster of this test process, started at first use. Not to be stopped.
    pub fn shared() -> &'static Server {
        &SHARED
    }

    /// A cluster for one test, which may kill and restart it. Gone when dropped.
    pub fn own() -> Server {
        Server::prepared(5432, |_| {})
    }

    /// A cluster of one's own, on a free TCP port if `prepare` says that it listens, whose data directory `prepare`
    /// changes before its first start.
    pub fn prepared(port: u16, prepare: impl FnOnce(&Path)) -> Server {
        Server::made(port, |binaries, account, dir| {
            initdb(binaries, account, dir);
            prepare(&dir.join("data"));
        })
    }

    /// A standby of this cluster, by streaming replication.
    pub fn standby(&self) -> Server {
        Server::made(5432, |binaries, account, dir| {
            let mut command = Command::new(binaries.program("pg_basebackup"));
            command.args(["-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-h"]).arg(&self.dir).arg("-D");
            command.arg(dir.join("data")).current_dir("/").stdin(Stdio::null());
            account.apply(&mut command);
            let output = command.output().expect("run pg_basebackup");
            assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        })
    }

    /// Makes it a standby of another cluster at its next start.
    pub fn demote(&self, primary: &Server) {
        let data = self.dir.join("data");
        put(&data, "standby.signal", "");
        set(&data, &format!("primary_conninfo = 'host={} user=postgres'\n", primary.dir.display()));
    }

    fn made(port: u16, make: impl FnOnce(&Binaries, &Account, &Path)) -> Server {
        let binaries = Binaries::find(&search_path(), None).expect("PostgreSQL is installed");
        let account = Account::for_server().expect("an account for the server");
        let dir = tempfile::Builder::new().prefix("trackd-test-").tempdir().expect("temporary directory").keep();
        std::os::unix::fs::chown(&dir, Some(account.uid), Some(account.gid)).expect("own the directory");
        make(&binaries, &account, &dir);
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(WATCHDOG).arg("watchdog").arg(&binaries.dir).arg(&dir).arg(port.to_string()).arg(MARK);
        command.current_dir("/");
        // Its own group: a Ctrl-C or a runner's timeout must not kill the one that cleans up.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        account.apply(&mut command);
        let mut child = command.spawn().expect("start the watchdog");
        let answers = BufReader::new(child.stdout.take().expect("its output is piped"));
        let server = Server { dir, port, watchdog: Mutex::new(Watchdog { child, answers }) };
        server.watchdog.lock().expect("no panic holds it").expect("up");
        server
    }

    /// The directory of its sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new empty database with a name nobody else has.
    pub async fn database(&self) -> Database {
        let name = format!("t{}", uuid::Uuid::from_bytes(random()).simple());
        let admin = self.connect("postgres").await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("create a database");
        Database { dir: self.dir.clone(), port: self.port, name }
    }

    /// A connection to a database of this cluster, as superuser.
    pub async fn connect(&self, database: &str) -> Client {
        connect(&url(&self.dir, self.port, database)).await
    }

    /// kill -9 of the postmaster.
    pub fn kill(&self) {
        self.order("kill", "down");
    }

    /// An orderly fast shutdown.
    pub fn stop(&self) {
        self.order("stop", "down");
    }

    /// Starts it again; returns when it takes connections.
    pub fn start(&self) {
        self.order("start", "up");
    }

    fn order(&self, order: &str, answer: &str) {
        let mut watchdog = self.watchdog.lock().expect("no panic holds it");
        let stdin = watchdog.child.stdin.as_mut().expect("its input is piped");
        writeln!(stdin, "{order}").expect("the watchdog lives");
        watchdog.expect(answer);
    }
}

impl Watchdog {
    fn expect(&mut self, answer: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the watchdog lives");
        assert_eq!(line.trim(), answer, "the server is not as ordered");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let watchdog = self.watchdog.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(watchdog.child.stdin.take());
        let mut marked = String::new();
        let _ = watchdog.answers.read_to_string(&mut marked);
        let _ = watchdog.child.wait();
        assert!(marked.is_empty() || std::thread::panicking(), "a secret is in files of the server:\n{marked}");
    }
}

/// One database of a test.
pub struct Database {
    dir: PathBuf,
    port: u16,
    pub name: String,
}

impl Database {
    /// `postgres://` form, as in `database.url`.
    pub fn url(&self) -> String {
        url(&self.dir, self.port, &self.name)
    }

    /// The same as another role.
    pub fn url_as(&self, role: &str) -> String {
        self.url().replacen("//postgres:", &format!("//{role}:"), 1)
    }

    /// The same database on a socket in another directory.
    pub fn url_at(&self, dir: &Path) -> String {
        url(dir, 5432, &self.name)
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// A connection as superuser.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        unmarked_rows(&self.url());
    }
}

/// With a password, which the server does not ask for.
fn url(dir: &Path, port: u16, database: &str) -> String {
    let host = dir.to_str().expect("a temporary directory is UTF-8").replace('/', "%2F");
    format!("postgres://postgres:{MARK}-url@{host}:{port}/{database}")
}

/// A connection; its task ends with the client.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect to the test server");
    tokio::spawn(connection);
    client
}

fn initdb(binaries: &Binaries, account: &Account, dir: &Path) {
    let mut command = Command::new(binaries.program("initdb"));
    command.args(["-E", "UTF8", "--locale=C.UTF-8", "-U", "postgres", "-A", "trust", "--no-sync", "-D"]);
    command.arg(dir.join("data")).current_dir("/").stdin(Stdio::null());
    account.apply(&mut command);
    let output = command.output().expect("run initdb");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    let settings = "listen_addresses = ''\nshared_buffers = 32MB\nmax_connections = 200\n";
    let path = dir.join("data/postgresql.auto.conf");
    std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(settings.as_bytes()))
        .expect("write settings");
}

/// A TCP port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port()
}

/// Adds a file to a data directory, readable for the server alone.
pub fn put(data: &Path, name: &str, text: &str) {
    let path = data.join(name);
    std::fs::write(&path, text).expect("write a file of the server");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let owner = std::fs::metadata(data).expect("the data directory");
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its owner");
}

/// Adds lines to the settings of a data directory.
pub fn set(data: &Path, lines: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.auto.conf")).expect("settings");
    file.write_all(lines.as_bytes()).expect("write settings");
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .expect("random bytes");
    bytes
}

/// Asks again and again until `ready` says yes, or panics with `what` after `limit`.
pub async fn eventually(what: &str, limit: Duration, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !ready().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number that a query gives; -1 where its table is not there yet.
pub async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.map_or(-1, |row| row.get(0))
}

/// Waits until a query gives so much.
pub async fn at_least(client: &Client, sql: &str, expected: i64) {
    let patience = Duration::from_secs(30);
    eventually(&format!("{expected} by {sql}"), patience, async || count(client, sql).await >= expected).await;
}
