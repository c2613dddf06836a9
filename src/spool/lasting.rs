//! A file that is there whole, or not at all, and that a loss of power does not take back.
//!
//! ```text
//!  write .tmp-N --> sync it --> rename --> sync the directory
//! ```
//!
//! Renamed before it is synced, the name can come to last before what it names, which is then empty or torn.
//! Must not know: what is in it.

use super::Error;
use super::disk::Disk;
use super::places::TEMPORARY;
use std::path::Path;

/// Makes `dir/name` of these bytes; `number` tells apart what is being written at the same time.
///
/// # Errors
/// What failed. The name then is not there, or as before, or there without being sure to last.
pub(super) fn write(disk: &dyn Disk, dir: &Path, name: &str, number: u64, parts: &[&[u8]]) -> Result<(), Error> {
    let (temporary, path) = (dir.join(format!("{TEMPORARY}{number}")), dir.join(name));
    let written = disk.write(&temporary, parts).map_err(Error::io("write", &temporary)).and_then(|file| {
        file.sync().map_err(Error::io("sync", &temporary))?;
        disk.rename(&temporary, &path).map_err(Error::io("rename to", &path))
    });
    if let Err(error) = written {
        // Else a start removes it.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_dir(dir).map_err(Error::io("sync", dir))
}
