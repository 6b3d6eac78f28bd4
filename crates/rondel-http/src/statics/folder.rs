//! A folder whose files are served, and how one is found below it without leaving it.
//!
//! `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS` is what keeps inside: no `..`, no absolute
//! path and no symbolic link leads out of the folder, whoever changes it meanwhile. A link that stays
//! below is followed. Where the system has no such call (gVisor, a container's filter), each step is
//! taken by itself and no link is followed at all.
//!
//! **The loop does not wait for a disk.** It looks with [`Patience::None`]: `RESOLVE_CACHED` opens only
//! what the system knows by heart, and the bytes of a file are taken with `RWF_NOWAIT`. What that does
//! not give is [`Blocks`], and is looked up again with [`Patience::Full`] by a thread (`super::clerks`),
//! which also has the file's beginning read. Beyond that a file is sent by `sendfile`, with the system
//! reading ahead (`crate::file`). On file systems without `RWF_NOWAIT` small files are read by the loop;
//! `fstat` of an open file is taken to be at hand, which a network's file system may not keep.

use super::coding::{Wishes, suffix};
use super::place::Below;
use crate::compress::Coding;
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Up to so many bytes a file is read at once, and goes out with the response's head.
pub(crate) const SMALL: usize = 16 * 1024;

/// So much of a larger file a thread has read before the loop sends it.
const WARM: usize = 256 * 1024;

/// So often is a path tried on which somebody renames something meanwhile.
const TRIES: usize = 16;

/// What a directory's own page is called.
const INDEX: &[u8] = b"index.html";

const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A pipe without a writer must not be waited for, and a terminal not become ours.
const OPEN: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Whether the caller may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Full,
}

/// The answer is not at hand.
#[derive(Debug)]
pub(crate) struct Blocks;

/// How paths are resolved here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// `openat2`, which can say that it would wait.
    Cached,
    /// `openat2` of a system before 5.12.
    Beneath,
    /// Step by step.
    Steps,
}

#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    means: Means,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing that is served.
    Nothing,
    /// A directory with a page of its own, whose path lacks the slash.
    Directory,
    File(Entry),
}

/// A file that is served.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) file: File,
    pub(crate) len: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, u32),
    pub(crate) coding: Option<Coding>,
    /// Whether others are sent it in other codings.
    pub(crate) varies: bool,
}

impl Folder {
    /// # Errors
    /// Those of opening a directory.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let works = |resolve| {
            let opened = openat2(
                &fd,
                ".",
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            );
            opened.is_ok()
        };
        let means = if works(BELOW | ResolveFlags::CACHED) {
            Means::Cached
        } else if works(BELOW) {
            Means::Beneath
        } else {
            Means::Steps
        };
        Ok(Folder { fd, means })
    }

    /// As on a system that cannot tell what it has in memory.
    pub(crate) fn forget_cache(&mut self) {
        self.means = Means::Beneath;
    }

    /// What is there, in the coding that is wished for most of those that it is there in.
    pub(crate) fn find(
        &self,
        below: &Below,
        wishes: Wishes,
        patience: Patience,
    ) -> Result<Found, Blocks> {
        if patience == Patience::None && self.means != Means::Cached {
            return Err(Blocks);
        }
        let mut path = below.path.clone();
        let Some((mut file, mut stat)) = self.open_below(or_dot(&path), patience)? else {
            return Ok(Found::Nothing);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if !below.slash => {}
            FileType::Directory => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(INDEX);
                match self.open_below(&path, patience)? {
                    Some((index, its)) if is_regular(&its) => (file, stat) = (index, its),
                    _ => return Ok(Found::Nothing),
                }
                if !below.slash {
                    return Ok(Found::Directory);
                }
            }
            _ => return Ok(Found::Nothing),
        }
        let (mut coding, mut varies) = (None, false);
        let plain = path.len();
        for (one, wanted) in wishes.in_order() {
            path.truncate(plain);
            path.extend_from_slice(suffix(one));
            if let Some((coded, its)) = self
                .open_below(&path, patience)?
                .filter(|(_, its)| is_regular(its))
            {
                varies = true;
                if wanted {
                    (file, stat, coding) = (coded, its, Some(one));
                }
                break;
            }
        }
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Found::File(Entry {
            file: File::from(file),
            len,
            modified: modified(&stat),
            coding,
            varies,
        }))
    }

    /// An open file and what it is; `None` if there is none that may be read.
    fn open_below(
        &self,
        path: &[u8],
        patience: Patience,
    ) -> Result<Option<(OwnedFd, Stat)>, Blocks> {
        let opened = match (self.means, patience) {
            (Means::Steps, _) => step_by_step(self.fd.as_fd(), path),
            (_, Patience::None) => openat2(
                &self.fd,
                path,
                OPEN,
                Mode::empty(),
                BELOW | ResolveFlags::CACHED,
            ),
            (_, Patience::Full) => {
                let mut tries =
                    (0..TRIES).map(|_| openat2(&self.fd, path, OPEN, Mode::empty(), BELOW));
                tries
                    .find(|opened| !matches!(opened, Err(Errno::AGAIN)))
                    .unwrap_or(Err(Errno::AGAIN))
            }
        };
        match opened {
            Ok(fd) => Ok(fstat(&fd).ok().map(|stat| (fd, stat))),
            Err(Errno::AGAIN) if patience == Patience::None => Err(Blocks),
            // Not there, not ours, not to be opened: nothing that is served.
            Err(_) => Ok(None),
        }
    }
}

