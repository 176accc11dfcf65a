use std::collections::BTreeSet;

use moat_contracts::{Digest, Recipe, RecordId, Split};

use crate::DatasetError;

/// Selected records that had to be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// No document of theirs carries a time, so nobody can say on which side they belong.
    pub untimed: u64,
    /// Authored on or after the day, but near-duplicates of records that are trained on.
    pub near: u64,
    /// Chats that the base cannot learn: without an answer, or with the text of a special token in a message.
    pub unlearnable: u64,
}

/// What a split needs of a record. Records come sorted by id.
pub(crate) struct Candidate {
    pub(crate) id: RecordId,
    /// Index of the first record of its group.
    pub(crate) group: usize,
    pub(crate) authored: Option<i64>,
}

/// The side of each candidate, `None` for those left out.
pub(crate) fn split(
    recipe: &Recipe,
    candidates: &[Candidate],
) -> Result<(Vec<Option<Split>>, LeftOut), DatasetError> {
    let (mut sides, left_out) = if recipe.split.train_before.is_some() {
        let day = recipe.split.train_before_seconds().ok_or(DatasetError::NoDay)?;
        by_time(day, candidates)?
    } else {
        (by_share(recipe.seed, recipe.split.held_out, candidates)?, LeftOut::default())
    };
    if recipe.split.validation > 0.0 {
        keep_validation(recipe.seed, recipe.split.validation, candidates, &mut sides)?;
    }
    Ok((sides, left_out))
}

/// Moves whole groups from the training side to validation, drawn as [`by_share`] draws, so that what is held back stays
/// what it is without validation.
fn keep_validation(
    seed: u64,
    share: f64,
    candidates: &[Candidate],
    sides: &mut [Option<Split>],
) -> Result<(), DatasetError> {
    let trained = candidates.iter().zip(&*sides).filter(|(_, side)| **side == Some(Split::Train));
    let mut groups: Vec<usize> = trained.map(|(candidate, _)| candidate.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let draws =
        groups.iter().map(|first| (draw(b"moat validation 1\0", seed, candidates[*first].id), *first));
    let mut draws: Vec<(u64, usize)> = draws.collect();
    if draws.len() < 2 {
        return Err(DatasetError::NoValidation { groups: draws.len() });
    }
    let kept: BTreeSet<usize> = lowest(&mut draws, share).iter().map(|(_, first)| *first).collect();
    for (candidate, side) in candidates.iter().zip(sides) {
        if *side == Some(Split::Train) && kept.contains(&candidate.group) {
            *side = Some(Split::Validation);
        }
    }
    Ok(())
}

/// The draws in the lowest share of all numbers, of which there are some and not all.
fn lowest(draws: &mut [(u64, usize)], share: f64) -> &[(u64, usize)] {
    draws.sort_unstable();
    // 2^64 times the share is exact: only the exponent changes.
    let threshold = (share * 2f64.powi(64)) as u64;
    let below = draws.partition_point(|(draw, _)| *draw < threshold);
    // Where few groups happen to fall on one side only, the one nearest to the threshold changes sides.
    &draws[..below.clamp(1, draws.len() - 1)]
}

/// A group is held back where SHA-256 of seed and smallest record id, read as a big-endian number, lies in the
/// lowest share of all numbers. So a group's side depends on nothing but itself.
fn by_share(seed: u64, held_out: f64, candidates: &[Candidate]) -> Result<Vec<Option<Split>>, DatasetError> {
    let mut draws: Vec<(u64, usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(index, candidate)| candidate.group == *index)
        .map(|(index, candidate)| (draw(b"moat split 1\0", seed, candidate.id), index))
        .collect();
    if draws.len() < 2 {
        return Err(DatasetError::TooFew { records: candidates.len(), groups: draws.len() });
    }
    let mut side = vec![Split::Train; candidates.len()];
    for (_, first) in lowest(&mut draws, held_out) {
        side[*first] = Split::HeldOut;
    }
    Ok(candidates.iter().map(|candidate| Some(side[candidate.group])).collect())
}

fn draw(purpose: &[u8], seed: u64, first: RecordId) -> u64 {
    let digest = Digest::of_parts(&[purpose, &seed.to_le_bytes(), first.0.as_bytes()]);
    digest.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn by_time(day: i64, candidates: &[Candidate]) -> Result<(Vec<Option<Split>>, LeftOut), DatasetError> {
    let mut left_out = LeftOut::default();
    let mut trained = vec![false; candidates.len()];
    for candidate in candidates {
        trained[candidate.group] |= candidate.authored.is_some_and(|authored| authored < day);
    }
    let mut counts = [0, 0];
    let side = |candidate: &Candidate| match candidate.authored {
        None => {
            left_out.untimed += 1;
            None
        }
        Some(authored) if authored < day => {
            counts[0] += 1;
            Some(Split::Train)
        }
        Some(_) if trained[candidate.group] => {
            left_out.near += 1;
            None
        }
        Some(_) => {
            counts[1] += 1;
            Some(Split::HeldOut)
        }
    };
    let sides = candidates.iter().map(side).collect();
    let [train, held_out] = counts;
    if train == 0 || held_out == 0 {
        let LeftOut { untimed, near, .. } = left_out;
        return Err(DatasetError::Day { train, held_out, untimed, near });
    }
    Ok((sides, left_out))
}
