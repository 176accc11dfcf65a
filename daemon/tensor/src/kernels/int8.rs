//! Products in 8-bit integers: rows, rounded block by block, with a weight that is held in tiles of 8 bits.
//!
//! ```text
//! y_rn = Σ_b s_rb t_bn Σ_{k in b} q_rk w_kn      b: blocks of 64 along k
//! ```
//!
//! The inner sums are integers and exact; the outer one is taken in 32-bit floats, block after block, so that machines with
//! and without AVX512-VNNI, and any number of threads, give the same bits. VNNI multiplies unsigned by signed bytes:
//! rows are kept as `q + 128`, and each sum begins at `−128 Σ_k w_kn`.

use rayon::prelude::*;

use super::fast;
use crate::Float;
use crate::held::{TILE, Tiles};

/// Rows that are multiplied with a panel at once: with 64 columns they fill the registers.
const ROWS: usize = 6;

/// Rows in 8 bits.
struct Rounded {
    /// `q + 128`, each row filled up with zeros to whole blocks.
    codes: Vec<u8>,
    /// One for each block of each row.
    scales: Vec<f32>,
    blocks: usize,
}

impl Rounded {
    fn of<F: Float>(x: &[F], width: usize) -> Self {
        let (rows, blocks) = (x.len() / width, width.div_ceil(TILE));
        let mut codes = vec![128; rows * blocks * TILE];
        let mut scales = vec![0.0; rows * blocks];
        let out = codes.par_chunks_mut(blocks * TILE).zip(scales.par_chunks_mut(blocks));
        out.zip(x.par_chunks(width)).with_min_len(8).for_each(|((codes, scales), x)| {
            fast(
                #[inline(always)]
                || {
                    for ((codes, scale), x) in codes.chunks_mut(TILE).zip(scales).zip(x.chunks(TILE)) {
                        *scale = round(x, codes);
                    }
                },
            );
        });
        Self { codes, scales, blocks }
    }
}

/// Rounds a block, and returns its scale.
#[inline(always)]
fn round<F: Float>(x: &[F], codes: &mut [u8]) -> f32 {
    let mut values = [0.0_f32; TILE];
    for (value, x) in values.iter_mut().zip(x) {
        *value = x.to_f64() as f32;
    }
    let mut lanes = [0.0_f32; 16];
    for part in values.as_chunks::<16>().0 {
        for (lane, value) in lanes.iter_mut().zip(part) {
            let size = value.abs();
            *lane = if size > *lane { size } else { *lane };
        }
    }
    let most = lanes.iter().fold(0.0_f32, |most, lane| if *lane > most { *lane } else { most });
    // What is no number must not be lost: it makes the whole row one that is none.
    if !values.iter().fold(0.0_f32, |sum, value| sum + value * 0.0).is_finite() {
        return f32::NAN;
    }
    // Smaller ones have no finite inverse.
    if most < 1e-30 {
        return 0.0;
    }
    let inverse = 127.0 / most;
    for (code, value) in codes.iter_mut().zip(&values) {
        *code = ((value * inverse).round_ties_even() as i32 + 128) as u8;
    }
    most / 127.0
}

/// A panel of 64 columns of the weight, all of its `k`, in the order in which it is multiplied:
/// `[block][k / 4][column][k % 4]`.
struct Panel {
    codes: Vec<i8>,
    /// `−128 Σ_k w_kn` of each block and column.
    starts: Vec<i32>,
    /// Scale of each block.
    scales: Vec<f32>,
}

impl Panel {
    fn new(blocks: usize) -> Self {
        Self {
            codes: vec![0; blocks * TILE * TILE],
            starts: vec![0; blocks * TILE],
            scales: vec![0.0; blocks],
        }
    }

