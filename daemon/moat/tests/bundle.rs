//! A release team's ceremony with the real program: keys, release keys, packing, signing in two places, verifying.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

/// 2026-11-22 00:00 UTC.
const DAY: &str = "1795305600";

fn moat(folder: &Path, line: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_moat"))
        .args(line.split(' '))
        .current_dir(folder)
        .env_remove("MOAT_CONFIG")
        .env_remove("MOAT_SOCKET")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", DAY)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(folder: &Path, line: &str) -> String {
    let (code, stdout, stderr) = moat(folder, line);
    assert_eq!(code, 0, "{line}: {stderr}");
    stdout
}

fn fails(folder: &Path, line: &str, code: i32, words: &str) {
    let (found, stdout, stderr) = moat(folder, line);
    assert!(found == code && stderr.contains(words), "{line}: {found} {stdout} {stderr}");
}

/// Keys that are the same each time, so that pages are as well; and what goes into a bundle.
fn team() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, byte) in [("ada", 1), ("ben", 2), ("cleo", 3)] {
        let mut der = STANDARD.decode("MC4CAQAwBQYDK2VwBCIEIA==").unwrap();
        der.extend_from_slice(&[byte; 32]);
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        fs::write(path(&format!("{name}.key")), pem).unwrap();
        let made = Command::new("openssl")
            .args(["pkey", "-pubout", "-in", &format!("{name}.key"), "-out", &format!("{name}.pub")])
            .current_dir(folder.path())
            .status();
        assert!(made.unwrap().success());
    }
    for (file, content) in [
        ("made/packages/moat_9.0.0_amd64.deb", "deb"),
        ("made/packages/moat_9.0.0_arm64.deb", "deb for others"),
        ("made/bases/tiny/config.json", "{}"),
        ("made/licences/moat.txt", "terms"),
        ("made/moat-9.0.0.cdx.json", "{}"),
    ] {
        fs::create_dir_all(path(file).parent().unwrap()).unwrap();
        fs::write(path(file), content).unwrap();
    }
    folder
}

const PACK: &str =
    "bundle pack made --number 7 --version 9.0.0 --expires 2126-06-30 --keys keys.json --to m.bundle";

fn release_keys(folder: &Path) -> String {
    let page = done(folder, "bundle keys ada.pub ben.pub cleo.pub --version 1 --to keys.json");
    done(folder, "bundle sign keys.json --key ada.key");
    done(folder, "bundle sign keys.json --key ben.key");
    page
}

#[test]
fn a_bundle_is_made_by_three_people_and_verified_by_a_fourth() {
    let team = team();
    let here = team.path();
    assert_eq!(
        release_keys(here),
        "release keys  version 1, 2 of 3\n\
         keys          34750f98bd59, 6a3803d5f059, b62e867fa2f3\n\n\
         They are in force once 2 of them have signed: `moat bundle sign keys.json --key FILE`\n"
    );
    assert_eq!(
        done(here, PACK),
        "bundle   moat 9.0.0, release 7\n\
         made     2026-11-22 00:00\n\
         expires  2126-06-30 00:00\n\
         for      aarch64, x86_64\n\
         5 files, 26 B\n\
         `moat bundle sign m.bundle --key FILE` signs it, on each signer's machine\n"
    );
    let verify = "bundle verify m.bundle --keys keys.json";
    fails(here, verify, 1, "signed by 0 of the 2 release keys");
    done(here, "bundle sign m.bundle --key ada.key");
    fails(here, verify, 1, "signed by 1 of the 2 release keys");
    // Cleo only gets the manifest, as tar takes it out of the bundle.
    let untar = Command::new("tar").args(["-xf", "m.bundle", "manifest.json"]).current_dir(here).status();
    assert!(untar.unwrap().success());
    fails(here, "bundle sign manifest.json --key cleo.key", 2, "say with --to where its signature goes");
    done(here, "bundle sign manifest.json --key cleo.key --to cleo.json");
    done(here, "bundle sign m.bundle --signature cleo.json");
    let page = done(here, verify);
    let digest = moat_contracts::Digest::of(&fs::read(here.join("manifest.json")).unwrap());
    assert_eq!(
        page,
        format!(
            "bundle     moat 9.0.0, release 7\n\
             made       2026-11-22 00:00\n\
             expires    2126-06-30 00:00\n\
             for        aarch64, x86_64\n\
             signed by  34750f98bd59, b62e867fa2f3 (release keys 1, 2 of 3 needed)\n\
             manifest   {digest}\n\n\
             file                           what     size  sha256\n\
             bases/tiny/config.json         base      2 B  44136fa355b3\n\
             licences/moat.txt              licence   5 B  51d2361f4fae\n\
             moat-9.0.0.cdx.json            sbom      2 B  44136fa355b3\n\
             packages/moat_9.0.0_amd64.deb  package   3 B  9cfa1468c93f\n\
             packages/moat_9.0.0_arm64.deb  package  14 B  5064454d567b\n\n\
             sound: 5 files, 26 B, each as it was signed\n"
        ),
        "{page}"
    );
    let json: serde_json::Value = serde_json::from_str(&done(here, &format!("--json {verify}"))).unwrap();
    assert_eq!(json["reply"], "bundle_verified");
    assert_eq!(json["value"]["manifest"]["number"], 7);
    assert_eq!(json["value"]["signers"].as_array().unwrap().len(), 2);
    assert!(json["value"]["refused"].is_null());
}

