use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use gix::objs::tree::EntryKind;
use gix::{ObjectId, Repository};
use moat_catalog::{Catalog, Known, Stamp};
use moat_contracts::{Digest, Document, DocumentId, DocumentState, Skip};

use crate::identity::mint;
use crate::path::{decode, encode, kind_hint};
use crate::readers::Names;
use crate::tree::{self, Blob};
use crate::{Change, ScanReport, SinkClosed, SourceError, history};

/// Bytes at the start of a blob in which a NUL shows that it is no text, as git itself judges.
const SNIFFED: usize = 8192;

/// How a file begins that stands for one that git LFS keeps elsewhere.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The tracked text of a local git repository at a branch's tip as a source.
///
/// A document is a path in the tip's tree. Its id stays with the path, and follows to another path that holds the same
/// blob when its own is gone. Only objects are read: no hook, filter or program that the repository names is run, no
/// work tree or index is looked at, so who owns the repository does not matter. Links are [`Skip::Link`], submodules
/// [`Skip::Special`], what git takes for binary and pointers of git LFS [`Skip::Binary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// The source's configured name.
    pub name: String,
    /// A work tree, a linked work tree, or a bare repository.
    pub repository: PathBuf,
    /// The branch; without one, what HEAD names.
    pub branch: Option<String>,
    /// Larger files are skipped.
    pub max_bytes: u64,
    /// The policy that its documents carry.
    pub policy: String,
}

/// One path of the tip.
struct Tracked {
    path: String,
    blob: Blob,
}

impl Git {
    /// The catalog's key of what was read of a source of this name; the empty text where nothing is to be taken as read.
    #[must_use]
    pub fn checkpoint(name: &str) -> String {
        format!("sources.git.{name}")
    }

    /// Compares the branch's tip with what the catalog knows, and hands every difference to the sink. Where the last
    /// complete scan was of the same commit under the same rules and settings, nothing is read, and the report is
    /// empty. A blob that is known under `rules` is never read.
    ///
    /// The sink may commit on this connection while the scan runs, but must not keep a batch open between calls. When
    /// every change is committed, [`ScanReport::checkpoint`] is to be kept with `Batch::put_meta`. Memory grows with
    /// the number of tracked paths, not with their content.
    ///
    /// # Errors
    /// [`SourceError::Repository`] where there is no readable repository, branch or commit: nothing is reported gone
    /// then. [`SourceError::Closed`] where the sink closed; [`SourceError::Catalog`] where the catalog fails.
    pub fn scan(
        &self,
        catalog: &Catalog,
        rules: Digest,
        sink: &mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    ) -> Result<ScanReport, SourceError> {
        let repository = self.open()?;
        let tip = self.tip(&repository)?;
        let key = Self::checkpoint(&self.name);
        let settings = Digest::of_parts(&[
            rules.as_bytes(),
            &self.max_bytes.to_le_bytes(),
            self.policy.as_bytes(),
            self.repository.as_os_str().as_encoded_bytes(),
        ]);
        let checkpoint = format!("{tip} {settings}");
        let last = catalog.meta(&key)?;
        if last.as_ref() == Some(&checkpoint) {
            return Ok(ScanReport::default());
        }
        let last_tip = last.as_deref().and_then(|last| ObjectId::from_hex(last.get(..40)?.as_bytes()).ok());
        let broken = |error: gix::Error| self.broken(&error);
        let mut tracked = Vec::new();
        let mut numbers = HashMap::new();
        let tree = repository.find_commit(tip).and_then(|commit| Ok(commit.tree_id()?.detach()));
        tree.and_then(|tree| {
            tree::files(&repository, tree, &mut |path, blob| {
                let number = u32::try_from(tracked.len()).unwrap_or(u32::MAX);
                numbers.insert(path.to_vec(), number);
                tracked.push(Tracked { path: encode(path), blob });
            })
        })
        .map_err(broken)?;

        let mut departed = Departed::default();
        let mut before = HashMap::new();
        catalog.each_document(&self.name, |known| {
            match numbers.get(&decode(&known.document.path)) {
                Some(number) => {
                    // Only a path that still holds what the last scan saw has the last scan's answer.
                    let held = tracked[*number as usize].blob.id;
                    before.extend(
                        known
                            .document
                            .authored
                            .filter(|_| known.stamp.header == named(held))
                            .map(|time| (*number, time)),
                    );
                }
                None => departed.add(&known),
            }
            Ok(())
        })?;
        let known = last_tip.map(|tip| (tip, &before));
        let authored = history::authored(&repository, tip, &numbers, known).map_err(broken)?;

        let mut order: Vec<u32> = (0..).take(tracked.len()).collect();
        order.sort_unstable_by(|one, other| tracked[*one as usize].path.cmp(&tracked[*other as usize].path));
        let mut scan = Scan {
            git: self,
            catalog,
            rules,
            sink,
            repository: &repository,
            readers: self.readers(&repository),
            report: ScanReport::default(),
        };
        for number in order {
            scan.path(&tracked[number as usize], authored.get(&number).copied(), &mut departed)?;
        }
        let mut report = scan.report;
        for (path, id) in departed.rest() {
            report.gone += 1;
            sink(Change::Gone { id, source: self.name.clone(), path })?;
        }
        if !report.skipped.contains_key(&Skip::Unreadable) {
            report.checkpoint = Some((key, checkpoint));
        }
        Ok(report)
    }

