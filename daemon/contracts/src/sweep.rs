use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Recipe;

/// Runs of one sweep at most.
pub const MOST_RUNS: u64 = 64;

/// Points of a grid that is drawn from at most.
const MOST_POINTS: u64 = 1 << 20;

/// Keys of a recipe that a sweep may vary: those of these tables, less [`MEASURES`]. All others decide the data or what is
/// measured on it, so that the runs' validation losses would not compare.
const TABLES: [&str; 4] = ["train.", "validation.", "lora.", "optimizer."];

/// What is measured by, of the tables that may vary.
const MEASURES: [&str; 1] = ["validation.tokens"];

/// A recipe with several values for some of its keys: each point of their grid is one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// What all runs share.
    pub recipe: Recipe,
    /// Which points of the grid are run, and in which order.
    #[serde(default)]
    pub order: SweepOrder,
    /// Points that are drawn, for [`SweepOrder::Random`]; else 0.
    #[serde(default)]
    pub runs: u64,
    /// The keys that vary, the slowest first.
    pub values: Vec<Swept>,
}

/// A key of a recipe with its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Swept {
    /// The key's path, such as `lora.rank`.
    pub key: String,
    /// Its values, as JSON.
    pub values: Vec<Value>,
}

/// Which points of a sweep's grid are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepOrder {
    /// All, in their order.
    #[default]
    Grid,
    /// Some, drawn by the recipe's seed, none twice.
    Random,
}

/// What is wrong with a sweep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SweepFault {
    /// The key that varies, or `order` or `runs`; empty where all together are wrong.
    pub key: String,
    /// The place of the value among the key's, from 0.
    pub value: Option<usize>,
    /// What is wrong and what to do, a lowercase sentence.
    pub message: String,
}

