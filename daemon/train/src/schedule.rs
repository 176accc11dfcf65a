use moat_contracts::{DecayShape, OptimizerRecipe, Schedule};

/// The learning rate of the step that comes after `done` of `steps`: a linear warm-up from 0 (left out, so that no
/// step is wasted) to the peak, then what the schedule says. With `p` the way done, from 0 to 1, and `f` the
/// `final_share`, in shares of the peak:
///
/// - constant: 1;
/// - linear: `f + (1 − f)(1 − p)` over all steps after the warm-up;
/// - cosine: `f + (1 − f)(1 + cos πp)/2` over the same (Loshchilov and Hutter, arXiv 1608.03983, without restarts);
/// - wsd: 1 until the last share `decay` of all steps, then down to `f` by the decay's shape over `p` of these (Hu et
///   al., MiniCPM, arXiv 2404.06395, section 4; `1 − √p` from Hägele et al., arXiv 2405.18392).
///
/// transformers' schedulers give the same where they have a start that is not left out: at `done + 1` of `steps + 1` steps
/// with one more of warm-up.
pub fn learning_rate(recipe: &OptimizerRecipe, done: u64, steps: u64) -> f64 {
    let warmup = (recipe.warmup * steps as f64).round();
    let done = done as f64;
    if done < warmup {
        return recipe.learning_rate * (done + 1.0) / (warmup + 1.0);
    }
    let after = |start: f64| ((done - start) / (steps as f64 - start).max(1.0)).clamp(0.0, 1.0);
    let left = match recipe.schedule {
        Schedule::Constant => return recipe.learning_rate,
        Schedule::Linear => 1.0 - after(warmup),
        Schedule::Cosine => cosine(after(warmup)),
        Schedule::Wsd => {
            let decay = (recipe.decay * steps as f64).round();
            let way = after((steps as f64 - decay).max(warmup));
            match recipe.decay_shape {
                DecayShape::Linear => 1.0 - way,
                DecayShape::Cosine => cosine(way),
                DecayShape::OneMinusSqrt => 1.0 - way.sqrt(),
            }
        }
    };
    recipe.learning_rate * (recipe.final_share + (1.0 - recipe.final_share) * left)
}

/// Half a cosine from 1 to 0.
fn cosine(way: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * way).cos())
}

#[cfg(test)]
mod tests {
    use moat_contracts::{OptimizerRecipe, Schedule};
    use serde::Deserialize;

    use super::learning_rate;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_the_final_share() {
        let recipe =
            OptimizerRecipe { learning_rate: 1.0, warmup: 0.1, final_share: 0.2, ..Default::default() };
        let rates: Vec<f64> = (0..1000).map(|done| learning_rate(&recipe, done, 1000)).collect();
        assert!(rates[0] > 0.0 && rates[0] < 0.01);
        assert!(rates[..=100].windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(rates[100], 1.0);
        assert!(rates[100..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((rates[550] - 0.6).abs() < 1e-9, "half way down the cosine");
        assert!(rates[999] > 0.2 && rates[999] < 0.2001);
        let sudden = OptimizerRecipe { learning_rate: 1.0, warmup: 0.0, ..recipe };
        assert_eq!(learning_rate(&sudden, 0, 1), 1.0);
    }

    #[test]
    fn wsd_stays_until_its_last_part() {
        let recipe = OptimizerRecipe {
            learning_rate: 1.0,
            warmup: 0.1,
            final_share: 0.1,
            schedule: Schedule::Wsd,
            decay: 0.2,
            ..Default::default()
        };
        let rates: Vec<f64> = (0..100).map(|done| learning_rate(&recipe, done, 100)).collect();
        assert!(rates[..=10].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(rates[10..=80].iter().all(|rate| *rate == 1.0));
        assert!(rates[80..].windows(2).all(|pair| pair[0] > pair[1]) && rates[99] > 0.1);
        let constant = OptimizerRecipe { schedule: Schedule::Constant, ..recipe };
        assert!((10..100).all(|done| learning_rate(&constant, done, 100) == 1.0));
    }

    /// Curves of transformers' schedulers, made by `scripts/parity.d/schedules.py`, which says what is in the file.
    #[derive(Deserialize)]
    struct Curve {
        recipe: OptimizerRecipe,
        steps: u64,
        rates: Vec<f64>,
    }

    #[test]
    fn the_schedules_are_those_of_transformers() {
        let curves: Vec<Curve> =
            serde_json::from_str(include_str!("../tests/fixtures/schedules.json")).unwrap();
        assert!(curves.len() >= 10);
        for Curve { recipe, steps, rates } in curves {
            assert_eq!(rates.len() as u64, steps);
            for (done, expected) in (0..).zip(rates) {
                let own = learning_rate(&recipe, done, steps);
                let far = (own - expected).abs() / recipe.learning_rate;
                assert!(far < 1e-12, "{recipe:?}: step {done} of {steps}: {own} against {expected}");
            }
        }
    }
}
