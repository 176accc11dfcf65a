//! The one pass over a ledger that both opening and verifying make: lines, stored hashes and checkpoints side by side.

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checkpoints::{CURRENT, HISTORY, Item, Notes};
use crate::error::LedgerError;
use crate::hashes::Stored;
use crate::lines::{self, Lines, Segment};
use crate::merkle::{Frontier, Hash};
use crate::note::{Checkpoint, PublicKey, Signature};
use crate::verify::{Finding, Place, Report};

/// The most bytes that a torn write may have; what is larger is damage.
const LARGEST_WRITE: u64 = 64 << 20;

/// Where in the last segment a write was torn.
pub(crate) struct Torn {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What a walk knows at its end.
pub(crate) struct Walked {
    pub(crate) report: Report,
    pub(crate) frontier: Frontier,
    pub(crate) segments: Vec<Segment>,
    pub(crate) torn: Option<Torn>,
    /// The last checkpoint of the history, and where the history is to be cut.
    pub(crate) last: Option<Checkpoint>,
    pub(crate) torn_history: Option<u64>,
}

/// Walks a ledger. Hashes that `hashes` lacks are handed to `fill` with their slot.
pub(crate) fn walk(
    folder: &Path,
    key: Option<&PublicKey>,
    witness: Option<&Path>,
    fill: &mut dyn FnMut(u64, &Hash) -> Result<(), LedgerError>,
) -> Result<Walked, LedgerError> {
    // In this order, and before the entries: a ledger that is being written meanwhile is then never ahead of itself.
    let current = Trail::open(Place::Current, &folder.join(CURRENT), key)?;
    let mut trails = vec![Trail::open(Place::History, &folder.join(HISTORY), key)?, current];
    if let Some(witness) = witness {
        // A witness that is not there cannot vouch for anything: say so rather than verify less.
        File::open(witness).map_err(LedgerError::io("open", witness))?;
        trails.push(Trail::open(Place::Witness, witness, key)?);
    }
    let stored = Stored::open(folder)?;
    let segments = lines::segments(folder)?;
    let mut pass = Pass {
        report: Report::default(),
        frontier: Frontier::default(),
        stored,
        trails,
        unknown: false,
        fill,
    };
    pass.compare()?;
    let mut torn = None;
    for (number, segment) in segments.iter().enumerate() {
        torn = pass.segment(segment, number + 1 == segments.len())?;
    }
    pass.finish()?;
    let Pass { report, frontier, mut trails, .. } = pass;
    let history = trails.swap_remove(0);
    Ok(Walked { report, frontier, segments, torn, last: history.last, torn_history: history.torn })
}

struct Pass<'a> {
    report: Report,
    frontier: Frontier,
    stored: Stored,
    trails: Vec<Trail<'a>>,
    /// Whether an entry's hash is lost, so that no root can be compared any more.
    unknown: bool,
    fill: &'a mut dyn FnMut(u64, &Hash) -> Result<(), LedgerError>,
}

