//! What holds for every document, whatever its bytes.

use moat_contracts::Kind;
use moat_extract::{ExtractError, Extracted, Limits, extract};
use proptest::prelude::*;
use unicode_normalization::is_nfc;

const PATHS: [&str; 9] =
    ["a.txt", "a.md", "a.html", "a.rs", "a.json", "a.jsonl", "a.csv", "a.tsv", "no-extension"];

/// Documents that mutation starts from: one of each kind, with what is peculiar to it.
const SEEDS: [&str; 8] = [
    "Plain text, in sentences.\r\nWith a cafe\u{301}, a soft\u{ad} hyphen and می\u{200c}خواهم.\n",
    "# Title\n\n- item\n- `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "<html><head><title>T &amp; U</title></head><body><h1 id='x'>T</h1><ul><li>a<ol><li>b</ol></ul><pre>\n x\n</pre>\
     <table><tr><td>1<td>2</table><script>var a = '<b>';</script>&nbsp;&#8364;&notin;<!-- c --></body></html>",
    "{\"a\": [1, 2.5e3, \"\\u00e9\\ud83d\\ude00\", null], \"b\": {\"c\": true}}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n{\"text\": \"x\\r\\ny\"}\n{\"a\": 1}\n",
    "name,price\n\"bolt, long\",1.5\nnut,\"2\nlines\"\n\n,,\n",
    "#!/bin/sh\necho \u{1b}[31mred\u{1b}[0m\n",
    "a\u{0}b\u{0}c\u{0}\n\u{0}",
];

fn check(extracted: &Extracted) -> Result<(), TestCaseError> {
    let mut last = 0;
    for (ordinal, text) in extracted.texts.iter().enumerate() {
        prop_assert_eq!(text.ordinal as usize, ordinal);
        prop_assert!(text.first_line > last || (ordinal == 0 && text.first_line == 1));
        last = text.first_line;
        prop_assert!(is_nfc(&text.body), "not NFC: {:?}", text.body);
        prop_assert!(!text.body.trim().is_empty());
        let odd = |c: char| {
            (c.is_control() && c != '\n' && c != '\t') || "\u{200b}\u{ad}\u{feff}\u{202e}".contains(c)
        };
        prop_assert!(!text.body.contains(odd), "invisible: {:?}", text.body);
    }
    for fault in &extracted.faults {
        prop_assert!(fault.line >= 1);
    }
    Ok(())
}

fn any_document() -> impl Strategy<Value = Vec<u8>> {
    let mutated =
        (0..SEEDS.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..12))
            .prop_map(|(seed, edits)| {
                let mut bytes = SEEDS[seed].as_bytes().to_vec();
                for (at, byte, edit) in edits {
                    let at = at.index(bytes.len());
                    match edit {
                        0 => bytes[at] = byte,
                        1 => bytes.insert(at, byte),
                        _ => bytes
                            .splice(at..at, SEEDS[usize::from(byte) % SEEDS.len()].bytes())
                            .for_each(drop),
                    }
                }
                bytes
            });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        any::<String>().prop_map(String::into_bytes),
        "[ae<>/&;#x!\\-\"'= \n,{}\\[\\]:1\u{300}\u{301}\u{338}\u{200b}\u{200d}\u{8}\u{1b}\u{212a}नि\r]{0,80}"
            .prop_map(String::into_bytes),
        mutated,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_break_extraction(path in prop::sample::select(&PATHS[..]), bytes in any_document()) {
        match extract(path, &bytes, &Limits::default()) {
            Ok(extracted) => check(&extracted)?,
            Err(ExtractError::Binary) => {}
            Err(ExtractError::Damaged { line, .. }) => prop_assert!(line >= 1),
        }
    }

    #[test]
    fn extracting_an_extracted_text_changes_nothing(bytes in any_document()) {
        for path in ["a.txt", "a.md", "a.rs"] {
            let Ok(first) = extract(path, &bytes, &Limits::default()) else { continue };
            for text in first.texts {
                let again = extract(path, text.body.as_bytes(), &Limits::default()).unwrap();
                prop_assert_eq!(&again.texts[0].body, &text.body);
                prop_assert_eq!(again.texts[0].charset, "UTF-8");
            }
        }
    }

    #[test]
    fn chats_are_arrays_of_roles_and_contents(role in "[a-z]{1,9}", content in any::<String>()) {
        let line = serde_json::json!({"messages": [{"role": role, "content": content}]}).to_string();
        let Ok(mut extracted) = extract("a.jsonl", line.as_bytes(), &Limits::default()) else { return Ok(()) };
        let text = extracted.texts.remove(0);
        prop_assert_eq!(text.kind, Kind::Chat);
        let messages: Vec<serde_json::Value> = serde_json::from_str(&text.body).unwrap();
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!(&messages[0]["role"], &role);
        let plain = extract("a.txt", content.as_bytes(), &Limits::default());
        if let Ok(Extracted { texts, .. }) = plain && let Some(plain) = texts.first() && !content.starts_with('\u{feff}') {
            prop_assert_eq!(messages[0]["content"].as_str(), Some(plain.body.as_str()));
        }
    }
}
