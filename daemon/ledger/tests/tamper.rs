//! Whoever changes a ledger after the fact is found: each bit, each cut, each older copy, each history signed anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moat_ledger::{
    Act, Checkpoint, Finding, Ledger, LedgerError, Phase, Place, PublicKey, Report, Who, leaf_hash, verify,
};

const SEED: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

/// A folder in memory: these tests lose and change bytes themselves, and need no disk to sync to.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn key() -> PublicKey {
    PublicKey::of_seed(&SEED).unwrap()
}

fn act(number: u64) -> Act {
    let who = Who::user(1000, "anna", "steward");
    Act::new(who, "run.start", Phase::Intent).on("run", number).detail("recipe", "support")
}

/// Appends `entries` entries and signs after every third and at the end.
fn fill(folder: &Path, seed: &[u8; 32], entries: std::ops::Range<u64>) -> Checkpoint {
    let ledger = Ledger::open(folder, Some(seed)).unwrap();
    for number in entries {
        ledger.append(&act(number)).unwrap();
        if number % 3 == 2 {
            ledger.checkpoint().unwrap();
        }
    }
    ledger.checkpoint().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("entries")).unwrap();
    for file in files(from) {
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

/// Every file of a ledger that holds something, by its path within.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for inside in ["", "entries"] {
        for entry in fs::read_dir(folder.join(inside)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.metadata().unwrap().len() > 0 {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn report(folder: &Path) -> Report {
    verify(folder, &key(), None).unwrap()
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("entries").join(format!("{:020}.log", 0))
}

#[test]
fn a_ledger_that_nobody_touched_is_sound() {
    let folder = memory();
    let last = fill(folder.path(), &SEED, 0..10);
    let report = report(folder.path());
    assert_eq!(report.findings, []);
    assert_eq!((report.entries, report.covered, report.checkpoints), (10, 10, 4));
    assert!(report.is_sound() && last.is_signed_by(&key()));
    assert_eq!(PublicKey::from_text(&key().to_text()).unwrap(), key());
}

/// Flips one bit of a file where it stands.
fn flip(path: &Path, at: usize, bit: u32) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at as u64).unwrap();
}

#[test]
fn every_flipped_bit_is_found() {
    let folder = memory();
    fill(folder.path(), &SEED, 0..7);
    let lines = fs::read(segment(folder.path())).unwrap();
    let (mut bits, mut refused) = (0, 0);
    for file in files(folder.path()) {
        let path = folder.path().join(&file);
        let whole = fs::read(&path).unwrap();
        let mut entry = 0;
        for at in 0..whole.len() {
            for bit in 0..8 {
                flip(&path, at, bit);
                let report = report(folder.path());
                assert!(!report.is_sound(), "bit {bit} of byte {at} of {} was not found", file.display());
                if whole == lines {
                    let first = report.findings.iter().find(|finding| !finding.is_harmless()).unwrap();
                    let named =
                        matches!(first, Finding::Damaged { from, to } if (*from..*to).contains(&entry));
                    assert!(named, "bit {bit} of byte {at} of entry {entry} was called: {first}");
                }
                bits += 1;
                // Opening recomputes as well, except signatures without the key.
                if bit == 3 && at % 8 == 0 {
                    let opened = Ledger::open(folder.path(), Some(&SEED));
                    assert!(
                        matches!(opened, Err(LedgerError::Damaged(_))),
                        "byte {at} of {}",
                        file.display()
                    );
                    refused += 1;
                    let left = fs::read(&path).unwrap();
                    assert!(
                        left.len() == whole.len() && left[at] == whole[at] ^ 1 << bit,
                        "damage was healed"
                    );
                }
                flip(&path, at, bit);
            }
            entry += u64::from(whole[at] == b'\n');
        }
        assert!(fs::read(&path).unwrap() == whole);
    }
    assert!(report(folder.path()).is_sound());
    assert!(bits > 15_000 && refused > 200);
}

#[test]
fn every_flipped_bit_is_found_without_hashes_and_checkpoints() {
    let folder = memory();
    let ledger = Ledger::open(folder.path(), None).unwrap();
    (0..3).for_each(|number| assert_eq!(ledger.append(&act(number)).unwrap(), number));
    drop(ledger);
    fs::remove_file(folder.path().join("hashes")).unwrap();
    let path = segment(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            flip(&path, at, bit);
            assert!(!report(folder.path()).is_sound(), "bit {bit} of byte {at} was taken for a torn write");
            flip(&path, at, bit);
        }
    }
    assert!(fs::read(&path).unwrap() == whole);
    assert!(report(folder.path()).is_sound());
}

