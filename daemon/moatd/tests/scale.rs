//! A hundred thousand small files: memory that does not grow with the folder, and a restart that reads nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod site;

use moat_protocol::control::{Reply, Request, SourceStatus};
use site::{Random, Site, prose};

/// Memory that ten times as many files may take more, KiB: the page caches of the connection that writes, 32 MiB, and of
/// four that read, 8 MiB each, which the small folder does not fill, and the allocator's slack.
const GROWTH: u64 = 80 * 1024;

fn scanned(site: &Site) -> SourceStatus {
    let Reply::Status(mut status) = site.call(Request::Scan) else { panic!() };
    status.sources.remove("documents").unwrap()
}

/// Takes a folder of small files in, and gives the daemon's peak resident memory in KiB.
fn take_in(files: u64) -> u64 {
    let mut site = Site::new();
    for index in 0..files {
        site.write(&format!("{:03}/{index}.txt", index % 500), &prose(&mut Random(index), 3));
    }
    site.start();
    assert_eq!(scanned(&site).present, files);
    let peak = site.peak_memory();
    site.end();
    site.start();
    let again = scanned(&site);
    assert_eq!((again.present, again.read), (files, 0));
    site.end();
    peak
}

#[test]
fn memory_does_not_grow_with_the_folder_and_a_restart_reads_nothing() {
    let (small, large) = (take_in(10_000), take_in(100_000));
    println!("peak resident memory: {} MiB at 10,000 files, {} MiB at 100,000", small / 1024, large / 1024);
    assert!(large < small + GROWTH, "{small} KiB at 10,000 files, {large} KiB at 100,000");
}
