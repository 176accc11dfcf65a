//! The folder source on real file systems, case by case.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use crate::common::{Place, SOURCE, actual, apply, brief, present, rules, without_privilege};
use moat_catalog::Known;
use moat_contracts::{Digest, DocumentState, Skip};
use moat_sources::{Change, ScanReport, SinkClosed, SourceError};

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

/// Both ways in which a daemon may commit: each change at once, or all when the scan has ended.
fn both_ways(check: impl Fn(&dyn Fn(&Place) -> (ScanReport, Vec<Change>))) {
    check(&|place| place.scan().unwrap());
    check(&|place| place.scan_then_commit().unwrap());
}

#[test]
fn rotation_carries_the_identity_along() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("app.log", "first line\n");
        place.write("web.log", "GET /\n");
        scan(&place);
        let (app, web) = (place.id("app.log"), place.id("web.log"));
        place.rename("app.log", "app.log.1");
        place.write("app.log", "second line\n");
        fs::create_dir(place.path("zold")).unwrap();
        place.rename("web.log", "zold/web.log");
        place.write("web.log", "POST /\n");
        let (_, changes) = scan(&place);
        assert_eq!(
            brief(&changes),
            ["arrived app.log", "arrived app.log.1", "arrived web.log", "restamped zold/web.log"]
        );
        assert_eq!((place.id("app.log.1"), place.id("zold/web.log")), (app, web));
        assert_ne!(place.id("app.log"), app);
        assert_ne!(place.id("web.log"), web);
        assert_eq!(present(&place.catalog, SOURCE).len(), 4);
    });
}

#[test]
fn a_file_replaced_by_rename_stays_the_document() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("a.txt", "draft");
        scan(&place);
        let id = place.id("a.txt");
        place.write(".a.swp", "final text");
        place.rename(".a.swp", "a.txt");
        let (report, changes) = scan(&place);
        assert_eq!(brief(&changes), ["arrived a.txt"]);
        assert_eq!(report.read, 1);
        assert_eq!(place.id("a.txt"), id);
    });
}

#[test]
fn swapped_files_swap_their_paths_not_their_documents() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("a.txt", "alpha");
        place.write("b.txt", "beta");
        scan(&place);
        let (a, b) = (place.id("a.txt"), place.id("b.txt"));
        place.rename("a.txt", "x");
        place.rename("b.txt", "a.txt");
        place.rename("x", "b.txt");
        let (_, changes) = scan(&place);
        assert_eq!(brief(&changes), ["restamped a.txt", "restamped b.txt"]);
        assert_eq!((place.id("a.txt"), place.id("b.txt")), (b, a));
    });
}

#[test]
fn hard_links_are_documents_of_their_own() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("a.txt", "alpha");
        scan(&place);
        let a = place.id("a.txt");
        fs::hard_link(place.path("a.txt"), place.path("b.txt")).unwrap();
        fs::hard_link(place.path("a.txt"), place.path("c.txt")).unwrap();
        let (_, changes) = scan(&place);
        assert_eq!(brief(&changes), ["arrived b.txt", "arrived c.txt", "restamped a.txt"]);
        assert_eq!(place.id("a.txt"), a);
        assert_ne!(place.id("b.txt"), place.id("c.txt"));
        let (report, changes) = scan(&place);
        assert_eq!((report.read, changes.len()), (0, 0));
    });
}

/// Makes the catalog believe something else about a document's stamp.
fn restamp(place: &Place, path: &str, change: impl Fn(&mut Known)) {
    let mut known = place.known(path);
    change(&mut known);
    let batch = place.catalog.write().unwrap();
    batch.put_document(&known).unwrap();
    batch.commit().unwrap();
}

#[test]
fn an_inode_used_again_is_a_new_document() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("a.txt", "the report of last year");
        scan(&place);
        let a = place.id("a.txt");
        place.write("b.txt", "quite another text, and longer too");
        fs::remove_file(place.path("a.txt")).unwrap();
        let inode = fs::metadata(place.path("b.txt")).unwrap().ino();
        restamp(&place, "a.txt", |known| known.stamp.inode = inode);
        let (_, changes) = scan(&place);
        assert_eq!(brief(&changes), ["arrived b.txt", "gone a.txt"]);
        assert_ne!(place.id("b.txt"), a);
    });
}

