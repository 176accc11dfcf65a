use moat_contracts::Frozen;

use crate::block::{Kept, Pass};
use crate::kernels::{Cpu, Heads, Kernels, Matrix, MatrixMut, Spans};
use crate::model::Index;
use crate::preference::Preference;
use crate::workspace::Workspace;
use crate::{Batch, Float, Gradients, IGNORE, Lora, Model, Parameter, TensorError, Weights, rope, workers};

/// Rows whose logits are in memory at a time.
pub(crate) const LOGIT_ROWS: usize = 256;

/// Summed negative log-likelihood and what it was summed over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of −ln p(target) in nats.
    pub nats: f64,
    /// Targets in the sum.
    pub tokens: u64,
}

/// What a pass over a batch is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim<'a> {
    /// To learn every target, by this factor.
    Targets(f64),
    /// To learn which of each two neighbouring segments is the better answer, by this factor; the reference's summed loss
    /// of each segment.
    Pairs(Preference, f64, &'a [f64]),
    /// To measure the segments of pairs.
    Nothing,
}

impl Aim<'_> {
    /// How many neighbouring segments belong together.
    pub(crate) fn group(&self) -> usize {
        match self {
            Self::Pairs(..) | Self::Nothing => 2,
            Self::Targets(_) => 1,
        }
    }

    /// Of these segments of the batch.
    pub(crate) fn part(&self, segments: std::ops::Range<usize>) -> Self {
        match *self {
            Self::Pairs(preference, scale, reference) => Aim::Pairs(preference, scale, &reference[segments]),
            other => other,
        }
    }
}

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) loss: LossSum,
    /// Summed loss of each segment, nats; empty where targets were learnt.
    pub(crate) segments: Vec<f64>,
}

/// By what the gradient of a row's loss is multiplied.
#[derive(Clone, Copy)]
enum Scale<'a, F> {
    All(F),
    /// Each row of the batch by its own.
    Rows(&'a [F]),
}

/// What the backward has of one block.
enum Saved<F> {
    Whole(Box<Kept<F>>),
    Input(Vec<F>),
}

impl<'a, F: Float> Pass<'a, F, Cpu> {
    /// Rows of these segments, whose first position is `first`.
    pub(crate) fn new(model: &'a Model<F>, list: Vec<(usize, usize)>, first: usize) -> Self {
        let architecture = &model.weights.architecture;
        let sliding = architecture.sliding.as_ref().map(|sliding| &sliding.rope);
        let longest = list.iter().map(|(_, length)| *length).max().unwrap_or(0);
        Self {
            kernels: &Cpu,
            model,
            index: Index::new(architecture),
            heads: Heads {
                query: architecture.heads,
                key: architecture.kv_heads,
                width: architecture.head_dim,
            },
            rows: list.iter().map(|(_, length)| *length).sum(),
            rope: rope::table(&architecture.rope, first, longest),
            sliding_rope: sliding
                .filter(|sliding| **sliding != architecture.rope)
                .map(|sliding| rope::table(sliding, first, longest)),
            spans: Spans { list },
        }
    }

    fn of(model: &'a Model<F>, batch: &Batch) -> Result<Self, TensorError> {
        batch.check(&model.weights.architecture)?;
        Ok(Self::of_checked(model, batch))
    }

    fn of_checked(model: &'a Model<F>, batch: &Batch) -> Self {
        Self::new(model, batch.segments.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect(), 0)
    }
}

