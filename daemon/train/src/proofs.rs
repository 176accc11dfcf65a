//! What a run shows of itself before its first step, and of its weights at the end: on samples of its own data, with an
//! adapter that changes something, in a fraction of the time of a few steps.

use std::f64::consts::LN_2;

use moat_contracts::{Claim, Objective, Precision, Proof, Recipe};
use moat_tensor::{
    AdamW, Batch, Gradients, IGNORE, Lora, Model, Moments, Parameters, Preference, Weights, adamw_tuned,
    forward_backward, forward_backward_pairs, logits, merged_logits, segment_losses, token_losses,
};
use rayon::prelude::*;

use crate::corpus::Facts;
use crate::memory::give_back;
use crate::pairs::{PairSum, preference};
use crate::random::Random;
use crate::tuning::tuning;
use crate::{Corpus, Plan, TrainError};

/// Tokens of the sample on which packing and accumulation are compared, and of the longest of its sequences.
const SAMPLE: usize = 1024;
const SEQUENCE: usize = 512;

/// Micro-batches that the sample may come from.
const SAMPLED: u64 = 8;

/// Logits that are compared at a time: what they take of memory is no matter.
const LOGITS: usize = 1 << 19;

/// The first proof that does not hold, as the reason why a run ends.
pub(crate) fn hold(proofs: &[Proof]) -> Result<(), TrainError> {
    let Some(proof) = proofs.iter().find(|proof| !proof.held) else { return Ok(()) };
    let Proof { claim, compared, figure, bound, remedy, .. } = proof;
    let claim = claim.sentence();
    Err(TrainError::Proof(format!(
        "\"{claim}\" does not hold ({compared}: {figure:.3e}, at most {bound:.0e}); {remedy}"
    )))
}

/// The claims that the data alone decides.
pub(crate) fn of_data(corpus: &Corpus) -> Vec<Proof> {
    let Facts { chats, ended, masked, refused, template, .. } = corpus.facts();
    let first = masked.1.map(|record| format!(", the first is record {record}")).unwrap_or_default();
    let compared = format!("{} examples{first}", corpus.examples());
    let masks = Proof::of(Claim::Masks, compared, masked.0 as f64);
    if chats + refused.0 == 0 {
        return vec![masks];
    }
    let endless = ended.1 - ended.0;
    let reason = match (template, &refused.1) {
        (Some(reason), _) => format!("; {reason}"),
        (None, Some((record, reason))) => format!("; record {record}: {reason}"),
        (None, None) => String::new(),
    };
    let compared = format!("{} answers of {} chats{reason}", ended.1, chats + refused.0);
    let faults = refused.0 + endless + u64::from(template.is_some());
    vec![masks, Proof::of(Claim::Turns, compared, faults as f64)]
}

/// The claims about the model, on the run's first micro-batch and a sample of its first rows. The model is the same
/// afterwards; the gradients are zeros.
pub(crate) fn of_model(
    model: &mut Model,
    recipe: &Recipe,
    corpus: &Corpus,
    plan: &mut Plan,
    recompute: bool,
) -> Result<Vec<Proof>, TrainError> {
    let batch = plan.micro_batches(corpus, 0).into_iter().next().ok_or(TrainError::Nothing)?;
    let pieces = sample(corpus, plan);
    let whole = joined(&pieces);
    // Buffers of each comparison go before the next one takes its own, so that no proof takes more than a step does.
    let mut gradients = Gradients::new(model);
    let first = first_loss(model, &batch, recompute, &mut gradients)?;
    let pairs = (recipe.train.objective == Objective::Dpo).then(|| preference(recipe));
    let aim = pairs.map(|preference| {
        let reference = base_losses(model, &batch, &mut gradients)?;
        let begun = indifference(model, &batch, preference, &reference, recompute, &mut gradients)?;
        let sums: Result<Vec<_>, _> =
            pieces.iter().map(|piece| base_losses(model, piece, &mut gradients)).collect();
        Ok::<_, TrainError>((begun, (preference, reference), sums?))
    });
    let (begun, aim, sums) = match aim.transpose()? {
        Some((begun, aim, sums)) => (Some(begun), Some(aim), sums),
        None => (None, None, Vec::new()),
    };
    let aim = aim.as_ref().map(|(preference, reference)| (*preference, reference.as_slice()));
    let sums = pairs.map(|preference| (preference, sums.as_slice()));
    // From here on with an adapter that is not as it began: where B is zero, nothing of A shows.
    let (adapter, products) = (model.adapter.clone(), model.weights.precision());
    if let Some(adapter) = &mut model.adapter {
        stir(adapter, recipe.seed);
    }
    let proofs = (|| {
        let precision = precision(model, &whole, recompute, &mut gradients)?;
        let gradient = reached(model, &batch, aim, recipe, recompute, &mut gradients)?;
        gradients.release();
        give_back();
        // What follows compares sums in two orders, to more digits than products in 8 bits have.
        model.weights.set_precision(Precision::F32)?;
        let packed = packing(model, &whole, &pieces)?;
        give_back();
        let accumulated = accumulation(model, &whole, &pieces, sums, recompute, &mut gradients)?;
        gradients.release();
        give_back();
        Ok([gradient, first, precision, packed, accumulated]
            .into_iter()
            .chain(begun)
            .chain(merge(model, Claim::Merge, &whole)?)
            .collect())
    })();
    model.weights.set_precision(products)?;
    model.adapter = adapter;
    drop(gradients);
    give_back();
    proofs
}

