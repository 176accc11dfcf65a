//! Finds secrets and personal data and replaces them by their label and number.

mod network;
mod numbers;
mod redact;
mod secrets;

use moat_contracts::{Action, Detect, Detector, Kind};

pub(crate) use redact::{Numbering, redact};

/// One found span of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub detector: Detector,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// All detectors, ready to be run.
#[derive(Clone, Debug)]
pub struct Detectors {
    rules: Detect,
    secrets: secrets::Secrets,
}

/// Stands in for found spans while the rest is looked at again; parts words as a label's brackets do.
const MASK: u8 = b']';

impl Detectors {
    /// Makes the detectors ready.
    pub fn new(rules: &Detect) -> Self {
        Self { rules: rules.clone(), secrets: secrets::Secrets::new() }
    }

    /// Every finding of a text, by position, none overlapping another. Time is linear in the text.
    pub fn find(&self, kind: Kind, text: &str) -> Vec<Finding> {
        let escaped = matches!(kind, Kind::Json | Kind::Chat | Kind::Preference | Kind::Code);
        let mut found = self.scan(text.as_bytes(), escaped);
        if found.is_empty() {
            return found;
        }
        // A finding's label parts what stood together, so that more may show. Each round finds something or is the
        // last; the bound only keeps hostile texts from asking for many.
        let mut masked = text.as_bytes().to_vec();
        let mut from = 0;
        for _ in 0..8 {
            for finding in &found[from..] {
                masked[finding.start..finding.end].fill(MASK);
            }
            let mut more = self.scan(&masked, escaped);
            more.retain(|finding| {
                masked[finding.start..finding.end] == text.as_bytes()[finding.start..finding.end]
            });
            if more.is_empty() {
                break;
            }
            from = found.len();
            found.extend(more);
        }
        found.sort_unstable_by_key(|finding| finding.start);
        found
    }

    /// What is done about a detector's findings.
    pub(crate) fn action(&self, detector: Detector) -> Action {
        self.rules.action(detector)
    }

    /// The rules that these were made from.
    pub(crate) const fn rules(&self) -> &Detect {
        &self.rules
    }

    fn scan(&self, text: &[u8], escaped: bool) -> Vec<Finding> {
        let view = View { bytes: text, escaped };
        let mut found = Vec::new();
        self.secrets.scan(view, &mut found);
        network::scan_emails(view, &mut found);
        numbers::scan(view, &mut found);
        found.retain(|finding| self.action(finding.detector) != Action::Off);
        without_overlaps(found)
    }
}

/// Of overlapping findings, the one of the detector that is declared first; of the same detector, the first.
fn without_overlaps(mut found: Vec<Finding>) -> Vec<Finding> {
    if found.len() < 2 {
        return found;
    }
    found.sort_unstable_by_key(|finding| (finding.detector, finding.start, finding.end));
    let mut kept = std::collections::BTreeMap::<usize, Finding>::new();
    for finding in found {
        let before = kept.range(..finding.end).next_back();
        if before.is_none_or(|(_, before)| before.end <= finding.start) {
            kept.insert(finding.start, finding);
        }
    }
    kept.into_values().collect()
}

/// A text as the detectors look at it: bytes, so that looking around a place costs nothing.
#[derive(Clone, Copy)]
struct View<'a> {
    bytes: &'a [u8],
    /// Whether a backslash escapes the character after it.
    escaped: bool,
}

impl View<'_> {
    fn at(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(0, |at| self.at(at))
    }

    /// Whether the character before a place is the letter of an escape such as `\n`.
    fn after_escape(&self, at: usize) -> bool {
        self.escaped
            && at >= 2
            && matches!(self.bytes[at - 1], b'n' | b't' | b'r' | b'b' | b'f')
            && self.bytes[..at - 1].iter().rev().take(64).take_while(|&&byte| byte == b'\\').count() % 2 == 1
    }

    /// Whether a word may begin here.
    fn begins(&self, at: usize) -> bool {
        !is_word(self.before(at)) || self.after_escape(at)
    }

    /// Moves a start that fell into an escape sequence behind it.
    fn behind_escape(&self, start: usize) -> usize {
        let slashes = self.bytes[..start].iter().rev().take(64).take_while(|&&byte| byte == b'\\').count();
        if !self.escaped || slashes % 2 == 0 || !self.at(start).is_ascii() || start == self.bytes.len() {
            return start;
        }
        let code = self.bytes[start + 1..].iter().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
        start + if self.at(start) == b'u' && code == 4 { 5 } else { 1 }
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests;