#[test]
fn every_cut_tail_is_found() {
    let folder = memory();
    fill(folder.path(), &SEED, 0..7);
    for file in files(folder.path()) {
        let path = folder.path().join(&file);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let report = report(folder.path());
            // Stored hashes can be computed again from the entries: a lack of them is told, and hides nothing.
            let told = match file.to_str().unwrap() {
                "hashes" => report.missing_hashes > 0 && report.covered == 7,
                // Without any checkpoint in it, `checkpoint` is as it is before the first.
                "checkpoint" if length == 0 => true,
                _ => !report.is_sound(),
            };
            assert!(told, "{} cut to {length} bytes was not found: {report:?}", file.display());
        }
        fs::write(&path, &whole).unwrap();
    }
    // An adversary who cuts the stored hashes along with the entries.
    let (lines, hashes) = (segment(folder.path()), folder.path().join("hashes"));
    let (whole, stored) = (fs::read(&lines).unwrap(), fs::read(&hashes).unwrap());
    let ends = (0..whole.len()).filter(|&at| whole[at] == b'\n').map(|at| at + 1);
    for (kept, end) in (1..7).zip(ends) {
        fs::write(&lines, &whole[..end]).unwrap();
        fs::write(&hashes, &stored[..32 * (2 * kept - (kept as u64).count_ones() as usize)]).unwrap();
        let found = report(folder.path()).findings;
        assert!(
            found.iter().any(|finding| matches!(finding, Finding::CutTail { known: 7, .. })),
            "{found:?}"
        );
        assert!(matches!(Ledger::open(folder.path(), None), Err(LedgerError::Damaged(_))));
    }
}

#[test]
fn an_older_copy_put_back_is_found_by_the_witness() {
    let folder = memory();
    let (log, old, witness) =
        (folder.path().join("log"), folder.path().join("old"), folder.path().join("witness"));
    fill(&log, &SEED, 0..5);
    copy(&log, &old);
    fill(&log, &SEED, 5..9);
    Ledger::open(&log, None).unwrap().copy_checkpoint(&witness).unwrap();
    let whole = verify(&log, &key(), Some(&witness)).unwrap();
    assert!(whole.is_sound() && whole.witnessed == 9);

    assert!(report(&old).is_sound(), "by itself an older copy is a good ledger");
    let found = verify(&old, &key(), Some(&witness)).unwrap().findings;
    assert_eq!(found, [Finding::RolledBack { have: 5, witnessed: 9 }]);
    let ledger = Ledger::open(&old, Some(&SEED)).unwrap();
    assert!(matches!(ledger.copy_checkpoint(&witness), Err(LedgerError::Witness { .. })));
    drop(ledger);

    // The older copy goes on beyond what the witness saw.
    fill(&old, &SEED, 5..12);
    let found = verify(&old, &key(), Some(&witness)).unwrap().findings;
    assert_eq!(found, [Finding::Contradicted { place: Place::Witness, number: 1, size: 9 }]);
    let ledger = Ledger::open(&old, Some(&SEED)).unwrap();
    assert!(matches!(ledger.copy_checkpoint(&witness), Err(LedgerError::Witness { .. })));
}

/// Writes the ledger anew with entry `target` saying something else, as an adversary with a key would: lines, hashes
/// and checkpoints all agree with each other.
fn rewrite(folder: &Path, to: &Path, seed: &[u8; 32], target: u64) {
    let ledger = Ledger::open(folder, None).unwrap();
    let size = ledger.size();
    let forged = Ledger::open(to, Some(seed)).unwrap();
    for index in 0..size {
        let act = if index == target { act(index).detail("recipe", "other") } else { act(index) };
        forged.append(&act).unwrap();
        if index % 3 == 2 {
            forged.checkpoint().unwrap();
        }
    }
    forged.checkpoint().unwrap();
}

