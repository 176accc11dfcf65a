//! Attention in blocks of query rows against all keys that they may see. Scores live for one block only; the backward
//! computes them again from the kept logarithms of their sums.

use rayon::prelude::*;

use super::product::{Cores, Matrix, MatrixMut, product};
use super::{Attended, AttendedMut, Cached, Heads, Spans, vector};
use crate::Float;

/// Query rows whose scores are in memory at a time.
const BLOCK: usize = 64;

/// One query head of one segment.
struct Head<'a, F> {
    q: &'a [F],
    k: &'a [F],
    v: &'a [F],
    width: usize,
    /// Keys before the first query row.
    offset: usize,
}

impl<F: Float> Head<'_, F> {
    fn scale(&self) -> F {
        F::ONE / F::from_f64(self.width as f64).sqrt()
    }

    /// Scaled scores of query rows `start..end` with the `seen` keys that the last of them may see.
    fn scores(&self, start: usize, end: usize, seen: usize, out: &mut [F]) {
        let q = Matrix::new(&self.q[start * self.width..end * self.width], self.width);
        let k = Matrix::new(&self.k[..seen * self.width], self.width);
        product(MatrixMut::new(out, seen), q, k.t(), self.scale(), false, Cores::One);
    }

    /// The forward of all rows; `sums` is empty where nothing will ask for a backward.
    fn attend(&self, o: &mut [F], sums: &mut [F], scratch: &mut Vec<F>) {
        let rows = self.q.len() / self.width;
        for start in (0..rows).step_by(BLOCK) {
            let end = rows.min(start + BLOCK);
            let seen = self.offset + end;
            let scores = room(scratch, (end - start) * seen);
            self.scores(start, end, seen, scores);
            let mut inverse = [F::ZERO; BLOCK];
            vector::fast(
                #[inline(always)]
                || {
                    for (row, scores) in scores.chunks_mut(seen).enumerate() {
                        let visible = self.offset + start + row + 1;
                        let most = vector::largest(&scores[..visible]);
                        let sum = vector::exponentials(&mut scores[..visible], most);
                        scores[visible..].fill(F::ZERO);
                        inverse[row] = F::ONE / sum;
                        if let Some(kept) = sums.get_mut(start + row) {
                            *kept = most + sum.ln();
                        }
                    }
                },
            );
            let o = &mut o[start * self.width..end * self.width];
            let (p, v) = (Matrix::new(scores, seen), Matrix::new(&self.v[..seen * self.width], self.width));
            product(MatrixMut::new(o, self.width), p, v, F::ONE, false, Cores::One);
            for (o, inverse) in o.chunks_mut(self.width).zip(inverse) {
                vector::multiply(o, inverse);
            }
        }
    }

    /// The backward of all rows: sets `dq`, adds to `dk` and `dv`.
    fn backward(&self, o: &[F], sums: &[F], d_o: &[F], out: AttendedMut<'_, F>, scratch: &mut Vec<F>) {
        let (width, rows) = (self.width, self.q.len() / self.width);
        for start in (0..rows).step_by(BLOCK) {
            let end = rows.min(start + BLOCK);
            let (count, range) = (end - start, start * width..end * width);
            let (p, ds) = room(scratch, 2 * count * end).split_at_mut(count * end);
            let (q, d_o) = (Matrix::new(&self.q[range.clone()], width), &d_o[range.clone()]);
            let k = Matrix::new(&self.k[..end * width], width);
            let v = Matrix::new(&self.v[..end * width], width);
            self.scores(start, end, end, p);
            product(MatrixMut::new(ds, end), Matrix::new(d_o, width), v.t(), F::ONE, false, Cores::One);
            let (o, scale) = (&o[range.clone()], self.scale());
            vector::fast(
                #[inline(always)]
                || {
                    for (row, (p, ds)) in p.chunks_mut(end).zip(ds.chunks_mut(end)).enumerate() {
                        let visible = start + row + 1;
                        let (own, sum) = (row * width..(row + 1) * width, sums[start + row]);
                        let delta = vector::dot(&d_o[own.clone()], &o[own]);
                        for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
                            *p = (*p - sum).exp();
                            *ds = *p * (*ds - delta) * scale;
                        }
                        p[visible..].fill(F::ZERO);
                        ds[visible..].fill(F::ZERO);
                    }
                },
            );
            let (p, ds) = (Matrix::new(p, end), Matrix::new(ds, end));
            product(MatrixMut::new(&mut out.dq[range], width), ds, k, F::ONE, false, Cores::One);
            let dk = MatrixMut::new(&mut out.dk[..end * width], width);
            product(dk, ds.t(), q, F::ONE, true, Cores::One);
            let dv = MatrixMut::new(&mut out.dv[..end * width], width);
            product(dv, p.t(), Matrix::new(d_o, width), F::ONE, true, Cores::One);
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
            Head { q, k, v, width, offset: 0 }.attend(o, sums, scratch);
        },
    );
}

pub(super) fn backward<F: Float>(
    forward: Attended<'_, F>,
    spans: &Spans,
    heads: Heads,
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
                Head { q, k, v, width, offset: 0 }.backward(
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

pub(super) fn cached<F: Float>(q: &[F], cache: Cached<'_, F>, heads: Heads, o: &mut [F]) {
    let (width, group) = (heads.width, heads.query / heads.key);
    let rows = q.len() / (heads.query * width);
    let work = q.par_chunks(rows * width).zip(o.par_chunks_mut(rows * width)).enumerate();
    work.with_max_len(1).for_each_init(Vec::new, |scratch, (head, (q, o))| {
        let start = head / group * cache.capacity * width;
        let range = start..start + cache.length * width;
        let (k, v) = (&cache.k[range.clone()], &cache.v[range]);
        Head { q, k, v, width, offset: cache.length - rows }.attend(o, &mut [], scratch);
    });
}
