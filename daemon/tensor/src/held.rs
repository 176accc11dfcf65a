//! Frozen weights that are held in fewer bits than they are computed in, and opened where they are multiplied.

use half::bf16;
use moat_contracts::Frozen;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::kernels::fast;
use crate::{Float, Folder, TensorError};

/// Numbers of NF4 that share a scale: consecutive ones, as bitsandbytes takes them.
const BLOCK: usize = 64;
/// Outputs and inputs of the tiles of int8 that share a scale: blocks in either direction, so that forward and backward
/// multiply by the same numbers.
pub(crate) const TILE: usize = 64;
/// Numbers that one task opens; a multiple of [`BLOCK`].
const SPAN: usize = 16 * 1024;
/// Largest absolute value below which a tile is zero: its inverse would not be finite.
const SMALLEST: f32 = 1e-30;

/// The 16 levels of NF4: quantiles of a normal distribution, scaled to −1 to 1, with an exact 0 (Dettmers et al., QLoRA,
/// arXiv 2305.14314, appendix E).
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The levels of both numbers of a byte, the first in its upper half.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut code = 0;
    while code < 256 {
        pairs[code] = [LEVELS[code >> 4], LEVELS[code & 15]];
        code += 1;
    }
    pairs
};

/// A linear's weight, `[outputs, inputs]`, in fewer bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    form: Form,
    outputs: usize,
    inputs: usize,
}

/// A weight in tiles of 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    /// Row by row.
    pub(crate) codes: &'a [i8],
    /// Row by row of tiles.
    pub(crate) scales: &'a [f32],
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Bf16(Vec<bf16>),
    /// Rows of codes, and the scale of each tile, row by row of tiles: `scale · code`, code from −127 to 127.
    Int8(Vec<i8>, Vec<f32>),
    /// Two codes a byte, and the scale of each block: `scale · level`.
    Nf4(Vec<u8>, Vec<f32>),
}

/// Bytes of a weight as it is held.
pub(crate) fn bytes(frozen: Frozen, outputs: usize, inputs: usize) -> u64 {
    let count = outputs * inputs;
    let bytes = match frozen {
        Frozen::F32 => 4 * count,
        Frozen::Bf16 => 2 * count,
        Frozen::Int8 => count + 4 * outputs.div_ceil(TILE) * inputs.div_ceil(TILE),
        Frozen::Nf4 => count.div_ceil(2) + 4 * count.div_ceil(BLOCK),
    };
    bytes as u64
}

impl Held {
    /// Rounds a weight; `None` where it is to be held as it is, or holds what is no number.
    pub(crate) fn close(values: &[f32], inputs: usize, frozen: Frozen) -> Option<Self> {
        let outputs = values.len() / inputs;
        if frozen == Frozen::F32 || !values.par_iter().with_min_len(SPAN).all(|value| value.is_finite()) {
            return None;
        }
        let form = match frozen {
            Frozen::F32 => return None,
            Frozen::Bf16 => Form::Bf16(values.par_iter().map(|value| bf16::from_f32(*value)).collect()),
            Frozen::Int8 => close_int8(values, inputs),
            Frozen::Nf4 => close_nf4(values),
        };
        Some(Self { form, outputs, inputs })
    }

    /// Numbers that it holds.
    pub(crate) fn count(&self) -> usize {
        self.outputs * self.inputs
    }

    /// Its tiles, where it is held so.
    pub(crate) fn tiles(&self) -> Option<Tiles<'_>> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        match &self.form {
            Form::Int8(codes, scales) => Some(Tiles { codes, scales, outputs, inputs }),
            Form::Bf16(_) | Form::Nf4(..) => None,
        }
    }

    /// The whole weight, row by row.
    pub(crate) fn open<F: Float>(&self, out: &mut [F]) {
        out.par_chunks_mut(SPAN).enumerate().for_each(|(chunk, out)| self.open_from(chunk * SPAN, out));
    }

    /// One row of it.
    pub(crate) fn open_row<F: Float>(&self, row: usize, out: &mut [F]) {
        self.open_from(row * self.inputs, out);
    }

    /// As many numbers as there is room for, from the `first` on.
    fn open_from<F: Float>(&self, first: usize, out: &mut [F]) {
        fast(
            #[inline(always)]
            || match &self.form {
                Form::Bf16(values) => {
                    for (out, value) in out.iter_mut().zip(&values[first..]) {
                        *out = number(f32::from_bits(u32::from(value.to_bits()) << 16));
                    }
                }
                Form::Int8(codes, scales) => {
                    let (mut at, end) = (first, first + out.len());
                    while at < end {
                        let (row, column) = (at / self.inputs, at % self.inputs);
                        let tile = row / TILE * self.inputs.div_ceil(TILE) + column / TILE;
                        let length = (TILE - column % TILE).min(self.inputs - column).min(end - at);
                        let scale = scales[tile];
                        let codes = &codes[at..at + length];
                        for (out, code) in out[at - first..][..length].iter_mut().zip(codes) {
                            *out = number(scale * f32::from(*code));
                        }
                        at += length;
                    }
                }
                Form::Nf4(codes, scales) if first.is_multiple_of(BLOCK) => {
                    let blocks = out.chunks_mut(BLOCK).zip(&scales[first / BLOCK..]);
                    for ((out, scale), codes) in blocks.zip(codes[first / 2..].chunks(BLOCK / 2)) {
                        for (out, code) in out.chunks_mut(2).zip(codes) {
                            for (out, level) in out.iter_mut().zip(PAIRS[usize::from(*code)]) {
                                *out = number(scale * level);
                            }
                        }
                    }
                }
                Form::Nf4(codes, scales) => {
                    for (at, out) in (first..).zip(out) {
                        let level = PAIRS[usize::from(codes[at / 2])][at % 2];
                        *out = number(scales[at / BLOCK] * level);
                    }
                }
            },
        );
    }

    /// A number that changes with any of its bits.
    pub(crate) fn sum(&self) -> u64 {
        // Fowler, Noll and Vo's mixing, in words for bytes.
        let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3);
        let scaled = |sum: u64, scales: &[f32]| {
            scales.iter().fold(sum, |sum, scale| mix(sum, u64::from(scale.to_bits())))
        };
        match &self.form {
            Form::Bf16(values) => values.iter().fold(1, |sum, value| mix(sum, u64::from(value.to_bits()))),
            Form::Int8(codes, scales) => {
                scaled(codes.iter().fold(2, |sum, code| mix(sum, u64::from(code.cast_unsigned()))), scales)
            }
            Form::Nf4(codes, scales) => {
                scaled(codes.iter().fold(3, |sum, code| mix(sum, u64::from(*code))), scales)
            }
        }
    }
}

