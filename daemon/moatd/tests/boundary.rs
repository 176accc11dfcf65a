//! The real daemon inside its boundary: what it refuses to start without, what it cannot reach, and what its canary finds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use moat_contracts::Protection;
use moat_protocol::control::{Fault, Reply, Request};
use seccompiler::{BpfMap, TargetArch, apply_filter, compile_from_json};
use site::people::{ADA, BEN, can_be_others, refused};
use site::{Random, Site, prose, tiny_recipe};

const POLICY: &str = include_str!("../../../config/sandbox.toml");

/// Adds lines to the site's `[boundary]`.
fn demand(site: &Site, lines: &str) {
    let file = site.path("moat.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("[boundary]\n", &format!("[boundary]\n{lines}\n"))).unwrap();
}

fn all() -> String {
    let names: Vec<_> = Protection::ALL.iter().map(|protection| format!("\"{protection}\"")).collect();
    format!("require = [{}]", names.join(", "))
}

/// Starts the daemon on a machine whose kernel answers to no call of Landlock's.
#[allow(unsafe_code)]
fn without_landlock(site: &Site) -> Output {
    let rules = r#"{"none": {"mismatch_action": "allow", "match_action": {"errno": 38}, "filter": [
        {"syscall": "landlock_create_ruleset"}]}}"#;
    let target = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filters: BpfMap = compile_from_json(rules.as_bytes(), target).unwrap();
    let filter = filters["none"].clone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moatd"));
    command.arg("--config").arg(site.path("moat.toml"));
    // SAFETY: between fork and exec it makes system calls only.
    unsafe {
        command.pre_exec(move || apply_filter(&filter).map_err(std::io::Error::other));
    }
    command.output().unwrap()
}

#[test]
fn nothing_starts_without_a_protection_that_is_demanded() {
    let site = Site::new();
    demand(&site, "require = [\"dumps\", \"landlock\"]");
    let output = without_landlock(&site);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(
        log.contains("boundary.require") && log.contains("landlock (") && !log.contains("ready"),
        "{log}"
    );

    let site = Site::new();
    fs::write(site.path("policy.toml"), POLICY.replace("\"brk\"", "\"brkk\"")).unwrap();
    demand(&site, &format!("sandbox = \"{}\"", site.path("policy.toml").display()));
    let output = Command::new(env!("CARGO_BIN_EXE_moatd"))
        .arg("--config")
        .arg(site.path("moat.toml"))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("brkk"), "{log}");
}

fn protections(site: &Site) -> BTreeMap<String, bool> {
    let Reply::Status(status) = site.call(Request::Status) else { panic!("no status") };
    status.protections
}

/// With everything demanded of both programs, the whole line still works.
#[test]
fn with_everything_demanded_a_run_is_done() {
    let mut site = Site::new();
    fs::create_dir_all(site.path("more/book")).unwrap();
    fs::write(site.path("more/book/page.txt"), prose(&mut Random(99), 10)).unwrap();
    demand(&site, &format!("{}\nsources = [\"{}\"]", all(), site.path("more").display()));
    for index in 0..30 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.spawn();
    let deadline = Instant::now() + Duration::from_secs(60);
    while site.try_call(&Request::Status, |_| {}).is_none() {
        if site.log().contains("boundary.require") {
            // This machine's kernel is older than some of them.
            return;
        }
        assert!(Instant::now() < deadline, "{}", site.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(protections(&site).into_iter().filter(|(_, had)| !had).collect::<Vec<_>>(), []);
    site.import_base();
    site.scan();
    let run = site.run(&tiny_recipe(5));
    assert!(run.outcome.is_some() && run.edge.is_some(), "{run:?}");

    // What lies elsewhere is out of reach, whoever asks.
    fs::create_dir(site.path("elsewhere")).unwrap();
    fs::copy(site.path("tiny/config.json"), site.path("elsewhere/config.json")).unwrap();
    let folder = site.path("elsewhere").display().to_string();
    let reply = site.call(Request::BaseImport { folder, name: Some("other".to_owned()) });
    assert!(matches!(reply, Reply::Failed { fault: Fault::Request, .. }), "{reply:?}");
    let linked = site.path("exports/link");
    std::os::unix::fs::symlink(site.path("elsewhere"), &linked).unwrap();
    let folder = linked.display().to_string();
    let reply = site.call(Request::BaseImport { folder, name: Some("other".to_owned()) });
    let Reply::Failed { message, .. } = reply else { panic!("{reply:?}") };
    assert!(message.contains("ermission denied"), "{message}");
    if can_be_others() {
        let [_, ada, ben] = site.set_up_three();
        let folder = |own: &str| site.path(own).display().to_string();
        let (run, proof) = (run.name.clone(), ada.proof());
        let outside =
            Request::Export { run: run.clone(), folder: folder("elsewhere/own"), recipient: None, proof };
        assert!(refused(site.call_as(ADA, outside)).1.contains("boundary.exports"));
        let asked = site.ask_export(&ada, &run, &folder("exports/link/own"));
        assert!(refused(site.approve(BEN, &ben, &asked)).1.contains("ermission denied"));
        // A source that people add is read by the daemon as it is, without a restart.
        site.add_source(&ada, &ben, &site.new_source("book", "more/book"));
        let read = site.until_source("book", |source| source.present == 1 && source.scanned.is_some());
        assert_eq!((read.fault, read.verdicts["kept"]), (None, 1));
    }
    assert_eq!(fs::read_dir(site.path("elsewhere")).unwrap().count(), 1);
    assert!(!site.log().contains("a way out"), "{}", site.log());
    site.end();
}
