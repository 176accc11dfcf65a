//! What a machine remembers, and what it therefore refuses; and where things go.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::*;
use moat_bundle::{
    BundleError, Installation, Machine, Manifest, Packaging, Places, Standing, install, remember, trusted,
};
use tempfile::TempDir;

/// An appliance with a package manager that only writes down what it was given.
struct Site {
    folder: TempDir,
    places: Places,
    machine: Machine,
    installed: Vec<String>,
}

impl Site {
    fn new(team: &Team) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let places = Places { state: at("bundles"), inbox: at("inbox"), shipped: at("release-keys.json") };
        fs::write(&places.shipped, team.history[0].write().unwrap()).unwrap();
        Self { folder, places, machine: machine(DAY + 5), installed: Vec::new() }
    }

    fn install(&mut self, bundle: &[u8]) -> Result<Installation, BundleError> {
        let path = written(&self.folder, "carried-in", bundle);
        self.install_file(&path, Packaging::Deb)
    }

    fn install_file(&mut self, path: &Path, packaging: Packaging) -> Result<Installation, BundleError> {
        let installed = &mut self.installed;
        let mut put = |package: &Path, _: &Manifest| {
            installed.push(text_of(package));
            Ok(())
        };
        install(path, &self.places, &self.machine, packaging, &mut put, &mut |_, _| {})
    }

    /// Refused, with nothing installed, nothing left in the inbox and nothing remembered but the time.
    fn refuses(&mut self, bundle: &[u8]) -> BundleError {
        let (before, packages) = (remember(&self.places).unwrap(), self.installed.len());
        let inbox = listed(&self.places.inbox);
        let refused = self.install(bundle).unwrap_err();
        let after = remember(&self.places).unwrap();
        assert_eq!((before.release, before.keys), (after.release, after.keys));
        assert_eq!((packages, inbox), (self.installed.len(), listed(&self.places.inbox)));
        assert!(!self.places.state.join("staging").exists());
        refused
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
    let mut paths: Vec<_> = entries.unwrap_or_default();
    paths.sort();
    paths
}

macro_rules! refused {
    ($refused:expr, $reason:pat) => {
        let refused = $refused;
        assert!(matches!(refused, $reason), "{refused}");
    };
}

#[test]
fn a_bundle_is_installed_once_and_again() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let release = bundle(&team, 7, "0.2.0");
    let done = site.install(&release).unwrap();
    assert_eq!(done.standing, Standing::First);
    assert_eq!(done.papers, site.places.state.join("7"));
    let papers: Vec<_> = listed(&done.papers);
    let named = |name: &str| done.papers.join(name);
    let expected = ["licences", "manifest.json", "moat-0.2.0.cdx.json", "signatures.json"].map(named);
    assert_eq!(papers, expected);
    assert_eq!(done.bases, [site.places.inbox.join("tiny")]);
    assert_eq!(text_of(&done.bases[0].join("model.safetensors")), "0.2.0".repeat(150));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&done.bases[0]), mode(&done.bases[0].join("config.json"))), (0o750, 0o640));
    assert_eq!((mode(&site.places.state), mode(&done.papers)), (0o700, 0o700));

    let done = site.install(&release).unwrap();
    assert!(matches!(done.standing, Standing::Again(known) if known.whole));
    assert_eq!(site.installed, ["deb 0.2.0", "deb 0.2.0"]);
    let done = site.install(&bundle(&team, 8, "0.3.0")).unwrap();
    assert!(matches!(done.standing, Standing::Newer(known) if known.number == 7));
    assert_eq!(text_of(&done.bases[0].join("model.safetensors")), "0.3.0".repeat(150));
    assert_eq!(listed(&site.places.inbox), done.bases);
}

#[test]
fn an_older_release_is_refused() {
    let team = Team::new();
    let mut site = Site::new(&team);
    site.install(&bundle(&team, 7, "0.2.0")).unwrap();
    refused!(site.refuses(&bundle(&team, 6, "0.2.0")), BundleError::Rollback { number: 6, installed: 7 });
    refused!(site.refuses(&bundle(&team, 6, "0.9.0")), BundleError::Rollback { .. });
    // A newer number does not make older packages new.
    refused!(site.refuses(&bundle(&team, 8, "0.1.9")), BundleError::Older { .. });
    site.install(&bundle(&team, 8, "0.2.0")).unwrap();
}

#[test]
fn a_release_older_than_what_came_by_hand_is_refused() {
    let team = Team::new();
    let mut site = Site::new(&team);
    site.machine.version = version("0.10.0");
    refused!(site.refuses(&bundle(&team, 7, "0.9.0")), BundleError::Older { .. });
    site.install(&bundle(&team, 7, "0.10.0")).unwrap();
}

#[test]
fn another_bundle_of_the_same_number_is_refused() {
    let team = Team::new();
    let mut site = Site::new(&team);
    site.install(&bundle(&team, 7, "0.2.0")).unwrap();
    refused!(site.refuses(&bundle_at(&team, 7, "0.2.0", DAY + 1)), BundleError::Equivocation { number: 7 });
}

