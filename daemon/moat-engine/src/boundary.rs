//! What the engine gives up before it touches data: everything but files when it starts, and all files but its job's when
//! it knows its job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use moat_contracts::{Held, Protection};
use moat_firewall::canary::Ways;
use moat_firewall::{Files, Paths, Policy, Program, Protections};
use moat_protocol::engine::ToEngine;

/// What whoever starts an engine says of its boundary.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Demands {
    /// Refuse to work without this protection; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = protection)]
    require: Vec<Protection>,
    /// The policy of system calls and files, in place of the built-in one.
    #[arg(long, value_name = "FILE")]
    sandbox: Option<PathBuf>,
    /// The network namespace that moatd found empty.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Seconds between two rounds of the canary.
    #[arg(long, value_name = "N", default_value_t = 60)]
    canary_seconds: u64,
}

fn protection(word: &str) -> Result<Protection, String> {
    let found = Protection::ALL.into_iter().find(|protection| protection.word() == word);
    found.ok_or_else(|| format!("there is no protection `{word}`"))
}

/// The engine's boundary, as far as it stands.
pub(crate) struct Boundary {
    demands: Demands,
    policy: Policy,
    had: Protections,
    ways: Ways,
}

impl Boundary {
    /// Gives up everything but files. To be called before there is a second thread.
    pub(crate) fn take(demands: Demands) -> Result<Self, String> {
        let policy = Policy::load(demands.sandbox.as_deref()).map_err(|error| error.to_string())?;
        let ways = Ways::known(&policy);
        let program = Program::Engine { network: demands.network.as_deref() };
        let had = moat_firewall::confine(program, &policy, Files::Later);
        let known = |protection: &Protection| had.iter().any(|(name, _)| name == *protection);
        let now: Vec<_> = demands.require.iter().copied().filter(known).collect();
        had.demand(&now).map_err(|lacking| lacking.to_string())?;
        Ok(Self { policy, ways, had, demands })
    }

    /// Gives up all files but the job's. To be called before there is a second thread.
    pub(crate) fn close(&mut self, job: &ToEngine) -> Result<(), String> {
        self.close_around(&files(job))
    }

    /// Gives up all files but these. To be called before there is a second thread.
    pub(crate) fn close_around(&mut self, paths: &Paths) -> Result<(), String> {
        let program = Program::Engine { network: self.demands.network.as_deref() };
        moat_firewall::confine_files(program, &self.policy, paths, &mut self.had);
        self.had.demand(&self.demands.require).map_err(|lacking| lacking.to_string())
    }

    /// The ways that the canary tries.
    pub(crate) fn ways(&self) -> Ways {
        self.ways.clone()
    }

    /// How often it tries them.
    pub(crate) const fn canary(&self) -> Duration {
        Duration::from_secs(self.demands.canary_seconds)
    }

    /// Each protection and whether it was had.
    pub(crate) fn had(&self) -> impl Iterator<Item = (Protection, bool)> {
        self.had.iter().map(|(protection, had)| (protection, had.is_ok()))
    }

    /// Each protection with why it was not had, for whoever watches the boundary.
    pub(crate) fn held(&self) -> Vec<Held> {
        let held = |(protection, had): (Protection, Result<(), &str>)| Held {
            protection,
            refused: had.err().map(ToOwned::to_owned),
        };
        self.had.iter().map(held).collect()
    }

    /// In words, for the job's first report.
    pub(crate) fn words(&self) -> String {
        let (had, lacking): (Vec<_>, Vec<_>) = self.had().partition(|(_, had)| *had);
        let list = |of: Vec<(Protection, bool)>| {
            of.into_iter().map(|(protection, _)| protection.word()).collect::<Vec<_>>().join(", ")
        };
        if lacking.is_empty() { list(had) } else { format!("{}; LACKING: {}", list(had), list(lacking)) }
    }
}

/// The files of a job.
fn files(job: &ToEngine) -> Paths {
    let (read, write): (Vec<&str>, Option<PathBuf>) = match job {
        ToEngine::Train(job) => {
            let start = job.start.as_ref().map(|start| start.folder.as_str());
            (std::iter::once(&*job.base).chain(start).collect(), Some(there(Path::new(&job.output))))
        }
        ToEngine::Preview(job) => (vec![&job.base], None),
        ToEngine::Evaluate(job) => (vec![&job.base, &job.tuned], None),
        // The folder itself is given its name when it is complete.
        ToEngine::Export(job) => (vec![&job.base, &job.adapter], Path::new(&job.output).parent().map(there)),
        ToEngine::Ask(job) => (std::iter::once(&*job.base).chain(job.tuned.as_deref()).collect(), None),
        ToEngine::Example(_) | ToEngine::End | ToEngine::Stop => (Vec::new(), None),
    };
    let read = read.into_iter().map(PathBuf::from).collect();
    Paths { read, write: write.into_iter().collect(), ..Paths::default() }
}

/// The folder, or the nearest above it that is there, for what does not exist cannot be allowed. `moatd` makes a run's
/// folder before the run's engine starts.
fn there(folder: &Path) -> PathBuf {
    folder.ancestors().find(|above| above.is_dir()).unwrap_or(folder).to_owned()
}