#[inline(always)]
fn number<F: Float>(value: f32) -> F {
    F::from_f64(f64::from(value))
}

fn close_int8(values: &[f32], inputs: usize) -> Form {
    let across = inputs.div_ceil(TILE);
    let mut codes = vec![0; values.len()];
    let mut scales = vec![0.0_f32; values.len().div_ceil(inputs * TILE) * across];
    let bands = codes.par_chunks_mut(inputs * TILE).zip(values.par_chunks(inputs * TILE));
    bands.zip(scales.par_chunks_mut(across)).for_each(|((codes, values), scales)| {
        fast(
            #[inline(always)]
            || {
                for row in values.chunks(inputs) {
                    for (scale, values) in scales.iter_mut().zip(row.chunks(TILE)) {
                        *scale = values.iter().fold(*scale, |most, value| most.max(value.abs()));
                    }
                }
                for (codes, values) in codes.chunks_mut(inputs).zip(values.chunks(inputs)) {
                    let tiles = codes.chunks_mut(TILE).zip(values.chunks(TILE)).zip(&*scales);
                    for ((codes, values), most) in tiles {
                        let inverse = if *most < SMALLEST { 0.0 } else { 127.0 / most };
                        for (code, value) in codes.iter_mut().zip(values) {
                            *code = (value * inverse).round_ties_even() as i8;
                        }
                    }
                }
                for scale in scales {
                    *scale = if *scale < SMALLEST { 0.0 } else { *scale / 127.0 };
                }
            },
        );
    });
    Form::Int8(codes, scales)
}

fn close_nf4(values: &[f32]) -> Form {
    let mut codes = vec![0; values.len().div_ceil(2)];
    let mut scales = vec![0.0; values.len().div_ceil(BLOCK)];
    let blocks = codes.par_chunks_mut(BLOCK / 2).zip(values.par_chunks(BLOCK)).zip(scales.par_iter_mut());
    blocks.with_min_len(64).for_each(|((codes, values), scale)| {
        fast(
            #[inline(always)]
            || {
                *scale = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let divisor = if *scale > 0.0 { *scale } else { 1.0 };
                let mut near = [nearest(0.0); BLOCK];
                for (near, value) in near.iter_mut().zip(values) {
                    *near = nearest(value / divisor);
                }
                for (code, near) in codes.iter_mut().zip(near.as_chunks::<2>().0) {
                    *code = near[0] << 4 | near[1];
                }
            },
        );
    });
    Form::Nf4(codes, scales)
}

/// The nearest of [`LEVELS`], the lower of two as near: how many of the middles between them lie below.
#[inline(always)]
fn nearest(value: f32) -> u8 {
    let mut code = 0;
    for pair in LEVELS.windows(2) {
        code += u8::from(value > 0.5 * (pair[0] + pair[1]));
    }
    code
}

/// The file beside an adapter that tells how the base was held which it was trained on.
const NOTE: &str = "moat.json";

