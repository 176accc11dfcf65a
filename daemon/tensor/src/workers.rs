//! One batch on several cores: each takes a part of its own through the whole model, since a product that is divided
//! among cores waits at every end, and a part at a time is all that has to lie in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPoolBuilder;

use crate::pass::{Aim, Learnt, learn};
use crate::workspace::Workspace;
use crate::{Batch, Float, Gradients, LossSum, Model, Parameters, TensorError};

/// Tokens from which segments are a part: products of so many rows keep one core busy.
const PART: usize = 512;

/// Numbers of a gradient of which each core may have a copy.
const COPIED: u64 = 64 << 20;

/// What one core computes with.
#[derive(Debug)]
pub(crate) struct Worker<F: Float> {
    gradients: Parameters<F>,
    workspace: Workspace<F>,
}

/// A batch's parts, where its gradient is to be computed part by part. They depend on the shapes alone, and so does the
/// order in which they are added up: the gradient is the same on any number of cores. `group` neighbouring segments stay in
/// one part.
pub(crate) fn parts<F: Float>(batch: &Batch, group: usize, trainable: &Parameters<F>) -> Option<Vec<Batch>> {
    let ends: Vec<usize> = batch.segments.iter().copied().step_by(group).collect();
    let lengths: Vec<usize> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut segments = batch.segments.windows(2).map(|pair| pair[0]..pair[1]);
    let part = |(_, count): (usize, usize)| {
        let mut part: Option<Batch> = None;
        for segment in segments.by_ref().take(group * count) {
            match &mut part {
                Some(part) => part.append(batch, segment),
                None => part = Some(batch.slice(segment)),
            }
        }
        part
    };
    Some(divided(&lengths, trainable.count())?.into_iter().filter_map(part).collect())
}

/// Rows and segments of each part, where segments of these lengths are computed in parts.
pub(crate) fn divided(lengths: &[usize], trainable: u64) -> Option<Vec<(usize, usize)>> {
    if trainable > COPIED {
        return None;
    }
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for length in lengths {
        match parts.last_mut() {
            Some((rows, segments)) if *rows < PART => {
                *rows += length;
                *segments += 1;
            }
            _ => parts.push((*length, 1)),
        }
    }
    (parts.len() > 1).then_some(parts)
}

/// The sum whose turn it is to grow by a part.
struct Sum<'a, F: Float> {
    gradients: &'a mut Parameters<F>,
    loss: LossSum,
    /// What each part's segments gave.
    segments: Vec<Vec<f64>>,
    /// The turn that comes next.
    next: usize,
    /// Whether a worker panicked, so that nobody waits for it.
    broken: bool,
}

struct Turns<'a, F: Float> {
    sum: Mutex<Sum<'a, F>>,
    turned: Condvar,
}

impl<'a, F: Float> Turns<'a, F> {
    fn lock(&self) -> MutexGuard<'_, Sum<'a, F>> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, turn: usize, part: usize, learnt: Learnt, gradients: Option<&Parameters<F>>) {
        let waits = |sum: &mut Sum<'a, F>| sum.next != turn && !sum.broken;
        let mut sum = self.turned.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        let own = gradients.map(Parameters::list).unwrap_or_default();
        for (sum, own) in sum.gradients.list_mut().iter_mut().zip(own) {
            for (sum, own) in sum.values.iter_mut().zip(&own.values) {
                *sum += *own;
            }
        }
        let (LossSum { nats, tokens }, own) = (sum.loss, learnt.loss);
        sum.loss = LossSum { nats: nats + own.nats, tokens: tokens + own.tokens };
        sum.segments[part] = learnt.segments;
        sum.next = turn + 1;
        self.turned.notify_all();
    }
}

/// Frees those who wait, where a worker panics.
struct Guard<'a, 'b, F: Float>(&'a Turns<'b, F>);

impl<F: Float> Drop for Guard<'_, '_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().broken = true;
            self.0.turned.notify_all();
        }
    }
}

/// The backward of every part, on as many cores as the caller's pool has, added to `gradients` from the largest part to the
/// smallest. Each worker begins with the part of its own rank, so that its buffers never grow by another's: what they take
/// is the same each time.
pub(crate) fn learn_parts<F: Float>(
    model: &Model<F>,
    parts: &[Batch],
    aim: Aim<'_>,
    recompute: bool,
    gradients: &mut Gradients<F>,
) -> Result<Learnt, TensorError> {
    let threads = rayon::current_num_threads();
    let count = threads.min(parts.len());
    let Gradients { parameters, workers, .. } = gradients;
    while workers.len() < count {
        workers.push(Worker { gradients: parameters.zeros_like(), workspace: Workspace::new() });
    }
    let segments = vec![Vec::new(); parts.len()];
    let sum = Sum { gradients: parameters, loss: LossSum::default(), segments, next: 0, broken: false };
    let turns = Turns { sum: Mutex::new(sum), turned: Condvar::new() };
    let mut first = 0;
    let aims = parts.iter().map(|part| {
        let segments = part.segments.len() - 1;
        first += segments;
        aim.part(first - segments..first)
    });
    let aims: Vec<Aim<'_>> = aims.collect();
    let measures = matches!(aim, Aim::Nothing);
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|part| std::cmp::Reverse(parts[*part].tokens.len()));
    let started = AtomicUsize::new(count);
    let work = &|rank: usize, worker: &mut Worker<F>| {
        let _guard = Guard(&turns);
        let mut turn = rank;
        while let Some(part) = order.get(turn).copied() {
            if !measures {
                worker.gradients.clear();
            }
            let Worker { gradients, workspace } = worker;
            let learnt = learn(model, &parts[part], aims[part], recompute, gradients.list_mut(), workspace);
            turns.add(turn, part, learnt, (!measures).then_some(&*gradients));
            turn = started.fetch_add(1, Ordering::Relaxed);
        }
    };
    let own = threads / count;
    std::thread::scope(|scope| {
        let started: Vec<_> = workers[..count]
            .iter_mut()
            .enumerate()
            .map(|(rank, worker)| {
                scope.spawn(move || -> Result<(), TensorError> {
                    // A pool of its own: what the kernels divide stays on the worker's cores.
                    let pool = ThreadPoolBuilder::new().num_threads(own).use_current_thread().build();
                    pool.map_err(|error| TensorError::Threads(error.to_string()))?
                        .install(|| work(rank, worker));
                    Ok(())
                })
            })
            .collect();
        started.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let mut sum = turns.lock();
    Ok(Learnt { loss: sum.loss, segments: std::mem::take(&mut sum.segments).concat() })
}
