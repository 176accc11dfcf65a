//! The machine's package manager, which installs what a bundle brought. It reads a folder that only root may enter.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::BundleError;
use crate::manifest::{Packaging, Version};

/// What installs packages on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packager {
    /// `dpkg`.
    Dpkg,
    /// `rpm`.
    Rpm,
}

impl Packager {
    /// The one whose list of packages this machine keeps.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let kept = std::fs::metadata("/var/lib/dpkg/status").is_ok_and(|facts| facts.len() > 0);
        if kept { Self::Dpkg } else { Self::Rpm }
    }

    /// What its packages are.
    #[must_use]
    pub const fn packaging(self) -> Packaging {
        match self {
            Self::Dpkg => Packaging::Deb,
            Self::Rpm => Packaging::Rpm,
        }
    }

    /// Checks that a package is what its name says, and installs it over what is there. The site's configuration stays.
    ///
    /// # Errors
    /// [`BundleError::Package`] where it is something else, [`BundleError::Packager`] where it cannot be installed.
    pub fn install(self, package: &Path, version: Version) -> Result<(), BundleError> {
        let (program, ask, put): (_, &[&str], &[&str]) = match self {
            Self::Dpkg => (
                "dpkg",
                &["--show", "--showformat=${Package} ${Version}"],
                &["--install", "--refuse-downgrade", "--force-confdef", "--force-confold"],
            ),
            Self::Rpm => (
                "rpm",
                &["--query", "--package", "--queryformat", "%{NAME} %{VERSION}"],
                &["--upgrade", "--replacepkgs"],
            ),
        };
        let asked = if self == Self::Dpkg { "dpkg-deb" } else { program };
        let found = said(&run(asked, ask, package)?.stdout);
        let expected = format!("moat {version}");
        if found != expected {
            return Err(BundleError::Package { path: package.to_owned(), found, expected });
        }
        run(program, put, package).map(drop)
    }
}

/// Runs a program in an environment of its own, so that nothing of the caller's steers the package's scripts.
fn run(program: &'static str, arguments: &[&str], package: &Path) -> Result<Output, BundleError> {
    let failed = |words: String| BundleError::Packager { program, words };
    let output = Command::new(program)
        .args(arguments)
        .arg(package)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = said(&output.stderr);
    Err(failed(words.lines().next_back().unwrap_or("it does not say why").trim().to_owned()))
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
