//! Opening, looking at and reading one file, without ever following a link or waiting on a device.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use moat_catalog::Stamp;
use moat_contracts::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxFlags, fstat, openat, statat, statx};
use rustix::io::Errno;

/// Bytes that a stamp's header covers.
const HEADER: usize = 4096;

/// What the file system says of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Facts {
    fn of(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, rest: u64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(rest).unwrap_or(0))
        };
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
            user: stat.st_uid,
            group: stat.st_gid,
        }
    }

    /// What sort of entry.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// The stamp that the catalog keeps, with the header of the content that was read, or of nothing.
    pub(crate) fn stamp(&self, content: &[u8]) -> Stamp {
        Stamp {
            device: self.device,
            inode: self.inode,
            size: self.size,
            modified_ns: self.modified_ns,
            changed_ns: self.changed_ns,
            header: Digest::of(&content[..content.len().min(HEADER)]),
        }
    }

    /// Whether a stamp is of this file at this version. The device may have another number: some file systems get a
    /// new one at each mount.
    pub(crate) fn matches(&self, stamp: &Stamp) -> bool {
        (self.inode, self.size, self.modified_ns, self.changed_ns)
            == (stamp.inode, stamp.size, stamp.modified_ns, stamp.changed_ns)
    }

    /// Whether the content begins as it did when it was stamped. Where one of the two was never read, or was empty,
    /// size and time of the content decide.
    pub(crate) fn starts_like(&self, content: Option<&[u8]>, stamp: &Stamp) -> bool {
        let length = usize::try_from(stamp.size).unwrap_or(HEADER).min(HEADER);
        match content {
            Some(content) if length > 0 && stamp.header != Digest::of(b"") => {
                content.get(..length).is_some_and(|start| Digest::of(start) == stamp.header)
            }
            _ => (self.size, self.modified_ns) == (stamp.size, stamp.modified_ns),
        }
    }
}

/// What reading a file came to.
pub(crate) enum Content {
    /// Its bytes, and what the file system said of exactly these.
    Bytes(Vec<u8>, Facts),
    /// Larger than allowed; never read.
    TooLarge(Facts),
    /// Not allowed, or the medium fails.
    Unreadable,
    /// No longer there.
    Vanished,
    /// It changed while it was read, or became another file.
    Unsettled,
}

/// Looks at an entry of a folder, not through it where it is a link.
pub(crate) fn look(folder: impl AsFd, name: &[u8]) -> io::Result<Facts> {
    Ok(Facts::of(&statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// When an entry was made, nanoseconds since 1970, where the file system keeps that.
pub(crate) fn born(folder: impl AsFd, name: &[u8]) -> Option<i64> {
    let facts = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    StatxFlags::from_bits_retain(facts.stx_mask).contains(StatxFlags::BTIME).then(|| {
        facts.stx_btime.tv_sec.saturating_mul(1_000_000_000).saturating_add(facts.stx_btime.tv_nsec.into())
    })
}

/// Looks at what is open.
pub(crate) fn look_at(open: impl AsFd) -> io::Result<Facts> {
    Ok(Facts::of(&fstat(open)?))
}

/// Opens a folder in a folder; a link is refused.
pub(crate) fn open_folder(folder: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

/// Reads a regular file that was just looked at, at one version: what the file system says of it must be the same
/// before and after.
pub(crate) fn read(folder: impl AsFd, name: &[u8], seen: &Facts, max_bytes: u64) -> Content {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut file = match openat(folder, name, flags, Mode::empty()) {
        Ok(open) => File::from(open),
        Err(Errno::NOENT) => return Content::Vanished,
        // Another kind of entry took its place, or this process is out of descriptors for now.
        Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::MFILE | Errno::NFILE) => {
            return Content::Unsettled;
        }
        Err(_) => return Content::Unreadable,
    };
    for _ in 0..3 {
        let Ok(before) = look_at(&file) else { return Content::Unreadable };
        let same = (before.device, before.inode) == (seen.device, seen.inode);
        if !same || before.kind() != FileType::RegularFile {
            return Content::Unsettled;
        }
        if before.size > max_bytes {
            return Content::TooLarge(before);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or(0).saturating_add(1));
        // One byte more than it says it has shows that it grew, and bounds what a growing one can take.
        let taken = io::Seek::rewind(&mut file)
            .and_then(|()| file.by_ref().take(before.size + 1).read_to_end(&mut bytes));
        if taken.is_err() {
            return Content::Unreadable;
        }
        match look_at(&file) {
            Ok(after) if after == before && bytes.len() as u64 == before.size => {
                return Content::Bytes(bytes, before);
            }
            Ok(_) => {}
            Err(_) => return Content::Unreadable,
        }
    }
    Content::Unsettled
}
