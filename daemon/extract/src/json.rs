//! JSON documents and JSON Lines.

use moat_contracts::Kind;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::clean::clean;
use crate::language::natural;
use crate::{ExtractError, Writer};

/// Keys under which a line keeps its text, in the order of preference.
const TEXT_KEYS: [&str; 3] = ["text", "content", "body"];

/// One message as a chat's body holds it.
#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: String,
}

/// A whole file: one chat, one document kept as it stands, or JSON Lines under another name.
pub(crate) fn document(text: String, out: &mut Writer) -> Result<(), ExtractError> {
    if text.trim().is_empty() {
        return Ok(());
    }
    // Reading without building anything has no depth limit and needs no memory.
    let Err(error) = serde_json::from_str::<IgnoredAny>(&text) else {
        let chat = serde_json::from_str(&text).ok().and_then(|value: Map<String, Value>| chat(&value));
        match chat {
            Some((body, language)) => out.push(Kind::Chat, 1, body, language),
            None => out.push(Kind::Json, 1, text, None),
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
        if let Some((body, language)) = chat(&value) {
            out.push(Kind::Chat, number, body, language);
        } else if let Some(body) = TEXT_KEYS.iter().find_map(|key| value.get(*key)?.as_str()) {
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

/// The body and language of an object whose `messages` all have a role and a text. A message whose content is a list
/// of text parts counts; one with a picture or a tool call makes no chat, for its text alone would teach nonsense.
fn chat(value: &Map<String, Value>) -> Option<(String, Option<String>)> {
    let messages = value.get("messages")?.as_array().filter(|messages| !messages.is_empty())?;
    let messages = messages
        .iter()
        .map(|message| {
            let role = message.get("role")?.as_str()?;
            let content = match message.get("content")? {
                Value::String(content) => content.clone(),
                Value::Array(parts) => {
                    parts.iter().map(|part| part.get("text")?.as_str()).collect::<Option<Vec<_>>>()?.concat()
                }
                _ => return None,
            };
            Some(Message { role, content: clean(content) })
        })
        .collect::<Option<Vec<_>>>()?;
    let said: String = messages.iter().flat_map(|message| [message.content.as_str(), "\n"]).collect();
    // Escapes were undone and the parts cleaned, and no quote combines with a letter: the body is clean as well.
    Some((clean(serde_json::to_string(&messages).ok()?), natural(&said)))
}

/// A sentence on a syntax error; the parser's own could quote the document.
fn what(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends in the middle of a value".to_owned(),
        _ => format!("not valid JSON at column {}", error.column()),
    }
}
