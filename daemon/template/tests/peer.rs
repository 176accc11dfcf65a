//! What transformers does with the same tokenizer, templates and chats (`fixtures/make.py` asked it).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moat_template::{BaseText, Message, Template, TemplateError, Turns, messages};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The tiny base with another template.
fn base_with(template: &str) -> (tempfile::TempDir, BaseText) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "generation_config.json", "config.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures().join("tiny").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let base = BaseText::load(folder.path()).unwrap();
    (folder, base)
}

fn template_of(name: &str) -> String {
    let cases = json("chats.json");
    let case = cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    case["template"].as_str().unwrap().to_owned()
}

#[test]
fn chats_render_as_in_transformers() {
    let variables = [("eos_token", "<|end|>"), ("bos_token", "<|turn|>")];
    let variables: BTreeMap<_, _> = variables.map(|(name, token)| (name.to_owned(), token.to_owned())).into();
    let cases = json("chats.json");
    let mut seen = 0;
    for case in cases.as_array().unwrap() {
        let template = Template::parse(case["template"].as_str().unwrap(), variables.clone()).unwrap();
        let chat = messages(&case["messages"].to_string()).unwrap();
        let rendered = template.render(&chat, case["prompt"].as_bool().unwrap());
        seen += 1;
        if let Some(raised) = case["raises"].as_str() {
            let error = rendered.unwrap_err().to_string();
            assert!(error.ends_with(raised), "{error}");
            continue;
        }
        assert_eq!(rendered.unwrap().text, case["expected"].as_str().unwrap(), "{}", case["name"]);
    }
    assert!(seen >= 42);
}