impl Sweep {
    /// Every fault at once, of the recipe alone excepted; empty for a sound sweep.
    pub fn faults(&self) -> Vec<SweepFault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, value: Option<usize>, message: String| {
            let fault = SweepFault { key: key.to_owned(), value, message };
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        };
        if self.values.is_empty() {
            let message = "must name a key of the recipe with its values, such as \"lora.rank\" = [8, 16]";
            fault("", None, message.to_owned());
        }
        for (at, Swept { key, values }) in self.values.iter().enumerate() {
            let varies =
                TABLES.iter().any(|table| key.starts_with(table)) && !MEASURES.contains(&key.as_str());
            if !varies {
                let message = "decides the data or what is measured on it, so that the runs would not compare: sweep keys of \
                               train, validation, lora and optimizer";
                fault(key, None, message.to_owned());
                continue;
            }
            if self.values[..at].iter().any(|earlier| earlier.key == *key) {
                fault(key, None, "stands twice".to_owned());
            }
            if values.is_empty() {
                fault(key, None, "must have at least one value".to_owned());
            }
            let mut alone: Vec<Recipe> = Vec::new();
            for (number, value) in values.iter().enumerate() {
                match with(&self.recipe, &[(key, value)]) {
                    Err(message) => fault(key, Some(number), message),
                    Ok(recipe) if alone.contains(&recipe) => {
                        fault(key, Some(number), "stands twice: a run of it would be the same".to_owned());
                    }
                    Ok(recipe) => alone.push(recipe),
                }
            }
        }
        let size = self.size();
        match self.order {
            SweepOrder::Grid if self.runs != 0 => {
                fault("runs", None, "is for order = \"random\": a grid runs all its points".to_owned());
            }
            SweepOrder::Grid if size > MOST_RUNS => {
                let message = format!(
                    "asks for {size} runs, at most {MOST_RUNS} are taken: give fewer values, or order = \"random\" with runs"
                );
                fault("", None, message);
            }
            SweepOrder::Random if self.runs == 0 || self.runs > size.min(MOST_RUNS) => {
                fault("runs", None, format!("must be from 1 to {}", size.min(MOST_RUNS)));
            }
            SweepOrder::Random if size > MOST_POINTS => {
                fault("", None, format!("has {size} points, at most {MOST_POINTS} are drawn from"));
            }
            _ => {}
        }
        if faults.is_empty() {
            faults = self.faults_of_points();
        }
        faults
    }

    /// What is wrong with recipes that come of the sweep, and not with the one that they come from.
    fn faults_of_points(&self) -> Vec<SweepFault> {
        let own = self.recipe.faults();
        let mut faults = Vec::new();
        for places in self.places() {
            let Ok(recipe) = self.recipe_at(&places) else { continue };
            for found in recipe.faults().into_iter().filter(|found| !own.contains(found)) {
                let swept = self.values.iter().zip(&places).find(|(swept, _)| swept.key == found.key);
                let fault = match swept {
                    Some((swept, value)) => {
                        SweepFault { key: swept.key.clone(), value: Some(*value), message: found.message }
                    }
                    None => {
                        let said = |(swept, value): (&Swept, &usize)| {
                            format!("{} = {}", swept.key, swept.values[*value])
                        };
                        let all: Vec<_> = self.values.iter().zip(&places).map(said).collect();
                        let message = format!("with {}: {} {}", all.join(", "), found.key, found.message);
                        SweepFault { key: String::new(), value: None, message }
                    }
                };
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
        faults
    }

    /// The recipes of the runs, in their order.
    ///
    /// # Errors
    /// What is wrong first; [`Self::faults`] tells all.
    pub fn recipes(&self) -> Result<Vec<Recipe>, SweepFault> {
        if let Some(fault) = self.faults().into_iter().next() {
            return Err(fault);
        }
        let fault = |message| SweepFault { key: String::new(), value: None, message };
        self.places().iter().map(|places| self.recipe_at(places).map_err(fault)).collect()
    }

    /// Points of the grid.
    fn size(&self) -> u64 {
        self.values.iter().fold(1, |size: u64, swept| size.saturating_mul(swept.values.len() as u64))
    }

    /// For each run the place of each key's value; the first key varies slowest.
    fn places(&self) -> Vec<Vec<usize>> {
        let size = self.size().min(MOST_POINTS);
        let mut points: Vec<u64> = (0..size).collect();
        if self.order == SweepOrder::Random {
            let mut state = self.recipe.seed;
            let drawn = usize::try_from(self.runs).unwrap_or(usize::MAX).min(points.len());
            for at in 0..drawn {
                let left = points.len() - at;
                let other = ((u128::from(next(&mut state)) * left as u128) >> 64) as usize;
                points.swap(at, at + other);
            }
            points.truncate(drawn);
        }
        let of = |point: &u64| {
            let mut rest = *point;
            let mut places: Vec<usize> = Vec::with_capacity(self.values.len());
            for swept in self.values.iter().rev() {
                let values = swept.values.len() as u64;
                places.push((rest % values) as usize);
                rest /= values;
            }
            places.reverse();
            places
        };
        points.iter().map(of).collect()
    }

    fn recipe_at(&self, places: &[usize]) -> Result<Recipe, String> {
        let values = self.values.iter().zip(places);
        let values: Vec<_> =
            values.map(|(swept, value)| (swept.key.as_str(), &swept.values[*value])).collect();
        with(&self.recipe, &values)
    }
}

/// A recipe with other values at some keys.
fn with(recipe: &Recipe, values: &[(&str, &Value)]) -> Result<Recipe, String> {
    let mut whole = serde_json::to_value(recipe).map_err(|error| error.to_string())?;
    for (key, value) in values {
        let mut place = &mut whole;
        for part in key.split('.') {
            let Value::Object(table) = place else { return Err("there is no such key".to_owned()) };
            // A table or key that holds its default is not written.
            place = table.entry(part).or_insert_with(|| Value::Object(Map::new()));
        }
        *place = (*value).clone();
    }
    serde_json::from_value(whole).map_err(|error| error.to_string())
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Sweep, SweepOrder, Swept};
    use crate::Recipe;

    fn sweep(values: &[(&str, serde_json::Value)]) -> Sweep {
        let swept = |(key, values): &(&str, serde_json::Value)| Swept {
            key: (*key).to_owned(),
            values: values.as_array().unwrap().clone(),
        };
        let values = values.iter().map(swept).collect();
        Sweep { recipe: Recipe::default(), order: SweepOrder::Grid, runs: 0, values }
    }

    fn told(sweep: &Sweep) -> Vec<(String, Option<usize>)> {
        sweep.faults().into_iter().map(|fault| (fault.key, fault.value)).collect()
    }

    #[test]
    fn a_grid_is_every_point_once_and_changes_nothing_else() {
        let sweep = sweep(&[
            ("optimizer.learning_rate", json!([1e-4, 2e-4])),
            ("lora.rank", json!([8, 16, 32])),
            ("train.recompute", json!([false, "auto"])),
        ]);
        let recipes = sweep.recipes().unwrap();
        let first = recipes.iter().map(|recipe| (recipe.optimizer.learning_rate, recipe.lora.rank));
        assert_eq!(first.take(4).collect::<Vec<_>>(), [(1e-4, 8), (1e-4, 8), (1e-4, 16), (1e-4, 16)]);
        assert_eq!(recipes.len(), 12);
        for (at, recipe) in recipes.iter().enumerate() {
            assert!(recipes[..at].iter().all(|other| other.hash() != recipe.hash()));
            assert_eq!(recipe.data_hash(), sweep.recipe.data_hash());
        }
        let whole = serde_json::to_string(&sweep).unwrap();
        assert_eq!(serde_json::from_str::<Sweep>(&whole).unwrap(), sweep);
    }

    #[test]
    fn points_are_drawn_by_the_seed_and_none_twice() {
        let ranks: Vec<u64> = (1..=200).collect();
        let mut sweep = sweep(&[("lora.rank", json!(ranks)), ("lora.alpha", json!([8, 16]))]);
        assert_eq!(told(&sweep), [(String::new(), None)]);
        (sweep.order, sweep.runs) = (SweepOrder::Random, 64);
        let drawn = sweep.recipes().unwrap();
        assert_eq!(drawn.len(), 64);
        for (at, recipe) in drawn.iter().enumerate() {
            assert!(!drawn[..at].contains(recipe));
        }
        assert_eq!(sweep.recipes().unwrap(), drawn);
        sweep.recipe.seed = 2;
        assert_ne!(sweep.recipes().unwrap()[0].lora, drawn[0].lora);
        sweep.runs = 65;
        assert_eq!(told(&sweep), [("runs".to_owned(), None)]);
    }

    #[test]
    fn what_would_not_compare_or_not_run_is_refused_with_its_place() {
        let key = |key: &str| key.to_owned();
        for data in [
            "seed",
            "base",
            "name",
            "split.held_out",
            "selection.kinds",
            "evaluate.resamples",
            "validation.tokens",
        ] {
            assert_eq!(told(&sweep(&[(data, json!([1, 2]))])), [(key(data), None)], "{data}");
        }
        let faulty = sweep(&[
            ("lora.rank", json!([8, "x", 0, 8])),
            ("optimizer.lr", json!([1])),
            ("optimizer.schedule", json!(["cosine", "wave"])),
            ("train.epochs", json!([])),
        ]);
        let expected = [
            (key("lora.rank"), Some(1)),
            (key("lora.rank"), Some(3)),
            (key("optimizer.lr"), Some(0)),
            (key("optimizer.schedule"), Some(1)),
            (key("train.epochs"), None),
        ];
        assert_eq!(told(&faulty), expected);
        let bounds = sweep(&[("lora.rank", json!([8, 0])), ("optimizer.learning_rate", json!([1e-4, 2.0]))]);
        assert_eq!(told(&bounds), [(key("optimizer.learning_rate"), Some(1)), (key("lora.rank"), Some(1))]);
        // Each value is sound alone, one pair of them is not.
        let pair = sweep(&[
            ("optimizer.schedule", json!(["cosine", "wsd"])),
            ("optimizer.warmup", json!([0.1, 0.95])),
        ]);
        let faults = pair.faults();
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0]
                .message
                .starts_with("with optimizer.schedule = \"wsd\", optimizer.warmup = 0.95: optimizer.decay")
        );
        assert_eq!(told(&sweep(&[])), [(String::new(), None)]);
        let whole = Sweep { runs: 3, ..sweep(&[("lora.rank", json!([1, 2, 3]))]) };
        assert_eq!(told(&whole), [(key("runs"), None)]);
    }
}
