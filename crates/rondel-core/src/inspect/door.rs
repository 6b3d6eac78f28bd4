//! Where a process's inspector listens: a socket that its owner alone can reach.
//!
//! `$XDG_RUNTIME_DIR/rondel/PID.sock`, or `TMPDIR/rondel-UID/PID.sock` without such a folder. The
//! folder is the owner's and closed to all others (0700), and is looked at through a descriptor that
//! followed no link; in a world-writable `/tmp` its sticky bit keeps others from putting another in its
//! place. On top of that each peer is asked for its user (`SO_PEERCRED`).

use rustix::fs::{Mode, OFlags};
use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Folders in the order in which they are tried.
fn folders() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut folders = Vec::new();
    if let Some(run) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && run.is_absolute()
    {
        folders.push(run.join("rondel"));
    }
    let temporary = std::env::var_os("TMPDIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    folders.push(temporary.join(format!("rondel-{uid}")));
    folders
}

/// Makes the folder if it is not there, and checks whose it is.
fn prepare(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&opened)?;
    let owner = rustix::process::geteuid().as_raw();
    if stat.st_uid != owner || stat.st_mode & 0o077 != 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// A listening socket, and the file that it is.
#[derive(Debug)]
pub struct Door {
    pub listener: UnixListener,
    pub path: PathBuf,
    /// The file's, by which it is known that nobody has put another in its place.
    inode: u64,
}

impl Door {
    /// Opens this process's.
    ///
    /// # Errors
    /// When no folder can be used, of the last one.
    pub fn open() -> io::Result<Door> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        for folder in folders() {
            match prepare(&folder).and_then(|()| Door::open_in(&folder)) {
                Ok(door) => return Ok(door),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_in(folder: &Path) -> io::Result<Door> {
        let path = folder.join(format!("{}.sock", std::process::id()));
        if let Ok(found) = std::fs::symlink_metadata(&path) {
            // A process of this number that is dead; or one in another container, which is alive.
            if !found.file_type().is_socket() || UnixStream::connect(&path).is_ok() {
                return Err(ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let inode = std::fs::symlink_metadata(&path)?.ino();
        Ok(Door {
            listener,
            path,
            inode,
        })
    }

    /// Whether the descriptor is still the socket: a program may close all that it did not open.
    pub(super) fn is_whole(&self) -> bool {
        self.listener
            .local_addr()
            .is_ok_and(|address| address.as_pathname() == Some(self.path.as_path()))
    }

    /// Takes the file away, if it is ours.
    pub fn remove(&self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Nothing is to be done about a failure: a stale file misleads nobody.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the one at the other end may ask: the same user, or root.
pub(super) fn may_ask(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}
