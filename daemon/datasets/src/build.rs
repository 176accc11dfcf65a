use std::path::Path;

use moat_catalog::Catalog;
use moat_contracts::{Dataset, DatasetEntry, Digest, Kind, Recipe, RecordId, Split};
use moat_template::{BaseText, Pair, TemplateError, messages, pair};
use rayon::prelude::*;

use crate::split::{Candidate, LeftOut, split};
use crate::{DatasetError, groups, manifest};

/// Texts in memory at once are bounded by these: whichever is reached first.
const GROUP_RECORDS: usize = 64;
const GROUP_BYTES: u64 = 4 << 20;

/// A dataset, and what its split had to leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The dataset.
    pub dataset: Dataset,
    /// Selected records that are on neither side.
    pub left_out: LeftOut,
}

/// Builds the dataset that `recipe` makes of the records that are now in the catalog. `rules` is the hash of the
/// curation rules that made them, `base` the folder of the recipe's base, whose tokenizer counts. `progress` is
/// told after each group of records how many are counted, of how many.
///
/// Nothing is written: putting the dataset into the catalog is the caller's.
///
/// # Errors
/// [`DatasetError`]; above all where one side would be empty.
pub fn build(
    catalog: &Catalog,
    recipe: &Recipe,
    rules: Digest,
    base: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built, DatasetError> {
    let text = BaseText::load(base)?;
    let (candidates, mut rows) = select(catalog, recipe)?;
    let (sides, mut left_out) = split(recipe, &candidates)?;
    let mut sides = sides.into_iter();
    rows.retain_mut(|row| match sides.next().flatten() {
        Some(side) => {
            row.split = side;
            true
        }
        None => false,
    });
    let of = rows.len() as u64;
    let mut entries = Vec::with_capacity(rows.len());
    let mut rows = rows.as_slice();
    progress(0, of);
    while !rows.is_empty() {
        let group = first_group(rows);
        let bodies =
            group.iter().map(|row| catalog.text(row.id)?.ok_or(DatasetError::Vanished { record: row.id }));
        let bodies = bodies.collect::<Result<Vec<String>, DatasetError>>()?;
        let tokens = group.par_iter().zip(&bodies).map(|(row, body)| count(&text, row, body));
        let tokens = tokens.collect::<Result<Vec<Option<u64>>, DatasetError>>()?;
        for (row, tokens) in group.iter().zip(tokens) {
            let Some(tokens) = tokens else {
                left_out.unlearnable += 1;
                continue;
            };
            let (source, bytes) = (row.source.clone(), row.bytes);
            entries.push(DatasetEntry { record: row.id, split: row.split, source, tokens, bytes });
        }
        rows = &rows[group.len()..];
        progress(of - rows.len() as u64, of);
    }
    let [train, validation, held_out] =
        Split::ALL.map(|side| entries.iter().filter(|entry| entry.split == side).count());
    if train == 0 || held_out == 0 || (validation == 0 && recipe.split.validation > 0.0) {
        let left_out = left_out.unlearnable;
        return Err(DatasetError::Unlearnable { train, validation, held_out, left_out });
    }
    let dataset = manifest::sealed(recipe.data_hash(), rules, text.hash(), entries);
    Ok(Built { dataset, left_out })
}

struct Selected {
    id: RecordId,
    source: String,
    bytes: u64,
    kind: Kind,
    split: Split,
}

/// The selected records, by id, with their groups of near-duplicates.
fn select(catalog: &Catalog, recipe: &Recipe) -> Result<(Vec<Candidate>, Vec<Selected>), DatasetError> {
    let (mut rows, mut signatures) = (Vec::new(), Vec::new());
    catalog.each_kept(&recipe.selection, |row| {
        if !recipe.takes(row.kind) {
            return Ok(());
        }
        signatures.push(row.signature);
        rows.push(Selected {
            id: row.id,
            source: row.source,
            bytes: row.bytes,
            kind: row.kind,
            split: Split::Train,
        });
        Ok(())
    })?;
    let timed = recipe.split.train_before.is_some();
    let groups = groups::groups(&signatures);
    let candidates = rows.iter().zip(groups).map(|(row, group)| {
        let authored = if timed { catalog.authored(row.id)? } else { None };
        Ok(Candidate { id: row.id, group, authored })
    });
    Ok((candidates.collect::<Result<_, DatasetError>>()?, rows))
}

fn first_group(rows: &[Selected]) -> &[Selected] {
    let mut bytes = 0;
    let fits = rows.iter().take(GROUP_RECORDS).take_while(|row| {
        bytes += row.bytes;
        bytes <= GROUP_BYTES
    });
    &rows[..fits.count().max(1)]
}

/// Tokens of a record's text; of a chat's messages and of a preference's parts, without what the template puts around
/// them. `None` for a chat or a preference that the base cannot learn.
fn count(text: &BaseText, row: &Selected, body: &str) -> Result<Option<u64>, DatasetError> {
    let failed = |source| DatasetError::Chat { record: row.id, source };
    let (learnable, parts) = match row.kind {
        Kind::Chat => {
            let chat = messages(body).map_err(failed)?;
            (text.chat(&chat).map(drop), chat.into_iter().map(|message| message.content).collect())
        }
        Kind::Preference => {
            let pair = pair(body).map_err(failed)?;
            let learnable = text.answers(&pair).map(drop);
            let parts: Vec<String> = match pair {
                Pair::Text { prompt, chosen, rejected } => vec![prompt, chosen, rejected],
                Pair::Chat { prompt, chosen, rejected } => {
                    let all = prompt.into_iter().chain(chosen).chain(rejected);
                    all.map(|message| message.content).collect()
                }
            };
            (learnable, parts)
        }
        _ => return Ok(Some(text.encode(body)?.len() as u64)),
    };
    match learnable {
        Ok(()) => {}
        Err(TemplateError::Injection { .. } | TemplateError::NoAnswer | TemplateError::Same) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    }
    let lengths = parts.iter().map(|part: &String| Ok(text.encode(part)?.len() as u64));
    lengths.sum::<Result<u64, DatasetError>>().map(Some)
}
