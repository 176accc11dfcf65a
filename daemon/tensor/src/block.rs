//! One block of the decoder, forward and backward:
//!
//! ```text
//! n = N₁(x)          q = R(Nq(Wq n))     k = R(Nk(Wk n))     v = Wv n
//! o = softmax(cap(s q kᵀ)) v             over the keys within the window
//! m = x + N₂(Wₒ o)
//! u = N₃(m)
//! y = m + N₄(W_down (act(W_gate u) ⊙ W_up u))
//! ```
//!
//! R turns by position. Where a family has no Nq, Nk, N₂, N₄ or cap, they are the identity; where it has no window, it is
//! boundless; where one linear makes several of these, its rows are cut apart.

use std::array;
use std::borrow::Cow;

use crate::kernels::{Attended, AttendedMut, Columns, Heads, Kernels, Rope, Scores, Spans, Turn};
use crate::linear::LinearGradient;
use crate::model::{Index, LinearIndex};
use crate::workspace::Workspace;
use crate::{Float, Model, Parameter};

/// One model over one batch of rows on one device.
pub(crate) struct Pass<'a, F: Float, K> {
    pub(crate) kernels: &'a K,
    pub(crate) model: &'a Model<F>,
    pub(crate) index: Index,
    pub(crate) heads: Heads,
    pub(crate) spans: Spans,
    pub(crate) rope: Rope<F>,
    /// Where a block slides, if positions turn heads otherwise there.
    pub(crate) sliding_rope: Option<Rope<F>>,
    pub(crate) rows: usize,
}

/// Rows before a norm, and its scales.
type Raw<F> = (Vec<F>, Vec<F>);

/// What a block's backward needs of its forward. What is cheap is made again: the normed rows and the gated product.
pub(crate) struct Kept<F> {
    pub(crate) input: Vec<F>,
    input_scales: Vec<F>,
    /// q and k before the norm of their heads.
    raw: Option<[Raw<F>; 2]>,
    q: Vec<F>,
    k: Vec<F>,
    v: Vec<F>,
    o: Vec<F>,
    sums: Vec<F>,
    /// What attention adds, before its norm.
    attended: Option<Raw<F>>,
    middle: Vec<F>,
    middle_scales: Vec<F>,
    gate: Vec<F>,
    up: Vec<F>,
    /// What the MLP adds, before its norm.
    gated: Option<Raw<F>>,
}

impl<F: Float> Kept<F> {
    /// Gives all buffers back but the input.
    pub(crate) fn release(self, workspace: &mut Workspace<F>) -> Vec<F> {
        let Self {
            input,
            input_scales,
            raw,
            q,
            k,
            v,
            o,
            sums,
            attended,
            middle,
            middle_scales,
            gate,
            up,
            gated,
        } = self;
        workspace.give([input_scales, q, k, v, o, sums, middle, middle_scales, gate, up]);
        workspace.give(buffers(raw.into_iter().flatten().chain(attended).chain(gated)));
        input
    }
}

/// The buffers of rows before their norms, to be given back.
pub(crate) fn buffers<F>(raw: impl IntoIterator<Item = Raw<F>>) -> impl Iterator<Item = Vec<F>> {
    raw.into_iter().flat_map(|(rows, scales)| [rows, scales])
}

/// q, k and v in heads, with what their backward needs.
pub(crate) struct Projected<F> {
    pub(crate) input_scales: Vec<F>,
    pub(crate) heads: [Vec<F>; 3],
    pub(crate) raw: Option<[Raw<F>; 2]>,
}

impl<F: Float> Projected<F> {
    /// Gives back what only a backward needs, and leaves q, k and v.
    pub(crate) fn heads(self, workspace: &mut Workspace<F>) -> [Vec<F>; 3] {
        workspace.give([self.input_scales]);
        workspace.give(buffers(self.raw.into_iter().flatten()));
        self.heads
    }
}

