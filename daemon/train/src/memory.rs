//! What a run takes of memory, told before its first step.

use moat_contracts::{
    Architecture, LoraRecipe, MemoryPart, MemoryPlan, MemoryUse, Method, OptimizerState, Recipe, Recompute,
};
use moat_tensor::{Footprint, LoraShape, Outline};

use crate::{Corpus, Plan, TrainError};

/// Bytes of a number.
const NUMBER: u64 = 4;

/// Bytes of the program, its libraries and what the tokenizer leaves. A constant: what the system tells of a process began
/// with whoever started it.
const PROCESS: u64 = 18 << 20;

/// Bytes that the libraries' own buffers take on each thread: what a matrix product packs into, and stacks.
const THREAD: u64 = 3 << 20;

/// Micro-batches whose shapes are looked at: packed rows are alike.
const LOOKED_AT: u64 = 256;

/// Gives memory that was freed back to the system: what one thread freed, glibc would not give to another.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code)]
        // SAFETY: malloc_trim(3) takes a size, returns an int, and may be called from any thread at any time.
        unsafe {
            unsafe extern "C" {
                fn malloc_trim(pad: usize) -> i32;
            }
            malloc_trim(0);
        }
    }
}

/// Plans a run's memory on so many threads: with recomputation as the recipe asks, or where it leaves it to the plan, where
/// it does not fit without.
///
/// # Errors
/// [`TrainError::Memory`] where it does not fit, with what to change; a target that the base does not have.
pub fn plan_memory(
    architecture: &Architecture,
    corpus: &Corpus,
    recipe: &Recipe,
    threads: usize,
    available: u64,
) -> Result<MemoryPlan, TrainError> {
    let plan = draft_memory(architecture, corpus, recipe, threads, available)?;
    if plan.fits() {
        return Ok(plan);
    }
    let mut changes = Vec::new();
    if !plan.recompute {
        changes.push("set train.recompute");
    }
    if recipe.train.micro_batch > 1 {
        changes.push("lower train.micro_batch and raise train.accumulate");
    }
    if recipe.train.sequence_length > 128 {
        changes.push("lower train.sequence_length");
    }
    if recipe.train.method == Method::Full {
        changes.push("set train.method = \"lora\", or optimizer.state = \"8bit\"");
    }
    changes.push("take a smaller base");
    Err(TrainError::Memory { needed: plan.total(), available, changes: changes.join(", or ") })
}

/// The plan, whether it fits or not.
pub(crate) fn draft_memory(
    architecture: &Architecture,
    corpus: &Corpus,
    recipe: &Recipe,
    threads: usize,
    available: u64,
) -> Result<MemoryPlan, TrainError> {
    let LoraRecipe { rank, alpha, rank_stabilized, ref targets, .. } = recipe.lora;
    let shape = LoraShape { rank, alpha, rank_stabilized, targets };
    let outline = Outline::new(architecture, recipe.train.method, shape)?;
    let with = |recompute| part_by_part(&outline, corpus, recipe, threads.max(1), available, recompute);
    Ok(match recipe.train.recompute {
        Recompute::No => with(false),
        Recompute::Yes => with(true),
        Recompute::Auto => {
            let without = with(false);
            if without.fits() { without } else { with(true) }
        }
    })
}

fn part_by_part(
    outline: &Outline<'_>,
    corpus: &Corpus,
    recipe: &Recipe,
    threads: usize,
    available: u64,
    recompute: bool,
) -> MemoryPlan {
    let trainable = outline.trainable();
    let frozen = match recipe.train.method {
        Method::Lora => outline.weights(),
        Method::Full => 0,
    };
    let moments = match recipe.optimizer.state {
        OptimizerState::Exact => 2 * NUMBER * trainable,
        // A byte a number, and a scale for 256 of them.
        OptimizerState::EightBit => 2 * (trainable + NUMBER * trainable.div_ceil(256)),
    };
    let Work { workers, parts, whole, longest } = Work::of(outline, corpus, recipe, threads);
    let mut buffers = Footprint::default();
    let mut add = |times: usize, one: Footprint| {
        buffers.activations += times as u64 * one.activations;
        buffers.logits += times as u64 * one.logits;
        buffers.workspace += times as u64 * one.workspace;
    };
    if workers > 0 {
        add(workers, outline.of_learning(parts, longest, recompute, threads / workers));
    }
    if whole > 0 {
        add(1, outline.of_learning(whole, longest, recompute, threads));
    }
    if recipe.split.validation > 0.0 {
        let answers = if corpus.is_pairs() { 2 } else { 1 };
        let rows = answers * recipe.train.micro_batch * recipe.train.sequence_length;
        add(1, outline.of_measuring(rows, recipe.train.sequence_length, threads));
    }
    let parts = [
        (MemoryUse::Process, PROCESS + threads as u64 * THREAD),
        // A pair's sums under the reference lie beside its tokens.
        (
            MemoryUse::Corpus,
            corpus.bytes() + if corpus.is_pairs() { 16 * corpus.examples() as u64 } else { 0 },
        ),
        (MemoryUse::Frozen, NUMBER * frozen),
        (MemoryUse::Trained, NUMBER * trainable),
        (MemoryUse::Gradients, NUMBER * trainable * (1 + workers as u64)),
        (MemoryUse::Moments, moments),
        (MemoryUse::Activations, NUMBER * buffers.activations),
        (MemoryUse::Workspace, NUMBER * buffers.workspace),
        (MemoryUse::Logits, NUMBER * buffers.logits),
    ];
    let parts = parts.into_iter().map(|(used, bytes)| MemoryPart { used, bytes }).collect();
    MemoryPlan { parts, available, recompute }
}

/// Who computes at once, and on how many rows at most.
#[derive(Default)]
struct Work {
    /// Workers that compute a part each.
    workers: usize,
    /// Rows of the largest part.
    parts: usize,
    /// Rows of the largest batch that is computed whole; 0 where each is divided.
    whole: usize,
    /// Tokens of the longest segment.
    longest: usize,
}

impl Work {
    fn of(outline: &Outline<'_>, corpus: &Corpus, recipe: &Recipe, threads: usize) -> Self {
        let mut plan = Plan::new(corpus, &recipe.train, recipe.seed);
        let mut work = Self::default();
        let micro_batches = recipe.train.accumulate as u64;
        let steps = plan.steps().min(LOOKED_AT.div_ceil(micro_batches));
        for step in 0..steps {
            for batch in plan.micro_batches(corpus, step) {
                let lengths: Vec<usize> = batch.segments.windows(2).map(|pair| pair[1] - pair[0]).collect();
                let together = |group: &[usize]| group.iter().sum();
                let group = if corpus.is_pairs() { 2 } else { 1 };
                let parts = outline.parts(&lengths.chunks(group).map(together).collect::<Vec<usize>>());
                let largest = parts.iter().copied().max().unwrap_or(0);
                work.longest = work.longest.max(lengths.into_iter().max().unwrap_or(0));
                if parts.len() > 1 {
                    work.workers = work.workers.max(threads.min(parts.len()));
                    work.parts = work.parts.max(largest);
                } else {
                    work.whole = work.whole.max(largest);
                }
            }
        }
        work
    }
}
