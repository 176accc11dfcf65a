//! Holds a text against the keys and types of an example, and collects every fault instead of the first.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};

use crate::fault::at;
use crate::{Fault, Faults, ValueFault};

/// What a key may hold.
pub(crate) enum Shape {
    Text,
    Whole,
    Number,
    Flag,
    /// A list; `None` where the example's is empty, so that any item passes.
    List(Option<Box<Shape>>),
    Table(BTreeMap<String, Shape>),
    /// Nothing of an example can be told here.
    Any,
}

impl Shape {
    /// The shape of an example's TOML.
    pub(crate) fn of(example: &impl Serialize) -> Result<Self, Faults> {
        match toml::Value::try_from(example) {
            Ok(value) => Ok(Self::of_value(value)),
            Err(error) => Err(Faults(vec![at("", 0, "", error.to_string())])),
        }
    }

    /// Leaves a key of a table to its type.
    pub(crate) fn loosen(&mut self, table: &str, key: &str) {
        if let Self::Table(tables) = self
            && let Some(Self::Table(keys)) = tables.get_mut(table)
        {
            keys.insert(key.to_owned(), Self::Any);
        }
    }

    fn of_value(value: toml::Value) -> Self {
        match value {
            toml::Value::String(_) => Self::Text,
            toml::Value::Integer(_) => Self::Whole,
            toml::Value::Float(_) => Self::Number,
            toml::Value::Boolean(_) => Self::Flag,
            toml::Value::Datetime(_) => Self::Any,
            toml::Value::Array(items) => {
                Self::List(items.into_iter().next().map(|item| Box::new(Self::of_value(item))))
            }
            toml::Value::Table(table) => {
                Self::Table(table.into_iter().map(|(key, value)| (key, Self::of_value(value))).collect())
            }
        }
    }

    const fn words(&self) -> &'static str {
        match self {
            Self::Text => "text in quotes",
            Self::Whole => "a whole number, 0 or more",
            Self::Number => "a number",
            Self::Flag => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Any => "a value",
        }
    }

    /// Paths of every key below, such as `train.epochs`; those of a list's tables stand without an index.
    pub(crate) fn leaves(&self, prefix: &str, found: &mut Vec<String>) {
        match self {
            Self::Table(table) => {
                for (key, shape) in table {
                    shape.leaves(&join(prefix, key), found);
                }
            }
            Self::List(Some(item)) if matches!(**item, Self::Table(_)) => item.leaves(prefix, found),
            _ => found.push(prefix.to_owned()),
        }
    }
}

/// Parses a text, holds it against a shape, reads it into `T`, and holds that against its own rules.
///
/// A key with a fault is taken out before reading, so that one fault hides no other.
pub(crate) fn read<T: DeserializeOwned>(
    text: &str,
    shape: &Shape,
    check: impl Fn(&T) -> Vec<ValueFault>,
) -> Result<T, Faults> {
    let mut walk = Walk::of(text, shape);
    let (mut table, broken) = walk.parse();
    let value = walk.value_of(&mut table, shape, broken, check);
    walk.end(value)
}

/// The byte offset of each key's value in a text, by path; what cannot be parsed is left out.
pub(crate) fn places(text: &str, shape: &Shape) -> BTreeMap<String, usize> {
    let mut walk = Walk::of(text, shape);
    let (mut table, _) = walk.parse();
    if let Shape::Table(keys) = shape {
        walk.table(table.get_mut(), keys, "");
    }
    walk.places
}

