//! How a bundle stands to this machine: what was installed here, what time was seen, and what the machine is.

use moat_contracts::Digest;
use serde::{Deserialize, Serialize};

use crate::manifest::Version;
use crate::read::Admitted;
use crate::{BundleError, FORMAT};

/// The machine that a bundle is for.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its architecture by Linux's name, such as `x86_64`.
    pub architecture: String,
    /// The version of Moat that runs there: this program's own.
    pub version: Version,
    /// Its clock, in Unix seconds.
    pub now: i64,
}

/// A release that was installed, or was begun to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Its number.
    pub number: u64,
    /// Its version.
    pub version: Version,
    /// The SHA-256 of its manifest.
    pub manifest: Digest,
    /// Whether its installation came to its end; until then the same bundle has to be installed again, or a newer one.
    pub whole: bool,
}

/// `installed.json`: what a machine remembers so that nothing older is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The format of this document.
    pub format: u32,
    /// The latest time that was ever seen, in Unix seconds: a clock that is set back does not revive what expired.
    pub latest: i64,
    /// The version of the release keys that are trusted.
    pub keys: u64,
    /// The last release.
    pub release: Option<Installed>,
}

impl Default for Record {
    fn default() -> Self {
        Self { format: FORMAT, latest: 0, keys: 1, release: None }
    }
}

/// How a bundle that may be installed stands to what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No bundle was installed here before.
    First,
    /// It is newer than this one.
    Newer(Installed),
    /// It is this very one: it may be installed again, and has to where it was cut off.
    Again(Installed),
}

impl Record {
    /// Whether bundle and release keys are within their dates, at this time or at a later one that was seen here.
    ///
    /// # Errors
    /// [`BundleError::Expired`] or [`BundleError::KeysExpired`].
    pub fn judge_dates(&self, admitted: &Admitted, now: i64) -> Result<(), BundleError> {
        let (manifest, seen) = (&admitted.manifest, self.latest.max(now));
        if let Some(expires) = admitted.keys.signed.expires.filter(|expires| *expires <= seen) {
            return Err(BundleError::KeysExpired { version: manifest.keys, expires });
        }
        if manifest.expires <= seen {
            return Err(BundleError::Expired { expires: manifest.expires, seen });
        }
        Ok(())
    }

    /// Whether a bundle may be installed.
    ///
    /// # Errors
    /// Those of [`Record::judge_dates`], [`BundleError::Architecture`], [`BundleError::Rollback`],
    /// [`BundleError::Older`] or [`BundleError::Equivocation`].
    pub fn judge(&self, admitted: &Admitted, machine: &Machine) -> Result<Standing, BundleError> {
        self.judge_dates(admitted, machine.now)?;
        let manifest = &admitted.manifest;
        if !manifest.architectures.contains(&machine.architecture) {
            let theirs = manifest.architectures.join(", ");
            return Err(BundleError::Architecture { ours: machine.architecture.clone(), theirs });
        }
        let (number, version) = (manifest.number, manifest.version);
        let known = self.release.as_ref();
        if let Some(known) = known.filter(|known| known.number > number) {
            return Err(BundleError::Rollback { number, installed: known.number });
        }
        // Packages come by hand as well: what runs is not older than what was recorded, and may be newer.
        let installed = known.map_or(machine.version, |known| known.version.max(machine.version));
        if version < installed {
            return Err(BundleError::Older { version, installed });
        }
        match known {
            None => Ok(Standing::First),
            Some(known) if known.number < number => Ok(Standing::Newer(known.clone())),
            Some(known) if known.manifest == admitted.digest => Ok(Standing::Again(known.clone())),
            Some(_) => Err(BundleError::Equivocation { number }),
        }
    }

    /// The record once a bundle's installation began, or came to its end.
    #[must_use]
    pub fn with(&self, admitted: &Admitted, machine: &Machine, whole: bool) -> Self {
        let Admitted { manifest, digest, .. } = admitted;
        let release =
            Installed { number: manifest.number, version: manifest.version, manifest: *digest, whole };
        // What people signed as the time of packing has been reached, whatever this machine's clock says.
        let latest = self.latest.max(machine.now).max(manifest.made);
        Self { format: FORMAT, latest, keys: manifest.keys, release: Some(release) }
    }
}
