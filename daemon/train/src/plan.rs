use std::collections::BTreeSet;

use moat_contracts::TrainRecipe;
use moat_tensor::{Batch, IGNORE};

use crate::Corpus;
use crate::corpus::TRAINED;
use crate::random::Random;

/// Consecutive tokens of one example that are put in: what they predict is one further. Of a preference all tokens of both
/// answers, which are never cut and never parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    length: usize,
    /// The preference's place among all, and how many tokens of its rejected answer are put in; that answer follows the
    /// chosen one.
    rejected: Option<(u32, usize)>,
}

impl Window {
    /// Tokens that are put in.
    fn size(&self) -> usize {
        self.length + self.rejected.map_or(0, |(_, length)| length)
    }

    /// First token and number of tokens of each segment.
    fn segments(&self) -> impl Iterator<Item = (usize, usize)> {
        let second = self.rejected.map(|(_, length)| (self.start + self.length + 1, length));
        [Some((self.start, self.length)), second].into_iter().flatten()
    }
}

/// Which tokens each optimiser step sees: a function of corpus, recipe and seed alone.
///
/// An example longer than a row is cut into windows; the target of a window's last token is the next window's first,
/// so that no token but an example's first goes untrained. Windows are packed into rows by best fit, longest first;
/// rows never grow beyond `sequence_length`, and attention never crosses from one window into another. Every epoch
/// goes through the same rows in an order of its own.
#[derive(Clone, Debug)]
pub struct Plan {
    windows: Vec<Window>,
    rows: Vec<Vec<u32>>,
    seed: u64,
    micro_batch: usize,
    per_step: usize,
    total: u64,
    steps: u64,
    order: Option<(u64, Vec<u32>)>,
}

impl Plan {
    /// Cuts and packs.
    pub fn new(corpus: &Corpus, recipe: &TrainRecipe, seed: u64) -> Self {
        let mut windows = windows(corpus, recipe.sequence_length);
        // Windows of one length are told apart by chance, not by where their examples stand in the dataset.
        Random::new(seed, u64::MAX).shuffle(&mut windows);
        windows.sort_by_key(|window| std::cmp::Reverse(window.size()));
        let rows = pack(&windows, room(corpus, recipe));
        let per_step = recipe.micro_batch * recipe.accumulate;
        let total = (recipe.epochs * rows.len() as f64).ceil() as u64;
        let whole = total.div_ceil(per_step as u64);
        let steps = if recipe.max_steps == 0 { whole } else { whole.min(recipe.max_steps) };
        Self { windows, rows, seed, micro_batch: recipe.micro_batch, per_step, total, steps, order: None }
    }

    /// Micro-batches of a sample that the seed draws: whole windows until there are so many trained tokens, all of them
    /// where there are fewer.
    pub(crate) fn sample(corpus: &Corpus, recipe: &TrainRecipe, tokens: u64, seed: u64) -> Vec<Batch> {
        let mut windows = windows(corpus, recipe.sequence_length);
        Random::new(seed, u64::MAX - 1).shuffle(&mut windows);
        let mut sum = 0;
        windows.retain(|window| {
            let wanted = sum < tokens;
            if wanted {
                for (start, length) in window.segments() {
                    let targets = &corpus.tokens()[start + 1..=start + length];
                    sum += targets.iter().filter(|token| **token & TRAINED != 0).count() as u64;
                }
            }
            wanted
        });
        windows.sort_by_key(|window| std::cmp::Reverse(window.size()));
        let rows = pack(&windows, room(corpus, recipe));
        let micro_batch = |rows: &[Vec<u32>]| batch(corpus, &windows, rows.iter().flatten());
        rows.chunks(recipe.micro_batch).map(micro_batch).collect()
    }

    /// Optimiser steps in all.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Packed rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The micro-batches of the step that comes after `done`. The place in the data is a function of the step's
    /// number alone, so that a resumed run needs no state of a sampler.
    pub fn micro_batches(&mut self, corpus: &Corpus, done: u64) -> Vec<Batch> {
        let first = done * self.per_step as u64;
        let last = (first + self.per_step as u64).min(self.total);
        let rows: Vec<u32> = (first..last).map(|place| self.row_at(place)).collect();
        let micro_batch = |rows: &[u32]| {
            batch(corpus, &self.windows, rows.iter().flat_map(|row| &self.rows[*row as usize]))
        };
        rows.chunks(self.micro_batch).map(micro_batch).collect()
    }

