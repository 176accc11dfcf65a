//! Preferences are curated as everything else is: secrets and personal data go out of all three parts, and what is judged is
//! what people chose.

#![allow(clippy::unwrap_used)]

use moat_contracts::{Digest, DocumentId, Kind, Record, Rules, Text, Verdict};
use moat_curate::{Compiled, curate, similarity};
use serde_json::Value;

fn curated(body: &str) -> Record {
    let text = Text {
        ordinal: 0,
        first_line: 1,
        body: body.to_owned(),
        kind: Kind::Preference,
        language: None,
        charset: "UTF-8",
    };
    curate(&Compiled::new(&Rules::default()), DocumentId(Digest::of(b"d")), &[text]).remove(0)
}

const CHOSEN: &str =
    "Please write to the night desk before you close the valve, and wait until somebody there confirms it.";

#[test]
fn all_three_parts_are_redacted_with_the_same_labels() {
    let body = serde_json::json!({
        "prompt": [{"role": "user", "content": "Who is anna@corp-mail.com, and how do I close the valve?"}],
        "chosen": [{"role": "assistant", "content": CHOSEN}],
        "rejected": [{"role": "assistant", "content": "Ask ANNA@corp-mail.com or\nbert@corp-mail.com yourself."}],
    });
    let record = curated(&body.to_string());
    assert_eq!(record.verdict, Verdict::Redacted, "{:?}", record.reasons);
    let pair: Value = serde_json::from_str(&record.body).unwrap();
    let said = |part: &str| pair[part][0]["content"].as_str().unwrap().to_owned();
    assert_eq!(said("prompt"), "Who is [EMAIL_1], and how do I close the valve?");
    assert_eq!(said("chosen"), CHOSEN);
    assert_eq!(said("rejected"), "Ask [EMAIL_1] or\n[EMAIL_2] yourself.");

    let texts = serde_json::json!({"prompt": "Write to anna@corp-mail.com:", "chosen": CHOSEN, "rejected": "bert@corp-mail.com"});
    let pair: Value = serde_json::from_str(&curated(&texts.to_string()).body).unwrap();
    assert_eq!(
        (pair["prompt"].as_str(), pair["rejected"].as_str()),
        (Some("Write to [EMAIL_1]:"), Some("[EMAIL_2]"))
    );
}

#[test]
fn a_bad_rejected_answer_drops_nothing_and_makes_another_preference() {
    let of = |rejected: &str| {
        curated(&serde_json::json!({"prompt": "How is the valve closed?", "chosen": CHOSEN, "rejected": rejected}).to_string())
    };
    let (one, other) =
        (of(&"no ".repeat(80)), of("Just turn it, nobody will ever notice that you did so at night."));
    assert_eq!((one.verdict, other.verdict), (Verdict::Kept, Verdict::Kept), "{:?}", one.reasons);
    assert!(similarity(&one.signature, &other.signature) < 0.8);
    // A bad chosen one does.
    let body =
        serde_json::json!({"prompt": "How?", "chosen": "no ".repeat(80), "rejected": CHOSEN}).to_string();
    assert_eq!(curated(&body).verdict, Verdict::Dropped);
}
