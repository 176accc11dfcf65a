use moat_contracts::RopeScaling;

use crate::Float;
use crate::kernels::Rope;

/// Rotary tables for `positions` positions from `first`. Frequencies and angles are rounded to `f32` before the cosine, as
/// transformers does, so that far positions agree with the peers that load our weights.
pub(crate) fn table<F: Float>(rope: &moat_contracts::Rope, first: usize, positions: usize) -> Rope<F> {
    let frequencies = frequencies(rope);
    let length = match &rope.scaling {
        Some(RopeScaling::LongRope { attention_factor, .. }) => *attention_factor,
        _ => 1.0,
    };
    let angles = (first..first + positions)
        .flat_map(|position| frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency)));
    let (cos, sin) =
        angles.map(|angle| (F::from_f64(length * angle.cos()), F::from_f64(length * angle.sin()))).unzip();
    Rope { cos, sin, pairs: rope.width / 2 }
}

/// `θ^(−2j/width)` for each pair, stretched as the configuration says.
fn frequencies(rope: &moat_contracts::Rope) -> Vec<f32> {
    let plain = (0..rope.width / 2).map(|pair| rope.theta.powf(-2.0 * pair as f64 / rope.width as f64));
    let stretched = plain.enumerate().map(|(pair, frequency)| match &rope.scaling {
        None => frequency,
        Some(RopeScaling::Linear { factor }) => frequency / factor,
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position }) => {
            let turns = *original_max_position as f64 * frequency / std::f64::consts::TAU;
            if turns < *low_freq_factor {
                frequency / factor
            } else if turns > *high_freq_factor {
                frequency
            } else {
                let share = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - share) * frequency / factor + share * frequency
            }
        }
        Some(RopeScaling::LongRope { divisors, .. }) => frequency / divisors[pair],
    });
    stretched.map(|frequency| frequency as f32).collect()
}

#[cfg(test)]
mod tests {
    use moat_contracts::{Rope, RopeScaling};

    use super::frequencies;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let stretched = |scaling| frequencies(&Rope { theta: 500_000.0, scaling, width: 64 });
        let plain = stretched(None);
        let linear = stretched(Some(RopeScaling::Linear { factor: 4.0 }));
        let llama3 = stretched(Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        }));
        for (pair, plain) in plain.iter().enumerate() {
            assert_eq!(linear[pair], plain / 4.0);
            let wavelength = std::f32::consts::TAU / plain;
            if wavelength < 8192.0 / 4.0 {
                assert_eq!(llama3[pair], *plain, "{pair}");
            } else if wavelength > 8192.0 {
                assert_eq!(llama3[pair], plain / 8.0, "{pair}");
            } else {
                assert!(llama3[pair] < *plain && llama3[pair] > plain / 8.0, "{pair}");
            }
        }
    }
}
