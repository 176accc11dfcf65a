use std::path::Path;

use moat_contracts::{Digest, EvaluateJob, Frozen};
use moat_template::BaseText;
use moat_tensor::{Batch, Folder, Lora, Model, TensorError, Weights, token_losses};

use crate::EvaluateError;

/// A base and what was tuned from it. An adapter shares the base's weights, unless it was trained on rounded ones.
pub(crate) struct Pair {
    base: Model,
    tuned: Tuned,
}

enum Tuned {
    Adapter(Option<Lora>),
    Full(Box<Model>),
}

impl Pair {
    /// Loads both; `text` is the base's text side.
    pub(crate) fn load(job: &EvaluateJob, text: &BaseText) -> Result<Self, EvaluateError> {
        let (base, tuned) = (Path::new(&job.base), Path::new(&job.tuned));
        let base = Model { weights: Weights::load(base)?, adapter: None };
        let architecture = base.weights.architecture();
        let folder = match Folder::tuned(tuned, &job.run, job.key.as_ref()) {
            moat_tensor::Tuned::Adapter(folder) => {
                let adapter = Lora::load_from(architecture, &folder)?;
                let frozen = folder.frozen()?;
                if frozen != Frozen::F32 {
                    // Measured on what it was trained on, and against the base as released: a rounded one would flatter it.
                    let weights = Weights::load_frozen(&Folder::plain(Path::new(&job.base)), frozen)?;
                    let tuned = Model { weights, adapter: Some(adapter) };
                    return Ok(Self { base, tuned: Tuned::Full(Box::new(tuned)) });
                }
                return Ok(Self { base, tuned: Tuned::Adapter(Some(adapter)) });
            }
            moat_tensor::Tuned::Model(folder) => folder,
        };
        let full = Model { weights: Weights::load_from(&folder)?, adapter: None };
        let tokenizer = "tokenizer.json";
        let same_tokenizer = !folder.has(tokenizer) || Digest::of(&folder.read(tokenizer)?) == text.hash();
        if !same_tokenizer || full.weights.architecture().vocabulary != architecture.vocabulary {
            return Err(EvaluateError::Strangers(tuned.to_owned()));
        }
        Ok(Self { base, tuned: Tuned::Full(Box::new(full)) })
    }

    /// Positions that both have.
    pub(crate) fn positions(&self) -> usize {
        let base = self.base.weights.architecture().max_position;
        match &self.tuned {
            Tuned::Adapter(_) => base,
            Tuned::Full(full) => base.min(full.weights.architecture().max_position),
        }
    }

    /// Losses of every position under the base and under the tuned model, nats.
    pub(crate) fn losses(&mut self, batch: &Batch) -> Result<[Vec<f32>; 2], TensorError> {
        let base = token_losses(&self.base, batch)?;
        let tuned = match &mut self.tuned {
            Tuned::Full(full) => token_losses(full, batch)?,
            Tuned::Adapter(adapter) => {
                self.base.adapter = adapter.take();
                let losses = token_losses(&self.base, batch);
                *adapter = self.base.adapter.take();
                losses?
            }
        };
        Ok([base, tuned])
    }
}
