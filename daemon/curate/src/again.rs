//! Judges records by other rules than those that made them, from what is kept of them: the text with its labels, and where
//! they stand. What a label replaced is not kept, so a detector that is turned off leaves the label where it is.

use std::borrow::Cow;

use moat_contracts::{Action, Detector, Kind, Reason, Redaction, Verdict};

use crate::detect::{Numbering, redact};
use crate::{Compiled, Scratch, Words, measured_text, spans};

/// What other rules make of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Kept, redacted or dropped; near-duplicates are not looked for.
    pub verdict: Verdict,
    /// Every rule and every label that drops it; empty for one that is not dropped.
    pub reasons: Vec<Reason>,
    /// Spans that would be replaced.
    pub redactions: u64,
}

/// Other rules, with memory that is kept from record to record.
pub struct Again<'a> {
    rules: &'a Compiled,
    words: Words,
    scratch: Scratch,
}

impl<'a> Again<'a> {
    /// Makes ready to judge by rules.
    pub fn by(rules: &'a Compiled) -> Self {
        Self { rules, words: Words::default(), scratch: Scratch::default() }
    }

    /// Judges a record by its kind, its language, its curated text and what was replaced in it.
    pub fn judge(
        &mut self,
        kind: Kind,
        language: Option<&str>,
        body: &str,
        redactions: &[Redaction],
    ) -> Judged {
        let detectors = &self.rules.detectors;
        let action = |label: &str| {
            let detector = Detector::ALL.iter().find(|detector| detector.label() == label);
            detector.map_or(Action::Redact, |detector| detectors.action(*detector))
        };
        let secret = |label: &str| {
            Detector::ALL.iter().any(|detector| detector.label() == label && detector.is_secret())
        };
        // What is looked for now and was not before, beside the labels that stand there already.
        let labels = spans(body, redactions);
        let mut fresh = detectors.find(kind, body);
        fresh.retain(|finding| {
            labels.iter().all(|span| finding.end <= span.start || span.end <= finding.start)
        });
        let text: Cow<'_, str> = if fresh.is_empty() {
            Cow::Borrowed(body)
        } else {
            redact(kind, body, &fresh, &mut Numbering::default()).0.into()
        };
        let measured = measured_text(kind, &text);
        self.words.read(&measured);
        let mut reasons =
            self.rules.checks.failures(kind, language, &measured, &self.words, &mut self.scratch);
        let old = redactions.iter().map(|redaction| (redaction.label.as_str(), redaction.length));
        let new = fresh.iter().map(|found| (found.detector.label(), (found.end - found.start) as u64));
        let all: Vec<(&str, u64)> =
            old.chain(new).filter(|(label, _)| action(label) != Action::Off).collect();
        // The text's length before anything was replaced.
        let replaced: usize = labels.iter().map(|span| span.end - span.start).sum();
        let whole = (body.len() - replaced) as f64
            + redactions.iter().map(|redaction| redaction.length as f64).sum::<f64>();
        let share = |secrets: bool| {
            let counted = all.iter().filter(|(label, _)| !secrets || secret(label));
            counted.map(|(_, length)| *length as f64).sum::<f64>() / whole.max(1.0)
        };
        let detect = detectors.rules();
        for (rule, measured, limit) in [
            ("max_secret_share", share(true), detect.max_secret_share),
            ("max_redacted_share", share(false), detect.max_redacted_share),
        ] {
            if limit > 0.0 && measured > limit {
                let (measured, limit) = (Some(measured), Some(limit));
                reasons.push(Reason { rule: rule.to_owned(), measured, limit, line: None });
            }
        }
        for detector in Detector::ALL {
            let number = all.iter().filter(|(label, _)| *label == detector.label()).count();
            if number > 0 && detectors.action(*detector) == Action::Drop {
                let (rule, measured) = (detector.label().to_owned(), Some(number as f64));
                reasons.push(Reason { rule, measured, limit: None, line: None });
            }
        }
        let verdict = match (reasons.is_empty(), all.is_empty()) {
            (false, _) => Verdict::Dropped,
            (true, false) => Verdict::Redacted,
            (true, true) => Verdict::Kept,
        };
        Judged { verdict, reasons, redactions: all.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use moat_contracts::{Action, Detector, Digest, DocumentId, Kind, Record, Rules, Text, Verdict};

    use super::Again;
    use crate::{Compiled, curate};

    fn texts() -> Vec<(Kind, String)> {
        let prose = "The pump in the old station opens the valve every morning, and the team writes the value into the log. \
                     Nobody has asked for another one, since it works as well as it did when it was new.";
        let long = "Call the night shift at once and tell it what the gauge says, for the limit is near and the line is old. ";
        vec![
            (Kind::Prose, prose.to_owned()),
            (Kind::Prose, "Too short.".to_owned()),
            (Kind::Prose, format!("{prose} Write to jane.doe@corp-mail.com or to max@corp-mail.com about it.")),
            (Kind::Prose, format!("{prose} Its password = \"hunter2-Xk3rP0q\" is not to be told. {long}")),
            (Kind::Prose, "jane.doe@corp-mail.com jane.doe@corp-mail.com max@corp-mail.com".to_owned()),
            (Kind::Markdown, format!("# Log\n\n- {prose}\n- {long}\n")),
            (Kind::Code, "fn main() {\n    let mut sum = 0;\n    for value in values() {\n        sum += value;\n    }\n}\n".to_owned()),
            (Kind::Json, "{\"mail\": \"max@corp-mail.com\", \"note\": \"the pump works as it did\"}".to_owned()),
            (Kind::Chat, "[{\"role\": \"user\", \"content\": \"Does the pump work well today?\"}, {\"role\": \"assistant\", \"content\": \"It does.\"}]".to_owned()),
        ]
    }

    fn curated(rules: &Rules) -> Vec<Record> {
        let texts = (0..).zip(texts()).map(|(ordinal, (kind, body))| Text {
            ordinal,
            first_line: 1,
            body,
            kind,
            language: Some("eng".to_owned()),
            charset: "UTF-8",
        });
        curate(&Compiled::new(rules), DocumentId(Digest::of(b"")), &texts.collect::<Vec<_>>())
    }

    /// Judged by what is kept, against curated anew from the text itself.
    fn agree(from: &Rules, to: &Rules) {
        let compiled = Compiled::new(to);
        let mut again = Again::by(&compiled);
        for (old, new) in curated(from).iter().zip(curated(to)) {
            let judged = again.judge(old.kind, old.language.as_deref(), &old.body, &old.redactions);
            assert_eq!(judged.verdict, new.verdict, "{}: {:?}, {:?}", old.body, judged.reasons, new.reasons);
            if new.verdict == Verdict::Dropped {
                let names = |reasons: &[moat_contracts::Reason]| {
                    reasons.iter().map(|reason| reason.rule.clone()).collect::<Vec<_>>()
                };
                let mut dropping = names(&new.reasons);
                dropping.truncate(judged.reasons.len());
                assert_eq!(names(&judged.reasons), dropping, "{}", old.body);
            }
        }
    }

    #[test]
    fn other_rules_judge_what_is_kept_as_they_would_judge_the_text() {
        let default = Rules::default();
        agree(&default, &default);
        let mut strict = default.clone();
        strict.quality.prose.min_words = 40;
        strict.quality.code.max_mean_line = 10.0;
        strict.detect.labels.insert(Detector::Email, Action::Drop);
        strict.detect.max_redacted_share = 0.01;
        agree(&default, &strict);
        agree(&strict, &default);
        // What was not looked for before is found in the text that is kept.
        let mut blind = default.clone();
        blind.detect.labels.insert(Detector::Email, Action::Off);
        agree(&blind, &default);
        agree(&blind, &strict);
    }

    #[test]
    fn margins_tell_how_near_another_judgement_is() {
        let records = curated(&Rules::default());
        let margin = |index: usize| records[index].margin;
        assert!(margin(0).is_some_and(|margin| margin > 0.0));
        // Two words where twenty are wanted.
        assert_eq!((records[1].verdict, margin(1)), (Verdict::Dropped, Some(1.0)));
        let mut rules = Rules::default();
        rules.detect.labels.insert(Detector::Email, Action::Drop);
        assert_eq!((curated(&rules)[2].verdict, curated(&rules)[2].margin), (Verdict::Dropped, None));
    }
}
