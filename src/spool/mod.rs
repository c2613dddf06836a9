//! Payloads at rest: what was fetched while the database was away, each with all that makes its run.
//!
//! ```text
//!  put ---- plan, entry: written, synced, renamed, directory synced ----> waits on the disk
//!  next --> load --whole--> (landed) --> remove
//!             \--torn, flipped, cut, empty, foreign--> bad/, with the reason beside it
//! ```
//!
//! What `put` returned for is there after a loss of power, as far as the file system keeps what it was told to sync;
//! what it did not return for is there whole or not at all. Nothing is ever deleted to make room. A file that is not
//! whole stops nobody: it is set aside when it is met. `remove` is not synced: after a loss of power an entry can be
//! there again that has landed, and lands as the same run, which the ledger has already.
//!
//! Calls block on the disk. One process owns a spool; [`Look`] reads beside it without asking, and what is in `bad/`
//! a person may take back ([`Bad`]) or away.
//! Must not know: tokio, the database, HTTP, the configuration, what is in a plan.

mod aside;
mod bad;
mod disk;
mod error;
mod format;
mod index;
mod lasting;
mod look;
mod name;
mod opening;
mod places;
mod plans;
mod reading;

#[cfg(test)]
mod behaviour_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod power_tests;

pub use aside::SetAside;
pub use bad::Bad;
pub use error::{Error, Full};
pub use look::{Found, Listed, Look, Report};

use crate::status::Kind;
use aside::set_aside;
use bytes::Bytes;
use disk::Disk;
use index::{Index, occupied, occupied_aside};
use jiff::Timestamp;
use name::{Slot, Tag};
use places::{Places, unless_gone};
use plans::Plans;
use reading::Reading;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All that makes one run of a payload. Its identity is (tracker, scheduled_at).
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub tracker: String,
    pub scheduled_at: Timestamp,
    pub kind: Kind,
    /// Attempts of the source, from 1.
    pub attempt: i32,
    pub started_at: Timestamp,
    pub fetched_at: Timestamp,
    /// What is known of the response: status, headers, url.
    pub response: serde_json::Value,
    /// What it takes to shape the body as its configuration said; at most 64 MiB, kept once for all that share it.
    pub plan: Bytes,
    /// As the source gave it.
    pub body: Bytes,
}

/// One entry that waits, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    tracker: String,
    slot: Slot,
}

impl Key {
    pub fn tracker(&self) -> &str {
        &self.tracker
    }

    pub fn scheduled_at(&self) -> Timestamp {
        self.slot.at
    }

    /// The length of its file.
    pub fn bytes(&self) -> u64 {
        self.slot.bytes
    }
}

/// What `put` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The entry waits, and will after a loss of power.
    Stored,
    /// One of the same identity waits already, is whole, and is kept as it is.
    Known,
    /// The entry waits; one of the same identity was not whole, and was set aside.
    Replaced(SetAside),
}

/// What `load` found.
#[derive(Debug)]
pub enum Loaded {
    /// Whole, with its plan. It waits until it is removed.
    Entry(Box<Entry>),
    /// It was not whole, and waits no more.
    SetAside(SetAside),
    /// It waits no more.
    Gone,
}

/// A tracker that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub tracker: String,
    /// The instant of its first entry.
    pub oldest: Timestamp,
    pub entries: u64,
}

/// The spool's numbers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Entries that wait.
    pub entries: u64,
    /// What they occupy of the disk, in whole blocks.
    pub bytes: u64,
    /// The earliest instant that waits.
    pub oldest: Option<Timestamp>,
    /// Files that were set aside and are still there.
    pub bad: u64,
    /// What entries, plans and bad files occupy.
    pub used: u64,
    /// `daemon.spool_max`, or what there is room for on its disk.
    pub limit: u64,
}

/// The spool of one daemon. Dropped, it is free for another.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    places: Places,
    limit: AtomicU64,
    /// Numbers what is being written.
    number: AtomicU64,
    /// Held while a plan is written or removed; taken before `index`.
    plans: Mutex<Plans>,
    /// Never held while the disk works.
    index: Mutex<Index>,
    _lock: Option<File>,
}

