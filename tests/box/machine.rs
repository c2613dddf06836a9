//! One box: a container with a real systemd, made by the script `systemd-box`.
//!
//! In: shell commands for root inside. Out: what they said and their exit status. Must not know: trackd.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long one call of the script may take: the first makes a root. What is stuck then is ended.
const LONGEST: &str = "1200";
/// PostgreSQL for all databases, ca-certificates for the test of https; openssl and perl come with them.
const PACKAGES: &str = "postgresql,ca-certificates";

/// What a case says that failed.
pub type Outcome<T> = Result<T, String>;

/// A box that is up; halted when dropped.
pub struct Machine {
    script: PathBuf,
    dir: PathBuf,
    left: std::cell::Cell<bool>,
}

/// What a command said.
pub struct Said {
    pub code: Option<i32>,
    /// Both streams.
    pub text: String,
}

/// Whether a box can be had here.
pub fn available() -> Result<(), String> {
    let script = script();
    if !script.is_file() {
        return Err(format!("{} is not there (or $SYSTEMD_BOX)", script.display()));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
        return Err("they need root".into());
    }
    for program in ["systemd-nspawn", "mmdebstrap", "nsenter", "unshare"] {
        let found =
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file());
        if !found {
            return Err(format!("{program} is not installed"));
        }
    }
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mounts = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    match kernel.contains("cgroup2") && mounts.is_ok_and(|status| status.success()) {
        true => Ok(()),
        false => Err("this root may not mount, or the kernel has no cgroup2".into()),
    }
}

fn script() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/systemd-box");
    std::env::var_os("SYSTEMD_BOX").map_or_else(beside, PathBuf::from)
}

/// Where pristine roots are kept from one time to the next.
fn cache() -> Outcome<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).ok_or("no $HOME")?;
    Ok(cache.join("trackd-box"))
}

impl Machine {
    /// Boots a box of this suite of Debian; the first time its root is made, which takes minutes.
    pub fn up(suite: &str) -> Outcome<Machine> {
        let cache = cache()?;
        // A directory of its own: another run may have a box up at the same time.
        let dir = cache.join(format!("{suite}.{}", std::process::id()));
        let failed = |error: std::io::Error| format!("make {}: {error}", dir.display());
        std::fs::create_dir_all(&dir).map_err(failed)?;
        for root in roots(&cache, suite) {
            let link = dir.join(root.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&root, link).map_err(failed)?;
        }
        let machine = Machine { script: script(), dir: dir.clone(), left: false.into() };
        let said = machine.call("up", &["--suite", suite, "--include", PACKAGES], None)?;
        for root in roots(&dir, suite).into_iter().filter(|root| !root.is_symlink()) {
            let kept = cache.join(root.file_name().unwrap_or_default());
            std::fs::rename(&root, kept).map_err(failed)?;
        }
        expect(said.code == Some(0), || format!("no box: {}", said.text))?;
        Ok(machine)
    }

    /// Runs a shell command as root, whatever becomes of it.
    pub fn say(&self, shell: &str) -> Outcome<Said> {
        self.call("run", &["bash", "-c", shell], None)
    }

    /// Runs a shell command that must succeed. Returns what it said.
    pub fn run(&self, shell: &str) -> Outcome<String> {
        let said = self.say(shell)?;
        expect(said.code == Some(0), || format!("`{shell}`: status {:?}, expected 0\n{}", said.code, said.text))?;
        Ok(said.text.trim_end().to_owned())
    }

    /// Waits until a shell command succeeds. Returns what it said.
    pub fn eventually(&self, what: &str, shell: &str) -> Outcome<String> {
        let begun = Instant::now();
        loop {
            let said = self.say(shell)?;
            if said.code == Some(0) {
                return Ok(said.text.trim_end().to_owned());
            }
            let waited = begun.elapsed();
            expect(waited < PATIENCE, || format!("{what}: not within {PATIENCE:?}: `{shell}`\n{}", said.text))?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether there is such a file; nobody goes in to look.
    pub fn has(&self, path: &str) -> Outcome<bool> {
        let copy = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
        Ok(self.call("get", &[path, &copy.path().display().to_string()], None)?.code == Some(0))
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, path: &str, text: &str) -> Outcome<()> {
        let shell = format!("mkdir -p \"$(dirname {path})\" && cat >{path}");
        let said = self.call("run", &["bash", "-c", &shell], Some(text))?;
        expect(said.code == Some(0), || format!("write {path}: {}", said.text))
    }

    /// Copies a file of this machine into it.
    pub fn put(&self, file: &Path, to: &str) -> Outcome<()> {
        let said = self.call("put", &[&file.display().to_string(), to], None)?;
        expect(said.code == Some(0), || format!("put {}: {}", file.display(), said.text))
    }

    /// It stays up. Returns its directory.
    pub fn leave(&self) -> &Path {
        self.left.set(true);
        &self.dir
    }

    fn call(&self, what: &str, words: &[&str], input: Option<&str>) -> Outcome<Said> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", LONGEST]).arg(&self.script);
        // From a file, not a pipe: what is started inside and goes on would hold a pipe open.
        let out = tempfile::tempfile().map_err(|error| format!("a temporary file: {error}"))?;
        let copy = |file: &std::fs::File| file.try_clone().map_err(|error| error.to_string());
        command.arg(what).arg(&self.dir).args(words).stdout(copy(&out)?).stderr(copy(&out)?);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|error| format!("run {}: {error}", self.script.display()))?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
            stdin.write_all(text.as_bytes()).map_err(|error| format!("tell the box: {error}"))?;
        }
        let status = child.wait().map_err(|error| format!("wait for the box: {error}"))?;
        let text = read_whole(out).map_err(|error| format!("hear the box: {error}"))?;
        Ok(Said { code: status.code(), text })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.left.get() {
            return;
        }
        let _ = self.call("down", &[], None);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Pristine roots of a suite.
fn roots(dir: &Path, suite: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = |name: &str| name.starts_with(&format!("root-{suite}-")) && name.ends_with(".tar");
    entries.filter(|entry| ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn read_whole(mut file: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What must hold.
pub fn expect(holds: bool, why: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(why()) }
}
