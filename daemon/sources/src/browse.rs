//! Looking into a source without taking anything in: what one folder of it holds, and whether all of it can be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gix::objs::tree::EntryKind;
use moat_contracts::Skip;
use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::file::{self, Facts};
use crate::path::{decode, encode, join};
use crate::walk::list;
use crate::{Folder, Git, SourceError, tree};

/// Folders below each other that are entered.
const DEPTH: usize = 200;

/// Problems that are named; more are counted.
const PROBLEMS: usize = 100;

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryIs {
    /// A folder, which can be looked into.
    Folder,
    /// A regular file.
    File,
    /// A link; it is never followed here.
    Link,
    /// A device, pipe or socket, or a submodule of a repository.
    Special,
}

/// One entry of a folder of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// Its name, as paths are written.
    pub name: String,
    /// What it is.
    pub is: EntryIs,
    /// Bytes, of a file that could be looked at.
    pub size: Option<u64>,
    /// Last change of its content, seconds since 1970, where the source keeps that.
    pub modified: Option<i64>,
    /// Whether the source passes it over by its name.
    pub passed_over: bool,
}

/// A part of what a folder of a source holds, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<ListedEntry>,
    /// Entries that the folder has in all.
    pub of: u64,
}

/// How much a trial may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialLimits {
    /// Entries.
    pub entries: u64,
    /// Time.
    pub time: Duration,
}

/// What a trial of a source found. Nothing of it was taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Files that can be opened.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Folders that were entered.
    pub folders: u64,
    /// Entries that would not be read, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// Entries that are passed over by their names.
    pub passed_over: u64,
    /// Folders that cannot be listed.
    pub closed: u64,
    /// The first entries that would not be read: path, and why; no reason for a folder that cannot be listed.
    pub problems: Vec<(String, Option<Skip>)>,
    /// Whether everything was looked at within the limits.
    pub whole: bool,
    /// The commit at the tip of a repository.
    pub commit: Option<String>,
}

impl Trial {
    fn problem(&mut self, path: &[u8], why: Option<Skip>) {
        match why {
            Some(skip) => *self.skipped.entry(skip).or_default() += 1,
            None => self.closed += 1,
        }
        if self.problems.len() < PROBLEMS {
            self.problems.push((encode(path), why));
        }
    }

    fn file(&mut self, size: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
    }
}

/// Counts what a trial does against its limits.
struct Budget {
    left: u64,
    until: Instant,
}

impl Budget {
    fn of(limits: TrialLimits) -> Self {
        Self { left: limits.entries, until: Instant::now() + limits.time }
    }

    fn spend(&mut self) -> bool {
        let some = self.left > 0 && Instant::now() < self.until;
        self.left = self.left.saturating_sub(1);
        some
    }
}

/// The names on the way to a folder of a source, from its root; `None` for one that leads out of it.
fn steps(folder: &str) -> Option<Vec<Vec<u8>>> {
    let names = folder.split('/').filter(|name| !name.is_empty()).map(decode);
    // What stands escaped is judged as what it means.
    names.map(|name| (name != b"." && name != b".." && !name.contains(&b'/')).then_some(name)).collect()
}

/// A part of a folder's names: `most` of those behind `after`.
fn part(mut names: Vec<Box<[u8]>>, after: Option<&str>, most: usize) -> (Vec<Box<[u8]>>, u64) {
    let of = names.len() as u64;
    if let Some(after) = after.map(decode) {
        names.retain(|name| **name > *after);
    }
    names.truncate(most);
    (names, of)
}

