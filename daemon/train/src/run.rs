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
use crate::{Alone, Corpus, Exchange, Plan, TrainError, learning_rate, output, plan_memory, proofs, ranks};

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
    train_together(job, corpus, &mut Alone, stop, progress)
}

/// The same as one of several processes, each with the same job and corpus. A step's micro-batches and the validation sample
/// are dealt out to them, and every one takes each step by itself, on the same sums: the recipe says what a step is, and how
/// many processes computed it shows in nothing but the order in which gradients are added. As many processes give the same
/// bytes every time.
///
/// The first proves the run, writes, and tells; a stop of any of them stops all within the step. Where one ends, the others
/// end at their next exchange, so `exchange` is to be dropped as soon as this returns.
///
/// # Errors
/// As [`train`]; [`TrainError::Exchange`] where another ended; [`TrainError::Apart`] where one does not train the same.
pub fn train_together(
    job: &TrainJob,
    corpus: &Corpus,
    exchange: &mut dyn Exchange,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, TrainError> {
    let first = exchange.rank() == 0;
    let progress: &mut dyn FnMut(Progress) = if first { progress } else { &mut drop };
    let recipe = &job.recipe;
    let base = Path::new(&job.base);
    let (architecture, config) = output::architecture(base)?;
    output::check_length(recipe, &architecture)?;
    ranks::check(&recipe.train, exchange.ranks())?;
    let mut plan = Plan::new(corpus, &recipe.train, recipe.seed);
    let pairs = recipe.train.objective == Objective::Dpo;
    if pairs && plan.rows() == 0 {
        return Err(TrainError::Long { pairs: corpus.examples(), limit: recipe.train.sequence_length });
    }
    let steps = plan.steps();
    let workers = (exchange.ranks(), rayon::current_num_threads());
    let memory = plan_memory(&architecture, corpus, recipe, workers, job.memory)?;
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
    if first && state.step == 0 && !stop.load(Ordering::Relaxed) {
        progress(Progress::Preparing { doing: "proving the run".to_owned() });
        let mut proofs = proofs::of_data(corpus);
        if proofs::hold(&proofs).is_ok() {
            proofs.extend(proofs::of_model(&mut model, recipe, corpus, &mut plan, recompute)?);
        }
        proofs.sort_by_key(|proof| proof.claim);
        progress(Progress::Proven { proofs: proofs.clone() });
        proofs::hold(&proofs)?;
    }
    ranks::check_alike(exchange, state.step, || ranks::of_start(&model, &owner, state.step))?;
    #[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
    let mut gpu = {
        gpu::known(recipe)?;
        progress(Progress::Preparing { doing: "placing the run on the GPU".to_owned() });
        Gpu::open(
            &model,
            &moments,
            recipe,
            &plan.micro_batches(corpus, state.step.min(steps.saturating_sub(1))),
            exchange.rank(),
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
        reference = Reference::measure(&model, corpus, &mut plan, &mut gradients, exchange, stop)?;
        if let (Some(reference), Some(validation)) = (&mut reference, &validation) {
            match validation.sums(&model, exchange, stop)? {
                Some(sums) => reference.validation = sums,
                None => {
                    return stopped_at_start(
                        &checkpoints,
                        exchange,
                        &state,
                        (&model, &moments),
                        saved,
                        progress,
                    );
                }
            }
        }
        if reference.is_none() {
            return stopped_at_start(&checkpoints, exchange, &state, (&model, &moments), saved, progress);
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
            match validation.look(&mut state.watch, state.step, &model, &checkpoints, exchange, stop)? {
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
            checkpoints.save(exchange, &state, &model, &moments, reference.as_ref())?;
            saved = Some(state.step);
            progress(Progress::Checkpoint { step: state.step });
        }
        if stopped {
            return Ok(Ended::Stopped);
        }
        if over {
            let Some(validation) = &validation else { break None };
            match validation.choose(&state.watch, steps, &mut model, &checkpoints, exchange, stop)? {
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
            let taken = gpu.take_step(&batches, recipe, (step, rate), exchange, stop)?;
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
                take_pair_step(&mut learner, &batches, recipe, (step, rate), recompute, exchange, stop)?
            }
            None => {
                let batches = plan.micro_batches(corpus, state.step);
                take_step(&mut learner, &batches, recipe, (step, rate), recompute, exchange, stop)?
            }
        };
        let Some(Stepped { sum, tokens, pairs, gradient_norm }) = taken else {
            if saved != Some(state.step) {
                checkpoints.save(exchange, &state, &model, &moments, reference.as_ref())?;
                progress(Progress::Checkpoint { step: state.step });
            }
            return Ok(Ended::Stopped);
        };
        state.count(sum, tokens, steps);
        // Of all processes.
        let mut taken = [peak_memory() as f64, processor_seconds() - worked];
        exchange.sum_double(&mut taken)?;
        let seconds = began.elapsed().as_secs_f64();
        let report = Progress::Step {
            step,
            steps,
            loss: sum.nats / sum.tokens as f64,
            gradient_norm,
            learning_rate: rate,
            tokens,
            tokens_per_second: tokens as f64 / seconds,
            memory: taken[0] as u64,
            seconds_left: pace.0.elapsed().as_secs_f64() / (step - pace.1) as f64 * (steps - step) as f64,
            cores: taken[1] / seconds,
            pairs,
        };
        state.reports.push(report.clone());
        progress(report);
    };
    // What only training needs makes room for what is compared now.
    drop((gradients, moments));
    let written = if first {
        let proofs = proofs::of_result(&mut model, corpus, &mut plan)?;
        if !proofs.is_empty() {
            progress(Progress::Proven { proofs: proofs.clone() });
            proofs::hold(&proofs)?;
        }
        Some(output::write_result(job, &model)?)
    } else {
        None
    };
    let weights = ranks::told(exchange, written)?;
    let mut peak = [peak_memory() as f64];
    exchange.sum_double(&mut peak)?;
    Ok(Ended::Trained(TrainOutcome {
        steps: state.step,
        tokens: state.tokens,
        first_loss: state.first_loss,
        last_loss: state.last_loss(steps),
        weights,
        peak_memory: peak[0] as u64,
        validation: outcome,
    }))
}

/// How a run ends that is stopped before it knows what its pairs are held against: the next one measures that again.
fn stopped_at_start(
    checkpoints: &Checkpoints<'_>,
    exchange: &mut dyn Exchange,
    state: &State,
    (model, moments): (&Model, &Moments),
    saved: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, TrainError> {
    if saved.is_none() {
        checkpoints.save(exchange, state, model, moments, None)?;
        progress(Progress::Checkpoint { step: state.step });
    }
    Ok(Ended::Stopped)
}
