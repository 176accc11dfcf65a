//! The operations that touch every element, each with its backward: all that a device has to bring.
//!
//! Rows are tokens. `dy` is the gradient of the loss with respect to `y`. Every backward adds to the gradients that
//! it is given unless it says otherwise.

mod attention;
mod cpu;
mod product;
mod vector;

pub(crate) use cpu::Cpu;
pub(crate) use product::{Matrix, MatrixMut};

use crate::{AdamW, Float};

/// Where the rows of a batch belong: segments end to end, each `[start, start + length)`.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    /// `(start, length)` of each segment, in order.
    pub(crate) list: Vec<(usize, usize)>,
}

/// Heads of one attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) query: usize,
    /// Key and value heads; divides `query`.
    pub(crate) key: usize,
    /// Width of each.
    pub(crate) width: usize,
}

/// Cosines and sines of the rotary angles of each segment's rows, `[rows, width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Rope<F> {
    pub(crate) cos: Vec<F>,
    pub(crate) sin: Vec<F>,
}

/// Which way [`Kernels::to_heads`] and [`Kernels::to_rows`] turn each pair.
#[derive(Clone, Copy)]
pub(crate) enum Turn<'a, F> {
    /// Not at all.
    None,
    /// By the angle: the forward.
    Forth(&'a Rope<F>),
    /// By minus the angle, which is the transpose: the backward.
    Back(&'a Rope<F>),
}

/// A device's operations. Tensors are row-major slices.
pub(crate) trait Kernels<F: Float>: Sync {
    /// `out = factor * left · right`, or `out += …` with `add`.
    fn product(&self, out: MatrixMut<'_, F>, left: Matrix<'_, F>, right: Matrix<'_, F>, factor: F, add: bool);

    /// `y[r][c] += bias[c]`.
    fn add_bias(&self, y: &mut [F], bias: &[F]);

    /// `sums[c] += Σ_r x[r][c]`: the gradient of a bias.
    fn add_column_sums(&self, x: &[F], sums: &mut [F]);

    /// `s = 1/√(mean(x²) + ε)`, `y = s x w` for each row of `weight.len()`; keeps `s` in `scales`.
    fn rms_norm(&self, x: &[F], weight: &[F], epsilon: F, y: &mut [F], scales: &mut [F]);

    /// `dx += s (w dy) − x s³/n Σ(w dy x)`, and `dw += Σ_rows dy x s` where it is asked for.
    fn rms_norm_backward(
        &self,
        x: &[F],
        weight: &[F],
        scales: &[F],
        dy: &[F],
        dx: &mut [F],
        dweight: Option<&mut [F]>,
    );

    /// Rows `[rows, heads * width]` to `[segment][head][row of the segment][width]`, each head's pairs
    /// `(j, j + width/2)` turned by `position * frequency_j` (rotary position embedding, as Hugging Face lays it out).
    fn to_heads(
        &self,
        rows: &[F],
        spans: &Spans,
        heads: usize,
        width: usize,
        turn: Turn<'_, F>,
        out: &mut [F],
    );

    /// The way back.
    fn to_rows(
        &self,
        heads: &[F],
        spans: &Spans,
        count: usize,
        width: usize,
        turn: Turn<'_, F>,
        out: &mut [F],
    );

    /// `o_i = Σ_{j≤i} p_ij v_j`, `p_i = softmax_j(q_i·k_j / √width)` within each segment and query head, in the layout of
    /// [`Kernels::to_heads`]; keeps `ln Σ_j exp(q_i·k_j / √width)` in `sums`, `[segment][head][row]`.
    fn attention(&self, qkv: [&[F]; 3], spans: &Spans, heads: Heads, o: &mut [F], sums: &mut [F]);

    /// With `p` computed again from `sums` and `δ_i = do_i·o_i`: `dv_j = Σ_i p_ij do_i`,
    /// `ds_ij = p_ij (do_i·v_j − δ_i) / √width`, `dq_i = Σ_j ds_ij k_j`, `dk_j = Σ_i ds_ij q_i`, where key heads sum over
    /// their query heads. Overwrites `dq`, `dk` and `dv`.
    fn attention_backward(
        &self,
        forward: Attended<'_, F>,
        spans: &Spans,
        heads: Heads,
        gradients: AttendedMut<'_, F>,
    );

    /// New rows `q`, `[head][row][width]`, of one segment against a cache of `length` keys, `[head][capacity][width]`,
    /// of which the last belong to the new rows.
    fn attention_cached(&self, q: &[F], cache: Cached<'_, F>, heads: Heads, o: &mut [F]);

    /// `a = g σ(g) u`.
    fn swiglu(&self, gate: &[F], up: &[F], out: &mut [F]);

    /// `dg = da u σ(g) (1 + g (1 − σ(g)))` over `gate`, `du = da g σ(g)` over `up`, and `a` itself, again, over `da`.
    fn swiglu_backward(&self, gate: &mut [F], up: &mut [F], da: &mut [F]);

    /// `loss_r = ln Σ_c exp(z_rc) − z_r,target`; with `scale` the logits become their gradients
    /// `scale (softmax(z_r)_c − [c = target])`.
    fn cross_entropy(&self, logits: &mut [F], targets: &[u32], scale: Option<F>, losses: &mut [F]);

    /// `out[r] = table[index[r]]`.
    fn gather(&self, table: &[F], index: &[u32], width: usize, out: &mut [F]);

    /// `table[index[r]] += rows[r]`.
    fn scatter_add(&self, rows: &[F], index: &[u32], width: usize, table: &mut [F]);

    /// `m = m + (1−β₁)(g − m)`, `v = β₂ v + (1−β₂) g²`,
    /// `θ = θ (1 − η λ) − η/(1−β₁^t) m / (√v / √(1−β₂^t) + ε)`: Loshchilov and Hutter's, in the order of torch.
    fn adamw(&self, theta: &mut [F], g: &[F], m: &mut [F], v: &mut [F], settings: AdamW, step: u64);
}

/// What [`Kernels::attention_backward`] reads.
#[derive(Clone, Copy)]
pub(crate) struct Attended<'a, F> {
    pub(crate) q: &'a [F],
    pub(crate) k: &'a [F],
    pub(crate) v: &'a [F],
    pub(crate) o: &'a [F],
    pub(crate) sums: &'a [F],
    pub(crate) d_o: &'a [F],
}

/// What [`Kernels::attention_backward`] writes.
pub(crate) struct AttendedMut<'a, F> {
    pub(crate) dq: &'a mut [F],
    pub(crate) dk: &'a mut [F],
    pub(crate) dv: &'a mut [F],
}

/// A cache as [`Kernels::attention_cached`] reads it.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a, F> {
    pub(crate) k: &'a [F],
    pub(crate) v: &'a [F],
    pub(crate) capacity: usize,
    pub(crate) length: usize,
}
