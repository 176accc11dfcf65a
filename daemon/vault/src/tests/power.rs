//! Power cuts: what was not synced may be lost, torn or zeroed, and names may be old or new, each for itself.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::steps::{Event, record, recorded};
use super::{kek, scratch};
use crate::{Vault, VaultError};

struct Content {
    synced: bool,
    bytes: Vec<u8>,
}

/// What a disk may hold. A name keeps every file that it stood for since its folder was last synced.
#[derive(Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, Vec<Option<usize>>>,
}

impl Disk {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Removed(path) => self.point(path, None),
            Event::Created(path) => {
                self.files.push(Content { synced: false, bytes: Vec::new() });
                self.point(path, Some(self.files.len() - 1));
            }
            Event::Written(path, bytes) => self.change(path, false, bytes),
            Event::Synced(path, bytes) => self.change(path, true, bytes),
            Event::Renamed(from, to) => {
                let file = self.names[from].last().copied().flatten();
                self.point(to, file);
                self.point(from, None);
            }
            Event::FolderSynced(folder) => {
                for (_, history) in self.names.iter_mut().filter(|(path, _)| path.parent() == Some(folder)) {
                    history.drain(..history.len() - 1);
                }
            }
            Event::Acknowledged(_) => {}
        }
    }

    fn point(&mut self, path: &Path, file: Option<usize>) {
        self.names.entry(path.to_owned()).or_insert_with(|| vec![None]).push(file);
    }

    fn change(&mut self, path: &Path, synced: bool, bytes: &[u8]) {
        let file = self.names[path].last().copied().flatten().unwrap();
        self.files[file] = Content { synced, bytes: bytes.to_vec() };
    }

    /// Every folder that could be found after the power comes back.
    fn after_a_cut(&self) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
        let mut found = vec![BTreeMap::new()];
        for (path, history) in &self.names {
            let mut choices = HashSet::new();
            for file in history {
                let Some(file) = *file else {
                    choices.insert(None);
                    continue;
                };
                let Content { synced, bytes } = &self.files[file];
                choices.insert(Some(bytes.clone()));
                if !synced {
                    choices.extend([0, bytes.len() / 2].map(|cut| Some(bytes[..cut].to_vec())));
                    choices.insert(Some(vec![0; bytes.len()]));
                }
            }
            let with = |folder: &BTreeMap<PathBuf, Vec<u8>>, choice: &Option<Vec<u8>>| {
                let mut folder = folder.clone();
                if let Some(bytes) = choice {
                    folder.insert(path.clone(), bytes.clone());
                }
                folder
            };
            found =
                found.iter().flat_map(|folder| choices.iter().map(|choice| with(folder, choice))).collect();
        }
        found
    }
}

/// A vault's life, in an order that the seed decides; tells the record after each call that returned.
fn live(folder: &Path, seed: u64) {
    let vault = Vault::create(folder, &kek(1)).unwrap();
    let tell = || record(|| Event::Acknowledged(vault.serial().unwrap()));
    tell();
    let mut state = seed;
    for _ in 0..12 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let last = vault.slots().unwrap().last().unwrap().id;
        match state >> 61 {
            0 | 1 => drop(vault.add_slot(&kek(2)).unwrap()),
            2 if last > 1 => vault.remove_slot(last).unwrap(),
            3 if last > 1 => drop(vault.rekey_slot(last, &kek(3)).unwrap()),
            4 | 5 if vault.rotating().unwrap().is_none() => drop(vault.begin_rotation().unwrap()),
            _ => vault.finish_rotation([]).unwrap(),
        }
        tell();
    }
}

#[test]
fn a_power_cut_leaves_the_old_root_or_the_new_and_nothing_acknowledged_is_lost() {
    let (mut tried, key) = (0, kek(1));
    for seed in 0..60 {
        let scene = scratch();
        let events = recorded(|| live(&scene.path().join("vault"), seed));
        let (mut disk, mut acknowledged) = (Disk::default(), None);
        for event in &events {
            disk.apply(event);
            if let Event::Acknowledged(serial) = event {
                acknowledged = Some(*serial);
            }
            for found in disk.after_a_cut() {
                tried += 1;
                let folder = scratch();
                for (path, bytes) in &found {
                    fs::write(folder.path().join(path.file_name().unwrap()), bytes).unwrap();
                }
                let opened = match Vault::open(folder.path(), &key) {
                    Err(VaultError::Missing(_)) if acknowledged.is_none() => continue,
                    opened => opened,
                };
                let vault = opened.unwrap_or_else(|error| panic!("seed {seed}, after {event:?}: {error}"));
                let serial = vault.serial().unwrap();
                let told = acknowledged.unwrap_or_default();
                assert!((told..=told + 1).contains(&serial), "seed {seed}: {serial} after {told} was told");
                let (data, wrapped) = vault.new_key("a").unwrap();
                assert_eq!(vault.unwrap("a", &wrapped).unwrap().expose(), data.expose());
            }
        }
    }
    assert!(tried > 10_000, "only {tried} states were tried");
}