    fn fault(&self, reason: String) -> SourceError {
        SourceError::Repository { name: self.name.clone(), repository: self.repository.clone(), reason }
    }

    /// That objects of the repository cannot be read.
    pub(crate) fn broken(&self, error: &gix::Error) -> SourceError {
        self.fault(format!("its objects cannot be read ({error}): run `git fsck` there"))
    }

    /// The repository, the commit at the branch's tip, and its tree.
    pub(crate) fn tree(&self) -> Result<(Repository, ObjectId, ObjectId), SourceError> {
        let repository = self.open()?;
        let tip = self.tip(&repository)?;
        let tree = repository.find_commit(tip).and_then(|commit| Ok(commit.tree_id()?.detach()));
        let tree = tree.map_err(|error| self.broken(&error))?;
        Ok((repository, tip, tree))
    }

    fn open(&self) -> Result<Repository, SourceError> {
        let mut repository =
            gix::open_opts(&self.repository, gix::open::Options::isolated()).map_err(|error| {
                self.fault(format!(
                    "it cannot be opened ({error}): `path` must be a local git repository that this service may read"
                ))
            })?;
        if repository.object_hash() != gix::hash::Kind::Sha1 {
            return Err(self
                .fault("it names objects by another hash than SHA-1, which Moat does not read".to_owned()));
        }
        repository.object_cache_size_if_unset(32 << 20);
        Ok(repository)
    }

    fn tip(&self, repository: &Repository) -> Result<ObjectId, SourceError> {
        let Some(branch) = &self.branch else {
            return repository.head_id().map(gix::Id::detach).map_err(|error| {
                self.fault(format!("HEAD names no commit yet ({error}): commit something, or set `branch`"))
            });
        };
        let missing = |error: gix::Error| {
            self.fault(format!("it has no branch `{branch}` ({error}): correct `branch`"))
        };
        let mut reference = repository.find_reference(&format!("refs/heads/{branch}")).map_err(missing)?;
        reference.peel_to_id().map(gix::Id::detach).map_err(missing)
    }

    /// Who may read the repository's folder may read what it tracks.
    fn readers(&self, repository: &Repository) -> Vec<String> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(repository.common_dir()).map_or_else(
            |_| Vec::new(),
            |facts| Names::of_machine().readers(facts.mode(), facts.uid(), facts.gid()),
        )
    }
}

/// The header of a stamp for a blob.
fn named(blob: ObjectId) -> Digest {
    Digest::of(blob.as_slice())
}

/// Documents whose path the tip no longer has, by what they held.
#[derive(Default)]
struct Departed {
    by_blob: HashMap<Digest, Vec<(String, DocumentId)>>,
}

impl Departed {
    fn add(&mut self, known: &Known) {
        let document = &known.document;
        self.by_blob.entry(known.stamp.header).or_default().push((document.path.clone(), document.id));
    }

    /// Takes the first document that held this blob: it is renamed.
    fn claim(&mut self, blob: Digest) -> Option<DocumentId> {
        let held = self.by_blob.get_mut(&blob)?;
        (!held.is_empty()).then(|| held.remove(0).1)
    }

    fn rest(self) -> BTreeMap<String, DocumentId> {
        self.by_blob.into_values().flatten().collect()
    }
}

struct Scan<'a> {
    git: &'a Git,
    catalog: &'a Catalog,
    rules: Digest,
    sink: &'a mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    repository: &'a Repository,
    readers: Vec<String>,
    report: ScanReport,
}

/// What reading a blob came to.
enum Content {
    Bytes(Vec<u8>),
    Skip(Skip, u64),
}

