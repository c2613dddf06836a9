//! Where the private cluster lives, and where its socket is: directories that its account alone may use.
//!
//! In: the state directory, the server's account. Out: directories that exist and are owned.
//! Must not know: processes and connections of the server.

use super::{Account, EmbeddedError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The longest a Unix socket's path may be, with `/.s.PGSQL.5432` and a NUL in 108 bytes.
const SOCKET_DIR_MAX: usize = 107 - "/.s.PGSQL.5432".len();
/// `<state_dir>/postgres`, made and owned by the server's account.
pub(super) fn prepare_home(state_dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| {
            EmbeddedError::io("make", &path, error).with_hint(
                "daemon.state_dir must be a directory that trackd may write; that of a service is for its account: be root, or that account",
            )
        }
    };
    let is_new = !state_dir.exists();
    std::fs::create_dir_all(state_dir).map_err(failed(state_dir))?;
    let state_dir = state_dir.canonicalize().map_err(failed(state_dir))?;
    let foreign = Account::current()?.uid != account.uid;
    if is_new && foreign {
        // The server's account passes through, but sees nothing.
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(&state_dir, mode).map_err(failed(&state_dir))?;
    }
    let home = state_dir.join("postgres");
    if !home.exists() {
        std::fs::DirBuilder::new().mode(0o700).create(&home).map_err(failed(&home))?;
        own(&home, account)?;
    }
    let mut probe = Command::new("/bin/sh");
    probe.args(["-c", "cd \"$1\"", "sh"]).arg(&home).current_dir("/").stderr(Stdio::null());
    account.apply(&mut probe);
    match probe.status() {
        Ok(status) if status.success() => Ok(home),
        _ => Err(EmbeddedError::standing(
            format!("open {}: the account {} cannot enter it", home.display(), account.name),
            format!(
                "chmod o+x on {} and the directories above it, or set daemon.state_dir to another place",
                state_dir.display()
            ),
        )),
    }
}

pub(super) fn own(path: &Path, account: &Account) -> Result<(), EmbeddedError> {
    if Account::current()?.uid == account.uid {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
        .map_err(|error| EmbeddedError::io("chown", path, error))
}

/// A directory for the socket, short enough for the kernel: in the state directory, else a private one in /tmp.
pub(super) fn socket_dir(home: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let mut dir = home.join("socket");
    if dir.as_os_str().len() > SOCKET_DIR_MAX {
        // A hash that another build computes alike: a server that runs must be found after an upgrade of trackd.
        let hash = xxhash_rust::xxh3::xxh3_64(home.as_os_str().as_bytes());
        dir = PathBuf::from(format!("/tmp/trackd-{}-{hash:016x}", account.uid));
    }
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => own(&dir, account)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let owner =
                std::fs::symlink_metadata(&dir).map(|meta| (meta.is_dir(), std::os::unix::fs::MetadataExt::uid(&meta)));
            if !matches!(owner, Ok((true, uid)) if uid == account.uid) {
                let what = format!("use {}: it belongs to somebody else", dir.display());
                return Err(EmbeddedError::standing(what, "set daemon.state_dir to a shorter path"));
            }
        }
        Err(error) => return Err(EmbeddedError::io("make", &dir, error)),
    }
    Ok(dir)
}
