use std::cmp::Ordering;

use moat_contracts::{Dataset, DatasetEntry};

/// What differs between two datasets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The parts of the recipe that select and split are the same.
    pub same_recipe: bool,
    /// The same curation rules.
    pub same_rules: bool,
    /// The same tokenizer.
    pub same_tokenizer: bool,
    /// Only in the second, by record id.
    pub added: Vec<DatasetEntry>,
    /// Only in the first, by record id.
    pub removed: Vec<DatasetEntry>,
    /// In both, on another side; as in the second, by record id.
    pub moved: Vec<DatasetEntry>,
}

/// Compares two datasets record by record.
pub fn diff(a: &Dataset, b: &Dataset) -> Diff {
    let mut diff = Diff {
        same_recipe: a.recipe == b.recipe,
        same_rules: a.rules == b.rules,
        same_tokenizer: a.tokenizer == b.tokenizer,
        added: Vec::new(),
        removed: Vec::new(),
        moved: Vec::new(),
    };
    let (mut old, mut new) = (a.entries.as_slice(), b.entries.as_slice());
    loop {
        match (old, new) {
            ([], rest) => {
                diff.added.extend_from_slice(rest);
                return diff;
            }
            (rest, []) => {
                diff.removed.extend_from_slice(rest);
                return diff;
            }
            ([first, olds @ ..], [second, news @ ..]) => match first.record.cmp(&second.record) {
                Ordering::Less => {
                    diff.removed.push(first.clone());
                    old = olds;
                }
                Ordering::Greater => {
                    diff.added.push(second.clone());
                    new = news;
                }
                Ordering::Equal => {
                    if first.split != second.split {
                        diff.moved.push(second.clone());
                    }
                    (old, new) = (olds, news);
                }
            },
        }
    }
}
