//! Reading: a page of entries, newest first, from the open ledger or from a copy of its folder.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;

use crate::entry::Entry;
use crate::error::LedgerError;
use crate::lines::{self, MAX_LINE};
use crate::log::Ledger;
use crate::verify::Finding;

const BLOCK: u64 = 256 << 10;

/// Which entries are wanted; what is not set does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The act, or the dotted words that it begins with: `run` finds `run.start`.
    pub act: Option<String>,
    /// The name of who acted.
    pub who: Option<String>,
    /// The earliest time, in milliseconds since 1970.
    pub since: Option<u64>,
    /// The first time that is too late.
    pub until: Option<u64>,
    /// An id, hash or name that it touched.
    pub on: Option<String>,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        let begins = |act: &String| {
            let rest = entry.act.strip_prefix(act.as_str());
            rest.is_some_and(|rest| act.ends_with('.') || rest.is_empty() || rest.starts_with('.'))
        };
        self.act.as_ref().is_none_or(begins)
            && self.who.as_ref().is_none_or(|who| entry.who.name == *who)
            && self.on.as_ref().is_none_or(|on| entry.on.values().any(|value| value == on))
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
    }

    /// Texts that stand in every line that is wanted, so that others need not be parsed.
    fn finders(&self) -> Vec<Finder<'static>> {
        // A string can always be written as JSON.
        let quoted = |text: &String| serde_json::to_string(text).unwrap_or_default();
        let act = self.act.as_ref().map(|act| quoted(act).trim_end_matches('"').to_owned());
        let act = act.map(|act| format!("\"act\":{act}"));
        let who = self.who.as_ref().map(|who| format!("\"name\":{}", quoted(who)));
        let on = self.on.as_ref().map(|on| format!(":{}", quoted(on)));
        [act, who, on].into_iter().flatten().map(|text| Finder::new(text.as_bytes()).into_owned()).collect()
    }
}

/// Entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// What to give as `before` for the next page; `None` after the last.
    pub next: Option<u64>,
}

/// What takes a line with its entry's index, and says whether it wants another.
type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<bool, LedgerError> + 'a;

/// The lines of a ledger at one moment.
#[derive(Debug, Clone)]
pub struct Reader {
    folder: PathBuf,
    segments: Vec<u64>,
    last_length: u64,
}

impl Ledger {
    /// The newest entries that the filter takes, at most `most`, from before entry `before` on.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where a line is not as it was written, [`LedgerError::Io`] where it cannot be read.
    pub fn entries(&self, filter: &Filter, before: Option<u64>, most: usize) -> Result<Page, LedgerError> {
        self.reader().entries(filter, before, most)
    }

    /// One entry.
    ///
    /// # Errors
    /// [`LedgerError::Beyond`] where there is none; as [`Ledger::entries`].
    pub fn entry(&self, index: u64) -> Result<Entry, LedgerError> {
        self.reader().entry(index)
    }

    /// The exact bytes of one entry, which [`crate::leaf_hash`] hashes for a proof.
    ///
    /// # Errors
    /// As [`Ledger::entry`].
    pub fn entry_bytes(&self, index: u64) -> Result<Vec<u8>, LedgerError> {
        self.reader().entry_bytes(index)
    }

    fn reader(&self) -> Reader {
        let view = self.view();
        Reader { folder: self.folder().to_owned(), segments: view.segments, last_length: view.last_length }
    }
}

