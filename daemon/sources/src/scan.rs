use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moat_catalog::{Catalog, CatalogError, Known, Stamp, Sweep};
use moat_contracts::{Digest, Document, DocumentId, DocumentState, Skip};
use rustix::fs::FileType;

use crate::file::{self, Content, Facts};
use crate::identity::{Claim, Identity, Taken, identify, mint};
use crate::path::{decode, encode, kind_hint, split, upwards};
use crate::readers::Names;
use crate::{Change, Folder, ScanReport, SinkClosed, SourceError};

/// Files that may wait for the end of a scan; more are decided at once, by what was seen so far.
const PENDING: usize = 65_536;

/// Unsettled files that are named in the report.
const AGAIN: usize = 4096;

/// A file that is written without a pause is taken as it is when nothing of it was for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A time of change that lies further ahead than this is the mark of a wrong clock, not of a file being written.
const AHEAD: Duration = Duration::from_secs(3600);

/// One scan under way.
pub(crate) struct Scan<'a> {
    pub(crate) folder: &'a Folder,
    catalog: &'a Catalog,
    rules: Digest,
    sink: &'a mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    sweep: Sweep<'a>,
    names: Names,
    /// The root, open, and where it really lies.
    pub(crate) root: OwnedFd,
    pub(crate) base: PathBuf,
    device: u64,
    pub(crate) report: ScanReport,
    pending: Vec<Pending>,
    /// Documents that a file still being written may be.
    perhaps: HashSet<DocumentId>,
    /// Folders that could not be listed.
    pub(crate) closed: HashSet<String>,
    /// Folders that were entered through a link.
    pub(crate) followed: HashSet<(u64, u64)>,
}

/// A file to come back to when all others have been seen.
struct Pending {
    path: Vec<u8>,
    unsettled: bool,
}

/// Nanoseconds since a time, negative where it is still to come.
fn age(nanoseconds: i64) -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    now.cast_signed() - i128::from(nanoseconds)
}

/// One entry of a folder: where it is and what it is.
pub(crate) struct Entry<'e> {
    pub(crate) folder: &'e OwnedFd,
    pub(crate) name: &'e [u8],
    /// From the root.
    pub(crate) path: &'e [u8],
    pub(crate) facts: Facts,
}

impl<'a> Scan<'a> {
    pub(crate) fn begin(
        folder: &'a Folder,
        catalog: &'a Catalog,
        rules: Digest,
        sink: &'a mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    ) -> Result<Self, SourceError> {
        let lost = |error| SourceError::Root { name: folder.name.clone(), root: folder.root.clone(), error };
        let base = folder.root.canonicalize().map_err(lost)?;
        let root = file::open_folder(rustix::fs::CWD, base.as_os_str().as_encoded_bytes()).map_err(lost)?;
        let device = file::look_at(&root).map_err(lost)?.device;
        Ok(Self {
            folder,
            catalog,
            rules,
            sink,
            sweep: catalog.sweep(&folder.name)?,
            names: Names::of_machine(),
            root,
            base,
            device,
            report: ScanReport::default(),
            pending: Vec::new(),
            perhaps: HashSet::new(),
            closed: HashSet::new(),
            followed: HashSet::new(),
        })
    }

    pub(crate) fn everything(mut self) -> Result<ScanReport, SourceError> {
        let root = file::look_at(&self.root).map_err(|error| self.lost(error))?;
        let names = self.list(&self.root).map_err(|error| self.lost(error))?;
        if names.is_empty() {
            self.refuse_unmounted()?;
        }
        let folder = self.root.try_clone().map_err(|error| self.lost(error))?;
        self.entries(&folder, names, b"", &mut vec![(root.device, root.inode)])?;
        self.come_back()?;
        let (sweep, mut departures) = self.departures();
        let mut stopped = None;
        let swept = sweep.unmet(|known| {
            departures.gone(known).map_err(|error| {
                stopped = Some(error);
                CatalogError::Interrupted("the scan stopped".to_owned())
            })
        });
        match stopped {
            Some(error) => Err(error),
            None => swept.map(|()| departures.report).map_err(SourceError::from),
        }
    }

