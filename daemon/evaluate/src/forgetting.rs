use moat_contracts::{Digest, Example, Kind, RecordId, Split};
use serde::Deserialize;

use crate::EvaluateError;

/// Name of the built-in text set: every loss on it bears it as its source.
pub const FORGETTING: &str = "everyday passages (moat-forgetting 1)";

const TEXT: &str = include_str!("../../../config/forgetting.jsonl");

#[derive(Deserialize)]
struct Passage {
    name: String,
    text: String,
}

/// The passages that show what tuning made a model forget: text unlike any company's, the same for every run. A
/// passage's record is SHA-256 over its name and text.
///
/// # Errors
/// [`EvaluateError::Passage`].
pub fn passages() -> Result<Vec<Example>, EvaluateError> {
    let lines = TEXT.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| {
            let Passage { name, text } =
                serde_json::from_str(line).map_err(|_| EvaluateError::Passage(index + 1))?;
            let record = RecordId(Digest::of_parts(&[name.as_bytes(), b"\0", text.as_bytes()]));
            let source = FORGETTING.to_owned();
            Ok(Example { record, source, split: Split::HeldOut, kind: Kind::Prose, body: text })
        })
        .collect()
}