    /// The `place`th of them: of columns that are outputs, or with `back` of columns that are inputs.
    #[inline(always)]
    fn fill(&mut self, weight: Tiles<'_>, back: bool, place: usize) {
        let across = weight.inputs.div_ceil(TILE);
        let first = place * TILE;
        let tiles = self.codes.chunks_mut(TILE * TILE).zip(self.starts.chunks_mut(TILE));
        for (block, ((codes, starts), scale)) in tiles.zip(&mut self.scales).enumerate() {
            let (row, column) = if back { (block * TILE, first) } else { (first, block * TILE) };
            *scale = weight.scales[row / TILE * across + column / TILE];
            let rows = TILE.min(weight.outputs - row);
            let columns = TILE.min(weight.inputs - column);
            let quads = codes.as_chunks_mut::<4>().0;
            let line = |offset: usize| &weight.codes[(row + offset) * weight.inputs + column..][..columns];
            if rows < TILE || columns < TILE {
                codes_of_edge(quads, rows, back, line);
            } else if back {
                // A line holds one k of all columns.
                for (four, quads) in quads.chunks_exact_mut(TILE).enumerate() {
                    let [a, b, c, d] = std::array::from_fn(|k| &line(4 * four + k)[..TILE]);
                    for (column, quad) in quads.iter_mut().enumerate() {
                        *quad = [a[column], b[column], c[column], d[column]];
                    }
                }
            } else {
                // A line holds all k of one column.
                for offset in 0..TILE {
                    let line = line(offset).as_chunks::<4>().0;
                    for (quad, four) in quads[offset..].iter_mut().step_by(TILE).zip(line) {
                        *quad = *four;
                    }
                }
            }
            let mut sums = [0_i32; TILE];
            for quads in codes.as_chunks::<4>().0.chunks_exact(TILE) {
                for (sum, [a, b, c, d]) in sums.iter_mut().zip(quads) {
                    *sum += i32::from(*a) + i32::from(*b) + i32::from(*c) + i32::from(*d);
                }
            }
            for (start, sum) in starts.iter_mut().zip(sums) {
                *start = -128 * sum;
            }
        }
    }
}

/// A tile that is cut off by the weight's edge, filled up with zeros.
fn codes_of_edge<'a>(quads: &mut [[i8; 4]], rows: usize, back: bool, line: impl Fn(usize) -> &'a [i8]) {
    quads.fill([0; 4]);
    for offset in 0..rows {
        for (place, code) in line(offset).iter().enumerate() {
            let (k, column) = if back { (offset, place) } else { (place, offset) };
            quads[k / 4 * TILE + column][k % 4] = *code;
        }
    }
}

/// `out = left · Wᵀ`, or with `back` `out = left · W`, or `out += …` with `add`; rows of `left` and `W` rounded to 8 bits.
pub(super) fn product_int8<F: Float>(out: &mut [F], left: &[F], weight: Tiles<'_>, back: bool, add: bool) {
    let (inner, columns) =
        if back { (weight.outputs, weight.inputs) } else { (weight.inputs, weight.outputs) };
    let rows = left.len() / inner;
    assert_eq!((left.len(), out.len()), (rows * inner, rows * columns), "shapes of a product");
    let rounded = Rounded::of(left, inner);
    // Whoever has more rows fills its panels less often.
    let share = rows.div_ceil(rayon::current_num_threads()).next_multiple_of(ROWS).max(8 * ROWS);
    let kernel = kernel();
    out.par_chunks_mut(share * columns).enumerate().for_each(|(chunk, out)| {
        let mut panel = Panel::new(rounded.blocks);
        let own = out.len() / columns;
        for place in 0..columns.div_ceil(TILE) {
            fast(
                #[inline(always)]
                || panel.fill(weight, back, place),
            );
            let width = TILE.min(columns - place * TILE);
            let mut row = 0;
            while row < own {
                let count = ROWS.min(own - row);
                let mut sums = [[0.0_f32; TILE]; ROWS];
                kernel(&rounded, chunk * share + row, &mut sums[..count], &panel);
                for (offset, sums) in sums[..count].iter().enumerate() {
                    let out = &mut out[(row + offset) * columns + place * TILE..][..width];
                    for (out, sum) in out.iter_mut().zip(sums) {
                        let value = F::from_f64(f64::from(*sum));
                        *out = if add { *out + value } else { value };
                    }
                }
                row += count;
            }
        }
    });
}

/// Multiplies some rows, from the one given on, with a panel.
type Kernel = fn(&Rounded, usize, &mut [[f32; TILE]], &Panel);

/// The best that this machine has; all give the same bits.
fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        return vnni::rows;
    }
    portable
}

