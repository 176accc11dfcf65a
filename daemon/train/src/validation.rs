use std::sync::atomic::AtomicBool;

use moat_contracts::{
    Digest, Keep, Objective, PairFigures, Progress, Recipe, ValidationOutcome, ValidationRecipe,
};
use moat_tensor::{Batch, Model, Parameters, Preference, token_losses};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoints;
use crate::pairs::{PairSum, preference};
use crate::ranks::{dealt, told};
use crate::{Corpus, Exchange, Plan, TrainError};

/// The sample of the validation side that is measured again and again, and what its loss decides.
pub(crate) struct Validation<'a> {
    recipe: &'a ValidationRecipe,
    batches: Vec<Batch>,
    /// Where pairs are learnt, their loss, and the reference's summed loss of each segment.
    pairs: Option<(Preference, Vec<f64>)>,
}

/// How the validation loss went so far: part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Steps done at the first and at the last measurement, with their losses.
    first: Option<(u64, f64)>,
    last: Option<(u64, f64)>,
    /// The lowest loss that was a gain.
    best: f64,
    /// Measurements since.
    stale: u64,
    /// The best weights, lowest loss first; each lies in a folder of its own.
    pub(crate) kept: Vec<Kept>,
}

/// Weights that were kept because their loss was low.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Steps done.
    pub(crate) step: u64,
    /// Their validation loss.
    loss: f64,
    /// SHA-256 of their file.
    pub(crate) weights: Digest,
}

impl<'a> Validation<'a> {
    /// Draws the sample; `None` where the recipe asks for no validation side.
    pub(crate) fn new(corpus: &Corpus, recipe: &'a Recipe) -> Result<Option<Self>, TrainError> {
        if recipe.split.validation == 0.0 {
            return Ok(None);
        }
        let side = corpus.validation().ok_or(TrainError::NoValidation)?;
        let batches = Plan::sample(side, &recipe.train, recipe.validation.tokens, recipe.seed);
        if batches.is_empty() {
            return Err(TrainError::NoValidation);
        }
        let pairs = (recipe.train.objective == Objective::Dpo).then(|| (preference(recipe), Vec::new()));
        Ok(Some(Self { recipe: &recipe.validation, batches, pairs }))
    }

