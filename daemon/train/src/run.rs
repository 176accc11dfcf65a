use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moat_contracts::{OptimizerState, Progress, TrainJob, TrainOutcome};
use moat_tensor::{
    AdamW, Batch, Gradients, LossSum, Model, Moments, adamw_tuned, forward_backward, token_losses,
};
use nix::sys::resource::{UsageWho, getrusage};

use crate::checkpoint::{Checkpoints, Owner, State};
use crate::tuning::tuning;
use crate::validation::Validation;
use crate::{Corpus, Plan, TrainError, learning_rate, output};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// All steps are done and the weights are on disk.
    Trained(TrainOutcome),
    /// It was asked to stop; a checkpoint holds every step done.
    Stopped,
}

/// Trains on `corpus`, from the newest checkpoint in the job's folder if there is one, and writes `adapter/` (LoRA)
/// or `model/` (full; in the type the base is stored in). With a key, no file of these is ever plain.
///
/// A step normalises by the trained tokens of all its micro-batches, clips the gradient's norm as torch does, and
/// takes one AdamW step. A checkpoint is written every `checkpoint_every` steps, when `stop` becomes true (a step
/// that is under way is dropped, not half taken), and after the last step, so that a run whose answer got lost need
/// not train again. Where the corpus has a validation side, its loss is measured meanwhile, and may end the training or
/// choose the weights that it ends with. The same job and corpus give the same bytes however often a run is interrupted.
/// Runs on the caller's rayon pool.
///
/// # Errors
/// [`TrainError`] says what cannot be read, written, resumed or trained; checkpoints written before stay.
pub fn train(
    job: &TrainJob,
    corpus: &Corpus,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, TrainError> {
    let recipe = &job.recipe;
    let base = Path::new(&job.base);
    let (architecture, config) = output::architecture(base)?;
    if recipe.train.sequence_length > architecture.max_position {
        return Err(TrainError::Length {
            asked: recipe.train.sequence_length,
            limit: architecture.max_position,
        });
    }
    progress(Progress::Preparing { doing: "loading the base".to_owned() });
    let mut model = output::model(job)?;
    let mut plan = Plan::new(corpus, &recipe.train, recipe.seed);
    let steps = plan.steps();
    let validation = Validation::new(corpus, recipe)?;
    let start = job.start.as_ref().map(|start| start.weights);
    let owner = Owner { recipe: recipe.hash(), corpus: corpus.fingerprint(), base: config, start };
    let checkpoints = Checkpoints { job, owner };
    let mut gradients = Gradients::new(&model);
    let mut moments = match recipe.optimizer.state {
        OptimizerState::Exact => Moments::new(&model),
        OptimizerState::EightBit => Moments::quantized(&model),
    };
    let restored = checkpoints.restore(&mut model, &mut moments)?;
    let mut saved = restored.as_ref().map(|state| state.step);
    let mut state = restored.unwrap_or_else(State::start);
    let trainable = model.trainable().count();
    let adapted = model.adapter.as_ref().map_or(0, |adapter| adapter.parameters().count());
    progress(Progress::Training {
        from: state.step,
        steps,
        trainable,
        parameters: architecture.parameters() + adapted,
    });
    for report in &state.reports {
        progress(report.clone());
    }
    let pace = (Instant::now(), state.step);
    let outcome = loop {
        let began = Instant::now();
        let mut stopped = false;
        if let Some(validation) =
            validation.as_ref().filter(|one| one.is_due(&state.watch, state.step, steps))
        {
            match validation.look(&mut state.watch, state.step, &model, &checkpoints, stop)? {
                Some(report) => {
                    state.reports.push(report.clone());
                    progress(report);
                }
                None => stopped = true,
            }
        }
        let over = state.step == steps || validation.as_ref().is_some_and(|one| one.ends(&state.watch));
        let due = over || (state.step > 0 && state.step.is_multiple_of(recipe.train.checkpoint_every));
        if (due || stopped) && saved != Some(state.step) {
            checkpoints.save(&state, &model, &moments)?;
            saved = Some(state.step);
            progress(Progress::Checkpoint { step: state.step });
        }
        if stopped {
            return Ok(Ended::Stopped);
        }
        if over {
            let Some(validation) = &validation else { break None };
            match validation.choose(&state.watch, steps, &mut model, &checkpoints, stop)? {
                Some(outcome) => break Some(outcome),
                None => return Ok(Ended::Stopped),
            }
        }
        let batches = plan.micro_batches(corpus, state.step);
        if state.step == 0 {
            prove(&model, &batches[0], recipe.train.recompute, &mut gradients)?;
        }
        let step = state.step + 1;
        let sum = gradient(&model, &batches, recipe.train.recompute, stop, &mut gradients)?;
        let Some(sum) = sum else {
            if saved != Some(state.step) {
                checkpoints.save(&state, &model, &moments)?;
                progress(Progress::Checkpoint { step: state.step });
            }
            return Ok(Ended::Stopped);
        };
        if !sum.nats.is_finite() {
            return Err(TrainError::Diverged { what: "the loss", step });
        }
        let norm = gradients.norm();
        if !norm.is_finite() {
            return Err(TrainError::Diverged { what: "the gradient", step });
        }
        // As torch.nn.utils.clip_grad_norm_.
        let clip = recipe.optimizer.clip / (norm + 1e-6);
        if recipe.optimizer.clip > 0.0 && clip < 1.0 {
            gradients.scale(clip);
        }
        let rate = learning_rate(&recipe.optimizer, state.step, steps);
        let settings = AdamW {
            learning_rate: rate,
            beta1: recipe.optimizer.beta1,
            beta2: recipe.optimizer.beta2,
            epsilon: recipe.optimizer.epsilon,
            weight_decay: recipe.optimizer.weight_decay,
        };
        let tuning = |parameter: &_| tuning(recipe, parameter);
        adamw_tuned(&mut model, &gradients, &mut moments, settings, tuning)?;
        gradients.zero();
        state.count(sum, steps);
        let report = Progress::Step {
            step,
            steps,
            loss: sum.nats / sum.tokens as f64,
            gradient_norm: norm,
            learning_rate: rate,
            tokens: sum.tokens,
            tokens_per_second: sum.tokens as f64 / began.elapsed().as_secs_f64(),
            memory: peak_memory(),
            seconds_left: pace.0.elapsed().as_secs_f64() / (step - pace.1) as f64 * (steps - step) as f64,
        };
        state.reports.push(report.clone());
        progress(report);
    };
    let weights = output::write_result(job, &model)?;
    Ok(Ended::Trained(TrainOutcome {
        steps: state.step,
        tokens: state.tokens,
        first_loss: state.first_loss,
        last_loss: state.last_loss(steps),
        weights,
        peak_memory: peak_memory(),
        validation: outcome,
    }))
}

/// Adds up the gradient of the mean over the trained tokens of all `batches`; `None` if it was stopped before the end.
fn gradient(
    model: &Model,
    batches: &[Batch],
    recompute: bool,
    stop: &AtomicBool,
    gradients: &mut Gradients,
) -> Result<Option<LossSum>, TrainError> {
    let tokens: u64 = batches.iter().map(Batch::trained).sum();
    let scale = (1.0 / tokens as f64) as f32;
    let mut sum = LossSum::default();
    for batch in batches {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let part = forward_backward(model, batch, scale, recompute, gradients)?;
        sum = LossSum { nats: sum.nats + part.nats, tokens: sum.tokens + part.tokens };
    }
    Ok(Some(sum))
}

/// Shows on the first micro-batch, before anything changes, that the loss trained on is the one that is measured
/// afterwards, that every trained token is counted, and that a gradient arrives in every tensor it must reach.
fn prove(model: &Model, batch: &Batch, recompute: bool, gradients: &mut Gradients) -> Result<(), TrainError> {
    let measured: f64 = token_losses(model, batch)?.iter().map(|loss| f64::from(*loss)).sum();
    let trained =
        forward_backward(model, batch, (1.0 / batch.trained() as f64) as f32, recompute, gradients)?;
    if trained.tokens != batch.trained() {
        return Err(TrainError::Proof(format!(
            "{} tokens are to be trained, but the loss counts {}",
            batch.trained(),
            trained.tokens
        )));
    }
    if !trained.nats.is_finite() || (trained.nats - measured).abs() > 1e-3 * measured.abs().max(1.0) {
        return Err(TrainError::Proof(format!(
            "its first loss is {:.6} nats a token, but the same text measures {:.6}",
            trained.nats / trained.tokens as f64,
            measured / trained.tokens as f64
        )));
    }
    // With one key a query has no choice, so that nothing can be learnt about choosing.
    let chooses = batch.segments.windows(2).any(|pair| pair[1] - pair[0] > 1);
    let silent = gradients.named().list().iter().find(|tensor| {
        let name = tensor.name.as_str();
        // B starts at zero and A's gradient goes through B: A's is zero in the first step.
        let exempt = name.contains("lora_A") || (!chooses && CHOOSING.iter().any(|part| name.contains(part)));
        !exempt && tensor.values.iter().all(|value| *value == 0.0)
    });
    if let Some(tensor) = silent {
        return Err(TrainError::Proof(format!("no gradient reaches {}", tensor.name)));
    }
    gradients.zero();
    Ok(())
}

/// Parts of the names of the tensors that make queries and keys; one that makes values too is not among them.
const CHOOSING: [&str; 4] = ["q_proj", "k_proj", "q_norm", "k_norm"];

/// Peak resident memory of this process in bytes, as Linux counts it (getrusage(2)); 0 where it does not tell. A file of
/// `/proc` would not do: a confined engine may not read it.
pub fn peak_memory() -> u64 {
    let kib = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    u64::try_from(kib).unwrap_or(0) * 1024
}