/// The claim about the trained adapter; none where there is no adapter.
pub(crate) fn of_result(
    model: &mut Model,
    corpus: &Corpus,
    plan: &mut Plan,
) -> Result<Vec<Proof>, TrainError> {
    let whole = joined(&sample(corpus, plan));
    Ok(merge(model, Claim::MergeTrained, &whole)?.into_iter().collect())
}

/// Sequences of the run's first rows, each by itself; together no more than a micro-batch.
fn sample(corpus: &Corpus, plan: &mut Plan) -> Vec<Batch> {
    let mut pieces: Vec<Batch> = Vec::new();
    let mut tokens = 0;
    let most = plan.micro_batches(corpus, 0).first().map_or(0, |batch| batch.tokens.len()).min(SAMPLE);
    let batches = (0..plan.steps().min(SAMPLED)).flat_map(|step| plan.micro_batches(corpus, step));
    for batch in batches.take(SAMPLED as usize) {
        // Answers of a preference stay together, and whole.
        let group = if corpus.is_pairs() { 2 } else { 1 };
        for ends in batch.segments.windows(group + 1).step_by(group) {
            let longest = if group == 1 { SEQUENCE.min((most / 2).max(1)) } else { usize::MAX };
            let (first, last) = (ends[0], ends[group]);
            let rows = first..last.min(first.saturating_add(longest));
            if tokens + rows.len() > most && pieces.len() > 1 {
                return pieces;
            }
            let targets = batch.targets[rows.clone()].to_vec();
            if targets.iter().any(|target| *target != IGNORE) {
                tokens += rows.len();
                let segments = ends[..group].iter().map(|end| end - first).chain([rows.len()]).collect();
                pieces.push(Batch { tokens: batch.tokens[rows].to_vec(), targets, segments });
            }
        }
    }
    pieces
}

/// The pieces as one packed row.
fn joined(pieces: &[Batch]) -> Batch {
    let mut whole = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for piece in pieces {
        whole.tokens.extend_from_slice(&piece.tokens);
        let start = whole.tokens.len() - piece.tokens.len();
        whole.targets.extend_from_slice(&piece.targets);
        whole.segments.extend(piece.segments[1..].iter().map(|end| start + end));
    }
    whole
}

/// Gives an adapter's B, where it is zero, small numbers that the seed draws.
fn stir(adapter: &mut Lora, seed: u64) {
    let mut random = Random::new(seed, u64::MAX - 2);
    let started = |values: &[f32]| values.iter().any(|value| *value != 0.0);
    for parameter in adapter.parameters_mut().list_mut() {
        if !started(&parameter.values) {
            let draw =
                |value: &mut f32| *value = 0.04 * (random.below(1 << 20) as f32 / (1 << 20) as f32 - 0.5);
            parameter.values.iter_mut().for_each(draw);
        }
    }
}

/// Whether an adapter's B is zero, so that it adds nothing.
fn is_fresh(adapter: &mut Lora) -> bool {
    let b = adapter.parameters().list().iter().filter(|tensor| tensor.name.ends_with(B));
    b.flat_map(|tensor| &tensor.values).all(|value| *value == 0.0)
}

