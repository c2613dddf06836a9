//! The private cluster: made, found, started, watched and stopped, by PostgreSQL's own tools.
//!
//! ```text
//!  open   start.lock { initdb if new; running? adopt : pg_ctl start } and a shared hold on users.lock
//!  watch  server gone? start it again, within a budget
//!  close  start.lock { give the hold back; nobody else holds users.lock? pg_ctl stop }
//! ```
//!
//! `pg_ctl` detaches the server, so that it outlives a trackd that is killed; the next `open` adopts it.

use super::directory::{own, prepare_home, socket_dir};
use super::{Account, Binaries, EmbeddedError, remains, search_path};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, WaitOptions};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls, Socket};

/// Recovery after a crash replays the log first; pg_ctl gives up later than a person would.
const START_SECONDS: u64 = 600;
/// A fast shutdown ends sessions at once and writes a checkpoint.
const STOP_SECONDS: &str = "60";
/// How long the remains of a killed server (its process, its sessions) may take to go.
const REMAINS: Duration = Duration::from_secs(30);
/// Between the end of a server's socket and that of its process.
const GOING: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Between the beginning of a server's process and its socket, at most.
const LISTENS: Duration = Duration::from_secs(5);
/// How long another process may take to start or stop the server.
const LOCK_PATIENCE: Duration = Duration::from_secs(660);
/// How often a server is looked at, and how often in a row it may be started again.
const LOOK: Duration = Duration::from_secs(1);
const RESTARTS: u32 = 10;

/// A running server of the state directory, held by this process until `close`.
#[derive(Debug)]
pub struct Cluster {
    home: PathBuf,
    socket_dir: PathBuf,
    binaries: Binaries,
    account: Account,
    /// The shared hold: as long as anybody has one, nobody stops the server.
    users: File,
}

impl Cluster {
    /// Opens the cluster of `state_dir`: makes it, starts it, or adopts the server that runs already.
    ///
    /// Cancel safety: safe; a server that was started meanwhile is adopted by the next `open`.
    ///
    /// # Errors
    /// Standing with what to install or to change; retry where the system refused.
    pub async fn open(state_dir: &Path) -> Result<Cluster, EmbeddedError> {
        Cluster::open_with(state_dir, search_path()).await
    }