/// What each block's formula is made of.
impl<'a, F: Float, K: Kernels<F>> Pass<'a, F, K> {
    pub(crate) fn weight(&self, index: usize) -> &'a [F] {
        &self.model.weights.parameters.list()[index].values
    }

    /// A norm's weight with its offset.
    fn norm_weight(&self, index: usize) -> Cow<'a, [F]> {
        let (weight, offset) = (self.weight(index), self.model.weights.architecture.norm_offset);
        if offset == 0.0 {
            return Cow::Borrowed(weight);
        }
        let offset = F::from_f64(offset);
        weight.iter().map(|weight| offset + *weight).collect()
    }

    /// RMS norm of all rows of the weight's width, and its scales.
    pub(crate) fn norm(&self, x: &[F], weight: usize, workspace: &mut Workspace<F>) -> (Vec<F>, Vec<F>) {
        let weight = self.norm_weight(weight);
        let (mut y, mut scales) = (workspace.take(x.len()), workspace.take(x.len() / weight.len()));
        let epsilon = F::from_f64(self.model.weights.architecture.norm_epsilon);
        self.kernels.rms_norm(x, &weight, epsilon, &mut y, &mut scales);
        (y, scales)
    }

    /// Adds to `d` what comes through a norm, and to its weight's gradient where that is trained.
    pub(crate) fn backward_norm(
        &self,
        weight: usize,
        x: &[F],
        scales: &[F],
        dy: &[F],
        d: &mut [F],
        gradients: &mut [Parameter<F>],
    ) {
        let own =
            if self.model.adapter.is_some() { None } else { Some(gradients[weight].values.as_mut_slice()) };
        self.kernels.rms_norm_backward(x, &self.norm_weight(weight), scales, dy, d, own);
    }

    /// What linears make of the same rows, in `N` parts of these widths, one linear each or one for all, and what is
    /// made of each part at once, so that few of them are in memory together.
    fn parts<const N: usize, T>(
        &self,
        linears: &[LinearIndex],
        widths: [usize; N],
        x: &[F],
        workspace: &mut Workspace<F>,
        mut each: impl FnMut(usize, Vec<F>, &mut Workspace<F>) -> T,
    ) -> [T; N] {
        let made = |linear: &LinearIndex, workspace: &mut Workspace<F>| {
            let mut y = workspace.take(self.rows * linear.outputs);
            self.model.linear(linear).forward(self.kernels, x, &mut y, false, workspace);
            y
        };
        if linears.len() == N {
            return array::from_fn(|place| {
                let part = made(&linears[place], workspace);
                each(place, part, workspace)
            });
        }
        let whole = made(&linears[0], workspace);
        let (mut first, width) = (0, widths.iter().sum());
        let parts = array::from_fn(|place| {
            let count = widths[place];
            let mut part = workspace.take(self.rows * count);
            let (from, to) = (Columns { first, width }, Columns { first: 0, width: count });
            self.kernels.copy_columns(&whole, from, count, &mut part, to);
            first += count;
            each(place, part, workspace)
        });
        workspace.give([whole]);
        parts
    }

    /// Of the gradients of such parts: those of the linears themselves, and `dx = Σ dy W` where it is asked for.
    fn backward_parts<const N: usize>(
        &self,
        linears: &[LinearIndex],
        x: &[F],
        dys: [&[F]; N],
        mut dx: Option<&mut [F]>,
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let mut whole = None;
        if linears.len() != N {
            let widths = dys.map(|dy| dy.len() / self.rows);
            let (mut first, width) = (0, widths.iter().sum());
            let joined = whole.insert(workspace.take(self.rows * width));
            for (dy, count) in dys.into_iter().zip(widths) {
                let (from, to) = (Columns { first: 0, width: count }, Columns { first, width });
                self.kernels.copy_columns(dy, from, count, joined, to);
                first += count;
            }
        }
        let dys = whole.as_deref().into_iter().chain(dys);
        for (place, (linear, dy)) in linears.iter().zip(dys).enumerate() {
            self.learn_linear(linear, x, dy, gradients, workspace);
            if let Some(dx) = dx.as_deref_mut() {
                self.model.linear(linear).input_gradient(self.kernels, dy, dx, place > 0, workspace);
            }
        }
        workspace.give(whole);
    }

    /// Adds a linear's own gradient.
    fn learn_linear(
        &self,
        index: &LinearIndex,
        x: &[F],
        dy: &[F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let linear = self.model.linear(index);
        let first = match &self.model.adapter {
            Some(adapter) => adapter.first(index),
            None => Some(index.weight),
        };
        // A linear without an adapter is frozen beside those with one.
        let Some(first) = first else { return };
        if let Some(gradient) = LinearGradient::of(&linear, &mut gradients[first..]) {
            linear.weight_gradient(self.kernels, x, dy, gradient, workspace);
        }
    }

    /// `y = x + W rows`, or with a norm `y = x + N(W rows)` and what that norm's backward needs.
    fn added(
        &self,
        linear: &LinearIndex,
        norm: Option<usize>,
        x: &[F],
        rows: &[F],
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Option<Raw<F>>) {
        let linear = self.model.linear(linear);
        let Some(norm) = norm else {
            let mut y = workspace.copy(x);
            linear.forward(self.kernels, rows, &mut y, true, workspace);
            return (y, None);
        };
        let mut raw = workspace.take(x.len());
        linear.forward(self.kernels, rows, &mut raw, false, workspace);
        let (mut y, scales) = self.norm(&raw, norm, workspace);
        self.kernels.add(&mut y, x);
        (y, Some((raw, scales)))
    }

    /// The gradient of `W rows` where it went through a norm; without one it is `dy` itself.
    fn backward_added(
        &self,
        norm: Option<usize>,
        raw: Option<&Raw<F>>,
        dy: &[F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) -> Option<Vec<F>> {
        let ((raw, scales), norm) = raw.zip(norm)?;
        let mut d = workspace.zeros(dy.len());
        self.backward_norm(norm, raw, scales, dy, &mut d, gradients);
        Some(d)
    }

    /// How positions turn the heads of a block.
    fn rope(&self, layer: usize) -> &Rope<F> {
        let slides = self.model.weights.architecture.sliding(layer).is_some();
        self.sliding_rope.as_ref().filter(|_| slides).unwrap_or(&self.rope)
    }

    /// How a block's queries score keys.
    pub(crate) fn scores(&self, layer: usize) -> Scores<F> {
        let architecture = &self.model.weights.architecture;
        Scores {
            scale: F::from_f64(architecture.attention_scale),
            cap: architecture.attention_cap.map(F::from_f64),
            window: architecture.sliding(layer).map_or(usize::MAX, |sliding| sliding.window),
        }
    }

    /// Rows of q or k into heads, normed and turned, with the rows before the norm; rows of v as they are.
    fn to_heads(
        &self,
        rows: Vec<F>,
        count: usize,
        norm: Option<usize>,
        turn: Turn<'_, F>,
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Option<Raw<F>>) {
        let mut out = workspace.take(rows.len());
        let Some(norm) = norm else {
            self.kernels.to_heads(&rows, &self.spans, count, self.heads.width, turn, &mut out);
            workspace.give([rows]);
            return (out, None);
        };
        let (normed, scales) = self.norm(&rows, norm, workspace);
        self.kernels.to_heads(&normed, &self.spans, count, self.heads.width, turn, &mut out);
        workspace.give([normed]);
        (out, Some((rows, scales)))
    }

    /// The way back, of gradients.
    fn backward_heads(
        &self,
        heads: Vec<F>,
        count: usize,
        normed: Option<(usize, &Raw<F>)>,
        turn: Turn<'_, F>,
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) -> Vec<F> {
        let mut dy = workspace.take(heads.len());
        self.kernels.to_rows(&heads, &self.spans, count, self.heads.width, turn, &mut dy);
        workspace.give([heads]);
        let Some((norm, (raw, scales))) = normed else { return dy };
        let mut before = workspace.zeros(dy.len());
        self.backward_norm(norm, raw, scales, &dy, &mut before, gradients);
        workspace.give([dy]);
        before
    }
}

/// The formula.
impl<F: Float, K: Kernels<F>> Pass<'_, F, K> {
    /// q, k and v of the block's input, in heads.
    pub(crate) fn queries(&self, layer: usize, input: &[F], workspace: &mut Workspace<F>) -> Projected<F> {
        let (block, Heads { query, key, width }) = (&self.index.blocks[layer], self.heads);
        let (normed, input_scales) = self.norm(input, block.input_norm, workspace);
        let widths = [query * width, key * width, key * width];
        let (norms, turn) = (block.head_norms.unzip(), Turn::Forth(self.rope(layer)));
        let ways = [(query, norms.0, turn), (key, norms.1, turn), (key, None, Turn::None)];
        let heads = self.parts(block.queries(), widths, &normed, workspace, |place, rows, workspace| {
            let (count, norm, turn) = ways[place];
            self.to_heads(rows, count, norm, turn, workspace)
        });
        workspace.give([normed]);
        let [(q, raw_q), (k, raw_k), (v, _)] = heads;
        Projected { input_scales, heads: [q, k, v], raw: raw_q.zip(raw_k).map(|(q, k)| [q, k]) }
    }

    /// The stream after attention: `m = x + N₂(Wₒ o)`.
    pub(crate) fn after_attention(
        &self,
        layer: usize,
        input: &[F],
        o: &[F],
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Option<Raw<F>>) {
        let block = &self.index.blocks[layer];
        let mut rows = workspace.take(o.len());
        self.kernels.to_rows(o, &self.spans, self.heads.query, self.heads.width, Turn::None, &mut rows);
        let added = self.added(block.output(), block.attention_norm, input, &rows, workspace);
        workspace.give([rows]);
        added
    }

    /// The two halves of the gated MLP, and the scales of the norm before it.
    pub(crate) fn gates(&self, layer: usize, middle: &[F], workspace: &mut Workspace<F>) -> [Vec<F>; 3] {
        let block = &self.index.blocks[layer];
        let (normed, scales) = self.norm(middle, block.middle_norm, workspace);
        let widths = [self.model.weights.architecture.intermediate; 2];
        let [gate, up] = self.parts(block.gates(), widths, &normed, workspace, |_, rows, _| rows);
        workspace.give([normed]);
        [scales, gate, up]
    }

    /// The block's output: `y = m + N₄(W_down (act(gate) ⊙ up))`.
    pub(crate) fn after_mlp(
        &self,
        layer: usize,
        middle: &[F],
        gate: &[F],
        up: &[F],
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Option<Raw<F>>) {
        let block = &self.index.blocks[layer];
        let mut gated = workspace.take(gate.len());
        self.kernels.glu(self.model.weights.architecture.activation, gate, up, &mut gated);
        let added = self.added(block.down(), block.mlp_norm, middle, &gated, workspace);
        workspace.give([gated]);
        added
    }

    /// The forward up to the last linear, keeping what the backward needs.
    pub(crate) fn inside(&self, layer: usize, input: Vec<F>, workspace: &mut Workspace<F>) -> Kept<F> {
        let Projected { input_scales, heads: [q, k, v], raw } = self.queries(layer, &input, workspace);
        let (mut o, mut sums) = (workspace.take(q.len()), workspace.take(self.rows * self.heads.query));
        let scores = self.scores(layer);
        self.kernels.attention([&q, &k, &v], &self.spans, self.heads, scores, &mut o, &mut sums);
        let (middle, attended) = self.after_attention(layer, &input, &o, workspace);
        let [middle_scales, gate, up] = self.gates(layer, &middle, workspace);
        let gated = None;
        Kept { input, input_scales, raw, q, k, v, o, sums, attended, middle, middle_scales, gate, up, gated }
    }

    /// The whole forward of one block.
    pub(crate) fn forward(
        &self,
        layer: usize,
        input: Vec<F>,
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Kept<F>) {
        let mut kept = self.inside(layer, input, workspace);
        let (output, gated) = self.after_mlp(layer, &kept.middle, &kept.gate, &kept.up, workspace);
        kept.gated = gated;
        (output, kept)
    }

    /// Turns `d` from the gradient of the block's output into that of its input, and adds to the gradients of what is
    /// trained. An adapter's first block leaves `d` unfinished: nothing below it is trained.
    pub(crate) fn backward(
        &self,
        layer: usize,
        mut kept: Kept<F>,
        d: &mut [F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        self.backward_mlp(layer, &mut kept, d, gradients, workspace);
        self.backward_attention(layer, &kept, d, gradients, workspace);
        let input = kept.release(workspace);
        workspace.give([input]);
    }

    fn backward_mlp(
        &self,
        layer: usize,
        kept: &mut Kept<F>,
        d: &mut [F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let (block, kernels) = (&self.index.blocks[layer], self.kernels);
        if block.mlp_norm.is_some() && kept.gated.is_none() {
            // Recomputed inside alone: what the norm had before it is still missing.
            let (output, gated) = self.after_mlp(layer, &kept.middle, &kept.gate, &kept.up, workspace);
            workspace.give([output]);
            kept.gated = gated;
        }
        let inner = self.backward_added(block.mlp_norm, kept.gated.as_ref(), d, gradients, workspace);
        let dy = inner.as_deref().unwrap_or(d);
        let mut gated = workspace.take(kept.gate.len());
        self.model.linear(block.down()).input_gradient(kernels, dy, &mut gated, false, workspace);
        let activation = self.model.weights.architecture.activation;
        kernels.glu_backward(activation, &mut kept.gate, &mut kept.up, &mut gated);
        self.learn_linear(block.down(), &gated, dy, gradients, workspace);
        workspace.give([gated]);
        workspace.give(inner);

        let (normed, scales) = self.norm(&kept.middle, block.middle_norm, workspace);
        let mut dn = workspace.take(d.len());
        let dys = [kept.gate.as_slice(), &kept.up];
        self.backward_parts(block.gates(), &normed, dys, Some(&mut dn), gradients, workspace);
        self.backward_norm(block.middle_norm, &kept.middle, &kept.middle_scales, &dn, d, gradients);
        workspace.give([normed, scales, dn]);
    }

    fn backward_attention(
        &self,
        layer: usize,
        kept: &Kept<F>,
        d: &mut [F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let (block, kernels, Heads { query, key, width }) =
            (&self.index.blocks[layer], self.kernels, self.heads);
        let inner =
            self.backward_added(block.attention_norm, kept.attended.as_ref(), d, gradients, workspace);
        let dy = inner.as_deref().unwrap_or(d);
        let mut rows = workspace.take(kept.o.len());
        kernels.to_rows(&kept.o, &self.spans, query, width, Turn::None, &mut rows);
        self.learn_linear(block.output(), &rows, dy, gradients, workspace);
        self.model.linear(block.output()).input_gradient(kernels, dy, &mut rows, false, workspace);
        let (d_o, _) = self.to_heads(rows, query, None, Turn::None, workspace);
        workspace.give(inner);

        let mut dq = workspace.take(kept.q.len());
        let (mut dk, mut dv) = (workspace.take(kept.k.len()), workspace.take(kept.v.len()));
        let forward =
            Attended { q: &kept.q, k: &kept.k, v: &kept.v, o: &kept.o, sums: &kept.sums, d_o: &d_o };
        let out = AttendedMut { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        kernels.attention_backward(forward, &self.spans, self.heads, self.scores(layer), out);
        workspace.give([d_o]);

        let (raw, turn) = (kept.raw.as_ref(), Turn::Back(self.rope(layer)));
        let [q, k] = [0, 1].map(|half| raw.map(|raw| &raw[half]));
        let norms = block.head_norms.unzip();
        let dq = self.backward_heads(dq, query, norms.0.zip(q), turn, gradients, workspace);
        let dk = self.backward_heads(dk, key, norms.1.zip(k), turn, gradients, workspace);
        let dv = self.backward_heads(dv, key, None, Turn::None, gradients, workspace);
        let (normed, scales) = self.norm(&kept.input, block.input_norm, workspace);
        let mut dn = workspace.take(d.len());
        let bottom = layer == 0 && self.model.adapter.is_some();
        let dx = (!bottom).then_some(dn.as_mut_slice());
        self.backward_parts(block.queries(), &normed, [&dq, &dk, &dv], dx, gradients, workspace);
        if !bottom {
            self.backward_norm(block.input_norm, &kept.input, &kept.input_scales, &dn, d, gradients);
        }
        workspace.give([dq, dk, dv, normed, scales, dn]);
    }
}
