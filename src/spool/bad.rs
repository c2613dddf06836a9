//! What was set aside, brought back by a person: beside the daemon that owns the spool, or without one.
//!
//! Only files in `bad/` are touched, at which a daemon never is once they are there. Plans stay: the daemon may hold
//! them to be needed, and its next start removes those that nothing needs. Must not know: what landing is.

use super::aside;
use super::disk::{Disk, Files};
use super::look::{self, Found, Listed};
use super::places::{self, BadFile, Places, unless_gone};
use super::{Error, SetAside};
use std::path::Path;

/// The files of a spool that were set aside.
#[derive(Debug, Clone)]
pub struct Bad {
    places: Places,
}

impl Bad {
    /// Of the spool in `dir`, which may be missing: then there are none.
    pub fn new(dir: &Path) -> Bad {
        Bad { places: Places { root: dir.to_owned() } }
    }

    /// Those that have the name of an entry, by tracker and instant, and all others with the reasons of then.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn files(&self) -> Result<(Vec<Listed>, Vec<SetAside>), Error> {
        let files = places::bad(&Files, &self.places).map_err(Error::io("read", &self.places.bad()))?;
        let (mut listed, mut others) = (Vec::new(), Vec::new());
        for BadFile { path, tracker, slot } in files {
            match tracker.zip(slot) {
                Some((tracker, slot)) => {
                    listed.push(Listed { tracker, scheduled_at: slot.at, bytes: slot.bytes, file: path });
                }
                None => others.push(SetAside { reason: aside::reason(&Files, &path), file: path }),
            }
        }
        listed.sort_by(|a, b| (&a.tracker, a.scheduled_at, &a.file).cmp(&(&b.tracker, b.scheduled_at, &b.file)));
        Ok((listed, others))
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// It cannot be said now what it is, or it is none that this spool has set aside.
    pub fn read(&self, tracker: &str, file: &Path) -> Result<Found, Error> {
        look::read(&self.places, tracker, file, self.places.aside(tracker, file))
    }

    /// Removes a file that has landed, and what says why it was set aside.
    ///
    /// # Errors
    /// It is still there. It may be brought back again: its run is known.
    pub fn landed(&self, tracker: &str, file: &Path) -> Result<(), Error> {
        self.places.aside(tracker, file).ok_or_else(|| Error::stranger(file))?;
        unless_gone(Files.remove(file)).map_err(Error::io("remove", file))?;
        aside::forget_reason(&Files, file).map_err(Error::io("remove the reason of", file))
    }

    /// Says anew why a file stays.
    ///
    /// # Errors
    /// Nothing says why now.
    pub fn stays(&self, tracker: &str, file: &Path, reason: &str) -> Result<(), Error> {
        self.places.aside(tracker, file).ok_or_else(|| Error::stranger(file))?;
        let told = aside::forget_reason(&Files, file).and_then(|()| aside::tell_reason(&Files, file, reason));
        told.map_err(Error::io("write the reason of", file))
    }
}
