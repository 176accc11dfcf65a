//! Makes records of texts: measures their quality, finds secrets and personal data and replaces them, and tells which
//! records say the same.
//!
//! [`curate`] is a pure function of rules and texts and gives the same bytes on every machine; [`duplicates`] keeps the
//! clusters of near-duplicates in the catalog, as a function of what documents are present and not of how they came.
//! Nothing here reads files, knows of sources, or lets a customer's text into a reason or an error.

mod again;
mod detect;
/// Near-duplicate clusters, kept up to date in the catalog.
pub mod duplicates;
mod find;
mod lines;
mod minhash;
mod quality;
mod repetition;
mod spans;
mod stopwords;
mod table;
mod words;

use std::borrow::Cow;

use moat_contracts::{
    Action, Detector, Digest, DocumentId, Kind, Reason, Record, RecordKey, Redaction, Rules, Text, Verdict,
};

pub use again::{Again, Judged};
pub use detect::{Detectors, Finding};
pub use duplicates::CurateError;
pub use find::{Finder, FinderError};
pub use lines::Lines;
pub use minhash::{MinHash, similarity};
pub use quality::{Checks, Scratch};
pub use repetition::Repetition;
pub use spans::{Span, spans};
pub use words::Words;

/// Rules made ready: what can be prepared once is.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The quality rules.
    pub checks: Checks,
    /// The detectors.
    pub detectors: Detectors,
    /// The signatures.
    pub minhash: MinHash,
    rules: Rules,
    hash: Digest,
}

impl Compiled {
    /// Prepares rules; those that [`Rules::faults`] finds fault with are the configuration's to refuse.
    pub fn new(rules: &Rules) -> Self {
        Self {
            checks: Checks::new(&rules.quality),
            detectors: Detectors::new(&rules.detect),
            minhash: MinHash::new(&rules.duplicates),
            rules: rules.clone(),
            hash: rules.hash(),
        }
    }

    /// The rules themselves.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Their hash, which names the records made under them.
    pub const fn hash(&self) -> Digest {
        self.hash
    }
}

/// Makes a record of each of a document's texts, dropped ones too, in their order.
pub fn curate(rules: &Compiled, document: DocumentId, texts: &[Text]) -> Vec<Record> {
    let mut numbering = detect::Numbering::default();
    let mut words = Words::default();
    let mut scratch = Scratch::default();
    let mut record = |text: &Text| {
        let findings = rules.detectors.find(text.kind, &text.body);
        let (body, redactions) = if findings.is_empty() {
            (text.body.clone(), Vec::new())
        } else {
            detect::redact(text.kind, &text.body, &findings, &mut numbering)
        };
        let measured = measured_text(text.kind, &body);
        words.read(&measured);
        let language = text.language.as_deref();
        let (mut reasons, margin) = rules.checks.judge(text.kind, language, &measured, &words, &mut scratch);
        if text.kind == Kind::Preference {
            // Two preferences with one prompt and one chosen answer are not the same if another answer was rejected.
            words.read(&said(&body, &["prompt", "chosen", "rejected"]));
        }
        let (dropping, mut redacting) = finding_reasons(rules, text, &findings, &redactions);
        let margin = margin.filter(|_| dropping.is_empty());
        reasons.extend(dropping);
        let verdict = match (reasons.is_empty(), redactions.is_empty()) {
            (false, _) => Verdict::Dropped,
            (true, false) => Verdict::Redacted,
            (true, true) => Verdict::Kept,
        };
        reasons.append(&mut redacting);
        Record {
            key: RecordKey { document, ordinal: text.ordinal },
            id: Record::id_of(text.kind, language, &body),
            first_line: text.first_line,
            kind: text.kind,
            language: text.language.clone(),
            verdict,
            reasons,
            margin,
            redactions,
            words: words.len() as u64,
            signature: rules.minhash.signature(&words),
            body,
        }
    };
    texts.iter().map(&mut record).collect()
}

/// What the rules look at: of a chat what is said, without the JSON around it; of a preference the prompt and the chosen
/// answer, since a rejected one may be as bad as it likes; of the rest everything.
fn measured_text(kind: Kind, body: &str) -> Cow<'_, str> {
    match kind {
        Kind::Chat => {}
        Kind::Preference => return said(body, &["prompt", "chosen"]),
        _ => return Cow::Borrowed(body),
    }
    let messages: Result<Vec<serde_json::Value>, _> = serde_json::from_str(body);
    let Ok(messages) = messages else { return Cow::Borrowed(body) };
    let said: Vec<&str> = messages.iter().filter_map(|message| message["content"].as_str()).collect();
    Cow::Owned(said.join("\n"))
}

/// What is said in these parts of a preference.
fn said<'a>(body: &'a str, parts: &[&str]) -> Cow<'a, str> {
    let Ok(pair) = serde_json::from_str::<serde_json::Value>(body) else { return Cow::Borrowed(body) };
    let mut said = Vec::new();
    for part in parts {
        match &pair[*part] {
            serde_json::Value::String(text) => said.push(text.as_str()),
            serde_json::Value::Array(messages) => {
                said.extend(messages.iter().filter_map(|message| message["content"].as_str()));
            }
            _ => {}
        }
    }
    Cow::Owned(said.join("\n"))
}

/// Reasons that findings give: those that drop the record, and one for each label that was replaced.
fn finding_reasons(
    rules: &Compiled,
    text: &Text,
    findings: &[Finding],
    redactions: &[Redaction],
) -> (Vec<Reason>, Vec<Reason>) {
    let (mut dropping, mut redacting) = (Vec::new(), Vec::new());
    let whole = text.body.len().max(1) as f64;
    let share = |secrets_only: bool| {
        let counted = findings.iter().filter(|finding| !secrets_only || finding.detector.is_secret());
        counted.map(|finding| finding.end - finding.start).sum::<usize>() as f64 / whole
    };
    let detect = rules.detectors.rules();
    let limits = [
        ("max_secret_share", share(true), detect.max_secret_share),
        ("max_redacted_share", share(false), detect.max_redacted_share),
    ];
    for (rule, measured, limit) in limits {
        if limit > 0.0 && measured > limit {
            let (measured, limit) = (Some(measured), Some(limit));
            dropping.push(Reason { rule: rule.to_owned(), measured, limit, line: None });
        }
    }
    for detector in Detector::ALL {
        let mut of_label = redactions.iter().filter(|redaction| redaction.label == detector.label());
        let Some(first) = of_label.next() else { continue };
        let start = usize::try_from(first.start).unwrap_or(usize::MAX);
        let before = text.body.as_bytes().get(..start).unwrap_or_default();
        let reason = Reason {
            rule: detector.label().to_owned(),
            measured: Some((1 + of_label.count()) as f64),
            limit: None,
            line: Some(text.first_line + memchr::memchr_iter(b'\n', before).count() as u64),
        };
        let drops = rules.detectors.action(*detector) == Action::Drop;
        if drops { &mut dropping } else { &mut redacting }.push(reason);
    }
    (dropping, redacting)
}