impl Entry {
    /// These bytes of the file, if they are few; `None` if `sendfile` should send them, for which their
    /// beginning is at hand.
    pub(crate) fn read(
        &self,
        part: &Range<u64>,
        patience: Patience,
    ) -> Result<Option<Bytes>, Blocks> {
        let len = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let small = len <= SMALL;
        let mut bytes = vec![0; if small { len } else { 1 }];
        let read = match patience {
            Patience::None => {
                let mut into = [IoSliceMut::new(&mut bytes)];
                match preadv2(&self.file, &mut into, part.start, ReadWriteFlags::NOWAIT) {
                    Ok(read) if read < bytes.len() => return Err(Blocks),
                    Err(Errno::AGAIN) => return Err(Blocks),
                    // This file system cannot tell.
                    Err(Errno::OPNOTSUPP | Errno::NOSYS) if small => {
                        pread(&self.file, &mut *bytes, part.start)
                    }
                    read => read,
                }
            }
            Patience::Full if small => pread(&self.file, &mut *bytes, part.start),
            Patience::Full => return Ok(None),
        };
        // One that became shorter, or can't be read: sending it tells.
        Ok((small && read == Ok(len)).then(|| Bytes::from(bytes)))
    }

    /// Has the beginning read, so that the loop finds it in memory. Waits for the disk.
    pub(crate) fn warm(&self) {
        let mut bytes = vec![0; WARM.min(usize::try_from(self.len).unwrap_or(WARM))];
        // Whoever sends it is told of errors.
        let _read = pread(&self.file, &mut *bytes, 0);
    }
}

fn or_dot(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// For systems without `openat2`: every directory on the way is opened, and none by a link.
fn step_by_step(folder: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut names = path.split(|&byte| byte == b'/');
    let last = names.next_back().unwrap_or(b".");
    let mut at: Option<OwnedFd> = None;
    for name in names {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = at.as_ref().map_or(folder, AsFd::as_fd);
        at = Some(openat(from, name, flags, Mode::empty())?);
    }
    let from = at.as_ref().map_or(folder, AsFd::as_fd);
    openat(from, last, OPEN | OFlags::NOFOLLOW, Mode::empty())
}

fn modified(stat: &Stat) -> (i64, u32) {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    #[allow(
        clippy::useless_conversion,
        reason = "their types differ among systems"
    )]
    (i64::from(stat.st_mtime), nanoseconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::statics::place::below;
    use hyper::header::HeaderMap;
    use std::os::unix::fs::symlink;

    /// What a path finds: `file`, `directory`, or nothing; or that it would have to wait.
    fn found(folder: &Folder, path: &str, patience: Patience) -> &'static str {
        let wishes = Wishes::of(&HeaderMap::new());
        match folder.find(&below(path).unwrap(), wishes, patience) {
            Ok(Found::Nothing) => "nothing",
            Ok(Found::Directory) => "directory",
            Ok(Found::File(_)) => "file",
            Err(Blocks) => "blocks",
        }
    }

    #[test]
    fn every_means_finds_the_same_and_none_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["a/b/index.html", "a/b/file", "file"] {
            std::fs::write(root.join(name), "x").unwrap();
        }
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("..", root.join("parent")).unwrap();
        symlink("file", root.join("inside")).unwrap();
        let mut folder = Folder::open(&root).unwrap();
        for means in [folder.means, Means::Beneath, Means::Steps] {
            folder.means = means;
            for (path, what) in [
                ("/file", "file"),
                ("/a/b/file", "file"),
                ("/a/b", "directory"),
                ("/a/b/", "file"),
                ("/a", "nothing"),
                ("/file/", "nothing"),
                ("/file/x", "nothing"),
                ("/out", "nothing"),
                ("/parent/secret", "nothing"),
                ("/parent/root/file", "nothing"),
                ("/nothing", "nothing"),
                ("", "nothing"),
            ] {
                assert_eq!(
                    found(&folder, path, Patience::Full),
                    what,
                    "{means:?} {path}"
                );
            }
            // A link that stays inside: followed where the system sees to it.
            let inside = if means == Means::Steps {
                "nothing"
            } else {
                "file"
            };
            assert_eq!(found(&folder, "/inside", Patience::Full), inside);
        }
    }

    #[test]
    fn the_impatient_are_told_where_the_system_cannot_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let mut folder = Folder::open(dir.path()).unwrap();
        for means in [Means::Beneath, Means::Steps] {
            folder.means = means;
            assert_eq!(found(&folder, "/file", Patience::None), "blocks");
        }
    }
}