impl Pass<'_> {
    /// Takes in the next entry by its leaf hash; without one, its stored hash stands in.
    fn advance(&mut self, leaf: Option<Hash>) -> Result<(), LedgerError> {
        let index = self.frontier.size();
        let before = self.stored.peek()?;
        self.unknown |= leaf.is_none() && before.is_none();
        // From an unknown leaf on, nothing is concluded from the hashes.
        let leaf = leaf.or(before).unwrap_or_default();
        let mut completed = Vec::new();
        let Ok(()) = self.frontier.push(leaf, |hash| {
            completed.push(hash);
            Ok::<_, Infallible>(())
        });
        for (level, hash) in (0..).zip(&completed) {
            match self.stored.next()? {
                (_, Some(stored)) if stored == *hash || self.unknown => {}
                (_, Some(_)) => self.report.add(Finding::Hash { index, level }),
                (_, None) if self.unknown => {}
                (slot, None) => {
                    self.report.missing_hashes += 1;
                    (self.fill)(slot, hash)?;
                }
            }
        }
        self.compare()
    }

    /// Takes in entries that cannot be read, up to `to`.
    fn advance_unread(&mut self, to: u64) -> Result<(), LedgerError> {
        let from = self.frontier.size();
        self.report.add(Finding::Damaged { from, to });
        (from..to).try_for_each(|_| self.advance(None))
    }

    /// Holds every checkpoint of this size against the tree.
    fn compare(&mut self) -> Result<(), LedgerError> {
        let (size, mut root) = (self.frontier.size(), None);
        for trail in &mut self.trails {
            while trail.head(&mut self.report)?.is_some_and(|head| head.size <= size) {
                let Some((number, note)) = trail.take() else { break };
                let place = trail.place;
                if note.size < size {
                    self.report.add(Finding::Backwards { place, number });
                    continue;
                }
                if !self.unknown {
                    if *root.get_or_insert_with(|| self.frontier.root()) == note.root {
                        match place {
                            Place::History => self.report.checkpoints += 1,
                            Place::Current => {}
                            Place::Witness => self.report.witnessed = size,
                        }
                        self.report.covered = size;
                    } else {
                        self.report.add(Finding::Contradicted { place, number, size });
                    }
                }
                trail.last = Some(note);
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, newest: bool) -> Result<Option<Torn>, LedgerError> {
        let size = self.frontier.size();
        if segment.first > size && segment.first <= self.stored.entries() {
            self.advance_unread(segment.first)?;
        } else if segment.first != size {
            self.report.add(Finding::Order { expected: size, found: segment.first });
        }
        let (mut lines, mut damaged) = (Lines::open(&segment.path)?, false);
        while let Some((offset, line)) = lines.next()? {
            let size = self.frontier.size();
            match lines::decode(line) {
                Some(line) if line.index == size => {
                    if damaged {
                        self.report.add(Finding::Damaged { from: size, to: size + 1 });
                    }
                    self.advance(Some(line.leaf))?;
                }
                // A gap that the stored hashes bridge, so that what follows can still be judged.
                Some(line) if line.index > size && line.index < self.stored.entries() => {
                    let leaf = line.leaf;
                    let index = line.index;
                    self.advance_unread(index)?;
                    self.advance(Some(leaf))?;
                }
                Some(line) => {
                    self.report.add(Finding::Order { expected: size, found: line.index });
                    let leaf = line.leaf;
                    self.advance(Some(leaf))?;
                }
                None => {
                    let open_end = newest && !damaged && self.stored.peek()?.is_none();
                    if open_end && let Some(torn) = torn(segment, offset)? {
                        self.report.add(Finding::TornWrite { index: size, bytes: torn.bytes });
                        return Ok(Some(torn));
                    }
                    damaged = true;
                    continue;
                }
            }
            damaged = false;
        }
        if damaged {
            let size = self.frontier.size();
            // The next segment says where this one ended; after the last, the stored hashes do.
            let to = if newest { self.stored.entries().max(size + 1) } else { size + 1 };
            self.advance_unread(to)?;
        }
        Ok(None)
    }

    /// Judges what points beyond the end of the log.
    fn finish(&mut self) -> Result<(), LedgerError> {
        let have = self.frontier.size();
        self.report.entries = have;
        if self.stored.peek()?.is_some() {
            let known = self.stored.entries().max(have + 1);
            self.report.add(Finding::CutTail { have, known });
        }
        for trail in &mut self.trails {
            while let Some(head) = trail.head(&mut self.report)? {
                let known = head.size;
                let Some((_, note)) = trail.take() else { break };
                self.report.add(match trail.place {
                    Place::Witness => Finding::RolledBack { have, witnessed: known },
                    _ => Finding::CutTail { have, known },
                });
                trail.last = Some(note);
            }
        }
        // A checkpoint is in the history before it is the newest.
        let newest = |trail: &Trail<'_>| trail.last.as_ref().map(|note| note.size);
        if let Some(size) = newest(&self.trails[1]).filter(|&size| newest(&self.trails[0]) < Some(size)) {
            self.report.add(Finding::HistoryCut { size });
        }
        Ok(())
    }
}

/// What is torn from `offset` on, if it looks as a write does that was cut short and never acknowledged.
///
/// Its caller has seen that no hash was stored for it. Here: no later write began, and bytes are missing, either at the
/// end of the file or as blocks of zeros. A bit that flips in a whole line leaves neither.
fn torn(segment: &Segment, offset: u64) -> Result<Option<Torn>, LedgerError> {
    let io = LedgerError::io("read", &segment.path);
    let read = || {
        let file = File::open(&segment.path)?;
        let bytes = file.metadata()?.len().saturating_sub(offset);
        let mut rest = vec![0; bytes.min(LARGEST_WRITE + 1) as usize];
        file.read_exact_at(&mut rest, offset)?;
        Ok(rest)
    };
    let rest = read().map_err(io)?;
    let bytes = rest.len() as u64;
    // A block may hold only the first byte of the write, or only the last.
    let edge = rest.starts_with(&[0]) || rest.ends_with(&[0]);
    let lost = !ends(&rest) || edge || rest.windows(2).any(|pair| pair == [0, 0]);
    // A later write may begin anywhere, since the end of the line before it may be among what is missing.
    let later = |at: usize| {
        let end = memchr::memchr(b'\n', &rest[at..]).map_or(rest.len(), |end| at + end + 1);
        lines::decode(&rest[at..end]).is_some_and(|line| line.first_of_write)
    };
    let alone = !memchr::memchr_iter(b'+', &rest).skip_while(|&at| at == 0).any(later);
    Ok((lost && alone && bytes <= LARGEST_WRITE).then_some(Torn { offset, bytes }))
}

/// Whether the last line is there to its end, be that end itself damaged.
fn ends(rest: &[u8]) -> bool {
    let Some((_, line)) = rest.split_last() else { return true };
    let start = memchr::memrchr(b'\n', line).map_or(0, |end| end + 1);
    rest.ends_with(b"\n") || lines::decode(&[&line[start..], b"\n"].concat()).is_some()
}

/// The checkpoints of one place, each judged by its signature as it comes.
struct Trail<'a> {
    place: Place,
    notes: Notes,
    key: Option<&'a PublicKey>,
    number: u64,
    head: Option<Checkpoint>,
    last: Option<Checkpoint>,
    torn: Option<u64>,
}