impl Folder {
    /// What a folder of the source holds: at most `most` entries behind the name `after`. Nothing is opened but folders,
    /// and no link is followed, not even one that stays inside.
    ///
    /// # Errors
    /// [`SourceError::Root`] where the source's folder cannot be read, [`SourceError::Place`] where the asked one is not
    /// there, leads out of the source, or may not be read.
    pub fn browse(&self, folder: &str, after: Option<&str>, most: usize) -> Result<Listing, SourceError> {
        let names = steps(folder).ok_or_else(|| self.no_place(io::ErrorKind::InvalidInput.into()))?;
        if names.iter().any(|name| self.ignores(name)) {
            return Err(self.no_place(io::ErrorKind::NotFound.into()));
        }
        let (_, mut open) = self.root()?;
        for name in &names {
            open = file::open_folder(&open, name).map_err(|error| self.no_place(error))?;
        }
        let all = list(&open, |_| false).map_err(|error| self.no_place(error))?;
        let (names, of) = part(all, after, most);
        let entries = names.iter().map(|name| {
            let facts = file::look(&open, name).ok();
            let is = facts.map_or(EntryIs::Special, |facts| match facts.kind() {
                FileType::Directory => EntryIs::Folder,
                FileType::RegularFile => EntryIs::File,
                FileType::Symlink => EntryIs::Link,
                _ => EntryIs::Special,
            });
            let of_file = facts.filter(|_| is == EntryIs::File);
            ListedEntry {
                name: encode(name),
                is,
                size: of_file.map(|facts| facts.size),
                modified: of_file.map(|facts| facts.modified_ns.div_euclid(1_000_000_000)),
                passed_over: self.ignores(name),
            }
        });
        Ok(Listing { entries: entries.collect(), of })
    }

    /// Looks whether everything in the folder could be read: every file is opened, and its first byte read.
    ///
    /// # Errors
    /// [`SourceError::Root`] where the folder itself cannot be read.
    pub fn test(&self, limits: TrialLimits) -> Result<Trial, SourceError> {
        let (base, root) = self.root()?;
        let mut trial = Trial { whole: true, ..Trial::default() };
        let mut budget = Budget::of(limits);
        self.walk(&base, &root, b"", 0, &mut budget, &mut trial);
        Ok(trial)
    }

    /// The root, where it really lies, and open.
    fn root(&self) -> Result<(PathBuf, OwnedFd), SourceError> {
        let lost = |error| SourceError::Root { name: self.name.clone(), root: self.root.clone(), error };
        let base = self.root.canonicalize().map_err(lost)?;
        let root = file::open_folder(rustix::fs::CWD, base.as_os_str().as_bytes()).map_err(lost)?;
        Ok((base, root))
    }

    fn no_place(&self, error: io::Error) -> SourceError {
        SourceError::Place { name: self.name.clone(), reason: error.to_string() }
    }

    fn walk(
        &self,
        base: &Path,
        folder: &OwnedFd,
        path: &[u8],
        depth: usize,
        budget: &mut Budget,
        trial: &mut Trial,
    ) {
        let Ok(names) = list(folder, |_| false) else { return trial.problem(path, None) };
        trial.folders += 1;
        for name in names {
            if !budget.spend() {
                trial.whole = false;
                return;
            }
            if self.ignores(&name) {
                trial.passed_over += 1;
                continue;
            }
            let path = join(path, &name);
            let facts = match file::look(folder, &name) {
                Ok(facts) => facts,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => {
                    trial.problem(&path, None);
                    continue;
                }
            };
            match facts.kind() {
                FileType::Directory if depth >= DEPTH => trial.problem(&path, None),
                FileType::Directory => match file::open_folder(folder, &name) {
                    Ok(open) => self.walk(base, &open, &path, depth + 1, budget, trial),
                    Err(_) => trial.problem(&path, None),
                },
                FileType::RegularFile if facts.size > self.max_bytes => {
                    trial.problem(&path, Some(Skip::TooLarge));
                }
                FileType::RegularFile if opens(folder, &name, &facts) => trial.file(facts.size),
                FileType::RegularFile => trial.problem(&path, Some(Skip::Unreadable)),
                FileType::Symlink if stays(base, &path) => trial.passed_over += 1,
                FileType::Symlink => trial.problem(&path, Some(Skip::Link)),
                _ => trial.problem(&path, Some(Skip::Special)),
            }
        }
    }
}

