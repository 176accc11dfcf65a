//! What the ranks of a run share besides gradients: who finds which number, and that they all train the same.

use std::sync::atomic::{AtomicBool, Ordering};

use moat_contracts::{Digest, TrainRecipe};
use moat_tensor::{Model, Parameters};

use crate::checkpoint::Owner;
use crate::proofs::{fingerprint, fingerprints};
use crate::{Exchange, TrainError};

/// Refuses processes that a step would leave without work.
pub(crate) fn check(recipe: &TrainRecipe, ranks: usize) -> Result<(), TrainError> {
    let micro_batches = recipe.accumulate;
    if micro_batches < ranks { Err(TrainError::Ranks { ranks, micro_batches }) } else { Ok(()) }
}

/// Numbers that are found piece by piece, piece i by rank i mod ranks: every rank gets all of them, to the bit that the one
/// rank found. `pieces` are told with how many numbers each has. `None` if one of the ranks was stopped meanwhile.
pub(crate) fn dealt<T>(
    exchange: &mut dyn Exchange,
    stop: &AtomicBool,
    pieces: impl Iterator<Item = (T, usize)>,
    mut find: impl FnMut(T, &mut [f64]) -> Result<(), TrainError>,
) -> Result<Option<Vec<f64>>, TrainError> {
    let (mut numbers, mut stopped) = (Vec::new(), false);
    for (place, (piece, count)) in pieces.enumerate() {
        let start = numbers.len();
        // Zeros, which change no bit of what another rank adds to them.
        numbers.resize(start + count, 0.0);
        stopped = stopped || stop.load(Ordering::Relaxed);
        if stopped && exchange.ranks() == 1 {
            return Ok(None);
        }
        if !stopped && place % exchange.ranks() == exchange.rank() {
            find(piece, &mut numbers[start..])?;
        }
    }
    numbers.push(f64::from(u8::from(stopped)));
    exchange.sum_double(&mut numbers)?;
    Ok((numbers.pop() == Some(0.0)).then_some(numbers))
}

/// Adds up the gradients, tensor by tensor.
pub(crate) fn sum(exchange: &mut dyn Exchange, gradients: &mut Parameters) -> Result<(), TrainError> {
    gradients.list_mut().iter_mut().try_for_each(|tensor| exchange.sum(&mut tensor.values))?;
    Ok(())
}

/// What the first rank alone knows, told to all; the others wait for it, or end with it.
pub(crate) fn told(exchange: &mut dyn Exchange, own: Option<Digest>) -> Result<Digest, TrainError> {
    let mut words = own.map_or([0.0; WORDS], |own| words(&own));
    exchange.sum_double(&mut words)?;
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = (word as u32).to_le_bytes();
    }
    Ok(Digest::from_bytes(bytes))
}

/// Refuses to go on where a rank trains something else than the first, before anything is written of it. The others wait
/// for the first here, or end with it. `own` is the same where what is trained is.
pub(crate) fn check_alike(
    exchange: &mut dyn Exchange,
    step: u64,
    own: impl FnOnce() -> Digest,
) -> Result<(), TrainError> {
    if exchange.ranks() == 1 {
        return Ok(());
    }
    let mut all = vec![0.0; WORDS * exchange.ranks()];
    all[WORDS * exchange.rank()..][..WORDS].copy_from_slice(&words(&own()));
    exchange.sum_double(&mut all)?;
    let differs = all.chunks_exact(WORDS).position(|words| *words != all[..WORDS]);
    differs.map_or(Ok(()), |rank| Err(TrainError::Apart { rank, step }))
}

/// A digest that changes with any bit of what a model trains.
pub(crate) fn of_trained(model: &Model) -> Digest {
    let sums = model.trainable().list().iter().map(|tensor| fingerprint(&tensor.values));
    Digest::of(&sums.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
}

/// A digest that changes with any bit of a model, with whose it is, and with the step at which it goes on.
pub(crate) fn of_start(model: &Model, owner: &Owner, step: u64) -> Digest {
    let base: Vec<u8> = fingerprints(&model.weights).into_iter().flat_map(u64::to_le_bytes).collect();
    let [recipe, corpus, config] = [owner.recipe, owner.corpus, owner.base];
    let trained = of_trained(model);
    let digests = [recipe, corpus, config, trained].map(|digest| *digest.as_bytes()).concat();
    Digest::of_parts(&[&step.to_le_bytes(), &digests, &base])
}

/// Words of a digest: a double holds each of them exactly.
const WORDS: usize = 8;

fn words(digest: &Digest) -> [f64; WORDS] {
    let mut words = [0.0; WORDS];
    for (word, bytes) in words.iter_mut().zip(digest.as_bytes().as_chunks().0) {
        *word = f64::from(u32::from_le_bytes(*bytes));
    }
    words
}
