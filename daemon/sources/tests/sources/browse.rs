//! Looking into a source: never out of it, and nothing is taken in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use moat_contracts::Skip;
use moat_sources::{EntryIs, Git, SourceError, TrialLimits, folders_in};

use crate::common::Place;

const LIMITS: TrialLimits = TrialLimits { entries: 1000, time: Duration::from_secs(60) };

#[test]
fn a_folder_shows_its_entries_part_by_part_and_nothing_outside_of_it() {
    let place = Place::new();
    for name in ["b.txt", "a/inner.txt", "c d.txt", ".hidden/x", "100%.txt"] {
        place.write(name, "words");
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    symlink(outside.path(), place.path("out")).unwrap();
    symlink("a", place.path("in")).unwrap();

    let all = place.folder.browse("", None, 100).unwrap();
    let seen: Vec<_> = all.entries.iter().map(|entry| (entry.name.as_str(), entry.is)).collect();
    let expected = [
        (".hidden", EntryIs::Folder),
        ("100%25.txt", EntryIs::File),
        ("a", EntryIs::Folder),
        ("b.txt", EntryIs::File),
        ("c d.txt", EntryIs::File),
        ("in", EntryIs::Link),
        ("out", EntryIs::Link),
    ];
    assert_eq!((seen.as_slice(), all.of), (&expected[..], 7));
    assert!(all.entries[0].passed_over && !all.entries[2].passed_over);
    assert_eq!((all.entries[3].size, all.entries[2].size), (Some(5), None));
    let (first, rest) =
        (place.folder.browse("", None, 3).unwrap(), place.folder.browse("", Some("a"), 100).unwrap());
    assert_eq!([first.entries, rest.entries].concat(), all.entries);
    assert_eq!(place.folder.browse("a", None, 9).unwrap().entries[0].name, "inner.txt");

    for out in ["out", "in", "..", "a/../..", "%2E%2E", "out/secret.txt", ".hidden", "b.txt", "gone"] {
        let refused = place.folder.browse(out, None, 9).unwrap_err();
        assert!(matches!(refused, SourceError::Place { .. }), "{out}: {refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}

#[test]
fn a_trial_counts_what_could_be_read_and_names_what_could_not() {
    let mut place = Place::new();
    place.folder.max_bytes = 100;
    for name in ["a.txt", "b/c.txt", ".hidden"] {
        place.write(name, "words");
    }
    place.write("large.txt", [b'x'; 101]);
    symlink("/etc/passwd", place.path("out")).unwrap();
    symlink("b", place.path("in")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    place.write("closed.txt", "words");
    fs::set_permissions(place.path("closed.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    let all_powerful = fs::read(place.path("closed.txt")).is_ok();

    let trial = place.folder.test(LIMITS).unwrap();
    assert_eq!((trial.folders, trial.passed_over, trial.whole), (2, 2, true));
    assert_eq!(trial.files, 2 + u64::from(all_powerful));
    for (skip, path) in [(Skip::TooLarge, "large.txt"), (Skip::Link, "out"), (Skip::Special, "pipe")] {
        assert_eq!(trial.skipped[&skip], 1);
        assert!(trial.problems.contains(&(path.to_owned(), Some(skip))), "{trial:?}");
    }
    let few = place.folder.test(TrialLimits { entries: 2, ..LIMITS }).unwrap();
    assert!(!few.whole && few.files + few.passed_over <= 2);
    // Nothing of it is known.
    assert_eq!(place.catalog.source_names().unwrap(), Vec::<String>::new());

    place.folder.root = place.path("gone");
    assert!(matches!(place.folder.test(LIMITS), Err(SourceError::Root { .. })));
}

#[test]
fn folders_to_choose_from_are_folders_behind_no_link() {
    let place = Place::new();
    for file in
        ["a/x.txt", "work/.git/HEAD", "bare/HEAD", "bare/objects/x", ".hidden/x", "a/b/y.txt", "z.txt"]
    {
        place.write(file, "text");
    }
    fs::create_dir(place.data.path().join(OsStr::from_bytes(b"no text \xFF"))).unwrap();
    symlink("/etc", place.path("out")).unwrap();
    let inside = |inner: &str, after, most| folders_in(place.data.path(), Path::new(inner), after, most);
    let all = inside("", None, 9).unwrap();
    let names: Vec<_> = all.folders.iter().map(|found| (found.name.as_str(), found.repository)).collect();
    assert_eq!(names, [("a", false), ("bare", true), ("work", true)]);
    assert_eq!((all.of, all.files), (3, 2), "the link and a file");
    let some = inside("", Some("a"), 2).unwrap();
    assert_eq!(some.folders.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["bare", "work"]);
    assert!(!some.more && !all.more && inside("", None, 2).unwrap().more);
    assert_eq!(inside("a", None, 9).unwrap().folders[0].name, "b");
    for out in ["out", "..", "a/../..", "/etc", "gone", "z.txt"] {
        assert!(inside(out, None, 9).is_err(), "{out}");
    }
}

#[test]
fn a_repository_shows_the_tree_at_its_tip() {
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder.path()).args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]);
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.args(arguments).status().unwrap().success());
    };
    git(&["init", "-q"]);
    fs::create_dir(folder.path().join("src")).unwrap();
    for name in ["src/lib.rs", "README.md"] {
        fs::write(folder.path().join(name), "text").unwrap();
    }
    symlink("README.md", folder.path().join("link")).unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    fs::write(folder.path().join("untracked.txt"), "not there").unwrap();

    let source = Git {
        name: "code".to_owned(),
        repository: folder.path().to_owned(),
        branch: None,
        max_bytes: 1 << 20,
        policy: "internal".to_owned(),
    };
    let top = source.browse("", None, 9).unwrap();
    let seen: Vec<_> = top.entries.iter().map(|entry| (entry.name.as_str(), entry.is, entry.size)).collect();
    let expected = [
        ("README.md", EntryIs::File, Some(4)),
        ("link", EntryIs::Link, None),
        ("src", EntryIs::Folder, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(source.browse("src", None, 9).unwrap().entries[0].name, "lib.rs");
    assert_eq!(source.browse("", Some("link"), 9).unwrap().entries.len(), 1);
    for out in ["..", "README.md", "gone"] {
        assert!(matches!(source.browse(out, None, 9), Err(SourceError::Place { .. })), "{out}");
    }
    let trial = source.test(LIMITS).unwrap();
    assert_eq!((trial.files, trial.bytes, trial.whole), (2, 8, true));
    assert_eq!(trial.problems, [("link".to_owned(), Some(Skip::Link))]);
    assert_eq!(trial.commit.unwrap().len(), 40);
}
