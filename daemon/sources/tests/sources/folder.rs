//! The folder source on real file systems, case by case.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use crate::common::{Place, SOURCE, apply, brief, present, rules};
use moat_catalog::Known;
use moat_contracts::{Digest, DocumentState, Skip};
use moat_sources::{Change, SinkClosed, SourceError};

#[test]
fn first_scan_takes_all_and_the_second_reads_nothing() {
    let place = Place::new();
    place.write("b.md", "two");
    place.write("a/x.txt", "one");
    place.write("a/empty.txt", "");
    let (report, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived a/empty.txt", "arrived a/x.txt", "arrived b.md"]);
    assert_eq!((report.met, report.read, report.arrived, report.read_bytes), (3, 3, 3, 6));
    let known = place.known("a/x.txt");
    let modified = fs::metadata(place.path("a/x.txt")).unwrap().mtime();
    assert_eq!(known.document.authored, Some(modified));
    assert_eq!(known.document.policy, "internal");
    assert_eq!(known.stamp.header, Digest::of(b"one"));
    let (report, changes) = place.scan().unwrap();
    assert_eq!((report.met, report.read, report.unchanged), (3, 0, 3));
    assert!(changes.is_empty());
}

#[test]
fn changed_touched_and_deleted_files_are_told_apart() {
    let place = Place::new();
    for name in ["changed.txt", "touched.txt", "deleted.txt", "same.txt"] {
        place.write(name, name);
    }
    place.scan().unwrap();
    let id = place.id("changed.txt");
    place.write("changed.txt", "other");
    fs::remove_file(place.path("deleted.txt")).unwrap();
    File::options()
        .append(true)
        .open(place.path("touched.txt"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1000))
        .unwrap();
    let (report, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived changed.txt", "gone deleted.txt", "restamped touched.txt"]);
    assert_eq!((report.read, report.unchanged), (2, 1));
    assert_eq!(place.id("changed.txt"), id);
    assert_eq!(place.known("touched.txt").document.authored, Some(1000));
    assert_eq!(place.known("touched.txt").rules, Some(rules()));
}

#[test]
fn what_was_not_committed_is_handed_over_again() {
    let place = Place::new();
    for index in 0..10 {
        place.write(&format!("{index}.txt"), format!("text {index}"));
    }
    let mut taken = 0;
    let stopped = place.folder.scan(&place.catalog, rules(), &mut |change| {
        if taken == 4 {
            return Err(SinkClosed);
        }
        taken += 1;
        apply(&place.catalog, rules(), &change);
        Ok(())
    });
    assert!(matches!(stopped, Err(SourceError::Closed(SinkClosed))));
    let (report, changes) = place.scan().unwrap();
    assert_eq!((report.unchanged, changes.len()), (4, 6));
    assert_eq!(present(&place.catalog, SOURCE).len(), 10);
}

#[test]
fn identity_follows_renames_but_not_the_kind() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    place.write("dir/b.txt", "beta");
    place.scan().unwrap();
    let (a, b) = (place.id("a.txt"), place.id("dir/b.txt"));
    place.rename("a.txt", "c.txt");
    place.rename("dir", "other");
    let (report, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["restamped c.txt", "restamped other/b.txt"]);
    // The folder's rename leaves its files' own times alone, so only the renamed file is read again.
    assert_eq!(report.read, 1);
    assert_eq!((place.id("c.txt"), place.id("other/b.txt")), (a, b));
    place.rename("c.txt", "c.md");
    let (_, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived c.md"]);
    assert_eq!(place.id("c.md"), a);
}
