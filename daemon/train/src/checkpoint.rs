//! A checkpoint is the folder `checkpoint/STEP` of a run, with what training changes, AdamW's moments, and
//! `state.json`. It is written beside the one before under another name, renamed when all of it is on disk, and only
//! then is the one before removed: whatever happens, one complete checkpoint is there.

use std::fs;
use std::path::{Path, PathBuf};

use moat_contracts::{Digest, Progress};
use moat_tensor::{LossSum, Model, Moments};
use serde::{Deserialize, Serialize};

use crate::{TrainError, files};

const FORMAT: u32 = 1;
const STATE: &str = "state.json";
const TRAINABLE: &str = "trainable.safetensors";
const MOMENTS: &str = "moments.safetensors";
const UNFINISHED: &str = "unfinished";

/// What a run must go on with to end as if it had never been interrupted, beside tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimiser steps done.
    pub(crate) step: u64,
    /// Tokens trained on so far.
    pub(crate) tokens: u64,
    /// Mean loss of the first step.
    pub(crate) first_loss: f64,
    /// Loss of the last tenth of the steps so far: nats and tokens.
    pub(crate) last: (f64, u64),
    /// What every step reported: told again when the run goes on, since a kill may have cut off who kept them.
    pub(crate) reports: Vec<Progress>,
}

/// What a checkpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Hash of the recipe.
    pub(crate) recipe: Digest,
    /// Fingerprint of the corpus.
    pub(crate) corpus: Digest,
    /// SHA-256 of the base's `config.json`.
    pub(crate) base: Digest,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    owner: Owner,
    state: State,
    trainable: Digest,
    moments: Digest,
}

impl State {
    pub(crate) fn start() -> Self {
        Self { step: 0, tokens: 0, first_loss: 0.0, last: (0.0, 0), reports: Vec::new() }
    }

    /// Counts a step in; its loss counts for the end where it is one of the last tenth of `steps`.
    pub(crate) fn count(&mut self, sum: LossSum, steps: u64) {
        if self.step == 0 {
            self.first_loss = sum.nats / sum.tokens as f64;
        }
        if self.step >= steps - (steps / 10).max(1) {
            self.last = (self.last.0 + sum.nats, self.last.1 + sum.tokens);
        }
        self.step += 1;
        self.tokens += sum.tokens;
    }
}

pub(crate) fn save(
    folder: &Path,
    owner: Owner,
    state: &State,
    model: &Model,
    moments: &Moments,
) -> Result<(), TrainError> {
    let unfinished = folder.join(UNFINISHED);
    files::fresh_folder(&unfinished)?;
    let write = |name: &str, bytes: Vec<u8>| -> Result<Digest, TrainError> {
        files::write(&unfinished.join(name), &bytes)?;
        Ok(Digest::of(&bytes))
    };
    let trainable = write(TRAINABLE, model.trainable().to_bytes()?)?;
    let moments = write(MOMENTS, moments.to_bytes()?)?;
    let saved = Saved { format: FORMAT, owner, state: state.clone(), trainable, moments };
    let damaged = |error: serde_json::Error| TrainError::Checkpoint {
        path: folder.to_owned(),
        reason: format!("its state cannot be written: {error}"),
    };
    write(STATE, serde_json::to_vec(&saved).map_err(damaged)?)?;
    let finished = folder.join(state.step.to_string());
    files::publish(&unfinished, &finished)?;
    for (step, path) in list(folder)? {
        if step != state.step {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Restores the newest checkpoint, if there is one.
pub(crate) fn restore(
    folder: &Path,
    owner: Owner,
    model: &mut Model,
    moments: &mut Moments,
) -> Result<Option<State>, TrainError> {
    let Some((step, path)) = list(folder)?.into_iter().max() else { return Ok(None) };
    let refused = |reason: &str| TrainError::Checkpoint { path: path.clone(), reason: reason.to_owned() };
    let read = |name: &str| {
        let file = path.join(name);
        fs::read(&file).map_err(TrainError::read(&file))
    };
    let saved: Saved = serde_json::from_slice(&read(STATE)?)
        .map_err(|_| refused("its state is of another version of Moat"))?;
    if saved.format != FORMAT {
        return Err(refused("it is of another version of Moat"));
    }
    if saved.owner.recipe != owner.recipe {
        return Err(refused("it was made by another recipe"));
    }
    if saved.owner.base != owner.base {
        return Err(refused("it was made on another base"));
    }
    if saved.owner.corpus != owner.corpus {
        return Err(refused("it was made on other data or by another tokenizer"));
    }
    let (trainable, state) = (read(TRAINABLE)?, read(MOMENTS)?);
    if Digest::of(&trainable) != saved.trainable
        || Digest::of(&state) != saved.moments
        || saved.state.step != step
    {
        return Err(refused("its files were changed since they were written"));
    }
    model.trainable_mut().restore(&trainable)?;
    moments.restore(&state)?;
    Ok(Some(saved.state))
}

/// Complete checkpoints by their step.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::read(folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::read(folder))?.path();
        let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    Ok(found)
}
