//! The open ledger: appending, with one fsync for all who append at once, checkpoints, and proofs.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::signature::Ed25519KeyPair;
use rustix::fs::{FlockOperation, flock};

use crate::checkpoints::{self, Signer, sync_folder};
use crate::entry::Act;
use crate::error::LedgerError;
use crate::hashes::Hashes;
use crate::lines::{self, ENTRIES, Segment};
use crate::merkle::{Frontier, Hash, consistency, inclusion, range_root, stored_at, stored_before};
use crate::note::{Checkpoint, PublicKey};
use crate::walk::walk;

/// How a ledger is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many bytes a segment file may reach before the next is begun.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20 }
    }
}

/// What opening had to put right after a power cut or a kill; nothing that was acknowledged is among it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// How many bytes of a last, never completed write were cut off.
    pub cut_bytes: u64,
    /// How many stored hashes were computed again from the entries.
    pub hashes: u64,
    /// Whether a last, never completed checkpoint was cut off.
    pub cut_checkpoint: bool,
}

/// A ledger open for appending: share it between threads.
pub struct Ledger {
    folder: PathBuf,
    state: Mutex<State>,
    turned: Condvar,
    hashes: Arc<Hashes>,
    signer: Mutex<Signer>,
    repairs: Repairs,
    _lock: Lock,
}

/// The lock that keeps a second process out.
struct Lock(File);

