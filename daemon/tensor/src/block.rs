use crate::kernels::{Attended, AttendedMut, Heads, Kernels, Rope, Spans, Turn};
use crate::linear::LinearGradient;
use crate::model::{BlockIndex, Index};
use crate::workspace::Workspace;
use crate::{Float, Model, Parameter};

/// The slots of [`moat_contracts::Architecture::linears`].
pub(crate) const QUERY: usize = 0;
pub(crate) const KEY: usize = 1;
pub(crate) const VALUE: usize = 2;
pub(crate) const OUTPUT: usize = 3;
pub(crate) const GATE: usize = 4;
pub(crate) const UP: usize = 5;
pub(crate) const DOWN: usize = 6;

/// One model over one batch of rows on one device.
pub(crate) struct Pass<'a, F: Float, K> {
    pub(crate) kernels: &'a K,
    pub(crate) model: &'a Model<F>,
    pub(crate) index: Index,
    pub(crate) heads: Heads,
    pub(crate) spans: Spans,
    pub(crate) rope: Rope<F>,
    pub(crate) rows: usize,
}

/// Rows before a norm, and its scales.
type Raw<F> = (Vec<F>, Vec<F>);

/// What a block's backward needs of its forward. What is cheap is made again: the normed rows and the gated product.
pub(crate) struct Kept<F> {
    pub(crate) input: Vec<F>,
    input_scales: Vec<F>,
    /// q and k before the norm of their heads, and that norm's scales.
    raw: Option<[Raw<F>; 2]>,
    q: Vec<F>,
    k: Vec<F>,
    v: Vec<F>,
    o: Vec<F>,
    sums: Vec<F>,
    middle: Vec<F>,
    middle_scales: Vec<F>,
    gate: Vec<F>,
    up: Vec<F>,
}

impl<F: Float> Kept<F> {
    /// Gives all buffers back but the input.
    pub(crate) fn release(self, workspace: &mut Workspace<F>) -> Vec<F> {
        let Self { input, input_scales, raw, q, k, v, o, sums, middle, middle_scales, gate, up } = self;
        workspace.give([input_scales, q, k, v, o, sums, middle, middle_scales, gate, up]);
        workspace.give(raw.into_iter().flatten().flat_map(|(rows, scales)| [rows, scales]));
        input
    }
}

