//! Checkpoints, witnesses and receipts, verification beside a writer, and what a large ledger costs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking; the large one tells what it measured"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use moat_ledger::{Act, Filter, Ledger, LedgerError, Options, Phase, PublicKey, Who, verify, verify_receipt};

const SEED: [u8; 32] = [7; 32];

fn act(number: u64) -> Act {
    Act::new(Who::account("anna", "steward"), "source.change", Phase::Done).on("number", number)
}

fn key() -> PublicKey {
    PublicKey::of_seed(&SEED).unwrap()
}

#[test]
fn a_witness_that_was_pulled_out_early_is_mended_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (log, witness) = (folder.path().join("log"), folder.path().join("witness"));
    let ledger = Ledger::open(&log, Some(&SEED)).unwrap();
    assert!(matches!(ledger.copy_checkpoint(&witness), Err(LedgerError::NoCheckpoint)));
    for number in 0..3 {
        ledger.append(&act(number)).unwrap();
        ledger.checkpoint().unwrap();
        ledger.copy_checkpoint(&witness).unwrap();
        ledger.copy_checkpoint(&witness).unwrap();
    }
    let whole = fs::read(&witness).unwrap();
    assert_eq!(whole, fs::read(log.join("checkpoints")).unwrap(), "each checkpoint once");
    fs::write(&witness, &whole[..whole.len() - 20]).unwrap();
    ledger.copy_checkpoint(&witness).unwrap();
    assert_eq!(fs::read(&witness).unwrap(), whole);
    assert_eq!(verify(&log, &key(), Some(&witness)).unwrap().witnessed, 3);
    let nowhere = folder.path().join("nowhere");
    assert!(verify(&log, &key(), Some(&nowhere)).is_err(), "a missing witness is not passed over");
}

#[test]
fn a_receipt_convinces_only_as_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), Some(&SEED)).unwrap();
    (0..11).for_each(|number| assert_eq!(ledger.append(&act(number)).unwrap(), number));
    assert!(matches!(ledger.receipt(0), Err(LedgerError::NoCheckpoint)));
    ledger.checkpoint().unwrap();
    ledger.append(&act(11)).unwrap();
    assert!(matches!(ledger.receipt(11), Err(LedgerError::Beyond { asked: 11, size: 11 })));
    for index in 0..11 {
        let receipt = ledger.receipt(index).unwrap();
        let (entry, checkpoint) = verify_receipt(&receipt, &key()).unwrap();
        assert_eq!((entry, checkpoint.size), (ledger.entry(index).unwrap(), 11));
        assert!(verify_receipt(&receipt, &PublicKey::of_seed(&[9; 32]).unwrap()).is_err());
        for at in 0..receipt.len() {
            for bit in 0..7 {
                let mut changed = receipt.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(changed) else { continue };
                assert!(verify_receipt(&changed, &key()).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn a_ledger_that_is_being_written_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 10_000 };
    let ledger = Ledger::open_with(folder.path(), Some(&SEED), options).unwrap();
    let witness = folder.path().join("witness");
    ledger.checkpoint().unwrap();
    ledger.copy_checkpoint(&witness).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..600 {
                ledger.append(&act(number)).unwrap();
                if number % 3 == 0 {
                    ledger.checkpoint().unwrap();
                    ledger.copy_checkpoint(&witness).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut rounds = 0;
        while !done.load(Ordering::Acquire) || rounds == 0 {
            let report = verify(folder.path(), &key(), Some(&witness)).unwrap();
            assert!(report.is_sound(), "{report:?}");
            rounds += 1;
        }
    });
    assert_eq!(verify(folder.path(), &key(), Some(&witness)).unwrap().entries, 600);
}

#[test]
#[ignore = "writes some 300 MB and takes a minute; prints timings"]
fn a_million_entries_stay_pleasant() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(folder.path(), Some(&SEED)).unwrap());
    let clock = Instant::now();
    let append = |ledger: &Ledger, thread: u64| {
        (0..4000).for_each(|number: u64| assert!(ledger.append(&act(thread * number)).is_ok()));
    };
    let threads: Vec<_> = (0..250)
        .map(|thread| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || append(&ledger, thread))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("appended a million, 250 at once: {:?}", clock.elapsed());
    ledger.checkpoint().unwrap();
    let timed = |what: &str, deed: &dyn Fn()| {
        let clock = Instant::now();
        deed();
        println!("{what}: {:?}", clock.elapsed());
    };
    let count = |filter: &Filter| ledger.entries(filter, None, 100).unwrap().entries.len();
    timed("newest hundred", &|| assert_eq!(count(&Filter::default()), 100));
    let nothing = Filter { on: Some("nothing".into()), ..Filter::default() };
    timed("a filter that finds nothing", &|| assert_eq!(count(&nothing), 0));
    timed("the first entry", &|| assert_eq!(ledger.entry(0).unwrap().index, 0));
    timed("a receipt", &|| assert!(ledger.receipt(500_000).unwrap().len() > 500));
    drop(ledger);
    timed("opening", &|| assert_eq!(Ledger::open(folder.path(), None).unwrap().size(), 1_000_000));
    timed("verifying", &|| assert!(verify(folder.path(), &key(), None).unwrap().is_sound()));
}
