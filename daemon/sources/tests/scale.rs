//! A folder of 100,000 small files: memory does not grow with the folder, and an unchanged one is not read again.
//! Alone in its binary, since the peak of memory is the process's.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot set up its case fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_catalog::{Catalog, Known};
use moat_contracts::Digest;
use moat_sources::{Change, Folder, ScanReport};
use moat_vault::{Kek, Vault};

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn scan(folder: &Folder, catalog: &Catalog) -> ScanReport {
    let rules = Digest::of(b"rules");
    let mut waiting: Vec<Known> = Vec::new();
    let commit = |waiting: &mut Vec<Known>| {
        let batch = catalog.write().unwrap();
        waiting.drain(..).for_each(|known| batch.put_document(&known).unwrap());
        batch.commit().unwrap();
    };
    let report = folder
        .scan(catalog, rules, &mut |change| {
            let Change::Arrived { known, .. } = change else { panic!("only new files are expected") };
            waiting.push(Known { rules: Some(rules), ..known });
            if waiting.len() == 500 {
                commit(&mut waiting);
            }
            Ok(())
        })
        .unwrap();
    commit(&mut waiting);
    report
}

#[test]
fn a_hundred_thousand_files() {
    // The files themselves need no disk.
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let fill = |folders: std::ops::Range<u32>| {
        for folder in folders {
            let folder = data.path().join(format!("folder {folder}"));
            fs::create_dir(&folder).unwrap();
            for file in 0..500 {
                fs::write(folder.join(format!("note {file}.txt")), format!("{} {file}\n", folder.display()))
                    .unwrap();
            }
        }
    };
    let folder = Folder {
        name: "files".to_owned(),
        root: data.path().to_owned(),
        max_bytes: 1 << 20,
        policy: "internal".to_owned(),
        settle: Duration::ZERO,
        hidden: false,
    };
    let catalog = Catalog::open(&state.path().join("catalog.db"), &vault(state.path())).unwrap();
    fill(0..100);
    assert_eq!(scan(&folder, &catalog).arrived, 50_000);
    let half = peak_kib();
    fill(100..200);
    let begun = Instant::now();
    let report = scan(&folder, &catalog);
    assert_eq!((report.arrived, report.unchanged, report.read), (50_000, 50_000, 50_000));
    let (first, begun) = (begun.elapsed(), Instant::now());
    let report = scan(&folder, &catalog);
    assert_eq!((report.met, report.unchanged, report.read, report.gone), (100_000, 100_000, 0, 0));
    let whole = peak_kib();
    println!(
        "50,000 new among 100,000 in {first:.1?}, 100,000 unchanged in {:.1?}; peak {half} KiB at 50,000, {whole} KiB \
         at 100,000",
        begun.elapsed()
    );
    // Most of it is the catalog's cache of 32 MiB, which 50,000 documents do not fill yet; 200,000 stay below it too.
    assert!(whole < 64 * 1024, "memory grew with the folder: {half} KiB, then {whole} KiB");
}

/// A vault of the test's own.
fn vault(folder: &Path) -> Arc<Vault> {
    std::fs::write(folder.join("moat-kek"), [7; 32]).unwrap();
    let kek = Kek::credential_in(folder).unwrap();
    Arc::new(Vault::create(&folder.join("vault"), &kek).unwrap())
}