/// Whether a regular file opens and gives its first byte.
fn opens(folder: &OwnedFd, name: &[u8], seen: &Facts) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let Ok(open) = openat(folder, name, flags, Mode::empty()) else { return false };
    let same = |facts: Facts| (facts.device, facts.inode) == (seen.device, seen.inode);
    file::look_at(&open).is_ok_and(same) && File::from(open).read(&mut [0]).is_ok()
}

/// Whether a link leads to something in the source.
fn stays(base: &Path, path: &[u8]) -> bool {
    let real = base.join(Path::new(std::ffi::OsStr::from_bytes(path))).canonicalize();
    real.is_ok_and(|real| real.strip_prefix(base).is_ok_and(|inside| !inside.as_os_str().is_empty()))
}

impl Git {
    /// What a folder of the tree at the tip holds, as [`Folder::browse`].
    ///
    /// # Errors
    /// [`SourceError::Repository`] where the repository cannot be read, [`SourceError::Place`] where the folder is not in
    /// the tree.
    pub fn browse(&self, folder: &str, after: Option<&str>, most: usize) -> Result<Listing, SourceError> {
        let missing =
            || SourceError::Place { name: self.name.clone(), reason: "no such folder at the tip".to_owned() };
        let names = steps(folder).ok_or_else(missing)?;
        let (repository, _, mut tree) = self.tree()?;
        let read = |tree| tree::entries(&repository, tree).map_err(|error| self.broken(&error));
        let mut entries = read(tree)?;
        for name in &names {
            let found = entries.iter().find(|entry| entry.name == *name && entry.mode.is_tree());
            tree = found.ok_or_else(missing)?.id;
            entries = read(tree)?;
        }
        let of = entries.len() as u64;
        if let Some(after) = after.map(decode) {
            entries.retain(|entry| entry.name > after);
        }
        entries.truncate(most);
        let listed = entries.iter().map(|entry| {
            let is = match entry.mode.kind() {
                EntryKind::Tree => EntryIs::Folder,
                EntryKind::Blob | EntryKind::BlobExecutable => EntryIs::File,
                EntryKind::Link => EntryIs::Link,
                EntryKind::Commit => EntryIs::Special,
            };
            let header = || repository.find_header(entry.id).ok().map(|header| header.size());
            ListedEntry {
                name: encode(&entry.name),
                is,
                size: if is == EntryIs::File { header() } else { None },
                modified: None,
                passed_over: false,
            }
        });
        Ok(Listing { entries: listed.collect(), of })
    }

    /// Looks whether every object that the tip names is there.
    ///
    /// # Errors
    /// [`SourceError::Repository`] where there is no readable repository, branch or commit.
    pub fn test(&self, limits: TrialLimits) -> Result<Trial, SourceError> {
        let (repository, commit, tree) = self.tree()?;
        let mut trial = Trial { whole: true, commit: Some(commit.to_string()), ..Trial::default() };
        let mut budget = Budget::of(limits);
        let walked = tree::files(&repository, tree, &mut |path, blob| {
            if !budget.spend() {
                trial.whole = false;
                return;
            }
            match blob.kind {
                EntryKind::Link => trial.problem(path, Some(Skip::Link)),
                EntryKind::Commit => trial.problem(path, Some(Skip::Special)),
                _ => match repository.find_header(blob.id) {
                    Ok(header) if header.size() > self.max_bytes => trial.problem(path, Some(Skip::TooLarge)),
                    Ok(header) => trial.file(header.size()),
                    Err(_) => trial.problem(path, Some(Skip::Unreadable)),
                },
            }
        });
        walked.map_err(|error| self.broken(&error))?;
        Ok(trial)
    }
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn no_way_leads_up() {
        for out in ["..", "a/../..", "a/%2E%2E", "%2e", "a%2Fb", "./a"] {
            assert_eq!(steps(out), None, "{out}");
        }
        assert_eq!(steps("/a//b/"), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(steps(""), Some(Vec::new()));
    }
}
