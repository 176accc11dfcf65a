//! A held-back record's beginning, and how base and tuned model go on from there.

use std::sync::Arc;

use moat_catalog::ApiKeyRow;
use moat_contracts::{DatasetEntry, Kind, Sampling, Split};
use moat_protocol::control::{Reply, Sample};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use super::ask::{Question, complete};
use super::runs::find;
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::lineage;

/// Bytes of a record that are shown as its beginning, and as what it really goes on with, at most.
const BEGINNING: usize = 600;
const REST: usize = 1200;

/// New tokens of each answer: unless told otherwise, and at most.
const TOKENS: usize = 96;
const MOST_TOKENS: usize = 1024;

/// Completes the beginning of a held-back record of a run: the `number`th one, from 1, in the order of their ids.
pub(super) async fn sample(
    daemon: &Arc<Daemon>,
    key: Option<&ApiKeyRow>,
    name: &str,
    number: Option<u64>,
    tokens: Option<usize>,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Reply, Failure> {
    let run = find(daemon, name)?;
    let no_dataset = || Failure::request(format!("run {} has no dataset yet: it is {}", run.name, run.state));
    let id = run.dataset.ok_or_else(no_dataset)?;
    let number = number.unwrap_or(1);
    let (held_back, body, kind) = {
        let catalog = daemon.state.catalog()?;
        let dataset = catalog.dataset(id)?.ok_or_else(no_dataset)?;
        let mut entries = lineage::unseen(&catalog, &run, dataset)?.entries;
        entries.retain(|entry| entry.split == Split::HeldOut);
        let at = number.checked_sub(1).and_then(|at| entries.get(usize::try_from(at).ok()?));
        let Some(&DatasetEntry { record, ref source, .. }) = at else {
            return Err(Failure::request(format!(
                "run {} has {} held-back records, numbered from 1: there is no number {number}",
                run.name,
                entries.len()
            )));
        };
        let missing = || Failure::internal(format!("the text of record {record} is missing"));
        let (body, kind) = catalog.text_and_kind(record)?.ok_or_else(missing)?;
        ((record, source.clone(), entries.len() as u64), body, kind)
    };
    let (record, source, of) = held_back;
    let (beginning, rest, chat) = match turn(&body).filter(|_| kind == Kind::Chat) {
        Some((asked, answered)) => (asked, answered, true),
        None => {
            let (beginning, rest) = cut(&body);
            (beginning.to_owned(), rest.to_owned(), false)
        }
    };
    let max_tokens = tokens.unwrap_or(TOKENS).clamp(1, MOST_TOKENS);
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens };
    let question = Question { prompt: beginning.clone(), chat, sampling };
    let completions = complete(daemon, key, &run, question, stream).await?;
    let end = rest.floor_char_boundary(REST);
    Ok(Reply::Sample(Box::new(Sample {
        run: run.name,
        record,
        source,
        number,
        of,
        chat,
        beginning,
        more: rest.len() > end,
        rest: rest[..end].to_owned(),
        completions,
    })))
}

/// A record's beginning, up to a gap between two words, and the rest.
fn cut(body: &str) -> (&str, &str) {
    let most = body.floor_char_boundary((body.len() / 2).min(BEGINNING));
    let gap = body[..most].rfind(char::is_whitespace).filter(|gap| !body[..*gap].trim().is_empty());
    // A language without spaces, or one word: wherever a letter ends.
    let end = gap.unwrap_or(most);
    let end = if end == 0 { body.ceil_char_boundary(1) } else { end };
    // White space is the next word's: tokens begin with it.
    let beginning = body[..end].trim_end();
    (beginning, &body[beginning.len()..])
}

/// The first thing that a person says in a chat and what is answered, where both are there.
fn turn(body: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Message {
        role: String,
        content: String,
    }
    let messages: Vec<Message> = serde_json::from_str(body).ok()?;
    let at = messages.windows(2).position(|pair| pair[0].role == "user" && pair[1].role == "assistant")?;
    let mut pair = messages.into_iter().skip(at);
    Some((pair.next()?.content, pair.next()?.content))
}

#[cfg(test)]
mod tests {
    use super::{BEGINNING, cut, turn};

    #[test]
    fn a_record_is_cut_between_two_words_and_nothing_is_lost() {
        let long = "word and word again ".repeat(100);
        for body in ["The pump is open", "x", "\u{6c34}\u{6cf5}\u{6253}\u{5f00}", "a b", " lead", &long] {
            let (beginning, rest) = cut(body);
            assert_eq!(format!("{beginning}{rest}"), body);
            assert!(!beginning.is_empty() && beginning.len() <= BEGINNING, "{body}");
            assert_eq!(beginning.trim_end(), beginning);
        }
        assert_eq!(cut("The pump is open"), ("The", " pump is open"));
    }

    #[test]
    fn a_chat_gives_a_question_and_its_answer() {
        let chat = r#"[{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}]"#;
        assert_eq!(turn(chat), Some(("q".to_owned(), "a".to_owned())));
        assert_eq!(turn(r#"[{"role":"user","content":"q"}]"#), None);
        assert_eq!(turn("words"), None);
    }
}