impl<'a, F: Float, K: Kernels<F>> Pass<'a, F, K> {
    pub(crate) fn weight(&self, index: usize) -> &'a [F] {
        &self.model.weights.parameters.list()[index].values
    }

    fn epsilon(&self) -> F {
        F::from_f64(self.model.weights.architecture.norm_epsilon)
    }

    /// RMS norm of all rows of the weight's width, and its scales.
    pub(crate) fn norm(&self, x: &[F], weight: usize, workspace: &mut Workspace<F>) -> (Vec<F>, Vec<F>) {
        let weight = self.weight(weight);
        let (mut y, mut scales) = (workspace.take(x.len()), workspace.take(x.len() / weight.len()));
        self.kernels.rms_norm(x, weight, self.epsilon(), &mut y, &mut scales);
        (y, scales)
    }

    fn apply(&self, layer: usize, slot: usize, x: &[F], workspace: &mut Workspace<F>) -> Vec<F> {
        let linear = self.model.linear(&self.index.blocks[layer], layer, slot);
        let mut y = workspace.take(self.rows * linear.outputs);
        linear.forward(self.kernels, x, &mut y, false, workspace);
        y
    }

    /// A projection of the normed input, split into heads: normed and turned where it is q or k. With its rows before
    /// the norm, and their scales.
    fn project(
        &self,
        layer: usize,
        slot: usize,
        x: &[F],
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Option<Raw<F>>) {
        let block = &self.index.blocks[layer];
        let rows = self.apply(layer, slot, x, workspace);
        let count = if slot == QUERY { self.heads.query } else { self.heads.key };
        let turn = if slot == VALUE { Turn::None } else { Turn::Forth(&self.rope) };
        let mut out = workspace.take(rows.len());
        let width = self.heads.width;
        let norm = block
            .head_norms
            .filter(|_| slot != VALUE)
            .map(|norms| if slot == QUERY { norms.0 } else { norms.1 });
        let Some(norm) = norm else {
            self.kernels.to_heads(&rows, &self.spans, count, width, turn, &mut out);
            workspace.give([rows]);
            return (out, None);
        };
        let (normed, scales) = self.norm(&rows, norm, workspace);
        self.kernels.to_heads(&normed, &self.spans, count, width, turn, &mut out);
        workspace.give([normed]);
        (out, Some((rows, scales)))
    }

    /// q, k and v of the block's input, in heads.
    pub(crate) fn queries(&self, layer: usize, input: &[F], workspace: &mut Workspace<F>) -> Projected<F> {
        let (normed, input_scales) = self.norm(input, self.index.blocks[layer].input_norm, workspace);
        let (q, raw_q) = self.project(layer, QUERY, &normed, workspace);
        let (k, raw_k) = self.project(layer, KEY, &normed, workspace);
        let (v, _) = self.project(layer, VALUE, &normed, workspace);
        workspace.give([normed]);
        Projected { input_scales, q, k, v, raw: raw_q.zip(raw_k).map(|(q, k)| [q, k]) }
    }

    /// The residual stream after attention: `x + Wₒ o`.
    pub(crate) fn after_attention(
        &self,
        layer: usize,
        input: &[F],
        o: &[F],
        workspace: &mut Workspace<F>,
    ) -> Vec<F> {
        let mut rows = workspace.take(o.len());
        self.kernels.to_rows(o, &self.spans, self.heads.query, self.heads.width, Turn::None, &mut rows);
        let mut middle = workspace.copy(input);
        let linear = self.model.linear(&self.index.blocks[layer], layer, OUTPUT);
        linear.forward(self.kernels, &rows, &mut middle, true, workspace);
        workspace.give([rows]);
        middle
    }

    /// The two halves of the gated MLP, and the scales of the norm before it.
    pub(crate) fn gated(&self, layer: usize, middle: &[F], workspace: &mut Workspace<F>) -> [Vec<F>; 3] {
        let (normed, scales) = self.norm(middle, self.index.blocks[layer].post_norm, workspace);
        let gate = self.apply(layer, GATE, &normed, workspace);
        let up = self.apply(layer, UP, &normed, workspace);
        workspace.give([normed]);
        [scales, gate, up]
    }

    /// The forward up to the last linear, keeping what the backward needs.
    pub(crate) fn inside(&self, layer: usize, input: Vec<F>, workspace: &mut Workspace<F>) -> Kept<F> {
        let Projected { input_scales, q, k, v, raw } = self.queries(layer, &input, workspace);
        let (mut o, mut sums) = (workspace.take(q.len()), workspace.take(self.rows * self.heads.query));
        self.kernels.attention([&q, &k, &v], &self.spans, self.heads, &mut o, &mut sums);
        let middle = self.after_attention(layer, &input, &o, workspace);
        let [middle_scales, gate, up] = self.gated(layer, &middle, workspace);
        Kept { input, input_scales, raw, q, k, v, o, sums, middle, middle_scales, gate, up }
    }

    /// The block's output: `m + W_down (silu(gate) up)`.
    pub(crate) fn finish(
        &self,
        layer: usize,
        middle: &[F],
        gate: &[F],
        up: &[F],
        workspace: &mut Workspace<F>,
    ) -> Vec<F> {
        let mut gated = workspace.take(gate.len());
        self.kernels.swiglu(gate, up, &mut gated);
        let mut output = workspace.copy(middle);
        let linear = self.model.linear(&self.index.blocks[layer], layer, DOWN);
        linear.forward(self.kernels, &gated, &mut output, true, workspace);
        workspace.give([gated]);
        output
    }

    /// The whole forward of one block.
    pub(crate) fn forward(
        &self,
        layer: usize,
        input: Vec<F>,
        workspace: &mut Workspace<F>,
    ) -> (Vec<F>, Kept<F>) {
        let kept = self.inside(layer, input, workspace);
        let output = self.finish(layer, &kept.middle, &kept.gate, &kept.up, workspace);
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
        self.backward_attention(layer, &mut kept, d, gradients, workspace);
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
        let mut gated = workspace.take(kept.gate.len());
        self.model.linear(block, layer, DOWN).input_gradient(kernels, d, &mut gated, false, workspace);
        kernels.swiglu_backward(&mut kept.gate, &mut kept.up, &mut gated);
        self.learn_linear(layer, DOWN, &gated, d, gradients, workspace);
        workspace.give([gated]);

        let (normed, scales) = self.norm(&kept.middle, block.post_norm, workspace);
        workspace.give([scales]);
        let mut dn = workspace.take(d.len());
        for (slot, dy, add) in [(GATE, &kept.gate, false), (UP, &kept.up, true)] {
            self.learn_linear(layer, slot, &normed, dy, gradients, workspace);
            self.model.linear(block, layer, slot).input_gradient(kernels, dy, &mut dn, add, workspace);
        }
        workspace.give([normed]);
        self.backward_norm(block.post_norm, &kept.middle, &kept.middle_scales, &dn, d, gradients);
        workspace.give([dn]);
    }

    fn backward_attention(
        &self,
        layer: usize,
        kept: &mut Kept<F>,
        d: &mut [F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let (block, kernels, Heads { query, key, width }) =
            (&self.index.blocks[layer], self.kernels, self.heads);
        let mut rows = workspace.take(kept.o.len());
        kernels.to_rows(&kept.o, &self.spans, query, width, Turn::None, &mut rows);
        self.learn_linear(layer, OUTPUT, &rows, d, gradients, workspace);
        self.model.linear(block, layer, OUTPUT).input_gradient(kernels, d, &mut rows, false, workspace);
        let mut d_o = workspace.take(rows.len());
        kernels.to_heads(&rows, &self.spans, query, width, Turn::None, &mut d_o);
        workspace.give([rows]);

        let mut dq = workspace.take(kept.q.len());
        let (mut dk, mut dv) = (workspace.take(kept.k.len()), workspace.take(kept.v.len()));
        let forward =
            Attended { q: &kept.q, k: &kept.k, v: &kept.v, o: &kept.o, sums: &kept.sums, d_o: &d_o };
        let out = AttendedMut { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        kernels.attention_backward(forward, &self.spans, self.heads, out);
        workspace.give([d_o]);

        let (normed, scales) = self.norm(&kept.input, block.input_norm, workspace);
        workspace.give([scales]);
        let mut dn = workspace.take(d.len());
        let bottom = layer == 0 && self.model.adapter.is_some();
        for (slot, heads, count) in [(QUERY, dq, query), (KEY, dk, key), (VALUE, dv, key)] {
            let mut dy = workspace.take(heads.len());
            let turn = if slot == VALUE { Turn::None } else { Turn::Back(&self.rope) };
            kernels.to_rows(&heads, &self.spans, count, width, turn, &mut dy);
            workspace.give([heads]);
            if let (Some([q, k]), Some(norms)) = (&kept.raw, block.head_norms)
                && slot != VALUE
            {
                let (index, (raw, scales)) = if slot == QUERY { (norms.0, q) } else { (norms.1, k) };
                let mut before = workspace.zeros(dy.len());
                self.backward_norm(index, raw, scales, &dy, &mut before, gradients);
                workspace.give([std::mem::replace(&mut dy, before)]);
            }
            self.learn_linear(layer, slot, &normed, &dy, gradients, workspace);
            if !bottom {
                let linear = self.model.linear(block, layer, slot);
                linear.input_gradient(kernels, &dy, &mut dn, slot != QUERY, workspace);
            }
            workspace.give([dy]);
        }
        if !bottom {
            self.backward_norm(block.input_norm, &kept.input, &kept.input_scales, &dn, d, gradients);
        }
        workspace.give([normed, dn]);
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
        self.kernels.rms_norm_backward(x, self.weight(weight), scales, dy, d, own);
    }

    /// Adds a linear's own gradient.
    fn learn_linear(
        &self,
        layer: usize,
        slot: usize,
        x: &[F],
        dy: &[F],
        gradients: &mut [Parameter<F>],
        workspace: &mut Workspace<F>,
    ) {
        let block: &BlockIndex = &self.index.blocks[layer];
        let linear = self.model.linear(block, layer, slot);
        let first = match &self.model.adapter {
            Some(adapter) => adapter.first(layer, slot),
            None => Some(block.linears[slot].0),
        };
        // A linear without an adapter is frozen beside those with one.
        let Some(first) = first else { return };
        if let Some(gradient) = LinearGradient::of(&linear, &mut gradients[first..]) {
            linear.weight_gradient(self.kernels, x, dy, gradient, workspace);
        }
    }
}

/// q, k and v in heads, with what their backward needs.
pub(crate) struct Projected<F> {
    pub(crate) input_scales: Vec<F>,
    pub(crate) q: Vec<F>,
    pub(crate) k: Vec<F>,
    pub(crate) v: Vec<F>,
    pub(crate) raw: Option<[Raw<F>; 2]>,
}

impl<F: Float> Projected<F> {
    /// Gives back what only a backward needs, and leaves q, k and v.
    pub(crate) fn heads(self, workspace: &mut Workspace<F>) -> [Vec<F>; 3] {
        workspace.give([self.input_scales]);
        workspace.give(self.raw.into_iter().flatten().flat_map(|(rows, scales)| [rows, scales]));
        [self.q, self.k, self.v]
    }
}
