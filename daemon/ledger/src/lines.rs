//! The segment files: one entry a line, each with a mark and a checksum before its JSON.
//!
//! A line is `M CCCCCCCCCCCCCCCC {json}\n` without the first space: the mark `M` is `+` for the first line of a write and
//! `.` for its others, the checksum is the first eight bytes of the leaf's hash. A write begins only after the one before
//! it was synced, so everything before the last `+` is known to have been on disk: only what follows may be a torn write.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::codec::hex;
use crate::entry::MAX_ENTRY;
use crate::error::LedgerError;
use crate::merkle::{Hash, leaf_hash};

/// Where segment files stand within the ledger's folder.
pub(crate) const ENTRIES: &str = "entries";
const SUFFIX: &str = ".log";
const HEAD: usize = 18;
/// The most bytes of a line, its end included.
pub(crate) const MAX_LINE: usize = HEAD + MAX_ENTRY + 1;

/// Puts an entry's line at the end of `buffer` and returns the entry's leaf hash.
pub(crate) fn encode(buffer: &mut Vec<u8>, first_of_write: bool, json: &[u8]) -> Hash {
    let leaf = leaf_hash(json);
    buffer.push(if first_of_write { b'+' } else { b'.' });
    buffer.extend_from_slice(hex(&leaf[..8]).as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(json);
    buffer.push(b'\n');
    leaf
}

/// A line that is as it was written.
pub(crate) struct Line<'a> {
    /// Whether a write began with it.
    pub(crate) first_of_write: bool,
    /// The entry's bytes.
    pub(crate) json: &'a [u8],
    /// The entry's hash.
    pub(crate) leaf: Hash,
    /// The index that the entry gives itself.
    pub(crate) index: u64,
}

/// Reads a line, its end included; `None` when its bytes are not those that were written.
pub(crate) fn decode(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n")?;
    let (head, json) = line.split_at_checked(HEAD)?;
    let first_of_write = match head[0] {
        b'+' => true,
        b'.' => false,
        _ => return None,
    };
    if head[HEAD - 1] != b' ' {
        return None;
    }
    let leaf = leaf_hash(json);
    if head[1..HEAD - 1] != *hex(&leaf[..8]).as_bytes() {
        return None;
    }
    Some(Line { first_of_write, json, leaf, index: number_after(json, b"{\"index\":")? })
}

/// The whole number that follows `head` at the start of `json`.
fn number_after(json: &[u8], head: &[u8]) -> Option<u64> {
    let digits = json.strip_prefix(head)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// The entry's index and time, read off the beginning of its line without judging the rest.
pub(crate) fn glance(line: &[u8]) -> Option<(u64, u64)> {
    let json = line.get(HEAD..)?;
    let index = number_after(json, b"{\"index\":")?;
    let comma = json.iter().position(|&byte| byte == b',')?;
    Some((index, number_after(&json[comma..], b",\"time\":")?))
}

/// One segment file: the entries from `first` on.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// The file that begins with entry `first`.
pub(crate) fn segment(folder: &Path, first: u64) -> Segment {
    Segment { first, path: folder.join(ENTRIES).join(format!("{first:020}{SUFFIX}")) }
}

/// The segments of a ledger, in the order of their entries; a file of another name is an error.
pub(crate) fn segments(folder: &Path) -> Result<Vec<Segment>, LedgerError> {
    let inside = folder.join(ENTRIES);
    let mut found = Vec::new();
    for entry in fs::read_dir(&inside).map_err(LedgerError::io("list", &inside))? {
        let path = entry.map_err(LedgerError::io("list", &inside))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let first = name.and_then(|name| name.strip_suffix(SUFFIX)).and_then(|first| first.parse().ok());
        let expected = first.map(|first| segment(folder, first));
        match expected {
            Some(segment) if segment.path == path => found.push(segment),
            _ => {
                let stranger = io::Error::new(io::ErrorKind::InvalidData, "a ledger has no such file");
                return Err(LedgerError::io("recognise", &path)(stranger));
            }
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Lines of a segment, in order, in constant memory.
pub(crate) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    offset: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let reader = BufReader::with_capacity(256 << 10, file);
        Ok(Self { reader, path: path.to_owned(), offset: 0, line: Vec::new() })
    }

    /// The next line with its end, and where it starts; what is too long for a line comes in pieces.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>, LedgerError> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(2 * MAX_LINE as u64);
        let read = limited.read_until(b'\n', &mut self.line).map_err(LedgerError::io("read", &self.path))?;
        let start = self.offset;
        self.offset += read as u64;
        Ok((read > 0).then_some((start, &self.line[..])))
    }
}
