//! Appending: what is refused, what a full disk does, who shares an fsync, what a kill leaves, and reading it back.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking; its child tells what it had acknowledged"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use moat_ledger::{
    Act, Filter, Ledger, LedgerError, Options, Phase, PublicKey, Reader, Repairs, Who, verify, verify_receipt,
};

const SEED: [u8; 32] = [7; 32];
const FOLDER: &str = "MOAT_LEDGER_TEST_FOLDER";

fn act(number: u64) -> Act {
    Act::new(Who::account("anna", "steward"), "source.change", Phase::Done).on("number", number)
}

fn sound(folder: &Path) -> u64 {
    let report = verify(folder, &PublicKey::of_seed(&SEED).unwrap(), None).unwrap();
    assert!(report.is_sound(), "{report:?}");
    report.entries
}

/// Runs one ignored test of this program in a process of its own, through `sh` with `prepare` before it.
fn child(prepare: &str, test: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{prepare} exec \"$0\" --ignored --exact --nocapture {test}");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).env(FOLDER, folder);
    command
}

fn folder_of_child() -> std::path::PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

#[test]
fn what_breaks_the_rules_is_refused_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), None).unwrap();
    let good = || Act::new(Who::daemon(), "run.start", Phase::Intent);
    let wrong = [
        Act::new(Who::daemon(), "run", Phase::Intent),
        Act::new(Who::daemon(), "Run.start", Phase::Intent),
        Act::new(Who::daemon(), "run..start", Phase::Intent),
        Act::new(Who::daemon(), &format!("run.{}", "a".repeat(61)), Phase::Intent),
        Act::new(Who::account("", "admin"), "run.start", Phase::Intent),
        Act::new(Who::account("anna\n", "admin"), "run.start", Phase::Intent),
        Act::new(Who::account("anna", "an admin"), "run.start", Phase::Intent),
        good().on("Run", 1),
        good().on("run", "line\nline"),
        good().detail("why", "x".repeat(513)),
        (0..9).fold(good(), |act, number| act.detail(&format!("why{number}"), "x".repeat(500))),
        (0..33).fold(good(), |act, number| act.on(&format!("run{number}"), 1)),
    ];
    for act in wrong {
        assert!(matches!(ledger.append(&act), Err(LedgerError::Refused(_))), "{act:?}");
    }
    assert_eq!(ledger.size(), 0);
    assert_eq!(ledger.append(&good()).unwrap(), 0);
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), None).unwrap();
    let intent = Act::new(Who::user(1000, "Jürgen \"J\"", "admin"), "export.approve", Phase::Intent)
        .on("model", "m-1")
        .on("destination", "backup")
        .detail("bytes", 42);
    let index = ledger.append(&intent).unwrap();
    ledger.append(&intent.follow(Phase::Failed, index)).unwrap();
    let entry = ledger.entry(1).unwrap();
    assert_eq!((entry.index, entry.phase, &*entry.act), (1, Phase::Failed, "export.approve"));
    assert_eq!(entry.who, Who::user(1000, "Jürgen \"J\"", "admin"));
    assert_eq!(entry.on["model"], "m-1");
    assert_eq!((&*entry.detail["bytes"], &*entry.detail["intent"]), ("42", "0"));
    let line = String::from_utf8(ledger.entry_bytes(1).unwrap()).unwrap();
    assert!(line.starts_with(&format!("{{\"index\":1,\"time\":{},\"who\":{{\"name\":", entry.time)));
    assert_eq!(serde_json::to_string(&entry).unwrap(), line, "one canonical way to write an entry");
    assert!(matches!(ledger.entry(2), Err(LedgerError::Beyond { asked: 2, size: 2 })));
}

#[test]
fn threads_append_side_by_side_and_each_gets_its_own_index() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 20_000 };
    let ledger = Arc::new(Ledger::open_with(folder.path(), Some(&SEED), options).unwrap());
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                (0..100)
                    .map(|number| {
                        let number = thread * 1000 + number;
                        if number % 40 == 0 {
                            ledger.checkpoint().unwrap();
                        }
                        (ledger.append(&act(number)).unwrap(), number)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let written: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(written.iter().map(|(index, _)| *index).collect::<BTreeSet<_>>(), (0..800).collect());
    for (index, number) in written {
        assert_eq!(ledger.entry(index).unwrap().on["number"], number.to_string());
    }
    let root = ledger.root();
    drop(ledger);
    assert!(fs::read_dir(folder.path().join("entries")).unwrap().count() > 3, "segments are begun");
    assert_eq!(sound(folder.path()), 800);
    let again = Ledger::open(folder.path(), None).unwrap();
    assert_eq!((again.root(), again.repairs()), (root, Repairs::default()));
}

#[test]
fn a_ledger_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), None).unwrap();
    assert!(matches!(Ledger::open(folder.path(), None), Err(LedgerError::Busy(_))));
    drop(ledger);
    Ledger::open(folder.path(), None).unwrap();
}

