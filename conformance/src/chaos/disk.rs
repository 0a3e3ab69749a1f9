//! [`SmallDisk`]: a file system of its own that can be filled to the last byte.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use mainstay::prelude::*;
use tempfile::TempDir;

use super::server;

/// Enough for a new server, what it writes ahead, and a run.
const SIZE: &str = "size=320m,mode=755";
/// Written at once: much as long as there is much room, then to the last page.
const BLOCKS: [usize; 2] = [1 << 20, 1 << 12];

/// In memory, mounted where nobody else looks. It is unmounted with this value.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

/// Whether one can be mounted here; if not, a sentence about what is missing.
///
/// # Errors
/// That sentence.
pub fn mountable() -> Result<(), String> {
    if !server::is_root() {
        return Err("only root can mount a small disk".to_owned());
    }
    server::find("mount").map(drop).ok_or_else(|| "mount is not installed here".to_owned())
}

impl SmallDisk {
    /// An empty one.
    ///
    /// # Errors
    /// What `mount` says.
    pub async fn mount() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut mount = tokio::process::Command::new("mount");
        server::run(mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder.path())).await?;
        Ok(Self(folder))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room.
    ///
    /// # Errors
    /// What the file system says, besides that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        for size in BLOCKS {
            let block = vec![0; size];
            while let Some(written) = fits(filler.write(&block))? {
                if written == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

/// `None` when there was no room.
fn fits(written: std::io::Result<usize>) -> Result<Option<usize>> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once for everybody else, and in fact when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
