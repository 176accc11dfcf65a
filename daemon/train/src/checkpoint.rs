//! A checkpoint is the folder `checkpoint/STEP` of a run, with what training changes, AdamW's moments, and
//! `state.json`, all plain or all sealed. It is written beside the one before under another name, renamed when all of it is on disk, and only
//! then is the one before removed: whatever happens, one complete checkpoint is there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use moat_contracts::{Digest, Progress, RunPart, TrainJob};
use moat_tensor::{Folder, LossSum, Model, Moments};
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

/// Where a run's checkpoints lie.
fn folder_of(job: &TrainJob) -> PathBuf {
    Path::new(&job.output).join(RunPart::Checkpoint.word())
}

/// A checkpoint's files, as the job has them sealed.
fn files_of(job: &TrainJob, path: &Path) -> Folder {
    Folder::of_run(path, &job.run, RunPart::Checkpoint, job.key.as_ref())
}

pub(crate) fn save(
    job: &TrainJob,
    owner: Owner,
    state: &State,
    model: &Model,
    moments: &Moments,
) -> Result<(), TrainError> {
    let folder = &folder_of(job);
    let unfinished = folder.join(UNFINISHED);
    files::fresh_folder(&unfinished)?;
    let into = files_of(job, &unfinished);
    let trainable = into.write(TRAINABLE, |file| model.trainable().write(file))?;
    let moments = into.write(MOMENTS, |file| moments.write(file))?;
    let saved = Saved { format: FORMAT, owner, state: state.clone(), trainable, moments };
    into.write(STATE, |file| file.write_all(&serde_json::to_vec(&saved)?))?;
    let finished = folder.join(state.step.to_string());
    files::publish(&unfinished, &finished)?;
    for (step, path) in list(folder)? {
        if step != state.step {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Restores the newest checkpoint, if there is one. Where it is refused, the model may be half restored.
pub(crate) fn restore(
    job: &TrainJob,
    owner: Owner,
    model: &mut Model,
    moments: &mut Moments,
) -> Result<Option<State>, TrainError> {
    let Some((step, path)) = list(&folder_of(job))?.into_iter().max() else { return Ok(None) };
    let refused = |reason: &str| TrainError::Checkpoint { path: path.clone(), reason: reason.to_owned() };
    let from = files_of(job, &path);
    let saved: Saved = serde_json::from_slice(&from.read(STATE)?)
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
    let changed = || refused("its files were changed since they were written");
    if saved.state.step != step {
        return Err(changed());
    }
    // One after the other, so that only one of them lies in memory twice.
    let read = |name: &str, digest: Digest| -> Result<Vec<u8>, TrainError> {
        let bytes = from.read(name)?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(changed()) }
    };
    model.trainable_mut().restore(&read(TRAINABLE, saved.trainable)?)?;
    moments.restore(&read(MOMENTS, saved.moments)?)?;
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
