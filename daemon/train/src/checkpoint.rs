//! A checkpoint is the folder `checkpoint/STEP` of a run, with what training changes, AdamW's moments, and
//! `state.json`, all plain or all sealed. It is written beside the one before under another name, renamed when all of it is on disk, and only
//! then is the one before removed: whatever happens, one complete checkpoint is there. `checkpoint/best/STEP` holds
//! weights that are kept for the end; they are there before a checkpoint names them, and go after none does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use moat_contracts::{Digest, Progress, RunPart, TrainJob};
use moat_tensor::{Folder, LossSum, Model, Moments, Parameters};
use serde::{Deserialize, Serialize};

use crate::pairs::Reference;
use crate::validation::{Kept, Watch};
use crate::{Exchange, TrainError, files, ranks};

const FORMAT: u32 = 1;
const STATE: &str = "state.json";
const TRAINABLE: &str = "trainable.safetensors";
const MOMENTS: &str = "moments.safetensors";
const REFERENCE: &str = "reference.bin";
const UNFINISHED: &str = "unfinished";
const BEST: &str = "best";

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
    /// How the validation loss went.
    #[serde(default)]
    pub(crate) watch: Watch,
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
    /// SHA-256 of the earlier run's weights that the run starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    owner: Owner,
    state: State,
    trainable: Digest,
    moments: Digest,
    /// Of what pairs are held against, where they are learnt and it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<Digest>,
}

impl State {
    pub(crate) fn start() -> Self {
        let watch = Watch::default();
        Self { step: 0, tokens: 0, first_loss: 0.0, last: (0.0, 0), watch, reports: Vec::new() }
    }

    /// Counts a step in; its loss counts for the end where it is one of the last tenth of `steps`.
    pub(crate) fn count(&mut self, sum: LossSum, tokens: u64, steps: u64) {
        if self.step == 0 {
            self.first_loss = sum.nats / sum.tokens as f64;
        }
        if self.step >= steps - (steps / 10).max(1) {
            self.last = (self.last.0 + sum.nats, self.last.1 + sum.tokens);
        }
        self.step += 1;
        self.tokens += tokens;
    }

    /// Mean loss over the last tenth of the `steps`, or of those that were done where it ended before.
    pub(crate) fn last_loss(&self, steps: u64) -> f64 {
        if self.step == steps {
            return self.last.0 / self.last.1 as f64;
        }
        let from = self.step - (self.step / 10).max(1).min(self.step);
        let done = self.reports.iter().filter_map(|report| match report {
            Progress::Step { step, loss, tokens, pairs, .. } if *step > from => {
                let counted = pairs.map_or(*tokens, |pairs| pairs.pairs);
                Some((loss * counted as f64, counted))
            }
            _ => None,
        });
        let (nats, tokens) = done.fold((0.0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if tokens == 0 { self.first_loss } else { nats / tokens as f64 }
    }
}

/// Where a run's checkpoints lie, and whose they are.
#[derive(Clone, Copy)]
pub(crate) struct Checkpoints<'a> {
    pub(crate) job: &'a TrainJob,
    pub(crate) owner: Owner,
}

impl Checkpoints<'_> {
    fn folder(&self) -> PathBuf {
        Path::new(&self.job.output).join(RunPart::Checkpoint.word())
    }

    /// The files in a folder, as the job has them sealed.
    fn files(&self, path: &Path) -> Folder {
        Folder::of_run(path, &self.job.run, RunPart::Checkpoint, self.job.key.as_ref())
    }

    /// Writes a folder whole or not at all. What cannot be finished gives its room back.
    fn write<T>(
        &self,
        parent: &Path,
        step: u64,
        fill: impl FnOnce(&Folder) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let unfinished = parent.join(UNFINISHED);
        files::fresh_folder(&unfinished)?;
        let written = fill(&self.files(&unfinished));
        let published = written
            .and_then(|found| files::publish(&unfinished, &parent.join(step.to_string())).map(|()| found));
        if published.is_err() {
            // The reason is told; that the remains could not be removed either adds nothing to it.
            drop(files::remove(&unfinished));
        }
        published
    }

