use std::io;
use std::path::{Path, PathBuf};

use moat_contracts::{Recipe, Sweep};

use crate::{Faults, Settings, parse, parse_either, parse_recipe, parse_sweep};

/// Where the configuration lies if nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/moat/moat.toml";

/// The environment variable that names another file.
pub const FILE_VARIABLE: &str = "MOAT_CONFIG";

/// Settings with where they came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The file; `None` where the built-in defaults hold.
    pub file: Option<PathBuf>,
    /// Its text; empty for the built-in defaults.
    pub text: String,
    /// What it says.
    pub settings: Settings,
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{} cannot be read: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It can be read, and is faulty.
    #[error("{}", listed(file, faults))]
    Faults {
        /// The file.
        file: PathBuf,
        /// All of them.
        faults: Faults,
    },
}

fn listed(file: &Path, faults: &Faults) -> String {
    let lines: Vec<_> = faults.0.iter().map(|fault| format!("{}:{fault}", file.display())).collect();
    lines.join("\n")
}

/// The file to take: the one named on the command line, else the one that [`FILE_VARIABLE`] names, else
/// [`DEFAULT_FILE`] where it is there, else none.
pub fn locate(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(file) = named {
        return Some(file.to_owned());
    }
    if let Some(file) = std::env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty()) {
        return Some(file.into());
    }
    // A file that is there but may not be read must be told of, not passed over.
    let default = Path::new(DEFAULT_FILE);
    match default.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        _ => Some(default.to_owned()),
    }
}

/// Reads the settings from the file that [`locate`] names, or takes the defaults where it names none.
///
/// # Errors
/// [`LoadError`] where the file cannot be read or is faulty.
pub fn load(named: Option<&Path>) -> Result<Loaded, LoadError> {
    let Some(file) = locate(named) else { return Ok(Loaded::default()) };
    let text = read(&file)?;
    match parse(&text) {
        Ok(settings) => Ok(Loaded { file: Some(file), text, settings }),
        Err(faults) => Err(LoadError::Faults { file, faults }),
    }
}

/// Reads a recipe from a file.
///
/// # Errors
/// [`LoadError`] where the file cannot be read or is faulty.
pub fn load_recipe(file: &Path) -> Result<Recipe, LoadError> {
    parse_recipe(&read(file)?).map_err(|faults| LoadError::Faults { file: file.to_owned(), faults })
}

/// Reads a sweep from a recipe's file.
///
/// # Errors
/// [`LoadError`] where the file cannot be read or is faulty.
pub fn load_sweep(file: &Path) -> Result<Sweep, LoadError> {
    parse_sweep(&read(file)?).map_err(|faults| LoadError::Faults { file: file.to_owned(), faults })
}

/// Reads a recipe's file whether it asks for one run or for several.
///
/// # Errors
/// [`LoadError`] where the file cannot be read or is faulty.
pub fn load_either(file: &Path) -> Result<(Recipe, Option<Sweep>), LoadError> {
    parse_either(&read(file)?).map_err(|faults| LoadError::Faults { file: file.to_owned(), faults })
}

pub(crate) fn read(file: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(file).map_err(|error| LoadError::Read { file: file.to_owned(), error })
}
