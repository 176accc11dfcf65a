use moat_contracts::OptimizerRecipe;

/// The learning rate of the step that comes after `done` of `steps`: a linear warm-up from 0 (left out, so that no
/// step is wasted) to the peak, then half a cosine down to `final_share` of it.
pub fn learning_rate(recipe: &OptimizerRecipe, done: u64, steps: u64) -> f64 {
    let warmup = (recipe.warmup * steps as f64).round();
    let done = done as f64;
    if done < warmup {
        return recipe.learning_rate * (done + 1.0) / (warmup + 1.0);
    }
    let way = (done - warmup) / (steps as f64 - warmup).max(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * way.min(1.0)).cos());
    recipe.learning_rate * (recipe.final_share + (1.0 - recipe.final_share) * cosine)
}

#[cfg(test)]
mod tests {
    use super::learning_rate;
    use moat_contracts::OptimizerRecipe;

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
}
