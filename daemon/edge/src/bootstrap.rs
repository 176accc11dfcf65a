use moat_contracts::{DocumentLoss, Interval};
use rayon::prelude::*;

/// What one record adds to a ratio: bits saved over bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saving {
    pub(crate) bits: f64,
    pub(crate) bytes: f64,
}

impl Saving {
    /// Bits that the tuned model saves on a record.
    pub(crate) fn of(loss: &DocumentLoss) -> Self {
        let bits = (loss.base_nats - loss.tuned_nats) / std::f64::consts::LN_2;
        Self { bits, bytes: loss.bytes as f64 }
    }

    /// A record of which a share is asked rather than bits.
    pub(crate) fn share(right: f64) -> Self {
        Self { bits: right, bytes: 1.0 }
    }

    /// Bits lost instead.
    pub(crate) fn reversed(self) -> Self {
        Self { bits: -self.bits, ..self }
    }
}

/// The ratio of sums with its percentile bootstrap interval. Each resample has a random stream of its own, so that
/// the result does not depend on how threads share them.
pub(crate) fn interval(records: &[Saving], resamples: u32, confidence: f64, seed: u64) -> Interval {
    let ratio = |bits: f64, bytes: f64| bits / bytes;
    let value = ratio(
        records.iter().map(|record| record.bits).sum(),
        records.iter().map(|record| record.bytes).sum(),
    );
    let mut values: Vec<f64> = (0..u64::from(resamples))
        .into_par_iter()
        .map(|resample| {
            let mut random = Random::new(seed, resample);
            let (mut bits, mut bytes) = (0.0, 0.0);
            for _ in 0..records.len() {
                let record = records[random.below(records.len())];
                bits += record.bits;
                bytes += record.bytes;
            }
            ratio(bits, bytes)
        })
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Interval { value, low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

/// The second ratio of sums less the first, with its percentile bootstrap interval: records are drawn with both their
/// parts, so that what makes a record hard for both counts for nothing.
pub(crate) fn difference(records: &[[Saving; 2]], resamples: u32, confidence: f64, seed: u64) -> Interval {
    let less = |sums: [Saving; 2]| sums[1].bits / sums[1].bytes - sums[0].bits / sums[0].bytes;
    let add = |sums: [Saving; 2], record: &[Saving; 2]| {
        [0, 1].map(|at| Saving {
            bits: sums[at].bits + record[at].bits,
            bytes: sums[at].bytes + record[at].bytes,
        })
    };
    let none = [Saving { bits: 0.0, bytes: 0.0 }; 2];
    let mut values: Vec<f64> = (0..u64::from(resamples))
        .into_par_iter()
        .map(|resample| {
            let mut random = Random::new(seed, resample);
            less((0..records.len()).fold(none, |sums, _| add(sums, &records[random.below(records.len())])))
        })
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let value = less(records.iter().fold(none, add));
    Interval { value, low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

/// The quantile of sorted values, linear between neighbours (Hyndman and Fan's type 7).
fn quantile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    values[below] + (place - below as f64) * (values[above] - values[below])
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A stream that is told apart from others of the same seed by its number.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut first = Self(seed);
        let mixed = first.next() ^ stream;
        Self(Self(mixed).next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, every number as likely as any other but for one part in 2^64 / limit.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Saving, interval};

    fn uniform(random: &mut Random) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// By Box and Muller.
    fn normal(random: &mut Random) -> f64 {
        let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
        radius * (std::f64::consts::TAU * uniform(random)).cos()
    }

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut random = Random(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        // Records of skewed lengths, whose savings a byte scatter around a truth of 0.03 bits.
        let truth = 0.03;
        let worlds = 600;
        for confidence in [0.8, 0.95] {
            let mut covered = 0;
            for world in 0..worlds {
                let mut random = Random::new(7, world);
                let records: Vec<Saving> = (0..80)
                    .map(|_| {
                        let bytes = (6.0 + 0.8 * normal(&mut random)).exp().ceil();
                        Saving { bits: bytes * (truth + 0.1 * normal(&mut random)), bytes }
                    })
                    .collect();
                let found = interval(&records, 500, confidence, world);
                assert!(found.low <= found.value && found.value <= found.high);
                covered += u64::from(found.low <= truth && truth <= found.high);
            }
            let share = covered as f64 / worlds as f64;
            // A percentile interval of 80 skewed records runs a little short; 600 worlds scatter by 0.016 at most.
            assert!((confidence - 0.06..confidence + 0.04).contains(&share), "{share} for {confidence}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_gives_another() {
        let records: Vec<Saving> =
            (0..50).map(|n| Saving { bits: f64::from(n % 7), bytes: f64::from(1 + n % 5) }).collect();
        assert_eq!(interval(&records, 300, 0.9, 1), interval(&records, 300, 0.9, 1));
        assert_ne!(interval(&records, 300, 0.9, 1).low, interval(&records, 300, 0.9, 2).low);
    }
}