impl<F: Float, K: Kernels<F>> Pass<'_, F, K> {
    fn hidden(&self) -> usize {
        self.model.weights.architecture.hidden
    }

    pub(crate) fn embed(&self, tokens: &[u32], workspace: &mut Workspace<F>) -> Vec<F> {
        let mut x = workspace.take(tokens.len() * self.hidden());
        self.kernels.gather(self.weight(0), tokens, self.hidden(), &mut x);
        self.scale_embedded(&mut x);
        x
    }

    /// What embeddings are multiplied by: in the forward, and in the backward.
    fn scale_embedded(&self, x: &mut [F]) {
        let scale = self.model.weights.architecture.embedding_scale;
        if scale != 1.0 {
            self.kernels.scale(x, F::from_f64(scale));
        }
    }

    /// The residual stream after all blocks, of which nothing is kept.
    fn infer(&self, tokens: &[u32], workspace: &mut Workspace<F>) -> Vec<F> {
        let mut x = self.embed(tokens, workspace);
        for layer in 0..self.index.blocks.len() {
            let (output, kept) = self.forward(layer, x, workspace);
            let input = kept.release(workspace);
            workspace.give([input]);
            x = output;
        }
        x
    }

    fn logit_cap(&self) -> Option<F> {
        self.model.weights.architecture.logit_cap.map(F::from_f64)
    }

    /// Logits of some rows of the residual stream.
    pub(crate) fn logits(&self, x: &[F], workspace: &mut Workspace<F>) -> Vec<F> {
        let mut logits = self.head(x, x.len() / self.hidden(), workspace);
        if let Some(cap) = self.logit_cap() {
            self.kernels.soft_cap(&mut logits, cap);
        }
        logits
    }

    /// The same before their cap, in a buffer for at most so many rows.
    fn head(&self, x: &[F], most: usize, workspace: &mut Workspace<F>) -> Vec<F> {
        let (normed, scales) = self.norm(x, self.index.norm, workspace);
        let weight = Matrix::new(self.weight(self.index.head), self.hidden());
        let vocabulary = self.model.weights.architecture.vocabulary;
        let mut logits = workspace.take_within(x.len() / self.hidden() * vocabulary, most * vocabulary);
        let normed_rows = Matrix::new(&normed, self.hidden());
        self.kernels.product(MatrixMut::new(&mut logits, vocabulary), normed_rows, weight.t(), F::ONE, false);
        workspace.give([normed, scales]);
        logits
    }

    /// Losses of these rows of the residual stream, chunk by chunk; logits are never whole.
    fn losses(&self, x: &[F], rows: &[u32], batch: &Batch, workspace: &mut Workspace<F>) -> Vec<F> {
        let mut losses = vec![F::ZERO; rows.len()];
        let most = LOGIT_ROWS.min(x.len() / self.hidden());
        for (rows, losses) in rows.chunks(LOGIT_ROWS).zip(losses.chunks_mut(LOGIT_ROWS)) {
            let mut own = workspace.take(rows.len() * self.hidden());
            self.kernels.gather(x, rows, self.hidden(), &mut own);
            let mut logits = self.head(&own, most, workspace);
            let targets: Vec<u32> = rows.iter().map(|row| batch.targets[*row as usize]).collect();
            self.kernels.cross_entropy(&mut logits, &targets, self.logit_cap(), None, losses);
            workspace.give([own, logits]);
        }
        losses
    }

    /// The same, turning `x` into its gradient, scaled, and adding to those of the head and its norm where they are
    /// trained.
    fn learn_head(
        &self,
        x: &mut [F],
        rows: &[u32],
        batch: &Batch,
        scale: Scale<'_, F>,
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) -> f64 {
        let (hidden, vocabulary) = (self.hidden(), self.model.weights.architecture.vocabulary);
        let mut d = workspace.zeros(x.len());
        let mut losses = [F::ZERO; LOGIT_ROWS];
        let most = LOGIT_ROWS.min(x.len() / hidden);
        let mut nats = 0.0;
        for rows in rows.chunks(LOGIT_ROWS) {
            let losses = &mut losses[..rows.len()];
            let mut own = workspace.take(rows.len() * hidden);
            self.kernels.gather(x, rows, hidden, &mut own);
            let mut logits = self.head(&own, most, workspace);
            let targets: Vec<u32> = rows.iter().map(|row| batch.targets[*row as usize]).collect();
            let all = match scale {
                Scale::All(scale) => scale,
                Scale::Rows(_) => F::ONE,
            };
            self.kernels.cross_entropy(&mut logits, &targets, self.logit_cap(), Some(all), losses);
            if let Scale::Rows(scales) = scale {
                for (row, logits) in rows.iter().zip(logits.chunks_mut(vocabulary)) {
                    self.kernels.scale(logits, scales[*row as usize]);
                }
            }
            nats += losses.iter().map(|loss| loss.to_f64()).sum::<f64>();

            let (normed, scales) = self.norm(&own, self.index.norm, workspace);
            let dz = Matrix::new(&logits, vocabulary);
            if self.model.adapter.is_none() {
                let out = MatrixMut::new(&mut gradients[self.index.head].values, hidden);
                self.kernels.product(out, dz.t(), Matrix::new(&normed, hidden), F::ONE, true);
            }
            let mut dn = workspace.take(own.len());
            let weight = Matrix::new(self.weight(self.index.head), hidden);
            self.kernels.product(MatrixMut::new(&mut dn, hidden), dz, weight, F::ONE, false);
            let mut d_own = workspace.zeros(own.len());
            self.backward_norm(self.index.norm, &own, &scales, &dn, &mut d_own, gradients);
            for (row, d_own) in rows.iter().zip(d_own.chunks(hidden)) {
                d[*row as usize * hidden..][..hidden].copy_from_slice(d_own);
            }
            workspace.give([own, logits, normed, scales, dn, d_own]);
        }
        x.copy_from_slice(&d);
        workspace.give([d]);
        nats
    }

    fn learn(
        &self,
        batch: &Batch,
        aim: Aim<'_>,
        recompute: bool,
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) -> Learnt {
        workspace.begin(batch.tokens.len());
        let rows = trained(batch);
        let tokens = rows.len() as u64;
        if rows.is_empty() {
            let segments = if matches!(aim, Aim::Targets(_)) { 0 } else { batch.segments.len() - 1 };
            return Learnt { segments: vec![0.0; segments], ..Learnt::default() };
        }
        if matches!(aim, Aim::Nothing) {
            let x = self.infer(&batch.tokens, workspace);
            let segments = self.segment_sums(&x, &rows, batch, workspace);
            workspace.give([x]);
            let loss = LossSum { nats: segments.iter().sum(), tokens };
            return Learnt { loss, segments };
        }
        let mut x = self.embed(&batch.tokens, workspace);
        let mut saved = Vec::with_capacity(self.index.blocks.len());
        for layer in 0..self.index.blocks.len() {
            let (output, kept) = self.forward(layer, x, workspace);
            saved.push(if recompute {
                Saved::Input(kept.release(workspace))
            } else {
                Saved::Whole(Box::new(kept))
            });
            x = output;
        }
        let (nats, segments) = match aim {
            Aim::Pairs(preference, scale, reference) => {
                // What an answer's gradient is multiplied by is known once both are measured, so the head comes twice.
                let sums = self.segment_sums(&x, &rows, batch, workspace);
                let scales = pair_scales(batch, preference, scale, &sums, reference);
                let scales = Scale::Rows(&scales);
                (self.learn_head(&mut x, &rows, batch, scales, gradients, workspace), sums)
            }
            Aim::Targets(scale) => {
                let scale = Scale::All(F::from_f64(scale));
                (self.learn_head(&mut x, &rows, batch, scale, gradients, workspace), Vec::new())
            }
            Aim::Nothing => (0.0, Vec::new()),
        };
        for (layer, saved) in saved.into_iter().enumerate().rev() {
            let kept = match saved {
                Saved::Whole(kept) => *kept,
                Saved::Input(input) => self.inside(layer, input, workspace),
            };
            self.backward(layer, kept, &mut x, gradients, workspace);
        }
        if self.model.adapter.is_none() {
            self.scale_embedded(&mut x);
            self.kernels.scatter_add(&x, &batch.tokens, self.hidden(), &mut gradients[0].values);
        }
        workspace.give([x]);
        Learnt { loss: LossSum { nats, tokens }, segments }
    }

    /// Summed loss of each segment, nats.
    fn segment_sums(&self, x: &[F], rows: &[u32], batch: &Batch, workspace: &mut Workspace<F>) -> Vec<f64> {
        let losses = self.losses(x, rows, batch, workspace);
        let mut sums = vec![0.0; batch.segments.len() - 1];
        let mut segment = 0;
        for (row, loss) in rows.iter().zip(losses) {
            while batch.segments[segment + 1] <= *row as usize {
                segment += 1;
            }
            sums[segment] += loss.to_f64();
        }
        sums
    }
}