impl Scan<'_> {
    fn path(
        &mut self,
        tracked: &Tracked,
        authored: Option<i64>,
        departed: &mut Departed,
    ) -> Result<(), SourceError> {
        let git = self.git;
        let blob = named(tracked.blob.id);
        let known = match self.catalog.document_at(&git.name, &tracked.path)? {
            Some(known) => Some(known),
            None => match departed.claim(blob) {
                Some(id) => self.catalog.document(id)?,
                None => None,
            },
        };
        let document = |digest, size| Document {
            id: known
                .as_ref()
                .map_or_else(|| mint(&git.name, &tracked.path, 0, 0), |known| known.document.id),
            source: git.name.clone(),
            path: tracked.path.clone(),
            digest,
            size,
            authored,
            readers: self.readers.clone(),
            policy: git.policy.clone(),
        };
        let stamp = |size| Stamp { device: 0, inode: 0, size, modified_ns: 0, changed_ns: 0, header: blob };
        if let Some(known) = &known
            && known.stamp.header == blob
            && kind_hint(&known.document.path) == kind_hint(&tracked.path)
            && self.stands(known, tracked)
        {
            let now =
                Known { document: document(known.document.digest, known.document.size), ..known.clone() };
            self.count(known.skip);
            if now == *known {
                self.report.unchanged += 1;
                return Ok(());
            }
            self.report.restamped += 1;
            return Ok((self.sink)(Change::Restamped { known: now })?);
        }
        match self.content(tracked) {
            Content::Bytes(bytes) => {
                let size = bytes.len() as u64;
                let known = Known {
                    document: document(Digest::of(&bytes), size),
                    state: DocumentState::Present,
                    skip: None,
                    stamp: stamp(size),
                    rules: None,
                };
                self.count(None);
                self.report.read += 1;
                self.report.read_bytes += size;
                self.report.arrived += 1;
                Ok((self.sink)(Change::Arrived { known, bytes })?)
            }
            Content::Skip(skip, size) => {
                let now = Known {
                    document: document(Digest::of(b""), size),
                    state: DocumentState::Skipped,
                    skip: Some(skip),
                    stamp: stamp(size),
                    rules: None,
                };
                self.count(Some(skip));
                if known.as_ref() == Some(&now) {
                    self.report.unchanged += 1;
                    return Ok(());
                }
                Ok((self.sink)(Change::Skipped { known: now })?)
            }
        }
    }

    /// Whether what the catalog has of a blob is what a fresh read would give.
    fn stands(&self, known: &Known, tracked: &Tracked) -> bool {
        let small = known.stamp.size <= self.git.max_bytes;
        let given = given(tracked.blob.kind);
        match (known.state, known.skip) {
            (DocumentState::Present, _) => given.is_none() && small && known.rules == Some(self.rules),
            (DocumentState::Deleted, _) | (DocumentState::Skipped, Some(Skip::Unreadable)) => false,
            (DocumentState::Skipped, Some(Skip::TooLarge)) => given.is_none() && !small,
            (DocumentState::Skipped, skip @ Some(Skip::Link | Skip::Special)) => given == skip,
            (DocumentState::Skipped, _) => {
                given.is_none() && small && known.rules.is_none_or(|rules| rules == self.rules)
            }
        }
    }

    fn content(&self, tracked: &Tracked) -> Content {
        if let Some(skip) = given(tracked.blob.kind) {
            return Content::Skip(skip, 0);
        }
        let Ok(header) = self.repository.find_header(tracked.blob.id) else {
            return Content::Skip(Skip::Unreadable, 0);
        };
        if header.size() > self.git.max_bytes {
            return Content::Skip(Skip::TooLarge, header.size());
        }
        let Ok(mut blob) = self.repository.find_blob(tracked.blob.id) else {
            return Content::Skip(Skip::Unreadable, header.size());
        };
        let bytes = std::mem::take(&mut blob.data);
        if bytes[..bytes.len().min(SNIFFED)].contains(&0) || bytes.len() < 1024 && bytes.starts_with(LFS) {
            return Content::Skip(Skip::Binary, header.size());
        }
        Content::Bytes(bytes)
    }

    fn count(&mut self, skip: Option<Skip>) {
        self.report.met += 1;
        if let Some(skip) = skip {
            *self.report.skipped.entry(skip).or_default() += 1;
        }
    }
}

/// Why an entry is never read, where its mode says so.
const fn given(kind: EntryKind) -> Option<Skip> {
    match kind {
        EntryKind::Link => Some(Skip::Link),
        EntryKind::Commit => Some(Skip::Special),
        EntryKind::Tree | EntryKind::Blob | EntryKind::BlobExecutable => None,
    }
}
