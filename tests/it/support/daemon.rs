//! A trackd of its own: the built binary, a configuration in a temporary directory, a database of a test server.

use super::marked::{unmarked, unmarked_below};
use super::postgres::{Database, eventually};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a configuration.
pub struct Home {
    dir: tempfile::TempDir,
    database: String,
    variables: Vec<(&'static str, String)>,
    /// Files of the test's own, which may hold secrets.
    written: Mutex<Vec<PathBuf>>,
}

impl Home {
    /// A configuration of these trackers, on this database, without a status page.
    pub fn new(database: &Database, trackers: &str) -> Home {
        Home::with(&database.url(), trackers)
    }

    pub fn with(database: &str, trackers: &str) -> Home {
        let dir = tempfile::tempdir().unwrap();
        // The account of an embedded server passes through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let home = Home { dir, database: database.to_owned(), variables: Vec::new(), written: Mutex::default() };
        home.configure(trackers);
        home
    }

    /// Sets an environment variable of everything started from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// Writes the configuration anew, whole.
    pub fn configure(&self, trackers: &str) {
        let text = format!(
            "[database]\nurl = \"{}\"\n[daemon]\nlisten = \"\"\nstate_dir = \"state\"\ndrain = \"10s\"\n[log]\nlevel = \"info\"\n\
             [defaults]\nretry = {{ attempts = 1 }}\n{trackers}",
            self.database
        );
        self.put("config.toml", text);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file beside the configuration, whole or not at all.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let fresh = self.path("put.new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.path(name)).unwrap();
        self.written.lock().unwrap().push(self.path(name));
    }

    /// A command that is still to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trackd"));
        command.args(args).current_dir(self.dir.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    /// Runs a command to its end.
    pub fn trackd(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        unmarked(&format!("the output of {args:?}"), &(stdout(&output) + &stderr(&output)));
        output
    }

    /// Starts the daemon.
    pub fn run(&self) -> Daemon {
        let mut child = self.command(&["run"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Daemon { child, log }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        unmarked_below(self.dir.path(), &self.written.lock().unwrap());
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until SIGHUP is caught: before exec and in the loader no program can catch it.
    pub async fn catches_hangups(&self) {
        let path = format!("/proc/{}/status", self.child.id());
        eventually("a handler of SIGHUP", PATIENCE, async || {
            let status = std::fs::read_to_string(&path).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
            u64::from_str_radix(caught, 16).unwrap() & 1 != 0
        })
        .await;
    }

    /// Lines of the log that contain `text`.
    pub fn said(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log has `times` lines with `text`.
    pub async fn says(&mut self, text: &str, times: usize) {
        let log = self.log.clone();
        let count = move || log.lock().unwrap().iter().filter(|line| line.contains(text)).count();
        let child = &mut self.child;
        eventually(&format!("{times} lines with {text:?}"), PATIENCE, async || {
            let ended = child.try_wait().unwrap();
            assert!(count() >= times || ended.is_none(), "trackd ended before it said so: {ended:?}");
            count() >= times
        })
        .await;
    }

    /// Waits for the end. Returns the exit code.
    pub async fn ends(&mut self) -> Option<i32> {
        let mut code = None;
        let child = &mut self.child;
        eventually("the end of trackd", PATIENCE, async || {
            code = child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.and_then(|status| status.code())
    }

    /// kill -9, as by a drop.
    pub fn kill(self) {}
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        unmarked("the log", &self.log());
    }
}

/// The `every` of a tracker whose next instant no test sees.
pub const RARELY: &str = "52w";

/// A tracker that reads a file and keeps a snapshot of `{"rows":[{"k":…,"v":…}]}`.
pub fn file_tracker(name: &str, every: &str) -> String {
    format!(
        "[[tracker]]\nname = \"{name}\"\nevery = \"{every}\"\nfile = {{ path = \"{name}.json\" }}\n[[tracker.table]]\nname = \"{name}\"\n\
         history = \"snapshot\"\nkey = [\"k\"]\nrows = \".rows[]\"\ncolumns = {{ k = \"text\", v = \"integer\" }}\n"
    )
}

/// What stderr of a finished command was.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What stdout of a finished command was.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