    pub(crate) fn only(mut self, paths: &BTreeSet<String>) -> Result<ScanReport, SourceError> {
        // What lies below another of the paths is looked at with it.
        let paths: Vec<&str> = paths
            .iter()
            .map(String::as_str)
            .filter(|path| !upwards(path).skip(1).any(|above| paths.contains(above)))
            .filter(|path| !path.split('/').any(|name| self.folder.ignores(&decode(name))))
            .collect();
        for path in &paths {
            self.below(&decode(path))?;
        }
        self.come_back()?;
        let catalog = self.catalog;
        let (sweep, mut departures) = self.departures();
        for path in paths {
            let at = catalog.documents_at(&departures.folder.name, path)?;
            let under = catalog.documents_under(&departures.folder.name, &format!("{path}/"))?;
            for known in at.into_iter().chain(under) {
                if !sweep.has_met(known.document.id)? {
                    departures.gone(known)?;
                }
            }
        }
        Ok(departures.report)
    }

    pub(crate) fn lost(&self, error: io::Error) -> SourceError {
        SourceError::Root { name: self.folder.name.clone(), root: self.folder.root.clone(), error }
    }

    /// An empty root on another device than all that is known: the place of a mount, without the mount.
    fn refuse_unmounted(&self) -> Result<(), SourceError> {
        let (mut known, mut here) = (0, false);
        self.catalog.each_document(&self.folder.name, |document| {
            known += 1;
            here |= document.stamp.device == self.device;
            Ok(())
        })?;
        if known == 0 || here {
            return Ok(());
        }
        Err(SourceError::Emptied { name: self.folder.name.clone(), root: self.folder.root.clone(), known })
    }

    /// Decides the files that waited: first those being written, so that what they may be is not given away.
    fn come_back(&mut self) -> Result<(), SourceError> {
        let (unsettled, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.unsettled);
        for pending in unsettled.into_iter().chain(rest) {
            let (parent, name) = split(&pending.path);
            let entry = self.resolve(parent).and_then(|folder| {
                let facts = file::look(&folder, name)?;
                Ok((folder, facts))
            });
            let Ok((folder, facts)) = entry else {
                self.report.vanished += 1;
                continue;
            };
            let entry = Entry { folder: &folder, name, path: &pending.path, facts };
            match facts.kind() {
                FileType::Directory => self.report.vanished += 1,
                FileType::RegularFile if pending.unsettled => self.leave(&entry)?,
                _ => self.visit(&entry, &mut Vec::new(), true)?,
            }
        }
        Ok(())
    }

    /// Leaves a file for a later scan; whatever document it may be is not gone.
    fn leave(&mut self, entry: &Entry<'_>) -> Result<(), SourceError> {
        let path = encode(entry.path);
        let (name, facts) = (&self.folder.name, &entry.facts);
        let known = self.catalog.documents_at_inode(name, facts.device, facts.inode)?;
        for known in known.into_iter().chain(self.catalog.documents_at(name, &path)?) {
            if !self.sweep.has_met(known.document.id)? {
                self.sweep.met(known.document.id)?;
                self.perhaps.insert(known.document.id);
            }
        }
        self.report.unsettled += 1;
        if self.report.again.len() >= AGAIN {
            self.report.again = BTreeSet::from([String::new()]);
        } else if !self.report.again.contains("") {
            self.report.again.insert(path);
        }
        let changed = u64::try_from(facts.changed_ns).unwrap_or(0);
        let later = (UNIX_EPOCH + Duration::from_nanos(changed) + self.folder.settle).max(SystemTime::now());
        self.report.look_again = Some(self.report.look_again.map_or(later, |earlier| earlier.min(later)));
        Ok(())
    }

    fn wait(&mut self, entry: &Entry<'_>, unsettled: bool, last: bool) -> Result<bool, SourceError> {
        if last || self.pending.len() >= PENDING {
            if unsettled {
                self.leave(entry)?;
            }
            return Ok(unsettled);
        }
        self.pending.push(Pending { path: entry.path.to_vec(), unsettled });
        Ok(true)
    }

