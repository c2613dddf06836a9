//! Plans: content-addressed, each kept as long as an entry needs it.
//!
//! What was found at the start may not be whole or not last, so that the first entry of this process that needs a plan
//! writes it anew. Must not know: what is in a plan, who needs which.

use super::Error;
use super::disk::{Disk, ItemKind};
use super::lasting;
use super::name::Tag;
use super::places::{Places, TEMPORARY, unless_gone};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// No plan is larger.
pub(super) const LARGEST: u64 = 64 << 20;

/// The plans on the disk, by SHA-256.
#[derive(Debug)]
pub(super) struct Plans {
    dir: PathBuf,
    known: BTreeMap<String, Plan>,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    bytes: u64,
    /// Written and synced by this process, and not found to be otherwise since.
    sound: bool,
}

impl Plans {
    /// Names and lengths only; what a crash left half-written is removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn open(disk: &dyn Disk, places: &Places) -> Result<Plans, Error> {
        let dir = places.plans();
        let mut known = BTreeMap::new();
        for item in disk.list(&dir).map_err(Error::io("read", &dir))? {
            let path = dir.join(&item.name);
            let name = item.name.to_string_lossy();
            if name.starts_with(TEMPORARY) {
                disk.remove(&path).map_err(Error::io("remove", &path))?;
            } else if Tag::of(&name).is_some() && item.kind == ItemKind::File {
                let bytes = disk.size(&path).map_err(Error::io("look at", &path))?;
                known.insert(name.into_owned(), Plan { bytes, sound: false });
            }
        }
        Ok(Plans { dir, known })
    }

    pub(super) fn tags(&self) -> Vec<Tag> {
        self.known.keys().filter_map(|sha256| Tag::of(sha256)).collect()
    }

    /// The lengths of all.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.known.values().map(|plan| plan.bytes)
    }

    pub(super) fn has(&self, sha256: &str) -> bool {
        self.known.contains_key(sha256)
    }

    /// Makes sure that the plan is there and lasts.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn keep(&mut self, disk: &dyn Disk, number: u64, sha256: &str, plan: &[u8]) -> Result<(), Error> {
        if self.known.get(sha256).is_some_and(|plan| plan.sound) {
            return Ok(());
        }
        lasting::write(disk, &self.dir, sha256, number, &[plan])?;
        self.known.insert(sha256.to_owned(), Plan { bytes: plan.len() as u64, sound: true });
        Ok(())
    }

    /// The next entry that needs it writes it anew.
    pub(super) fn doubt(&mut self, sha256: &str) {
        if let Some(plan) = self.known.get_mut(sha256) {
            plan.sound = false;
        }
    }

    /// Removes plans that nothing needs.
    ///
    /// # Errors
    /// One could not be removed; it is known no more, and a start tries again.
    pub(super) fn remove(&mut self, disk: &dyn Disk, tag: Tag) -> Result<(), Error> {
        let of_tag = |sha256: &String| Tag::of(sha256) == Some(tag);
        let gone: Vec<String> = self.known.keys().filter(|sha256| of_tag(sha256)).cloned().collect();
        let mut done = Ok(());
        for sha256 in gone {
            self.known.remove(&sha256);
            let path = self.dir.join(sha256);
            done = done.and(unless_gone(disk.remove(&path)).map_err(Error::io("remove", &path)));
        }
        done
    }
}

/// Reads a plan; `Ok(Err)` says in words why it is none.
///
/// # Errors
/// The operating system's, also where there is no such file.
pub(super) fn read(disk: &dyn Disk, dir: &Path, sha256: &str) -> io::Result<Result<Bytes, String>> {
    let plan = disk.read(&dir.join(sha256), LARGEST)?;
    Ok(match super::format::sha256(&plan) {
        same if same == sha256 => Ok(plan.into()),
        other => Err(format!("its plan {sha256} is not whole: {} bytes with sha256 {other}", plan.len())),
    })
}