impl Lock {
    fn take(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join("lock");
        let file = File::create(&path).map_err(LedgerError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Busy(folder.to_owned())),
            Err(error) => Err(LedgerError::io("lock", &path)(error.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing unlocks too, unless a child that is just being started holds the file open as well.
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

struct State {
    queue: Vec<Act>,
    batch: Arc<Batch>,
    /// Away while a thread writes.
    writer: Option<Writer>,
    durable: View,
}

/// What is on disk and acknowledged.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) frontier: Frontier,
    /// First entries of the segments, and how many bytes of the last one count.
    pub(crate) segments: Vec<u64>,
    pub(crate) last_length: u64,
}

/// Acts that are written with one fsync, and the index of the first once they are.
#[derive(Default)]
struct Batch {
    outcome: OnceLock<Result<u64, LedgerError>>,
}

impl Ledger {
    /// Opens the ledger in a folder, making it where there is none, and recomputes it.
    ///
    /// Without the seed of its signing key, entries can be appended and the next checkpoint covers them. A last write
    /// that was never completed is cut off: see [`Ledger::repairs`].
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where anything else is not as it was written, [`LedgerError::Busy`] where another process
    /// has it open, [`LedgerError::Io`] where the disk refuses.
    pub fn open(folder: &Path, seed: Option<&[u8; 32]>) -> Result<Self, LedgerError> {
        Self::open_with(folder, seed, Options::default())
    }

    /// As [`Ledger::open`], kept in another way.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with(folder: &Path, seed: Option<&[u8; 32]>, options: Options) -> Result<Self, LedgerError> {
        let inside = folder.join(ENTRIES);
        if !inside.is_dir() {
            fs::create_dir_all(&inside).map_err(LedgerError::io("make", &inside))?;
            sync_folder(folder)?;
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)?;
        }
        let lock = Lock::take(folder)?;
        let key = seed.map(pair).transpose()?;
        let public = key.as_ref().map(PublicKey::of);
        // A stored hash says that its line is on disk, so what a kill left unsynced is synced before hashes are filled in.
        if let Some(Segment { path, .. }) = lines::segments(folder)?.last() {
            File::open(path).and_then(|last| last.sync_all()).map_err(LedgerError::io("sync", path))?;
        }
        let filling = Hashes::open(folder, 0)?;
        let walked = walk(folder, public.as_ref(), None, &mut |slot, hash| filling.fill(slot, hash))?;
        if let Some(finding) = walked.report.findings.iter().find(|finding| !finding.is_harmless()) {
            return Err(LedgerError::Damaged(finding.clone()));
        }
        let size = walked.frontier.size();
        let slots = stored_before(size);
        filling.cut(slots)?;
        let writer =
            Writer::open(folder, &walked.segments, walked.torn.as_ref().map(|torn| torn.offset), options)?;
        let mut signer = Signer::open(folder, walked.last, walked.torn_history)?;
        signer.set_key(key);
        sync_folder(folder)?;
        let repairs = Repairs {
            cut_bytes: walked.torn.map_or(0, |torn| torn.bytes),
            hashes: walked.report.missing_hashes,
            cut_checkpoint: walked.torn_history.is_some(),
        };
        let segments = writer.segments.clone();
        let durable = View { frontier: walked.frontier, segments, last_length: writer.length };
        Ok(Self {
            folder: folder.to_owned(),
            state: Mutex::new(State {
                queue: Vec::new(),
                batch: Arc::default(),
                writer: Some(writer),
                durable,
            }),
            turned: Condvar::new(),
            hashes: Arc::new(Hashes::open(folder, slots)?),
            signer: Mutex::new(signer),
            repairs,
            _lock: lock,
        })
    }

    /// What opening had to put right; worth an entry of its own.
    #[must_use]
    pub fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Writes an act; it is on disk when this returns, and only then may the act take effect. Returns its index.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] for an act that breaks the rules, [`LedgerError::NotWritten`] where the disk refuses: the
    /// act must not take effect then, and the ledger can be appended to again.
    pub fn append(&self, act: &Act) -> Result<u64, LedgerError> {
        act.check()?;
        let mut state = self.state();
        let batch = Arc::clone(&state.batch);
        let place = state.queue.len() as u64;
        state.queue.push(act.clone());
        loop {
            if let Some(outcome) = batch.outcome.get() {
                return outcome.clone().map(|first| first + place);
            }
            let Some(mut writer) = state.writer.take() else {
                state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let acts = mem::take(&mut state.queue);
            let writing = mem::take(&mut state.batch);
            let mut view = state.durable.clone();
            drop(state);
            let outcome = writer.write(&self.folder, &acts, &mut view, &self.hashes);
            state = self.state();
            state.durable = view;
            state.writer = Some(writer);
            // Only the thread that took a batch sets its outcome, so it is not set yet.
            writing.outcome.get_or_init(|| outcome);
            self.turned.notify_all();
        }
    }

    /// Signs the ledger and does something while its files stand still, all of them under that checkpoint: to copy them,
    /// say. Whoever appends meanwhile waits.
    ///
    /// # Errors
    /// As [`Ledger::checkpoint`].
    pub fn while_still<T>(&self, work: impl FnOnce() -> T) -> Result<T, LedgerError> {
        let mut signer = self.signer();
        let mut state = self.state();
        while state.writer.is_none() {
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.hashes.sync()?;
        signer.sign(state.durable.frontier.size(), state.durable.frontier.root())?;
        Ok(work())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signer(&self) -> MutexGuard<'_, Signer> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> View {
        self.state().durable.clone()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many entries the ledger has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.state().durable.frontier.size()
    }

    /// The root over all entries.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.state().durable.frontier.root()
    }

    /// Gives the ledger its signing key once the daemon is unsealed.
    ///
    /// # Errors
    /// [`LedgerError::Key`] where the seed makes no key; [`LedgerError::Damaged`] where another key signed the last
    /// checkpoint.
    pub fn unseal(&self, seed: &[u8; 32]) -> Result<(), LedgerError> {
        let key = pair(seed)?;
        let mut signer = self.signer();
        let foreign = signer.last().filter(|last| !last.is_signed_by(&PublicKey::of(&key)));
        if foreign.is_some() {
            return Err(LedgerError::Damaged(crate::Finding::ForeignKey {
                place: crate::Place::Current,
                number: 1,
            }));
        }
        signer.set_key(Some(key));
        Ok(())
    }

    /// Drops the signing key, when the daemon is sealed again.
    pub fn seal(&self) {
        self.signer().set_key(None);
    }

    /// The public half of the signing key, while there is one.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        self.signer().key().map(PublicKey::of)
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<Checkpoint> {
        self.signer().last().cloned()
    }

    /// Signs the ledger as it is and keeps the checkpoint; without a new entry, the last one is returned.
    ///
    /// # Errors
    /// [`LedgerError::Sealed`] without a key, [`LedgerError::Io`] where the disk refuses.
    pub fn checkpoint(&self) -> Result<Checkpoint, LedgerError> {
        let mut signer = self.signer();
        // Taken inside the signer's lock, so that checkpoints never go backwards.
        let frontier = self.state().durable.frontier.clone();
        self.hashes.sync()?;
        signer.sign(frontier.size(), frontier.root())
    }

    /// Appends the newest checkpoint to a witness file, such as one on a removable medium.
    ///
    /// # Errors
    /// [`LedgerError::Witness`] where the file's last checkpoint contradicts this ledger, which is an alarm;
    /// [`LedgerError::Io`] where it cannot be written; [`LedgerError::NoCheckpoint`] where nothing was ever signed.
    pub fn copy_checkpoint(&self, witness: &Path) -> Result<Checkpoint, LedgerError> {
        let last = self.last_checkpoint().ok_or(LedgerError::NoCheckpoint)?;
        checkpoints::copy(&last, witness, self.size(), |size| self.root_at(size))?;
        Ok(last)
    }

    /// The root over the first `size` entries.
    ///
    /// # Errors
    /// [`LedgerError::Beyond`] where there are fewer, [`LedgerError::Io`] where a stored hash cannot be read.
    pub fn root_at(&self, size: u64) -> Result<Hash, LedgerError> {
        self.within(size)?;
        range_root(0, size, &mut self.read())
    }

    /// The path that shows entry `index` to be in the tree of `size` entries, for [`crate::verify_inclusion`].
    ///
    /// # Errors
    /// [`LedgerError::Beyond`] where the ledger has no such entry or size.
    pub fn prove(&self, index: u64, size: u64) -> Result<Vec<Hash>, LedgerError> {
        self.within(size)?;
        if index >= size {
            return Err(LedgerError::Beyond { asked: index, size });
        }
        inclusion(index, size, &mut self.read())
    }

    /// The path that shows the tree of `old` entries to be the beginning of that of `new`, for
    /// [`crate::verify_consistency`].
    ///
    /// # Errors
    /// [`LedgerError::Beyond`] where the ledger has no such sizes.
    pub fn prove_consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, LedgerError> {
        self.within(new)?;
        if old > new {
            return Err(LedgerError::Beyond { asked: old, size: new });
        }
        if old == 0 {
            return Ok(Vec::new());
        }
        consistency(old, new, &mut self.read())
    }

    fn within(&self, asked: u64) -> Result<(), LedgerError> {
        let size = self.size();
        if asked > size { Err(LedgerError::Beyond { asked, size }) } else { Ok(()) }
    }

    fn read(&self) -> impl FnMut(u32, u64) -> Result<Hash, LedgerError> {
        |level, nth| self.hashes.read(stored_at(level, nth))
    }
}

fn pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, LedgerError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| LedgerError::Key)
}