impl Folder {
    /// Notes beside an adapter how its base's linears were held. Nothing is written where they were whole.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn note_frozen(&self, frozen: Frozen) -> Result<(), TensorError> {
        if frozen == Frozen::F32 {
            return Ok(());
        }
        let note = json!({ "frozen": frozen.word() });
        self.write(NOTE, |into| std::io::Write::write_all(into, format!("{note:#}\n").as_bytes())).map(drop)
    }

    /// How the base's linears were held which the adapter in this folder was trained on.
    ///
    /// # Errors
    /// Those of [`Folder::read`], and [`TensorError::Format`].
    pub fn frozen(&self) -> Result<Frozen, TensorError> {
        if !self.has(NOTE) {
            return Ok(Frozen::F32);
        }
        let format = || self.damaged(NOTE, "it does not say how the base was held".to_owned());
        let note: Value = serde_json::from_slice(&self.read(NOTE)?).map_err(|_| format())?;
        let word = note["frozen"].as_str().ok_or_else(format)?;
        Frozen::ALL.into_iter().find(|frozen| frozen.word() == word).ok_or_else(format)
    }
}

#[cfg(test)]
mod tests {
    use moat_contracts::Frozen;
    use proptest::prelude::*;

    use super::{BLOCK, Form, Held, LEVELS, TILE, bytes, nearest};
    use crate::random::Random;

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..count).map(|_| (0.3 * random.normal()) as f32).collect()
    }

    /// `scripts/parity.d/nf4.py` made it with bitsandbytes.
    #[test]
    fn nf4_is_that_of_bitsandbytes_code_for_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frozen/nf4.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| -> Vec<f32> {
            let (numbers, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let values = numbers("values");
        let held = Held::close(&values, values.len(), Frozen::Nf4).unwrap();
        let mut opened = vec![0.0_f32; values.len()];
        held.open(&mut opened);
        let Form::Nf4(codes, scales) = held.form else { panic!() };
        assert_eq!(scales, numbers("scales"));
        assert_eq!(codes, file.tensor("codes").unwrap().data());
        assert_eq!(opened, numbers("opened"));
    }

    #[test]
    fn each_level_is_its_own_nearest_and_halves_the_way_to_the_next() {
        for (code, level) in LEVELS.iter().enumerate() {
            assert_eq!(usize::from(nearest(*level)), code);
        }
        for (code, pair) in LEVELS.windows(2).enumerate() {
            let middle = 0.5 * (pair[0] + pair[1]);
            assert_eq!(usize::from(nearest(middle)), code);
            assert_eq!(usize::from(nearest(middle.next_up())), code + 1);
        }
    }

    proptest! {
        #[test]
        fn what_is_opened_is_near_what_was_closed(
            outputs in 1_usize..150, inputs in 1_usize..150, seed: u64,
        ) {
            let values = normal(outputs * inputs, seed);
            for frozen in Frozen::ALL.into_iter().filter(|frozen| *frozen != Frozen::F32) {
                let held = Held::close(&values, inputs, frozen).unwrap();
                let mut whole = vec![0.0_f32; values.len()];
                held.open(&mut whole);
                let mut row = vec![0.0_f32; inputs];
                for output in 0..outputs {
                    held.open_row(output, &mut row);
                    prop_assert_eq!(&row[..], &whole[output * inputs..][..inputs]);
                }
                let mut doubles = vec![0.0_f64; values.len()];
                held.open(&mut doubles);
                prop_assert!(doubles.iter().zip(&whole).all(|(double, single)| *double as f32 == *single));
                for (place, (value, opened)) in values.iter().zip(&whole).enumerate() {
                    let bound = match &held.form {
                        Form::Bf16(_) => value.abs() / 256.0,
                        Form::Int8(_, scales) => {
                            let (row, column) = (place / inputs, place % inputs);
                            0.501 * scales[row / TILE * inputs.div_ceil(TILE) + column / TILE]
                        }
                        // Half of the widest gap between two levels, −1 and −0.696.
                        Form::Nf4(_, scales) => 0.152 * scales[place / BLOCK],
                    };
                    prop_assert!((value - opened).abs() <= bound, "{frozen:?} {value} {opened} {bound}");
                }
                let again = Held::close(&whole, inputs, frozen).unwrap();
                let mut twice = vec![0.0_f32; values.len()];
                again.open(&mut twice);
                if frozen != Frozen::Int8 {
                    prop_assert_eq!(&twice, &whole);
                }
                let taken = match &held.form {
                    Form::Bf16(values) => 2 * values.len(),
                    Form::Int8(codes, scales) => codes.len() + 4 * scales.len(),
                    Form::Nf4(codes, scales) => codes.len() + 4 * scales.len(),
                };
                prop_assert_eq!(taken as u64, bytes(frozen, outputs, inputs));
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_is_refused() {
        for frozen in [Frozen::Bf16, Frozen::Int8, Frozen::Nf4] {
            let mut opened = vec![1.0_f32; 200];
            Held::close(&[0.0; 200], 50, frozen).unwrap().open(&mut opened);
            assert!(opened.iter().all(|value| *value == 0.0), "{frozen:?}");
            let tiny = [f32::MIN_POSITIVE / 4.0; 128];
            Held::close(&tiny, 64, frozen).unwrap().open(&mut opened[..128]);
            assert!(opened.iter().all(|value| value.abs() < 1e-30), "{frozen:?}");
            for wrong in [f32::NAN, f32::INFINITY] {
                let mut values = [0.5; 128];
                values[77] = wrong;
                assert_eq!(Held::close(&values, 64, frozen), None);
            }
        }
    }
}
