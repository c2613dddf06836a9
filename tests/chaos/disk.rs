//! A small file system of its own, which can be filled and emptied; and the ordinary one where mounting is not allowed.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory; gone when dropped, if it was mounted.
#[derive(Debug)]
pub struct Disk {
    pub path: PathBuf,
    mounted: bool,
}

impl Disk {
    /// `path` as a tmpfs of so many MiB if this process may mount one, else as a plain directory.
    pub fn make(path: PathBuf, mebibytes: u32) -> std::io::Result<Disk> {
        std::fs::create_dir_all(&path)?;
        let size = format!("size={mebibytes}m,mode=0755");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "trackd-chaos"]).arg(&path).output();
        Ok(Disk { mounted: mount.is_ok_and(|output| output.status.success()), path })
    }

    /// Whether it can be filled without harm to others.
    pub fn is_small(&self) -> bool {
        self.mounted
    }

    /// A directory in it, of this owner.
    pub fn directory(&self, name: &str, owner: (u32, u32)) -> std::io::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
        Ok(path)
    }

    /// Leaves not a byte.
    pub fn fill(&self) {
        if let (true, Ok(mut file)) = (self.mounted, File::create(self.filler())) {
            let block = vec![0; 64 * 1024];
            while file.write_all(&block).is_ok() {}
            while file.write_all(&[0]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.path);
        }
    }
}

fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}