    /// Whether the last change is long enough ago.
    fn settled(&self, facts: &Facts) -> bool {
        let age = age(facts.changed_ns);
        self.folder.settle.is_zero()
            || age >= self.folder.settle.as_nanos().cast_signed()
            || age < -AHEAD.as_nanos().cast_signed()
    }

    /// Whether a file that is still being written has been waited for long enough: since the version that is known,
    /// or since it was made.
    fn overdue(&self, entry: &Entry<'_>, known: Option<&Known>) -> bool {
        let since = match known {
            Some(known) => Some(known.stamp.changed_ns),
            None => file::born(entry.folder, entry.name),
        };
        let patience = PATIENCE.max(self.folder.settle * 10).as_nanos().cast_signed();
        since.is_some_and(|since| age(since) >= patience)
    }

    /// Whether what the catalog has of a file at this version is what a fresh read would give.
    fn stands(&self, known: &Known, facts: &Facts, given: Option<Skip>) -> bool {
        known.document.policy == self.folder.policy
            && match (known.state, known.skip) {
                (DocumentState::Present, _) => {
                    given.is_none() && known.rules == Some(self.rules) && facts.size <= self.folder.max_bytes
                }
                (DocumentState::Skipped, Some(Skip::Unreadable)) | (DocumentState::Deleted, _) => false,
                (DocumentState::Skipped, Some(Skip::TooLarge)) => {
                    given.is_none() && facts.size > self.folder.max_bytes
                }
                (DocumentState::Skipped, skip @ Some(Skip::Link | Skip::Special)) => given == skip,
                (DocumentState::Skipped, _) => {
                    given.is_none() && known.rules.is_none_or(|rules| rules == self.rules)
                }
            }
    }

    /// Takes one entry that is a document: a regular file, or (`given`) one that is never opened.
    pub(crate) fn document(
        &mut self,
        entry: &Entry<'_>,
        given: Option<Skip>,
        last: bool,
    ) -> Result<(), SourceError> {
        let path = encode(entry.path);
        let (source, facts) = (&self.folder.name, &entry.facts);
        let mut known = self.catalog.documents_at_inode(source, facts.device, facts.inode)?;
        let itself = known.iter().find(|known| known.document.path == path);
        if let Some(itself) = itself
            && facts.matches(&itself.stamp)
            && self.stands(itself, facts, given)
        {
            self.sweep.met(itself.document.id)?;
            self.count(itself.skip);
            self.report.unchanged += 1;
            return Ok(());
        }
        let waits = given.is_none() && !self.settled(facts) && !self.overdue(entry, itself);
        if waits && self.wait(entry, true, last)? {
            return Ok(());
        }
        if itself.is_none() {
            known.extend(self.catalog.documents_at(source, &path)?);
        }
        let mut content = None;
        let mut claims = Vec::with_capacity(known.len());
        for known in &known {
            let claim = self.claim(known, entry, &path)?;
            // Only the content tells a renamed file from one with an inode used again.
            let asked = claim.same_inode && !claim.same_path && !claim.at_home && claim.taken != Taken::Yes;
            if asked && !claim.same_start && content.is_none() {
                content = Some(self.content(entry, given));
            }
            claims.push(claim);
        }
        if let Some(content) = &content {
            let bytes = if let Content::Bytes(bytes, _) = content { Some(bytes.as_slice()) } else { None };
            for (claim, known) in claims.iter_mut().zip(&known) {
                claim.same_start |= facts.starts_like(bytes, &known.stamp);
            }
        }
        let everything_seen = last || self.pending.len() >= PENDING;
        let known = match identify(&claims, everything_seen) {
            Identity::New => None,
            Identity::Known(index) => Some(known.swap_remove(index)),
            Identity::Later => return self.wait(entry, false, last).map(drop),
            Identity::Unsettled => return self.leave(entry),
        };
        if let Some(known) = &known {
            // Whatever reading it comes to, it is not gone.
            self.sweep.met(known.document.id)?;
            let same_kind = kind_hint(&known.document.path) == kind_hint(&path);
            // The policy alone may differ: that asks for no reading either.
            let policy = self.folder.policy.clone();
            let stands = Known { document: Document { policy, ..known.document.clone() }, ..known.clone() };
            if content.is_none()
                && same_kind
                && facts.matches(&known.stamp)
                && self.stands(&stands, facts, given)
            {
                self.count(known.skip);
                let stamp = Stamp { header: known.stamp.header, ..facts.stamp(b"") };
                return self.restamp(known, path, facts, stamp);
            }
        }
        let content = content.unwrap_or_else(|| self.content(entry, given));
        match content {
            Content::Vanished => {
                self.report.vanished += 1;
                Ok(())
            }
            Content::Unsettled => self.leave(entry),
            Content::Unreadable => self.skip(known, path, facts, given.unwrap_or(Skip::Unreadable)),
            Content::TooLarge(facts) => self.skip(known, path, &facts, Skip::TooLarge),
            Content::Bytes(bytes, facts) => self.arrive(known, path, &facts, bytes),
        }
    }

