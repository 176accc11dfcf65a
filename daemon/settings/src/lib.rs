//! Reads `moat.toml` and recipe files: every key, every type, every value, and every fault at once with its line and
//! column. [`parse`] and [`parse_recipe`] are pure; [`check_machine`] looks at the machine but changes nothing;
//! [`load`] and [`load_recipe`] read one file. This crate never writes, never binds, and never falls back to a
//! default where a file was named.

mod edit;
mod fault;
mod files;
mod machine;
mod schema;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;

pub use edit::{SHIPPED, edited, quoted, recipe_text, recipe_values, written};
pub use fault::{Fault, Faults};
pub use files::{
    DEFAULT_FILE, FILE_VARIABLE, LoadError, Loaded, load, load_either, load_recipe, load_sweep, locate,
};
pub use machine::check_machine;
pub use settings::{
    AdminSettings, BoundarySettings, ControlSettings, DaemonSettings, EnginePlace, LedgerSettings,
    ReviewSettings, Settings, SourceKind, SourceSettings, TrainingSettings, ValueFault,
};

use moat_contracts::{Recipe, Sweep};

/// Reads the text of a `moat.toml`. A key that is not there takes its default.
///
/// # Errors
/// [`Faults`] holds everything that is wrong with the text, in its order.
pub fn parse(text: &str) -> Result<Settings, Faults> {
    let shape = schema::Shape::of(&Settings::example())?;
    schema::read(text, &shape, Settings::faults)
}

/// Reads changes of curation rules from the text of a file like `moat.toml`, whose other tables are passed over: the keys
/// of `[curation]` that stand in it, as JSON.
///
/// # Errors
/// [`Faults`] holds everything that is wrong with the text, in its order.
pub fn parse_curation(text: &str) -> Result<serde_json::Value, Faults> {
    parse(text)?;
    let whole = |message: String| Faults(vec![fault::at(text, 0, "curation", message)]);
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| whole(error.to_string()))?;
    let Some(curation) = table.get("curation") else {
        return Err(whole(
            "is not there: write what changes as in moat.toml, such as `[curation.quality.prose]`".to_owned(),
        ));
    };
    serde_json::to_value(curation).map_err(|error| whole(error.to_string()))
}

/// Reads changes of curation rules from a file.
///
/// # Errors
/// [`LoadError`] where the file cannot be read or is faulty.
pub fn load_curation(file: &std::path::Path) -> Result<serde_json::Value, LoadError> {
    parse_curation(&files::read(file)?).map_err(|faults| LoadError::Faults { file: file.to_owned(), faults })
}

/// Reads the text of a recipe. A key that is not there takes its default.
///
/// # Errors
/// [`Faults`] holds everything that is wrong with the text, in its order.
pub fn parse_recipe(text: &str) -> Result<Recipe, Faults> {
    match asked(text)? {
        sweep::Asked { recipe, sweep: None } => Ok(recipe),
        sweep::Asked { sweep: Some((at, _)), .. } => {
            let message = "asks for several runs: `moat sweep start` takes it";
            Err(Faults(vec![fault::at(text, at, "sweep", message)]))
        }
    }
}

/// Reads the text of a recipe with a table `[sweep]`, which gives several values to some of its keys.
///
/// # Errors
/// [`Faults`] holds everything that is wrong with the text, in its order; that it asks for one run alone is.
pub fn parse_sweep(text: &str) -> Result<Sweep, Faults> {
    let message = "there is no table [sweep]: `moat run start` takes a recipe of one run";
    let none = || Faults(vec![fault::at(text, 0, "sweep", message)]);
    asked(text)?.sweep.map(|(_, sweep)| sweep).ok_or_else(none)
}

/// Reads the text of a recipe whether it asks for one run or for several.
///
/// # Errors
/// [`Faults`] holds everything that is wrong with the text, in its order.
pub fn parse_either(text: &str) -> Result<(Recipe, Option<Sweep>), Faults> {
    let sweep::Asked { recipe, sweep } = asked(text)?;
    Ok((recipe, sweep.map(|(_, sweep)| sweep)))
}

fn asked(text: &str) -> Result<sweep::Asked, Faults> {
    let mut shape = schema::Shape::of(&settings::example_recipe())?;
    // The one key that is true, false or a word.
    shape.loosen("train", "recompute");
    sweep::read(text, &shape, |recipe: &Recipe| {
        let faults = recipe.faults().into_iter();
        let mut faults: Vec<_> = faults.map(|fault| ValueFault::new(fault.key, fault.message)).collect();
        // Runs and their folders are named after it.
        let letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if !recipe.name.chars().all(letter) || recipe.name.starts_with('.') {
            let message = "may hold letters, digits, `-`, `_` and `.`, and must not begin with `.`";
            faults.push(ValueFault::new("name", message));
        }
        faults
    })
}
