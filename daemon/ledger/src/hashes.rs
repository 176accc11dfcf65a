//! The file of stored hashes: every complete subtree's, in the order of completion, 32 bytes each.
//!
//! It makes proofs cheap, and it is the mark that an entry was acknowledged: an entry's hashes are written only after its
//! line is synced, so where a hash stands, the line was on disk. The file itself is not synced with every entry: what a
//! power cut takes from it (a short end, slots of zeros) is filled in again from the lines.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::LedgerError;
use crate::merkle::{Hash, stored_before};

/// The file's name within the ledger's folder.
pub(crate) const HASHES: &str = "hashes";
const WIDTH: u64 = 32;

/// The hashes for writing and for reading anywhere.
pub(crate) struct Hashes {
    file: File,
    path: PathBuf,
    /// What the disk would not take yet, and the slot at which it belongs.
    pending: Mutex<(u64, Vec<u8>)>,
}

impl Hashes {
    /// Opens the file, making it where it is missing, for a log that stores `slots` hashes now.
    pub(crate) fn open(folder: &Path, slots: u64) -> Result<Self, LedgerError> {
        let path = folder.join(HASHES);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(LedgerError::io("open", &path))?;
        Ok(Self { file, path, pending: Mutex::new((slots, Vec::new())) })
    }

    /// Writes a hash that the file lacks.
    pub(crate) fn fill(&self, slot: u64, hash: &Hash) -> Result<(), LedgerError> {
        self.file.write_all_at(hash, slot * WIDTH).map_err(LedgerError::io("write", &self.path))
    }

    /// Adds hashes at the end. What a full disk refuses is kept in memory and tried again with the next.
    pub(crate) fn append(&self, hashes: &[Hash]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.1.extend(hashes.iter().flatten());
        if self.file.write_all_at(&pending.1, pending.0 * WIDTH).is_ok() {
            pending.0 += pending.1.len() as u64 / WIDTH;
            pending.1.clear();
        }
    }

    /// The hash in a slot.
    pub(crate) fn read(&self, slot: u64) -> Result<Hash, LedgerError> {
        let mut hash = [0; 32];
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.checked_sub(pending.0).map(|at| (at * WIDTH) as usize) {
            Some(at) => match pending.1.get(at..at + hash.len()) {
                Some(kept) => hash.copy_from_slice(kept),
                None => return Err(LedgerError::io("read", &self.path)(io::ErrorKind::UnexpectedEof.into())),
            },
            None => {
                let read = self.file.read_exact_at(&mut hash, slot * WIDTH);
                read.map_err(LedgerError::io("read", &self.path))?;
            }
        }
        Ok(hash)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), LedgerError> {
        self.file.sync_data().map_err(LedgerError::io("sync", &self.path))
    }

    /// Cuts the file to `slots`, which drops a slot that was written by half.
    pub(crate) fn cut(&self, slots: u64) -> Result<(), LedgerError> {
        self.file.set_len(slots * WIDTH).map_err(LedgerError::io("cut", &self.path))
    }
}

/// The hashes from the first on, as a verification reads them.
pub(crate) struct Stored {
    reader: Option<BufReader<File>>,
    path: PathBuf,
    slots: u64,
    at: u64,
    ahead: Option<Option<Hash>>,
}

impl Stored {
    pub(crate) fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(HASHES);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(LedgerError::io("open", &path)(error)),
        };
        let mut slots = 0;
        if let Some(file) = &file {
            slots = file.metadata().map_err(LedgerError::io("read", &path))?.len() / WIDTH;
        }
        let reader = file.map(|file| BufReader::with_capacity(256 << 10, file));
        Ok(Self { reader, path, slots, at: 0, ahead: None })
    }

    /// How many entries the file has hashes for.
    pub(crate) fn entries(&self) -> u64 {
        // The count of stored hashes grows with the entries, at most two for each and at least one.
        let (mut low, mut high) = (self.slots / 2, self.slots);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if stored_before(middle) <= self.slots {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// The next slot's number and hash; no hash where the slot was never written.
    pub(crate) fn next(&mut self) -> Result<(u64, Option<Hash>), LedgerError> {
        let hash = match self.ahead.take() {
            Some(hash) => hash,
            None => self.read()?,
        };
        self.at += 1;
        Ok((self.at - 1, hash))
    }

    /// The next slot's hash, left in place.
    pub(crate) fn peek(&mut self) -> Result<Option<Hash>, LedgerError> {
        if self.ahead.is_none() {
            self.ahead = Some(self.read()?);
        }
        Ok(self.ahead.flatten())
    }

    fn read(&mut self) -> Result<Option<Hash>, LedgerError> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.at < self.slots) else { return Ok(None) };
        let mut hash = [0; 32];
        reader.read_exact(&mut hash).map_err(LedgerError::io("read", &self.path))?;
        Ok((hash != [0; 32]).then_some(hash))
    }
}
