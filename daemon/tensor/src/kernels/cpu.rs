use rayon::prelude::*;

use moat_contracts::Activation;

use super::int8::product_int8;
use super::product::{Cores, few_rows_held, product};
use super::vector::{dot, dot3, exponentials, fast, largest, multiply, soft_cap, soft_cap_backward};
use super::watch::{Part, watch};
use super::{
    Attended, AttendedMut, Cached, Columns, Heads, Kernels, Matrix, MatrixMut, Scores, Spans, Turn,
    attention, glu,
};
use crate::held::{Held, Tiles};
use crate::{AdamW, Float};

/// Rows that one task takes. Fixed, so that sums over rows have one order on any number of cores.
const ROWS: usize = 32;
/// Numbers that one task takes where rows do not matter.
pub(super) const SPAN: usize = 16 * 1024;

/// The processor's own kernels, the reference for every other device. Work is divided over outputs on rayon's global
/// pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu;

/// Turns the pairs `(j, j + pairs)` of one head's row, by minus the angle if `back`, and copies what lies behind them.
#[inline(always)]
fn turn_row<F: Float>(x: &[F], cos: &[F], sin: &[F], back: bool, out: &mut [F]) {
    let pairs = cos.len();
    let ((x, rest), (out, out_rest)) = (x.split_at(2 * pairs), out.split_at_mut(2 * pairs));
    out_rest.copy_from_slice(rest);
    let ((low, high), (out_low, out_high)) = (x.split_at(pairs), out.split_at_mut(pairs));
    let sign = if back { -F::ONE } else { F::ONE };
    for ((((low, high), (out_low, out_high)), cos), sin) in
        low.iter().zip(high).zip(out_low.iter_mut().zip(out_high)).zip(cos).zip(sin)
    {
        let sin = sign * *sin;
        *out_low = *low * *cos - *high * sin;
        *out_high = *high * *cos + *low * sin;
    }
}

/// One head's row, the `row`th of its segment, turned or copied.
#[inline(always)]
fn place<F: Float>(x: &[F], row: usize, turn: Turn<'_, F>, out: &mut [F]) {
    let (rope, back) = match turn {
        Turn::None => return out.copy_from_slice(x),
        Turn::Forth(rope) => (rope, false),
        Turn::Back(rope) => (rope, true),
    };
    let range = row * rope.pairs..(row + 1) * rope.pairs;
    turn_row(x, &rope.cos[range.clone()], &rope.sin[range], back, out);
}

impl<F: Float> Kernels<F> for Cpu {
    fn product(
        &self,
        out: MatrixMut<'_, F>,
        left: Matrix<'_, F>,
        right: Matrix<'_, F>,
        factor: F,
        add: bool,
    ) {
        let _watched = watch(if left.is_thin() || right.is_thin() { Part::Thin } else { Part::Products });
        product(out, left, right, factor, add, Cores::All);
    }

    fn product_held(&self, out: MatrixMut<'_, F>, left: Matrix<'_, F>, weight: &Held, add: bool) {
        few_rows_held(out, left, weight, add);
    }

    fn product_int8(&self, out: &mut [F], left: &[F], weight: Tiles<'_>, back: bool, add: bool) {
        product_int8(out, left, weight, back, add);
    }

    fn row_lengths(&self, x: &[F], width: usize, lengths: &mut [F]) {
        let work = x.par_chunks(ROWS * width).zip(lengths.par_chunks_mut(ROWS));
        work.for_each(|(x, lengths)| {
            fast(
                #[inline(always)]
                || {
                    for (x, length) in x.chunks(width).zip(lengths) {
                        *length = dot(x, x).sqrt();
                    }
                },
            );
        });
    }

    fn scale_rows(&self, x: &mut [F], width: usize, factors: &[F]) {
        let work = x.par_chunks_mut(ROWS * width).zip(factors.par_chunks(ROWS));
        work.for_each(|(x, factors)| {
            fast(
                #[inline(always)]
                || {
                    for (x, factor) in x.chunks_mut(width).zip(factors) {
                        multiply(x, *factor);
                    }
                },
            );
        });
    }