#[test]
fn links_are_followed_only_to_what_is_hidden_inside() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    place.write("dir/a.txt", "alpha");
    place.write(".store/v1/deep/b.txt", "beta");
    place.write(".store/c.txt", "gamma");
    symlink(".store/v1", place.path("current")).unwrap();
    symlink("../../..", place.path(".store/v1/deep/around")).unwrap();
    symlink("../../v1", place.path(".store/v1/deep/again")).unwrap();
    symlink(place.path(".store/c.txt"), place.path("c.txt")).unwrap();
    symlink("dir", place.path("alias")).unwrap();
    symlink("dir/a.txt", place.path("alias.txt")).unwrap();
    symlink(outside.path(), place.path("out")).unwrap();
    symlink(outside.path().join("secret.txt"), place.path("out.txt")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    symlink("itself", place.path("itself")).unwrap();
    symlink(".", place.path("dir/self")).unwrap();
    symlink("..", place.path("dir/up")).unwrap();
    let (report, changes) = place.scan().unwrap();
    assert_eq!(
        brief(&changes),
        [
            "arrived c.txt",
            "arrived current/deep/b.txt",
            "arrived dir/a.txt",
            "skipped current/deep/again link",
            "skipped current/deep/around link",
            "skipped dangling link",
            "skipped dir/up link",
            "skipped itself link",
            "skipped out link",
            "skipped out.txt link",
        ]
    );
    assert_eq!((report.aliases, report.skipped[&Skip::Link]), (3, 7));
    let (report, changes) = place.scan().unwrap();
    assert_eq!((report.read, report.unchanged, changes.len()), (0, 10, 0));
    fs::remove_file(place.path("out.txt")).unwrap();
    place.write("out.txt", "now a file");
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived out.txt"]);
}

#[test]
fn devices_pipes_and_sockets_are_never_opened() {
    let place = Place::new();
    let pipe = place.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    place.write("a.txt", "alpha");
    let (report, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived a.txt", "skipped pipe special", "skipped socket special"]);
    assert_eq!(report.read, 1);
    assert_eq!(place.scan().unwrap().0.unchanged, 3);
}

#[test]
fn large_files_are_skipped_until_they_are_allowed() {
    let mut place = Place::new();
    place.folder.max_bytes = 10;
    place.write("big.txt", "eleven byte");
    place.write("fits.txt", "ten bytes!");
    let (report, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived fits.txt", "skipped big.txt too_large"]);
    assert_eq!((report.read, place.known("big.txt").document.size), (1, 11));
    assert_eq!(place.scan().unwrap().0.unchanged, 2);
    let id = place.id("big.txt");
    place.folder.max_bytes = 11;
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived big.txt"]);
    assert_eq!(place.id("big.txt"), id);
    place.folder.max_bytes = 10;
    assert_eq!(brief(&place.scan().unwrap().1), ["skipped big.txt too_large"]);
    assert_eq!(place.known("big.txt").state, DocumentState::Skipped);
}

#[test]
fn names_of_any_bytes_come_back() {
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 100%.txt");
    fs::write(place.data.path().join(name), "un café").unwrap();
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived caf%E9 100%25.txt"]);
    fs::rename(place.data.path().join(name), place.path("b.txt")).unwrap();
    assert_eq!(brief(&place.scan().unwrap().1), ["restamped b.txt"]);
}

#[test]
fn hidden_names_are_read_only_when_asked_for() {
    let mut place = Place::new();
    for path in [".profile", ".config/a.txt", ".git/config", "sub/.git/config", "a.txt"] {
        place.write(path, path);
    }
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived a.txt"]);
    place.folder.hidden = true;
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived .config/a.txt", "arrived .profile"]);
    place.folder.hidden = false;
    assert_eq!(brief(&place.scan().unwrap().1), ["gone .config/a.txt", "gone .profile"]);
}

#[test]
fn the_mode_says_who_may_read() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    let mode = |mode| fs::set_permissions(place.path("a.txt"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    place.scan().unwrap();
    let readers = place.known("a.txt").document.readers;
    assert_eq!(readers.len(), 3);
    assert!(readers[0].starts_with("user:") && readers[1].starts_with("group:") && readers[2] == "other");
    mode(0o600);
    assert_eq!(brief(&place.scan().unwrap().1), ["restamped a.txt"]);
    assert_eq!(place.known("a.txt").document.readers, readers[..1]);
}

#[test]
fn what_may_not_be_read_is_counted_and_tried_again() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    place.write("closed/b.txt", "beta");
    place.write("closed/deep/c.txt", "gamma");
    place.scan().unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a.txt", 0o000);
    mode("closed", 0o000);
    let place = without_privilege(move || {
        let (report, changes) = place.scan().unwrap();
        assert_eq!(brief(&changes), ["skipped a.txt unreadable"]);
        assert_eq!((report.unreadable_folders, report.spared, report.gone), (1, 2, 0));
        // Tried again, and still so: nothing new to tell.
        let (report, changes) = place.scan().unwrap();
        assert_eq!((report.skipped[&Skip::Unreadable], changes.len()), (1, 0));
        let (report, changes) = place.scan_paths(&["closed/b.txt", "closed/deep"]);
        assert_eq!((report.spared, changes.len()), (2, 0));
        place
    });
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let (_, changes) = place.scan().unwrap();
    assert_eq!(brief(&changes), ["arrived a.txt"]);
    assert_eq!(present(&place.catalog, SOURCE).len(), 3);
}

#[test]
fn a_root_that_is_not_there_is_refused() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    place.scan().unwrap();
    let aside = place.data.path().with_extension("aside");
    fs::rename(place.data.path(), &aside).unwrap();
    let error = place.scan().unwrap_err();
    assert!(matches!(error, SourceError::Root { .. }), "{error}");
    // The place of a mount, without the mount: empty, and on another device than what is known.
    fs::create_dir(place.data.path()).unwrap();
    let device = place.known("a.txt").stamp.device;
    restamp(&place, "a.txt", |known| known.stamp.device = device + 1);
    let error = place.scan().unwrap_err();
    assert!(matches!(error, SourceError::Emptied { known: 1, .. }), "{error}");
    // Empty, and on the device where all of it was: emptied by someone.
    restamp(&place, "a.txt", |known| known.stamp.device = device);
    assert_eq!(brief(&place.scan().unwrap().1), ["gone a.txt"]);
    fs::remove_dir_all(aside).unwrap();
}

#[test]
fn documents_of_a_mount_that_is_gone_are_spared() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    place.write("share/sub/b.txt", "beta");
    place.scan().unwrap();
    restamp(&place, "share/sub/b.txt", |known| known.stamp.device += 1);
    fs::remove_dir_all(place.path("share/sub")).unwrap();
    let (report, changes) = place.scan().unwrap();
    assert_eq!((report.spared, changes.len()), (1, 0));
    fs::remove_dir(place.path("share")).unwrap();
    assert_eq!(brief(&place.scan().unwrap().1), ["gone share/sub/b.txt"]);
}