#[test]
fn an_expired_bundle_is_refused_also_with_the_clock_set_back() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let release = bundle(&team, 7, "0.2.0");
    site.machine.now = DAY + YEAR - 1;
    site.install(&release).unwrap();
    site.machine.now = DAY + YEAR;
    refused!(site.refuses(&release), BundleError::Expired { .. });
    site.machine.now = DAY + 5;
    let refused = site.refuses(&release);
    assert!(matches!(refused, BundleError::Expired { seen, .. } if seen == DAY + YEAR), "{refused}");
    // What was packed later says that it is later, whatever the clock says.
    let mut site = Site::new(&team);
    site.install(&bundle_at(&team, 7, "0.2.0", DAY + 2 * YEAR)).unwrap();
    refused!(site.refuses(&bundle(&team, 8, "0.2.0")), BundleError::Expired { .. });
}

#[test]
fn a_bundle_for_other_machines_is_refused() {
    let team = Team::new();
    let mut site = Site::new(&team);
    site.machine.architecture = "aarch64".to_owned();
    refused!(site.refuses(&bundle(&team, 7, "0.2.0")), BundleError::Architecture { .. });
    // For this machine, but not for its package manager.
    site.machine.architecture = "x86_64".to_owned();
    let mut files = files("0.2.0");
    files.remove(6);
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    let release = compose(&text, &team, &body(&files));
    refused!(site.refuses(&release), BundleError::NoPackage { .. });
    let path = written(&site.folder, "carried-in", &release);
    site.install_file(&path, Packaging::Rpm).unwrap();
    assert_eq!(site.installed, ["rpm 0.2.0"]);
}

#[test]
fn nothing_of_a_damaged_bundle_is_installed() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let release = bundle(&team, 7, "0.2.0");
    // In the last file, when all else was staged; and the last byte.
    let mut damaged = release.clone();
    let at = damaged.len() - 2 * 512 - 512;
    damaged[at] ^= 1;
    refused!(site.refuses(&damaged), BundleError::Digest { .. });
    refused!(site.refuses(&release[..release.len() - 1]), BundleError::Cut { .. });
    refused!(site.refuses(&[&release[..], b"\0"].concat()), BundleError::Trailing);
    let mut elsewhere = release.clone();
    elsewhere[600] ^= 1;
    refused!(site.refuses(&elsewhere), BundleError::Signature { .. });
    site.install(&release).unwrap();
}

#[test]
fn newer_release_keys_come_with_a_bundle_and_the_old_ones_are_void() {
    let team = Team::new();
    let newer = team.rotated();
    let mut site = Site::new(&team);
    site.install(&bundle(&team, 7, "0.2.0")).unwrap();
    // A bundle that is refused for its date does not bring its keys in either.
    site.machine.now = DAY + 2 * YEAR;
    refused!(site.refuses(&bundle(&newer, 8, "0.3.0")), BundleError::Expired { .. });
    assert_eq!(trusted(&site.places, &remember(&site.places).unwrap()).unwrap(), *team.trusted());
    site.install(&bundle_at(&newer, 8, "0.3.0", DAY + 2 * YEAR)).unwrap();
    assert_eq!(trusted(&site.places, &remember(&site.places).unwrap()).unwrap(), *newer.trusted());
    let old = bundle_at(&team, 9, "0.4.0", DAY + 2 * YEAR);
    refused!(site.refuses(&old), BundleError::OldKeys { found: 1, expected: 2 });
    // What a package ships later changes nothing.
    fs::write(&site.places.shipped, Team::new().trusted().write().unwrap()).unwrap();
    site.install(&bundle_at(&newer, 9, "0.4.0", DAY + 2 * YEAR)).unwrap();
}

#[test]
fn expired_release_keys_sign_nothing_any_more() {
    let team = Team::new();
    let public: Vec<_> = team.keys.iter().map(|key| key.public().unwrap()).collect();
    let mut keys = moat_bundle::SignedKeys::new(1, 2, Some(DAY + 100), &public).unwrap();
    for key in &team.keys {
        keys.sign(key).unwrap();
    }
    let team = Team { keys: team.keys, history: vec![keys] };
    let mut site = Site::new(&team);
    site.install(&bundle(&team, 7, "0.2.0")).unwrap();
    site.machine.now = DAY + 100;
    refused!(site.refuses(&bundle(&team, 8, "0.3.0")), BundleError::KeysExpired { version: 1, .. });
    // Their successors put that right.
    let newer = team.rotated();
    site.install(&bundle(&newer, 8, "0.3.0")).unwrap();
}

#[test]
fn without_release_keys_nothing_is_installed() {
    let team = Team::new();
    let mut site = Site::new(&team);
    fs::remove_file(&site.places.shipped).unwrap();
    refused!(site.refuses(&bundle(&team, 7, "0.2.0")), BundleError::NoKeys(_));
    let mut alone = team.trusted().clone();
    alone.signatures.truncate(1);
    fs::write(&site.places.shipped, alone.write().unwrap()).unwrap();
    refused!(site.refuses(&bundle(&team, 7, "0.2.0")), BundleError::TooFew { .. });
}

