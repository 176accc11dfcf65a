//! `moat check`: a configuration or a recipe, whole, without moatd.

use std::path::{Path, PathBuf};

use moat_settings::{Fault, LoadError};

use crate::args::Check;
use crate::exit::{Exit, Failure};
use crate::output::{Output, notice};
use crate::render::text::counted;

/// What a check found.
struct Checked {
    /// `None` for the built-in defaults.
    file: Option<PathBuf>,
    faults: Vec<Fault>,
    /// What a sound file holds, in a few words.
    holds: String,
}

/// Checks, and tells every fault.
pub(crate) fn check(output: &Output, check: &Check, config: Option<&Path>) -> Result<Exit, Failure> {
    let checked = match &check.recipe {
        Some(file) => recipe(file)?,
        None => configuration(check.config_file.as_deref().or(config), check.text_only)?,
    };
    let name =
        checked.file.as_deref().map_or("the built-in defaults".to_owned(), |file| file.display().to_string());
    if output.json {
        let value = serde_json::json!({ "file": checked.file, "faults": checked.faults });
        output.line(&serde_json::json!({ "reply": "checked", "value": value }))?;
    } else if checked.faults.is_empty() {
        output.page(&format!("{name}: sound, {}\n", checked.holds))?;
    } else {
        for fault in &checked.faults {
            match &checked.file {
                Some(_) => notice(&format!("{name}:{fault}\n")),
                // The built-in defaults have no lines.
                None => notice(&format!("{}: {}\n", fault.key, fault.message)),
            }
        }
        notice(&format!("{} in {name}\n", counted(checked.faults.len() as u64, "fault")));
    }
    Ok(if checked.faults.is_empty() { Exit::Done } else { Exit::Usage })
}

fn configuration(file: Option<&Path>, text_only: bool) -> Result<Checked, Failure> {
    let loaded = match moat_settings::load(file) {
        Ok(loaded) => loaded,
        Err(error) => return faulty(error),
    };
    let mut faults = Vec::new();
    if !text_only {
        let here = std::env::current_exe().ok();
        let programs = here.as_deref().and_then(Path::parent).unwrap_or(Path::new("/usr/bin"));
        faults = moat_settings::check_machine(&loaded.settings, &loaded.text, programs);
    }
    let holds = counted(loaded.settings.source.len() as u64, "source");
    Ok(Checked { file: loaded.file, faults, holds })
}

fn recipe(file: &Path) -> Result<Checked, Failure> {
    match moat_settings::load_either(file) {
        Ok((recipe, sweep)) => {
            let runs = sweep.and_then(|sweep| sweep.recipes().ok()).map(|recipes| recipes.len() as u64);
            let runs = runs.map(|runs| format!(", a sweep of {}", counted(runs, "run")));
            let runs = runs.unwrap_or_default();
            let holds = format!("recipe {} on base {}{runs}", recipe.name, recipe.base);
            Ok(Checked { file: Some(file.to_owned()), faults: Vec::new(), holds })
        }
        Err(error) => faulty(error),
    }
}

fn faulty(error: LoadError) -> Result<Checked, Failure> {
    match error {
        LoadError::Faults { file, faults } => {
            Ok(Checked { file: Some(file), faults: faults.0, holds: String::new() })
        }
        error => Err(Failure::new(Exit::Usage, error.to_string())),
    }
}