    fn claim(&self, known: &Known, entry: &Entry<'_>, path: &str) -> Result<Claim, SourceError> {
        let same_path = known.document.path == path;
        let matches = entry.facts.matches(&known.stamp);
        let same_inode = (entry.facts.device, entry.facts.inode) == (known.stamp.device, known.stamp.inode);
        let taken = if self.perhaps.contains(&known.document.id) {
            Taken::Perhaps
        } else if self.sweep.has_met(known.document.id)? {
            Taken::Yes
        } else {
            Taken::No
        };
        Ok(Claim {
            same_path,
            same_inode: same_inode || same_path && matches,
            at_home: if same_path { same_inode } else { self.at_home(known) },
            same_start: same_inode && matches,
            taken,
        })
    }

    /// Whether the file that a document was last seen with is still where it was.
    fn at_home(&self, known: &Known) -> bool {
        let path = decode(&known.document.path);
        let (parent, name) = split(&path);
        if path.split(|byte| *byte == b'/').any(|name| self.folder.ignores(name)) {
            return false;
        }
        let found = self.resolve(parent).and_then(|folder| {
            let facts = file::look(&folder, name)?;
            Ok(self.beyond(&path, facts))
        });
        found.is_ok_and(|facts| (facts.device, facts.inode) == (known.stamp.device, known.stamp.inode))
    }

    fn content(&mut self, entry: &Entry<'_>, given: Option<Skip>) -> Content {
        if given.is_some() {
            return Content::Unreadable;
        }
        if entry.facts.size > self.folder.max_bytes {
            return Content::TooLarge(entry.facts);
        }
        let content = file::read(entry.folder, entry.name, &entry.facts, self.folder.max_bytes);
        if let Content::Bytes(bytes, _) = &content {
            self.report.read += 1;
            self.report.read_bytes += bytes.len() as u64;
        }
        content
    }

    fn count(&mut self, skip: Option<Skip>) {
        self.report.met += 1;
        if let Some(skip) = skip {
            *self.report.skipped.entry(skip).or_default() += 1;
        }
    }

    fn describe(&self, known: Option<&Known>, path: String, facts: &Facts, digest: Digest) -> Document {
        let source = &self.folder.name;
        Document {
            id: known
                .map_or_else(|| mint(source, &path, facts.device, facts.inode), |known| known.document.id),
            source: source.clone(),
            path,
            digest,
            size: facts.size,
            authored: Some(facts.modified_ns.div_euclid(1_000_000_000)),
            readers: self.names.readers(facts.mode, facts.user, facts.group),
            policy: self.folder.policy.clone(),
        }
    }

