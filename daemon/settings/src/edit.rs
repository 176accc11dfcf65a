//! Recipes as texts with values: what one says key by key, and the same text with another value.

use std::collections::BTreeMap;
use std::ops::Range;

use moat_contracts::Recipe;
use toml::de::{DeTable, DeValue};

/// The recipes that are shipped, with the names of their files.
pub const SHIPPED: [(&str, &str); 3] = [
    ("lora", include_str!("../../../config/recipes/lora.toml")),
    ("demo", include_str!("../../../config/recipes/demo.toml")),
    ("sweep", include_str!("../../../config/recipes/sweep.toml")),
];

/// What a recipe says, key by key, each value as TOML writes it. Keys that it need not write are there with their defaults.
pub fn recipe_values(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    // The shipped recipe that explains every key holds every default.
    if let Ok(defaults) = SHIPPED[0].1.parse::<toml::Table>() {
        flatten(&toml::Value::Table(defaults), "", &mut values);
    }
    if let Ok(own) = toml::Value::try_from(recipe) {
        flatten(&own, "", &mut values);
    }
    values
}

fn flatten(value: &toml::Value, path: &str, values: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(value, &crate::schema::join(path, key), values);
            }
        }
        // A number reads the same however it was written.
        toml::Value::Float(number) => drop(values.insert(path.to_owned(), number.to_string())),
        value => drop(values.insert(path.to_owned(), value.to_string())),
    }
}

/// What a recipe's text says of a key, as it is written there; nothing where it does not say.
pub fn written<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    place(text, key).and_then(|range| text.get(range))
}

/// A recipe's text with another value of a key, written as TOML; all else stays as it is. Nothing where the text is too
/// broken to say where the key belongs.
pub fn edited(text: &str, key: &str, value: &str) -> Option<String> {
    let mut edited = text.to_owned();
    if let Some(range) = place(text, key) {
        edited.replace_range(range, value);
    } else if let Some((table, name)) = key.rsplit_once('.') {
        let line = format!("{name} = {value}\n");
        match behind_header(text, table) {
            Some(at) => edited.insert_str(at, &line),
            None => {
                if !edited.is_empty() && !edited.ends_with('\n') {
                    edited.push('\n');
                }
                edited.push_str(&format!("\n[{table}]\n{line}"));
            }
        }
    } else {
        edited.insert_str(0, &format!("{key} = {value}\n"));
    }
    let faults = |text: &str| DeTable::parse_recoverable(text).1.len();
    (written(&edited, key) == Some(value) && faults(&edited) <= faults(text)).then_some(edited)
}

/// A text as TOML writes it.
pub fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A recipe as a file; nothing where a value of it is none of TOML's.
pub fn recipe_text(recipe: &Recipe) -> Option<String> {
    toml::to_string(recipe).ok()
}

/// Where the value of a key stands.
fn place(text: &str, key: &str) -> Option<Range<usize>> {
    let (table, _) = DeTable::parse_recoverable(text);
    let (mut table, mut parts) = (table.get_ref(), key.split('.').peekable());
    while let Some(part) = parts.next() {
        let value = table.get(part)?;
        match (parts.peek(), value.get_ref()) {
            (None, _) => return Some(value.span()),
            (Some(_), DeValue::Table(inner)) => table = inner,
            (Some(_), _) => return None,
        }
    }
    None
}

/// The beginning of the line behind a table's header.
fn behind_header(text: &str, table: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let words = line.split('#').next().unwrap_or_default().trim();
        let name = words.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if name.is_some_and(|name| name.trim() == table) {
            return line.ends_with('\n').then_some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use moat_contracts::Recipe;

    use super::{SHIPPED, edited, recipe_values, written};
    use crate::parse_recipe;

    #[test]
    fn every_key_has_its_value_and_defaults_are_those_of_the_type() {
        let values = recipe_values(&Recipe::default());
        for (key, value) in [
            ("lora.rank", "16"),
            ("optimizer.schedule", "\"cosine\""),
            ("validation.every", "50"),
            ("lora.b_rate", "1"),
        ] {
            assert_eq!(values[key], value, "{key}");
        }
        let mut other = Recipe::default();
        assert_eq!(parse_recipe(&super::recipe_text(&other).unwrap()).unwrap(), other);
        other.validation.patience = 3;
        other.optimizer.learning_rate = 1e-3;
        let other = recipe_values(&other);
        let differ: Vec<_> = values.iter().filter(|(key, value)| other[*key] != **value).collect();
        let keys: Vec<_> = differ.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["optimizer.learning_rate", "validation.patience"]);
    }

    #[test]
    fn a_value_is_changed_in_its_place_and_nothing_else() {
        let lora = SHIPPED[0].1;
        let text = edited(lora, "lora.rank", "8").unwrap();
        assert_eq!(text.replacen("rank = 8 ", "rank = 16 ", 1), lora);
        assert_eq!((written(&text, "lora.rank"), written(&text, "lora.none")), (Some("8"), None));
        let mut text = "name = \"a\" # its name\n[train] # how\nepochs = 2".to_owned();
        for (key, value) in [
            ("seed", "7"),
            ("train.max_steps", "9"),
            ("train.epochs", "3.0"),
            ("lora.rank", "4"),
            ("lora.alpha", "8.0"),
        ] {
            text = edited(&text, key, value).unwrap();
        }
        let recipe = parse_recipe(&text).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.seed, recipe.train.max_steps), ("a", 7, 9));
        assert_eq!((recipe.train.epochs, recipe.lora.rank, recipe.lora.alpha), (3.0, 4, 8.0));
        assert!(text.contains("# its name") && text.contains("# how"));
        assert_eq!(edited("train = { epochs = 1.0 }\n", "train.max_steps", "3"), None);
        assert_eq!(
            edited("train.epochs = 1.0\n", "train.epochs", "2.0").as_deref(),
            Some("train.epochs = 2.0\n")
        );
    }
}