/// What each row's gradient is multiplied by where segments are pairs.
fn pair_scales<F: Float>(
    batch: &Batch,
    preference: Preference,
    scale: f64,
    sums: &[f64],
    reference: &[f64],
) -> Vec<F> {
    let mut scales = vec![F::ZERO; batch.tokens.len()];
    for ((ends, sums), reference) in
        batch.segments.windows(3).step_by(2).zip(sums.chunks(2)).zip(reference.chunks(2))
    {
        let slopes = preference.slopes([sums[0], sums[1]], [reference[0], reference[1]]);
        for (place, slope) in slopes.into_iter().enumerate() {
            scales[ends[place]..ends[place + 1]].fill(F::from_f64(scale * slope));
        }
    }
    scales
}

/// Rows that have a target.
fn trained(batch: &Batch) -> Vec<u32> {
    let rows = (0_u32..).zip(&batch.targets);
    rows.filter(|(_, target)| **target != IGNORE).map(|(row, _)| row).collect()
}

/// Adds `scale` times the gradient of the summed negative log-likelihood to `gradients`, and returns that sum.
///
/// `scale` is one over the trained tokens of the whole optimiser step, so that micro-batches add up to the gradient
/// of the mean. With `recompute` a block keeps only its input and computes its inside again in the backward: less
/// memory, about a third slower, the same bits.
///
/// # Errors
/// What [`Batch::check`] finds, and [`TensorError::Mismatch`].
pub fn forward_backward<F: Float>(
    model: &Model<F>,
    batch: &Batch,
    scale: f32,
    recompute: bool,
    gradients: &mut Gradients<F>,
) -> Result<LossSum, TensorError> {
    batch.check(&model.weights.architecture)?;
    if model.adapter.is_none() && model.weights.frozen() != Frozen::F32 {
        return Err(TensorError::Frozen { frozen: model.weights.frozen().word() });
    }
    if !gradients.parameters.fits(model.trainable()) {
        return Err(TensorError::Mismatch);
    }
    Ok(pass(model, batch, Aim::Targets(f64::from(scale)), recompute, gradients)?.loss)
}

