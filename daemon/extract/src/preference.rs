//! Preferences: a prompt, an answer that was chosen and one that was rejected.

use moat_contracts::Kind;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::clean::clean;
use crate::json::{Found, Message, messages};
use crate::language::natural;

/// The body of a preference: its parts are texts, or messages.
#[derive(Serialize)]
struct Pair<T> {
    prompt: T,
    chosen: T,
    rejected: T,
}

/// A side of a preference as it stands in the data.
enum Side {
    Text(String),
    Chat(Vec<Message>),
}

/// What an object with two answers turns into. Known are trl's forms (texts or messages, with a `prompt` or with what both
/// answers begin with as the prompt), that form with single messages after `messages`, and OpenAI's (`input`,
/// `preferred_output`, `non_preferred_output`).
pub(crate) fn preference(value: &Map<String, Value>) -> Found {
    let both = |chosen: &str, rejected: &str| Some((value.get(chosen)?, value.get(rejected)?));
    let Some((chosen, rejected)) =
        both("chosen", "rejected").or_else(|| both("preferred_output", "non_preferred_output"))
    else {
        return Found::Nothing;
    };
    if !is_answer(chosen) || !is_answer(rejected) {
        return Found::Nothing;
    }
    let prompt = value.get("prompt").or_else(|| value.get("messages"));
    let prompt = prompt.or_else(|| value.get("input")?.get("messages"));
    match read(prompt, chosen, rejected) {
        Ok((body, language)) => Found::Text(Kind::Preference, body, language),
        Err(what) => Found::Fault(what),
    }
}

/// Whether a value has the shape of an answer, so that it must not be taken for anything else.
fn is_answer(value: &Value) -> bool {
    let message = |value: &Value| {
        value.as_object().is_some_and(|keys| keys.contains_key("role") || keys.contains_key("from"))
    };
    match value {
        Value::String(_) => true,
        Value::Array(list) => !list.is_empty() && list.iter().all(message),
        other => message(other),
    }
}

fn read(
    prompt: Option<&Value>,
    chosen: &Value,
    rejected: &Value,
) -> Result<(String, Option<String>), &'static str> {
    let pair = (side(chosen)?, side(rejected)?);
    let prompt = prompt.filter(|prompt| !prompt.is_null()).map(side).transpose()?;
    match (pair, prompt) {
        ((Side::Text(chosen), Side::Text(rejected)), None) => {
            let from = common(&chosen, &rejected);
            let prompt = chosen[..from].to_owned();
            texts(prompt, chosen[from..].to_owned(), rejected[from..].to_owned())
        }
        ((Side::Text(chosen), Side::Text(rejected)), Some(Side::Text(prompt))) => {
            texts(prompt, chosen, rejected)
        }
        ((Side::Text(chosen), Side::Text(rejected)), Some(Side::Chat(prompt))) => {
            chats(prompt, vec![answer(chosen)], vec![answer(rejected)])
        }
        ((Side::Chat(mut chosen), Side::Chat(mut rejected)), prompt) => {
            let from =
                chosen.iter().zip(&rejected).take_while(|(chosen, rejected)| chosen == rejected).count();
            let (after, _) = (chosen.split_off(from), rejected.drain(..from));
            let shared = chosen;
            let prompt = match prompt {
                None => shared,
                Some(Side::Chat(prompt)) if shared.is_empty() => prompt,
                Some(Side::Chat(prompt)) if shared == prompt => prompt,
                Some(Side::Text(prompt)) if shared.is_empty() => vec![asked(prompt)],
                // What the answers begin with holds the prompt, as a text, itself.
                Some(Side::Text(prompt)) if shared.iter().any(|message| message.content == prompt) => shared,
                Some(_) => return Err("the answers of a preference do not begin with its prompt"),
            };
            chats(prompt, after, rejected)
        }
        _ => Err("one answer of a preference is a text, the other a list of messages"),
    }
}

fn side(value: &Value) -> Result<Side, &'static str> {
    const ODD: &str = "a preference holds a message without role or text";
    match value {
        Value::String(text) => Ok(Side::Text(clean(text.clone()))),
        Value::Array(_) => messages(value).ok_or(ODD)?.map(Side::Chat),
        one => messages(&Value::Array(vec![one.clone()])).ok_or(ODD)?.map(Side::Chat),
    }
}

fn asked(content: String) -> Message {
    Message { role: "user".to_owned(), content, masked: false }
}

fn answer(content: String) -> Message {
    Message { role: "assistant".to_owned(), content, masked: false }
}

/// Where two answers begin to differ: at the beginning of a word, whose blank belongs to the answers.
fn common(chosen: &str, rejected: &str) -> usize {
    let alike = chosen.chars().zip(rejected.chars()).take_while(|(chosen, rejected)| chosen == rejected);
    let end: usize = alike.map(|(letter, _)| letter.len_utf8()).sum();
    let before = &chosen[..end];
    let inside = |text: &str| text[end..].chars().next().is_some_and(char::is_alphanumeric);
    let word =
        before.chars().next_back().is_some_and(char::is_alphanumeric) && (inside(chosen) || inside(rejected));
    let end = if word {
        before.rfind(|letter: char| !letter.is_alphanumeric()).map_or(0, |at| at + 1)
    } else {
        end
    };
    let end = before.floor_char_boundary(end);
    if before[..end].ends_with(' ') { end - 1 } else { end }
}

const NO_PROMPT: &str = "a preference has no prompt before its answers";
const ALIKE: &str = "the two answers of a preference are the same";
const EMPTY: &str = "an answer of a preference is empty";

fn texts(prompt: String, chosen: String, rejected: String) -> Result<(String, Option<String>), &'static str> {
    if prompt.trim().is_empty() {
        return Err(NO_PROMPT);
    }
    if chosen == rejected {
        return Err(ALIKE);
    }
    if chosen.trim().is_empty() || rejected.trim().is_empty() {
        return Err(EMPTY);
    }
    let language = natural(&format!("{prompt}\n{chosen}"));
    body(&Pair { prompt, chosen, rejected }, language)
}

fn chats(
    prompt: Vec<Message>,
    chosen: Vec<Message>,
    rejected: Vec<Message>,
) -> Result<(String, Option<String>), &'static str> {
    if prompt.is_empty() {
        return Err(NO_PROMPT);
    }
    if chosen == rejected {
        return Err(ALIKE);
    }
    let learnt = |side: &[Message]| {
        let last = side.last().is_some_and(|message| message.role == "assistant" && !message.masked);
        last && side.iter().all(|message| message.role != "assistant" || !message.content.trim().is_empty())
    };
    if !learnt(&chosen) || !learnt(&rejected) {
        return Err("an answer of a preference is empty, or does not end with a message of the assistant");
    }
    let said: Vec<&str> = prompt.iter().chain(&chosen).map(|message| message.content.as_str()).collect();
    let language = natural(&said.join("\n"));
    body(&Pair { prompt, chosen, rejected }, language)
}

fn body(
    pair: &Pair<impl Serialize>,
    language: Option<String>,
) -> Result<(String, Option<String>), &'static str> {
    let body = serde_json::to_string(pair).map_err(|_| "a preference is no JSON")?;
    Ok((clean(body), language))
}