#[test]
fn a_file_system_with_a_new_number_is_not_read_again() {
    both_ways(|scan| {
        let place = Place::new();
        place.write("a.txt", "alpha");
        place.write("b.txt", "beta");
        scan(&place);
        let a = place.id("a.txt");
        for path in ["a.txt", "b.txt"] {
            restamp(&place, path, |known| known.stamp.device += 1);
        }
        let (report, changes) = scan(&place);
        assert_eq!(brief(&changes), ["restamped a.txt", "restamped b.txt"]);
        assert_eq!((report.read, place.id("a.txt")), (0, a));
        assert_eq!(scan(&place).0.unchanged, 2);
    });
}

#[test]
fn other_rules_ask_for_all_and_another_policy_for_no_reading() {
    let mut place = Place::new();
    place.write("a.txt", "alpha");
    place.write("b.txt", "beta");
    place.scan().unwrap();
    // As the daemon keeps what extraction took for binary.
    restamp(&place, "b.txt", |known| {
        (known.state, known.skip) = (DocumentState::Skipped, Some(Skip::Binary))
    });
    assert_eq!(place.scan().unwrap().0.unchanged, 2);
    place.folder.policy = "restricted".to_owned();
    let (report, changes) = place.scan().unwrap();
    assert_eq!((report.read, changes.len(), report.restamped), (0, 2, 2));
    assert_eq!(place.known("b.txt").skip, Some(Skip::Binary));
    let mut arrived = 0;
    let other = Digest::of(b"other rules");
    place
        .folder
        .scan(&place.catalog, other, &mut |change| {
            arrived += usize::from(matches!(change, Change::Arrived { .. }));
            apply(&place.catalog, other, &change);
            Ok(())
        })
        .unwrap();
    assert_eq!(arrived, 2);
}

