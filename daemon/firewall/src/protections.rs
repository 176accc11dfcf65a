use std::collections::BTreeMap;
use std::path::PathBuf;

use moat_contracts::Protection;

/// What a process gave up, and why not where it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protections {
    taken: BTreeMap<Protection, Result<(), String>>,
    /// Paths that were asked for and were not there, so that they cannot be used later either.
    pub missing: Vec<PathBuf>,
}

/// Protections that the configuration demands and the machine refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct Lacking(pub Vec<(Protection, String)>);

impl Lacking {
    fn words(&self) -> String {
        let each: Vec<_> = self.0.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        format!(
            "boundary.require demands what this machine does not grant: {}; change the machine, or take it out of boundary.require",
            each.join(", ")
        )
    }
}

impl Protections {
    pub(crate) fn note(&mut self, protection: Protection, taken: Result<(), String>) {
        self.taken.insert(protection, taken);
    }

    /// Each protection that was tried: had, or why not.
    pub fn iter(&self) -> impl Iterator<Item = (Protection, Result<(), &str>)> {
        self.taken.iter().map(|(name, taken)| (*name, taken.as_ref().copied().map_err(String::as_str)))
    }

    /// True where it was had.
    pub fn had(&self, protection: Protection) -> bool {
        matches!(self.taken.get(&protection), Some(Ok(())))
    }

    /// Holds what was had against what is demanded.
    ///
    /// # Errors
    /// [`Lacking`] names everything that is demanded and was not had.
    pub fn demand(&self, required: &[Protection]) -> Result<(), Lacking> {
        let why = |name: &Protection| match self.taken.get(name) {
            Some(Ok(())) => None,
            Some(Err(why)) => Some((*name, why.clone())),
            None => Some((*name, "it was not tried".to_owned())),
        };
        let lacking: Vec<_> = required.iter().filter_map(why).collect();
        if lacking.is_empty() { Ok(()) } else { Err(Lacking(lacking)) }
    }
}
