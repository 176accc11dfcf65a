//! kill -9 of a real process after each of its steps on the disk, one after the other.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::die_after;
use super::{kek, opens, scratch};
use crate::{SealedFile, Vault, VaultError, WrappedKey, disk, open_file, sweep};

const FOLDER: &str = "MOAT_TEST_CRASH_FOLDER";
const STEPS: &str = "MOAT_TEST_CRASH_STEPS";
const OBJECTS: usize = 3;

/// What an owner of objects keeps: their wrapped keys, in a store with transactions of its own.
struct Owner {
    folder: PathBuf,
    keys: Vec<WrappedKey>,
}

impl Owner {
    fn load(folder: &Path) -> Self {
        let stored = fs::read(folder.join("keys")).unwrap_or_default();
        let keys =
            stored.chunks(WrappedKey::LENGTH).map(|key| WrappedKey::from_bytes(key).unwrap()).collect();
        Self { folder: folder.to_owned(), keys }
    }

    fn store(&self) {
        let bytes: Vec<u8> = self.keys.iter().flat_map(|key| *key.as_bytes()).collect();
        disk::replace(&self.folder.join("keys"), &bytes).unwrap();
    }
}

fn object(index: usize) -> String {
    format!("object/{index}")
}

fn text(index: usize) -> Vec<u8> {
    object(index).repeat(20_000).into_bytes()
}

/// Notes that a call returned; survives the death of this process.
fn acknowledge(folder: &Path, what: &str) {
    let mut acks = OpenOptions::new().create(true).append(true).open(folder.join("acks")).unwrap();
    writeln!(acks, "{what}").unwrap();
}

/// Everything that changes the disk, from wherever an earlier life was cut.
fn live(folder: &Path) {
    let vault = folder.join("vault");
    let vault =
        if Vault::exists(&vault) { Vault::open(&vault, &kek(1)) } else { Vault::create(&vault, &kek(1)) };
    let vault = vault.unwrap();
    acknowledge(folder, "created");
    sweep(folder).unwrap();
    let mut owner = Owner::load(folder);
    for index in owner.keys.len()..OBJECTS {
        let (key, wrapped) = vault.new_key(&object(index)).unwrap();
        let mut file = SealedFile::create(&folder.join(index.to_string()), &key, &object(index)).unwrap();
        file.write_all(&text(index)).unwrap();
        file.publish().unwrap();
        owner.keys.push(wrapped);
        owner.store();
        acknowledge(folder, &object(index));
    }
    if vault.generation().unwrap() == 1 {
        // Kept aside, as a thief would: useless once the rotation is finished.
        fs::write(folder.join("stolen"), owner.keys[0].as_bytes()).unwrap();
        vault.begin_rotation().unwrap();
        acknowledge(folder, "begun");
    }
    if let Some(previous) = vault.rotating().unwrap() {
        for index in 0..OBJECTS {
            if let Some(wrapped) = vault.rewrap(&object(index), &owner.keys[index]).unwrap() {
                let early = vault.finish_rotation(owner.keys.iter().map(WrappedKey::generation));
                assert!(
                    matches!(early, Err(VaultError::StillInUse { generation }) if generation == previous)
                );
                owner.keys[index] = wrapped;
                owner.store();
            }
        }
        vault.finish_rotation(owner.keys.iter().map(WrappedKey::generation)).unwrap();
        acknowledge(folder, "finished");
    }
    let slots = vault.slots().unwrap();
    match slots.last().unwrap().id {
        1 => {
            vault.add_slot(&kek(2)).unwrap();
            acknowledge(folder, "added");
            vault.rekey_slot(2, &kek(3)).unwrap();
            acknowledge(folder, "rekeyed");
            vault.reset_slots(&kek(1)).unwrap();
            acknowledge(folder, "reset");
        }
        2 => {
            vault.rekey_slot(2, &kek(3)).unwrap();
            acknowledge(folder, "rekeyed");
            vault.reset_slots(&kek(1)).unwrap();
            acknowledge(folder, "reset");
        }
        3 => {
            vault.reset_slots(&kek(1)).unwrap();
            acknowledge(folder, "reset");
        }
        _ => {}
    }
}

/// What must hold whenever the process was killed.
fn check(folder: &Path) {
    let acks = fs::read_to_string(folder.join("acks")).unwrap_or_default();
    let acknowledged = |what: &str| acks.lines().any(|line| line == what);
    let path = folder.join("vault");
    if !acknowledged("created") && !Vault::exists(&path) {
        return;
    }
    if acknowledged("added") && !acknowledged("rekeyed") {
        assert!(opens(&path, 2) || opens(&path, 3) || Vault::inspect(&path).unwrap()[0].id == 4);
    }
    if acknowledged("rekeyed") {
        assert!(!opens(&path, 2));
    }
    if acknowledged("reset") {
        assert!(!opens(&path, 3));
    }
    let vault = Vault::open(&path, &kek(1)).unwrap();
    let owner = Owner::load(folder);
    for (index, wrapped) in owner.keys.iter().enumerate() {
        let key = vault.unwrap(&object(index), wrapped).unwrap();
        let mut opened = Vec::new();
        open_file(&folder.join(index.to_string()), &key, &object(index))
            .unwrap()
            .read_to_end(&mut opened)
            .unwrap();
        assert!(opened == text(index));
    }
    for index in 0..OBJECTS {
        assert!(!acknowledged(&object(index)) || index < owner.keys.len(), "an acknowledged object is lost");
    }
    assert!(!acknowledged("begun") || vault.generation().unwrap() == 2);
    if acknowledged("finished") {
        assert_eq!(vault.rotating().unwrap(), None);
        let stolen = WrappedKey::from_bytes(&fs::read(folder.join("stolen")).unwrap()).unwrap();
        assert!(matches!(vault.unwrap(&object(0), &stolen), Err(VaultError::Forgotten { generation: 1 })));
    }
}

#[test]
#[ignore = "the process that dies: `a_kill_after_any_step_loses_nothing` starts it"]
fn dying() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    die_after(env::var(STEPS).unwrap().parse().unwrap());
    live(Path::new(&folder));
}

/// Runs `live` in a process of its own; whether it was killed.
fn killed(folder: &Path, steps: u32) -> bool {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::crash::dying", "--ignored"])
        .env(FOLDER, folder)
        .env(STEPS, steps.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() || output.status.signal() == Some(9), "{said}");
    !output.status.success()
}

#[test]
fn a_kill_after_any_step_loses_nothing() {
    let mut steps = 0;
    loop {
        let folder = scratch();
        let died = killed(folder.path(), steps);
        check(folder.path());
        // The next life is cut as well, somewhere else, and the one after that is not.
        killed(folder.path(), steps * 7 % 23);
        check(folder.path());
        live(folder.path());
        check(folder.path());
        let acks = fs::read_to_string(folder.path().join("acks")).unwrap();
        assert!(died || acks.lines().any(|line| line == "reset"));
        if !died {
            break;
        }
        steps += 1;
    }
    assert!(steps > 60, "only {steps} steps were there to die after");
}
