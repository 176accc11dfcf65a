//! The files of checkpoints: the history, the newest, and the witness's; read in a stream, written by appending.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::signature::Ed25519KeyPair;

use crate::error::LedgerError;
use crate::merkle::Hash;
use crate::note::{Checkpoint, ORIGIN, fits};
use crate::verify::{Finding, Place};

/// Every checkpoint, one after the other.
pub(crate) const HISTORY: &str = "checkpoints";
/// The newest checkpoint.
pub(crate) const CURRENT: &str = "checkpoint";
const LONGEST: u64 = 4096;

/// What stands next in a file of checkpoints.
pub(crate) enum Item {
    Note(Checkpoint),
    Broken,
    /// A last one that was never completed, from this byte on.
    Torn(u64),
}

/// Checkpoints of a file as it was when it was opened, in order; a file that is missing has none.
pub(crate) struct Notes {
    reader: Option<BufReader<Take<File>>>,
    path: PathBuf,
    offset: u64,
    held: Option<(u64, Vec<u8>)>,
}

impl Notes {
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let reader = match File::open(path) {
            Ok(file) => {
                let length = file.metadata().map_err(LedgerError::io("read", path))?.len();
                Some(BufReader::new(file.take(length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(LedgerError::io("open", path)(error)),
        };
        Ok(Self { reader, path: path.to_owned(), offset: 0, held: None })
    }

    /// A line with its end and where it starts; empty after the last.
    fn line(&mut self) -> Result<(u64, Vec<u8>), LedgerError> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let (start, mut line) = (self.offset, Vec::new());
        if let Some(reader) = &mut self.reader {
            let read = reader.take(LONGEST).read_until(b'\n', &mut line);
            self.offset += read.map_err(LedgerError::io("read", &self.path))? as u64;
        }
        Ok((start, line))
    }

    pub(crate) fn next(&mut self) -> Result<Option<Item>, LedgerError> {
        let (start, mut line) = self.line()?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut note = String::new();
        for place in 0..Checkpoint::LINES {
            if place > 0 {
                line = self.line()?.1;
            }
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            match text {
                Some(text) if fits(place, text) => note.extend([text, "\n"]),
                // Only the last line of a file can lack its end: this note was being written.
                _ if !line.ends_with(b"\n") && (line.len() as u64) < LONGEST => {
                    return Ok(Some(Item::Torn(start)));
                }
                _ => return self.skip(start, line).map(Some),
            }
        }
        Ok(Some(Checkpoint::parse(&note).map_or(Item::Broken, Item::Note)))
    }

    /// Goes on to the next line that begins a note. Blocks of zeros before the end of the file are a lost write.
    fn skip(&mut self, start: u64, mut line: Vec<u8>) -> Result<Item, LedgerError> {
        let mut lost = false;
        while !line.is_empty() {
            lost |= line.starts_with(&[0]) || line.windows(2).any(|pair| pair == [0, 0]);
            if line.strip_suffix(b"\n") == Some(ORIGIN.as_bytes()) {
                self.held = Some((self.offset - line.len() as u64, line));
                return Ok(Item::Broken);
            }
            line = self.line()?.1;
        }
        Ok(if lost { Item::Torn(start) } else { Item::Broken })
    }
}

/// Makes a name in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), LedgerError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LedgerError::io("sync", folder))
}

/// Signs checkpoints and keeps them.
pub(crate) struct Signer {
    folder: PathBuf,
    key: Option<Ed25519KeyPair>,
    last: Option<Checkpoint>,
    history: File,
    length: u64,
    /// Whether `checkpoint` is older than `last`.
    stale: bool,
}

impl Signer {
    /// Opens the history, cut to `length` bytes, of which `last` is the last.
    pub(crate) fn open(
        folder: &Path,
        last: Option<Checkpoint>,
        cut: Option<u64>,
    ) -> Result<Self, LedgerError> {
        let path = folder.join(HISTORY);
        let history = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let history = history.map_err(LedgerError::io("open", &path))?;
        if let Some(length) = cut {
            history.set_len(length).map_err(LedgerError::io("cut", &path))?;
        }
        // Who was killed may not have come to this, and what is published below must not outlast its history.
        history.sync_all().map_err(LedgerError::io("sync", &path))?;
        let length = history.metadata().map_err(LedgerError::io("read", &path))?.len();
        let current = folder.join(CURRENT);
        let newest = match fs::read_to_string(&current) {
            Ok(note) => Some(note),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(LedgerError::io("read", &current)(error)),
        };
        let stale = last.as_ref().map(|last| &last.note) != newest.as_ref();
        let mut signer = Self { folder: folder.to_owned(), key: None, last, history, length, stale };
        signer.publish()?;
        Ok(signer)
    }

