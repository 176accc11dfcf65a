//! Reads `moat.toml` and recipe files: every key, every type, every value, and every fault at once with its line and
//! column. [`parse`] and [`parse_recipe`] are pure; [`check_machine`] looks at the machine but changes nothing;
//! [`load`] and [`load_recipe`] read one file. This crate never writes, never binds, and never falls back to a
//! default where a file was named.

mod fault;
mod files;
mod machine;
mod schema;
mod settings;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults};
pub use files::{DEFAULT_FILE, FILE_VARIABLE, LoadError, Loaded, load, load_recipe, locate};
pub use machine::check_machine;
pub use settings::{
    AdminSettings, BoundarySettings, ControlSettings, DaemonSettings, EnginePlace, LedgerSettings,
    ReviewSettings, Settings, SourceKind, SourceSettings, TrainingSettings, ValueFault,
};

use moat_contracts::Recipe;

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
    let mut shape = schema::Shape::of(&settings::example_recipe())?;
    // The one key that is true, false or a word.
    shape.loosen("train", "recompute");
    schema::read(text, &shape, |recipe: &Recipe| {
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
