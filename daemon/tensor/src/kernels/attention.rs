//! Attention in blocks of query rows against the keys that any of them sees. Scores live for one block only; the backward
//! computes them again from the kept logarithms of their sums.

use std::ops::Range;

use rayon::prelude::*;

use super::product::{Cores, Matrix, MatrixMut, product};
use super::{Attended, AttendedMut, Cached, Heads, Scores, Spans, vector};
use crate::Float;

/// Query rows whose scores are in memory at a time.
const BLOCK: usize = 64;

/// One query head of one segment.
struct Head<'a, F> {
    q: &'a [F],
    k: &'a [F],
    v: &'a [F],
    width: usize,
    scores: Scores<F>,
    /// Keys before the first query row.
    offset: usize,
}

impl<F: Float> Head<'_, F> {
    /// The keys that a query row sees.
    #[inline(always)]
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.offset + row + 1;
        end.saturating_sub(self.scores.window)..end
    }

    /// The keys that any of these rows sees.
    fn seen_by(&self, rows: &Range<usize>) -> Range<usize> {
        self.seen(rows.start).start..self.offset + rows.end
    }

    /// These rows or keys of a matrix of heads.
    fn matrix<'b>(&self, whole: &'b [F], rows: &Range<usize>) -> Matrix<'b, F> {
        Matrix::new(&whole[rows.start * self.width..rows.end * self.width], self.width)
    }

    /// Scores of query rows with keys, whether they see them or not.
    fn scores(&self, rows: &Range<usize>, keys: &Range<usize>, out: &mut [F]) {
        let (q, k) = (self.matrix(self.q, rows), self.matrix(self.k, keys));
        product(MatrixMut::new(out, keys.len()), q, k.t(), self.scores.scale, false, Cores::One);
        if let Some(cap) = self.scores.cap {
            vector::fast(
                #[inline(always)]
                || vector::soft_cap(out, cap),
            );
        }
    }

    /// The forward of all rows; `sums` is empty where nothing will ask for a backward.
    fn attend(&self, o: &mut [F], sums: &mut [F], scratch: &mut Vec<F>) {
        let count = self.q.len() / self.width;
        for start in (0..count).step_by(BLOCK) {
            let rows = start..count.min(start + BLOCK);
            let keys = self.seen_by(&rows);
            let scores = room(scratch, rows.len() * keys.len());
            self.scores(&rows, &keys, scores);
            let mut inverse = [F::ZERO; BLOCK];
            vector::fast(
                #[inline(always)]
                || {
                    for (row, scores) in scores.chunks_mut(keys.len()).enumerate() {
                        let seen = self.seen(start + row);
                        let (before, scores) = scores.split_at_mut(seen.start - keys.start);
                        let (scores, after) = scores.split_at_mut(seen.len());
                        let most = vector::largest(scores);
                        let sum = vector::exponentials(scores, most);
                        before.fill(F::ZERO);
                        after.fill(F::ZERO);
                        inverse[row] = F::ONE / sum;
                        if let Some(kept) = sums.get_mut(start + row) {
                            *kept = most + sum.ln();
                        }
                    }
                },
            );
            let o = &mut o[rows.start * self.width..rows.end * self.width];
            let (p, v) = (Matrix::new(scores, keys.len()), self.matrix(self.v, &keys));
            product(MatrixMut::new(o, self.width), p, v, F::ONE, false, Cores::One);
            for (o, inverse) in o.chunks_mut(self.width).zip(inverse) {
                vector::multiply(o, inverse);
            }
        }
    }

    /// The backward of all rows: sets `dq`, adds to `dk` and `dv`.
    fn backward(&self, o: &[F], sums: &[F], d_o: &[F], out: AttendedMut<'_, F>, scratch: &mut Vec<F>) {
        let (width, count) = (self.width, self.q.len() / self.width);
        let Scores { scale, cap, .. } = self.scores;
        for start in (0..count).step_by(BLOCK) {
            let rows = start..count.min(start + BLOCK);
            let keys = self.seen_by(&rows);
            let size = rows.len() * keys.len();
            let (p, ds) = room(scratch, 2 * size).split_at_mut(size);
            let (q, k, v) =
                (self.matrix(self.q, &rows), self.matrix(self.k, &keys), self.matrix(self.v, &keys));
            let d_o_rows = self.matrix(d_o, &rows);
            self.scores(&rows, &keys, p);
            product(MatrixMut::new(ds, keys.len()), d_o_rows, v.t(), F::ONE, false, Cores::One);
            vector::fast(
                #[inline(always)]
                || {
                    let both = p.chunks_mut(keys.len()).zip(ds.chunks_mut(keys.len()));
                    for (row, (p, ds)) in (start..).zip(both) {
                        let seen = self.seen(row);
                        let seen = seen.start - keys.start..seen.end - keys.start;
                        let own = row * width..(row + 1) * width;
                        let (delta, sum) = (vector::dot(&d_o[own.clone()], &o[own]), sums[row]);
                        let both = p[seen.clone()].iter_mut().zip(&mut ds[seen.clone()]);
                        match cap.map(|cap| F::ONE / cap) {
                            None => both.for_each(|(p, ds)| {
                                *p = (*p - sum).exp();
                                *ds = *p * (*ds - delta) * scale;
                            }),
                            Some(inverse) => both.for_each(|(p, ds)| {
                                let share = *p * inverse;
                                *p = (*p - sum).exp();
                                *ds = *p * (*ds - delta) * scale * (F::ONE - share * share);
                            }),
                        }
                        for outside in [0..seen.start, seen.end..keys.len()] {
                            p[outside.clone()].fill(F::ZERO);
                            ds[outside].fill(F::ZERO);
                        }
                    }
                },
            );
            let (p, ds) = (Matrix::new(p, keys.len()), Matrix::new(ds, keys.len()));
            let dq = &mut out.dq[rows.start * width..rows.end * width];
            product(MatrixMut::new(dq, width), ds, k, F::ONE, false, Cores::One);
            let range = keys.start * width..keys.end * width;
            let dk = MatrixMut::new(&mut out.dk[range.clone()], width);
            product(dk, ds.t(), q, F::ONE, true, Cores::One);
            let dv = MatrixMut::new(&mut out.dv[range], width);
            product(dv, p.t(), d_o_rows, F::ONE, true, Cores::One);
        }
    }
}

