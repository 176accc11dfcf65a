//! What somebody could do to a bundle on its way, each by its name, and that it is refused for the right reason.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::LazyLock;

use common::*;
use moat_bundle::{BundleError, Manifest, SignedKeys, SigningKey};
use proptest::prelude::*;

macro_rules! refused {
    ($verdict:expr, $reason:pat) => {
        let verdict = $verdict;
        assert!(matches!(&verdict, Err($reason)), "{:?}", verdict.err());
    };
}

fn altered(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_sound_bundle_is_the_same_bytes_from_two_writers() {
    let team = Team::new();
    let ours = bundle(&team, 7, "0.2.0");
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    assert_eq!(ours, compose(&text, &team, &body(&files)));
    let admitted = verdict(&ours, team.trusted()).unwrap();
    assert_eq!((admitted.manifest.number, admitted.signers.len()), (7, 2));
    assert_eq!(admitted.manifest.bases(), ["tiny"]);
}

#[test]
fn a_bundle_cut_at_any_byte_is_refused() {
    let team = Team::new();
    let bundle = bundle(&team, 7, "0.2.0");
    for length in 0..bundle.len() {
        let verdict = verdict(&bundle[..length], team.trusted());
        assert!(matches!(verdict, Err(BundleError::Cut { .. })), "cut at {length}");
    }
}

/// Every bit of what is signed, and one of each byte of what follows, whose SHA-256 is signed.
#[test]
fn every_flipped_bit_of_a_bundle_is_refused() {
    let team = Team::new();
    let mut bundle = bundle(&team, 7, "0.2.0");
    let files = body(&files("0.2.0")).concat().len() + 1024;
    let front = bundle.len() - files;
    let bits = (0..front).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    for (at, bit) in bits.chain((front..bundle.len()).map(|at| (at, at * 5 % 8))) {
        bundle[at] ^= 1 << bit;
        assert!(verdict(&bundle, team.trusted()).is_err(), "bit {bit} of byte {at}");
        bundle[at] ^= 1 << bit;
    }
    verdict(&bundle, team.trusted()).unwrap();
}

/// The history of the keys is not signed with the manifest: each step of it is by itself.
#[test]
fn every_flipped_bit_of_the_history_of_the_keys_is_refused_though_newer_ones_are_trusted() {
    let team = Team::new().rotated();
    let whole = bundle(&team, 7, "0.2.0");
    let manifest = verdict(&whole, team.trusted()).unwrap().manifest.write().unwrap();
    let (first, end) =
        (member("manifest.json", &manifest).len(), whole.len() - body(&files("0.2.0")).concat().len());
    let mut flipped = whole.clone();
    for at in first..end - 1024 {
        flipped[at] ^= 1 << (at * 5 % 8);
        assert!(verdict(&flipped, team.trusted()).is_err(), "byte {at}");
        flipped[at] = whole[at];
    }
}

#[test]
fn anything_behind_a_bundle_is_refused() {
    let team = Team::new();
    let bundle = bundle(&team, 7, "0.2.0");
    for more in [&b"\0"[..], &[0; 512], b"x", &member("more", b"more")] {
        refused!(verdict(&[&bundle, more].concat(), team.trusted()), BundleError::Trailing);
    }
    let within = [&bundle[..bundle.len() - 1024], &member("more", b"more"), &[0; 1024]].concat();
    refused!(verdict(&within, team.trusted()), BundleError::Trailing);
}

#[test]
fn files_of_two_signed_bundles_cannot_be_mixed() {
    let team = Team::new();
    let (old, new) = (files("0.2.0"), files("0.3.0"));
    let text = manifest(8, "0.3.0", 1, &new).write().unwrap();
    for at in 0..new.len() {
        // The other bundle's file in its own place and under its own name, and under the name that is expected here.
        let mut members = body(&new);
        members[at] = member(&old[at].0, &old[at].1);
        let same = old[at] == new[at];
        assert_eq!(verdict(&compose(&text, &team, &members), team.trusted()).is_ok(), same, "{}", old[at].0);
        members[at] = member(&new[at].0, &old[at].1);
        let same = old[at].1 == new[at].1;
        let verdict = verdict(&compose(&text, &team, &members), team.trusted());
        assert!(same || matches!(verdict, Err(BundleError::Digest { .. })), "{}", new[at].0);
    }
}

#[test]
fn a_manifest_with_another_bundles_signatures_is_refused() {
    let team = Team::new();
    let (old, new) = (files("0.2.0"), files("0.3.0"));
    let text = |number, files: &[_]| {
        manifest(number, if number == 7 { "0.2.0" } else { "0.3.0" }, 1, files).write().unwrap()
    };
    let signers = [&team.keys[0], &team.keys[1]];
    let front_of_old = front(&text(7, &old), &team.history, &signers);
    let signatures_of_old = &front_of_old[member("manifest.json", &text(7, &old)).len()..];
    let mixed =
        [&member("manifest.json", &text(8, &new)), signatures_of_old, &body(&new).concat(), &[0; 1024]]
            .concat();
    refused!(verdict(&mixed, team.trusted()), BundleError::Signature { .. });
}

#[test]
fn packages_of_another_version_are_no_bundle() {
    let team = Team::new();
    let mut files = files("0.3.0");
    let good = manifest(8, "0.3.0", 1, &files).write().unwrap();
    files[6].0 = "packages/moat_0.2.0_amd64.deb".to_owned();
    let text = altered(&good, "packages/moat_0.3.0_amd64.deb", "packages/moat_0.2.0_amd64.deb");
    refused!(verdict(&compose(&text, &team, &body(&files)), team.trusted()), BundleError::Form { .. });
    for (from, to) in [
        ("packages/moat_0.3.0_amd64.deb", "packages/moat_0.3.0_riscv64.deb"),
        ("packages/moat_0.3.0_amd64.deb", "packages/other_0.3.0_amd64.deb"),
        ("\"what\": \"package\"", "\"what\": \"licence\""),
        ("moat-0.3.0.cdx.json", "moat-0.4.0.cdx.json"),
        ("\"x86_64\"", "\"aarch64\""),
        ("\"x86_64\"", "\"aarch64\",\n    \"x86_64\""),
    ] {
        let text = altered(&good, from, to);
        refused!(Manifest::read(&text), BundleError::Form { .. } | BundleError::Path { .. });
    }
}

#[test]
fn a_bundle_of_somebody_else_is_refused() {
    let (team, others) = (Team::new(), Team::new());
    let theirs = bundle(&others, 7, "0.2.0");
    refused!(verdict(&theirs, team.trusted()), BundleError::Fork { version: 1 });
    // Their signatures below our keys.
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    let signed = |signers: &[&SigningKey]| {
        let front = front(&text, &team.history, signers);
        verdict(&[front, body(&files).concat(), vec![0; 1024]].concat(), team.trusted())
    };
    signed(&[&team.keys[0], &team.keys[2]]).unwrap();
    signed(&[&team.keys[0], &team.keys[1], &team.keys[2]]).unwrap();
    refused!(signed(&[&others.keys[0], &others.keys[1]]), BundleError::Foreign { .. });
    refused!(signed(&[&team.keys[0], &team.keys[1], &others.keys[1]]), BundleError::Foreign { .. });
    refused!(signed(&[]), BundleError::TooFew { signed: 0, threshold: 2, .. });
    refused!(signed(&[&team.keys[1]]), BundleError::TooFew { signed: 1, threshold: 2, .. });
    refused!(signed(&[&team.keys[1], &team.keys[1]]), BundleError::Twice { .. });
}

#[test]
fn a_signature_over_something_else_counts_for_nothing() {
    let team = Team::new();
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    // Release keys and manifests are signed under different first lines: one cannot be shown as the other.
    let mut other = release_keys(2, &team.keys);
    other.sign(&team.keys[0]).unwrap();
    let mut document: serde_json::Value = serde_json::to_value(&other).unwrap();
    let taken = serde_json::from_value(document["signatures"][0].take()).unwrap();
    let keys = serde_json::to_vec(&other.signed).unwrap();
    let mut signatures = vec![team.keys[1].sign_manifest(&keys).unwrap(), taken];
    signatures.sort_by_key(|signature: &moat_bundle::Signature| signature.key);
    let signatures = moat_bundle::Signatures { format: 1, keys: team.history.clone(), signatures };
    let mut document = serde_json::to_vec_pretty(&signatures).unwrap();
    document.push(b'\n');
    let whole = [
        member("manifest.json", &text),
        member("signatures.json", &document),
        body(&files).concat(),
        vec![0; 1024],
    ];
    refused!(verdict(&whole.concat(), team.trusted()), BundleError::Signature { .. });
}

#[test]
fn another_product_and_another_format_are_refused_though_they_are_signed() {
    let team = Team::new();
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    let verdict =
        |from, to| verdict(&compose(&altered(&text, from, to), &team, &body(&files)), team.trusted());
    refused!(verdict("\"moat\"", "\"goat\""), BundleError::Product { .. });
    refused!(verdict("\"format\": 1", "\"format\": 2"), BundleError::Format { found: 2, .. });
    // A later format may hold anything else.
    refused!(verdict("\"format\": 1,", "\"format\": 2, \"more\": 1,"), BundleError::Format { found: 2, .. });
    refused!(verdict("\"number\": 7", "\"number\": 0"), BundleError::Form { .. });
    refused!(verdict("\"number\": 7", "\"number\":  7"), BundleError::Form { .. });
    refused!(verdict("\"number\": 7", "\"number\": 7, \"number\": 8"), BundleError::Form { .. });
    refused!(verdict("\"number\": 7", "\"number\": 7, \"more\": 8"), BundleError::Form { .. });
    refused!(verdict("\"keys\": 1", "\"keys\": 2"), BundleError::OldKeys { found: 1, expected: 2 });
    refused!(verdict(&format!("{}", DAY + YEAR), &format!("{DAY}")), BundleError::Form { .. });
}

#[test]
fn paths_that_lead_out_are_refused_though_they_are_signed() {
    let team = Team::new();
    for path in [
        "licences/../../etc/passwd",
        "/etc/passwd",
        "licences//x",
        "licences/./x",
        "licences/",
        "licences/.hidden",
        "licences/-rf",
        "licences/a\\u0000b",
        "licences/a b",
        "licences/ä",
        &format!("licences/{}", "x".repeat(100)),
    ] {
        let files = files("0.2.0");
        let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
        let text = altered(&text, "licences/moat.txt", path);
        let verdict = verdict(&compose(&text, &team, &body(&files)), team.trusted());
        assert!(matches!(verdict, Err(BundleError::Path { .. })), "{path}: {verdict:?}");
    }
}

#[test]
fn a_path_stands_there_once_in_order_and_is_no_folder_of_another() {
    let team = Team::new();
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    for path in ["bases/tiny/config.json", "bases/tiny/a.json", "licences/moat.txt/x"] {
        let text = altered(&text, "bases/tiny/model.safetensors", path);
        refused!(
            verdict(&compose(&text, &team, &body(&files)), team.trusted()),
            BundleError::Path { .. } | BundleError::Form { .. }
        );
    }
    let text = altered(&text, "licences/tiny/NOTICE", "licences/moat.txt/x");
    refused!(verdict(&compose(&text, &team, &body(&files)), team.trusted()), BundleError::Path { .. });
}

#[test]
fn members_that_are_no_files_of_the_manifest_are_refused() {
    let team = Team::new();
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 1, &files).write().unwrap();
    let good = body(&files);
    let with = |at: usize, members: Vec<Vec<u8>>| {
        let mut all = good.clone();
        all.splice(at..=at, members);
        verdict(&compose(&text, &team, &all), team.trusted())
    };
    let (path, content) = &files[2];
    // Hard link, symbolic link, character and block device, folder, pipe; a long name's and PAX's records.
    for kind in b"123456" {
        refused!(with(2, vec![special(path, b"", *kind, "/etc/shadow")]), BundleError::NoFile { .. });
        refused!(with(2, vec![special(path, content, *kind, "")]), BundleError::NoFile { .. });
    }
    for kind in b"LKxgS" {
        let record = special("././@LongLink", b"../../etc/passwd\0", *kind, "");
        refused!(with(2, vec![record, good[2].clone()]), BundleError::NoFile { .. });
    }
    refused!(with(2, vec![]), BundleError::Unexpected { .. });
    refused!(with(6, vec![]), BundleError::Missing { .. });
    refused!(with(2, vec![good[2].clone(), good[2].clone()]), BundleError::Unexpected { .. });
    refused!(with(2, vec![good[3].clone()]), BundleError::Unexpected { .. });
    refused!(with(2, vec![member("../out", content)]), BundleError::Unexpected { .. });
    refused!(with(2, vec![member("/etc/passwd", content), good[2].clone()]), BundleError::Unexpected { .. });
    refused!(with(2, vec![member(path, b"longer than the terms\n")]), BundleError::Size { .. });
    refused!(with(2, vec![member(path, b"The terms\n")]), BundleError::Digest { .. });
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    refused!(verdict(&compose(&text, &team, &swapped), team.trusted()), BundleError::Unexpected { .. });
    let mut padded = good[2].clone();
    padded[1023] = 1;
    refused!(with(2, vec![padded]), BundleError::Damaged { .. });
}

