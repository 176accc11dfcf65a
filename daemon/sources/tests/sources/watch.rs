//! Watching with the system's own notifications. Each wait ends when the hint is there, however long that takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use moat_sources::Hints;

use crate::common::{Place, SOURCE, actual, brief, present, without_privilege};

const LONG: Duration = Duration::from_secs(60);

/// Waits and scans, as the daemon does, until the catalog has what the folder has.
fn follow(place: &Place, watch: &moat_sources::Watch) {
    loop {
        if present(&place.catalog, SOURCE) == actual(place.data.path()) {
            return;
        }
        match watch.wait(LONG) {
            Hints::Nothing => panic!("no hint of a change"),
            Hints::Everything => drop(place.scan().unwrap()),
            Hints::Paths(paths) => {
                drop(place.scan_paths(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
            }
        }
    }
}

#[test]
fn what_happens_in_a_watched_folder_arrives_without_a_rescan() {
    let place = Place::new();
    place.write("sub/a.txt", "alpha");
    let watch = place.folder.watch().unwrap();
    place.scan().unwrap();
    assert_eq!(watch.unwatched(), 0);
    place.write("b.txt", "beta");
    follow(&place, &watch);
    place.write("sub/a.txt", "alpha, changed");
    follow(&place, &watch);
    let id = place.id("sub/a.txt");
    place.rename("sub/a.txt", "c.txt");
    follow(&place, &watch);
    assert_eq!(place.id("c.txt"), id);
    place.write("new/deep/er/d.txt", "delta");
    follow(&place, &watch);
    place.write("new/deep/er/e.txt", "epsilon");
    follow(&place, &watch);
    place.rename("new", "old");
    follow(&place, &watch);
    fs::remove_dir_all(place.path("old")).unwrap();
    follow(&place, &watch);
    assert_eq!(present(&place.catalog, SOURCE).into_keys().collect::<Vec<_>>(), ["b.txt", "c.txt"]);
}

#[test]
fn reading_and_hidden_files_wake_nobody() {
    let place = Place::new();
    place.write("a.txt", "alpha");
    place.write(".git/index", "one");
    let watch = place.folder.watch().unwrap();
    place.scan().unwrap();
    place.write(".git/index", "two");
    fs::read(place.path("a.txt")).unwrap();
    place.write("last.txt", "the last");
    let Hints::Paths(paths) = watch.wait(LONG) else { panic!("no paths") };
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["last.txt"]);
    assert_eq!(brief(&place.scan_paths(&["last.txt"]).1), ["arrived last.txt"]);
}

#[test]
fn another_thread_ends_the_wait() {
    let place = Place::new();
    let watch = place.folder.watch().unwrap();
    let waker = watch.waker();
    std::thread::spawn(move || waker.wake());
    assert_eq!(watch.wait(LONG), Hints::Everything);
    assert_eq!(watch.wait(Duration::ZERO), Hints::Nothing);
}

#[test]
fn an_unreadable_folder_does_not_blind_the_watch() {
    let place = Place::new();
    for path in ["a/1.txt", "closed/2.txt", "z/deep/3.txt"] {
        place.write(path, path);
    }
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let place = without_privilege(move || {
        let watch = place.folder.watch().unwrap();
        assert_eq!(watch.unwatched(), 1);
        for path in ["z/deep/4.txt", "a/5.txt"] {
            place.write(path, path);
            let Hints::Paths(paths) = watch.wait(LONG) else { panic!("no paths") };
            assert_eq!(paths.into_iter().collect::<Vec<_>>(), [path]);
        }
        place
    });
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}