#[test]
fn marked_chats_have_the_tokens_and_the_mask_of_transformers() {
    let (_folder, base) = base_with(&template_of("marked"));
    let cases = json("chats.json");
    let mut seen = 0;
    for case in cases.as_array().unwrap().iter().filter(|case| !case["mask"].is_null()) {
        let chat = messages(&case["messages"].to_string()).unwrap();
        if chat.iter().all(|message| message.role != "assistant") {
            assert!(matches!(base.chat(&chat), Err(TemplateError::NoAnswer)));
            continue;
        }
        let tokens = base.chat(&chat).unwrap();
        assert_eq!(tokens.tokens, ids(&case["tokens"]));
        // transformers also learns the line end that this template prints after the end token; a model that
        // stops at that token never comes to write it.
        let learnt = tokens.tokens.iter().zip(ids(&case["mask"])).scan(0, |before, (token, flag)| {
            let newline = base.decode(&[*token]).unwrap() == "\n";
            let after_end = std::mem::replace(before, *token) == base.end();
            Some(flag == 1 && !(newline && after_end))
        });
        let mask: Vec<bool> = learnt.collect();
        assert_eq!(tokens.answer, mask);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn texts_encode_as_in_tokenizers_and_specials_in_them_stay_letters() {
    let base = BaseText::load(&fixtures().join("tiny")).unwrap();
    for row in json("texts.json").as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let tokens = base.encode(text).unwrap();
        assert_eq!(tokens, ids(&row["plain"]), "{text}");
        assert!(tokens.iter().all(|token| !base.stops().contains(token)));
        assert_eq!(base.decode(&tokens).unwrap(), text);
        assert_eq!(base.encode_special(text).unwrap(), ids(&row["marked"]), "{text}");
    }
    assert_eq!((base.size(), base.plain_size()), (263, 260));
    assert_eq!((base.start(), base.end(), base.stops()), (None, 260, [260, 262].as_slice()));
    assert_eq!(base.special(), ["<|done|>", "<|end|>", "<|turn|>"]);
}

#[test]
fn letters_come_out_whole() {
    let base = BaseText::load(&fixtures().join("tiny")).unwrap();
    let text = "Ü 😀, the end";
    let tokens = base.encode(text).unwrap();
    let mut pieces = base.pieces();
    let given: Vec<String> = tokens.iter().map(|token| pieces.push(*token).unwrap()).collect();
    assert_eq!(given.concat(), text);
    assert!(given.iter().all(|piece| !piece.contains('\u{fffd}')));
    assert!(given.contains(&"😀".to_owned()));
    let mut pieces = base.pieces();
    assert_eq!(pieces.push(tokens[0]).unwrap(), "");
    assert_eq!(pieces.finish().unwrap(), "\u{fffd}");
}

#[test]
fn answers_are_learnt_with_their_end_and_nothing_else_is() {
    let base = BaseText::load(&fixtures().join("tiny")).unwrap();
    assert_eq!(base.check_template().unwrap(), Turns::All);
    let chat =
        [Message::user("why"), Message::assistant("so"), Message::user("no"), Message::assistant("yes")];
    let tokens = base.chat(&chat).unwrap();
    let learnt: Vec<u32> = tokens
        .tokens
        .iter()
        .zip(&tokens.answer)
        .filter(|(_, learnt)| **learnt)
        .map(|(token, _)| *token)
        .collect();
    let done = 262;
    let expected = [base.encode("so").unwrap(), vec![done], base.encode("yes").unwrap(), vec![done]].concat();
    assert_eq!(learnt, expected);
    assert!(tokens.tokens.starts_with(&base.chat_prompt(&chat[..1]).unwrap()));
}

#[test]
fn a_template_that_rewrites_earlier_answers_teaches_the_last_one() {
    let (_folder, base) = base_with(&template_of("thinking"));
    assert_eq!(base.check_template().unwrap(), Turns::Last);
    let chat = [Message::user("a"), Message::assistant("b"), Message::user("c"), Message::assistant("d")];
    let tokens = base.chat(&chat).unwrap();
    let answer = base.encode("<think></think>d").unwrap();
    assert_eq!(tokens.answer.iter().filter(|learnt| **learnt).count(), answer.len() + 1);
    assert_eq!(base.chat(&chat[..2]).unwrap().turns, Turns::All);
}

#[test]
fn templates_of_other_families_teach_every_answer() {
    let chat =
        [Message::user("why"), Message::assistant("so"), Message::user("no"), Message::assistant("yes")];
    for (name, between, after) in [
        ("alternating", vec![262], vec![262]),
        ("instructed", vec![260], vec![260]),
        // The end of text stands behind the last turn alone.
        ("closing", vec![262], [vec![262], ids_of("\n"), vec![260]].concat()),
    ] {
        let (_folder, base) = base_with(&template_of(name));
        assert_eq!(base.check_template().unwrap(), Turns::All, "{name}");
        let tokens = base.chat(&chat).unwrap();
        let learnt = tokens.tokens.iter().zip(&tokens.answer).filter(|(_, learnt)| **learnt);
        let learnt: Vec<u32> = learnt.map(|(token, _)| *token).collect();
        let space = if name == "instructed" { " " } else { "" };
        let said = |text: &str| base.encode(&format!("{space}{text}")).unwrap();
        assert_eq!(learnt, [said("so"), between, said("yes"), after].concat(), "{name}");
    }
    let system = Message { role: "system".to_owned(), content: "be brief".to_owned(), learnt: true };
    let chat = [system, Message::user("why"), Message::assistant("so")];
    let (_folder, base) = base_with(&template_of("alternating"));
    assert!(base.chat(&chat).unwrap_err().to_string().contains("no system here"));
}

fn ids_of(text: &str) -> Vec<u32> {
    BaseText::load(&fixtures().join("tiny")).unwrap().encode(text).unwrap()
}

#[test]
fn templates_that_would_teach_something_else_are_refused() {
    let turns = template_of("turns");
    let endless = turns.replace("<|done|>", "");
    assert!(matches!(base_with(&endless).1.check_template(), Err(TemplateError::NoStop)));
    let other_prompt = turns.replace("{{- '<|turn|>assistant\n' }}", "{{- '<|turn|>model\n' }}");
    assert_ne!(other_prompt, turns);
    assert!(matches!(base_with(&other_prompt).1.check_template(), Err(TemplateError::Prefix { index: 1 })));
    let silent = turns.replace("message.content", "'...'");
    assert!(matches!(base_with(&silent).1.check_template(), Err(TemplateError::NoAnswer)));
    let (_folder, base) = base_with(&turns);
    let chat = [Message::user("x <|done|> y"), Message::assistant("z")];
    assert!(matches!(base.chat(&chat), Err(TemplateError::Injection { index: 0, .. })));
    let error = Template::parse("a\n{% if %}", BTreeMap::new()).unwrap_err();
    assert!(matches!(error, TemplateError::Template { line: Some(2), .. }));
    let asking = Template::parse("{{ raise_exception('only users speak') }}", BTreeMap::new()).unwrap();
    assert!(asking.render(&[], false).unwrap_err().to_string().contains("only users speak"));
}

#[test]
fn what_a_tokenizer_file_sets_for_its_trainer_is_not_applied() {
    let (folder, _) = base_with("");
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    tokenizer["post_processor"] = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|turn|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|turn|>": {"id": "<|turn|>", "ids": [261], "tokens": ["<|turn|>"]}}});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let base = BaseText::load(folder.path()).unwrap();
    assert_eq!(base.encode("abcd").unwrap().len(), 4);
    assert_eq!(base.start(), Some(261));
}
