//! A file in the making: beside its final name until it is whole, gone if it never is.
//!
//! Must not know: what is written.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    finished: bool,
}

impl Part {
    /// An empty file beside `file`, which its owner alone may read.
    pub(super) fn beside(file: &Path) -> Result<Part, String> {
        let Some(name) = file.file_name().filter(|_| !file.is_dir()) else {
            return Err("expected the name of a file, got a directory".into());
        };
        if file.exists() && !file.is_file() {
            // The rename would put a file in the place of /dev/stdout.
            return Err("expected the name of a file, got a pipe or a device".into());
        }
        let path = file.with_file_name(format!(".{}.{:08x}.part", name.to_string_lossy(), fastrand::u32(..)));
        // Made anew, or not at all: nobody else has it open, or can read what comes.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| format!("make {}: {error}", path.display()))?;
        Ok(Part { path, finished: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it begins with these bytes.
    pub(super) fn begins_with(&self, magic: &[u8]) -> Result<bool, String> {
        let mut bytes = Vec::with_capacity(magic.len());
        let read = File::open(&self.path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut bytes));
        read.map_err(|error| format!("read {}: {error}", self.path.display()))?;
        Ok(bytes == magic)
    }

    /// Gives it its name. Returns its size in bytes.
    pub(super) fn finish(mut self, file: &Path) -> Result<u64, String> {
        let failed = |error: std::io::Error| format!("rename {}: {error}", self.path.display());
        let part = File::open(&self.path).map_err(failed)?;
        // On the disk before it has its name: after a power failure the name must not stand for half a file.
        part.sync_all().map_err(failed)?;
        let bytes = part.metadata().map_err(failed)?.len();
        std::fs::rename(&self.path, file).map_err(failed)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        self.finished = true;
        Ok(bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x");
        std::fs::write(&file, "before").expect("written");
        let part = Part::beside(&file).expect("made");
        std::fs::write(part.path(), "half").expect("written");
        assert_eq!(std::fs::metadata(part.path()).expect("there").permissions().mode() & 0o777, 0o600);
        drop(part);
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "before");
        let part = Part::beside(&file).expect("made");
        std::fs::write(part.path(), "whole").expect("written");
        assert_eq!(part.finish(&file), Ok(5));
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "whole");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(Part::beside(dir.path()).is_err_and(|error| error.contains("got a directory")));
        assert!(Part::beside(Path::new("/dev/null")).is_err_and(|error| error.contains("got a pipe or a device")));
    }
}
