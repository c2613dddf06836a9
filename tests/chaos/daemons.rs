//! The daemons: real `trackd run` processes on one configuration, each with a state directory and a clock of its own.
//!
//! Their lives are written down. Must not know: what they do.

use super::collect::serials;
use super::power;
use super::source::now;
use super::truth::{End, Life};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian's libfaketime is.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// libfaketime, where it is installed.
pub fn faketime() -> Option<PathBuf> {
    FAKETIME.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Libraries that its processes carry.
#[derive(Debug, Clone)]
pub struct Preloaded {
    /// libfaketime, where its clock is to be stepped.
    pub clock: Option<PathBuf>,
    /// Notes what a loss of power would undo.
    pub power: Option<PathBuf>,
}

/// One daemon, whatever process it is at the moment.
#[derive(Debug)]
pub struct Daemon {
    number: usize,
    program: PathBuf,
    dir: PathBuf,
    /// Of all daemons.
    state: PathBuf,
    preloaded: Preloaded,
    child: Option<Child>,
    pub lives: Vec<Life>,
    pub wanted: bool,
}

impl Daemon {
    /// Not started yet. `dir` holds config.toml, and takes its logs; `state` the state directories.
    pub fn new(
        number: usize,
        program: &Path,
        dir: &Path,
        state: &Path,
        preloaded: Preloaded,
    ) -> std::io::Result<Daemon> {
        let (program, dir, state) = (program.to_owned(), dir.to_owned(), state.to_owned());
        let daemon = Daemon { number, program, dir, state, preloaded, child: None, lives: Vec::new(), wanted: true };
        std::fs::create_dir_all(daemon.state_dir())?;
        daemon.set_clock(0)?;
        Ok(daemon)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state.join(format!("d{}", self.number))
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("d{}.log", self.number))
    }

    /// Any `trackd` command with its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.dir).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("TRACKD_DAEMON__STATE_DIR", self.state_dir()).env("TRACKD_VARS__DAEMON", self.number.to_string());
        let Preloaded { clock, power } = &self.preloaded;
        let libraries: Vec<&str> = clock.iter().chain(power).filter_map(|path| path.to_str()).collect();
        if !libraries.is_empty() {
            command.env("LD_PRELOAD", libraries.join(":"));
        }
        if power.is_some() {
            command.env("POWER_ROOT", self.spool()).env("POWER_LOG", self.unsynced());
        }
        if clock.is_some() {
            command.env("FAKETIME_TIMESTAMP_FILE", self.clock());
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            // A semaphore that a killed process held would stop the next one.
            command.env("FAKETIME_DISABLE_SHM", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn clock(&self) -> PathBuf {
        self.dir.join(format!("clock-d{}", self.number))
    }

    fn spool(&self) -> PathBuf {
        self.state_dir().join("spool")
    }

    /// Notes of what it wrote and did not sync.
    fn unsynced(&self) -> PathBuf {
        self.dir.join(format!("power-d{}", self.number))
    }

    /// Its clock from now on, within a second.
    pub fn set_clock(&self, seconds: i64) -> std::io::Result<()> {
        std::fs::write(self.clock(), format!("{seconds:+}"))
    }

    pub fn start(&mut self) -> std::io::Result<()> {
        self.wanted = true;
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = self.command(&["run"]).stderr(log).spawn()?;
        self.lives.push(Life { daemon: self.number, pid: child.id(), began: now(), ended: None, kept: Vec::new() });
        self.child = Some(child);
        Ok(())
    }

    /// Nothing where it does not run.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // A failure means that it ended by itself, which `keep` finds.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Before exec and in the loader no program can catch SIGHUP; a service's manager waits for READY.
    pub fn catches_hangups(&self) -> bool {
        let status =
            self.child.as_ref().and_then(|child| std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok());
        let caught = status.as_deref().and_then(|status| status.lines().find_map(|line| line.strip_prefix("SigCgt:")));
        caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok()).is_some_and(|caught| caught & 1 != 0)
    }

    pub fn kill(&mut self) {
        self.wanted = false;
        let Some(mut child) = self.child.take() else { return };
        // The kernel keeps what happened first: an end by itself just before is not ours.
        let end = if matches!(child.try_wait(), Ok(Some(_))) { End::Alone } else { End::Killed };
        let _ = child.kill();
        let _ = child.wait();
        self.ended(end);
    }

    /// As `kill`, and what was not synced is gone.
    pub fn lose_power(&mut self) -> std::io::Result<()> {
        self.kill();
        power::lose(&self.unsynced())
    }

    /// Tells it to stop, and waits so long. `None`: it had to be killed.
    pub async fn stop(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        self.wanted = false;
        self.signal(Signal::TERM);
        let deadline = Instant::now() + limit;
        let mut child = self.child.take()?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                self.ended(End::Stopped);
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        self.ended(End::Killed);
        None
    }

    /// Starts it again where it ended without being told, as a service's manager does. Returns its exit status then.
    pub fn keep(&mut self) -> std::io::Result<Option<std::process::ExitStatus>> {
        let Some(child) = self.child.as_mut().filter(|_| self.wanted) else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.ended(End::Alone);
        self.start()?;
        Ok(Some(status))
    }

    fn ended(&mut self, end: End) {
        let (mut kept, ended) = (Vec::new(), now());
        serials(&self.spool().join("entries"), &mut kept);
        if let Some(life) = self.lives.last_mut() {
            (life.ended, life.kept) = (Some((ended, end)), kept);
        }
    }

    /// Open files, and resident KiB.
    pub fn usage(&self) -> Option<Usage> {
        let pid = self.child.as_ref()?.id();
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(Usage { files, kib: rss.trim().trim_end_matches(" kB").trim().parse().ok()? })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub files: usize,
    pub kib: u64,
}
