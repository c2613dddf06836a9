//! Looking at a spool, beside the daemon that owns it or without one: no lock, no change.
//!
//! What vanishes while it is looked at has landed, and is no fault. Files are named by whoever asks, maybe somebody else
//! than their owner: none is read but one that this spool has.

use super::aside::reason;
use super::disk::{Disk, Files};
use super::name::Slot;
use super::places::{self, Places};
use super::reading::{self, Reading};
use super::{Entry, Error, SetAside};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A spool that is read.
#[derive(Debug)]
pub struct Look {
    places: Places,
}

/// An entry that waits, or was set aside, as its name says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    pub tracker: String,
    pub scheduled_at: Timestamp,
    /// Of the file.
    pub bytes: u64,
    pub file: PathBuf,
}

/// All that is wrong, and how much is not.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Entries that are whole.
    pub whole: u64,
    /// Entries that will be set aside when they are met, and what no entry's name is found at.
    pub bad: Vec<SetAside>,
    /// What was set aside before.
    pub set_aside: Vec<SetAside>,
}

/// What reading an entry gave.
#[derive(Debug)]
pub enum Found {
    /// Whole; with its meta as the file has it, one line of JSON.
    Whole(Box<Entry>, bytes::Bytes),
    /// It will be set aside when it is met; in words why.
    Bad(String),
    /// It has landed meanwhile.
    Gone,
}

impl Look {
    /// Of the spool in `dir`, which may be missing: then nothing waits.
    pub fn new(dir: &Path) -> Look {
        Look { places: Places { root: dir.to_owned() } }
    }

    /// What waits, by tracker and instant, and what no name of an entry is found at.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn entries(&self) -> Result<(Vec<Listed>, Vec<SetAside>), Error> {
        let found = places::entries(&Files, &self.places).map_err(Error::io("read", &self.places.entries()))?;
        let listed = |tracker: &str, slot: Slot| Listed {
            tracker: tracker.to_owned(),
            scheduled_at: slot.at,
            bytes: slot.bytes,
            file: self.places.entry(tracker, slot),
        };
        let trackers = found.trackers.iter();
        let entries = trackers.flat_map(|(tracker, slots)| slots.iter().map(|slot| listed(tracker, *slot))).collect();
        let foreign = found.foreign.into_iter().chain(found.unreadable);
        Ok((entries, foreign.map(|(file, reason)| SetAside { file, reason }).collect()))
    }

    /// What was set aside before, with the reasons of then.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, Error> {
        let files = places::bad(&Files, &self.places).map_err(Error::io("read", &self.places.bad()))?;
        Ok(files
            .into_iter()
            .map(|bad| SetAside { reason: reason(&Files as &dyn Disk, &bad.path), file: bad.path })
            .collect())
    }

    /// Reads and checks every entry, with its plan.
    ///
    /// # Errors
    /// A directory cannot be read, or it cannot be said now what an entry is.
    pub fn check(&self) -> Result<Report, Error> {
        let (entries, bad) = self.entries()?;
        let mut report = Report { bad, set_aside: self.set_aside()?, whole: 0 };
        for listed in entries {
            match self.read(&listed.tracker, &listed.file)? {
                Found::Whole(..) => report.whole += 1,
                Found::Bad(reason) => report.bad.push(SetAside { file: listed.file, reason }),
                Found::Gone => {}
            }
        }
        Ok(report)
    }

    /// Reads an entry that waits, and checks it.
    ///
    /// # Errors
    /// It cannot be said now what it is, or it is none of this spool's.
    pub fn read(&self, tracker: &str, file: &Path) -> Result<Found, Error> {
        read(&self.places, tracker, file, self.places.waiting(tracker, file))
    }
}

/// `slot`: what the name of the file says; `None`: it is not where such a file is.
pub(super) fn read(places: &Places, tracker: &str, file: &Path, slot: Option<Slot>) -> Result<Found, Error> {
    let slot = slot.ok_or_else(|| Error::stranger(file))?;
    match reading::read(&Files, places, file, tracker, slot) {
        Reading::Whole(decoded) => Ok(Found::Whole(Box::new(decoded.entry), decoded.meta)),
        Reading::Bad { reason, .. } => Ok(Found::Bad(reason)),
        Reading::Gone => Ok(Found::Gone),
        Reading::Later(error) => Err(error),
    }
}
