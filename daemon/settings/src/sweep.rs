use std::collections::BTreeMap;

use moat_contracts::{Recipe, Sweep, SweepOrder, Swept};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::schema::{Shape, Walk, distance, join};
use crate::{Faults, ValueFault};

/// The table of a recipe file that asks for several runs.
const TABLE: &str = "sweep";

/// What a recipe file asks for, with the place of its sweep's table.
pub(crate) struct Asked {
    pub(crate) recipe: Recipe,
    pub(crate) sweep: Option<(usize, Sweep)>,
}

/// Reads a recipe file whole. The sweep's table is taken out and held against the recipe's own keys.
pub(crate) fn read(
    text: &str,
    shape: &Shape,
    check: impl Fn(&Recipe) -> Vec<ValueFault>,
) -> Result<Asked, Faults> {
    let mut walk = Walk::of(text, shape);
    let (mut table, broken) = walk.parse();
    let asked = table.get_mut().remove_entry(TABLE);
    let recipe = walk.value_of(&mut table, shape, broken, check);
    let Some((key, value)) = asked else {
        return walk.end(recipe.map(|recipe| Asked { recipe, sweep: None }));
    };
    let at = key.span().start;
    let mut parts = Parts::default();
    match value.into_inner() {
        DeValue::Table(table) => parts.table(&mut walk, shape, table, ""),
        _ => walk.fault(at, TABLE, "expected a table".to_owned()),
    }
    let sweep = recipe.clone().map(|recipe| parts.sweep(recipe));
    if let Some(sweep) = &sweep {
        for fault in sweep.faults() {
            let path = match (fault.key.as_str(), fault.value) {
                ("", _) => TABLE.to_owned(),
                (key, None) => join(TABLE, key),
                (key, Some(value)) => format!("{TABLE}.{key}[{value}]"),
            };
            // What is wrong because a value was unusable has been said already.
            if !parts.faulty {
                walk.fault(parts.places.get(&path).copied().unwrap_or(at), &path, fault.message);
            }
        }
    }
    walk.end(recipe.zip(sweep).map(|(recipe, sweep)| Asked { recipe, sweep: Some((at, sweep)) }))
}

/// What a sweep's table says.
#[derive(Default)]
struct Parts {
    order: SweepOrder,
    runs: u64,
    values: Vec<Swept>,
    /// Offset of each key and of each of its values.
    places: BTreeMap<String, usize>,
    faulty: bool,
}

impl Parts {
    fn sweep(&self, recipe: Recipe) -> Sweep {
        Sweep { recipe, order: self.order, runs: self.runs, values: self.values.clone() }
    }

    fn fault(&mut self, walk: &mut Walk<'_>, offset: usize, path: &str, message: impl Into<String>) {
        self.faulty = true;
        walk.fault(offset, path, message.into());
    }

    /// Keys are written whole in quotes, or as tables in the table.
    fn table<'a>(&mut self, walk: &mut Walk<'a>, shape: &Shape, table: DeTable<'a>, prefix: &str) {
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            let (path, place, start) = (join(TABLE, &key), name.span().start, value.span().start);
            match (key.as_str(), value.into_inner()) {
                ("order", DeValue::String(word)) if word == "grid" => self.order = SweepOrder::Grid,
                ("order", DeValue::String(word)) if word == "random" => self.order = SweepOrder::Random,
                ("order", _) => self.fault(walk, start, &path, "must be one of `grid`, `random`"),
                ("runs", DeValue::Integer(number)) => {
                    let runs = u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(0);
                    match runs {
                        0 => self.fault(walk, start, &path, "must be at least 1"),
                        runs => self.runs = runs,
                    }
                    self.places.insert(path, start);
                }
                ("runs", _) => self.fault(walk, start, &path, "expected a whole number, 1 or more"),
                (_, DeValue::Table(inner)) => self.table(walk, shape, inner, &key),
                (_, DeValue::Array(items)) => {
                    let Some(own) = shape_at(shape, &key) else {
                        let message = unknown(&walk.known, &key);
                        self.fault(walk, place, &path, message);
                        continue;
                    };
                    self.places.insert(path.clone(), place);
                    let mut values = Vec::new();
                    for (number, mut item) in items.into_iter().enumerate() {
                        let path = format!("{path}[{number}]");
                        self.places.insert(path.clone(), item.span().start);
                        // A word is a word even where the example holds none: the recipe's type says which.
                        if walk.value(&mut item, own, &path) {
                            values.push(json(&item));
                        } else {
                            self.faulty = true;
                        }
                    }
                    self.values.push(Swept { key, values });
                }
                _ => self.fault(walk, start, &path, "expected a list of values"),
            }
        }
    }
}

fn shape_at<'a>(shape: &'a Shape, path: &str) -> Option<&'a Shape> {
    path.split('.').try_fold(shape, |shape, part| match shape {
        Shape::Table(keys) => keys.get(part),
        _ => None,
    })
}

fn unknown(known: &[String], key: &str) -> String {
    let near = known.iter().map(|path| (distance(key, path), path)).min();
    match near.filter(|(distance, _)| *distance <= 1 + key.chars().count() / 4) {
        Some((_, path)) => format!("a recipe has no such key: did you mean `{path}`?"),
        None => "a recipe has no such key: write it whole and in quotes, such as \"lora.rank\"".to_owned(),
    }
}

fn json(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Integer(number) => {
            let digits = |radix| i64::from_str_radix(number.as_str(), radix);
            digits(number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Array(items) => items.iter().map(json).collect(),
        DeValue::Table(_) | DeValue::Datetime(_) => Value::Null,
    }
}