    /// Writes a checkpoint, and then removes what no checkpoint names any more: the first rank, of what all of them have.
    pub(crate) fn save(
        &self,
        exchange: &mut dyn Exchange,
        state: &State,
        model: &Model,
        moments: &Moments,
        reference: Option<&Reference>,
    ) -> Result<(), TrainError> {
        ranks::check_alike(exchange, state.step, || ranks::of_trained(model))?;
        if exchange.rank() > 0 {
            return Ok(());
        }
        let folder = self.folder();
        self.write(&folder, state.step, |into| {
            let trainable = into.write(TRAINABLE, |file| model.trainable().write(file))?;
            let moments = into.write(MOMENTS, |file| moments.write(file))?;
            let put =
                |reference: &Reference| into.write(REFERENCE, |file| file.write_all(&reference.bytes()));
            let reference = reference.map(put).transpose()?;
            let state = state.clone();
            let saved = Saved { format: FORMAT, owner: self.owner, state, trainable, moments, reference };
            into.write(STATE, |file| file.write_all(&serde_json::to_vec(&saved)?))?;
            Ok(())
        })?;
        for (step, path) in list(&folder)? {
            if step != state.step {
                files::remove(&path)?;
            }
        }
        for (step, path) in list(&folder.join(BEST))? {
            if !state.watch.kept.iter().any(|kept| kept.step == step) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    /// A checkpoint that lacks what the pairs of its steps were held against.
    pub(crate) fn lacking(&self, step: u64) -> TrainError {
        changed(&self.folder().join(step.to_string()))
    }

    /// Keeps what training changes for the end. Returns the SHA-256 of its file.
    pub(crate) fn keep(&self, step: u64, model: &Model) -> Result<Digest, TrainError> {
        self.write(&self.folder().join(BEST), step, |into| {
            Ok(into.write(TRAINABLE, |file| model.trainable().write(file))?)
        })
    }

    /// Restores what was kept.
    pub(crate) fn take(&self, kept: &Kept, trainable: &mut Parameters) -> Result<(), TrainError> {
        let path = self.folder().join(BEST).join(kept.step.to_string());
        let bytes = self.files(&path).read(TRAINABLE)?;
        if Digest::of(&bytes) != kept.weights {
            return Err(changed(&path));
        }
        Ok(trainable.restore(&bytes)?)
    }

    /// Restores the newest checkpoint, if there is one. Where it is refused, the model may be half restored.
    pub(crate) fn restore(
        &self,
        model: &mut Model,
        moments: &mut Moments,
    ) -> Result<Option<(State, Option<Reference>)>, TrainError> {
        let Some((step, path)) = list(&self.folder())?.into_iter().max() else { return Ok(None) };
        let refused = |reason: &str| refused(&path, reason);
        let (from, owner) = (self.files(&path), self.owner);
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
        if saved.owner.start != owner.start {
            return Err(refused("it was made on another start"));
        }
        if saved.owner.corpus != owner.corpus {
            return Err(refused("it was made on other data or by another tokenizer"));
        }
        if saved.state.step != step {
            return Err(changed(&path));
        }
        // One after the other, so that only one of them lies in memory twice.
        let read = |name: &str, digest: Digest| -> Result<Vec<u8>, TrainError> {
            let bytes = from.read(name)?;
            if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(changed(&path)) }
        };
        model.trainable_mut().restore(&read(TRAINABLE, saved.trainable)?)?;
        moments.restore(&read(MOMENTS, saved.moments)?)?;
        let reference = saved
            .reference
            .map(|digest| Reference::of_bytes(&read(REFERENCE, digest)?).ok_or_else(|| changed(&path)));
        Ok(Some((saved.state, reference.transpose()?)))
    }
}

fn refused(path: &Path, reason: &str) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), reason: reason.to_owned() }
}

fn changed(path: &Path) -> TrainError {
    refused(path, "its files were changed since they were written")
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