#[test]
fn a_new_key_is_its_owners_alone_and_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let page = done(here, "bundle key create ada.key");
    assert!(page.contains("No passphrase protects the private key"), "{page}");
    assert_eq!(fs::metadata(here.join("ada.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(here.join("ada.key")).unwrap();
    fails(here, "bundle key create ada.key", 1, "cannot be written");
    assert_eq!(fs::read(here.join("ada.key")).unwrap(), before);
    let json: serde_json::Value =
        serde_json::from_str(&done(here, "--json bundle key create ben.key")).unwrap();
    assert_eq!(
        (json["reply"].as_str(), json["value"]["public"].as_str()),
        (Some("bundle_key"), Some("ben.key.pub"))
    );
    // What signs is told by no page.
    assert!(!page.contains(String::from_utf8(before).unwrap().lines().nth(1).unwrap()));
}

#[test]
fn what_cannot_be_done_ends_with_its_code() {
    let team = team();
    let here = team.path();
    release_keys(here);
    done(here, PACK);
    fails(here, PACK, 1, "it is there already");
    fails(here, "bundle sign m.bundle --key ada.pub", 2, "is no Ed25519 private key");
    fails(here, "bundle keys ada.key ben.pub cleo.pub --version 1 --to k", 2, "is no Ed25519 public key");
    fails(here, "bundle keys ada.pub ben.pub --version 1 --to k", 1, "there are more than it takes");
    fails(here, "bundle sign made/licences/moat.txt --key ada.key", 1, "ends within");
    fails(here, "bundle sign made/moat-9.0.0.cdx.json --key ada.key", 2, "is nothing to sign");
    done(here, "bundle key create stranger.key");
    fails(here, "bundle sign m.bundle --key stranger.key", 1, "comes from somebody else");
    fails(here, "bundle verify gone --keys keys.json", 1, "cannot open gone");
    fails(here, "bundle verify . --keys keys.json", 1, "is no regular file");

    // Expired: the page tells all, and the code says no.
    done(here, "bundle sign m.bundle --key ada.key");
    let late =
        "bundle pack made --number 8 --version 9.0.0 --expires 2026-11-22T00:00:01Z --keys keys.json --to l";
    done(here, late);
    done(here, "bundle sign l --key ada.key");
    done(here, "bundle sign l --key ben.key");
    let (code, stdout, _) = moat(here, "bundle verify l --keys keys.json");
    assert!(code == 1 && stdout.contains("REFUSED: the bundle expired 2026-11-22 00:00 UTC"), "{stdout}");
    let (code, stdout, _) = moat(here, "--json bundle verify l --keys keys.json");
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(code == 1 && json["value"]["refused"].as_str().unwrap().contains("expired"), "{stdout}");
}

#[test]
fn release_keys_change_by_the_old_and_the_new() {
    let team = team();
    let here = team.path();
    release_keys(here);
    done(here, "bundle key create dora.key");
    done(here, "bundle keys dora.key.pub ben.pub cleo.pub --version 2 --expires 2126-01-01 --to newer.json");
    let pack = |to: &str| format!("{} --keys newer.json", PACK.replace("m.bundle", to));
    done(here, "bundle sign newer.json --key dora.key");
    done(here, "bundle sign newer.json --key ben.key");
    fails(here, &pack("n.bundle"), 1, "release keys 2 is signed by 1 of the 2");
    done(here, "bundle sign newer.json --key ada.key");
    done(here, &pack("n.bundle"));
    fails(here, "bundle sign n.bundle --key ada.key", 1, "comes from somebody else");
    done(here, "bundle sign n.bundle --key dora.key");
    done(here, "bundle sign n.bundle --key cleo.key");
    // Whoever trusts the old ones and whoever trusts the new ones take it.
    done(here, "bundle verify n.bundle --keys keys.json");
    done(here, "bundle verify n.bundle --keys newer.json");
    done(here, PACK);
    done(here, "bundle sign m.bundle --key ada.key");
    done(here, "bundle sign m.bundle --key ben.key");
    fails(
        here,
        "bundle verify m.bundle --keys newer.json",
        1,
        "signed under release keys 1, and 2 are in force",
    );
}