    pub(crate) fn set_key(&mut self, key: Option<Ed25519KeyPair>) {
        self.key = key;
    }

    pub(crate) fn key(&self) -> Option<&Ed25519KeyPair> {
        self.key.as_ref()
    }

    pub(crate) fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref()
    }

    /// Signs a tree, unless the last checkpoint is of this very size.
    pub(crate) fn sign(&mut self, size: u64, root: Hash) -> Result<Checkpoint, LedgerError> {
        let key = self.key.as_ref().ok_or(LedgerError::Sealed)?;
        if let Some(last) = self.last.clone().filter(|last| last.size == size) {
            self.publish()?;
            return Ok(last);
        }
        let checkpoint = Checkpoint::sign(key, size, root);
        let path = self.folder.join(HISTORY);
        let bytes = checkpoint.note.as_bytes();
        // Cuts what an earlier try may have left of itself on a full disk.
        let cut = self.history.set_len(self.length);
        let written = cut.and_then(|()| self.history.write_all_at(bytes, self.length));
        written.and_then(|()| self.history.sync_data()).map_err(LedgerError::io("write", &path))?;
        self.length += bytes.len() as u64;
        self.last = Some(checkpoint.clone());
        self.stale = true;
        self.publish()?;
        Ok(checkpoint)
    }

    /// Puts the last checkpoint in `checkpoint`, whole or not at all.
    fn publish(&mut self) -> Result<(), LedgerError> {
        let Some(last) = self.last.as_ref().filter(|_| self.stale) else { return Ok(()) };
        let (path, fresh) = (self.folder.join(CURRENT), self.folder.join("checkpoint.new"));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(last.note.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(LedgerError::io("write", &path))?;
        sync_folder(&self.folder)?;
        self.stale = false;
        Ok(())
    }
}

/// Appends a checkpoint to a witness file, after holding the file's last against the log of `size` entries.
pub(crate) fn copy(
    checkpoint: &Checkpoint,
    path: &Path,
    size: u64,
    root_at: impl Fn(u64) -> Result<Hash, LedgerError>,
) -> Result<(), LedgerError> {
    let place = Place::Witness;
    let refuse = |finding| Err(LedgerError::Witness { path: path.to_owned(), finding });
    let (mut notes, mut last, mut number, mut cut) = (Notes::open(path)?, None, 0, None);
    while let Some(item) = notes.next()? {
        number += 1;
        match item {
            Item::Note(note) => last = Some(note),
            Item::Broken => return refuse(Finding::Unreadable { place, number }),
            Item::Torn(from) => {
                cut = Some(from);
                break;
            }
        }
    }
    if let Some(last) = last {
        if last.size > size {
            return refuse(Finding::RolledBack { have: size, witnessed: last.size });
        }
        if root_at(last.size)? != last.root {
            return refuse(Finding::Contradicted { place, number, size: last.size });
        }
        if last.note == checkpoint.note && cut.is_none() {
            return Ok(());
        }
    }
    let write = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some(length) = cut {
            file.set_len(length)?;
        }
        let length = file.metadata()?.len();
        file.write_all_at(checkpoint.note.as_bytes(), length)?;
        file.sync_all()
    };
    write().map_err(LedgerError::io("write", path))?;
    // The name of a new file is durable only once its folder is.
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}
