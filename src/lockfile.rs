//! Locks on files, which end with their process, however that ends.
//!
//! Must not know: what they protect.

use std::fs::{File, TryLockError};
use std::time::Duration;

/// Takes the lock of a file, within half a second: a process that was just killed, or its child before exec, may hold it
/// for some moments more. Blocks.
///
/// # Errors
/// `WouldBlock`: another process holds it; or the file system refuses.
pub(crate) fn lock_soon(file: &File) -> Result<(), TryLockError> {
    for _ in 0..20 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(25)),
            tried => return tried,
        }
    }
    file.try_lock()
}