#[test]
fn sealed_entries_are_covered_by_the_next_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), None).unwrap();
    ledger.append(&act(0)).unwrap();
    assert!(matches!(ledger.checkpoint(), Err(LedgerError::Sealed)));
    ledger.unseal(&SEED).unwrap();
    assert_eq!(ledger.checkpoint().unwrap().size, 1);
    assert_eq!(
        ledger.checkpoint().unwrap(),
        ledger.last_checkpoint().unwrap(),
        "nothing new, nothing signed"
    );
    ledger.seal();
    ledger.append(&act(1)).unwrap();
    assert!(matches!(ledger.checkpoint(), Err(LedgerError::Sealed)));
    assert_eq!(ledger.last_checkpoint().unwrap().size, 1);
    assert_eq!(sound(folder.path()), 2);
}

/// Appends until the disk is full, frees the ballast, and appends again; all that was acknowledged must be there.
fn fill_the_disk(folder: &Path, free: impl FnOnce()) {
    let ledger = Ledger::open(&folder.join("ledger"), Some(&SEED)).unwrap();
    let mut kept = 0;
    let error = loop {
        match ledger.append(&act(kept)) {
            Ok(index) => {
                assert_eq!(index, kept);
                kept += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LedgerError::NotWritten { .. }), "{error}");
    assert!(kept > 10, "only {kept} fitted");
    for _ in 0..3 {
        assert!(matches!(ledger.append(&act(kept)), Err(LedgerError::NotWritten { .. })));
    }
    assert_eq!(ledger.size(), kept);
    assert_eq!(
        Reader::open(&folder.join("ledger")).unwrap().size().unwrap(),
        kept,
        "no half of an entry is left"
    );
    // Whether a checkpoint still finds room or not, neither may harm what is there.
    let signed = ledger.checkpoint();
    assert!(signed.is_ok() || matches!(signed, Err(LedgerError::Io { .. })));
    free();
    assert_eq!(ledger.append(&act(kept)).unwrap(), kept, "the log can be appended to again");
    ledger.checkpoint().unwrap();
    verify_receipt(&ledger.receipt(kept).unwrap(), &PublicKey::of_seed(&SEED).unwrap()).unwrap();
    let root = ledger.root();
    drop(ledger);
    assert_eq!(sound(&folder.join("ledger")), kept + 1);
    assert_eq!(Ledger::open(&folder.join("ledger"), Some(&SEED)).unwrap().root(), root);
    println!("kept {kept}");
}

#[test]
#[ignore = "runs in the mount namespace that the test below makes"]
fn child_fills_a_small_filesystem() {
    let folder = folder_of_child();
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![1; 64 << 10]).unwrap();
    fill_the_disk(&folder, || fs::remove_file(&ballast).unwrap());
}

#[test]
fn a_full_disk_refuses_the_act_and_the_log_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=256k none \"$MOAT_LEDGER_TEST_FOLDER\" &&";
    let mut possible = Command::new("unshare");
    possible.args(["-rm", "sh", "-c", &format!("{mount} true")]).env(FOLDER, folder.path());
    if !possible.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: this machine grants no mount namespace; the limit on file sizes stands in for it");
        return;
    }
    let plain = child(mount, "child_fills_a_small_filesystem", folder.path());
    let mut command = Command::new("unshare");
    command.arg("-rm").arg(plain.get_program()).args(plain.get_args()).env(FOLDER, folder.path());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("kept "),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "runs under the limit that the test below sets"]
fn child_meets_the_limit_on_file_sizes() {
    let folder = folder_of_child();
    let limit = || rustix::process::getrlimit(rustix::process::Resource::Fsize);
    let raise = || {
        let all = rustix::process::Rlimit { current: limit().maximum, maximum: limit().maximum };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, all).unwrap();
    };
    fill_the_disk(&folder, raise);
}

#[test]
fn a_write_that_the_system_cuts_short_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // With SIGXFSZ ignored a write beyond the limit is cut short, and the next is refused, as on a full disk.
    let prepare = "trap '' XFSZ; ulimit -S -f 40;";
    let output = child(prepare, "child_meets_the_limit_on_file_sizes", folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("kept "),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "is killed by the test below"]
