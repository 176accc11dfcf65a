//! Whatever happens in a folder, and however a scan is cut short: after the next whole scan the catalog has what the
//! folder has.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use moat_sources::SinkClosed;
use proptest::prelude::*;

use crate::common::{Place, SOURCE, actual, apply, present, rules};

const NAMES: [&str; 8] = ["a", "b.txt", "d/a", "d/b.txt", "d/e/a", "d/e/c.md", "f/a", "f/e/c.md"];
const FOLDERS: [&str; 4] = ["d", "d/e", "f", "f/e"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u8),
    Append(usize, u8),
    Replace(usize, u8),
    Rename(usize, usize),
    RenameFolder(usize, usize),
    Remove(usize),
    RemoveFolder(usize),
    Link(usize, usize),
    HardLink(usize, usize),
    /// A whole scan; each change committed at once, or all at its end.
    Scan(bool),
    /// A whole scan whose sink closes after so many changes.
    Cut(usize),
    /// A scan of the paths that were touched since the last one.
    Paths,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let folder = 0..FOLDERS.len();
    prop_oneof![
        3 => (name.clone(), any::<u8>()).prop_map(|(name, content)| Step::Write(name, content)),
        1 => (name.clone(), any::<u8>()).prop_map(|(name, content)| Step::Append(name, content)),
        1 => (name.clone(), any::<u8>()).prop_map(|(name, content)| Step::Replace(name, content)),
        3 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Step::RenameFolder(from, to)),
        1 => name.clone().prop_map(Step::Remove),
        1 => folder.prop_map(Step::RemoveFolder),
        1 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => (name.clone(), name).prop_map(|(from, to)| Step::HardLink(from, to)),
        1 => any::<bool>().prop_map(Step::Scan),
        1 => (0..4_usize).prop_map(Step::Cut),
        1 => Just(Step::Paths),
    ]
}

/// Content of various lengths, some of them equal and some empty.
fn content(seed: u8) -> Vec<u8> {
    vec![b'a' + seed % 3; usize::from(seed / 3 % 5) * 1500]
}

/// Does what can be done and leaves the rest, as people do.
fn act(place: &Place, step: &Step, touched: &mut BTreeSet<String>) {
    let at = |index: usize| place.path(NAMES[index]);
    let mut touch = |path: &str| {
        touched.insert(path.to_owned());
    };
    match *step {
        Step::Write(name, _) | Step::Append(name, _) | Step::Replace(name, _) => {
            let path = at(name);
            touch(NAMES[name]);
            if let Some(folder) = NAMES[name].rsplit_once('/') {
                touch(folder.0);
            }
            if fs::create_dir_all(path.parent().unwrap()).is_err() {
                return;
            }
            // What is written through another name is noted by nobody: the next rescan finds it.
            if path.is_symlink() && !matches!(step, Step::Replace(..)) {
                return;
            }
            if path.metadata().is_ok_and(|facts| facts.nlink() > 1) {
                NAMES.into_iter().for_each(touch);
            }
            match *step {
                Step::Append(_, seed) => {
                    use std::io::Write;
                    if let Ok(mut file) = fs::File::options().append(true).open(path) {
                        file.write_all(&content(seed)).unwrap();
                    }
                }
                Step::Replace(_, seed) => {
                    fs::write(place.path(".new"), content(seed)).unwrap();
                    drop(fs::rename(place.path(".new"), path));
                }
                Step::Write(_, seed) => drop(fs::write(path, content(seed))),
                _ => {}
            }
        }
        Step::Rename(from, to) => {
            touch(NAMES[from]);
            touch(NAMES[to]);
            drop(fs::rename(at(from), at(to)));
        }
        Step::RenameFolder(from, to) => {
            touch(FOLDERS[from]);
            touch(FOLDERS[to]);
            drop(fs::rename(place.path(FOLDERS[from]), place.path(FOLDERS[to])));
        }
        Step::Remove(name) => {
            touch(NAMES[name]);
            drop(fs::remove_file(at(name)));
        }
        Step::RemoveFolder(folder) => {
            touch(FOLDERS[folder]);
            drop(fs::remove_dir_all(place.path(FOLDERS[folder])));
        }
        Step::Link(from, to) => {
            touch(NAMES[to]);
            drop(std::os::unix::fs::symlink(at(from), at(to)));
        }
        Step::HardLink(from, to) => {
            touch(NAMES[from]);
            touch(NAMES[to]);
            drop(fs::hard_link(at(from), at(to)));
        }
        Step::Scan(at_once) => {
            let scanned = if at_once { place.scan() } else { place.scan_then_commit() };
            scanned.unwrap();
            assert_eq!(present(&place.catalog, SOURCE), actual(place.data.path()));
            touched.clear();
        }
        Step::Cut(after) => {
            let mut taken = 0;
            let scanned = place.folder.scan(&place.catalog, rules(), &mut |change| {
                if taken == after {
                    return Err(SinkClosed);
                }
                taken += 1;
                apply(&place.catalog, rules(), &change);
                Ok(())
            });
            if scanned.is_ok() {
                assert_eq!(present(&place.catalog, SOURCE), actual(place.data.path()));
                touched.clear();
            }
        }
        Step::Paths => {
            place.scan_paths(&touched.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(present(&place.catalog, SOURCE), actual(place.data.path()));
            touched.clear();
        }
    }
    if matches!(step, Step::Scan(_) | Step::Cut(_) | Step::Paths) {
        // The daemon waits for files to settle; here it takes them at once, and the clock's ticks are coarse.
        std::thread::sleep(Duration::from_millis(12));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_catalog_follows_the_folder(steps in proptest::collection::vec(step(), 1..40)) {
        let place = Place::new();
        let mut touched = BTreeSet::new();
        for step in &steps {
            act(&place, step, &mut touched);
        }
        place.scan().unwrap();
        prop_assert_eq!(present(&place.catalog, SOURCE), actual(place.data.path()));
        let (report, changes) = place.scan().unwrap();
        prop_assert_eq!((report.read, changes.len()), (0, 0));
    }
}
