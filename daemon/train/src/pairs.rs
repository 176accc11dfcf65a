//! Pairs of answers: what they are held against, and how they are told apart.

use std::sync::atomic::AtomicBool;

use moat_contracts::{PairFigures, Recipe};
use moat_tensor::{Gradients, LossSum, Model, Preference, segment_losses};

use crate::ranks::dealt;
use crate::{Corpus, Exchange, Plan, TrainError};

/// The loss that a recipe asks for.
pub(crate) fn preference(recipe: &Recipe) -> Preference {
    Preference { beta: recipe.dpo.beta, label_smoothing: recipe.dpo.label_smoothing }
}

/// Losses and margins of pairs, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PairSum {
    nats: f64,
    margin: f64,
    right: u64,
    pairs: u64,
}

impl PairSum {
    /// Adds the pairs of a batch, by the summed losses of its segments.
    pub(crate) fn add(&mut self, preference: Preference, model: &[f64], reference: &[f64]) {
        for (model, reference) in model.chunks_exact(2).zip(reference.chunks_exact(2)) {
            let pair = preference.loss([model[0], model[1]], [reference[0], reference[1]]);
            self.nats += pair.loss;
            self.margin += pair.margin;
            self.right += u64::from(pair.margin > 0.0);
            self.pairs += 1;
        }
    }

    /// Summed loss, and pairs.
    pub(crate) fn loss(&self) -> LossSum {
        LossSum { nats: self.nats, tokens: self.pairs }
    }

    /// What is told of them.
    pub(crate) fn figures(&self) -> PairFigures {
        let pairs = self.pairs.max(1) as f64;
        PairFigures { pairs: self.pairs, accuracy: self.right as f64 / pairs, margin: self.margin / pairs }
    }
}

/// The summed loss of each answer under the weights that a run starts with, nats, the chosen answer of a pair before the
/// rejected one: measured once, before the first step, so that no second copy of the weights is needed, whatever is
/// trained. Part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reference {
    /// Of the training side; no number where the run never comes to a pair.
    pub(crate) train: Vec<f64>,
    /// Of the validation sample, batch by batch.
    pub(crate) validation: Vec<f64>,
}

impl Reference {
    /// Measures every pair that the plan comes to, in the batches in which it comes to it first, dealt out to the ranks; `None`
    /// if it was stopped meanwhile. The gradients stay zeros.
    pub(crate) fn measure(
        model: &Model,
        corpus: &Corpus,
        plan: &mut Plan,
        gradients: &mut Gradients,
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<Self>, TrainError> {
        let (mut seen, mut order) = (vec![false; corpus.examples()], Vec::new());
        let steps = plan.steps();
        let mut fresh = |step| {
            let mut batches = plan.pair_batches(corpus, step);
            batches.retain(|(_, pairs)| {
                let before = pairs.iter().all(|pair| seen[*pair as usize]);
                pairs.iter().for_each(|pair| seen[*pair as usize] = true);
                !before
            });
            batches
        };
        let steps = (0..steps).map(&mut fresh).take_while(|batches| !batches.is_empty());
        let pieces = steps.flatten().map(|(batch, pairs)| {
            let count = 2 * pairs.len();
            order.extend(pairs);
            (batch, count)
        });
        let found = dealt(exchange, stop, pieces, |batch, sums| {
            sums.copy_from_slice(&segment_losses(model, &batch, gradients)?);
            Ok(())
        })?;
        let Some(sums) = found else { return Ok(None) };
        let mut train = vec![f64::NAN; 2 * corpus.examples()];
        for (pair, sums) in order.into_iter().zip(sums.chunks_exact(2)) {
            let place = 2 * pair as usize;
            // Whatever comes twice keeps what it was first measured as.
            if train[place].is_nan() {
                train[place..place + 2].copy_from_slice(sums);
            }
        }
        Ok(Some(Self { train, validation: Vec::new() }))
    }

    /// A step's batches, each with what its segments are held against. The GPU's path refuses pairs.
    #[cfg(not(any(feature = "cuda", feature = "cuda-on-cpu")))]
    pub(crate) fn with<T>(&self, batches: Vec<(T, Vec<u32>)>) -> Vec<(T, Vec<f64>)> {
        let of = |pair: &u32| self.train[2 * *pair as usize..2 * *pair as usize + 2].iter().copied();
        let with = |(batch, pairs): (T, Vec<u32>)| (batch, pairs.iter().flat_map(of).collect());
        batches.into_iter().map(with).collect()
    }

    /// As a file: the number of the training side's sums, and all sums, eight bytes each, little-endian.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let sums = self.train.iter().chain(&self.validation).flat_map(|sum| sum.to_le_bytes());
        (self.train.len() as u64).to_le_bytes().into_iter().chain(sums).collect()
    }

    /// The inverse; none for anything else.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, sums) = bytes.split_first_chunk::<8>()?;
        let (sums, rest) = sums.as_chunks::<8>();
        let mut train: Vec<f64> = sums.iter().map(|sum| f64::from_le_bytes(*sum)).collect();
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let whole = rest.is_empty() && count <= train.len();
        whole.then(|| {
            let validation = train.split_off(count);
            Self { train, validation }
        })
    }
}