impl<'a> Trail<'a> {
    fn open(place: Place, path: &Path, key: Option<&'a PublicKey>) -> Result<Self, LedgerError> {
        Ok(Self { place, notes: Notes::open(path)?, key, number: 0, head: None, last: None, torn: None })
    }

    /// The next checkpoint that can be read and is signed by the key; faults on the way are reported.
    fn head(&mut self, report: &mut Report) -> Result<Option<&Checkpoint>, LedgerError> {
        while self.head.is_none() && self.torn.is_none() {
            let (place, Some(item)) = (self.place, self.notes.next()?) else { break };
            self.number += 1;
            let number = self.number;
            match item {
                Item::Note(note) => match self.key.map_or(Signature::Good, |key| note.check(key)) {
                    Signature::Good => self.head = Some(note),
                    Signature::Foreign => report.add(Finding::ForeignKey { place, number }),
                    Signature::Wrong => report.add(Finding::Signature { place, number }),
                },
                Item::Broken => report.add(Finding::Unreadable { place, number }),
                // The newest is put in place whole, so a part of it is no torn write.
                Item::Torn(_) if place == Place::Current => report.add(Finding::Unreadable { place, number }),
                Item::Torn(from) => {
                    self.torn = Some(from);
                    report.add(Finding::TornCheckpoint { place });
                }
            }
        }
        Ok(self.head.as_ref())
    }

    fn take(&mut self) -> Option<(u64, Checkpoint)> {
        self.head.take().map(|note| (self.number, note))
    }
}