    /// The same with the places among all preferences of those that each holds.
    pub(crate) fn pair_batches(&mut self, corpus: &Corpus, done: u64) -> Vec<(Batch, Vec<u32>)> {
        let first = done * self.per_step as u64;
        let last = (first + self.per_step as u64).min(self.total);
        let rows: Vec<u32> = (first..last).map(|place| self.row_at(place)).collect();
        let micro_batch = |rows: &[u32]| {
            let windows = || rows.iter().flat_map(|row| &self.rows[*row as usize]);
            let pairs = windows().filter_map(|window| Some(self.windows[*window as usize].rejected?.0));
            (batch(corpus, &self.windows, windows()), pairs.collect())
        };
        rows.chunks(self.micro_batch).map(micro_batch).collect()
    }

    /// Preferences that are in no row since an answer is longer than one.
    pub(crate) fn left_out(&self, corpus: &Corpus) -> u64 {
        if corpus.is_pairs() { (corpus.examples() - self.windows.len()) as u64 } else { 0 }
    }

    fn row_at(&mut self, place: u64) -> u32 {
        let rows = self.rows.len() as u64;
        let (epoch, index) = (place / rows, (place % rows) as usize);
        match &self.order {
            Some((current, order)) if *current == epoch => order[index],
            _ => {
                let mut order: Vec<u32> = (0..rows as u32).collect();
                Random::new(self.seed, epoch).shuffle(&mut order);
                let row = order[index];
                self.order = Some((epoch, order));
                row
            }
        }
    }
}

/// What is put in of a corpus.
fn windows(corpus: &Corpus, limit: usize) -> Vec<Window> {
    if !corpus.is_pairs() {
        return corpus.spans().flat_map(|span| cut(corpus.tokens(), span, limit)).collect();
    }
    let spans: Vec<_> = corpus.spans().collect();
    let whole = |(place, pair): (u32, &[std::ops::Range<usize>])| {
        let (length, rejected) = (pair[0].len() - 1, pair[1].len() - 1);
        let window = Window { start: pair[0].start, length, rejected: Some((place, rejected)) };
        (length.max(rejected) <= limit).then_some(window)
    };
    (0..).zip(spans.chunks_exact(2)).filter_map(whole).collect()
}

/// Tokens of one packed row: of preferences it holds as many of each answer.
fn room(corpus: &Corpus, recipe: &TrainRecipe) -> usize {
    recipe.sequence_length * if corpus.is_pairs() { 2 } else { 1 }
}

/// Windows, each a segment of its own, or two.
fn batch<'a>(corpus: &Corpus, windows: &[Window], indices: impl Iterator<Item = &'a u32>) -> Batch {
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for index in indices {
        for (start, length) in windows[*index as usize].segments() {
            let tokens = &corpus.tokens()[start..=start + length];
            batch.tokens.extend(tokens[..length].iter().map(|token| token & !TRAINED));
            batch.targets.extend(tokens[1..].iter().map(|token| target(*token)));
            batch.segments.push(batch.tokens.len());
        }
    }
    batch
}

fn target(token: u32) -> u32 {
    if token & TRAINED == 0 { IGNORE } else { token & !TRAINED }
}

/// Windows of at most `limit` inputs; those that predict nothing are left out.
fn cut(tokens: &[u32], span: std::ops::Range<usize>, limit: usize) -> impl Iterator<Item = Window> {
    let inputs = span.len().saturating_sub(1);
    (0..inputs).step_by(limit).filter_map(move |from| {
        let (start, length) = (span.start + from, limit.min(inputs - from));
        let window = Window { start, length, rejected: None };
        let targets = &tokens[window.start + 1..=window.start + window.length];
        targets.iter().any(|token| token & TRAINED != 0).then_some(window)
    })
}

