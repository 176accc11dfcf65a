use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moat_contracts::{Objective, OptimizerState, Progress, TrainJob, TrainOutcome};
use moat_tensor::{Gradients, Model, Moments};

use crate::checkpoint::{Checkpoints, Owner, State};
#[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
use crate::gpu::{self, Gpu};
use crate::pairs::Reference;
use crate::step::Stepped;
#[cfg(not(any(feature = "cuda", feature = "cuda-on-cpu")))]
use crate::step::{Learner, take_pair_step, take_step};
use crate::survey::survey;
use crate::usage::{peak_memory, processor_seconds};
use crate::validation::Validation;
use crate::{Corpus, Plan, TrainError, learning_rate, output, plan_memory, proofs};

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
/// Before the first step it tells what it trains on and takes of memory, and proves itself; it refuses where a proof does not
/// hold or memory does not suffice. A step normalises by the trained tokens of all its micro-batches, clips the gradient's norm as torch does, and
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
    output::check_length(recipe, &architecture)?;
    let mut plan = Plan::new(corpus, &recipe.train, recipe.seed);
    let pairs = recipe.train.objective == Objective::Dpo;
    if pairs && plan.rows() == 0 {
        return Err(TrainError::Long { pairs: corpus.examples(), limit: recipe.train.sequence_length });
    }
    let steps = plan.steps();
    let threads = rayon::current_num_threads();
    let memory = plan_memory(&architecture, corpus, recipe, threads, job.memory)?;
    let recompute = memory.recompute;
    progress(Progress::Surveyed { survey: survey(corpus, &plan, recipe.train.sequence_length), memory });
    progress(Progress::Preparing { doing: "loading the base".to_owned() });
    let mut model = output::model(job)?;
    let mut validation = Validation::new(corpus, recipe)?;
    let start = job.start.as_ref().map(|start| start.weights);
    let owner = Owner { recipe: recipe.hash(), corpus: corpus.fingerprint(), base: config, start };
    let checkpoints = Checkpoints { job, owner };
    let mut moments = match recipe.optimizer.state {
        OptimizerState::Exact => Moments::new(&model),
        OptimizerState::EightBit => Moments::quantized(&model),
    };
    let restored = checkpoints.restore(&mut model, &mut moments)?;
    let mut saved = restored.as_ref().map(|(state, _)| state.step);
    let (mut state, mut reference) = restored.unwrap_or_else(|| (State::start(), None));
    if state.step == 0 && !stop.load(Ordering::Relaxed) {
        progress(Progress::Preparing { doing: "proving the run".to_owned() });
        let mut proofs = proofs::of_data(corpus);
        if proofs::hold(&proofs).is_ok() {
            proofs.extend(proofs::of_model(&mut model, recipe, corpus, &mut plan, recompute)?);
        }
        proofs.sort_by_key(|proof| proof.claim);
        progress(Progress::Proven { proofs: proofs.clone() });
        proofs::hold(&proofs)?;
    }
    #[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
    let mut gpu = {
        gpu::known(recipe)?;
        progress(Progress::Preparing { doing: "placing the run on the GPU".to_owned() });
        Gpu::open(
            &model,
            &moments,
            recipe,
            &plan.micro_batches(corpus, state.step.min(steps.saturating_sub(1))),
        )?
    };
    #[cfg_attr(
        any(feature = "cuda", feature = "cuda-on-cpu"),
        allow(unused_mut, reason = "the GPU has its own")
    )]
    let mut gradients = Gradients::new(&model);
    if pairs && reference.is_none() {
        if state.step > 0 {
            return Err(checkpoints.lacking(state.step));
        }
        progress(Progress::Preparing {
            doing: format!("measuring {} preferences before training", corpus.examples()),
        });
        reference = Reference::measure(&model, corpus, &mut plan, &mut gradients, stop)?;
        if let (Some(reference), Some(validation)) = (&mut reference, &validation) {
            match validation.sums(&model, stop)? {
                Some(sums) => reference.validation = sums,
                None => return stopped_at_start(&checkpoints, &state, &model, &moments, saved, progress),
            }
        }
        if reference.is_none() {
            return stopped_at_start(&checkpoints, &state, &model, &moments, saved, progress);
        }
    }
    if let (Some(reference), Some(validation)) = (&reference, &mut validation) {
        validation.refer(&reference.validation);
    }
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
        let (began, worked) = (Instant::now(), processor_seconds());
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
            checkpoints.save(&state, &model, &moments, reference.as_ref())?;
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
        let step = state.step + 1;
        let rate = learning_rate(&recipe.optimizer, state.step, steps);
        #[cfg(not(any(feature = "cuda", feature = "cuda-on-cpu")))]
        let mut learner = Learner { model: &mut model, gradients: &mut gradients, moments: &mut moments };
        #[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
        let taken = {
            let batches = plan.micro_batches(corpus, state.step);
            let taken = gpu.take_step(&batches, recipe, (step, rate), stop)?;
            // Only what is kept or measured next is read back.
            let kept = step == steps || step.is_multiple_of(recipe.train.checkpoint_every);
            let measured = validation.as_ref().is_some_and(|one| one.is_due(&state.watch, step, steps));
            if taken.is_none() || kept || measured {
                gpu.read_back(&mut model, &mut moments)?;
            }
            taken
        };
        #[cfg(not(any(feature = "cuda", feature = "cuda-on-cpu")))]
        let taken = match &reference {
            Some(reference) => {
                let batches = reference.with(plan.pair_batches(corpus, state.step));
                take_pair_step(&mut learner, &batches, recipe, (step, rate), recompute, stop)?
            }
            None => {
                let batches = plan.micro_batches(corpus, state.step);
                take_step(&mut learner, &batches, recipe, (step, rate), recompute, stop)?
            }
        };
        let Some(Stepped { sum, tokens, pairs, gradient_norm }) = taken else {
            if saved != Some(state.step) {
                checkpoints.save(&state, &model, &moments, reference.as_ref())?;
                progress(Progress::Checkpoint { step: state.step });
            }
            return Ok(Ended::Stopped);
        };
        state.count(sum, tokens, steps);
        let seconds = began.elapsed().as_secs_f64();
        let report = Progress::Step {
            step,
            steps,
            loss: sum.nats / sum.tokens as f64,
            gradient_norm,
            learning_rate: rate,
            tokens,
            tokens_per_second: tokens as f64 / seconds,
            memory: peak_memory(),
            seconds_left: pace.0.elapsed().as_secs_f64() / (step - pace.1) as f64 * (steps - step) as f64,
            cores: (processor_seconds() - worked) / seconds,
            pairs,
        };
        state.reports.push(report.clone());
        progress(report);
    };
    // What only training needs makes room for what is compared now.
    drop((gradients, moments));
    let proofs = proofs::of_result(&mut model, corpus, &mut plan)?;
    if !proofs.is_empty() {
        progress(Progress::Proven { proofs: proofs.clone() });
        proofs::hold(&proofs)?;
    }
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

/// How a run ends that is stopped before it knows what its pairs are held against: the next one measures that again.
fn stopped_at_start(
    checkpoints: &Checkpoints<'_>,
    state: &State,
    model: &Model,
    moments: &Moments,
    saved: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, TrainError> {
    if saved.is_none() {
        checkpoints.save(state, model, moments, None)?;
        progress(Progress::Checkpoint { step: state.step });
    }
    Ok(Ended::Stopped)
}
