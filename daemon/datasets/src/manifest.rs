use std::collections::BTreeMap;
use std::fmt::Write as _;

use moat_contracts::{Dataset, DatasetEntry, DatasetId, DatasetSource, Digest, RecordId, Split};

use crate::DatasetError;

const HEAD: &str = "moat dataset 1";

/// The canonical manifest, whose SHA-256 is the dataset's id: UTF-8, every line ended by one `\n`, fields divided
/// by one space. After `moat dataset 1` come the lines `recipe`, `rules` and `tokenizer`, each with 64 hexadecimal
/// digits, and `records` with their number; then a line for every record, ascending by id: its id, `train`,
/// `validation` or `held_out`, its tokens, its bytes, and its source's name as a JSON text.
pub fn manifest(dataset: &Dataset) -> String {
    let (recipe, rules, tokenizer) = (dataset.recipe, dataset.rules, dataset.tokenizer);
    let mut text = format!(
        "{HEAD}\nrecipe {recipe}\nrules {rules}\ntokenizer {tokenizer}\nrecords {}\n",
        dataset.entries.len()
    );
    for entry in &dataset.entries {
        let source = serde_json::Value::from(entry.source.as_str());
        let DatasetEntry { record, tokens, bytes, .. } = entry;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{record} {} {tokens} {bytes} {source}", entry.split.word());
    }
    text
}

/// A dataset of sorted entries, with its id and its totals.
pub(crate) fn sealed(
    recipe: Digest,
    rules: Digest,
    tokenizer: Digest,
    entries: Vec<DatasetEntry>,
) -> Dataset {
    let mut sources: BTreeMap<String, DatasetSource> = BTreeMap::new();
    for entry in &entries {
        sources.entry(entry.source.clone()).or_default().add(entry);
    }
    let id = DatasetId(Digest::of(b""));
    let mut dataset = Dataset { id, recipe, rules, tokenizer, entries, sources };
    dataset.id = DatasetId(Digest::of(manifest(&dataset).as_bytes()));
    dataset
}

/// Reads a manifest. Only the canonical form is taken, so that the id of what was read is the manifest's SHA-256.
///
/// # Errors
/// [`DatasetError::Manifest`] with the first line that is not as [`manifest`] writes it.
pub fn parse(text: &str) -> Result<Dataset, DatasetError> {
    let mut lines = text.split_inclusive('\n').enumerate();
    let mut next = |what: &'static str| match lines.next() {
        Some((index, line)) => match line.strip_suffix('\n') {
            Some(line) => Ok((index + 1, line)),
            None => Err(DatasetError::Manifest { line: index + 1, what: "a line end" }),
        },
        None => Err(DatasetError::Manifest { line: text.lines().count() + 1, what }),
    };
    let (line, head) = next("the first line")?;
    if head != HEAD {
        return Err(DatasetError::Manifest { line, what: "`moat dataset 1`" });
    }
    let mut field = |name: &str, what: &'static str| {
        let (line, content) = next(what)?;
        let value = content.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
        value.map(|value| (line, value)).ok_or(DatasetError::Manifest { line, what })
    };
    let mut digest = |name: &str, what: &'static str| {
        let (line, value) = field(name, what)?;
        value.parse::<Digest>().map_err(|_| DatasetError::Manifest { line, what })
    };
    let recipe = digest("recipe", "`recipe` and a digest")?;
    let rules = digest("rules", "`rules` and a digest")?;
    let tokenizer = digest("tokenizer", "`tokenizer` and a digest")?;
    let what = "`records` and their number";
    let (line, count) = field("records", what)?;
    let count: u64 = number(count).ok_or(DatasetError::Manifest { line, what })?;
    let mut entries: Vec<DatasetEntry> = Vec::new();
    for _ in 0..count {
        let what = "as many records as announced, ascending, each with split, tokens, bytes and source";
        let (line, content) = next(what)?;
        let entry =
            entry(content).filter(|entry| entries.last().is_none_or(|last| last.record < entry.record));
        entries.push(entry.ok_or(DatasetError::Manifest { line, what })?);
    }
    match next("") {
        Ok((line, _)) => Err(DatasetError::Manifest { line, what: "the end, after the announced records" }),
        Err(_) => Ok(sealed(recipe, rules, tokenizer, entries)),
    }
}

fn entry(line: &str) -> Option<DatasetEntry> {
    let mut fields = line.splitn(5, ' ');
    let record = RecordId(fields.next()?.parse().ok()?);
    let word = fields.next()?;
    let split = Split::ALL.into_iter().find(|split| split.word() == word)?;
    let (tokens, bytes) = (number(fields.next()?)?, number(fields.next()?)?);
    let quoted = fields.next()?;
    let source: String = serde_json::from_str(quoted).ok()?;
    let canonical = serde_json::Value::from(source.as_str()).to_string();
    (canonical == quoted).then_some(DatasetEntry { record, split, source, tokens, bytes })
}

/// A number written the one way that [`manifest`] writes it.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|value| value.to_string() == text)
}