/// The batch part by part on several cores where it has parts, or else whole.
fn pass<F: Float>(
    model: &Model<F>,
    batch: &Batch,
    aim: Aim<'_>,
    recompute: bool,
    gradients: &mut Gradients<F>,
) -> Result<Learnt, TensorError> {
    if let Some(parts) = workers::parts(batch, aim.group(), &gradients.parameters) {
        return workers::learn_parts(model, &parts, aim, recompute, gradients);
    }
    let Gradients { parameters, workspace, .. } = gradients;
    Ok(learn(model, batch, aim, recompute, parameters.list_mut(), workspace))
}

/// Adds `scale` times the gradient of the summed [`Preference::loss`] of a batch's pairs to `gradients`, and returns the
/// summed negative log-likelihood of each segment, nats, before any change. Segments are pairs in their order, the chosen
/// answer before the rejected one; `reference` holds what [`segment_losses`] gave of each under the reference.
///
/// The forward is done once, the head twice: logits are never whole, and an answer's factor is known after its last token.
///
/// # Errors
/// As [`forward_backward`], and [`TensorError::Batch`] where segments are no pairs or the reference is not of them.
pub fn forward_backward_pairs<F: Float>(
    model: &Model<F>,
    batch: &Batch,
    reference: &[f64],
    preference: Preference,
    scale: f64,
    recompute: bool,
    gradients: &mut Gradients<F>,
) -> Result<Vec<f64>, TensorError> {
    batch.check(&model.weights.architecture)?;
    if !gradients.parameters.fits(model.trainable()) {
        return Err(TensorError::Mismatch);
    }
    let segments = batch.segments.len() - 1;
    if !segments.is_multiple_of(2) || reference.len() != segments {
        let found = format!("{segments} segments and {} sums of the reference are no pairs", reference.len());
        return Err(TensorError::Batch(found));
    }
    Ok(pass(model, batch, Aim::Pairs(preference, scale, reference), recompute, gradients)?.segments)
}

