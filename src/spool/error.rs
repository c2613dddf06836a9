//! Why the spool could not take or give: what, where, and what to do.
//!
//! Must not know: who asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What the spool could not do. A payload that was not taken is still the caller's.
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug)]
enum Kind {
    Full(Full),
    Owned { dir: PathBuf, by: String },
    Busy { tracker: String },
    Name { tracker: String },
    Large { bytes: u64, limit: u64 },
    Stranger { file: PathBuf },
    Io { what: &'static str, path: PathBuf, cause: io::Error },
}

/// There is no room. Nothing was removed to make some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Bytes that entries, plans and bad files occupy, in whole blocks.
    pub used: u64,
    /// Of these, the bytes of files that were set aside.
    pub bad: u64,
    /// `daemon.spool_max`.
    pub limit: u64,
    /// Bytes the payload would have occupied.
    pub needed: u64,
    /// Whether it was the disk that had no room, or a quota of it, while `limit` was not reached.
    pub disk: bool,
}

impl Error {
    pub(super) fn full(full: Full) -> Error {
        Error(Box::new(Kind::Full(full)))
    }

    pub(super) fn owned(dir: &Path, by: String) -> Error {
        Error(Box::new(Kind::Owned { dir: dir.to_owned(), by }))
    }

    pub(super) fn busy(tracker: &str) -> Error {
        Error(Box::new(Kind::Busy { tracker: tracker.to_owned() }))
    }

    pub(super) fn name(tracker: &str) -> Error {
        Error(Box::new(Kind::Name { tracker: tracker.to_owned() }))
    }

    pub(super) fn large(bytes: u64, limit: u64) -> Error {
        Error(Box::new(Kind::Large { bytes, limit }))
    }

    pub(super) fn stranger(file: &Path) -> Error {
        Error(Box::new(Kind::Stranger { file: file.to_owned() }))
    }

    /// `io::Error` of an operation on a path.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error(Box::new(Kind::Io { what, path, cause }))
    }

    /// The spool, or the disk it is on, has no room.
    pub fn as_full(&self) -> Option<&Full> {
        match &*self.0 {
            Kind::Full(full) => Some(full),
            _ => None,
        }
    }

    /// Another process owns the spool.
    pub fn is_owned(&self) -> bool {
        matches!(*self.0, Kind::Owned { .. })
    }

    /// Whether the operating system says that a disk, or a quota of it, has no room.
    pub(super) fn is_disk_full(&self) -> bool {
        match &*self.0 {
            Kind::Io { cause, .. } => matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match &*self.0 {
            Kind::Full(full) if full.disk => {
                "free some room on the disk of daemon.state_dir; nothing was removed".into()
            }
            Kind::Full(full) if full.bad > 0 => {
                "bring the database back, raise daemon.spool_max, or remove what is in bad/; nothing was removed".into()
            }
            Kind::Full(_) => "bring the database back, or raise daemon.spool_max; nothing was removed".into(),
            Kind::Owned { .. } => "one trackd a state directory: stop the other, or set daemon.state_dir".into(),
            Kind::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                "daemon.state_dir is for the account that trackd runs as: be root, or that account".into()
            }
            Kind::Io { .. } => "daemon.state_dir must be a directory that trackd may read and write".into(),
            Kind::Busy { .. } | Kind::Name { .. } | Kind::Large { .. } | Kind::Stranger { .. } => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Full(Full { used, limit, needed, disk: false, .. }) => {
                write!(f, "spool: full: {used} bytes used of {limit}, {needed} needed")
            }
            Kind::Full(Full { used, limit, needed, disk: true, .. }) => {
                write!(f, "spool: no room on its disk: {needed} bytes needed, with {used} used of {limit}")
            }
            Kind::Owned { dir, by } => write!(f, "open spool {}: owned by {by}", dir.display()),
            Kind::Busy { tracker } => {
                write!(f, "spool tracker \"{tracker}\": a payload of the same instant is being written or set aside")
            }
            Kind::Name { tracker } => {
                write!(
                    f,
                    "spool tracker \"{tracker}\": expected a name of 1 to 255 bytes, escaped, got {}",
                    tracker.len()
                )
            }
            Kind::Large { bytes, limit } => write!(f, "spool: expected an entry of at most {limit} bytes, got {bytes}"),
            Kind::Stranger { file } => write!(f, "{}: not a file of this spool", file.display()),
            Kind::Io { what, path, cause } => write!(f, "{what} {}: {cause}", path.display()),
        }
    }
}

impl std::error::Error for Error {}