/// For machines without VNNI.
fn portable(rounded: &Rounded, first: usize, sums: &mut [[f32; TILE]], panel: &Panel) {
    fast(
        #[inline(always)]
        || {
            let blocks = rounded.blocks;
            for (offset, sums) in sums.iter_mut().enumerate() {
                let row = first + offset;
                for block in 0..blocks {
                    let codes = &rounded.codes[(row * blocks + block) * TILE..][..TILE];
                    let mut whole = [0_i32; TILE];
                    whole.copy_from_slice(&panel.starts[block * TILE..][..TILE]);
                    let lines = panel.codes[block * TILE * TILE..][..TILE * TILE].chunks(4 * TILE);
                    for (four, line) in codes.as_chunks::<4>().0.iter().zip(lines) {
                        for (whole, codes) in whole.iter_mut().zip(line.as_chunks::<4>().0) {
                            for (left, right) in four.iter().zip(codes) {
                                *whole += i32::from(*left) * i32::from(*right);
                            }
                        }
                    }
                    let scale = rounded.scales[row * blocks + block] * panel.scales[block];
                    for (sum, whole) in sums.iter_mut().zip(whole) {
                        *sum += scale * whole as f32;
                    }
                }
            }
        },
    );
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{
        __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Panel, ROWS, Rounded, TILE};

    /// Vectors of 16 columns in a panel.
    const VECTORS: usize = TILE / 16;

    pub(super) fn rows(rounded: &Rounded, first: usize, sums: &mut [[f32; TILE]], panel: &Panel) {
        let blocks = rounded.blocks;
        assert!((first + sums.len()) * blocks <= rounded.scales.len());
        assert!(rounded.codes.len() == rounded.scales.len() * TILE && panel.scales.len() == blocks);
        assert!(panel.codes.len() == blocks * TILE * TILE && panel.starts.len() == blocks * TILE);
        let mut from = first;
        let (many, few) = sums.as_chunks_mut::<ROWS>();
        for sums in many {
            #[allow(unsafe_code)]
            // SAFETY: `kernel` took this for a machine that has both; the asserts keep every address inside its slice.
            unsafe {
                some(rounded, from, sums, panel);
            }
            from += ROWS;
        }
        for sums in few {
            #[allow(unsafe_code)]
            // SAFETY: as above.
            unsafe {
                some::<1>(rounded, from, std::array::from_mut(sums), panel);
            }
            from += 1;
        }
    }

    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn some<const N: usize>(
        rounded: &Rounded,
        first: usize,
        sums: &mut [[f32; TILE]; N],
        panel: &Panel,
    ) {
        let blocks = rounded.blocks;
        for block in 0..blocks {
            // SAFETY: the caller asserted the lengths of all slices for `blocks` and the rows from `first` on.
            unsafe {
                let starts = panel.starts.as_ptr().add(block * TILE);
                let mut line = panel.codes.as_ptr().add(block * TILE * TILE);
                let left: [*const u8; N] = std::array::from_fn(|row| {
                    rounded.codes.as_ptr().add(((first + row) * blocks + block) * TILE)
                });
                let start: [__m512i; VECTORS] =
                    std::array::from_fn(|vector| _mm512_loadu_si512(starts.add(16 * vector).cast()));
                let mut whole = [start; N];
                for four in 0..TILE / 4 {
                    let right: [__m512i; VECTORS] =
                        std::array::from_fn(|vector| _mm512_loadu_si512(line.add(64 * vector).cast()));
                    for row in 0..N {
                        let codes = left[row].add(4 * four).cast::<i32>().read_unaligned();
                        let codes = _mm512_set1_epi32(codes);
                        for vector in 0..VECTORS {
                            whole[row][vector] =
                                _mm512_dpbusd_epi32(whole[row][vector], codes, right[vector]);
                        }
                    }
                    line = line.add(4 * TILE);
                }
                for row in 0..N {
                    let scale = rounded.scales[(first + row) * blocks + block] * panel.scales[block];
                    let scale = _mm512_set1_ps(scale);
                    for (vector, whole) in whole[row].into_iter().enumerate() {
                        let sum = sums[row].as_mut_ptr().add(16 * vector);
                        let part = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(whole));
                        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), part));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use moat_contracts::Frozen;
    use proptest::prelude::*;

    use super::{Kernel, Panel, ROWS, Rounded, TILE, kernel, portable, product_int8};
    use crate::held::Held;
    use crate::kernels::{Cpu, Kernels, Matrix, MatrixMut};
    use crate::random::Random;

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    /// What rounding may cost: for each block half a step of every number of the row, times the weights as they are held.
    fn bound(row: &[f32], column: &[f32]) -> f64 {
        let blocks = row.chunks(TILE).zip(column.chunks(TILE));
        let of = |(row, column): (&[f32], &[f32])| {
            let most = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            f64::from(most) / 254.0 * column.iter().map(|value| f64::from(value.abs())).sum::<f64>()
        };
        1.01 * blocks.map(of).sum::<f64>() + 1e-5
    }

    proptest! {
        #[test]
        fn a_product_is_within_its_bound_of_the_exact_one(
            rows in 1_usize..30, outputs in 1_usize..150, inputs in 1_usize..200, back: bool, add: bool, seed: u64,
        ) {
            let weight = normal(outputs * inputs, seed);
            let held = Held::close(&weight, inputs, Frozen::Int8).unwrap();
            let mut opened = vec![0.0_f32; weight.len()];
            held.open(&mut opened);
            let (inner, columns) = if back { (outputs, inputs) } else { (inputs, outputs) };
            let (left, begun) = (normal(rows * inner, seed ^ 1), normal(rows * columns, seed ^ 2));
            let mut out = begun.clone();
            product_int8(&mut out, &left, held.tiles().unwrap(), back, add);
            for row in 0..rows {
                let left = &left[row * inner..][..inner];
                for column in 0..columns {
                    let place = |k: usize| if back { k * inputs + column } else { column * inputs + k };
                    let right: Vec<f32> = (0..inner).map(|k| opened[place(k)]).collect();
                    let exact: f64 = left.iter().zip(&right).map(|(l, r)| f64::from(*l) * f64::from(*r)).sum();
                    let at = row * columns + column;
                    let expected = exact + if add { f64::from(begun[at]) } else { 0.0 };
                    let error = (f64::from(out[at]) - expected).abs();
                    prop_assert!(error <= bound(left, &right), "{error} of {expected}");
                }
            }
        }
    }

    #[test]
    fn every_kernel_and_any_number_of_threads_give_the_same_bits() {
        let (rows, outputs, inputs) = (131, 200, 330);
        let held = Held::close(&normal(outputs * inputs, 3), inputs, Frozen::Int8).unwrap();
        let left = normal(rows * inputs, 4);
        let of = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; rows * outputs];
            pool.install(|| product_int8(&mut out, &left, held.tiles().unwrap(), false, false));
            out
        };
        let one = of(1);
        assert!([2, 3, 7].into_iter().all(|threads| of(threads) == one));
        let rounded = Rounded::of(&left, inputs);
        let mut panel = Panel::new(rounded.blocks);
        panel.fill(held.tiles().unwrap(), false, 1);
        let sums = |kernel: Kernel| {
            let mut sums = [[0.0_f32; TILE]; ROWS];
            kernel(&rounded, 17, &mut sums, &panel);
            kernel(&rounded, 40, &mut sums[..4], &panel);
            sums.map(|row| row.map(f32::to_bits))
        };
        assert_eq!(sums(kernel()), sums(portable));
    }

    #[test]
    fn what_is_no_number_stays_none_and_zeros_stay_zeros() {
        let held = Held::close(&normal(70 * 70, 3), 70, Frozen::Int8).unwrap();
        let mut left = normal(3 * 70, 4);
        left[75] = f32::NAN;
        left[140..].fill(0.0);
        let mut out = vec![1.0; 3 * 70];
        product_int8(&mut out, &left, held.tiles().unwrap(), false, false);
        assert!(out[..70].iter().all(|value| value.is_finite()));
        assert!(out[70..140].iter().all(|value| value.is_nan()));
        assert!(out[140..].iter().all(|value| *value == 0.0));
    }

    /// `cargo test --release -p moat-tensor --lib -- --ignored --nocapture rate_of_products`.
    #[test]
    #[ignore = "it measures, and asserts nothing"]
    #[allow(clippy::print_stdout)]
    fn rate_of_products() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for (rows, outputs, inputs) in [(512, 512, 512), (512, 1408, 512), (512, 2048, 2048)] {
            let weight = normal(outputs * inputs, 3);
            let held = Held::close(&weight, inputs, Frozen::Int8).unwrap();
            let (x, dy) = (normal(rows * inputs, 4), normal(rows * outputs, 5));
            let (mut y, mut dx) = (vec![0.0_f32; rows * outputs], vec![0.0_f32; rows * inputs]);
            let median = |work: &mut dyn FnMut()| {
                let mut seconds: Vec<f64> = (0..15)
                    .map(|_| {
                        let start = Instant::now();
                        work();
                        start.elapsed().as_secs_f64()
                    })
                    .collect();
                seconds.sort_by(f64::total_cmp);
                2e-9 * (rows * outputs * inputs) as f64 / seconds[7]
            };
            let tiles = held.tiles().unwrap();
            let [exact, forward, back] = pool.install(|| {
                let exact = median(&mut || {
                    let (x, w) = (Matrix::new(&x, inputs), Matrix::new(&weight, inputs));
                    Cpu.product(MatrixMut::new(&mut y, outputs), x, w.t(), 1.0, false);
                });
                let forward = median(&mut || product_int8(&mut y, &x, tiles, false, false));
                let back = median(&mut || product_int8(&mut dx, &dy, tiles, true, false));
                [exact, forward, back]
            });
            println!(
                "{rows} x {outputs} x {inputs}: f32 {exact:.0}, int8 {forward:.0} forward, {back:.0} back, G operations/s"
            );
        }
    }
}