impl Spool {
    /// Opens the spool in `dir`, which is made if it is missing; also tells what it set aside at that.
    ///
    /// Reads names, not files. What a crash left half-written is removed: no `put` had returned for it.
    ///
    /// # Errors
    /// `is_owned`: another process has it. Else the directory cannot be made, read or written.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<(Spool, Vec<SetAside>), Error> {
        let lock = opening::own(dir)?;
        let disk: Box<dyn Disk> = Box::new(disk::Files);
        Spool::open_on(disk, dir, max_bytes, Some(lock))
    }

    /// Keeps a payload. Returns when it would survive a loss of power.
    ///
    /// # Errors
    /// `as_full`: it would not fit, into `max_bytes` or onto the disk. Else its tracker has no name for a directory, the
    /// entry is larger than any may be, or the disk failed. Nothing of it waits then.
    pub fn put(&self, entry: &Entry) -> Result<Put, Error> {
        let sha256 = format::sha256(&entry.plan);
        let head = format::head(entry, &sha256);
        let slot = Slot {
            at: entry.scheduled_at,
            bytes: (head.len() + entry.body.len()) as u64,
            plan: Tag::of(&sha256).expect("it is a SHA-256"),
        };
        fits(entry, slot)?;
        let mut replaced = None;
        if let Some(first) = self.find(entry) {
            match self.load(&first)? {
                Loaded::Entry(_) => return self.known(&first),
                Loaded::SetAside(aside) => replaced = Some(aside),
                Loaded::Gone => {}
            }
        }
        self.reserve(entry, slot, &sha256)?;
        match self.write(entry, slot, &sha256, &head) {
            Ok(()) => {
                self.index().written(&entry.tracker, slot);
                Ok(replaced.map_or(Put::Stored, Put::Replaced))
            }
            Err(error) => Err(self.unwritten(entry, slot, error)),
        }
    }

    fn find(&self, entry: &Entry) -> Option<Key> {
        self.index().find(&entry.tracker, entry.scheduled_at).map(|slot| slot.key(&entry.tracker))
    }

    /// Found at the start, its name may not last yet.
    fn known(&self, first: &Key) -> Result<Put, Error> {
        let dir = self.places.tracker(&first.tracker);
        self.disk.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
        Ok(Put::Known)
    }

    /// Holds the identity, and room for the entry.
    fn reserve(&self, entry: &Entry, slot: Slot, sha256: &str) -> Result<(), Error> {
        let plans = self.plans();
        let mut index = self.index();
        if index.is_busy(&entry.tracker, slot.at) {
            return Err(Error::busy(&entry.tracker));
        }
        let plan_bytes = if plans.has(sha256) { 0 } else { occupied(entry.plan.len() as u64) };
        index.reserve(&entry.tracker, slot, plan_bytes, self.limit.load(Ordering::Relaxed)).map_err(Error::full)
    }

    /// The plan first: an entry is never there without it.
    fn write(&self, entry: &Entry, slot: Slot, sha256: &str, head: &[u8]) -> Result<(), Error> {
        let mut plans = self.plans();
        let kept = plans.keep(&*self.disk, self.number(), sha256, &entry.plan);
        self.count_plans(&plans);
        drop(plans);
        kept?;
        let dir = self.places.tracker(&entry.tracker);
        if !self.index().lasting.contains(&entry.tracker) {
            self.disk.make_dir(&dir).map_err(Error::io("make", &dir))?;
            let above = self.places.entries();
            self.disk.sync_dir(&above).map_err(Error::io("sync", &above))?;
            self.index().lasting.insert(entry.tracker.clone());
        }
        lasting::write(&*self.disk, &dir, &slot.to_string(), self.number(), &[head, &entry.body])
    }

    /// Takes back what was reserved, and removes what may be there of it.
    fn unwritten(&self, entry: &Entry, slot: Slot, error: Error) -> Error {
        // It can be there without being sure to last.
        let _ = self.disk.remove(&self.places.entry(&entry.tracker, slot));
        let mut plans = self.plans();
        let mut index = self.index();
        // The directory may be what was missing: somebody removed it.
        index.lasting.remove(&entry.tracker);
        let full = index.disk_full(occupied(slot.bytes), self.limit.load(Ordering::Relaxed));
        let is_last = index.unwritten(&entry.tracker, slot);
        drop(index);
        if is_last {
            // A start tries again.
            let _ = self.remove_plan(&mut plans, slot.plan);
        }
        if error.is_disk_full() { Error::full(full) } else { error }
    }

    /// Whether an entry of this identity waits.
    pub fn has(&self, tracker: &str, scheduled_at: Timestamp) -> bool {
        self.index().find(tracker, scheduled_at).is_some()
    }

    /// The instants of a tracker that wait, upwards.
    pub fn instants(&self, tracker: &str) -> Vec<Timestamp> {
        self.index().instants(tracker)
    }

    /// Trackers that wait, the one with the earliest instant first.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.index().waiting()
    }

    /// The entry of a tracker with the earliest instant.
    pub fn next(&self, tracker: &str) -> Option<Key> {
        self.index().first(tracker).map(|slot| slot.key(tracker))
    }

    /// Reads an entry and checks it. One that is not whole is set aside at that, so that it is not met again.
    ///
    /// # Errors
    /// The machine is short of something (memory, file descriptors); the entry still waits.
    pub fn load(&self, key: &Key) -> Result<Loaded, Error> {
        let path = self.places.entry(&key.tracker, key.slot);
        match reading::read(&*self.disk, &self.places, &path, &key.tracker, key.slot) {
            Reading::Whole(decoded) => Ok(Loaded::Entry(Box::new(decoded.entry))),
            Reading::Later(error) => Err(error),
            Reading::Gone => {
                // Somebody removed it by hand.
                self.forget(key).map(|()| Loaded::Gone)
            }
            Reading::Bad { reason, plan } => {
                if let Some(sha256) = plan {
                    self.plans().doubt(&sha256);
                }
                Ok(self.set_aside(key, reason).map_or(Loaded::Gone, Loaded::SetAside))
            }
        }
    }

    /// Sets an entry aside for another reason than its file; `None` if it does not wait.
    pub fn set_aside(&self, key: &Key, reason: String) -> Option<SetAside> {
        if !self.index().set_aside(&key.tracker, key.slot) {
            return None;
        }
        let path = self.places.entry(&key.tracker, key.slot);
        let aside = set_aside(&*self.disk, &self.places, &path, reason);
        self.index().moved(&key.tracker, key.slot);
        Some(aside)
    }

    /// Removes an entry that has landed. It waits no more, whatever the disk says.
    ///
    /// # Errors
    /// The file, or the plan that nothing needs now, may still be there; the entry waits again after a restart.
    pub fn remove(&self, key: &Key) -> Result<(), Error> {
        let path = self.places.entry(&key.tracker, key.slot);
        let removed = unless_gone(self.disk.remove(&path)).map_err(Error::io("remove", &path));
        removed.and(self.forget(key))
    }

    fn forget(&self, key: &Key) -> Result<(), Error> {
        let mut plans = self.plans();
        let mut index = self.index();
        let Some(is_last) = index.remove(&key.tracker, key.slot) else { return Ok(()) };
        index.loose.insert(key.tracker.clone());
        if !is_last {
            return Ok(());
        }
        // Else a loss of power could bring back the entry, but not its plan.
        let loose = std::mem::take(&mut index.loose);
        drop(index);
        for tracker in loose {
            let dir = self.places.tracker(&tracker);
            unless_gone(self.disk.sync_dir(&dir)).map_err(Error::io("sync", &dir))?;
        }
        self.remove_plan(&mut plans, key.slot.plan)
    }

    fn remove_plan(&self, plans: &mut Plans, plan: Tag) -> Result<(), Error> {
        // It may be needed again since.
        if self.index().needs(plan) {
            return Ok(());
        }
        let removed = plans.remove(&*self.disk, plan);
        self.count_plans(plans);
        removed
    }

    /// The numbers of this moment.
    pub fn stats(&self) -> Stats {
        // Before the lock: a disk may take its time.
        let room = self.disk.room(&self.places.entries()).unwrap_or(u64::MAX);
        let mut stats = self.index().stats(self.limit.load(Ordering::Relaxed));
        stats.limit = stats.limit.min(stats.used.saturating_add(room));
        stats
    }

    /// Counts what is in `bad/` anew: people take files from there.
    ///
    /// # Errors
    /// The directory cannot be read; what was counted stays.
    pub fn recount_bad(&self) -> Result<(), Error> {
        let Some(counting) = self.index().counting_bad() else { return Ok(()) };
        let files = places::bad(&*self.disk, &self.places).map_err(Error::io("read", &self.places.bad()))?;
        let sizes: Vec<u64> = files.iter().filter_map(|bad| self.disk.size(&bad.path).ok()).collect();
        self.index().counted_bad(counting, sizes.len() as u64, sizes.into_iter().map(occupied_aside).sum());
        Ok(())
    }

    /// From here on the spool takes up to so many bytes; what waits stays.
    pub fn set_limit(&self, max_bytes: u64) {
        self.limit.store(max_bytes, Ordering::Relaxed);
    }

    fn count_plans(&self, plans: &Plans) {
        self.index().plan_bytes = plans.lengths().map(occupied).sum();
    }

    fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits(entry: &Entry, slot: Slot) -> Result<(), Error> {
    let sizes = [(slot.bytes, name::LARGEST), (entry.plan.len() as u64, plans::LARGEST)];
    match sizes.into_iter().find(|(bytes, limit)| bytes > limit) {
        Some((bytes, limit)) => Err(Error::large(bytes, limit)),
        None => name::folder(&entry.tracker).map(drop).ok_or_else(|| Error::name(&entry.tracker)),
    }
}
