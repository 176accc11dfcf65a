//! Power cuts during an installation: after each step, with each kind of loss, and once more during the next attempt.

use std::fs;
use std::path::{Path, PathBuf};

use super::common::*;
use super::steps::{LOSSES, Loss, Step, cut_after, took};
use crate::{BundleError, Installation, Packaging, Places, install, remember};

/// A folder in memory where there is one: what a sync does is played here, not waited for.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A machine of its own.
struct Site {
    folder: tempfile::TempDir,
    places: Places,
}

impl Site {
    fn new(team: &Team) -> Self {
        let folder = scratch();
        let at = |name: &str| folder.path().join(name);
        let places = Places { state: at("bundles"), inbox: at("inbox"), shipped: at("release-keys.json") };
        fs::write(&places.shipped, team.history[0].write().unwrap()).unwrap();
        Self { folder, places }
    }

    /// The package manager's side: what is installed, if that is known.
    fn package(&self) -> PathBuf {
        self.folder.path().join("package")
    }

    fn install(&self, bundle: &Path) -> Result<Installation, BundleError> {
        let mut put = |package: &Path, _: &crate::Manifest| {
            fs::write(self.package(), "half").unwrap();
            took(Step::Put);
            fs::copy(package, self.package()).unwrap();
            took(Step::Put);
            Ok(())
        };
        install(bundle, &self.places, &machine(DAY + 5), Packaging::Deb, &mut put, &mut |_, _| {})
    }

    /// What must hold at any moment while the newer of two releases is installed.
    fn check(&self, old: &Path, first: bool) {
        let record = remember(&self.places).unwrap();
        let package = fs::read_to_string(self.package()).ok();
        let touched = package.as_deref().is_some_and(|package| package != "deb 0.2.0");
        let begun = record.release.as_ref().is_some_and(|release| release.number == 8);
        assert!(begun || !touched, "the package was touched before the release was recorded");
        let base = self.places.inbox.join("tiny");
        let whole = |version: &str| {
            let files = files(version)
                .into_iter()
                .filter_map(|(path, content)| Some((base.join(path.strip_prefix("bases/tiny/")?), content)));
            files.into_iter().all(|(path, content)| fs::read(path).is_ok_and(|found| found == content))
        };
        let none = first && !base.exists();
        assert!(none || whole("0.2.0") || whole("0.3.0"), "a base is neither the old one nor the new one");
        if begun {
            assert!(matches!(
                self.install(old),
                Err(BundleError::Rollback { number: 7, installed: 8 } | BundleError::OldKeys { .. })
            ));
        }
    }
}

fn survives(first: bool) {
    let team = Team::new();
    let newer = team.rotated();
    let bundles = tempfile::tempdir().unwrap();
    let old = written(&bundles, "old", &bundle(&team, 7, "0.2.0"));
    let new = written(&bundles, "new", &bundle(&newer, 8, "0.3.0"));
    let (mut cuts, mut steps) = (0, 1);
    loop {
        let mut ended = false;
        for loss in LOSSES {
            let site = Site::new(&team);
            if !first {
                site.install(&old).unwrap();
            }
            if cut_after(steps, loss, || site.install(&new).unwrap()).is_some() {
                ended = true;
                break;
            }
            site.check(&old, first);
            // Cut off once more, elsewhere, and with another loss.
            let again = 1 + (steps * 7) % 40;
            if cut_after(again, Loss::Zeros, || site.install(&new).unwrap()).is_none() {
                site.check(&old, first);
            }
            let done = site.install(&new).unwrap();
            cuts += 1;

            let record = remember(&site.places).unwrap();
            let release = record.release.unwrap();
            assert!(release.whole && release.number == 8 && record.keys == 2);
            assert_eq!(fs::read_to_string(site.package()).unwrap(), "deb 0.3.0");
            assert_eq!(fs::read_to_string(done.papers.join("licences/moat.txt")).unwrap(), "the terms\n");
            let names = |folder: &Path| {
                let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
                let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
                names.sort();
                names
            };
            assert_eq!(names(&site.places.inbox), ["tiny"]);
            let kept = names(&site.places.state);
            let papers = if first { vec!["8"] } else { vec!["7", "8"] };
            assert_eq!(kept, [papers, vec!["installed.json", "lock", "release-keys.json"]].concat());
            assert!(!done.papers.join("packages").exists());
            site.check(&old, false);
        }
        if ended {
            break;
        }
        steps += 1;
    }
    assert!(cuts >= 4 * 50, "only {cuts} cuts were tried");
}

#[test]
fn a_power_cut_at_any_step_of_an_upgrade_leaves_it_to_be_finished_and_nothing_older() {
    survives(false);
}

#[test]
fn a_power_cut_at_any_step_of_the_first_installation_leaves_it_to_be_finished() {
    survives(true);
}
