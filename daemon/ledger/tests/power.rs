//! Power cuts: what a disk may keep of a last, unsynced write, and that nothing acknowledged goes with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use moat_ledger::{Act, Ledger, LedgerError, Phase, PublicKey, Who, verify};
use proptest::prelude::*;

const SEED: [u8; 32] = [7; 32];

/// A folder in memory: these tests lose bytes themselves, and need no disk to sync to.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn act(number: u64, wide: usize) -> Act {
    let act = Act::new(Who::account("anna", "steward"), "source.change", Phase::Done);
    act.on("number", number).detail("wide", "x".repeat(wide))
}

fn key() -> PublicKey {
    PublicKey::of_seed(&SEED).unwrap()
}

#[test]
fn a_power_cut_while_signing_leaves_all_before_it() {
    let folder = memory();
    let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
    let (history, current) = (folder.path().join("checkpoints"), folder.path().join("checkpoint"));
    ledger.append(&act(0, 0)).unwrap();
    ledger.checkpoint().unwrap();
    let (before, newest) = (fs::read(&history).unwrap(), fs::read(&current).unwrap());
    ledger.append(&act(1, 0)).unwrap();
    ledger.checkpoint().unwrap();
    drop(ledger);
    let after = fs::read(&history).unwrap();
    for length in before.len()..=after.len() {
        for zeros in [0, 64] {
            // The newest is put in place only after the history is synced.
            fs::write(&current, &newest).unwrap();
            let mut left = after[..length].to_vec();
            let tail = left.len().saturating_sub(zeros).max(before.len());
            left[tail..].fill(0);
            fs::write(&history, &left).unwrap();
            let told = verify(folder.path(), &key(), None).unwrap();
            assert!(told.is_sound(), "{length}: {told:?}");
            let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
            let whole = left == after;
            assert_eq!(ledger.last_checkpoint().unwrap().size, 1 + u64::from(whole));
            assert_eq!(ledger.repairs().cut_checkpoint, !whole && length > before.len());
            assert_eq!(ledger.checkpoint().unwrap().size, 2);
            drop(ledger);
            assert_eq!(fs::read(&history).unwrap(), after);
            assert_eq!(fs::read(&current).unwrap(), after[before.len()..]);
        }
    }
}

#[test]
fn a_power_cut_that_takes_only_the_end_of_a_line_leaves_all_before_it() {
    let folder = memory();
    let lines = folder.path().join("entries").join(format!("{:020}.log", 0));
    let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
    ledger.append(&act(0, 0)).unwrap();
    let hashes = fs::read(folder.path().join("hashes")).unwrap();
    ledger.append(&act(1, 0)).unwrap();
    drop(ledger);
    let mut left = fs::read(&lines).unwrap();
    // The end of the line was in a block of its own, of which only the file's length tells.
    *left.last_mut().unwrap() = 0;
    fs::write(&lines, &left).unwrap();
    fs::write(folder.path().join("hashes"), hashes).unwrap();
    assert!(verify(folder.path(), &key(), None).unwrap().is_sound());
    assert_eq!(Ledger::open(folder.path(), Some(&SEED)).unwrap().size(), 1);
}

/// What a power cut can leave of the last write: any of its sectors lost, with or without the file's new length.
fn lose_sectors(before: &[u8], after: &[u8], lost: u64, length: usize) -> Vec<u8> {
    let mut left = after[..length].to_vec();
    for (number, sector) in left.chunks_mut(512).enumerate() {
        if lost >> (number % 64) & 1 == 1 {
            for (at, byte) in sector.iter_mut().enumerate() {
                *byte = before.get(number * 512 + at).copied().unwrap_or(0);
            }
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_in_the_last_write_leaves_all_before_it(
        kept in 0u64..9, together in 1u64..7, lost: u64, at: prop::sample::Index, hashes: prop::sample::Index,
        wide in 0usize..400,
    ) {
        let folder = memory();
        let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
        (0..kept + together).for_each(|number| assert_eq!(ledger.append(&act(number, wide)).unwrap(), number));
        let root = ledger.root_at(kept).unwrap();
        drop(ledger);
        let lines = folder.path().join("entries").join(format!("{:020}.log", 0));
        let mut after = fs::read(&lines).unwrap();
        let ends: Vec<usize> = (0..after.len()).filter(|&at| after[at] == b'\n').map(|at| at + 1).collect();
        let before = kept.checked_sub(1).map_or(0, |last| ends[last as usize]);
        // The last entries as they are when they are appended at once: one write, of which only the first begins it.
        ends[kept as usize..ends.len() - 1].iter().for_each(|&start| after[start] = b'.');
        let length = before + at.index(after.len() - before + 1);
        let left = lose_sectors(&after[..before], &after, lost, length);
        fs::write(&lines, &left).unwrap();
        // The write was not acknowledged, so its hashes were never written; of older ones any may be lost too.
        let stored = fs::read(folder.path().join("hashes")).unwrap();
        let slots = (2 * kept - u64::from(kept.count_ones())) as usize;
        fs::write(folder.path().join("hashes"), &stored[..hashes.index(32 * slots + 1)]).unwrap();

        let report = verify(folder.path(), &key(), None).unwrap();
        prop_assert!(report.is_sound(), "{:?}", report);
        let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
        let size = ledger.size();
        prop_assert!((kept..=kept + together).contains(&size));
        prop_assert!(left != after || size == kept + together);
        prop_assert_eq!(ledger.root_at(kept).unwrap(), root);
        prop_assert_eq!(ledger.append(&act(99, 0)).unwrap(), size);
        ledger.checkpoint().unwrap();
        drop(ledger);
        prop_assert_eq!(verify(folder.path(), &key(), None).unwrap().covered, size + 1);
    }

    /// The same look of loss, where a later write began or a hash was stored, is damage: that entry was acknowledged.
    #[test]
    fn loss_in_what_was_acknowledged_is_never_cut_away(kept in 1u64..9, gap: prop::sample::Index, hashes: bool) {
        let folder = memory();
        let ledger = Ledger::open(folder.path(), None).unwrap();
        (0..kept + 1).for_each(|number| assert_eq!(ledger.append(&act(number, 0)).unwrap(), number));
        drop(ledger);
        let lines = folder.path().join("entries").join(format!("{:020}.log", 0));
        let mut left = fs::read(&lines).unwrap();
        let end = left.len();
        let last = left[..end - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        // Without stored hashes only the writes that began later tell, so the loss is before the last.
        let start = gap.index(if hashes { end } else { last } - 1);
        let until = (start + 16).min(if hashes { end } else { last });
        left[start..until].fill(0);
        fs::write(&lines, &left).unwrap();
        if !hashes {
            fs::remove_file(folder.path().join("hashes")).unwrap();
        }
        prop_assert!(!verify(folder.path(), &key(), None).unwrap().is_sound());
        prop_assert!(matches!(Ledger::open(folder.path(), None), Err(LedgerError::Damaged(_))));
        prop_assert_eq!(fs::read(&lines).unwrap(), left, "nothing was cut");
    }
}