    /// As `open`, with the directories to look for PostgreSQL in.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_with(state_dir: &Path, search: Vec<PathBuf>) -> Result<Cluster, EmbeddedError> {
        let account = Account::for_server()?;
        let home = prepare_home(state_dir, &account)?;
        let binaries = Binaries::find(&search, major_of(&home))?;
        let _starting = lock(&home.join("start.lock"), FlockOperation::NonBlockingLockExclusive).await?;
        let users = lock(&home.join("users.lock"), FlockOperation::NonBlockingLockShared).await?;
        let socket_dir = socket_dir(&home, &account)?;
        let cluster = Cluster { home, socket_dir, binaries, account, users };
        if !cluster.data().join("PG_VERSION").exists() {
            cluster.init().await?;
        }
        match cluster.serve().await {
            // It was on its way down when it was found: a stop that somebody did not wait for.
            Err(_) if cluster.ended().await => cluster.serve().await?,
            served => served?,
        }
        Ok(cluster)
    }

    /// Starts the server if it does not run; makes the database if it is not there.
    async fn serve(&self) -> Result<(), EmbeddedError> {
        if !self.is_running() {
            self.configure()?;
            self.start().await?;
        }
        self.ensure_database().await
    }

    /// Whether the server goes within a moment.
    async fn ended(&self) -> bool {
        let deadline = Instant::now() + GOING;
        while self.is_running() && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        !self.is_running()
    }

    /// How to connect: words for tokio-postgres and psql alike.
    pub fn conninfo(&self) -> String {
        self.conninfo_of("trackd")
    }

    fn conninfo_of(&self, database: &str) -> String {
        conninfo_at(&self.socket_dir, database)
    }

    /// How to connect to the cluster of `state_dir` when it runs; starts nothing.
    ///
    /// # Errors
    /// As `open`.
    pub fn address(state_dir: &Path) -> Result<String, EmbeddedError> {
        let account = Account::for_server()?;
        let home = prepare_home(state_dir, &account)?;
        Ok(conninfo_at(&socket_dir(&home, &account)?, "trackd"))
    }

    /// The directory of the server's own log files.
    pub fn log_dir(&self) -> PathBuf {
        self.data().join("log")
    }

    /// Whether the server's process is there.
    pub fn is_running(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.data().join("postmaster.pid")) else { return false };
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw) else {
            return false;
        };
        // As process 1 of a container trackd inherits the server: dead and not waited for, it would never be gone.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        serves(&command, &self.data())
    }

    /// Starts the server again whenever it ends by itself. Returns when it did so too often in a row.
    ///
    /// Cancel safety: safe.
    pub async fn watch(&self) -> EmbeddedError {
        let mut failures = 0;
        loop {
            tokio::time::sleep(LOOK * (1 << failures.min(5))).await;
            if self.is_running() {
                failures = 0;
                continue;
            }
            tracing::warn!(target: "trackd::store", log = %self.log_dir().display(), "embedded PostgreSQL is gone: starting it again");
            let revived = async {
                let _starting = lock(&self.home.join("start.lock"), FlockOperation::NonBlockingLockExclusive).await?;
                if self.is_running() { Ok(()) } else { self.start().await }
            };
            match revived.await {
                Ok(()) => tracing::info!(target: "trackd::store", "embedded PostgreSQL runs again"),
                Err(error) => {
                    failures += 1;
                    tracing::error!(target: "trackd::store", error = %error, failures, "embedded PostgreSQL does not start");
                    if failures >= RESTARTS {
                        return error;
                    }
                }
            }
        }
    }

    /// Gives the cluster back, and stops the server if nobody else uses it. Returns whether it was stopped.
    pub async fn close(&self) -> bool {
        let Ok(_starting) = lock(&self.home.join("start.lock"), FlockOperation::NonBlockingLockExclusive).await else {
            return false;
        };
        // Our shared hold becomes an exclusive one only if nobody else has a hold.
        if rustix::fs::flock(&self.users, FlockOperation::NonBlockingLockExclusive).is_err() {
            let _ = rustix::fs::flock(&self.users, FlockOperation::Unlock);
            return false;
        }
        let mut command = Command::new(self.binaries.program("pg_ctl"));
        command.arg("-D").arg(self.data()).args(["-m", "fast", "-w", "-t", STOP_SECONDS, "stop"]);
        let stopped = run("stop embedded PostgreSQL", command, &self.account).await;
        let _ = rustix::fs::flock(&self.users, FlockOperation::Unlock);
        match stopped {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(target: "trackd::store", error = %error, "embedded PostgreSQL was not stopped");
                false
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// `initdb` beside the final name, then a rename: killed in the middle, nothing half stays.
    async fn init(&self) -> Result<(), EmbeddedError> {
        let fresh = self.home.join("data.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(|error| EmbeddedError::io("remove", &fresh, error))?;
        }
        let mut command = Command::new(self.binaries.program("initdb"));
        command
            .args(["-E", "UTF8", "--locale=C.UTF-8", "-U", "trackd", "-A", "peer", "--data-checksums", "-D"])
            .arg(&fresh);
        run("make the embedded database", command, &self.account).await?;
        let write = |name: &str, text: String| -> Result<(), EmbeddedError> {
            let path = fresh.join(name);
            std::fs::write(&path, text).map_err(|error| EmbeddedError::io("write", &path, error))
        };
        write(
            "pg_hba.conf",
            "# Made by trackd: the accounts of pg_ident.conf, on the socket only.\nlocal all all peer map=trackd\n"
                .into(),
        )?;
        write("pg_ident.conf", self.ident()?)?;
        let conf = fresh.join("postgresql.conf");
        let text = std::fs::read_to_string(&conf).map_err(|error| EmbeddedError::io("read", &conf, error))?;
        write("postgresql.conf", format!("{text}\ninclude = 'trackd.conf'  # written by trackd at each start\n"))?;
        std::fs::rename(&fresh, self.data()).map_err(|error| EmbeddedError::io("rename", &fresh, error))
    }

    /// Who may connect as `trackd`: who runs the server, who made it, and root.
    fn ident(&self) -> Result<String, EmbeddedError> {
        let mut names = vec![self.account.name.clone(), Account::current()?.name, "root".to_owned()];
        names.sort();
        names.dedup();
        let line = |name: &String| format!("trackd \"{}\" trackd\n", name.replace('"', "\"\""));
        Ok(names.iter().map(line).collect())
    }

    fn configure(&self) -> Result<(), EmbeddedError> {
        let socket = self.socket_dir.display().to_string().replace('\'', "''");
        let text = format!(
            "# Written by trackd at each start; own settings belong in postgresql.auto.conf (ALTER SYSTEM).\n\
             listen_addresses = ''\nunix_socket_directories = '{socket}'\nunix_socket_permissions = 0700\nport = 5432\n\
             max_connections = 200\n\
             # Compiled statements need memory that is written and then run, which the unit does not allow.\n\
             jit = off\nlogging_collector = on\nlog_directory = 'log'\n\
             # Seven files, one a weekday, written over after a week.\n\
             log_filename = 'postgresql-%a.log'\nlog_truncate_on_rotation = on\nlog_rotation_age = 1d\nlog_rotation_size = 0\n"
        );
        let path = self.data().join("trackd.conf");
        std::fs::write(&path, text).map_err(|error| EmbeddedError::io("write", &path, error))?;
        own(&path, &self.account)
    }

    /// Starts the server; sessions of a killed one may hold its memory for a while, and are waited for.
    async fn start(&self) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + REMAINS;
        loop {
            let result = self.start_once().await;
            let remains = |error: &EmbeddedError| {
                let text = error.to_string();
                text.contains("already exists") || text.contains("still in use")
            };
            if !result.as_ref().is_err_and(remains) || Instant::now() > deadline {
                return result;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn start_once(&self) -> Result<(), EmbeddedError> {
        remains::clear(&self.data(), &self.socket_dir);
        let log = self.home.join("start.log");
        // What an earlier start said would be taken for the reason of this one.
        let _ = std::fs::remove_file(&log);
        let mut command = Command::new(self.binaries.program("pg_ctl"));
        command.arg("-D").arg(self.data()).arg("-l").arg(&log).args(["-w", "-t", &START_SECONDS.to_string(), "start"]);
        run("start embedded PostgreSQL", command, &self.account).await.map_err(|error| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let last = text.lines().rev().find(|line| line.contains("FATAL")).unwrap_or_default().to_owned();
            let error = if last.is_empty() { error } else { EmbeddedError::retry(format!("{error}: {last}")) };
            error.with_hint(format!("see {} and {}", log.display(), self.log_dir().display()))
        })
    }

    async fn connect(
        &self,
        database: &str,
    ) -> Result<(Client, Connection<Socket, NoTlsStream>), tokio_postgres::Error> {
        tokio_postgres::connect(&self.conninfo_of(database), NoTls).await
    }

    /// Waits until the server takes connections (one that was adopted may be replaying its log), and makes
    /// the database if it is missing.
    async fn ensure_database(&self) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        let listens_by = Instant::now() + LISTENS;
        let comes = |error: &tokio_postgres::Error| match error.code() {
            Some(code) => *code == SqlState::CANNOT_CONNECT_NOW && Instant::now() < deadline,
            // A server has its process a moment before its socket.
            None => Instant::now() < listens_by && self.is_running(),
        };
        while self.connect("trackd").await.is_err_and(|error| comes(&error)) {
            tokio::time::sleep(PAUSE).await;
        }
        let connect = |database| self.connect(database);
        let failed = |error: tokio_postgres::Error| {
            EmbeddedError::retry(format!(
                "connect to embedded PostgreSQL: {}",
                crate::store::Error::driver("connect", error)
            ))
        };
        match connect("trackd").await {
            // The connection ends with its client, at once.
            Ok((_client, _connection)) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
                let (client, connection) = connect("postgres").await.map_err(failed)?;
                let create = async move { client.batch_execute("CREATE DATABASE trackd").await };
                // Both on this task: nothing is spawned that could outlive this call.
                let (created, _) = tokio::join!(create, connection);
                created.map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Whether this command line (arguments end in NUL) is that of the server of `data`: after a reboot the pid in its
/// file may be that of anybody, another PostgreSQL not excluded.
fn serves(command: &[u8], data: &Path) -> bool {
    let mut arguments = command.split(|&byte| byte == 0);
    let program = arguments.next().unwrap_or_default();
    program.ends_with(b"/postgres") && arguments.any(|argument| argument == data.as_os_str().as_bytes())
}

fn conninfo_at(socket_dir: &Path, database: &str) -> String {
    let host = socket_dir.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    format!("host='{host}' user=trackd dbname={database}")
}

/// The major version of the data that is there already.
fn major_of(home: &Path) -> Option<u32> {
    std::fs::read_to_string(home.join("data/PG_VERSION")).ok()?.trim().parse().ok()
}

/// Takes a lock on a file, which is released when the file is dropped.
async fn lock(path: &Path, operation: FlockOperation) -> Result<File, EmbeddedError> {
    let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file = open.map_err(|error| EmbeddedError::io("open", path, error))?;
    let taken = async {
        while rustix::fs::flock(&file, operation).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(LOCK_PATIENCE, taken).await {
        Ok(()) => Ok(file),
        Err(_) => {
            Err(EmbeddedError::retry(format!("lock {}: another trackd holds it for {LOCK_PATIENCE:?}", path.display())))
        }
    }
}

/// Runs one of PostgreSQL's programs as the server's account, off the runtime's threads.
async fn run(operation: &'static str, mut command: Command, account: &Account) -> Result<(), EmbeddedError> {
    // A group of its own: Ctrl-C on a terminal must not reach the server before trackd is done with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.current_dir("/").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    // The server would tell systemd that the service is ready, and that it stops: that is trackd's to say.
    command.env_remove("NOTIFY_SOCKET");
    account.apply(&mut command);
    // A file, not a pipe: the server inherits it and lives on.
    let said = tempfile_for_output(operation)?;
    let (out, err) = (said.try_clone(), said.try_clone());
    let (Ok(out), Ok(err)) = (out, err) else {
        return Err(EmbeddedError::retry(format!("{operation}: no file handle")));
    };
    command.stdout(out).stderr(err);
    let status = tokio::task::spawn_blocking(move || command.status()).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(EmbeddedError::retry(format!("{operation}: {status}: {}", last_line(said)))),
        Ok(Err(error)) => Err(EmbeddedError::retry(format!("{operation}: {error}"))),
        Err(error) => Err(EmbeddedError::retry(format!("{operation}: {error}"))),
    }
}

/// An unnamed file in memory for what a program says.
fn tempfile_for_output(operation: &str) -> Result<File, EmbeddedError> {
    rustix::fs::memfd_create("trackd-output", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| EmbeddedError::retry(format!("{operation}: {error}")))
}

fn last_line(mut file: File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_of_this_directory_is_ours() {
        let data = Path::new("/state/postgres/data");
        assert!(serves(b"/usr/lib/postgresql/15/bin/postgres\0-D\0/state/postgres/data\0", data));
        assert!(!serves(b"/usr/lib/postgresql/15/bin/postgres\0-D\0/var/lib/postgresql/15/main\0", data));
        assert!(!serves(b"postgres: checkpointer \0", data));
        assert!(!serves(b"/usr/bin/tail\0/state/postgres/data\0", data));
        assert!(!serves(b"", data));
    }
}