/// Summed negative log-likelihood of each segment of a batch of pairs, nats, computed in the parts in which
/// [`forward_backward_pairs`] computes it, so that it gives the same bits. The gradients stay; only their buffers are used.
///
/// They may be of another trainable than the model's, so that a base can be measured without its adapter.
///
/// # Errors
/// What [`Batch::check`] finds.
pub fn segment_losses<F: Float>(
    model: &Model<F>,
    batch: &Batch,
    gradients: &mut Gradients<F>,
) -> Result<Vec<f64>, TensorError> {
    batch.check(&model.weights.architecture)?;
    Ok(pass(model, batch, Aim::Nothing, false, gradients)?.segments)
}

/// The same of a batch that was checked, on the caller's cores together.
pub(crate) fn learn<F: Float>(
    model: &Model<F>,
    batch: &Batch,
    aim: Aim<'_>,
    recompute: bool,
    gradients: &mut [Parameter<F>],
    workspace: &mut Workspace<F>,
) -> Learnt {
    Pass::of_checked(model, batch).learn(batch, aim, recompute, gradients, workspace)
}

/// −ln p(target) in nats of every position, `[rows]`; 0 where the target is [`crate::IGNORE`].
///
/// # Errors
/// What [`Batch::check`] finds.
pub fn token_losses<F: Float>(model: &Model<F>, batch: &Batch) -> Result<Vec<F>, TensorError> {
    let pass = Pass::of(model, batch)?;
    let rows = trained(batch);
    let mut losses = vec![F::ZERO; batch.tokens.len()];
    if !rows.is_empty() {
        let mut workspace = Workspace::new();
        let x = pass.infer(&batch.tokens, &mut workspace);
        for (row, loss) in rows.iter().zip(pass.losses(&x, &rows, batch, &mut workspace)) {
            losses[*row as usize] = loss;
        }
    }
    Ok(losses)
}

/// Logits of every position, `[rows, vocabulary]`: for tests and short texts, since it holds them whole.
///
/// # Errors
/// What [`Batch::check`] finds.
pub fn logits<F: Float>(model: &Model<F>, batch: &Batch) -> Result<Vec<F>, TensorError> {
    let pass = Pass::of(model, batch)?;
    let mut workspace = Workspace::new();
    let x = pass.infer(&batch.tokens, &mut workspace);
    Ok(pass.logits(&x, &mut workspace))
}

/// [`logits`] of the model as [`crate::Lora::merge`] leaves it, block by block, so that one block's weights at most are there
/// twice. The model is the same afterwards, bit for bit.
///
/// # Errors
/// What [`Batch::check`] finds, and [`TensorError::Mismatch`] where `adapter` is of another architecture.
pub fn merged_logits<F: Float>(
    model: &mut Model<F>,
    adapter: &Lora<F>,
    batch: &Batch,
) -> Result<Vec<F>, TensorError> {
    batch.check(&model.weights.architecture)?;
    let carried = model.adapter.take();
    let computed = merged_blocks(&mut model.weights, adapter, batch);
    model.adapter = carried;
    computed
}

fn merged_blocks<F: Float>(
    weights: &mut Weights<F>,
    adapter: &Lora<F>,
    batch: &Batch,
) -> Result<Vec<F>, TensorError> {
    let index = Index::new(&weights.architecture);
    let mut workspace = Workspace::new();
    let empty = weights.emptied();
    let mut plain = Model { weights: std::mem::replace(weights, empty), adapter: None };
    let mut x = Pass::of_checked(&plain, batch).embed(&batch.tokens, &mut workspace);
    let mut result = Ok(());
    for (layer, block) in index.blocks.iter().enumerate() {
        let kept: Vec<_> =
            block.linears.iter().map(|linear| (linear.weight, plain.weights.lend(linear.weight))).collect();
        result = adapter.merge_block(&mut plain.weights, block);
        let pass = Pass::of_checked(&plain, batch);
        let (output, inner) = pass.forward(layer, x, &mut workspace);
        let input = inner.release(&mut workspace);
        workspace.give([input]);
        x = output;
        for (place, lent) in kept {
            plain.weights.restore(place, lent);
        }
        if result.is_err() {
            break;
        }
    }
    let logits = Pass::of_checked(&plain, batch).logits(&x, &mut workspace);
    *weights = plain.weights;
    result.map(|()| logits)
}