#[test]
fn the_documents_come_first_and_are_small() {
    let team = Team::new();
    let bundle = bundle(&team, 7, "0.2.0");
    let manifest = member(
        "manifest.json",
        Manifest::write(&verdict(&bundle, team.trusted()).unwrap().manifest).unwrap().as_slice(),
    );
    refused!(verdict(&bundle[manifest.len()..], team.trusted()), BundleError::Unexpected { .. });
    let late = [&member("licences/moat.txt", b""), &bundle[..]].concat();
    refused!(verdict(&late, team.trusted()), BundleError::Unexpected { .. });
    let large = member("manifest.json", &vec![b' '; 5 << 20]);
    refused!(verdict(&large, team.trusted()), BundleError::TooLarge { .. });
    refused!(verdict(b"", team.trusted()), BundleError::Cut { .. });
    refused!(verdict(&[0; 4096], team.trusted()), BundleError::Missing { .. });
}

#[test]
fn release_keys_hand_on_step_by_step() {
    let first = Team::new();
    let second = first.rotated();
    let third = second.rotated();
    let old = bundle(&first, 7, "0.2.0");
    let new = bundle(&third, 9, "0.3.0");
    // Whoever trusts any of the history trusts its end, and whoever trusts the end takes nothing from before.
    for trusted in &third.history {
        assert_eq!(verdict(&new, trusted).unwrap().keys, *third.trusted());
    }
    verdict(&old, first.trusted()).unwrap();
    refused!(verdict(&old, second.trusted()), BundleError::OldKeys { found: 1, expected: 2 });
    // The key that was taken out of force signs nothing any more.
    let files = files("0.2.0");
    let text = manifest(7, "0.2.0", 2, &files).write().unwrap();
    let front = front(&text, &second.history, &[&first.keys[0], &first.keys[1]]);
    let whole = [front, body(&files).concat(), vec![0; 1024]].concat();
    refused!(verdict(&whole, first.trusted()), BundleError::Foreign { .. });
}

