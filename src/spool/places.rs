//! What lies where in the spool's directory, and what is found there.
//!
//! ```text
//!  spool/lock                       held by the daemon that owns the spool
//!        entries/TRACKER/ENTRY      what waits; `.tmp-…` is being written, or was when trackd was killed
//!        plans/SHA256               how to shape entries, shared by those that say so
//!        bad/TRACKER/ENTRY[.reason] what was set aside, and why
//! ```
//!
//! Reads names only. Must not know: what is in the files.

use super::disk::{Disk, ItemKind};
use super::name::{self, Slot};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Begins the name of what is being written.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Ends the name of the file that says why another was set aside.
pub(super) const REASON: &str = ".reason";

/// The directories of one spool.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) root: PathBuf,
}

impl Places {
    pub(super) fn entries(&self) -> PathBuf {
        self.root.join("entries")
    }

    pub(super) fn plans(&self) -> PathBuf {
        self.root.join("plans")
    }

    pub(super) fn bad(&self) -> PathBuf {
        self.root.join("bad")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The directory of a tracker that has one.
    pub(super) fn tracker(&self, tracker: &str) -> PathBuf {
        self.entries().join(name::folder(tracker).unwrap_or_default())
    }

    pub(super) fn entry(&self, tracker: &str, slot: Slot) -> PathBuf {
        self.tracker(tracker).join(slot.to_string())
    }

    /// What the name of a file says that waits for this tracker; `None`: it is not where those are.
    pub(super) fn waiting(&self, tracker: &str, file: &Path) -> Option<Slot> {
        Slot::parse(named(&self.entries(), tracker, file)?)
    }

    /// As `waiting`, of one that was set aside.
    pub(super) fn aside(&self, tracker: &str, file: &Path) -> Option<Slot> {
        slot(named(&self.bad(), tracker, file)?)
    }
}

/// The name of a file that is in the directory of a tracker in `dir`.
fn named<'a>(dir: &Path, tracker: &str, file: &'a Path) -> Option<&'a str> {
    let name = file.file_name()?.to_str()?;
    // To the letter: no other spelling of a path leads elsewhere.
    (file.as_os_str() == dir.join(name::folder(tracker)?).join(name).as_os_str()).then_some(name)
}

/// What is in `entries/`.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of each tracker, in order of instants; none is empty.
    pub(super) trackers: BTreeMap<String, Vec<Slot>>,
    /// Directories of trackers in which nothing waits.
    pub(super) empty: Vec<PathBuf>,
    /// Left by a crash, or just being written.
    pub(super) temporary: Vec<PathBuf>,
    /// What trackd did not write, and why that is known.
    pub(super) foreign: Vec<(PathBuf, String)>,
    /// Directories that cannot be read, and why.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

/// Looks through `entries/`. What vanishes meanwhile is not there.
///
/// # Errors
/// `entries/` itself cannot be read.
pub(super) fn entries(disk: &dyn Disk, places: &Places) -> io::Result<Found> {
    let mut found = Found::default();
    for item in unless_gone(disk.list(&places.entries()))? {
        let path = places.entries().join(&item.name);
        match item.name.to_str().and_then(name::tracker).filter(|_| item.kind == ItemKind::Dir) {
            Some(tracker) => of_tracker(disk, &path, tracker, &mut found),
            None => found.foreign.push((path, "foreign: not the directory of a tracker".into())),
        }
    }
    Ok(found)
}

fn of_tracker(disk: &dyn Disk, dir: &Path, tracker: String, found: &mut Found) {
    let items = match unless_gone(disk.list(dir)) {
        Ok(items) => items,
        Err(error) => return found.unreadable.push((dir.to_owned(), format!("cannot be read: {error}"))),
    };
    let mut slots = Vec::with_capacity(items.len());
    for item in items {
        let name = item.name.to_str().filter(|_| item.kind == ItemKind::File);
        match (name.and_then(Slot::parse), name) {
            (Some(slot), _) => slots.push(slot),
            (None, Some(name)) if name.starts_with(TEMPORARY) => found.temporary.push(dir.join(name)),
            _ => found.foreign.push((dir.join(&item.name), "foreign: not the name of an entry".into())),
        }
    }
    slots.sort_unstable();
    match slots.is_empty() {
        true => found.empty.push(dir.to_owned()),
        false => drop(found.trackers.insert(tracker, slots)),
    }
}

/// A file that was set aside.
#[derive(Debug)]
pub(super) struct BadFile {
    pub(super) path: PathBuf,
    /// Of the directory that it is in.
    pub(super) tracker: Option<String>,
    /// What its name says; its plan is still kept.
    pub(super) slot: Option<Slot>,
}

/// What is in `bad/`, without the reasons, in order of names.
///
/// # Errors
/// A directory of it cannot be read.
pub(super) fn bad(disk: &dyn Disk, places: &Places) -> io::Result<Vec<BadFile>> {
    let mut files = Vec::new();
    let mut dirs = vec![places.bad()];
    while let Some(dir) = dirs.pop() {
        for item in unless_gone(disk.list(&dir))? {
            let (path, name) = (dir.join(&item.name), item.name.to_string_lossy());
            // Below the directory of a tracker nothing is ours: what is there was set aside as a whole.
            if item.kind == ItemKind::Dir && dir == places.bad() {
                dirs.push(path);
            } else if !name.ends_with(REASON) {
                let above = dir.file_name().and_then(OsStr::to_str).filter(|_| dir != places.bad());
                files.push(BadFile { tracker: above.and_then(name::tracker), slot: slot(&name), path });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Of an entry's name, or of one with a number: another of the same name was set aside before it.
fn slot(name: &str) -> Option<Slot> {
    let numbered = || name.rsplit_once('.').filter(|(_, number)| number.parse::<u16>().is_ok_and(|n| n < 1000));
    Slot::parse(name).or_else(|| Slot::parse(numbered()?.0))
}

/// Nothing instead of an error where there is no such file or directory.
pub(super) fn unless_gone<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}
