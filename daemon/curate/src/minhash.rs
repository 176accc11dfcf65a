use moat_contracts::Duplicates;

use crate::words::{Words, mix};

/// Makes MinHash signatures (Broder 1997) of a text's word shingles.
///
/// A shingle's 64-bit hash chains the hashes of its words. Hash number k of it is `low * a[k] + high * b[k]` modulo
/// 2^32 over its two halves (vector multiply, Thorup), with odd factors drawn from SplitMix64 seeded with a constant;
/// the signature holds the least value of each. No step depends on the machine.
#[derive(Clone, Debug)]
pub struct MinHash {
    shingle: usize,
    bands: usize,
    rows: usize,
    low: Vec<u32>,
    high: Vec<u32>,
}

impl MinHash {
    /// The hash functions for these rules.
    pub fn new(rules: &Duplicates) -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let (bands, rows) = (size(rules.bands), size(rules.rows));
        let factors = |stream: u64| {
            let draw = |index: u64| {
                let state = (2 * index + stream + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (mix(state) >> 32) as u32 | 1
            };
            (0..(bands * rows) as u64).map(draw).collect()
        };
        Self { shingle: size(rules.shingle).max(1), bands, rows, low: factors(0), high: factors(1) }
    }

    /// The signature; empty where there are fewer words than one shingle has, so that only equal texts are the same.
    pub fn signature(&self, words: &Words) -> Vec<u32> {
        if words.len() < self.shingle {
            return Vec::new();
        }
        let mut signature = vec![u32::MAX; self.low.len()];
        for run in words.hashes.windows(self.shingle) {
            let hash = run.iter().fold(0, |hash, word| mix(hash ^ word).wrapping_add(word.rotate_left(32)));
            let (low, high) = (hash as u32, (hash >> 32) as u32);
            for ((least, a), b) in signature.iter_mut().zip(&self.low).zip(&self.high) {
                *least = (*least).min(low.wrapping_mul(*a).wrapping_add(high.wrapping_mul(*b)));
            }
        }
        signature
    }

    /// One hash for each band of a signature; none where the signature is empty or made under other rules.
    pub fn bands(&self, signature: &[u32]) -> Vec<u64> {
        if signature.len() != self.bands * self.rows {
            return Vec::new();
        }
        let band = |(index, rows): (usize, &[u32])| {
            rows.iter().fold(mix(index as u64 + 1), |hash, &row| {
                mix(hash ^ u64::from(row)).wrapping_add(0x9E37_79B9_7F4A_7C15)
            })
        };
        signature.chunks_exact(self.rows).enumerate().map(band).collect()
    }
}

/// Estimated Jaccard similarity of two shingle sets: the share of equal hashes; 0 where there is nothing to compare.
pub fn similarity(a: &[u32], b: &[u32]) -> f64 {
    if a.is_empty() || a.len() != b.len() {
        return 0.0;
    }
    let equal = a.iter().zip(b).map(|(a, b)| u32::from(a == b)).sum::<u32>();
    f64::from(equal) / a.len() as f64
}

#[cfg(test)]
mod tests {
    use moat_contracts::{Digest, Duplicates};

    use super::{MinHash, similarity};
    use crate::words::Words;

    fn signature(text: &str) -> Vec<u32> {
        let mut words = Words::default();
        words.read(text);
        MinHash::new(&Duplicates::default()).signature(&words)
    }

    /// Two texts of which the first `shared` of 1000 words are the same, the rest foreign: their shingle sets share
    /// `shared - 4` of `1996 - (shared - 4)`.
    fn pair(trial: usize, shared: usize) -> (String, String, f64) {
        let word = |side: &str, index: usize| format!("w{trial}{side}{index}");
        let text = |side: &str| {
            let words = (0..1000).map(|index| word(if index < shared { "" } else { side }, index));
            words.collect::<Vec<_>>().join(" ")
        };
        let common = (shared - 4) as f64;
        (text("a"), text("b"), common / (2.0 * 996.0 - common))
    }

    #[test]
    fn the_estimate_is_unbiased_and_as_sharp_as_112_independent_hashes() {
        for shared in [250, 500, 750, 900, 980] {
            let trials = 300;
            let mut errors = Vec::new();
            let mut truth = 0.0;
            for trial in 0..trials {
                let (a, b, jaccard) = pair(trial, shared);
                truth = jaccard;
                errors.push(similarity(&signature(&a), &signature(&b)) - jaccard);
            }
            let mean = errors.iter().sum::<f64>() / f64::from(trials as u32);
            let variance = errors.iter().map(|error| error * error).sum::<f64>() / f64::from(trials as u32);
            let expected = truth * (1.0 - truth) / 112.0;
            // Four standard errors of the mean; the variance of 300 draws lies within a third of its expectation.
            assert!(mean.abs() < 4.0 * (expected / f64::from(trials as u32)).sqrt(), "{shared}: bias {mean}");
            assert!((0.66..1.5).contains(&(variance / expected)), "{shared}: {}", variance / expected);
        }
    }

    #[test]
    fn the_hash_functions_are_the_same_on_every_machine() {
        let bytes: Vec<u8> = signature("the quick brown fox jumps over the lazy dog, große Füße")
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(Digest::of(&bytes).short(), "bbcc6253a92e");
    }

    #[test]
    fn short_texts_have_no_signature_and_other_rules_no_bands() {
        assert_eq!(signature("only four words here"), Vec::<u32>::new());
        assert_eq!(signature("now it is five words").len(), 112);
        let hashes = MinHash::new(&Duplicates::default());
        assert_eq!(hashes.bands(&signature("now it is five words")).len(), 14);
        assert_eq!(hashes.bands(&[1, 2, 3]), Vec::<u64>::new());
        assert!((similarity(&[], &[])).abs() < f64::EPSILON);
    }
}
