//! The control socket as a file: made, owned, and removed at the end.
//!
//! ```text
//!  lock trackd.sock.lock --held--> in use: refused
//!    \--> bind beside it, mode 0660, rename over what a dead daemon left
//! ```
//!
//! Must not know: what is asked on it.

use crate::lockfile::lock_soon;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Its name in the runtime directory.
pub const NAME: &str = "trackd.sock";
/// Owner and group; the kernel lets nobody else connect.
const MODE: u32 = 0o660;

/// A socket file that is this process's.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: at the end only the own file is removed.
    identity: (u64, u64),
    /// Its lock ends with the process, however that ends.
    _lock: File,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living daemon answers there.
    #[error("control socket {}: another trackd answers there", .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("control socket {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl Socket {
    /// Makes `trackd.sock` in `dir`, and `dir` if it is missing; what a dead daemon left is replaced.
    ///
    /// # Errors
    /// A living daemon has it, or the file system refuses.
    pub fn bind(dir: &Path) -> Result<Socket, SocketError> {
        let path = dir.join(NAME);
        let io = |error| SocketError::Io { path: path.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let lock = dir.join(format!("{NAME}.lock"));
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(lock).map_err(io)?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Beside its name first: nobody can connect before the mode is set, and nobody finds the name empty.
        let fresh = dir.join(format!("{NAME}.new"));
        remove(&fresh).map_err(io)?;
        let listener = UnixListener::bind(&fresh).map_err(io)?;
        let made = || -> io::Result<(u64, u64)> {
            listener.set_nonblocking(true)?;
            fs::set_permissions(&fresh, Permissions::from_mode(MODE))?;
            fs::rename(&fresh, &path)?;
            let file = fs::symlink_metadata(&path)?;
            Ok((file.dev(), file.ino()))
        };
        let identity = made().map_err(io)?;
        Ok(Socket { listener, path, identity, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listener of its own on the same socket. In a runtime only.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        self.listener.try_clone().and_then(tokio::net::UnixListener::from_std)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_use_is_refused_and_a_dead_ones_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("run");
        let socket = Socket::bind(&place).expect("a socket");
        assert_eq!(fs::metadata(socket.path()).expect("its file").mode() & 0o777, MODE);
        assert!(matches!(Socket::bind(&place), Err(SocketError::InUse(_))));
        drop(socket);
        assert!(!place.join(NAME).exists(), "removed at the end");
        drop(UnixListener::bind(place.join(NAME)).expect("what a killed daemon leaves"));
        let socket = Socket::bind(&place).expect("in its place");
        std::os::unix::net::UnixStream::connect(socket.path()).expect("it answers");
    }

    #[test]
    fn a_file_that_is_not_its_own_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = Socket::bind(dir.path()).expect("a socket");
        fs::remove_file(socket.path()).expect("removed by hand");
        fs::write(socket.path(), "another's").expect("written");
        let path = socket.path().to_owned();
        drop(socket);
        assert!(path.exists());
    }
}
