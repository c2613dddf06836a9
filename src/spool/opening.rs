//! How a spool is opened: owned, made, and its index built from names.
//!
//! Must not know: what is in the files.

use super::aside::set_aside;
use super::disk::{Disk, Files};
use super::index::Index;
use super::places::{self, Places};
use super::plans::Plans;
use super::{Error, SetAside, Spool};
use crate::lockfile::lock_soon;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Makes the directory if it is missing, and takes its lock, which ends with the file.
pub(super) fn own(dir: &Path) -> Result<File, Error> {
    let dir = &std::path::absolute(dir).map_err(Error::io("find", dir))?;
    make(dir)?;
    let path = Places { root: dir.clone() }.lock();
    let opened = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(Error::io("open", &path))?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            return Err(Error::owned(dir, format!("process {}", pid.trim_end())));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    // Only for people.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// With what is missing above it, which is for others too: PostgreSQL's own account passes through.
fn make(dir: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    let [spool, above @ ..] = missing.as_slice() else { return Ok(()) };
    if let Some(parent) = above.first() {
        std::fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    DirBuilder::new().mode(0o700).create(spool).map_err(Error::io("make", spool))?;
    for parent in missing.iter().filter_map(|dir| dir.parent()) {
        Files.sync_dir(parent).map_err(Error::io("sync", parent))?;
    }
    Ok(())
}

impl Spool {
    /// A spool in a directory that is there, and nobody else's.
    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        dir: &Path,
        max_bytes: u64,
        lock: Option<File>,
    ) -> Result<(Spool, Vec<SetAside>), Error> {
        let places = Places { root: dir.to_owned() };
        make_places(&*disk, &places)?;
        let (index, plans, aside) = index(&*disk, &places)?;
        let spool = Spool {
            disk,
            places,
            limit: AtomicU64::new(max_bytes),
            number: AtomicU64::new(0),
            plans: Mutex::new(plans),
            index: Mutex::new(index),
            _lock: lock,
        };
        spool.remove_unneeded_plans()?;
        Ok((spool, aside))
    }

    fn remove_unneeded_plans(&self) -> Result<(), Error> {
        let mut plans = self.plans();
        for plan in plans.tags() {
            self.remove_plan(&mut plans, plan)?;
        }
        self.count_plans(&plans);
        Ok(())
    }
}

fn make_places(disk: &dyn Disk, places: &Places) -> Result<(), Error> {
    for dir in [places.entries(), places.plans(), places.bad()] {
        disk.make_dir(&dir).map_err(Error::io("make", &dir))?;
    }
    // Also if they were there: who made them may have been killed before this.
    disk.sync_dir(&places.root).map_err(Error::io("sync", &places.root))
}

fn index(disk: &dyn Disk, places: &Places) -> Result<(Index, Plans, Vec<SetAside>), Error> {
    let plans = Plans::open(disk, places)?;
    let found = places::entries(disk, places).map_err(Error::io("read", &places.entries()))?;
    for path in &found.temporary {
        // One that stays does no harm.
        let _ = disk.remove(path);
    }
    for dir in &found.empty {
        let _ = disk.remove_dir(dir);
    }
    let mut aside: Vec<SetAside> =
        found.foreign.into_iter().map(|(path, reason)| set_aside(disk, places, &path, reason)).collect();
    aside.extend(found.unreadable.into_iter().map(|(file, reason)| SetAside { file, reason }));
    let mut index = Index::default();
    for (tracker, slots) in found.trackers {
        index.found(tracker, slots);
    }
    for bad in places::bad(disk, places).map_err(Error::io("read", &places.bad()))? {
        index.count_bad(disk.size(&bad.path).unwrap_or_default());
        bad.slot.into_iter().for_each(|slot| index.need(slot.plan));
    }
    Ok((index, plans, aside))
}