    /// Summed loss of each segment of the sample, nats; `None` if it was stopped meanwhile.
    pub(crate) fn sums(
        &self,
        model: &Model,
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>, TrainError> {
        let pieces = self.batches.iter().map(|batch| (batch, batch.segments.len() - 1));
        dealt(exchange, stop, pieces, |batch, sums| {
            let losses = token_losses(model, batch)?;
            for (sum, ends) in sums.iter_mut().zip(batch.segments.windows(2)) {
                *sum = losses[ends[0]..ends[1]].iter().map(|loss| f64::from(*loss)).sum();
            }
            Ok(())
        })
    }

    /// Holds the sample's pairs against these sums.
    pub(crate) fn refer(&mut self, reference: &[f64]) {
        if let Some((_, sums)) = &mut self.pairs {
            *sums = reference.to_vec();
        }
    }

    /// Mean loss over the sample's trained tokens or pairs, summed in one order, so that every rank decides alike; `None` if it
    /// was stopped meanwhile.
    fn measure(
        &self,
        model: &Model,
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<(f64, Option<PairFigures>)>, TrainError> {
        if let Some((preference, reference)) = &self.pairs {
            let Some(sums) = self.sums(model, exchange, stop)? else { return Ok(None) };
            let mut sum = PairSum::default();
            sum.add(*preference, &sums, reference);
            let loss = sum.loss();
            return Ok(Some((loss.nats / loss.tokens as f64, Some(sum.figures()))));
        }
        let found = dealt(exchange, stop, self.batches.iter().map(|batch| (batch, 1)), |batch, nats| {
            nats[0] = token_losses(model, batch)?.iter().map(|loss| f64::from(*loss)).sum();
            Ok(())
        })?;
        let tokens: u64 = self.batches.iter().map(Batch::trained).sum();
        Ok(found.map(|nats| (nats.iter().sum::<f64>() / tokens as f64, None)))
    }

    /// Whether a measurement is to be made after `step` of `steps`.
    pub(crate) fn is_due(&self, watch: &Watch, step: u64, steps: u64) -> bool {
        let wanted = step == steps || step.is_multiple_of(self.recipe.every);
        wanted && watch.last.is_none_or(|(last, _)| last < step)
    }

    /// Measures, keeps the weights where they are among the best, and says how it went; `None` if it was stopped
    /// meanwhile.
    pub(crate) fn look(
        &self,
        watch: &mut Watch,
        step: u64,
        model: &Model,
        checkpoints: &Checkpoints<'_>,
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<Progress>, TrainError> {
        let Some((loss, pairs)) = self.measure(model, exchange, stop)? else { return Ok(None) };
        if !loss.is_finite() {
            return Err(TrainError::Diverged { what: "the validation loss", step });
        }
        let place = watch.kept.partition_point(|kept| kept.loss <= loss);
        if self.recipe.keep == Keep::Best && place < self.recipe.keep_best {
            let own = if exchange.rank() == 0 { Some(checkpoints.keep(step, model)?) } else { None };
            let weights = told(exchange, own)?;
            watch.kept.insert(place, Kept { step, loss, weights });
            // Those beyond are removed with the next checkpoint, which no longer names them.
            watch.kept.truncate(self.recipe.keep_best);
        }
        let gain = watch.first.is_none() || loss < watch.best - self.recipe.min_gain;
        if gain {
            watch.best = loss;
        }
        watch.stale = if gain { 0 } else { watch.stale + 1 };
        watch.first.get_or_insert((step, loss));
        watch.last = Some((step, loss));
        Ok(Some(Progress::Validated { step, loss, gain, pairs }))
    }

    /// Whether training is to end, because the loss does not gain any more.
    pub(crate) fn ends(&self, watch: &Watch) -> bool {
        self.recipe.patience > 0 && watch.stale >= self.recipe.patience
    }

    /// Gives the model the weights that the run ends with, and says which; `None` if it was stopped meanwhile.
    ///
    /// Of several that were kept the mean is a candidate as well (a uniform soup along one run: Wortsman et al., arXiv
    /// 2203.05482).
    pub(crate) fn choose(
        &self,
        watch: &Watch,
        steps: u64,
        model: &mut Model,
        checkpoints: &Checkpoints<'_>,
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<ValidationOutcome>, TrainError> {
        let (Some((_, first)), Some((step, last))) = (watch.first, watch.last) else {
            return Err(TrainError::Proof("its validation loss was never measured".to_owned()));
        };
        let mut outcome = ValidationOutcome { first, kept: last, step: Some(step), early: step < steps };
        let Some((best, others)) = watch.kept.split_first() else { return Ok(Some(outcome)) };
        checkpoints.take(best, model.trainable_mut())?;
        (outcome.kept, outcome.step) = (best.loss, Some(best.step));
        if others.is_empty() {
            return Ok(Some(outcome));
        }
        let best = model.trainable().clone();
        let mut other = best.clone();
        for kept in others {
            checkpoints.take(kept, &mut other)?;
            add(model.trainable_mut(), &other);
        }
        let share = 1.0 / watch.kept.len() as f32;
        for parameter in model.trainable_mut().list_mut() {
            parameter.values.iter_mut().for_each(|value| *value *= share);
        }
        let Some((loss, _)) = self.measure(model, exchange, stop)? else { return Ok(None) };
        if loss < outcome.kept {
            (outcome.kept, outcome.step) = (loss, None);
        } else {
            *model.trainable_mut() = best;
        }
        Ok(Some(outcome))
    }
}

fn add(sum: &mut Parameters, other: &Parameters) {
    for (sum, other) in sum.list_mut().iter_mut().zip(other.list()) {
        for (sum, other) in sum.values.iter_mut().zip(&other.values) {
            *sum += *other;
        }
    }
}
