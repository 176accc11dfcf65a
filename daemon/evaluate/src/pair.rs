use std::fs;
use std::path::Path;

use moat_contracts::{Digest, EvaluateJob};
use moat_template::BaseText;
use moat_tensor::{Batch, Lora, Model, TensorError, Weights, token_losses};

use crate::EvaluateError;

/// A base and what was tuned from it. An adapter shares the base's weights.
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
        if tuned.join("adapter_config.json").exists() {
            let adapter = Lora::load(architecture, tuned)?;
            return Ok(Self { base, tuned: Tuned::Adapter(Some(adapter)) });
        }
        let full = Model { weights: Weights::load(tuned)?, adapter: None };
        let tokenizer = tuned.join("tokenizer.json");
        let same_tokenizer = match fs::read(&tokenizer) {
            Ok(bytes) => Digest::of(&bytes) == text.hash(),
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(TensorError::Io { path: tokenizer, what: "read", source }.into());
            }
            Err(_) => true,
        };
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
