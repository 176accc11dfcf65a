use std::collections::BTreeMap;

use moat_contracts::{Detector, Kind, Redaction};

use super::Finding;

/// Numbers equal values within one document, for each detector from 1.
#[derive(Default)]
pub(crate) struct Numbering {
    known: BTreeMap<(Detector, String), u32>,
    last: BTreeMap<Detector, u32>,
}

impl Numbering {
    fn number(&mut self, detector: Detector, value: &str) -> u32 {
        let last = self.last.entry(detector).or_default();
        *self.known.entry((detector, normalised(detector, value))).or_insert_with(|| {
            *last += 1;
            *last
        })
    }
}

/// Two spellings of one value give the same text.
fn normalised(detector: Detector, value: &str) -> String {
    match detector {
        Detector::Email | Detector::Mac | Detector::IpAddress => value.to_lowercase(),
        Detector::Iban | Detector::CreditCard | Detector::UsSsn | Detector::DeTaxId | Detector::DePension => {
            value.chars().filter(char::is_ascii_alphanumeric).collect()
        }
        Detector::Phone => value.replace("(0)", "").chars().filter(char::is_ascii_digit).collect(),
        _ => value.to_owned(),
    }
}

/// Puts labels in the place of findings. Line breaks inside a finding stay, so that lines keep their numbers; JSON
/// stays JSON, since a finding that is no part of a string becomes one.
pub(crate) fn redact(
    kind: Kind,
    text: &str,
    findings: &[Finding],
    numbering: &mut Numbering,
) -> (String, Vec<Redaction>) {
    let json = matches!(kind, Kind::Json | Kind::Chat | Kind::Preference);
    let mut body = String::with_capacity(text.len());
    let mut redactions = Vec::with_capacity(findings.len());
    let (mut copied, mut quoted, mut looked) = (0, false, 0);
    for finding in findings {
        if finding.start < copied {
            // A bare JSON number was replaced whole and held this finding too.
            continue;
        }
        let (mut start, mut end) = (finding.start, finding.end);
        if json {
            quoted = inside_string(&text.as_bytes()[looked..start], quoted);
            looked = start;
            if !quoted {
                let bare = |byte: &u8| {
                    !matches!(byte, b',' | b':' | b'[' | b']' | b'{' | b'}' | b'"')
                        && !byte.is_ascii_whitespace()
                };
                start -= text.as_bytes()[copied..start].iter().rev().take_while(|byte| bare(byte)).count();
                end += text.as_bytes()[end..].iter().take_while(|byte| bare(byte)).count();
            }
        }
        let value = &text[start..end];
        let number = numbering.number(finding.detector, value);
        let label = finding.detector.label();
        body.push_str(&text[copied..start]);
        let quote = if json && !quoted { "\"" } else { "" };
        body.push_str(&format!("{quote}[{label}_{number}]{quote}"));
        body.extend(value.matches('\n'));
        redactions.push(Redaction {
            label: label.to_owned(),
            number,
            start: start as u64,
            length: value.len() as u64,
        });
        copied = end;
    }
    body.push_str(&text[copied..]);
    (body, redactions)
}

/// Whether a place is inside a JSON string, from what lies between it and an earlier place.
fn inside_string(between: &[u8], mut quoted: bool) -> bool {
    let mut escaped = false;
    for &byte in between {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}
