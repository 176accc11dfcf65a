use moat_contracts::Sampling;

use crate::ServeError;

/// Refuses settings that no token can be drawn by.
pub(crate) fn check(sampling: &Sampling) -> Result<(), ServeError> {
    let wrong = |key, value: String, remedy| Err(ServeError::Sampling { key, value, remedy });
    let Sampling { temperature, top_p, max_tokens, .. } = sampling;
    if !temperature.is_finite() || *temperature < 0.0 {
        return wrong("temperature", temperature.to_string(), "it must be a number of at least 0");
    }
    if !(*top_p > 0.0 && *top_p <= 1.0) {
        return wrong("top_p", top_p.to_string(), "it must be above 0 and at most 1");
    }
    if *max_tokens == 0 {
        return wrong("max_tokens", max_tokens.to_string(), "it must be at least 1");
    }
    Ok(())
}

/// Draws tokens for one answer.
pub(crate) struct Sampler {
    temperature: f64,
    top_p: f64,
    random: Random,
}

impl Sampler {
    pub(crate) fn new(sampling: &Sampling) -> Self {
        Self { temperature: sampling.temperature, top_p: sampling.top_p, random: Random(sampling.seed) }
    }

    /// The next token and the natural logarithm of its probability under the model, before temperature and nucleus.
    /// `None` where a logit is no number.
    pub(crate) fn draw(&mut self, logits: &[f32]) -> Option<(u32, f64)> {
        let best = likeliest(logits)?;
        let highest = f64::from(logits[best]);
        let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
        let token = if self.temperature == 0.0 { best } else { self.nucleus(logits, highest) };
        let logprob = f64::from(logits[token]) - highest - sum.ln();
        Some((u32::try_from(token).ok()?, logprob))
    }

    /// From the smallest set of tokens that has `top_p` of the probability (Holtzman et al. 2019).
    fn nucleus(&mut self, logits: &[f32], highest: f64) -> usize {
        let weight = |logit: f32| ((f64::from(logit) - highest) / self.temperature).exp();
        let mut weights: Vec<(f64, usize)> =
            logits.iter().enumerate().map(|(token, logit)| (weight(*logit), token)).collect();
        let all: f64 = weights.iter().map(|(weight, _)| weight).sum();
        let mut kept = all;
        if self.top_p < 1.0 {
            // Equally likely tokens stand in the order of their ids, so that a set is the same everywhere.
            weights.sort_unstable_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
            kept = 0.0;
            let enough = weights.iter().take_while(|(weight, _)| {
                let missing = kept < self.top_p * all;
                kept += if missing { *weight } else { 0.0 };
                missing
            });
            let count = enough.count();
            weights.truncate(count);
        }
        let mut point = self.random.uniform() * kept;
        let last = weights.last().map_or(0, |(_, token)| *token);
        let hit = weights.into_iter().find(|(weight, _)| {
            point -= weight;
            point < 0.0
        });
        hit.map_or(last, |(_, token)| token)
    }
}

/// The first of the highest logits.
fn likeliest(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return None;
        }
        if *logit > logits[best] {
            best = token;
        }
    }
    (!logits.is_empty()).then_some(best)
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// In [0, 1), by 53 bits.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use moat_contracts::Sampling;

    use super::{Sampler, check};

    fn sampling(temperature: f64, top_p: f64, seed: u64) -> Sampling {
        Sampling { temperature, top_p, seed, max_tokens: 1 }
    }

    /// Logits of probabilities 0.5, 0.3, 0.15, 0.05.
    fn logits() -> Vec<f32> {
        [0.15f32, 0.5, 0.05, 0.3].map(f32::ln).to_vec()
    }

    fn shares(temperature: f64, top_p: f64) -> [f64; 4] {
        let mut sampler = Sampler::new(&sampling(temperature, top_p, 11));
        let mut counts = [0.0; 4];
        for _ in 0..40_000 {
            counts[sampler.draw(&logits()).unwrap().0 as usize] += 1.0 / 40_000.0;
        }
        counts
    }

    fn near(found: [f64; 4], expected: [f64; 4]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.012)
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely() {
        assert!(near(shares(1.0, 1.0), [0.15, 0.5, 0.05, 0.3]));
        // Temperature 1/2 squares the probabilities: 0.0225, 0.25, 0.0025, 0.09 of 0.365.
        assert!(near(shares(0.5, 1.0), [0.0616, 0.6849, 0.0068, 0.2466]));
        // The smallest set with 0.75 is {0.5, 0.3}.
        assert!(near(shares(1.0, 0.75), [0.0, 0.625, 0.0, 0.375]));
        assert!(near(shares(1.0, 0.3), [0.0, 1.0, 0.0, 0.0]));
    }

    #[test]
    fn without_temperature_the_first_of_the_likeliest_is_taken() {
        let mut sampler = Sampler::new(&sampling(0.0, 1.0, 1));
        let (token, logprob) = sampler.draw(&logits()).unwrap();
        assert!(token == 1 && (logprob - 0.5f64.ln()).abs() < 1e-6);
        assert_eq!(sampler.draw(&[1.0, 2.0, 2.0]).unwrap().0, 1);
        assert_eq!(sampler.draw(&[1.0, f32::NAN]), None);
        assert_eq!(sampler.draw(&[]), None);
    }

    #[test]
    fn settings_without_sense_are_refused() {
        check(&sampling(0.0, 1.0, 1)).unwrap();
        for (temperature, top_p) in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, 1.1), (1.0, f64::NAN)] {
            assert!(check(&sampling(temperature, top_p, 1)).is_err());
        }
        assert!(check(&Sampling { max_tokens: 0, ..sampling(1.0, 1.0, 1) }).is_err());
    }
}