/// A text on its way from TOML to a value.
pub(crate) struct Walk<'a> {
    text: &'a str,
    /// Paths of all keys that there are, for suggestions.
    pub(crate) known: Vec<String>,
    /// Offset of each value.
    places: BTreeMap<String, usize>,
    /// Paths whose value was taken out.
    faulty: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl<'a> Walk<'a> {
    pub(crate) fn of(text: &'a str, shape: &Shape) -> Self {
        let mut known = Vec::new();
        shape.leaves("", &mut known);
        Self { text, known, places: BTreeMap::new(), faulty: BTreeSet::new(), faults: Vec::new() }
    }

    /// The text as a table, and whether it is broken TOML.
    pub(crate) fn parse(&mut self) -> (Spanned<DeTable<'a>>, bool) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let broken = !errors.is_empty();
        for error in errors {
            let offset = error.span().map_or(self.text.len(), |span| span.start);
            // Behind the last newline there is nothing to look at; the line before it is meant.
            let behind = offset >= self.text.len() && self.text.ends_with('\n');
            let offset = if behind { self.text.len() - 1 } else { offset };
            let fault = at(self.text, offset, "", error.message().to_owned());
            // One slip makes the parser stumble several times on its line: the first says it.
            if !self.faults.iter().any(|earlier| earlier.line == fault.line) {
                self.faults.push(fault);
            }
        }
        (table, broken)
    }

    /// Holds a table against a shape, reads it into `T`, and holds that against its own rules.
    pub(crate) fn value_of<T: DeserializeOwned>(
        &mut self,
        table: &mut Spanned<DeTable<'a>>,
        shape: &Shape,
        broken: bool,
        check: impl Fn(&T) -> Vec<ValueFault>,
    ) -> Option<T> {
        if let Shape::Table(keys) = shape {
            self.table(table.get_mut(), keys, "");
        }
        let value = self.deserialize::<T>(table);
        if let Some(read) = &value {
            for fault in check(read) {
                let place = self.places.get(&fault.key);
                // What is wrong because its key was unusable has been said already.
                if self.faulty.contains(&fault.key) || broken && place.is_none() {
                    continue;
                }
                let offset = place.copied().unwrap_or_else(|| self.nearest(&fault.key));
                self.fault(offset, &fault.key, fault.message);
            }
        }
        value
    }

    /// The value, where nothing was wrong.
    pub(crate) fn end<T>(mut self, value: Option<T>) -> Result<T, Faults> {
        self.faults.sort();
        self.faults.dedup();
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }

    pub(crate) fn fault(&mut self, offset: usize, path: &str, message: String) {
        self.faulty.insert(path.to_owned());
        let fault = at(self.text, offset, path, message);
        // Where a line is no TOML, what was recovered from it says nothing.
        if !self.faults.iter().any(|earlier| earlier.key.is_empty() && earlier.line == fault.line) {
            self.faults.push(fault);
        }
    }

    fn table(&mut self, table: &mut DeTable<'a>, keys: &BTreeMap<String, Shape>, prefix: &str) {
        let mut wrong: Vec<DeString<'a>> = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref();
            let path = join(prefix, name);
            let Some(shape) = keys.get(name.as_ref()) else {
                let message = self.unknown(name, keys, prefix);
                self.fault(key.span().start, &path, message);
                wrong.push(name.clone());
                continue;
            };
            let header = matches!(value.get_ref(), DeValue::Table(_));
            self.places.insert(path.clone(), if header { key.span().start } else { value.span().start });
            if !self.value(value, shape, &path) {
                wrong.push(name.clone());
            }
        }
        for key in wrong {
            table.remove(key.as_ref());
        }
    }

    /// False where the value must be taken out.
    pub(crate) fn value(&mut self, value: &mut Spanned<DeValue<'a>>, shape: &Shape, path: &str) -> bool {
        let offset = value.span().start;
        match (shape, value.get_mut()) {
            (Shape::Any, _)
            | (Shape::Text, DeValue::String(_))
            | (Shape::Flag, DeValue::Boolean(_))
            | (Shape::Number, DeValue::Integer(_) | DeValue::Float(_))
            | (Shape::List(None), DeValue::Array(_)) => true,
            (Shape::Whole, DeValue::Integer(number))
                if u64::from_str_radix(number.as_str(), number.radix()).is_ok() =>
            {
                true
            }
            (Shape::Table(keys), DeValue::Table(table)) => {
                self.table(table, keys, path);
                true
            }
            (Shape::List(Some(item)), DeValue::Array(array)) => {
                let mut kept = DeArray::new();
                for (index, mut value) in std::mem::replace(array, DeArray::new()).into_iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.places.insert(path.clone(), value.span().start);
                    if self.value(&mut value, item, &path) {
                        kept.push(value);
                    }
                }
                *array = kept;
                true
            }
            (shape, found) => {
                let message = format!("expected {}, found {}", shape.words(), name_of(found, shape));
                self.fault(offset, path, message);
                false
            }
        }
    }

    /// What to say of an unknown key: the nearest key of its table, or the table that has a key of this name.
    fn unknown(&self, name: &str, keys: &BTreeMap<String, Shape>, prefix: &str) -> String {
        let near = keys.keys().map(|key| (distance(name, key), key)).min();
        if let Some((distance, key)) = near
            && distance <= 1 + name.chars().count() / 4
        {
            return format!("there is no such key: did you mean `{key}`?");
        }
        let elsewhere = self.known.iter().find(|path| path.rsplit('.').next() == Some(name));
        if let Some(path) = elsewhere {
            return format!("there is no such key here: did you mean `{path}`?");
        }
        let list: Vec<_> = keys.keys().map(|key| format!("`{key}`")).collect();
        let place = if prefix.is_empty() { "at the top".to_owned() } else { format!("in `{prefix}`") };
        format!("there is no such key: the keys {place} are {}", list.join(", "))
    }

    /// Reads the table into `T`; a value that its type refuses is a fault and taken out, until nothing is refused.
    fn deserialize<T: DeserializeOwned>(&mut self, table: &mut Spanned<DeTable<'a>>) -> Option<T> {
        loop {
            let error = match T::deserialize(Deserializer::from(table.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let offset = error.span().map_or(0, |span| span.start);
            let path = remove_at(table.get_mut(), offset, "");
            let (key, refused) = path.map_or((String::new(), false), |path| (path, true));
            self.fault(offset, &key, plain(error.message()));
            if !refused {
                return None;
            }
        }
    }

    /// The place of the nearest table above a key that is not in the text.
    fn nearest(&self, key: &str) -> usize {
        let mut path = key;
        while let Some(end) = path.rfind(['.', '[']) {
            path = &path[..end];
            if let Some(place) = self.places.get(path) {
                return *place;
            }
        }
        0
    }
}

/// What a value of the wrong sort is called.
const fn name_of(value: &DeValue<'_>, wanted: &Shape) -> &'static str {
    match (value, wanted) {
        (DeValue::Integer(_), Shape::Whole) => "one that is negative or too large",
        (DeValue::Float(_), Shape::Whole) => "one with a fraction",
        (DeValue::Integer(_) | DeValue::Float(_), _) => "a number",
        (DeValue::String(_), _) => "text",
        (DeValue::Boolean(_), _) => "true or false",
        (DeValue::Datetime(_), _) => "a date without quotes",
        (DeValue::Array(_), _) => "a list",
        (DeValue::Table(_), _) => "a table",
    }
}

/// Takes out the innermost key or item whose key or value begins at `offset`, and says its path.
fn remove_at(table: &mut DeTable<'_>, offset: usize, prefix: &str) -> Option<String> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let path = join(prefix, key.get_ref());
        let below = match value.get_mut() {
            DeValue::Table(table) => remove_at(table, offset, &path),
            DeValue::Array(array) => remove_item(array, offset, &path),
            _ => None,
        };
        if below.is_some() {
            return below;
        }
        if key.span().start == offset || value.span().start == offset {
            found = Some((key.get_ref().clone(), path));
        }
    }
    let (key, path) = found?;
    table.remove(key.as_ref());
    Some(path)
}

fn remove_item(array: &mut DeArray<'_>, offset: usize, prefix: &str) -> Option<String> {
    for (index, item) in array.iter_mut().enumerate() {
        let path = format!("{prefix}[{index}]");
        if let DeValue::Table(table) = item.get_mut()
            && let Some(path) = remove_at(table, offset, &path)
        {
            return Some(path);
        }
    }
    let index = array.iter().position(|item| item.span().start == offset)?;
    let kept =
        std::mem::replace(array, DeArray::new()).into_iter().enumerate().filter(|(at, _)| *at != index);
    *array = kept.map(|(_, item)| item).collect();
    Some(format!("{prefix}[{index}]"))
}

/// A key's path.
pub(crate) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// serde's message in the words of this crate.
fn plain(message: &str) -> String {
    let choices = message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "));
    let number = message.strip_prefix("invalid value: integer `").and_then(|rest| rest.split_once('`'));
    match (choices, number) {
        (Some((found, choices)), _) => {
            let choices = choices.strip_prefix("one of ").unwrap_or(choices);
            format!("must be one of {}, not {found}", choices.replace(" or ", ", "))
        }
        (None, Some((number, _))) => format!("{number} is too large"),
        (None, None) => message.lines().next().unwrap_or("cannot be read").to_owned(),
    }
}

/// Edits between two words: insertions, deletions, replacements, and swaps of neighbours (optimal string alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
