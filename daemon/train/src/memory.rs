//! What a run takes of memory, told before its first step.

use moat_contracts::{
    Architecture, Frozen, LoraRecipe, MemoryPart, MemoryPlan, MemoryUse, Method, OptimizerState, Recipe,
    Recompute,
};
use moat_tensor::{Footprint, LoraShape, Outline};

use crate::{Corpus, Plan, TrainError};

/// Bytes of a number.
const NUMBER: u64 = 4;

/// Bytes of the program, its libraries and what the tokenizer leaves. A constant: what the system tells of a process began
/// with whoever started it.
const PROCESS: u64 = 16 << 20;

/// Bytes that the libraries' own buffers take on each thread: what a matrix product packs into, and stacks.
const THREAD: u64 = 3 << 20;

/// Micro-batches whose shapes are looked at: packed rows are alike.
const LOOKED_AT: u64 = 256;

/// Bytes from which a buffer is a mapping of its own, which goes back to the system when it is freed. A step's large buffers
/// are kept and taken again, so that the clearing of fresh pages costs little, and memory is what the plan counts: what lies in
/// glibc's arenas would depend on which thread freed what.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 << 10;

/// Tells glibc to give large buffers a mapping each and to keep small ones. To be called before there is a second thread.
pub fn settle_allocator() {
    #[cfg(target_env = "gnu")]
    {
        // malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) takes two ints, returns one, and is called before there is a second thread.
        unsafe {
            unsafe extern "C" {
                fn mallopt(parameter: i32, value: i32) -> i32;
            }
            mallopt(MMAP_THRESHOLD, LARGE);
            mallopt(TRIM_THRESHOLD, i32::MAX);
        }
    }
}

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

/// Plans a run's memory in so many processes, each on so many threads: with recomputation as the recipe asks, or where it
/// leaves it to the plan, where it does not fit without.
///
/// # Errors
/// [`TrainError::Memory`] where it does not fit, with what to change; a target that the base does not have.
pub fn plan_memory(
    architecture: &Architecture,
    corpus: &Corpus,
    recipe: &Recipe,
    (processes, threads): (usize, usize),
    available: u64,
) -> Result<MemoryPlan, TrainError> {
    let plan = draft_memory(architecture, corpus, recipe, (processes, threads), available)?;
    if plan.fits() {
        return Ok(plan);
    }
    let mut changes = Vec::new();
    if processes > 1 {
        changes.push("lower training.processes in moat.toml");
    }
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
    } else if recipe.train.frozen != Frozen::Nf4 {
        changes.push("set train.frozen = \"nf4\", or \"int8\"");
    }
    changes.push("take a smaller base");
    Err(TrainError::Memory { needed: plan.total(), available, changes: changes.join(", or ") })
}

/// The plan, whether it fits or not.
pub(crate) fn draft_memory(
    architecture: &Architecture,
    corpus: &Corpus,
    recipe: &Recipe,
    (processes, threads): (usize, usize),
    available: u64,
) -> Result<MemoryPlan, TrainError> {
    let LoraRecipe { rank, alpha, rank_stabilized, decomposed, ref targets, .. } = recipe.lora;
    let shape = LoraShape { rank, alpha, rank_stabilized, decomposed, targets };
    let outline = Outline::new(architecture, &recipe.train, shape)?;
    let with =
        |recompute| part_by_part(&outline, corpus, recipe, (processes, threads.max(1)), available, recompute);
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
    (processes, threads): (usize, usize),
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
    let Work { parts, whole, longest } = Work::of(outline, corpus, recipe, threads);
    let workers = parts.len();
    let mut buffers = Footprint::default();
    let mut add = |one: Footprint| {
        buffers.activations += one.activations;
        buffers.logits += one.logits;
        buffers.workspace += one.workspace;
    };
    for rows in parts {
        add(outline.of_learning(rows, longest, recompute, threads / workers));
    }
    if whole > 0 {
        add(outline.of_learning(whole, longest, recompute, threads));
    }
    if recipe.split.validation > 0.0 {
        let answers = if corpus.is_pairs() { 2 } else { 1 };
        let rows = answers * recipe.train.micro_batch * recipe.train.sequence_length;
        add(outline.of_measuring(rows, recipe.train.sequence_length, threads));
    }
    let parts = [
        (MemoryUse::Process, PROCESS + threads as u64 * THREAD),
        // A pair's sums under the reference lie beside its tokens.
        (
            MemoryUse::Corpus,
            corpus.bytes() + if corpus.is_pairs() { 16 * corpus.examples() as u64 } else { 0 },
        ),
        (MemoryUse::Frozen, frozen),
        (MemoryUse::Trained, NUMBER * trainable),
        (MemoryUse::Gradients, NUMBER * trainable * (1 + workers as u64)),
        (MemoryUse::Moments, moments),
        (MemoryUse::Activations, NUMBER * buffers.activations),
        (MemoryUse::Workspace, NUMBER * buffers.workspace),
        (MemoryUse::Logits, NUMBER * buffers.logits),
    ];
    // Each process has all of it for itself: any of them may meet the largest micro-batch.
    let each = |(used, bytes)| MemoryPart { used, bytes: processes as u64 * bytes };
    let parts = parts.into_iter().map(each).collect();
    MemoryPlan { parts, available, recompute }
}

/// Who computes at once, and on how many rows at most.
#[derive(Default)]
struct Work {
    /// Rows of the part that each worker holds, where the largest meet.
    parts: Vec<usize>,
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
                let mut parts = outline.parts(&lengths.chunks(group).map(together).collect::<Vec<usize>>());
                work.longest = work.longest.max(lengths.into_iter().max().unwrap_or(0));
                parts.sort_unstable_by(|a, b| b.cmp(a));
                if parts.len() > 1 {
                    parts.truncate(threads);
                    // A worker's buffers grow to the largest part that it ever had.
                    work.parts.resize(work.parts.len().max(parts.len()), 0);
                    for (held, rows) in work.parts.iter_mut().zip(parts) {
                        *held = rows.max(*held);
                    }
                } else {
                    work.whole = work.whole.max(parts.iter().sum());
                }
            }
        }
        work
    }
}