#[test]
fn a_history_signed_anew_is_found() {
    let folder = memory();
    let (log, witness) = (folder.path().join("log"), folder.path().join("witness"));
    fill(&log, &SEED, 0..6);
    Ledger::open(&log, None).unwrap().copy_checkpoint(&witness).unwrap();
    fill(&log, &SEED, 6..9);

    let same = folder.path().join("same");
    rewrite(&log, &same, &SEED, 4);
    assert!(report(&same).is_sound(), "the same key signs anything: only a witness knows better");
    let found = verify(&same, &key(), Some(&witness)).unwrap().findings;
    assert_eq!(found, [Finding::Contradicted { place: Place::Witness, number: 1, size: 6 }]);

    let other = folder.path().join("other");
    rewrite(&log, &other, &OTHER, 4);
    let found = report(&other);
    assert!(found.findings.iter().any(|finding| matches!(finding, Finding::ForeignKey { .. })));
    assert_eq!(found.covered, 0);
    assert!(matches!(
        Ledger::open(&other, Some(&SEED)),
        Err(LedgerError::Damaged(Finding::ForeignKey { .. }))
    ));
    let sealed = Ledger::open(&other, None).unwrap();
    assert!(matches!(sealed.unseal(&SEED), Err(LedgerError::Damaged(Finding::ForeignKey { .. }))));
}

/// Changes an entry in place and makes its checksum fit again.
fn forge_line(folder: &Path, from: &str, to: &str) {
    let path = segment(folder);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = lines.iter_mut().find(|line| line.contains(from)).unwrap();
    let json = line[18..].replace(from, to);
    let sum: String = leaf_hash(json.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    *line = format!("{}{sum} {json}", &line[..1]);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn a_line_forged_with_its_checksum_is_found() {
    let folder = memory();
    fill(folder.path(), &SEED, 0..9);
    forge_line(folder.path(), "{\"run\":\"4\"}", "{\"run\":\"5\"}");
    let found = report(folder.path()).findings;
    assert!(found.contains(&Finding::Hash { index: 4, level: 0 }));
    assert!(found.contains(&Finding::Contradicted { place: Place::History, number: 2, size: 6 }));
    // With the stored hashes thrown away, the signed checkpoints still know.
    fs::remove_file(folder.path().join("hashes")).unwrap();
    let found = report(folder.path()).findings;
    assert!(found.contains(&Finding::Contradicted { place: Place::History, number: 2, size: 6 }));
    assert!(!found.iter().any(|finding| matches!(finding, Finding::Contradicted { size: 3, .. })));
}

#[test]
fn removed_doubled_and_swapped_lines_are_found() {
    let changes: [fn(&mut Vec<&str>); 4] = [
        |lines| assert!(!lines.remove(3).is_empty()),
        |lines| lines.insert(3, lines[3]),
        |lines| lines.swap(3, 5),
        |lines| lines.truncate(lines.len() - 2),
    ];
    for change in changes {
        let folder = memory();
        fill(folder.path(), &SEED, 0..9);
        let path = segment(folder.path());
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        change(&mut lines);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert!(!report(folder.path()).is_sound());
        fs::remove_file(folder.path().join("hashes")).unwrap();
        assert!(!report(folder.path()).is_sound());
        assert!(matches!(Ledger::open(folder.path(), None), Err(LedgerError::Damaged(_))));
    }
}

#[test]
fn cut_and_reordered_checkpoints_are_found() {
    let folder = memory();
    fill(folder.path(), &SEED, 0..9);
    let path = folder.path().join("checkpoints");
    let text = fs::read_to_string(&path).unwrap();
    let notes: Vec<String> =
        text.lines().collect::<Vec<_>>().chunks(5).map(|note| note.join("\n") + "\n").collect();
    assert_eq!(notes.len(), 3);
    fs::write(&path, notes[..2].concat()).unwrap();
    assert_eq!(report(folder.path()).findings, [Finding::HistoryCut { size: 9 }]);
    fs::write(&path, [&*notes[0], &notes[2], &notes[1]].concat()).unwrap();
    assert_eq!(report(folder.path()).findings, [Finding::Backwards { place: Place::History, number: 3 }]);
}
