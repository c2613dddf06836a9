//! The few things the spool does with a disk, and the real one.
//!
//! A trait, so that a test can lose power between any two of them. Must not know: what the files are.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// What survives a loss of power: contents after `Unsynced::sync`, names after `sync_dir` of their directory.
pub(super) trait Disk: Debug + Send + Sync {
    /// A directory for the owner alone; one that is there is left as it is.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// In no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Item>>;
    /// The length of a file.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// At most one byte more than `limit`.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// A new file, for the owner of its directory alone.
    fn write(&self, path: &Path, parts: &[&[u8]]) -> io::Result<Box<dyn Unsynced + '_>>;
    /// Replaces what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// One that is empty.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can be written below a directory; the limit of a quota is not seen.
    fn room(&self, dir: &Path) -> io::Result<u64>;
}

/// A file whose contents may not last yet. The handle it was written through: only that one is sure to be told of a
/// failure to write back.
pub(super) trait Unsynced {
    fn sync(self: Box<Self>) -> io::Result<()>;
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: OsString,
    pub(super) kind: ItemKind,
}

/// What has the name; no link is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemKind {
    File,
    Dir,
    Other,
}

/// The file system.
#[derive(Debug)]
pub(super) struct Files;

impl Disk for Files {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            done => done,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Item>> {
        let item = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            // From the directory itself, where the file system keeps it there: no look at each file.
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => ItemKind::File,
                Ok(kind) if kind.is_dir() => ItemKind::Dir,
                _ => ItemKind::Other,
            };
            Ok(Item { name: entry.file_name(), kind })
        };
        fs::read_dir(dir)?.map(item).collect()
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::symlink_metadata(path)?.len())
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len().min(limit);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default().saturating_add(1));
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, path: &Path, parts: &[&[u8]]) -> io::Result<Box<dyn Unsynced + '_>> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // Root, in the spool of the daemon's account: a file of root's is one that the daemon cannot read.
        if rustix::process::geteuid().is_root()
            && let Some(Ok(owner)) = path.parent().map(fs::metadata)
            && owner.uid() != 0
        {
            // Where that is refused (a container's root), it is kept all the same.
            let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
        }
        for part in parts {
            file.write_all(part)?;
        }
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl Unsynced for File {
    fn sync(self: Box<Self>) -> io::Result<()> {
        self.sync_all()
    }
}
