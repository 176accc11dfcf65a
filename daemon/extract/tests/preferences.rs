//! Preferences and masks as they stand in the data: every known form gives one body, and what cannot be followed is left out
//! with its line, never kept as plain JSON that would teach what was rejected.

#![allow(clippy::unwrap_used)]

use moat_contracts::Kind;
use moat_extract::{Extracted, Limits, extract};

fn read(lines: &str) -> Extracted {
    extract("pairs.jsonl", lines.as_bytes(), &Limits::default()).unwrap()
}

fn only(line: &str) -> (Kind, String) {
    let Extracted { mut texts, faults } = read(line);
    assert_eq!((faults.len(), texts.len()), (0, 1), "{line}: {faults:?}");
    let text = texts.remove(0);
    (text.kind, text.body)
}

#[test]
fn the_forms_of_a_preference_give_one_body() {
    let chat = concat!(
        r#"{"prompt":[{"role":"user","content":"Why?"}],"#,
        r#""chosen":[{"role":"assistant","content":"So."}],"rejected":[{"role":"assistant","content":"No."}]}"#
    );
    let asked = r#"{"role":"user","content":"Why?"}"#;
    let (good, bad) = (r#"{"role":"assistant","content":"So."}"#, r#"{"content":"No.","role":"assistant"}"#);
    for line in [
        // trl with a prompt, and with what both answers begin with.
        format!(r#"{{"prompt":[{asked}],"chosen":[{good}],"rejected":[{bad}]}}"#),
        format!(r#"{{"chosen":[{asked},{good}],"rejected":[{asked},{bad}],"score_chosen":8.5}}"#),
        // A prompt as a text that the messages hold again, and one that they do not.
        format!(r#"{{"prompt":"Why?","chosen":[{asked},{good}],"rejected":[{asked},{bad}]}}"#),
        format!(r#"{{"prompt":"Why?","chosen":[{good}],"rejected":[{bad}]}}"#),
        format!(r#"{{"prompt":[{asked}],"chosen":"So.","rejected":"No."}}"#),
        // Single messages after the chat, and OpenAI's names.
        format!(r#"{{"messages":[{asked}],"chosen":{good},"rejected":{bad}}}"#),
        format!(
            r#"{{"input":{{"messages":[{asked}]}},"preferred_output":[{good}],"non_preferred_output":[{bad}]}}"#
        ),
    ] {
        assert_eq!(only(&line), (Kind::Preference, chat.to_owned()), "{line}");
    }
    let text = r#"{"prompt":"The sky is","chosen":" blue.","rejected":" black."}"#;
    for line in [text, r#"{"chosen":"The sky is blue.","rejected":"The sky is black."}"#] {
        assert_eq!(only(line), (Kind::Preference, text.to_owned()));
    }
    // A whole file may be one as well.
    let file = extract("one.json", text.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(file.texts[0].kind, Kind::Preference);
}

#[test]
fn what_is_meant_as_a_preference_and_is_none_is_left_out() {
    let asked = r#"{"role":"user","content":"Why?"}"#;
    let good = r#"{"role":"assistant","content":"So."}"#;
    for line in [
        r#"{"prompt":"a","chosen":"b","rejected":"b"}"#.to_owned(),
        r#"{"prompt":" ","chosen":"b","rejected":"c"}"#.to_owned(),
        r#"{"chosen":"yes","rejected":"no"}"#.to_owned(),
        r#"{"prompt":"a","chosen":"b","rejected":""}"#.to_owned(),
        format!(r#"{{"prompt":"a","chosen":"b","rejected":[{good}]}}"#),
        format!(r#"{{"chosen":[{asked},{good}],"rejected":[{asked}]}}"#),
        format!(r#"{{"prompt":[{asked}],"chosen":[{good}],"rejected":[{{"from":"gpt","value":"No."}}]}}"#),
        format!(r#"{{"prompt":"Else?","chosen":[{asked},{good}],"rejected":[{asked},{asked}]}}"#),
    ] {
        let Extracted { texts, faults } = read(&format!("\n{line}\n{{\"text\":\"fine\"}}\n"));
        assert_eq!((texts.len(), faults.len(), faults[0].line), (1, 1, 2), "{line}");
        assert!(!faults[0].what.contains("Why") && texts[0].body == "fine");
    }
    // Counts of votes are no answers.
    assert_eq!(only(r#"{"chosen":[1,2],"rejected":[3]}"#).0, Kind::Json);
    assert_eq!(only(r#"{"chosen":"a"}"#).0, Kind::Json);
}

#[test]
fn masks_of_messages_arrive_and_those_that_cannot_be_followed_are_told() {
    let chat = |mask: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"Why?"}},{{"role":"assistant","content":"So."{mask}}}]}}"#
        )
    };
    let plain = r#"[{"role":"user","content":"Why?"},{"role":"assistant","content":"So."}]"#;
    let masked = r#"[{"role":"user","content":"Why?"},{"role":"assistant","content":"So.","train":false}]"#;
    for (mask, body) in [
        ("", plain),
        (r#","train":true"#, plain),
        (r#","weight":1"#, plain),
        (r#","weight":null"#, plain),
        (r#","train":false"#, masked),
        (r#","weight":0"#, masked),
        (r#","weight":0.0,"train":false"#, masked),
    ] {
        assert_eq!(only(&chat(mask)), (Kind::Chat, body.to_owned()), "{mask}");
    }
    for mask in [r#","weight":0.5"#, r#","train":"no""#, r#","train":true,"weight":0"#] {
        let Extracted { texts, faults } = read(&format!("{{\"text\":\"fine\"}}\n{}", chat(mask)));
        assert_eq!((texts.len(), faults.len(), faults[0].line), (1, 1, 2), "{mask}");
    }
    let asked = r#"{"messages":[{"role":"user","content":"Why?","train":true}]}"#;
    assert_eq!(read(&format!("{{\"text\":\"fine\"}}\n{asked}")).faults.len(), 1);
    // A question is never learnt, so that saying so changes nothing.
    let asked = r#"{"messages":[{"role":"user","content":"Why?","weight":0}]}"#;
    assert_eq!(only(asked).1, r#"[{"role":"user","content":"Why?"}]"#);
}