/// The last segment, and how far it is durable.
struct Writer {
    file: Option<File>,
    segments: Vec<u64>,
    length: u64,
    /// Whether the file may hold bytes beyond `length` that a failed write left.
    dirty: bool,
    options: Options,
}

impl Writer {
    fn open(
        folder: &Path,
        segments: &[Segment],
        cut: Option<u64>,
        options: Options,
    ) -> Result<Self, LedgerError> {
        let (mut file, mut length) = (None, 0);
        if let Some(Segment { path, .. }) = segments.last() {
            let io = |what| LedgerError::io(what, path);
            let last = OpenOptions::new().write(true).open(path).map_err(io("open"))?;
            if let Some(length) = cut {
                last.set_len(length).and_then(|()| last.sync_all()).map_err(io("cut"))?;
            }
            length = last.metadata().map_err(io("read"))?.len();
            file = Some(last);
        }
        sync_folder(&folder.join(ENTRIES))?;
        let segments = segments.iter().map(|segment| segment.first).collect();
        Ok(Self { file, segments, length, dirty: false, options })
    }

    /// Writes and syncs acts, then moves `view` on and stores their hashes. Returns the first index.
    fn write(
        &mut self,
        folder: &Path,
        acts: &[Act],
        view: &mut View,
        hashes: &Hashes,
    ) -> Result<u64, LedgerError> {
        let not_written = |source| LedgerError::NotWritten { source: Arc::new(source) };
        let first = view.frontier.size();
        let since =
            SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other).map_err(not_written)?;
        let time = u64::try_from(since.as_millis()).map_err(io::Error::other).map_err(not_written)?;
        let (mut buffer, mut leaves) = (Vec::new(), Vec::with_capacity(acts.len()));
        for (index, act) in (first..).zip(acts) {
            let json = act.encode(index, time).ok_or(LedgerError::Refused("an entry must be text"))?;
            leaves.push(lines::encode(&mut buffer, index == first, &json));
        }
        self.write_lines(folder, first, &buffer).map_err(not_written)?;
        let mut completed = Vec::with_capacity(2 * leaves.len());
        for leaf in leaves {
            let Ok(()) = view.frontier.push(leaf, |hash| {
                completed.push(hash);
                Ok::<_, Infallible>(())
            });
        }
        hashes.append(&completed);
        view.segments.clone_from(&self.segments);
        view.last_length = self.length;
        Ok(first)
    }

    fn write_lines(&mut self, folder: &Path, first: u64, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() || self.length >= self.options.segment_bytes {
            self.begin(folder, first)?;
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if self.dirty {
            file.set_len(self.length)?;
        }
        self.dirty = true;
        if let Err(error) = file.write_all_at(bytes, self.length).and_then(|()| file.sync_data()) {
            // Frees what a full disk took of the write; if even that fails, the next append tries again.
            self.dirty = file.set_len(self.length).and_then(|()| file.sync_data()).is_err();
            return Err(error);
        }
        self.dirty = false;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins the segment of entry `first`. A file that an earlier, failed try left is empty and is taken.
    fn begin(&mut self, folder: &Path, first: u64) -> io::Result<()> {
        let path = lines::segment(folder, first).path;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.sync_all()?;
        File::open(folder.join(ENTRIES))?.sync_all()?;
        self.file = Some(file);
        self.segments.push(first);
        self.length = 0;
        self.dirty = false;
        Ok(())
    }
}