/// Best fit: each window, longest first, into the fullest row that still has room.
fn pack(windows: &[Window], limit: usize) -> Vec<Vec<u32>> {
    let mut rows: Vec<Vec<u32>> = Vec::new();
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (index, window) in windows.iter().enumerate() {
        let index = index as u32;
        let size = window.size();
        let found = room.range((size, 0)..).next().copied();
        let (left, row) = match found {
            Some(place) => {
                room.remove(&place);
                rows[place.1].push(index);
                place
            }
            None => {
                rows.push(vec![index]);
                (limit, rows.len() - 1)
            }
        };
        if left > size {
            room.insert((left - size, row));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use moat_contracts::TrainRecipe;
    use moat_tensor::IGNORE;
    use proptest::prelude::*;

    use super::Plan;
    use crate::Corpus;

    /// Every target of one pass with the token before it, and how often it was seen.
    fn targets(plan: &mut Plan, corpus: &Corpus, steps: std::ops::Range<u64>) -> BTreeMap<(u32, u32), u32> {
        let mut seen = BTreeMap::new();
        for batch in steps.flat_map(|step| plan.micro_batches(corpus, step)) {
            for (token, target) in batch.tokens.iter().zip(&batch.targets) {
                if *target != IGNORE {
                    *seen.entry((*token, *target)).or_insert(0) += 1;
                }
            }
        }
        seen
    }

    proptest! {
        /// Each example counts upwards from a number of its own, so that a pair across two examples shows.
        #[test]
        fn a_pass_trains_each_token_once_within_its_example(
            lengths in proptest::collection::vec(2_usize..70, 1..40),
            sequence_length in 8_usize..32,
            micro_batch in 1_usize..4,
            accumulate in 1_usize..4,
            seed in any::<u64>(),
        ) {
            let examples: Vec<Vec<u32>> = lengths
                .iter()
                .enumerate()
                .map(|(example, length)| (0..*length as u32).map(|at| example as u32 * 1000 + at).collect())
                .collect();
            let corpus = Corpus::of_tokens(&examples);
            let recipe = TrainRecipe { sequence_length, micro_batch, accumulate, ..Default::default() };
            let mut plan = Plan::new(&corpus, &recipe, seed);
            for step in 0..plan.steps() {
                for batch in plan.micro_batches(&corpus, step) {
                    prop_assert!(batch.tokens.len() <= sequence_length * micro_batch);
                    for segment in batch.segments.windows(2) {
                        let tokens = &batch.tokens[segment[0]..segment[1]];
                        prop_assert!(tokens.windows(2).all(|pair| pair[1] == pair[0] + 1));
                    }
                }
            }
            let steps = plan.steps();
            let seen = targets(&mut plan, &corpus, 0..steps);
            let expected: usize = lengths.iter().map(|length| length - 1).sum();
            prop_assert_eq!(seen.len(), expected);
            prop_assert!(seen.iter().all(|((token, target), times)| *target == token + 1 && *times == 1));
            // Best fit leaves no two rows that would have fitted into one.
            let mut room: Vec<usize> = plan
                .rows
                .iter()
                .map(|row| row.iter().map(|index| plan.windows[*index as usize].length).sum())
                .collect();
            room.sort_unstable();
            prop_assert!(room.len() < 2 || room[0] + room[1] > sequence_length);
        }
    }

    #[test]
    fn epochs_see_the_same_rows_in_other_orders_and_bounds_are_kept() {
        let examples: Vec<Vec<u32>> =
            (0..20).map(|example| (0..9).map(|at| example * 100 + at).collect()).collect();
        let corpus = Corpus::of_tokens(&examples);
        let recipe = TrainRecipe { sequence_length: 8, micro_batch: 2, epochs: 2.5, ..Default::default() };
        let mut plan = Plan::new(&corpus, &recipe, 7);
        assert_eq!((plan.rows(), plan.steps()), (20, 25));
        let first = targets(&mut plan, &corpus, 0..10);
        assert_eq!(first, targets(&mut plan, &corpus, 10..20));
        assert_ne!(plan.micro_batches(&corpus, 0), plan.micro_batches(&corpus, 10));
        // The place depends on the step alone: any step can be asked for at any time.
        let late = plan.micro_batches(&corpus, 24);
        assert_eq!(late, Plan::new(&corpus, &recipe, 7).micro_batches(&corpus, 24));
        let bounded = TrainRecipe { max_steps: 4, ..recipe };
        assert_eq!(Plan::new(&corpus, &bounded, 7).steps(), 4);
    }
}