    fn scale_columns(&self, x: &[F], factors: &[F], out: &mut [F]) {
        let width = factors.len();
        let work = x.par_chunks(ROWS * width).zip(out.par_chunks_mut(ROWS * width));
        work.for_each(|(x, out)| {
            fast(
                #[inline(always)]
                || {
                    for (x, out) in x.chunks(width).zip(out.chunks_mut(width)) {
                        for ((x, factor), out) in x.iter().zip(factors).zip(out) {
                            *out = *factor * *x;
                        }
                    }
                },
            );
        });
    }

    fn add_column_dots(&self, x: &[F], y: &[F], factors: &[F], sums: &mut [F]) {
        const COLUMNS: usize = 256;
        let width = factors.len();
        sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, sums)| {
            fast(
                #[inline(always)]
                || {
                    let mut own = [F::ZERO; COLUMNS];
                    for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                        let (x, y) = (&x[chunk * COLUMNS..], &y[chunk * COLUMNS..]);
                        for ((own, x), y) in own.iter_mut().zip(x).zip(y) {
                            *own += *x * *y;
                        }
                    }
                    for ((sum, own), factor) in sums.iter_mut().zip(own).zip(&factors[chunk * COLUMNS..]) {
                        *sum += *factor * own;
                    }
                },
            );
        });
    }

    fn add_bias(&self, y: &mut [F], bias: &[F]) {
        let _watched = watch(Part::Rest);
        y.par_chunks_mut(ROWS * bias.len()).for_each(|y| {
            fast(
                #[inline(always)]
                || {
                    for y in y.chunks_mut(bias.len()) {
                        for (y, bias) in y.iter_mut().zip(bias) {
                            *y += *bias;
                        }
                    }
                },
            );
        });
    }

    fn add(&self, y: &mut [F], x: &[F]) {
        let _watched = watch(Part::Rest);
        y.par_chunks_mut(SPAN).zip(x.par_chunks(SPAN)).for_each(|(y, x)| {
            fast(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y += *x;
                    }
                },
            );
        });
    }

    fn scale(&self, x: &mut [F], factor: F) {
        let _watched = watch(Part::Rest);
        x.par_chunks_mut(SPAN).for_each(|x| {
            fast(
                #[inline(always)]
                || multiply(x, factor),
            );
        });
    }

    fn copy_columns(&self, x: &[F], from: Columns, count: usize, out: &mut [F], to: Columns) {
        let _watched = watch(Part::Rest);
        let work = out.par_chunks_mut(ROWS * to.width).zip(x.par_chunks(ROWS * from.width));
        work.for_each(|(out, x)| {
            for (out, x) in out.chunks_mut(to.width).zip(x.chunks(from.width)) {
                out[to.first..to.first + count].copy_from_slice(&x[from.first..from.first + count]);
            }
        });
    }

    fn add_column_sums(&self, x: &[F], sums: &mut [F]) {
        let _watched = watch(Part::Rest);
        let columns = sums.len();
        sums.par_chunks_mut(256).enumerate().for_each(|(chunk, sums)| {
            fast(
                #[inline(always)]
                || {
                    for row in x.chunks(columns) {
                        for (sum, x) in sums.iter_mut().zip(&row[chunk * 256..]) {
                            *sum += *x;
                        }
                    }
                },
            );
        });
    }

    fn rms_norm(&self, x: &[F], weight: &[F], epsilon: F, y: &mut [F], scales: &mut [F]) {
        let _watched = watch(Part::Norms);
        let width = weight.len();
        let share = F::from_f64(1.0 / width as f64);
        let work =
            x.par_chunks(ROWS * width).zip(y.par_chunks_mut(ROWS * width)).zip(scales.par_chunks_mut(ROWS));
        work.for_each(|((x, y), scales)| {
            fast(
                #[inline(always)]
                || {
                    for ((x, y), kept) in x.chunks(width).zip(y.chunks_mut(width)).zip(scales) {
                        let scale = F::ONE / (dot(x, x) * share + epsilon).sqrt();
                        *kept = scale;
                        for ((x, y), weight) in x.iter().zip(y).zip(weight) {
                            *y = *x * scale * *weight;
                        }
                    }
                },
            );
        });
    }

    fn rms_norm_backward(
        &self,
        x: &[F],
        weight: &[F],
        scales: &[F],
        dy: &[F],
        dx: &mut [F],
        dweight: Option<&mut [F]>,
    ) {
        let _watched = watch(Part::Norms);
        let width = weight.len();
        let share = F::from_f64(1.0 / width as f64);
        let size = ROWS * width;
        let work = x
            .par_chunks(size)
            .zip(dy.par_chunks(size))
            .zip(dx.par_chunks_mut(size))
            .zip(scales.par_chunks(ROWS));
        work.for_each(|(((x, dy), dx), scales)| {
            fast(
                #[inline(always)]
                || {
                    for (((x, dy), dx), scale) in
                        x.chunks(width).zip(dy.chunks(width)).zip(dx.chunks_mut(width)).zip(scales)
                    {
                        let back = dot3(weight, dy, x) * *scale * *scale * *scale * share;
                        for (((x, dy), dx), weight) in x.iter().zip(dy).zip(dx).zip(weight) {
                            *dx += *scale * *weight * *dy - *x * back;
                        }
                    }
                },
            );
        });
        let Some(dweight) = dweight else { return };
        let parts: Vec<Vec<F>> = x
            .par_chunks(8 * size)
            .zip(dy.par_chunks(8 * size))
            .zip(scales.par_chunks(8 * ROWS))
            .map(|((x, dy), scales)| {
                let mut part = vec![F::ZERO; width];
                fast(
                    #[inline(always)]
                    || {
                        for ((x, dy), scale) in x.chunks(width).zip(dy.chunks(width)).zip(scales) {
                            for ((part, x), dy) in part.iter_mut().zip(x).zip(dy) {
                                *part += *dy * *x * *scale;
                            }
                        }
                    },
                );
                part
            })
            .collect();
        for part in parts {
            for (sum, part) in dweight.iter_mut().zip(part) {
                *sum += part;
            }
        }
    }

    fn to_heads(
        &self,
        rows: &[F],
        spans: &Spans,
        heads: usize,
        width: usize,
        turn: Turn<'_, F>,
        out: &mut [F],
    ) {
        let _watched = watch(Part::Heads);
        let mut rest = out;
        let mut work = Vec::new();
        for (start, length) in &spans.list {
            let (segment, after) = std::mem::take(&mut rest).split_at_mut(length * heads * width);
            work.extend(
                segment.chunks_mut(length * width).enumerate().map(|(head, out)| (*start, head, out)),
            );
            rest = after;
        }
        work.into_par_iter().for_each(|(start, head, out)| {
            fast(
                #[inline(always)]
                || {
                    for (row, out) in out.chunks_mut(width).enumerate() {
                        let x = &rows[((start + row) * heads + head) * width..][..width];
                        place(x, row, turn, out);
                    }
                },
            );
        });
    }

    fn to_rows(
        &self,
        heads: &[F],
        spans: &Spans,
        count: usize,
        width: usize,
        turn: Turn<'_, F>,
        out: &mut [F],
    ) {
        let _watched = watch(Part::Heads);
        let mut rest = out;
        let mut work = Vec::new();
        for (start, length) in &spans.list {
            let (segment, after) = std::mem::take(&mut rest).split_at_mut(length * count * width);
            let parts = segment.chunks_mut(ROWS * count * width).enumerate();
            work.extend(parts.map(|(part, out)| (*start, *length, part * ROWS, out)));
            rest = after;
        }
        work.into_par_iter().for_each(|(start, length, first, out)| {
            fast(
                #[inline(always)]
                || {
                    for (index, out) in out.chunks_mut(width).enumerate() {
                        let (row, head) = (first + index / count, index % count);
                        let x = &heads[(start * count + head * length + row) * width..][..width];
                        place(x, row, turn, out);
                    }
                },
            );
        });
    }

    fn attention(
        &self,
        qkv: [&[F]; 3],
        spans: &Spans,
        heads: Heads,
        scores: Scores<F>,
        o: &mut [F],
        sums: &mut [F],
    ) {
        let _watched = watch(Part::Attention);
        attention::forward(qkv, spans, heads, scores, o, sums);
    }

    fn attention_backward(
        &self,
        forward: Attended<'_, F>,
        spans: &Spans,
        heads: Heads,
        scores: Scores<F>,
        gradients: AttendedMut<'_, F>,
    ) {
        let _watched = watch(Part::Attention);
        attention::backward(forward, spans, heads, scores, gradients);
    }

    fn attention_cached(&self, q: &[F], cache: Cached<'_, F>, heads: Heads, scores: Scores<F>, o: &mut [F]) {
        let _watched = watch(Part::Attention);
        attention::cached(q, cache, heads, scores, o);
    }

    fn glu(&self, activation: Activation, gate: &[F], up: &[F], out: &mut [F]) {
        let _watched = watch(Part::Gated);
        glu::forward(activation, gate, up, out);
    }

    fn glu_backward(&self, activation: Activation, gate: &mut [F], up: &mut [F], da: &mut [F]) {
        let _watched = watch(Part::Gated);
        glu::backward(activation, gate, up, da);
    }

    fn soft_cap(&self, x: &mut [F], cap: F) {
        let _watched = watch(Part::Loss);
        x.par_chunks_mut(SPAN).for_each(|x| {
            fast(
                #[inline(always)]
                || soft_cap(x, cap),
            );
        });
    }

    fn cross_entropy(
        &self,
        logits: &mut [F],
        targets: &[u32],
        cap: Option<F>,
        scale: Option<F>,
        losses: &mut [F],
    ) {
        let _watched = watch(Part::Loss);
        let width = logits.len() / targets.len();
        let work = logits.par_chunks_mut(4 * width).zip(targets.par_chunks(4)).zip(losses.par_chunks_mut(4));
        work.for_each_init(Vec::new, |capped, ((logits, targets), losses)| {
            fast(
                #[inline(always)]
                || {
                    for ((logits, target), loss) in logits.chunks_mut(width).zip(targets).zip(losses) {
                        let target = *target as usize;
                        if let Some(cap) = cap {
                            soft_cap(logits, cap);
                            capped.clear();
                            capped.extend_from_slice(logits);
                        }
                        let (most, chosen) = (largest(logits), logits[target]);
                        let sum = exponentials(logits, most);
                        *loss = sum.ln() + (most - chosen);
                        if let Some(scale) = scale {
                            multiply(logits, scale / sum);
                            logits[target] += -scale;
                        }
                        if let (Some(cap), Some(_)) = (cap, scale) {
                            soft_cap_backward(capped, cap, logits);
                        }
                    }
                },
            );
        });
    }

    fn gather(&self, table: &[F], index: &[u32], width: usize, out: &mut [F]) {
        let _watched = watch(Part::Rest);
        out.par_chunks_mut(ROWS * width).zip(index.par_chunks(ROWS)).for_each(|(out, index)| {
            for (out, index) in out.chunks_mut(width).zip(index) {
                out.copy_from_slice(&table[*index as usize * width..][..width]);
            }
        });
    }

    fn scatter_add(&self, rows: &[F], index: &[u32], width: usize, table: &mut [F]) {
        let _watched = watch(Part::Rest);
        const PART: usize = 256;
        // A task owns a range of the table and looks for it in all rows: repeated indices add up in one order.
        table.par_chunks_mut(PART * width).enumerate().for_each(|(part, table)| {
            let range = part * PART..(part + 1) * PART;
            for (row, index) in rows.chunks(width).zip(index) {
                if range.contains(&(*index as usize)) {
                    let table = &mut table[(*index as usize - range.start) * width..][..width];
                    for (sum, value) in table.iter_mut().zip(row) {
                        *sum += *value;
                    }
                }
            }
        });
    }

    fn adamw(&self, theta: &mut [F], g: &[F], m: &mut [F], v: &mut [F], settings: AdamW, step: u64) {
        let _watched = watch(Part::Rest);
        let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
        let step = step as f64;
        let keep = F::from_f64(1.0 - learning_rate * weight_decay);
        let size = F::from_f64(learning_rate / (1.0 - beta1.powf(step)));
        let correction = F::from_f64((1.0 - beta2.powf(step)).sqrt());
        let (first, second) = (F::from_f64(1.0 - beta1), F::from_f64(1.0 - beta2));
        let (beta2, epsilon) = (F::from_f64(beta2), F::from_f64(epsilon));
        let work = theta
            .par_chunks_mut(SPAN)
            .zip(g.par_chunks(SPAN))
            .zip(m.par_chunks_mut(SPAN).zip(v.par_chunks_mut(SPAN)));
        work.for_each(|((theta, g), (m, v))| {
            fast(
                #[inline(always)]
                || {
                    for ((theta, g), (m, v)) in theta.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
                        *m += first * (*g - *m);
                        *v = beta2 * *v + second * *g * *g;
                        *theta = keep * *theta - size * *m / (v.sqrt() / correction + epsilon);
                    }
                },
            );
        });
    }
}
