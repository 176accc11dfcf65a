use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The policy that is part of the programs, `config/sandbox.toml`.
const BUILT_IN: &str = include_str!("../../../config/sandbox.toml");

/// A program that confines itself, in the way that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program<'a> {
    /// `moatd`.
    Moatd {
        /// It starts its engines itself, so its own limits must leave room for theirs.
        starts_engines: bool,
        /// It is a service of systemd: it joins engines that run already, and notifies.
        under_systemd: bool,
    },
    /// `moat-engine`.
    Engine {
        /// The network namespace that whoever started it found empty, as [`crate::network`] names it.
        network: Option<&'a str>,
    },
}

/// What becomes of a system call that is not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It answers EPERM.
    #[default]
    Refuse,
    /// It ends the process.
    Kill,
}

/// What each program may ask of the kernel, as `sandbox.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(Written);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    #[serde(default)]
    unlisted: Unlisted,
    common: Section,
    moatd: Section,
    moatd_starts_engines: Section,
    moatd_under_systemd: Section,
    moat_engine: Section,
    canary: Outside,
}

/// One section of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Section {
    calls: BTreeSet<String>,
    x86_64: BTreeSet<String>,
    aarch64: BTreeSet<String>,
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    pub(crate) execute: Vec<PathBuf>,
    /// Character devices, to be read, written and controlled.
    pub(crate) devices: Vec<PathBuf>,
}

/// Sockets that lead outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outside {
    pub(crate) sockets: Vec<PathBuf>,
    #[serde(rename = "abstract")]
    pub(crate) hidden: Vec<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the sandbox policy {} cannot be read: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is no policy.
    #[error("the sandbox policy {} is faulty: {message}", file.display())]
    Faulty {
        /// The file.
        file: PathBuf,
        /// What is wrong, with its place.
        message: String,
    },
}

impl Policy {
    /// The policy of a file, or the built-in one where none is named.
    ///
    /// # Errors
    /// [`PolicyError`] where the file cannot be read, is no policy, or names a call that there is not.
    pub fn load(file: Option<&Path>) -> Result<Self, PolicyError> {
        let Some(file) = file else {
            return Self::parse(BUILT_IN)
                .map_err(|message| PolicyError::Faulty { file: "config/sandbox.toml".into(), message });
        };
        let read = std::fs::read_to_string(file);
        let text = read.map_err(|error| PolicyError::Read { file: file.to_owned(), error })?;
        Self::parse(&text).map_err(|message| PolicyError::Faulty { file: file.to_owned(), message })
    }

    /// The policy that a text holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let policy = Self(policy);
        policy.compiles(std::env::consts::ARCH)?;
        Ok(policy)
    }

    /// Whether filters can be made of it for an architecture.
    ///
    /// # Errors
    /// What is wrong with it there, such as the name of a call that there is not.
    pub fn compiles(&self, architecture: &str) -> Result<(), String> {
        for starts_engines in [false, true] {
            let moatd = Program::Moatd { starts_engines, under_systemd: !starts_engines };
            crate::calls::filter(self, moatd, architecture)?;
        }
        crate::calls::filter(self, Program::Engine { network: None }, architecture).map(drop)
    }

    /// What becomes of calls that are not listed.
    pub const fn unlisted(&self) -> Unlisted {
        self.0.unlisted
    }

    pub(crate) const fn outside(&self) -> &Outside {
        &self.0.canary
    }

    /// The sections that hold for a program.
    pub(crate) fn sections(&self, program: Program<'_>) -> Vec<&Section> {
        let policy = &self.0;
        match program {
            Program::Moatd { starts_engines, under_systemd } => {
                let mut sections = vec![&policy.common, &policy.moatd];
                if starts_engines {
                    sections.extend([&policy.moatd_starts_engines, &policy.moat_engine]);
                }
                if under_systemd {
                    sections.push(&policy.moatd_under_systemd);
                }
                sections
            }
            Program::Engine { .. } => vec![&policy.common, &policy.moat_engine],
        }
    }

    /// The names of the calls that a program may make on an architecture.
    pub fn calls(&self, program: Program<'_>, architecture: &str) -> BTreeSet<&str> {
        let mut calls = BTreeSet::new();
        for section in self.sections(program) {
            let own = match architecture {
                "x86_64" => &section.x86_64,
                _ => &section.aarch64,
            };
            calls.extend(section.calls.iter().chain(own).map(String::as_str));
        }
        calls
    }
}
