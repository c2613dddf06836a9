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
#[derive(Debug)]
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
                Some((tracker, slot)) => listed.push(Listed {
                    key: slot.key(&tracker),
                    tracker,
                    scheduled_at: slot.at,
                    bytes: slot.bytes,
                    file: path,
                }),
                None => others.push(SetAside { reason: aside::reason(&Files, &path), file: path }),
            }
        }
        listed.sort_by(|a, b| (&a.tracker, a.scheduled_at, &a.file).cmp(&(&b.tracker, b.scheduled_at, &b.file)));
        Ok((listed, others))
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// It cannot be said now what it is.
    pub fn read(&self, listed: &Listed) -> Result<Found, Error> {
        look::read(&self.places, listed)
    }

    /// Removes a file that has landed, and what says why it was set aside.
    ///
    /// # Errors
    /// It is still there. It may be brought back again: its run is known.
    pub fn landed(&self, listed: &Listed) -> Result<(), Error> {
        unless_gone(Files.remove(&listed.file)).map_err(Error::io("remove", &listed.file))?;
        aside::forget_reason(&Files, &listed.file).map_err(Error::io("remove the reason of", &listed.file))
    }

    /// Says anew why a file stays.
    ///
    /// # Errors
    /// Nothing says why now.
    pub fn stays(&self, listed: &Listed, reason: &str) -> Result<(), Error> {
        let told =
            aside::forget_reason(&Files, &listed.file).and_then(|()| aside::tell_reason(&Files, &listed.file, reason));
        told.map_err(Error::io("write the reason of", &listed.file))
    }
}