#[test]
fn what_a_machine_remembers_is_not_forgotten_in_silence() {
    let team = Team::new();
    let newer = team.rotated();
    let mut site = Site::new(&team);
    site.install(&bundle(&newer, 7, "0.2.0")).unwrap();
    let (record, keys) =
        (site.places.state.join("installed.json"), site.places.state.join("release-keys.json"));
    let sound = fs::read(&record).unwrap();
    let release = bundle(&newer, 7, "0.2.0");
    for damage in [
        "",
        "{}",
        "{\"format\": 1}",
        &String::from_utf8(sound.clone()).unwrap().replace("\"number\": 7", "\"number\": -7"),
    ] {
        fs::write(&record, damage).unwrap();
        refused!(site.install(&release).unwrap_err(), BundleError::State { .. });
    }
    fs::write(&record, &sound).unwrap();
    // Keys that are gone, and the older ones put back.
    let mine = fs::read(&keys).unwrap();
    fs::remove_file(&keys).unwrap();
    refused!(site.refuses(&release), BundleError::State { .. });
    fs::write(&keys, team.trusted().write().unwrap()).unwrap();
    refused!(site.refuses(&release), BundleError::State { .. });
    fs::write(&keys, mine).unwrap();
    site.install(&release).unwrap();
}

#[test]
fn a_package_manager_that_fails_is_told_and_the_bundle_can_be_installed_again() {
    let team = Team::new();
    let mut site = Site::new(&team);
    site.install(&bundle(&team, 7, "0.2.0")).unwrap();
    let release = written(&site.folder, "carried-in", &bundle(&team, 8, "0.3.0"));
    let words = "no room".to_owned();
    let mut fails =
        |_: &Path, _: &Manifest| Err(BundleError::Packager { program: "dpkg", words: words.clone() });
    let told = install(&release, &site.places, &site.machine, Packaging::Deb, &mut fails, &mut |_, _| {});
    refused!(told.unwrap_err(), BundleError::Packager { .. });
    refused!(site.install(&bundle(&team, 7, "0.2.0")).unwrap_err(), BundleError::Rollback { .. });
    let done = site.install(&bundle(&team, 8, "0.3.0"));
    // Packed once more it would be the same bytes, but for its keys: the same people sign the same manifest.
    assert!(matches!(done.unwrap().standing, Standing::Again(known) if !known.whole));
}

#[test]
fn two_installations_at_once_are_one_too_many() {
    let team = Team::new();
    let site = Site::new(&team);
    let path = written(&site.folder, "carried-in", &bundle(&team, 7, "0.2.0"));
    let nothing = |_: &Path, _: &Manifest| Ok(());
    let mut within = |_: &Path, _: &Manifest| {
        let second =
            install(&path, &site.places, &site.machine, Packaging::Deb, &mut { nothing }, &mut |_, _| {});
        assert!(matches!(second, Err(BundleError::Busy)));
        Ok(())
    };
    install(&path, &site.places, &site.machine, Packaging::Deb, &mut within, &mut |_, _| {}).unwrap();
}

#[test]
fn where_others_may_write_nothing_is_staged() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let release = bundle(&team, 7, "0.2.0");
    site.install(&release).unwrap();
    for place in [site.places.inbox.clone(), site.places.state.clone()] {
        let sound = fs::metadata(&place).unwrap().permissions();
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            refused!(site.install(&release).unwrap_err(), BundleError::Open(_));
        }
        fs::set_permissions(&place, sound).unwrap();
        // A link into a folder that is sound is none either.
        let elsewhere = site.folder.path().join("elsewhere");
        fs::rename(&place, &elsewhere).unwrap();
        symlink(&elsewhere, &place).unwrap();
        refused!(site.install(&release).unwrap_err(), BundleError::Open(_));
        fs::remove_file(&place).unwrap();
        fs::rename(&elsewhere, &place).unwrap();
    }
    site.install(&release).unwrap();
}

#[test]
fn a_bundle_larger_than_the_disk_is_refused_before_it_is_copied() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    let size = format!("\"bytes\": {}", files[1].1.len());
    let text = String::from_utf8(text).unwrap().replacen(&size, "\"bytes\": 9000000000000000", 1);
    let release = compose(text.as_bytes(), &team, &body(&files));
    refused!(site.refuses(&release), BundleError::Room { needed: 9_000_000_000_000_000.., .. });
}

#[test]
fn what_is_no_regular_file_is_no_bundle() {
    let team = Team::new();
    let mut site = Site::new(&team);
    let folder = site.folder.path().to_owned();
    refused!(site.install_file(&folder, Packaging::Deb).unwrap_err(), BundleError::NoFile { .. });
    refused!(site.install_file(&folder.join("gone"), Packaging::Deb).unwrap_err(), BundleError::Io { .. });
}
