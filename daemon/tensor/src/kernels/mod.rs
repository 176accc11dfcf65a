//! The operations that touch every element, each with its backward: all that a device has to bring.
//!
//! Rows are tokens. `dy` is the gradient of the loss with respect to `y`. Every backward adds to the gradients that
//! it is given unless it says otherwise.

mod attention;
mod cpu;
mod glu;
mod int8;
mod product;
mod vector;
mod watch;

pub(crate) use cpu::Cpu;
pub(crate) use product::{FEW, Matrix, MatrixMut};
pub(crate) use vector::fast;
#[cfg(feature = "watch")]
pub use watch::{multiply, take_watched};

use moat_contracts::Activation;

use crate::held::{Held, Tiles};
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

/// How a query scores the keys that it may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scores<F> {
    /// What `q·k` is multiplied by.
    pub(crate) scale: F,
    /// `c` of `c tanh(s/c)`, where scores are capped.
    pub(crate) cap: Option<F>,
    /// Keys that a query sees, its own among them.
    pub(crate) window: usize,
}

/// Cosines and sines of the rotary angles of each segment's rows, `[rows, pairs]`.
#[derive(Clone, Debug)]
pub(crate) struct Rope<F> {
    pub(crate) cos: Vec<F>,
    pub(crate) sin: Vec<F>,
    /// Pairs of a head that are turned.
    pub(crate) pairs: usize,
}

/// Columns of a matrix, from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    pub(crate) first: usize,
    /// Columns of the whole matrix.
    pub(crate) width: usize,
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

    /// `out = left · weightᵀ`, or `out += …` with `add`, of [`FEW`] rows at most.
    fn product_held(&self, out: MatrixMut<'_, F>, left: Matrix<'_, F>, weight: &Held, add: bool);

    /// `out = left · weightᵀ`, or with `back` `out = left · weight`, or `out += …` with `add`: `left` is rounded to 8 bits, and
    /// the product is one of integers.
    fn product_int8(&self, out: &mut [F], left: &[F], weight: Tiles<'_>, back: bool, add: bool);

    /// `lengths[r] = √Σ_c x[r][c]²` of rows of this width.
    fn row_lengths(&self, x: &[F], width: usize, lengths: &mut [F]);

    /// `x[r][c] *= factors[r]` of rows of this width.
    fn scale_rows(&self, x: &mut [F], width: usize, factors: &[F]);

    /// `out[r][c] = factors[c] x[r][c]`.
    fn scale_columns(&self, x: &[F], factors: &[F], out: &mut [F]);

    /// `sums[c] += factors[c] Σ_r x[r][c] y[r][c]`.
    fn add_column_dots(&self, x: &[F], y: &[F], factors: &[F], sums: &mut [F]);

    /// `y[r][c] += bias[c]`.
    fn add_bias(&self, y: &mut [F], bias: &[F]);

    /// `y += x`.
    fn add(&self, y: &mut [F], x: &[F]);

    /// `x *= factor`.
    fn scale(&self, x: &mut [F], factor: F);

    /// `count` columns of `x` over as many of `out`.
    fn copy_columns(&self, x: &[F], from: Columns, count: usize, out: &mut [F], to: Columns);

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
    /// `(j, j + pairs)` turned by `position * frequency_j` (rotary position embedding, as Hugging Face lays it out) and
    /// what lies behind them left as it is.
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

    /// `o_i = Σ_j p_ij v_j` over the `window` positions `i − window < j ≤ i` of each segment and query head, in the layout
    /// of [`Kernels::to_heads`]: `p_i = softmax_j(s_ij)` with `s_ij = c tanh(scale q_i·k_j / c)`, or `scale q_i·k_j` where
    /// nothing caps them. Keeps `ln Σ_j exp(s_ij)` in `sums`, `[segment][head][row]`.
    fn attention(
        &self,
        qkv: [&[F]; 3],
        spans: &Spans,
        heads: Heads,
        scores: Scores<F>,
        o: &mut [F],
        sums: &mut [F],
    );

    /// With `p` computed again from `sums` and `δ_i = do_i·o_i`: `dv_j = Σ_i p_ij do_i`,
    /// `dt_ij = scale p_ij (do_i·v_j − δ_i) (1 − (s_ij/c)²)`, `dq_i = Σ_j dt_ij k_j`, `dk_j = Σ_i dt_ij q_i`, where key
    /// heads sum over their query heads. Overwrites `dq`, `dk` and `dv`.
    fn attention_backward(
        &self,
        forward: Attended<'_, F>,
        spans: &Spans,
        heads: Heads,
        scores: Scores<F>,
        gradients: AttendedMut<'_, F>,
    );

    /// New rows `q`, `[head][row][width]`, of one segment against a cache of `length` keys, `[head][capacity][width]`,
    /// of which the last belong to the new rows.
    fn attention_cached(&self, q: &[F], cache: Cached<'_, F>, heads: Heads, scores: Scores<F>, o: &mut [F]);

    /// `a = g σ(h(g)) u`, with `h` as [`Activation`] has it.
    fn glu(&self, activation: Activation, gate: &[F], up: &[F], out: &mut [F]);

    /// `dg = da u σ (1 + g (1 − σ) h'(g))` over `gate`, `du = da g σ` over `up`, and `a` itself, again, over `da`, with
    /// `σ = σ(h(g))`.
    fn glu_backward(&self, activation: Activation, gate: &mut [F], up: &mut [F], da: &mut [F]);

    /// `x = cap tanh(x/cap)`.
    fn soft_cap(&self, x: &mut [F], cap: F);

    /// `loss_r = ln Σ_c exp(y_rc) − y_r,target` with `y = cap tanh(z/cap)`, or `y = z` where there is no cap, of the
    /// logits `z`; with `scale` these become their gradients
    /// `scale (softmax(y_r)_c − [c = target]) (1 − (y_rc/cap)²)`.
    fn cross_entropy(
        &self,
        logits: &mut [F],
        targets: &[u32],
        cap: Option<F>,
        scale: Option<F>,
        losses: &mut [F],
    );

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