fn child_appends_until_it_is_killed() {
    let options = Options { segment_bytes: 8_000 };
    let ledger = Arc::new(Ledger::open_with(&folder_of_child(), Some(&SEED), options).unwrap());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                for number in 0.. {
                    let index = ledger.append(&act(number)).unwrap();
                    if index.is_multiple_of(7) {
                        ledger.checkpoint().unwrap();
                    }
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {index} {number}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    // A fixed seed, so that a failure can be run again.
    let (mut random, mut acknowledged) = (0x9E37_79B9_7F4A_7C15u64, Vec::new());
    for round in 0..40 {
        let mut child = child("", "child_appends_until_it_is_killed", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (lines, spin) = (1 + random % 40, random >> 40 & 0xFFFF);
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in out.by_ref() {
            let line = line.unwrap();
            if let Some((_, pair)) = line.split_once("acknowledged ") {
                let (index, number) = pair.split_once(' ').unwrap();
                acknowledged.push((index.parse::<u64>().unwrap(), number.to_owned()));
                seen += 1;
            }
            if seen == lines {
                break;
            }
        }
        // A few turns of nothing move the kill off the moment of an acknowledgement.
        (0..spin).for_each(|turn| assert!(std::hint::black_box(turn) < spin));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in out.map_while(Result::ok) {
            if let Some((index, number)) =
                line.strip_prefix("acknowledged ").and_then(|pair| pair.split_once(' '))
            {
                acknowledged.push((index.parse().unwrap(), number.to_owned()));
            }
        }
        assert!(seen > 0, "round {round}: the child acknowledged nothing");
        let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
        let newest = acknowledged.iter().map(|(index, _)| *index).max().unwrap();
        assert!(ledger.size() > newest, "round {round}: entry {newest} was acknowledged and is gone");
    }
    let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
    let indexes: BTreeSet<_> = acknowledged.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes.len(), acknowledged.len(), "an index was given twice");
    for (index, number) in &acknowledged {
        assert_eq!(ledger.entry(*index).unwrap().on["number"], *number);
    }
    drop(ledger);
    sound(folder.path());
}

#[test]
fn pages_come_newest_first_and_filters_agree_with_reading_all() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 30_000 };
    let ledger = Ledger::open_with(folder.path(), None, options).unwrap();
    let acts = ["run.start", "run.stop", "runner.start", "export.request"];
    for number in 0..1000usize {
        let who = Who::account(["anna", "ben \"b\"", "an"][number % 3], "steward");
        let act = Act::new(who, acts[number % 4], Phase::Done).on("model", number % 7).detail("name", "anna");
        ledger.append(&act).unwrap();
    }
    let all = ledger.entries(&Filter::default(), None, usize::MAX).unwrap();
    assert!(all.next.is_none());
    assert!(all.entries.iter().map(|entry| entry.index).eq((0..1000).rev()));
    let text = |text: &str| Some(text.to_owned());
    let middle = all.entries[500].time;
    let filters = [
        (Filter { act: text("run"), ..Filter::default() }, 500),
        (Filter { act: text("run."), ..Filter::default() }, 500),
        (Filter { act: text("run.st"), ..Filter::default() }, 0),
        (Filter { who: text("an"), ..Filter::default() }, 333),
        (Filter { who: text("ben \"b\""), act: text("export.request"), ..Filter::default() }, 83),
        (Filter { on: text("3"), ..Filter::default() }, 143),
        (Filter { on: text("anna"), ..Filter::default() }, 0),
    ];
    let since = Filter { since: Some(middle), ..Filter::default() };
    let until = Filter { until: Some(middle), ..Filter::default() };
    let count = |filter: &Filter| ledger.entries(filter, None, usize::MAX).unwrap().entries.len();
    assert_eq!(count(&since) + count(&until), 1000);
    for (filter, expected) in filters {
        let (mut before, mut paged) = (None, Vec::new());
        loop {
            let page = ledger.entries(&filter, before, 17).unwrap();
            paged.extend(page.entries);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(paged.len(), expected, "{filter:?}");
        assert!(paged.is_sorted_by(|left, right| left.index > right.index));
        assert_eq!(paged.len(), count(&filter));
    }
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.entries(&Filter::default(), None, usize::MAX).unwrap(), all);
    assert_eq!(reader.size().unwrap(), 1000);
}
