//! What goes into a bundle, and what does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::*;
use moat_bundle::{BundleError, Manifest, Release, pack};

fn packed(folder: &Path, to: &Path) -> Result<Manifest, BundleError> {
    let keys = Team::new().history;
    let release = Release { version: version("0.2.0"), number: 7, made: DAY, expires: DAY + 1, keys };
    pack(folder, release, to, &mut |_, _| {})
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let team = Team::new();
    assert_eq!(bundle(&team, 7, "0.2.0"), bundle(&team, 7, "0.2.0"));
}

#[test]
fn what_has_no_place_in_a_bundle_is_not_left_out_in_silence() {
    let into = tempfile::tempdir().unwrap();
    let to = into.path().join("moat.bundle");
    for stray in [
        "README",
        "bases/loose.bin",
        "packages/deep/moat_0.2.0_amd64.deb",
        "packages/moat_0.1.0_amd64.deb",
        "moat-0.1.0.cdx.json",
        "licences/.hidden",
        "licences/with space",
        "other/file",
    ] {
        let mut files = files("0.2.0");
        files.push((stray.to_owned(), b"x".to_vec()));
        let refused = packed(folder(&files).path(), &to).unwrap_err();
        let right =
            matches!(refused, BundleError::Pack { .. } | BundleError::Path { .. } | BundleError::Form { .. });
        assert!(right, "{stray}: {refused}");
    }
    for missing in [2, 4] {
        let mut files = files("0.2.0");
        files.retain(|(path, _)| match missing {
            2 => !path.starts_with("licences/"),
            _ => !path.ends_with(".cdx.json"),
        });
        assert!(matches!(packed(folder(&files).path(), &to), Err(BundleError::Form { .. })));
    }
    let linked = folder(&files("0.2.0"));
    symlink("/etc/passwd", linked.path().join("licences/linked")).unwrap();
    assert!(matches!(packed(linked.path(), &to), Err(BundleError::Pack { .. })));
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0, "something was written");

    let sound = folder(&files("0.2.0"));
    packed(sound.path(), &to).unwrap();
    assert!(matches!(packed(sound.path(), &to), Err(BundleError::Pack { .. })), "a bundle was written over");
}