impl Reader {
    /// Opens a ledger's folder, or a copy of it, for reading only; nothing is verified but the lines that are read.
    ///
    /// # Errors
    /// [`LedgerError::Io`] where it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let segments = lines::segments(folder)?;
        let last_length = match segments.last() {
            Some(last) => {
                let file = File::open(&last.path).map_err(LedgerError::io("open", &last.path))?;
                let length = file.metadata().map_err(LedgerError::io("read", &last.path))?.len();
                // A write may be under way: what follows the last end of a line is not an entry yet.
                length - tail(&file, &last.path, length)?
            }
            None => 0,
        };
        let segments = segments.iter().map(|segment| segment.first).collect();
        Ok(Self { folder: folder.to_owned(), segments, last_length })
    }

    /// As [`Ledger::entries`].
    ///
    /// # Errors
    /// As [`Ledger::entries`].
    pub fn entries(&self, filter: &Filter, before: Option<u64>, most: usize) -> Result<Page, LedgerError> {
        let (finders, mut entries, mut next) = (filter.finders(), Vec::new(), None);
        self.backwards(before, &mut |index, line| {
            let time = lines::glance(line).map(|(_, time)| time);
            let in_time = time.is_none_or(|time| {
                filter.since.is_none_or(|since| time >= since)
                    && filter.until.is_none_or(|until| time < until)
            });
            if in_time && finders.iter().all(|finder| finder.find(line).is_some()) {
                let entry = parse(index, line)?;
                if filter.takes(&entry) {
                    if entries.len() == most {
                        next = Some(index + 1);
                        return Ok(false);
                    }
                    entries.push(entry);
                }
            }
            Ok(true)
        })?;
        Ok(Page { entries, next })
    }

    /// As [`Ledger::entry`].
    ///
    /// # Errors
    /// As [`Ledger::entry`].
    pub fn entry(&self, index: u64) -> Result<Entry, LedgerError> {
        self.one(index, parse)
    }

    /// As [`Ledger::entry_bytes`].
    ///
    /// # Errors
    /// As [`Ledger::entry`].
    pub fn entry_bytes(&self, index: u64) -> Result<Vec<u8>, LedgerError> {
        self.one(index, |index, line| Ok(decode(index, line)?.to_vec()))
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// As [`Ledger::entries`].
    pub fn size(&self) -> Result<u64, LedgerError> {
        let mut size = 0;
        self.backwards(None, &mut |index, _| {
            size = index + 1;
            Ok(false)
        })?;
        Ok(size)
    }

    fn one<T>(
        &self,
        index: u64,
        read: impl Fn(u64, &[u8]) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut found = None;
        self.backwards(index.checked_add(1), &mut |at, line| {
            found = (at == index).then(|| read(index, line)).transpose()?;
            Ok(false)
        })?;
        match found {
            Some(found) => Ok(found),
            None => Err(LedgerError::Beyond { asked: index, size: self.size()? }),
        }
    }

    /// Hands every line before entry `before` to `each`, last first, until it says that it has enough.
    fn backwards(&self, before: Option<u64>, each: &mut Each<'_>) -> Result<(), LedgerError> {
        let newest = self.segments.len().saturating_sub(1);
        for (number, &first) in self.segments.iter().enumerate().rev() {
            if before.is_some_and(|before| before <= first) {
                continue;
            }
            let path = lines::segment(&self.folder, first).path;
            let file = File::open(&path).map_err(LedgerError::io("open", &path))?;
            let mut end = self.last_length;
            if number != newest {
                end = file.metadata().map_err(LedgerError::io("read", &path))?.len();
            }
            // The part of a line whose beginning lies in the block before.
            let mut rest = Vec::new();
            while end > 0 {
                let start = end.saturating_sub(BLOCK);
                let mut block = vec![0; (end - start) as usize];
                file.read_exact_at(&mut block, start).map_err(LedgerError::io("read", &path))?;
                block.append(&mut rest);
                let whole = match start {
                    0 => 0,
                    _ => block.iter().position(|&byte| byte == b'\n').map_or(block.len(), |end| end + 1),
                };
                let mut upto = block.len();
                while upto > whole {
                    let from =
                        memchr::memrchr(b'\n', &block[whole..upto - 1]).map_or(whole, |end| whole + end + 1);
                    let line = &block[from..upto];
                    upto = from;
                    let damaged = LedgerError::Damaged(Finding::Damaged { from: first, to: first + 1 });
                    let (index, _) = lines::glance(line).ok_or(damaged)?;
                    if before.is_none_or(|before| index < before) && !each(index, line)? {
                        return Ok(());
                    }
                }
                block.truncate(whole);
                rest = block;
                if rest.len() > 2 * MAX_LINE + BLOCK as usize {
                    return Err(LedgerError::Damaged(Finding::Damaged { from: first, to: first + 1 }));
                }
                end = start;
            }
        }
        Ok(())
    }
}

/// How many bytes follow the last end of a line.
fn tail(file: &File, path: &Path, length: u64) -> Result<u64, LedgerError> {
    let mut last = vec![0; length.min(2 * MAX_LINE as u64) as usize];
    let start = length - last.len() as u64;
    file.read_exact_at(&mut last, start).map_err(LedgerError::io("read", path))?;
    Ok(memchr::memrchr(b'\n', &last).map_or(last.len(), |end| last.len() - end - 1) as u64)
}

fn decode(index: u64, line: &[u8]) -> Result<&[u8], LedgerError> {
    let damaged = || LedgerError::Damaged(Finding::Damaged { from: index, to: index + 1 });
    lines::decode(line).filter(|line| line.index == index).map(|line| line.json).ok_or_else(damaged)
}

fn parse(index: u64, line: &[u8]) -> Result<Entry, LedgerError> {
    let damaged = |_| LedgerError::Damaged(Finding::Damaged { from: index, to: index + 1 });
    serde_json::from_slice(decode(index, line)?).map_err(damaged)
}