/// The loss of the batch's tokens as training computes it, before anything changes, against the one that an evaluation measures; of a fresh adapter
/// against the base's alone.
fn first_loss(
    model: &mut Model,
    batch: &Batch,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Proof, TrainError> {
    let fresh = model.adapter.take_if(is_fresh);
    let measured = token_losses(model, batch);
    let of = if fresh.is_some() { " of the base alone" } else { "" };
    model.adapter = fresh.or(model.adapter.take());
    let measured: f64 = measured?.iter().map(|loss| f64::from(*loss)).sum();
    give_back();
    let scale = (1.0 / batch.trained() as f64) as f32;
    let trained = forward_backward(model, batch, scale, recompute, gradients)?;
    gradients.zero();
    let compared = format!(
        "{:.6} nats a token over {} tokens, {:.6} by the evaluator{of}",
        trained.nats / trained.tokens as f64,
        trained.tokens,
        measured / batch.trained() as f64,
    );
    let counted = trained.tokens == batch.trained();
    let apart = (trained.nats - measured).abs() / measured.abs().max(1e-3);
    Ok(Proof::of(Claim::FirstLoss, compared, if counted { apart } else { f64::INFINITY }))
}

/// What the base alone gives each answer, where the adapter is fresh, and what the weights give that the run starts with
/// where not.
fn base_losses(model: &mut Model, batch: &Batch, gradients: &mut Gradients) -> Result<Vec<f64>, TrainError> {
    let fresh = model.adapter.take_if(is_fresh);
    let measured = segment_losses(model, batch, gradients);
    model.adapter = fresh.or(model.adapter.take());
    Ok(measured?)
}

/// The loss of pairs before anything changes: nothing is preferred, and so it is ln 2.
fn indifference(
    model: &Model,
    batch: &Batch,
    preference: Preference,
    reference: &[f64],
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Proof, TrainError> {
    let sums = forward_backward_pairs(model, batch, reference, preference, 1.0, recompute, gradients)?;
    gradients.zero();
    let mut sum = PairSum::default();
    sum.add(preference, &sums, reference);
    let loss = sum.loss();
    let mean = loss.nats / loss.tokens as f64;
    let compared = format!("{mean:.9} nats a pair over {} pairs, ln 2 is {:.9}", loss.tokens, LN_2);
    Ok(Proof::of(Claim::Reference, compared, (mean - LN_2).abs()))
}

/// Adds the gradient of the summed loss of a batch by this factor: of its tokens, or of its pairs. Returns that sum.
fn learn(
    model: &Model,
    batch: &Batch,
    aim: Option<(Preference, &[f64])>,
    scale: f64,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<f64, TrainError> {
    let Some((preference, reference)) = aim else {
        return Ok(forward_backward(model, batch, scale as f32, recompute, gradients)?.nats);
    };
    let sums = forward_backward_pairs(model, batch, reference, preference, scale, recompute, gradients)?;
    let mut sum = PairSum::default();
    sum.add(preference, &sums, reference);
    Ok(sum.loss().nats)
}

/// One over what a batch's loss is the mean of.
fn share(batch: &Batch, pairs: bool) -> f64 {
    1.0 / if pairs { (batch.segments.len() / 2) as f64 } else { batch.trained() as f64 }
}

/// What PEFT calls B.
const B: &str = "lora_B.weight";

/// Parts of the names of the tensors that make queries and keys; one that makes values too is not among them.
const CHOOSING: [&str; 4] = ["q_proj", "k_proj", "q_norm", "k_norm"];

/// One step on the batch: what it reaches, and what it leaves. The adapter is given up to it; full weights are left, since
/// there is nothing beside them that could change.
fn reached(
    model: &mut Model,
    batch: &Batch,
    aim: Option<(Preference, &[f64])>,
    recipe: &Recipe,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Proof, TrainError> {
    learn(model, batch, aim, share(batch, aim.is_some()), recompute, gradients)?;
    // With one key a query has no choice, so that nothing can be learnt about choosing.
    let chooses = batch.segments.windows(2).any(|pair| pair[1] - pair[0] > 1);
    let named: Vec<&str> = gradients.named().list().iter().map(|tensor| tensor.name.as_str()).collect();
    let mut faults = silent(gradients.named(), chooses);
    let trainable = model.trainable().list().iter().map(|tensor| tensor.name.as_str());
    faults.extend(
        named.iter().filter(|name| !trainable.clone().any(|known| known == **name)).map(ToString::to_string),
    );
    let count = named.len();
    let mut kept = 0;
    if model.adapter.is_some() {
        let before = (fingerprints(&model.weights), model.trainable().clone());
        let mut moments = Moments::new(model);
        let settings = AdamW {
            learning_rate: recipe.optimizer.learning_rate,
            beta1: recipe.optimizer.beta1,
            beta2: recipe.optimizer.beta2,
            epsilon: recipe.optimizer.epsilon,
            weight_decay: 0.0,
        };
        adamw_tuned(model, gradients, &mut moments, settings, |parameter| tuning(recipe, parameter))?;
        faults.extend(changed(&model.weights, &before.0));
        let learnt = before.1.list().iter().zip(model.trainable().list());
        let exempt = |name: &str| !chooses && is_choosing(name);
        let still = learnt.filter(|(old, new)| old.values == new.values && !exempt(&old.name));
        faults.extend(still.map(|(old, _)| old.name.clone()));
        kept = before.0.len();
        *model.trainable_mut() = before.1;
    }
    gradients.zero();
    faults.dedup();
    let first = faults.first().map(|name| format!("; not as it must be: {name}")).unwrap_or_default();
    let compared = format!("{count} tensors reached, {kept} left as they were{first}");
    Ok(Proof::of(Claim::Gradients, compared, faults.len() as f64))
}

fn is_choosing(name: &str) -> bool {
    CHOOSING.iter().any(|part| name.contains(part))
}

/// Tensors that no gradient reaches though one must.
fn silent(gradients: &Parameters, chooses: bool) -> Vec<String> {
    let must = gradients.list().iter().filter(|tensor| chooses || !is_choosing(&tensor.name));
    let none = must.filter(|tensor| tensor.values.iter().all(|value| *value == 0.0));
    none.map(|tensor| tensor.name.clone()).collect()
}

/// A number for each tensor that changes with any of its bits.
pub(crate) fn fingerprints(weights: &Weights) -> Vec<u64> {
    let tensors = weights.parameters().list().iter().zip(weights.held_sums());
    tensors.map(|(tensor, held)| fingerprint(&tensor.values).wrapping_add(held)).collect()
}

/// A number that changes with any bit of these.
pub(crate) fn fingerprint(values: &[f32]) -> u64 {
    const SPAN: usize = 1 << 16;
    let mixed = |(place, values): (usize, &[f32])| {
        // Fowler, Noll and Vo's mixing, in words for bytes.
        values.iter().fold(place as u64, |sum, value| {
            (sum ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
        })
    };
    values.par_chunks(SPAN).enumerate().map(mixed).reduce(|| 0, u64::wrapping_add)
}

/// Tensors that are not as they were.
fn changed(weights: &Weights, before: &[u64]) -> Vec<String> {
    let now = fingerprints(weights);
    let both = weights.parameters().list().iter().zip(now.iter().zip(before));
    both.filter(|(_, (now, before))| now != before).map(|(tensor, _)| tensor.name.clone()).collect()
}

/// Losses of sequences in one packed row against those of each alone.
fn packing(model: &Model, whole: &Batch, pieces: &[Batch]) -> Result<Proof, TrainError> {
    let packed = token_losses(model, whole)?;
    let mut alone = Vec::with_capacity(packed.len());
    for piece in pieces {
        alone.extend(token_losses(model, piece)?);
    }
    let compared = format!("{} sequences, {} tokens", pieces.len(), whole.tokens.len());
    let figure =
        if packed.len() == alone.len() { largest_difference(&packed, &alone) } else { f64::INFINITY };
    Ok(Proof::of(Claim::Packing, compared, figure))
}

/// The gradient of the whole less those of its pieces, which leaves nothing: one buffer holds both.
fn accumulation(
    model: &Model,
    whole: &Batch,
    pieces: &[Batch],
    pairs: Option<(Preference, &[Vec<f64>])>,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Proof, TrainError> {
    let scale = share(whole, pairs.is_some());
    let all: Vec<f64> = pairs.map(|(_, sums)| sums.concat()).unwrap_or_default();
    gradients.zero();
    let mut nats = 0.0;
    for (place, piece) in pieces.iter().enumerate() {
        let aim = pairs.and_then(|(preference, sums)| Some((preference, sums.get(place)?.as_slice())));
        nats += learn(model, piece, aim, -scale, recompute, gradients)?;
    }
    let norm = gradients.norm();
    gradients.release();
    give_back();
    let aim = pairs.map(|(preference, _)| (preference, all.as_slice()));
    let big = learn(model, whole, aim, scale, recompute, gradients)?;
    let left = gradients.norm();
    gradients.zero();
    let compared = format!("gradient norm {norm:.4}, {} micro-batches", pieces.len());
    let losses = (big - nats).abs() / big.abs().max(1e-3);
    // A NaN in either must not be lost in the larger of the two.
    let figure = if losses <= left / norm { left / norm } else { losses };
    Ok(Proof::of(Claim::Accumulation, compared, figure))
}

/// The gradient of a sample less that by products in 32-bit floats; the same one where all products are.
fn precision(
    model: &mut Model,
    sample: &Batch,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Proof, TrainError> {
    let asked = model.weights.precision();
    if asked == Precision::F32 {
        return Ok(Proof::of(Claim::Precision, "every product is one of 32-bit floats", 0.0));
    }
    let scale = (1.0 / sample.trained() as f64) as f32;
    model.weights.set_precision(Precision::F32)?;
    let exact = forward_backward(model, sample, -scale, recompute, gradients);
    model.weights.set_precision(asked)?;
    let (exact, norm) = (exact?, gradients.norm());
    let rounded = forward_backward(model, sample, scale, recompute, gradients)?;
    let left = gradients.norm();
    gradients.zero();
    gradients.release();
    give_back();
    let each = |sum: moat_tensor::LossSum| sum.nats / sum.tokens as f64;
    let compared =
        format!("gradient norm {norm:.4}; {:.6} nats a token, {:.6} by f32", each(rounded), each(exact));
    Ok(Proof::of(Claim::Precision, compared, left / norm))
}

/// Logits of base and adapter against those of the weights that a merge leaves; none where there is no adapter.
fn merge(model: &mut Model, claim: Claim, sample: &Batch) -> Result<Option<Proof>, TrainError> {
    let Some(adapter) = model.adapter.clone() else { return Ok(None) };
    merge_of(model, &adapter, claim, sample).map(Some)
}

/// The same where `adapter` is what is merged.
///
/// What a merge leaves is multiplied in 32-bit floats, so that is how both are compared.
fn merge_of(model: &mut Model, adapter: &Lora, claim: Claim, sample: &Batch) -> Result<Proof, TrainError> {
    let asked = model.weights.precision();
    model.weights.set_precision(Precision::F32)?;
    let proof = merge_exactly(model, adapter, claim, sample);
    model.weights.set_precision(asked)?;
    proof
}

fn merge_exactly(
    model: &mut Model,
    adapter: &Lora,
    claim: Claim,
    sample: &Batch,
) -> Result<Proof, TrainError> {
    let rows = sample.segments.get(1).copied().unwrap_or(0);
    let rows = rows.min((LOGITS / model.weights.architecture().vocabulary).max(2));
    let batch = Batch::sequence(&sample.tokens[..rows]);
    let tuned = logits(model, &batch)?;
    let carried = model.adapter.take();
    let plain = logits(model, &batch);
    model.adapter = carried;
    let merged = merged_logits(model, adapter, &batch)?;
    let change = largest_difference(&tuned, &plain?);
    let size = tuned.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max);
    // A change below the rounding of the logits themselves cannot be compared with.
    let figure = largest_difference(&tuned, &merged) / change.max(1e-2 * size);
    let compared = format!("{} logits, of which the adapter changes one by {change:.3}", tuned.len());
    Ok(Proof::of(claim, compared, figure))
}

/// NaN where either holds one.
fn largest_difference(left: &[f32], right: &[f32]) -> f64 {
    let apart = left.iter().zip(right).map(|(left, right)| f64::from((left - right).abs()));
    apart.fold(0.0, |most, apart| if most.is_nan() || apart <= most { most } else { apart })
}

#[cfg(test)]
mod tests;