    fn restamp(
        &mut self,
        known: &Known,
        path: String,
        facts: &Facts,
        stamp: Stamp,
    ) -> Result<(), SourceError> {
        let document = self.describe(Some(known), path, facts, known.document.digest);
        self.report.restamped += 1;
        Ok((self.sink)(Change::Restamped { known: Known { document, stamp, ..known.clone() } })?)
    }

    fn skip(
        &mut self,
        known: Option<Known>,
        path: String,
        facts: &Facts,
        skip: Skip,
    ) -> Result<(), SourceError> {
        let now = Known {
            document: self.describe(known.as_ref(), path, facts, Digest::of(b"")),
            state: DocumentState::Skipped,
            skip: Some(skip),
            stamp: facts.stamp(b""),
            rules: None,
        };
        self.sweep.met(now.document.id)?;
        self.count(Some(skip));
        if known.as_ref() == Some(&now) {
            self.report.unchanged += 1;
            return Ok(());
        }
        Ok((self.sink)(Change::Skipped { known: now })?)
    }

    fn arrive(
        &mut self,
        known: Option<Known>,
        path: String,
        facts: &Facts,
        bytes: Vec<u8>,
    ) -> Result<(), SourceError> {
        let digest = Digest::of(&bytes);
        let mut stamp = facts.stamp(&bytes);
        if !self.settled(facts) {
            // A write in the same tick of the clock would leave no trace: this stamp matches no file, so that the
            // next scan reads it again.
            stamp.modified_ns = stamp.modified_ns.wrapping_sub(1);
        }
        if let Some(known) = &known
            && known.document.digest == digest
            && known.rules == Some(self.rules)
            && matches!(known.state, DocumentState::Present | DocumentState::Skipped)
            && kind_hint(&known.document.path) == kind_hint(&path)
        {
            self.count(known.skip);
            return self.restamp(known, path, facts, stamp);
        }
        let document = self.describe(known.as_ref(), path, facts, digest);
        let known = Known { document, state: DocumentState::Present, skip: None, stamp, rules: None };
        self.sweep.met(known.document.id)?;
        self.count(None);
        self.report.arrived += 1;
        Ok((self.sink)(Change::Arrived { known, bytes })?)
    }

    fn departures(self) -> (Sweep<'a>, Departures<'a>) {
        let Self { folder, sink, sweep, root, device, report, closed, .. } = self;
        (sweep, Departures { folder, sink, root, device, report, closed, hollow: None })
    }
}

/// The end of a scan: what was not met is gone, unless it may only be out of sight.
struct Departures<'a> {
    folder: &'a Folder,
    sink: &'a mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    root: OwnedFd,
    device: u64,
    report: ScanReport,
    closed: HashSet<String>,
    /// The last folder that was asked for, and whether it is the place of a mount without the mount.
    hollow: Option<(String, bool)>,
}

impl Departures<'_> {
    fn gone(&mut self, known: Known) -> Result<(), SourceError> {
        let Document { id, source, path, .. } = known.document;
        let closed = upwards(&path).any(|above| self.closed.contains(above));
        if closed || known.stamp.device != self.device && self.unmounted(&path) {
            self.report.spared += 1;
            return Ok(());
        }
        self.report.gone += 1;
        Ok((self.sink)(Change::Gone { id, source, path })?)
    }

    /// Whether the nearest folder that is still there above a path lies on the root's device and is empty.
    fn unmounted(&mut self, path: &str) -> bool {
        let parent = upwards(path).nth(1).unwrap_or("");
        if let Some((asked, answer)) = &self.hollow
            && asked == parent
        {
            return *answer;
        }
        let answer = self.is_hollow(parent).unwrap_or(false);
        self.hollow = Some((parent.to_owned(), answer));
        answer
    }

    fn is_hollow(&self, parent: &str) -> io::Result<bool> {
        let mut folder = self.root.try_clone()?;
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            match file::open_folder(&folder, &decode(name)) {
                Ok(next) => folder = next,
                Err(_) => break,
            }
        }
        let here = file::look_at(folder.as_fd())?.device == self.device;
        Ok(here && crate::walk::list(&folder, |_| false)?.is_empty())
    }
}
