//! A loss of power: kill -9, and what was not synced is gone, as on a machine.
//!
//! Daemons carry power.c, which notes what they write, sync and rename; this undoes what would not have lasted: a file
//! whose contents were not synced is empty, a name whose directory was not synced is not there. What was removed stays so.
//! Must not know: what the files are.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes the library that is preloaded; `None` without a C compiler.
pub fn library(dir: &Path) -> std::io::Result<Option<PathBuf>> {
    let (source, library) = (dir.join("power.c"), dir.join("power.so"));
    std::fs::write(&source, include_str!("power.c"))?;
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).output();
    match made {
        Ok(made) if made.status.success() => Ok(Some(library)),
        Ok(made) => Err(std::io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned())),
        Err(_) => Ok(None),
    }
}

/// What would be undone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Their contents are gone.
    pub empty: Vec<PathBuf>,
    /// They are not there.
    pub nameless: Vec<PathBuf>,
}

/// Undoes what the notes in `log` say does not last, and begins them anew.
pub fn lose(log: &Path) -> std::io::Result<()> {
    let notes = std::fs::read_to_string(log).unwrap_or_default();
    let Undone { empty, nameless } = undone(&notes);
    // Some have been removed since.
    for file in nameless.iter().filter(|file| file.exists()) {
        std::fs::remove_file(file)?;
    }
    for file in empty.iter().filter(|file| file.exists()) {
        File::create(file)?;
    }
    std::fs::write(log, "")
}

/// What these notes say does not last.
pub fn undone(notes: &str) -> Undone {
    // Files by their newest name.
    let (mut unsynced, mut unsure) = (BTreeSet::new(), BTreeSet::new());
    for (what, rest) in notes.lines().filter_map(|line| line.split_once(' ')) {
        match what {
            "w" => drop(unsynced.insert(rest)),
            "s" => drop(unsynced.remove(rest)),
            "d" => unsure.retain(|name: &&str| Path::new(name).parent() != Some(Path::new(rest))),
            _ => {
                let Some((from, to)) = rest.split_once('\t') else { continue };
                unsynced.remove(to);
                if unsynced.remove(from) {
                    unsynced.insert(to);
                }
                unsure.insert(to);
            }
        }
    }
    let paths = |names: BTreeSet<&str>| names.into_iter().map(PathBuf::from).collect();
    Undone { empty: paths(unsynced), nameless: paths(unsure) }
}
