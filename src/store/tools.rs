//! PostgreSQL's client programs: which of those installed fits a server.
//!
//! In: a name, directories, the server's major version. Out: a program, or what to install.
//! Must not know: what it is run for.

use super::Error;
use super::embedded::parse_major;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// A program that says its version no sooner is none.
const VERSION: Duration = Duration::from_secs(10);
/// Debian's stand-in for all client programs: it chooses a version by rules of its own.
const WRAPPER: &str = "pg_wrapper";

/// An installed program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// Its major version.
    pub major: u32,
}

impl Tool {
    /// `name` in `search`, for a server of this major version: of the same version, else of the next newer one.
    ///
    /// An older one refuses a newer server (pg_dump), or does not know what it offers.
    ///
    /// Cancel safety: safe; the program that was asked for its version is killed.
    ///
    /// # Errors
    /// Class standing: none is installed, or only older ones; the hint says what to install.
    pub async fn find(name: &str, search: &[PathBuf], server: u32) -> Result<Tool, Error> {
        let mut installed: Vec<Tool> = Vec::new();
        for dir in search {
            let Ok(path) = dir.join(name).canonicalize() else { continue };
            if path.ends_with(WRAPPER) || installed.iter().any(|tool| tool.path == path) {
                continue;
            }
            if let Some(major) = major(&path).await {
                installed.push(Tool { path, major });
            }
        }
        choose(name, installed, server)
    }
}

/// What it says of itself; `None` where it says nothing.
async fn major(path: &Path) -> Option<u32> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION, command.output()).await.ok()?.ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn choose(name: &str, installed: Vec<Tool>, server: u32) -> Result<Tool, Error> {
    let mut majors: Vec<u32> = installed.iter().map(|tool| tool.major).collect();
    // The first of equals is the one that PATH names first.
    let fitting = installed.into_iter().filter(|tool| tool.major >= server).min_by_key(|tool| tool.major);
    fitting.ok_or_else(|| {
        majors.sort_unstable();
        majors.dedup();
        let have: Vec<String> = majors.iter().map(u32::to_string).collect();
        let got = if have.is_empty() { "none is installed".into() } else { format!("installed: {}", have.join(", ")) };
        Error::refused(
            format!("find {name}"),
            format!("expected version {server} or newer, {got}"),
            Some(format!("apt-get install postgresql-client-{server}, or put a newer {name} on PATH")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(majors: &[u32]) -> Vec<Tool> {
        majors.iter().map(|&major| Tool { path: format!("/pg/{major}").into(), major }).collect()
    }

    #[test]
    fn the_servers_own_version_is_taken_else_the_next_newer_one() {
        let major =
            |installed: &[u32], server| super::choose("psql", self::installed(installed), server).map(|t| t.major);
        assert_eq!(major(&[18, 15, 16], 15).ok(), Some(15));
        assert_eq!(major(&[18, 14, 16], 15).ok(), Some(16));
        assert_eq!(
            major(&[14, 13, 14], 15).map_err(|error| (error.to_string(), error.hint())),
            Err((
                "find psql: expected version 15 or newer, installed: 13, 14".into(),
                Some("apt-get install postgresql-client-15, or put a newer psql on PATH".into())
            ))
        );
        let none = major(&[], 15).map_err(|error| error.to_string());
        assert_eq!(none, Err("find psql: expected version 15 or newer, none is installed".into()));
    }

    #[tokio::test]
    async fn debians_wrapper_and_programs_that_say_nothing_are_passed_over() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        };
        put("share/pg_wrapper", "echo 'pg_dump (PostgreSQL) 18.1'");
        put("silent/pg_dump", "exit 1");
        put("own/pg_dump", "echo 'pg_dump (PostgreSQL) 17.2 (Debian 17.2-1)'");
        std::fs::create_dir(dir.path().join("bin")).expect("made");
        symlink("../share/pg_wrapper", dir.path().join("bin/pg_dump")).expect("linked");
        let search = ["bin", "silent", "own", "gone"].map(|name| dir.path().join(name));
        let found = Tool::find("pg_dump", &search, 15).await.expect("one fits");
        assert_eq!((found.major, found.path.ends_with("own/pg_dump")), (17, true));
    }
}