#[test]
fn release_keys_that_skip_a_step_or_lack_a_signature_are_refused() {
    let first = Team::new();
    let second = first.rotated();
    let third = second.rotated();
    let ours = first.trusted();
    let with = |history: Vec<SignedKeys>, keys: &Team| {
        let files = files("0.2.0");
        let version = history.last().map_or(1, |keys| keys.signed.version);
        let text = manifest(7, "0.2.0", version, &files).write().unwrap();
        let team = Team { keys: keys.keys.iter().map(copy).collect(), history };
        verdict(&compose(&text, &team, &body(&files)), ours)
    };
    let [one, two, three] = &third.history[..] else { panic!() };
    with(vec![one.clone(), two.clone(), three.clone()], &third).unwrap();
    refused!(with(vec![one.clone(), three.clone()], &third), BundleError::Form { .. });
    refused!(with(vec![two.clone(), three.clone()], &third), BundleError::Form { .. });
    refused!(with(vec![one.clone(), two.clone(), two.clone()], &second), BundleError::Form { .. });
    refused!(with(vec![], &first), BundleError::Form { .. });

    // Signed by the new keys alone, by the old ones alone, by one of each, by strangers.
    let strangers = Team::new();
    let next = |signers: &[&SigningKey]| {
        let keys: Vec<_> = strangers.keys.iter().map(copy).collect();
        let mut next = release_keys(2, &keys);
        for signer in signers {
            next.sign(signer).unwrap();
        }
        with(vec![one.clone(), next], &strangers)
    };
    let (old, new) = (&first.keys, &strangers.keys);
    next(&[&old[0], &old[1], &new[0], &new[1]]).unwrap();
    refused!(next(&[&new[0], &new[1], &new[2]]), BundleError::TooFew { .. });
    refused!(next(&[&old[0], &old[1], &old[2]]), BundleError::TooFew { .. });
    refused!(next(&[&old[0], &new[0], &new[1]]), BundleError::TooFew { .. });
    refused!(next(&[&old[0], &old[1], &new[0]]), BundleError::TooFew { .. });
    let stranger = SigningKey::create().unwrap();
    refused!(next(&[&old[0], &old[1], &new[0], &new[1], &stranger]), BundleError::Foreign { .. });
}

