//! State folders as released versions left them, taken over by this one; and one of a version to come, refused.
//! `tests/releases/README.md` says what is there and how it was made.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moat_contracts::Progress;
use moat_ledger::{PublicKey, verify};
use moat_protocol::control::{Key, NewSlot, Reply, Request, Run, RunState, Secret, Update};
use serde_json::{Value, json};
use site::{Random, Site, prose, tiny_recipe};

const DOCUMENTS: u64 = 24;
const PASSPHRASE: &str = "a state that outlives its programs";

fn releases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/releases")
}

fn tar(arguments: &[&str], archive: &Path, folder: &Path) {
    let mut command = Command::new("tar");
    command.args(arguments).arg("--file").arg(archive).arg("--directory").arg(folder);
    assert!(command.args(["state", "documents", "kept.json"]).status().unwrap().success());
}

fn one(reply: Reply) -> Run {
    match reply {
        Reply::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn ledger_key(site: &Site) -> String {
    match site.call(Request::Ledger { act: None, before: None, most: 1 }) {
        Reply::Ledger(page) => page.key.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Lets a run go until it has a checkpoint, and stops it.
fn stopped_run(site: &Site) -> Run {
    let name = site.start_run(&tiny_recipe(4000));
    let hung_up = site.listen(&Request::RunWatch { name: name.clone() }, |update| {
        !matches!(update, Update::Run { progress: Progress::Checkpoint { .. }, .. })
    });
    assert_eq!(hung_up, None);
    one(site.call(Request::RunStop { name: name.clone() }));
    site.call(Request::RunWatch { name: name.clone() });
    let run = one(site.call(Request::Run { name }));
    assert_eq!(run.state, RunState::Stopped, "{:?}", run.message);
    run
}

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
#[ignore = "keeps the state of a release, once, for the versions after it"]
fn keep_the_state_of_this_release() {
    let mut site = Site::new();
    for index in 0..DOCUMENTS {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    let slot = NewSlot::Passphrase(Secret(PASSPHRASE.to_owned()));
    let added = site.call(Request::VaultSlotAdd { with: slot });
    assert!(matches!(added, Reply::Shares(_)), "{added:?}");
    site.import_base();
    site.scan();
    let done = site.run(&tiny_recipe(6));
    fs::remove_file(site.path("documents/0.txt")).unwrap();
    site.scan();
    assert!(matches!(site.call(Request::VaultRotate), Reply::Seal(_)));
    let stopped = stopped_run(&site);
    let key = ledger_key(&site);
    site.end();
    let report = verify(&site.path("state/ledger"), &PublicKey::from_text(&key).unwrap(), None).unwrap();
    let kept = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "documents": DOCUMENTS,
        "deleted": "0.txt",
        "done": done.name,
        "weights": done.outcome.unwrap().weights,
        "dataset": done.dataset,
        "stopped": stopped.name,
        "ledger": { "key": key, "entries": report.entries },
    });
    fs::write(site.path("kept.json"), format!("{kept:#}\n")).unwrap();
    let archive = releases().join(concat!(env!("CARGO_PKG_VERSION"), ".tar.gz"));
    let plain =
        ["--create", "--gzip", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    tar(&plain, &archive, &site.path(""));
}

/// A site with a release's state and documents, not started, and what was written down about it.
fn taken_over(archive: &Path) -> (Site, Value) {
    let site = Site::new();
    tar(&["--extract", "--gzip"], archive, &site.path(""));
    let kept = fs::read_to_string(site.path("kept.json")).unwrap();
    (site, serde_json::from_str(&kept).unwrap())
}

fn archives() -> Vec<PathBuf> {
    let entries = fs::read_dir(releases()).unwrap().map(|entry| entry.unwrap().path());
    let archives: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
    assert!(!archives.is_empty());
    archives
}

#[test]
fn every_releases_state_is_taken_over() {
    for archive in archives() {
        let (mut site, kept) = taken_over(&archive);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        site.start();

        // What was made is there, and is what it was.
        let done = one(site.call(Request::Run { name: text(&kept["done"]) }));
        assert_eq!((done.state, json!(done.dataset)), (RunState::Done, kept["dataset"].clone()));
        assert_eq!(json!(done.outcome.as_ref().unwrap().weights), kept["weights"]);
        assert_eq!(json!(site.adapter(&done.name)), kept["weights"]);
        assert!(done.edge.is_some());
        site.scan();
        let Reply::Why(why) = site.call(Request::Why { path: "1.txt".to_owned() }) else { panic!() };
        assert_eq!(why[0].records.len(), 1);
        assert!(!why[0].reached.is_empty());
        let Reply::Why(why) = site.call(Request::Why { path: text(&kept["deleted"]) }) else { panic!() };
        assert!(why[0].records.is_empty() && !why[0].reached.is_empty());
        let same = site.run(&tiny_recipe(6));
        assert_ne!(json!(same.dataset), kept["dataset"], "the deleted document is in the next dataset too");

        // What was begun goes on, and what this version added works.
        assert_eq!(
            one(site.call(Request::RunResume { name: text(&kept["stopped"]) })).state,
            RunState::Queued
        );
        let watched = Request::RunWatch { name: text(&kept["stopped"]) };
        let mut from = None;
        site.listen(&watched, |update| {
            if let Update::Run { progress: Progress::Training { from: steps, .. }, .. } = update {
                from = Some(steps);
            }
            from.is_none()
        });
        assert!(from.unwrap() > 0, "the run began again");
        one(site.call(Request::RunStop { name: text(&kept["stopped"]) }));
        site.call(watched);
        assert!(matches!(site.call(Request::VaultRotate), Reply::Seal(_)));
        let starts = Request::Ledger { act: Some("daemon.start".to_owned()), before: None, most: 1 };
        let Reply::Ledger(page) = site.call(starts) else { panic!() };
        assert_eq!(page.entries[0].detail["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(ledger_key(&site), text(&kept["ledger"]["key"]));
        site.set_up_three();
        site.end();

        // The ledger is one from its first entry on; the passphrase still opens.
        let key = PublicKey::from_text(&text(&kept["ledger"]["key"])).unwrap();
        let report = verify(&site.path("state/ledger"), &key, None).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert!(report.entries > kept["ledger"]["entries"].as_u64().unwrap());
        fs::remove_file(site.path("credentials/moat-kek")).unwrap();
        site.start();
        let with = Key::Passphrase(Secret(PASSPHRASE.to_owned()));
        let Reply::Seal(seal) = site.call(Request::VaultUnseal { with }) else { panic!() };
        assert!(!seal.sealed);
        assert_eq!(
            json!(one(site.call(Request::Run { name: done.name })).outcome.unwrap().weights),
            kept["weights"]
        );
        site.end();
    }
}

#[test]
fn a_state_of_a_version_to_come_is_refused_and_left_as_it_is() {
    let mut site = Site::new();
    site.write("a.txt", &prose(&mut Random(1), 10));
    site.start();
    site.scan();
    site.end();
    let catalog = site.path("state/catalog.db");
    let connection = rusqlite::Connection::open(&catalog).unwrap();
    let known: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    connection.pragma_update(None, "user_version", known + 1).unwrap();
    connection.close().unwrap();
    let before = files(&site.path("state"));
    let status = site.ends_at_its_start();
    assert!(!status.success());
    assert!(site.log().contains("install the newer release again"), "{}", site.log());
    // Of the ledger, a refused start may add to: it is an act.
    let unchanged = |files: BTreeMap<PathBuf, Vec<u8>>| {
        files.into_iter().filter(|(path, _)| !path.starts_with(site.path("state/ledger"))).collect::<Vec<_>>()
    };
    assert_eq!(unchanged(files(&site.path("state"))), unchanged(before));
}
