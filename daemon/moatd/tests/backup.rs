//! A backup that is made while work goes on, and what a restore makes of it, with the real command line.

#![allow(clippy::unwrap_used, clippy::panic)]
mod site;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moat_ledger::{PublicKey, verify};
use moat_protocol::control::{BackedUp, Fault, LedgerPage, Reply, Request, RunState};
use site::people::refused;
use site::{Random, Site, prose, tiny_recipe};

/// A site that may write backups.
fn site() -> Site {
    let site = Site::new();
    fs::create_dir(site.path("backups")).unwrap();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let backups = format!("[boundary]\nbackups = [\"{}\"]\n", site.path("backups").display());
    fs::write(site.path("moat.toml"), settings.replace("[boundary]\n", &backups)).unwrap();
    site
}

fn back_up(site: &Site, name: &str) -> BackedUp {
    let folder = site.path("backups").join(name).display().to_string();
    match site.call(Request::Backup { folder }) {
        Reply::BackedUp(made) => made,
        other => panic!("{other:?}"),
    }
}

fn restore(backup: &Path, state: &Path) -> Output {
    // Built beside moatd, as the engine is.
    let programs = Path::new(env!("CARGO_BIN_EXE_moatd")).parent().unwrap();
    Command::new(programs.join("moat")).arg("restore").arg(backup).arg(state).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn ledger(site: &Site, act: &str) -> LedgerPage {
    match site.call(Request::Ledger { act: Some(act.to_owned()), before: None, most: 100 }) {
        Reply::Ledger(page) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_backed_up_while_work_went_on_is_whole_elsewhere() {
    let mut first = site();
    for index in 0..40 {
        first.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    first.start();
    first.import_base();
    first.scan();
    let done = first.run(&tiny_recipe(6));
    let going = first.start_run(&tiny_recipe(200));
    // Documents come and keys move while the backups are made.
    let mut made = Vec::new();
    for round in 0..4 {
        first.write(&format!("later/{round}.txt"), &prose(&mut Random(100 + round), 10));
        made.push(back_up(&first, &format!("{round}")));
        assert!(matches!(first.call(Request::VaultRotate), Reply::Seal(_)));
    }
    let reply = first.call(Request::RunWatch { name: going.clone() });
    let Reply::Run(whole) = reply else { panic!("{reply:?}") };
    assert_eq!(whole.state, RunState::Done);

    // Nowhere else, and never over what is there.
    let outside = Request::Backup { folder: first.path("exports/backup").display().to_string() };
    assert!(refused(first.call(outside)).1.contains("boundary.backups"));
    let again = Request::Backup { folder: first.path("backups/0").display().to_string() };
    assert_eq!(refused(first.call(again)).0, Fault::Request);
    let key = ledger(&first, "backup.create").key.unwrap();
    let entry = &ledger(&first, "backup.create").entries;
    assert!(entry.iter().any(|entry| entry.on.get("backup") == Some(&made[0].hash.to_string())));
    first.end();

    // Each is whole by its sums and its ledger, and a site of its own goes on from it to the same weights.
    let public = PublicKey::from_text(&key).unwrap();
    for (round, made) in made.iter().enumerate() {
        let folder = PathBuf::from(&made.folder);
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(&folder);
        assert!(sums.status().unwrap().success());
        let report = verify(&folder.join("ledger"), &public, None).unwrap();
        assert!(report.is_sound() && report.covered == report.entries, "{report:?}");
        let mut second = site();
        for index in 0..40 {
            second.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
        }
        let output = restore(&folder, &second.path("state"));
        assert!(output.status.success(), "{}", said(&output));
        second.start();
        assert_eq!(ledger(&second, "state.restored").entries[0].on["backup"], made.hash.to_string());
        assert_eq!(second.weights(&done.name), done.outcome.as_ref().unwrap().weights);
        assert_eq!(second.adapter(&done.name), done.outcome.as_ref().unwrap().weights);
        second.scan();
        let Reply::Why(why) = second.call(Request::Why { path: "3.txt".to_owned() }) else { panic!() };
        assert_eq!(why[0].records.len(), 1);
        let reply = second.call(Request::RunWatch { name: going.clone() });
        let Reply::Run(run) = reply else { panic!("round {round}: {reply:?}") };
        assert_eq!(run.state, RunState::Done, "{:?}", run.message);
        assert_eq!(run.outcome.unwrap().weights, whole.outcome.as_ref().unwrap().weights);
        second.end();
        second.start();
        assert_eq!(ledger(&second, "state.restored").entries.len(), 1);
        second.end();
    }
}

#[test]
fn a_restore_takes_nothing_damaged_and_mixes_nothing() {
    let mut site = site();
    site.write("a.txt", &prose(&mut Random(1), 10));
    site.start();
    site.scan();
    let made = back_up(&site, "whole");
    site.end();
    let backup = PathBuf::from(&made.folder);
    let state = site.path("elsewhere");

    // A flipped bit, a missing file, one more, a cut list: nothing is written.
    let root = backup.join("vault/root");
    let whole = fs::read(&root).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&root, flipped).unwrap();
    assert!(said(&restore(&backup, &state)).contains("vault/root"));
    fs::remove_file(&root).unwrap();
    assert!(!restore(&backup, &state).status.success());
    fs::write(&root, &whole).unwrap();
    fs::write(backup.join("more"), "x").unwrap();
    assert!(said(&restore(&backup, &state)).contains("not in the sums"));
    fs::remove_file(backup.join("more")).unwrap();
    assert!(!state.exists());

    // Over a state that is there: nothing either.
    let before = fs::read(site.path("state/catalog.db")).unwrap();
    assert!(said(&restore(&backup, &site.path("state"))).contains("is not empty"));
    assert_eq!(fs::read(site.path("state/catalog.db")).unwrap(), before);

    // One that was cut off is not started on.
    assert!(restore(&backup, &state).status.success());
    fs::write(state.join("restoring"), "").unwrap();
    fs::rename(site.path("state"), site.path("before")).unwrap();
    fs::rename(&state, site.path("state")).unwrap();
    site.spawn();
    while !site.log().contains("was cut off") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
