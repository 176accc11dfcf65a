//! Searches: texts are opened one by one, held against the words, and forgotten.

use std::ops::Range;
use std::time::{Duration, Instant};

use moat_catalog::{RecordFilter, Row};
use moat_contracts::{Kind, Verdict};
use moat_curate::Finder;
use moat_protocol::control::{Mark, Piece, RecordFilter as Asked, RecordFound, RecordsFound, Reply, Update};

use super::Teller;
use crate::daemon::Daemon;
use crate::failure::Failure;

/// Records found at most.
const MOST: usize = 1000;
/// Records whose ids are in memory at once.
const PAGE: usize = 512;
/// Bytes of a snippet, and those of them before the first word that was found.
const SNIPPET: usize = 320;
const BEFORE: usize = 80;

/// A search that is about to begin.
pub(crate) struct Search {
    finder: Finder,
    filter: RecordFilter,
    most: usize,
    after: Option<u64>,
    patience: Option<Duration>,
}

impl Search {
    /// Reads what is looked for. No error repeats it.
    pub(crate) fn new(
        words: &str,
        filter: Asked,
        most: usize,
        after: Option<u64>,
        patience: Option<u64>,
    ) -> Result<Self, Failure> {
        let finder = Finder::new(words).map_err(Failure::request)?;
        let verdict = filter.verdict.as_deref().map(|word| {
            Verdict::from_word(word)
                .ok_or_else(|| Failure::request("the verdict must be one of kept, redacted, dropped"))
        });
        let kind = filter.kind.as_deref().map(|word| {
            let kinds = || Kind::ALL.map(Kind::word).join(", ");
            Kind::from_word(word)
                .ok_or_else(|| Failure::request(format!("the kind must be one of {}", kinds())))
        });
        let (verdict, kind) = (verdict.transpose()?, kind.transpose()?);
        let filter = RecordFilter {
            source: filter.source,
            verdict,
            kind,
            rule: filter.rule,
            language: filter.language,
        };
        let most = most.clamp(1, MOST);
        Ok(Self { finder, filter, most, after, patience: patience.map(Duration::from_millis) })
    }

    /// Looks until enough is found, everything was looked at, or patience ends.
    pub(crate) fn run(self, daemon: &Daemon, teller: &mut Teller) -> Result<Reply, Failure> {
        let catalog = daemon.state.catalog()?;
        let begun = Instant::now();
        let mut answer = RecordsFound {
            found: Vec::new(),
            looked: 0,
            of: catalog.count_filtered(&self.filter)?,
            after: None,
        };
        let mut at = self.after.unwrap_or(0);
        loop {
            let page = catalog.next_filtered(&self.filter, at, PAGE)?;
            if page.is_empty() {
                return Ok(Reply::Records(answer));
            }
            for (row, id) in page {
                let impatient = self.patience.is_some_and(|patience| begun.elapsed() >= patience);
                if answer.found.len() >= self.most || (impatient && answer.looked > 0) {
                    answer.after = Some(at);
                    return Ok(Reply::Records(answer));
                }
                if daemon.is_ending() {
                    return Err(Failure::internal("moatd is ending"));
                }
                at = row.number();
                answer.looked += 1;
                let (records, found) = (answer.looked, answer.found.len() as u64);
                teller.tell(|| Update::Looking { records, of: answer.of, found })?;
                // A record that a scan takes away meanwhile is not found.
                let Some(text) = catalog.text(id)? else { continue };
                let Some(places) = self.finder.find(&text) else { continue };
                let Ok(row) = catalog.row(row) else { continue };
                answer.found.push(found_in(row, &text, &places));
            }
        }
    }
}

fn found_in(row: Row, text: &str, places: &[Range<usize>]) -> RecordFound {
    RecordFound {
        record: row.id.0,
        verdict: row.effective().word().to_owned(),
        source: row.source,
        path: row.path,
        first_line: row.first_line,
        kind: row.kind.word().to_owned(),
        language: row.language,
        snippet: snippet(text, places),
    }
}

/// The stretch around the first place, with every place in it marked.
fn snippet(text: &str, places: &[Range<usize>]) -> Vec<Piece> {
    let first = places.first().map_or(0, |place| place.start);
    let from = text.floor_char_boundary(first.saturating_sub(BEFORE));
    let to = text.ceil_char_boundary((from + SNIPPET).min(text.len()));
    let mut pieces = Vec::new();
    let cut = || Piece { text: "…".to_owned(), mark: Some(Mark::Cut) };
    let mut push = |range: Range<usize>, mark| {
        if let Some(text) = text.get(range).filter(|text| !text.is_empty()) {
            pieces.push(Piece { text: text.to_owned(), mark });
        }
    };
    let mut at = from;
    for place in places {
        let (start, end) = (place.start.max(at), place.end.min(to));
        if start < end {
            push(at..start, None);
            push(start..end, Some(Mark::Hit));
            at = end;
        }
    }
    push(at..to, None);
    if from > 0 {
        pieces.insert(0, cut());
    }
    if to < text.len() {
        pieces.push(cut());
    }
    pieces
}

/// The beginning of a text.
pub(crate) fn beginning(text: &str, bytes: usize) -> String {
    let end = text.floor_char_boundary(bytes);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use moat_curate::Finder;

    use super::{Mark, SNIPPET, snippet};

    #[test]
    fn a_snippet_is_the_text_around_what_was_found() {
        let text = format!("{}the pump opens the välve{}", "ä ".repeat(300), " ö".repeat(300));
        let places = Finder::new("valve PUMP").unwrap().find(&text).unwrap();
        let pieces = snippet(&text, &places);
        let marked = |mark: &Mark| {
            let marked = pieces.iter().filter(|piece| piece.mark.as_ref() == Some(mark));
            marked.map(|piece| piece.text.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((marked(&Mark::Hit), marked(&Mark::Cut)), (vec!["pump", "välve"], vec!["…", "…"]));
        let whole: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert!(whole.len() < SNIPPET + 20 && text.contains(whole.trim_matches('…')), "{whole}");
        assert_eq!(snippet("", &[]), []);
        assert_eq!(snippet("ab", &[0..1, 0..1]).len(), 2);
    }
}