#[test]
fn files_being_written_are_waited_for() {
    let mut place = Place::new();
    place.write("app.log", "first\n");
    place.scan().unwrap();
    let id = place.id("app.log");
    place.folder.settle = Duration::from_secs(3600);
    place.write("new.txt", "half a sen");
    place.rename("app.log", "app.log.1");
    place.write("app.log", "second\n");
    let (report, changes) = place.scan().unwrap();
    // Neither is the renamed document gone, nor is the new file taken for it.
    assert_eq!((report.unsettled, report.read, changes.len()), (3, 0, 0));
    assert_eq!(report.again.iter().collect::<Vec<_>>(), ["app.log", "app.log.1", "new.txt"]);
    assert!(report.look_again.unwrap() > std::time::SystemTime::now());
    place.folder.settle = Duration::ZERO;
    let again: Vec<&str> = report.again.iter().map(String::as_str).collect();
    let (_, changes) = place.scan_paths(&again);
    assert_eq!(brief(&changes), ["arrived app.log", "arrived app.log.1", "arrived new.txt"]);
    assert_eq!(place.id("app.log.1"), id);
}

#[test]
fn a_file_that_is_never_at_rest_is_taken_in_the_end() {
    let mut place = Place::new();
    place.write("app.log", "first\n");
    place.scan().unwrap();
    place.folder.settle = Duration::from_secs(5);
    place.write("app.log", "first\nsecond\n");
    assert_eq!(place.scan().unwrap().0.unsettled, 1);
    restamp(&place, "app.log", |known| known.stamp.changed_ns -= 61_000_000_000);
    assert_eq!(brief(&place.scan().unwrap().1), ["arrived app.log"]);
    // The version that was taken may have changed within the same tick of the clock.
    place.folder.settle = Duration::ZERO;
    assert_eq!(brief(&place.scan().unwrap().1), ["restamped app.log"]);
    assert_eq!(place.scan().unwrap().0.unchanged, 1);
}

#[test]
fn paths_are_scanned_alone() {
    let place = Place::new();
    for path in ["a.txt", "dir/b.txt", "dir/sub/c.txt", "dirt/d.txt", "e.txt"] {
        place.write(path, path);
    }
    place.scan().unwrap();
    let e = place.id("e.txt");
    fs::remove_dir_all(place.path("dir")).unwrap();
    place.write("a.txt", "changed, but not asked for");
    assert_eq!(brief(&place.scan_paths(&["dir"]).1), ["gone dir/b.txt", "gone dir/sub/c.txt"]);
    place.rename("e.txt", "f.txt");
    assert_eq!(brief(&place.scan_paths(&["e.txt", "f.txt"]).1), ["restamped f.txt"]);
    assert_eq!(place.id("f.txt"), e);
    place.write("new/x/y.txt", "y");
    let (_, changes) = place.scan_paths(&["new/x", "new", ".hidden/z", "gone/never"]);
    assert_eq!(brief(&changes), ["arrived new/x/y.txt"]);
    assert_eq!(brief(&place.scan_paths(&["a.txt"]).1), ["arrived a.txt"]);
    assert_eq!(place.scan_paths(&[""]).0.unchanged, 4);
}

#[test]
fn deeper_than_is_entered_is_counted_not_lost() {
    let place = Place::new();
    let deep = vec!["d"; 300].join("/");
    place.write(&format!("{deep}/a.txt"), "deep");
    place.write("b.txt", "beta");
    let (report, changes) = place.scan().unwrap();
    assert_eq!((brief(&changes), report.unreadable_folders), (vec!["arrived b.txt".to_owned()], 1));
}

#[test]
fn a_folder_in_turmoil_is_scanned_without_an_error() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for worker in 0..2 {
            let (root, stop) = (place.data.path(), &stop);
            threads.spawn(move || {
                let mut turn: u64 = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let folder = root.join(format!("{worker}/{}", turn % 3));
                    let file = folder.join(format!("{}.txt", turn % 5));
                    fs::create_dir_all(&folder).unwrap();
                    match turn % 7 {
                        0 => drop(fs::remove_dir_all(&folder)),
                        1 => drop(fs::rename(&file, folder.join("moved.txt"))),
                        2 => drop(fs::remove_file(&file)),
                        _ => {
                            use std::io::Write;
                            let open = File::options().create(true).append(true).open(&file);
                            open.unwrap().write_all(&turn.to_le_bytes().repeat(64)).unwrap();
                        }
                    }
                }
            });
        }
        for _ in 0..60 {
            place.scan().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Ticks of the clock are coarse: let the last write be in an earlier one than the next scan's stamps.
    std::thread::sleep(Duration::from_millis(20));
    for path in present(&place.catalog, SOURCE).into_keys() {
        if place.path(&path).exists() {
            let mode = fs::metadata(place.path(&path)).unwrap().permissions();
            fs::set_permissions(place.path(&path), mode).unwrap();
        }
    }
    place.scan().unwrap();
    assert_eq!(present(&place.catalog, SOURCE), actual(place.data.path()));
}
