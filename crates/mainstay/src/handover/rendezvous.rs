//! [`Rendezvous`]: the Unix socket at which the processes of one service find each other, for one user only.

use std::fs::{self, DirBuilder, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mainstay_core::{Error, Result, ResultExt};
use rustix::process::getuid;
use tokio::net::{UnixListener, UnixStream};

/// Where the processes of `service` at `addr` meet: in `$XDG_RUNTIME_DIR`, in `/run/<service>` if that is ours, or in a
/// folder of our own among the temporary files.
pub(super) fn path(service: &str, addr: SocketAddr) -> Result<PathBuf> {
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from) {
        Some(folder) if is_ours(&folder) => folder,
        _ => match PathBuf::from(format!("/run/{service}")) {
            folder if is_ours(&folder) => folder,
            _ => temporary_folder()?,
        },
    };
    // Colons and brackets of an address are legal in a file's name and a nuisance in a shell.
    let addr = addr.to_string().replace([':', '[', ']', '%'], "-");
    Ok(folder.join(format!("{service}-{addr}.sock")))
}

/// Whether nobody else can put a socket there.
fn is_ours(folder: &Path) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    fs::symlink_metadata(folder)
        .is_ok_and(|found| found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & WRITABLE_BY_OTHERS == 0)
}

fn temporary_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("mainstay-{}", getuid().as_raw()));
    // One that is there already is looked at below, as is one that couldn't be made.
    let _ = DirBuilder::new().mode(0o700).create(&folder);
    if is_ours(&folder) {
        return Ok(folder);
    }
    Err(Error::failed_precondition(format!(
        "{} is not a folder that this user alone can write to: set XDG_RUNTIME_DIR to one, or http.handover to off",
        folder.display()
    )))
}

/// Refuses another user's process.
pub(super) fn check_peer(stream: &UnixStream) -> Result<()> {
    let (peer, ours) = (stream.peer_cred()?.uid(), getuid().as_raw());
    if peer == ours {
        return Ok(());
    }
    Err(Error::failed_precondition(format!("a process of the user {peer} asked for a hand-over of the user {ours}")))
}

/// The socket. Its file goes with it, unless another process has put its own there.
pub(super) struct Rendezvous {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Rendezvous {
    /// Listens at `path` with mode 0600, in the place of whatever is there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let place = || format!("listening at {}", path.display());
        // Made beside and moved, so that there is no moment at which nobody listens or anybody may connect.
        let beside = path.with_extension(format!("{}", std::process::id()));
        let _ = fs::remove_file(&beside); // of a process that died and had our number
        let listener = UnixListener::bind(&beside).with_context(place)?;
        fs::set_permissions(&beside, Permissions::from_mode(0o600)).with_context(place)?;
        let inode = fs::symlink_metadata(&beside).with_context(place)?.ino();
        fs::rename(&beside, path).with_context(place)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// The next process that asks.
    pub(super) async fn accept(&self) -> Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        check_peer(&stream)?;
        Ok(stream)
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // A file that stays is a socket that refuses, which counts as nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_for_this_user_alone_and_a_later_one_is_left_in_place() {
        let folder = std::env::temp_dir().join(format!("mainstay-rendezvous-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        let first = Rendezvous::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = Rendezvous::open(&path).unwrap();
        drop(first);
        let (asked, accepted) = tokio::join!(UnixStream::connect(&path), second.accept());
        assert!(asked.is_ok() && accepted.is_ok());
        drop(second);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_ours() {
        assert!(!is_ours(&std::env::temp_dir()));
        assert!(!is_ours(Path::new("/nowhere")));
    }
}