/// The first `count` of a buffer that grows to what is asked of it.
fn room<F: Float>(scratch: &mut Vec<F>, count: usize) -> &mut [F] {
    if scratch.len() < count {
        scratch.resize(count, F::ZERO);
    }
    &mut scratch[..count]
}

/// Divides a buffer into parts of these lengths, in order.
fn divide<F>(mut whole: &mut [F], lengths: impl Iterator<Item = usize>) -> Vec<&mut [F]> {
    let mut parts = Vec::new();
    for length in lengths {
        let (part, rest) = std::mem::take(&mut whole).split_at_mut(length);
        parts.push(part);
        whole = rest;
    }
    parts
}

pub(super) fn forward<F: Float>(
    [q, k, v]: [&[F]; 3],
    spans: &Spans,
    heads: Heads,
    scores: Scores<F>,
    o: &mut [F],
    sums: &mut [F],
) {
    let (width, group) = (heads.width, heads.query / heads.key);
    let all = || spans.list.iter().flat_map(|span| (0..heads.query).map(move |head| (*span, head)));
    let o = divide(o, all().map(|((_, length), _)| length * width));
    let sums = divide(sums, all().map(|((_, length), _)| length));
    let work: Vec<_> = all().zip(o.into_iter().zip(sums)).collect();
    work.into_par_iter().with_max_len(1).for_each_init(
        Vec::new,
        |scratch, (((start, length), head), (o, sums))| {
            let size = length * width;
            let query = (start * heads.query + head * length) * width;
            let key = (start * heads.key + head / group * length) * width;
            let (q, k, v) = (&q[query..query + size], &k[key..key + size], &v[key..key + size]);
            Head { q, k, v, width, scores, offset: 0 }.attend(o, sums, scratch);
        },
    );
}

pub(super) fn backward<F: Float>(
    forward: Attended<'_, F>,
    spans: &Spans,
    heads: Heads,
    scores: Scores<F>,
    gradients: AttendedMut<'_, F>,
) {
    let (width, group) = (heads.width, heads.query / heads.key);
    let all = || spans.list.iter().flat_map(|span| (0..heads.key).map(move |head| (*span, head)));
    let dq = divide(gradients.dq, all().map(|((_, length), _)| group * length * width));
    let dk = divide(gradients.dk, all().map(|((_, length), _)| length * width));
    let dv = divide(gradients.dv, all().map(|((_, length), _)| length * width));
    let work: Vec<_> = all().zip(dq.into_iter().zip(dk.into_iter().zip(dv))).collect();
    // One task owns a key head with all its query heads, so that their sums have one order.
    work.into_par_iter().with_max_len(1).for_each_init(
        Vec::new,
        |scratch, (((start, length), head), (dq, (dk, dv)))| {
            let size = length * width;
            let key = (start * heads.key + head * length) * width;
            let (k, v) = (&forward.k[key..key + size], &forward.v[key..key + size]);
            dk.fill(F::ZERO);
            dv.fill(F::ZERO);
            for (member, dq) in dq.chunks_mut(size).enumerate() {
                let row = start * heads.query + (head * group + member) * length;
                let range = row * width..row * width + size;
                let (q, o, d_o) = (&forward.q[range.clone()], &forward.o[range.clone()], &forward.d_o[range]);
                let out = AttendedMut { dq, dk, dv };
                Head { q, k, v, width, scores, offset: 0 }.backward(
                    o,
                    &forward.sums[row..row + length],
                    d_o,
                    out,
                    scratch,
                );
            }
        },
    );
}

pub(super) fn cached<F: Float>(q: &[F], cache: Cached<'_, F>, heads: Heads, scores: Scores<F>, o: &mut [F]) {
    let (width, group) = (heads.width, heads.query / heads.key);
    let rows = q.len() / (heads.query * width);
    let work = q.par_chunks(rows * width).zip(o.par_chunks_mut(rows * width)).enumerate();
    work.with_max_len(1).for_each_init(Vec::new, |scratch, (head, (q, o))| {
        let start = head / group * cache.capacity * width;
        let range = start..start + cache.length * width;
        let (k, v) = (&cache.k[range.clone()], &cache.v[range]);
        Head { q, k, v, width, scores, offset: cache.length - rows }.attend(o, &mut [], scratch);
    });
}