#[test]
fn release_keys_that_could_not_protect_are_none() {
    let keys: Vec<_> = (0..3).map(|_| SigningKey::create().unwrap().public().unwrap()).collect();
    SignedKeys::new(1, 2, None, &keys).unwrap();
    for (version, threshold, keys) in [
        (0, 2, &keys[..]),
        (1, 1, &keys[..]),
        (1, 0, &keys[..]),
        (1, 3, &keys[..]),
        (1, 2, &keys[..2]),
        (1, 2, &[keys[0], keys[1], keys[1]]),
    ] {
        assert!(matches!(SignedKeys::new(version, threshold, None, keys), Err(BundleError::Form { .. })));
    }
    // A key under another one's id would let one person count twice.
    let team = Team::new();
    let document = serde_json::to_string_pretty(team.trusted()).unwrap() + "\n";
    SignedKeys::read(document.as_bytes()).unwrap();
    let id = team.keys[0].public().unwrap().id().to_string();
    let wrong = document.replacen(&id, &id.chars().rev().collect::<String>(), 1);
    refused_keys(&wrong);
    refused_keys(&document.replace("\"threshold\": 2", "\"threshold\": 1"));
    refused_keys(&document.replace("\"format\": 1", "\"format\": 3"));
    // One signature is too few for keys to be trusted at all.
    let mut alone = team.trusted().clone();
    alone.signatures.truncate(1);
    assert!(matches!(alone.check_alone(), Err(BundleError::TooFew { signed: 1, .. })));
}

fn refused_keys(document: &str) {
    assert!(SignedKeys::read(document.as_bytes()).is_err(), "{document}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever bytes stand where the front of a bundle belongs, it is refused and nothing panics.
    #[test]
    fn no_bytes_make_a_bundle_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0_usize..4000) {
        static SOUND: LazyLock<(Team, Vec<u8>)> = LazyLock::new(|| {
            let team = Team::new();
            let bundle = bundle(&team, 7, "0.2.0");
            (team, bundle)
        });
        let (team, mut whole) = (&SOUND.0, SOUND.1.clone());
        let at = at.min(whole.len() - bytes.len());
        let before = whole.clone();
        whole[at..at + bytes.len()].copy_from_slice(&bytes);
        prop_assert!(whole == before || verdict(&whole, team.trusted()).is_err());
        prop_assert!(verdict(&bytes, team.trusted()).is_err());
    }
}
