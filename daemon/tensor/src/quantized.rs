use rayon::prelude::*;

use crate::Float;
use crate::optimizer::AdamW;

/// Numbers that share a scale.
const BLOCK: usize = 256;

/// Numbers in 8 bits each: the nearest of 256 levels, scaled by the largest of its block (Dettmers et al., "8-bit
/// Optimizers via Block-wise Quantization", arXiv 2110.02861, sections 2.1 and 2.2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantized {
    pub(crate) codes: Vec<u8>,
    /// One a block.
    pub(crate) scales: Vec<f32>,
}

impl Quantized {
    /// Zeros.
    pub(crate) fn zeros(count: usize, levels: &Levels) -> Self {
        Self { codes: vec![levels.nearest(0.0); count], scales: vec![0.0; count.div_ceil(BLOCK)] }
    }
}

/// The levels of dynamic tree quantisation, rising: seven decades of absolute values, each cut twice as finely as the one
/// below it, so that small numbers keep their size and large ones their digits; 0 and 1 are among them.
#[derive(Clone, Debug)]
pub(crate) struct Levels(Vec<f32>);

impl Levels {
    /// From −1 to 1, for the first moment.
    pub(crate) fn signed() -> Self {
        let above = decades(0);
        let below = above.iter().map(|level| -level);
        Self::of(below.chain(above.iter().copied()).collect())
    }

    /// From 0 to 1, for the second moment, which has no sign and takes its bit.
    pub(crate) fn unsigned() -> Self {
        Self::of(decades(1))
    }

    fn of(mut levels: Vec<f32>) -> Self {
        levels.extend([0.0, 1.0]);
        levels.sort_unstable_by(f32::total_cmp);
        Self(levels)
    }

    fn nearest(&self, value: f32) -> u8 {
        let above = self.0.partition_point(|level| *level < value).clamp(1, self.0.len() - 1);
        let (low, high) = (self.0[above - 1], self.0[above]);
        let place = if value - low <= high - value { above - 1 } else { above };
        // There are 256 levels at most.
        place as u8
    }

    fn value(&self, code: u8) -> f32 {
        self.0[usize::from(code)]
    }
}

/// Middles of the equal parts that 0.1 to 1 is cut into, for each of seven powers of ten.
fn decades(more_bits: u32) -> Vec<f32> {
    let decade = |exponent: u32| {
        let parts = 1_u32 << (exponent + more_bits);
        let size = 10_f64.powi(exponent.cast_signed() - 6);
        (0..parts).map(move |part| (size * (0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts))) as f32)
    };
    (0..7).flat_map(decade).collect()
}

/// One step of AdamW on one tensor whose moments are held in 8 bits: they are opened block by block, and the update is that
/// of the exact ones.
pub(crate) fn adamw<F: Float>(
    theta: &mut [F],
    gradient: &[F],
    first: (&mut Quantized, &Levels),
    second: (&mut Quantized, &Levels),
    settings: AdamW,
    step: u64,
) {
    let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
    let step = step as f64;
    let keep = (1.0 - learning_rate * weight_decay) as f32;
    let size = (learning_rate / (1.0 - beta1.powf(step))) as f32;
    let correction = (1.0 - beta2.powf(step)).sqrt() as f32;
    let (beta1, beta2, epsilon) = (beta1 as f32, beta2 as f32, epsilon as f32);
    let ((m, signed), (v, unsigned)) = (first, second);
    let blocks = theta.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let m = m.codes.par_chunks_mut(BLOCK).zip(m.scales.par_iter_mut());
    let v = v.codes.par_chunks_mut(BLOCK).zip(v.scales.par_iter_mut());
    // One task takes several blocks, or handing them out would cost more than they do.
    blocks.zip(m.zip(v)).with_min_len(16).for_each(|((theta, gradient), ((m, m_scale), (v, v_scale)))| {
        let (mut opened_m, mut opened_v) = ([0.0_f32; BLOCK], [0.0_f32; BLOCK]);
        for (place, (theta, gradient)) in theta.iter_mut().zip(gradient).enumerate() {
            let gradient = gradient.to_f64() as f32;
            let m = beta1 * *m_scale * signed.value(m[place]) + (1.0 - beta1) * gradient;
            let v = beta2 * *v_scale * unsigned.value(v[place]) + (1.0 - beta2) * gradient * gradient;
            let moved = keep * theta.to_f64() as f32 - size * m / (v.sqrt() / correction + epsilon);
            *theta = F::from_f64(f64::from(moved));
            (opened_m[place], opened_v[place]) = (m, v);
        }
        close(&opened_m[..theta.len()], m, m_scale, signed);
        close(&opened_v[..theta.len()], v, v_scale, unsigned);
        // A second moment that is not zero must not become it: the step would be divided by next to nothing.
        for (code, value) in v.iter_mut().zip(&opened_v) {
            *code = if *value > 0.0 { (*code).max(1) } else { *code };
        }
    });
}

fn close(values: &[f32], codes: &mut [u8], scale: &mut f32, levels: &Levels) {
    *scale = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = levels.nearest(value * inverse);
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Levels, close};
    use crate::random::Random;

    #[test]
    fn the_levels_are_256_from_end_to_end_and_each_is_its_own_nearest() {
        for (levels, lowest) in [(Levels::signed(), -0.993), (Levels::unsigned(), 0.0)] {
            assert_eq!(levels.0.len(), 256);
            assert!(levels.0.windows(2).all(|pair| pair[0] < pair[1]));
            assert!((levels.0[0] - lowest).abs() < 1e-3 && levels.0[255] == 1.0, "{}", levels.0[0]);
            for (code, level) in levels.0.iter().enumerate() {
                assert_eq!(usize::from(levels.nearest(*level)), code);
                assert_eq!(levels.value(code as u8), *level);
            }
            assert_eq!(levels.value(levels.nearest(0.0)), 0.0);
        }
    }

    /// Small numbers beside a large one keep their size: a linear scale would take them for zero.
    #[test]
    fn numbers_of_five_decades_come_back_near() {
        let mut random = Random::new(3);
        let levels = Levels::signed();
        let values: Vec<f32> =
            (0..BLOCK).map(|place| (random.normal() * 10_f64.powi(-(place as i32 % 5))) as f32).collect();
        let (mut codes, mut scale) = ([0; BLOCK], 0.0);
        close(&values, &mut codes, &mut scale, &levels);
        for (value, code) in values.iter().zip(codes) {
            let error = (scale * levels.value(code) - value).abs();
            assert!(
                error <= 0.02 * scale && error <= 0.6 * value.abs() + 1e-6 * scale,
                "{value} of {scale}: {error}"
            );
        }
    }
}
