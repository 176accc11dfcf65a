//! Where the labels of replaced spans stand in a curated text.

use moat_contracts::Redaction;

/// A label in a curated text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins in the curated text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Which of the redactions it stands for.
    pub redaction: usize,
}

/// The labels that curation put into a text, in order. Found by their places, so that brackets which the author wrote are
/// not taken for one.
pub fn spans(body: &str, redactions: &[Redaction]) -> Vec<Span> {
    let mut spans = Vec::with_capacity(redactions.len());
    // Ends of what was looked at: in the curated text, and in the text before.
    let (mut here, mut before) = (0, 0);
    for (number, redaction) in redactions.iter().enumerate() {
        let start = usize::try_from(redaction.start).unwrap_or(usize::MAX);
        let label = format!("[{}_{}]", redaction.label, redaction.number);
        let quoted = format!("\"{label}\"");
        let expected = here + start.saturating_sub(before);
        // Line breaks of the span before follow its label; how many is not kept.
        let breaks = body.as_bytes().get(here..).unwrap_or_default();
        let breaks = if number == 0 { 0 } else { breaks.iter().take_while(|byte| **byte == b'\n').count() };
        let place = (expected..=expected + breaks).find_map(|at| {
            let rest = body.get(at..)?;
            let label = [&label, &quoted].into_iter().find(|label| rest.starts_with(label.as_str()))?;
            Some((at, at + label.len()))
        });
        let Some((at, end)) = place else { continue };
        spans.push(Span { start: at, end, redaction: number });
        here = end;
        before = start.saturating_add(usize::try_from(redaction.length).unwrap_or(usize::MAX));
    }
    spans
}

#[cfg(test)]
mod tests {
    use moat_contracts::{Digest, DocumentId, Kind, Rules, Text};

    use super::spans;
    use crate::{Compiled, curate};

    fn labels(kind: Kind, body: &str) -> (String, Vec<String>, usize) {
        let text =
            Text { ordinal: 0, first_line: 1, body: body.to_owned(), kind, language: None, charset: "UTF-8" };
        let rules = Compiled::new(&Rules::default());
        let record = curate(&rules, DocumentId(Digest::of(b"")), &[text]).remove(0);
        let found = spans(&record.body, &record.redactions);
        let labels = found.iter().map(|span| record.body[span.start..span.end].to_owned()).collect();
        (record.body, labels, record.redactions.len())
    }

    #[test]
    fn labels_are_where_curation_put_them() {
        let text = "The author wrote [EMAIL_1] here. Write to ann@corp-mail.com, bob@corp-mail.com\nand ann@corp-mail.com.";
        let (_, found, number) = labels(Kind::Prose, text);
        assert_eq!(
            (found.as_slice(), number),
            (&["[EMAIL_1]", "[EMAIL_2]", "[EMAIL_1]"].map(str::to_owned)[..], 3)
        );
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq2q0Zx1dN5kR8uY3vT6wJ9pL4mH2sF\nq0Zx1dN5kR8uY3vT6wJ9pL4mH2sFMIIEpAIBAAKCAQEA7bq2\n-----END RSA PRIVATE KEY-----\n\nThen ann@corp-mail.com, and ann@corp-mail.com.";
        let (body, found, number) = labels(Kind::Prose, key);
        assert_eq!((found.len(), number), (3, 3), "{body}");
        let (body, found, number) =
            labels(Kind::Json, "{\"card\": 4111111111111111, \"mail\": \"ann@corp-mail.com\"}");
        assert_eq!(found.len(), number, "{body}");
        assert!(found.iter().any(|label| label.starts_with("\"[")), "{body}");
    }

    #[test]
    fn what_does_not_fit_is_passed_over() {
        let redaction = moat_contracts::Redaction {
            label: "EMAIL".to_owned(),
            number: 1,
            start: u64::MAX,
            length: u64::MAX,
        };
        assert!(spans("ä [EMAIL_1]", &[redaction.clone(), redaction]).is_empty());
    }
}
