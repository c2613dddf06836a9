//! One entry, read and checked with its plan, whoever asks: the daemon that lands it, or a command that looks at it.
//!
//! Changes nothing. Must not know: the index.

use super::Error;
use super::disk::Disk;
use super::format::{self, Decoded};
use super::name::Slot;
use super::places::Places;
use super::plans;
use std::io;
use std::path::Path;

/// What came of it.
#[derive(Debug)]
pub(super) enum Reading {
    /// Whole, with its plan.
    Whole(Decoded),
    /// It never will be whole; in words why.
    Bad {
        reason: String,
        /// The plan, where that is what is not whole.
        plan: Option<String>,
    },
    /// Not there any more.
    Gone,
    /// It cannot be said now.
    Later(Error),
}

/// Reads the entry of this name, wherever it lies.
pub(super) fn read(disk: &dyn Disk, places: &Places, path: &Path, tracker: &str, slot: Slot) -> Reading {
    let bytes = match disk.read(path, slot.bytes) {
        Ok(bytes) => bytes.into(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Reading::Gone,
        Err(error) if passes(&error) => return Reading::Later(Error::io("read", path)(error)),
        Err(error) => return bad(format!("cannot be read: {error}")),
    };
    let mut decoded = match format::decode(&bytes, tracker, slot) {
        Ok(decoded) => decoded,
        Err(reason) => return bad(reason),
    };
    let of_plan = |reason| Reading::Bad { reason, plan: Some(decoded.plan.clone()) };
    match plans::read(disk, &places.plans(), &decoded.plan) {
        Ok(Ok(plan)) => decoded.entry.plan = plan,
        Ok(Err(reason)) => return of_plan(reason),
        // Landed beside us, and the plan removed after it.
        Err(_) if disk.size(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) => return Reading::Gone,
        Err(error) if passes(&error) => return Reading::Later(Error::io("read plan of", path)(error)),
        Err(error) => return of_plan(format!("its plan {} cannot be read: {error}", decoded.plan)),
    }
    Reading::Whole(decoded)
}

fn bad(reason: String) -> Reading {
    Reading::Bad { reason, plan: None }
}

/// Whether it says nothing of the file: what the process or the machine is short of.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    use rustix::io::Errno;
    let passing = [Kind::OutOfMemory, Kind::Interrupted, Kind::WouldBlock, Kind::TimedOut];
    passing.contains(&error.kind())
        || [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&error.raw_os_error().unwrap_or(0))
}
