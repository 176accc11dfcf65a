//! JSON documents and JSON Lines.

use moat_contracts::Kind;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::clean::clean;
use crate::language::natural;
use crate::{ExtractError, Writer, preference};

/// Keys under which a line keeps its text, in the order of preference.
const TEXT_KEYS: [&str; 3] = ["text", "content", "body"];

/// One message as a chat's body holds it.
#[derive(Serialize, PartialEq)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: String,
    /// Whether it is learnt where its role is; written only where it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[serde(serialize_with = "not")]
    #[serde(rename = "train")]
    pub(crate) masked: bool,
}

/// `"train": false` for what is masked.
fn not<S: serde::Serializer>(masked: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(!masked)
}

/// What an object of a document turns into.
pub(crate) enum Found {
    /// A text of this kind, with its language.
    Text(Kind, String, Option<String>),
    /// Meant to be one, but it cannot be followed; why.
    Fault(&'static str),
    /// Nothing that is known.
    Nothing,
}

/// A chat or a preference, where an object is one.
pub(crate) fn known(value: &Map<String, Value>) -> Found {
    match preference::preference(value) {
        Found::Nothing => chat(value),
        found => found,
    }
}

/// A whole file: one chat, one document kept as it stands, or JSON Lines under another name.
pub(crate) fn document(text: String, out: &mut Writer) -> Result<(), ExtractError> {
    if text.trim().is_empty() {
        return Ok(());
    }
    // Reading without building anything has no depth limit and needs no memory.
    let Err(error) = serde_json::from_str::<IgnoredAny>(&text) else {
        let value: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
        match value.map_or(Found::Nothing, |value| known(&value)) {
            Found::Text(kind, body, language) => out.push(kind, 1, body, language),
            Found::Fault(what) => return Err(ExtractError::Damaged { line: 1, what: what.to_owned() }),
            Found::Nothing => out.push(Kind::Json, 1, text, None),
        }
        return Ok(());
    };
    let mut filled = text.lines().filter(|line| !line.trim().is_empty());
    let first_is_whole = filled.next().is_some_and(|line| serde_json::from_str::<IgnoredAny>(line).is_ok());
    if first_is_whole && filled.next().is_some() {
        return lines(&text, out);
    }
    let commented = |line: &str| line.trim_start().starts_with("//") || line.trim_start().starts_with("/*");
    if text.lines().any(commented) {
        out.push(Kind::Code, 1, text, Some("jsonc".to_owned()));
        return Ok(());
    }
    Err(ExtractError::Damaged { line: error.line() as u64, what: what(&error) })
}

/// One text a line: a chat, the line's own text, or the line as it stands.
pub(crate) fn lines(text: &str, out: &mut Writer) -> Result<(), ExtractError> {
    let mut damaged = None;
    let mut good = 0_u64;
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = serde_json::from_str::<IgnoredAny>(line) {
            let what = what(&error);
            damaged.get_or_insert((number, what.clone()));
            out.fault(number, what);
            continue;
        }
        if out.full() {
            out.fault(number, "more texts than one document may give; the rest is left out");
            return Ok(());
        }
        good += 1;
        // What nests too deep for a value is kept as it stands.
        let value = serde_json::from_str::<Map<String, Value>>(line).unwrap_or_default();
        match known(&value) {
            Found::Text(kind, body, language) => {
                out.push(kind, number, body, language);
                continue;
            }
            // As plain JSON it would teach what its owner marked as not to be learnt.
            Found::Fault(what) => {
                out.fault(number, what);
                continue;
            }
            Found::Nothing => {}
        }
        if let Some(body) = TEXT_KEYS.iter().find_map(|key| value.get(*key)?.as_str()) {
            let body = clean(body.to_owned());
            let language = natural(&body);
            out.push(Kind::Prose, number, body, language);
        } else {
            out.push(Kind::Json, number, line.to_owned(), None);
        }
    }
    match damaged {
        Some((line, what)) if good == 0 => Err(ExtractError::Damaged { line, what }),
        _ => Ok(()),
    }
}

/// An object whose `messages` all have a role and a text is a chat.
fn chat(value: &Map<String, Value>) -> Found {
    let Some(messages) = value.get("messages").and_then(messages) else { return Found::Nothing };
    let messages = match messages {
        Ok(messages) => messages,
        Err(what) => return Found::Fault(what),
    };
    let said: String = messages.iter().flat_map(|message| [message.content.as_str(), "\n"]).collect();
    // Escapes were undone and the parts cleaned, and no quote combines with a letter: the body is clean as well.
    match serde_json::to_string(&messages) {
        Ok(body) => Found::Text(Kind::Chat, clean(body), natural(&said)),
        Err(_) => Found::Nothing,
    }
}

/// Messages of which each has a role and a text. One whose content is a list of text parts counts; where one has a picture or
/// a tool call there are none, for its text alone would teach nonsense. An error where a mask cannot be followed.
pub(crate) fn messages(value: &Value) -> Option<Result<Vec<Message>, &'static str>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    let mut messages = Vec::with_capacity(list.len());
    for message in list {
        let role = message.get("role")?.as_str()?.to_owned();
        let content = match message.get("content")? {
            Value::String(content) => content.clone(),
            Value::Array(parts) => {
                parts.iter().map(|part| part.get("text")?.as_str()).collect::<Option<Vec<_>>>()?.concat()
            }
            _ => return None,
        };
        match masked(message, &role) {
            Ok(masked) => messages.push(Message { role, content: clean(content), masked }),
            Err(what) => return Some(Err(what)),
        }
    }
    Some(Ok(messages))
}

/// Whether a message says that it is not to be learnt: by `train`, as axolotl reads it, or by `weight`, as OpenAI does.
fn masked(message: &Value, role: &str) -> Result<bool, &'static str> {
    let learnt = |key: &str| match message.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(learnt)) => Ok(Some(*learnt)),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(Some(false)),
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(Some(true)),
        Some(_) => Err("a message's train must be true or false, and its weight 0 or 1"),
    };
    let said = match (learnt("train")?, learnt("weight")?) {
        (Some(train), Some(weight)) if train != weight => {
            return Err("a message's train and weight contradict each other");
        }
        (train, weight) => train.or(weight),
    };
    match said {
        Some(true) if role != "assistant" => {
            Err("a message that is not the assistant's says that it is to be learnt: only answers are")
        }
        said => Ok(role == "assistant" && said == Some(false)),
    }
}

/// A sentence on a syntax error; the parser's own could quote the document.
fn what(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends in the middle of a value".to_owned(),
        _ => format!("not valid JSON at column {}", error.column()),
    }
}
