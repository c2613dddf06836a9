//! This host: room on its disks, and PostgreSQL's programs.
//!
//! Must not know: the server, but for its version.

use super::finding::Finding;
use crate::config::{Config, DatabaseUrl};
use crate::store::embedded::{Binaries, search_path};
use crate::store::tools::Tool;
use rustix::fs::{Access, access, stat, statvfs};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// With less, PostgreSQL cannot be counted on to write its log, nor trackd its state.
const NONE_LEFT: u64 = 100 * MIB;
const LITTLE_LEFT: u64 = 1024 * MIB;

/// The state directory, and the data of a server that is in it.
pub(super) fn disks(config: &Config) -> Vec<Finding> {
    let state = &config.daemon.state_dir;
    let mut findings = vec![writable(state), disk("state disk", state)];
    let data = state.join("postgres/data");
    // A directory of its own may be on a disk of its own.
    if config.database.url == DatabaseUrl::Embedded && data.exists() && device(&data) != device(&existing(state)) {
        findings.push(disk("data disk", &data));
    }
    findings
}

fn device(path: &Path) -> Option<u64> {
    stat(path).ok().map(|stat| stat.st_dev)
}

/// The directory itself, or the nearest above it that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn writable(path: &Path) -> Finding {
    let place = existing(path);
    match access(&place, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if place == path => Finding::ok("state", format!("{}", path.display())),
        Ok(()) => Finding::ok("state", format!("{}, made at the first start", path.display())),
        Err(error) => Finding::fail(
            "state",
            format!("write to {}: {error}", place.display()),
            Some("set daemon.state_dir to a directory trackd may write".into()),
        ),
    }
}

fn disk(check: &'static str, path: &Path) -> Finding {
    let place = existing(path);
    match statvfs(&place) {
        Ok(disk) => space(check, &place, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize),
        Err(error) => {
            Finding::warn(check, format!("ask for the room at {}: {error}", place.display()), "look yourself")
        }
    }
}

fn space(check: &'static str, place: &Path, free: u64, total: u64) -> Finding {
    let show = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string();
    let what = format!("{} free of {} at {}", show(free), show(total), place.display());
    let hint = "free some space, keep less (daemon.keep_runs), or move daemon.state_dir";
    if free < NONE_LEFT {
        Finding::fail(check, what, Some(hint.into()))
    } else if free < LITTLE_LEFT {
        Finding::warn(check, what, hint)
    } else {
        Finding::ok(check, what)
    }
}

/// Whether a server of ours can be made.
pub(super) fn embedded() -> Finding {
    match Binaries::find(&search_path(), None) {
        Ok(found) => {
            Finding::ok("database", format!("embedded, made at the first start by PostgreSQL {}", found.major))
        }
        Err(error) => Finding::fail("database", error.to_string(), error.hint().map(str::to_owned)),
    }
}

/// The programs that `backup`, `restore` and `psql` run.
pub(super) async fn tools(search: &[PathBuf], server: u32) -> Vec<Finding> {
    let mut findings = Vec::with_capacity(3);
    for name in ["pg_dump", "pg_restore", "psql"] {
        findings.push(match Tool::find(name, search, server).await {
            Ok(tool) => Finding::ok(name, format!("version {} at {}", tool.major, tool.path.display())),
            Err(error) => Finding::warn(name, error.to_string(), error.hint().unwrap_or_default()),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Outcome;

    #[test]
    fn a_disk_is_full_before_it_is_full() {
        let outcome = |free| space("state disk", Path::new("/x"), free, 100 << 30).outcome;
        assert_eq!([0, NONE_LEFT - 1, NONE_LEFT].map(outcome), [Outcome::Fail, Outcome::Fail, Outcome::Warn]);
        assert_eq!([LITTLE_LEFT - 1, LITTLE_LEFT].map(outcome), [Outcome::Warn, Outcome::Ok]);
        let what = space("state disk", Path::new("/x"), 3 << 29, 2 << 30).what;
        assert_eq!(what, "1.5 GiB free of 2.0 GiB at /x");
    }
}
