//! What an auditor does with standard tools: GNU tar lists and extracts a bundle, sha256sum agrees with its manifest,
//! and openssl verifies its signatures and makes keys that sign.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::*;
use moat_bundle::{BundleError, Mark, Signatures, SigningKey, add_signature};

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn tar_lists_and_extracts_a_bundle_and_sha256sum_agrees() {
    let (team, into) = (Team::new(), tempfile::tempdir().unwrap());
    let here = into.path();
    fs::write(here.join("moat.bundle"), bundle(&team, 7, "0.2.0")).unwrap();
    let listed = run(here, "tar", &["--list", "--file", "moat.bundle"]).unwrap();
    let mut expected = vec!["manifest.json".to_owned(), "signatures.json".to_owned()];
    expected.extend(files("0.2.0").into_iter().map(|(path, _)| path));
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    run(here, "tar", &["--extract", "--file", "moat.bundle"]).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text_of(&here.join("manifest.json"))).unwrap();
    let sums = manifest["files"].as_array().unwrap().iter();
    let sums: String = sums
        .map(|file| format!("{}  {}\n", file["sha256"].as_str().unwrap(), file["path"].as_str().unwrap()))
        .collect();
    fs::write(here.join("sums"), sums).unwrap();
    assert_eq!(run(here, "sha256sum", &["--check", "sums"]).unwrap().lines().count(), 7);
}

#[test]
fn openssl_verifies_our_signatures_over_manifest_and_release_keys() {
    let (team, into) = (Team::new(), tempfile::tempdir().unwrap());
    let here = into.path();
    fs::write(here.join("moat.bundle"), bundle(&team, 7, "0.2.0")).unwrap();
    run(here, "tar", &["--extract", "--file", "moat.bundle"]).unwrap();
    let document = fs::read(here.join("signatures.json")).unwrap();
    let signatures: Signatures = serde_json::from_slice(&document).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let manifest = fs::read(here.join("manifest.json")).unwrap();
    let keys = serde_json::to_vec(&signatures.keys[0].signed).unwrap();
    let mut verified = 0;
    for (domain, message, made) in [
        ("moat bundle manifest\n", manifest, &document["signatures"]),
        ("moat release keys\n", keys, &document["keys"][0]["signatures"]),
    ] {
        fs::write(here.join("message"), [domain.as_bytes(), &message].concat()).unwrap();
        for signature in made.as_array().unwrap() {
            let key = signature["key"].as_str().unwrap();
            let public = team.keys.iter().map(|key| key.public().unwrap());
            let public = public.into_iter().find(|public| public.id().to_string() == key).unwrap();
            fs::write(here.join("key.pub"), public.to_pem()).unwrap();
            let bytes = STANDARD.decode(signature["signature"].as_str().unwrap()).unwrap();
            fs::write(here.join("signature"), bytes).unwrap();
            let arguments =
                ["-verify", "-rawin", "-pubin", "-inkey", "key.pub", "-sigfile", "signature", "-in"];
            let verify = |file| run(here, "openssl", &[&["pkeyutl"], &arguments[..], &[file]].concat());
            assert!(verify("message").unwrap().contains("Signature Verified Successfully"));
            fs::write(here.join("other"), &message).unwrap();
            verify("other").unwrap_err();
            verified += 1;
        }
    }
    assert_eq!(verified, 4);
}

#[test]
fn a_key_made_by_openssl_signs_and_openssl_reads_ours() {
    let into = tempfile::tempdir().unwrap();
    let here = into.path();
    run(here, "openssl", &["genpkey", "-algorithm", "ed25519", "-out", "theirs"]).unwrap();
    let key = SigningKey::from_pem(&text_of(&here.join("theirs"))).unwrap();
    assert_eq!(*key.to_pem(), text_of(&here.join("theirs")));
    let public = run(here, "openssl", &["pkey", "-in", "theirs", "-pubout"]).unwrap();
    assert_eq!(key.public().unwrap().to_pem(), public);

    let ours = SigningKey::create().unwrap();
    fs::write(here.join("ours"), ours.to_pem().as_bytes()).unwrap();
    let public = run(here, "openssl", &["pkey", "-in", "ours", "-pubout"]).unwrap();
    assert_eq!(ours.public().unwrap().to_pem(), public);
    // Another kind of key, and a public one, are no private ones.
    run(here, "openssl", &["genpkey", "-algorithm", "x25519", "-out", "other"]).unwrap();
    assert!(SigningKey::from_pem(&text_of(&here.join("other"))).is_none());
    assert!(SigningKey::from_pem(&public).is_none());
}

#[test]
fn a_signature_made_elsewhere_is_added_and_the_same_key_replaces_its_own() {
    let (team, into) = (Team::new(), tempfile::tempdir().unwrap());
    let path = written(&into, "moat.bundle", &bundle(&team, 7, "0.2.0"));
    let before = fs::read(&path).unwrap();
    let text = manifest(7, "0.2.0", 1, &files("0.2.0")).write().unwrap();
    let nothing = &mut |_, _| {};
    add_signature(&path, Mark::Key(&team.keys[0]), nothing).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    add_signature(&path, Mark::Made(team.keys[2].sign_manifest(&text).unwrap()), nothing).unwrap();
    assert_eq!(verdict(&fs::read(&path).unwrap(), team.trusted()).unwrap().signers.len(), 3);

    let stranger = SigningKey::create().unwrap();
    let refused = add_signature(&path, Mark::Key(&stranger), nothing);
    assert!(matches!(refused, Err(BundleError::Foreign { .. })));
    let other = team.keys[1].sign_manifest(b"{}").unwrap();
    assert!(matches!(add_signature(&path, Mark::Made(other), nothing), Err(BundleError::Signature { .. })));
    // A signer never signs what is damaged.
    let mut damaged = before.clone();
    let at = damaged.len() - 2048;
    damaged[at] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(add_signature(&path, Mark::Key(&team.keys[0]), nothing).is_err());
    assert_eq!(fs::read(&path).unwrap(), damaged);
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1, "a draft was left behind");
}
