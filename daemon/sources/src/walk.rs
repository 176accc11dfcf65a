//! The way through a folder: directory by directory, by name, links judged, never out of the root.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use moat_contracts::Skip;
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use crate::SourceError;
use crate::file::{self, Facts};
use crate::path::{encode, join, split};
use crate::scan::{Entry, Scan};

/// Folders below each other that are entered; each keeps a descriptor open.
const DEPTH: usize = 200;

/// Names in a folder, in the order of their bytes, without those to be passed over.
pub(crate) fn list(folder: impl AsFd, ignores: impl Fn(&[u8]) -> bool) -> io::Result<Vec<Box<[u8]>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !ignores(name) {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Where a link leads.
enum Target {
    /// To what the walk meets under its own path.
    Alias,
    /// To something hidden in the root: the folder that holds it, its name there, and what it is.
    Hidden(OwnedFd, Vec<u8>, Facts),
    /// Out of the root, nowhere, or around in a circle.
    Astray,
}

impl Scan<'_> {
    /// Names in a folder that this source looks at.
    pub(crate) fn list(&self, folder: impl AsFd) -> io::Result<Vec<Box<[u8]>>> {
        list(folder, |name| self.folder.ignores(name))
    }

    /// Walks one folder. `above` are device and inode of it and of the folders that lead to it.
    fn enter(
        &mut self,
        folder: &OwnedFd,
        path: &[u8],
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), SourceError> {
        match self.list(folder) {
            Ok(names) => self.entries(folder, names, path, above),
            Err(_) => {
                self.close(path);
                Ok(())
            }
        }
    }

    /// Notes a folder that cannot be listed.
    fn close(&mut self, path: &[u8]) {
        self.report.unreadable_folders += 1;
        self.closed.insert(encode(path));
    }

    /// Visits the entries of a folder.
    pub(crate) fn entries(
        &mut self,
        folder: &OwnedFd,
        names: Vec<Box<[u8]>>,
        path: &[u8],
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), SourceError> {
        for name in names {
            let path = join(path, &name);
            match file::look(folder, &name) {
                Ok(facts) => {
                    let entry = Entry { folder, name: &name, path: &path, facts };
                    self.visit(&entry, above, false)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.report.vanished += 1,
                // What cannot even be looked at may be a folder; it keeps what is known at and below it.
                Err(_) => self.close(&path),
            }
        }
        Ok(())
    }

    /// Visits one entry, whatever it is.
    pub(crate) fn visit(
        &mut self,
        entry: &Entry<'_>,
        above: &mut Vec<(u64, u64)>,
        last: bool,
    ) -> Result<(), SourceError> {
        match entry.facts.kind() {
            FileType::RegularFile => self.document(entry, None, last),
            FileType::Directory => self.descend(entry, entry.path, above),
            FileType::Symlink => self.link(entry, above, last),
            _ => self.document(entry, Some(Skip::Special), last),
        }
    }

    /// Enters the folder that an entry is, under a path that may be a link's.
    fn descend(
        &mut self,
        entry: &Entry<'_>,
        path: &[u8],
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), SourceError> {
        if above.len() >= DEPTH {
            self.close(path);
            return Ok(());
        }
        match file::open_folder(entry.folder, entry.name) {
            Ok(folder) => {
                above.push((entry.facts.device, entry.facts.inode));
                let walked = self.enter(&folder, path, above);
                above.pop();
                walked
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.report.vanished += 1;
                Ok(())
            }
            Err(_) => {
                self.close(path);
                Ok(())
            }
        }
    }

    fn link(
        &mut self,
        entry: &Entry<'_>,
        above: &mut Vec<(u64, u64)>,
        last: bool,
    ) -> Result<(), SourceError> {
        match self.target(entry.path) {
            Target::Alias => {
                self.report.aliases += 1;
                Ok(())
            }
            Target::Astray => self.document(entry, Some(Skip::Link), last),
            Target::Hidden(folder, name, facts) => {
                let target = Entry { folder: &folder, name: &name, path: entry.path, facts };
                let place = (facts.device, facts.inode);
                match facts.kind() {
                    FileType::RegularFile => self.document(&target, None, last),
                    FileType::Directory if above.contains(&place) => {
                        self.document(entry, Some(Skip::Link), last)
                    }
                    FileType::Directory if self.followed.insert(place) => {
                        self.descend(&target, entry.path, above)
                    }
                    FileType::Directory => {
                        self.report.aliases += 1;
                        Ok(())
                    }
                    _ => self.document(entry, Some(Skip::Special), last),
                }
            }
        }
    }

    fn target(&self, path: &[u8]) -> Target {
        let Ok(real) = self.base.join(Path::new(std::ffi::OsStr::from_bytes(path))).canonicalize() else {
            return Target::Astray;
        };
        let Ok(inside) = real.strip_prefix(&self.base) else { return Target::Astray };
        let inside = inside.as_os_str().as_bytes();
        if inside.is_empty() {
            return Target::Astray;
        }
        let (parent, name) = split(inside);
        let Ok(folder) = self.open(parent) else { return Target::Astray };
        let Ok(facts) = file::look(&folder, name) else { return Target::Astray };
        let regular = matches!(facts.kind(), FileType::RegularFile | FileType::Directory);
        if inside.split(|byte| *byte == b'/').any(|name| self.folder.ignores(name)) {
            return Target::Hidden(folder, name.to_vec(), facts);
        }
        if regular { Target::Alias } else { Target::Astray }
    }

    /// The file that an entry stands for: what a followed link leads to, or the entry itself.
    pub(crate) fn beyond(&self, path: &[u8], facts: Facts) -> Facts {
        if facts.kind() != FileType::Symlink {
            return facts;
        }
        match self.target(path) {
            Target::Hidden(_, _, target) if target.kind() == FileType::RegularFile => target,
            _ => facts,
        }
    }

    /// Opens a folder by its path from the root, through no link.
    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut folder = self.root.try_clone()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            folder = file::open_folder(&folder, name)?;
        }
        Ok(folder)
    }

    /// Opens a folder by its path from the root, through links that stay in the root.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.open(path) {
            Ok(folder) => Ok(folder),
            Err(_) => {
                let real = self.base.join(Path::new(std::ffi::OsStr::from_bytes(path))).canonicalize()?;
                let inside = real.strip_prefix(&self.base).map_err(|_| Errno::XDEV)?;
                self.open(&inside.as_os_str().to_owned().into_vec())
            }
        }
    }

    /// Looks at one path from the root and all below it; nothing where it is no longer there.
    pub(crate) fn below(&mut self, path: &[u8]) -> Result<(), SourceError> {
        let (parent, name) = split(path);
        let mut above = Vec::new();
        let mut folder = match self.root.try_clone() {
            Ok(folder) => folder,
            Err(error) => return Err(self.lost(error)),
        };
        let mut so_far: Vec<u8> = Vec::new();
        for part in parent.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            so_far = join(&so_far, part);
            if let Ok(facts) = file::look_at(&folder) {
                above.push((facts.device, facts.inode));
            }
            match file::open_folder(&folder, part) {
                Ok(next) => folder = next,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.close(&so_far);
                    return Ok(());
                }
                // Gone, or no longer a folder: then nothing is at the path either.
                Err(_) => return Ok(()),
            }
        }
        if let Ok(facts) = file::look_at(&folder) {
            above.push((facts.device, facts.inode));
        }
        match file::look(&folder, name) {
            Ok(facts) => {
                let entry = Entry { folder: &folder, name, path, facts };
                self.visit(&entry, &mut above, false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => {
                self.close(path);
                Ok(())
            }
        }
    }
}
