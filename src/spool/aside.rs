//! Setting aside: what is no whole entry goes to `bad/`, with the reason in a file beside it. Nothing is deleted.
//!
//! Must not know: how it was found out.

use super::disk::{Disk, Unsynced};
use super::places::{Places, REASON, unless_gone};
use serde::{Deserialize, Serialize, Serializer};
use std::path::{Path, PathBuf};

/// A file that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Where it is now: in `bad/`, or where it was if it could not be moved.
    #[serde(serialize_with = "shown")]
    pub file: PathBuf,
    /// Why, on one line.
    pub reason: String,
}

/// Of a name that is no text, what can be shown.
fn shown<S: Serializer>(file: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&file.display())
}

/// Moves `path` to `bad/`. Never fails: what cannot be moved stays where it is, and the reason says so.
pub(super) fn set_aside(disk: &dyn Disk, places: &Places, path: &Path, reason: String) -> SetAside {
    let reason = reason.replace(char::is_control, " ");
    match moved(disk, places, path, &reason) {
        Ok(file) => SetAside { file, reason },
        Err(error) => SetAside { file: path.to_owned(), reason: format!("{reason}; it stays there: {error}") },
    }
}

fn moved(disk: &dyn Disk, places: &Places, path: &Path, reason: &str) -> std::io::Result<PathBuf> {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    // `entries/a/x` becomes `bad/a/x`, `entries/x` becomes `bad/x`.
    let dir = places.bad().join(parent.strip_prefix(places.entries()).unwrap_or(Path::new("")));
    if dir != places.bad() {
        disk.make_dir(&dir)?;
        disk.sync_dir(&places.bad())?;
    }
    let free = |path: &PathBuf| disk.size(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let numbered = (1..1000).map(|number| dir.join(format!("{}.{number}", name.to_string_lossy())));
    let target = std::iter::once(dir.join(name)).chain(numbered).find(free);
    let target = target.ok_or_else(|| std::io::Error::other("a thousand of this name are there already"))?;
    disk.rename(path, &target)?;
    // Its new name lasts before its old one is gone for good: what is in it may still be mended by hand.
    disk.sync_dir(&dir)?;
    disk.sync_dir(parent)?;
    // Told in the log as well, and found again by `trackd spool check`.
    let _ = tell_reason(disk, &target, reason);
    Ok(target)
}

/// Where it is written why a file is in `bad/`.
fn beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(REASON);
    beside.into()
}

/// Writes beside a file why it is there; nothing says so yet.
pub(super) fn tell_reason(disk: &dyn Disk, file: &Path, reason: &str) -> std::io::Result<()> {
    let reason = reason.replace(char::is_control, " ");
    disk.write(&beside(file), &[reason.as_bytes(), b"\n"]).and_then(Unsynced::sync)
}

pub(super) fn forget_reason(disk: &dyn Disk, file: &Path) -> std::io::Result<()> {
    unless_gone(disk.remove(&beside(file)))
}

/// Why a file is in `bad/`, as it was written beside it.
pub(super) fn reason(disk: &dyn Disk, file: &Path) -> String {
    match disk.read(&beside(file), 4096) {
        Ok(text) => String::from_utf8_lossy(&text).trim_end().replace(char::is_control, " "),
        Err(_) => "set aside, nothing says why".into(),
    }
}
