//! The vault: slots, wrapped keys, rotation, derived keys, and a root file that someone else changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use moat_vault::{
    Kek, PassphraseCosts, SlotInfo, SlotKind, Vault, VaultError, WrappedKey, open_bytes, seal_bytes,
};
use proptest::prelude::*;
use tempfile::tempdir;
use zeroize::Zeroizing;

/// Cheap on purpose: the costs are Argon2's business, not these tests'.
fn passphrase(text: &str) -> Kek {
    let costs = PassphraseCosts { memory: 64, passes: 1, lanes: 1 };
    Kek::passphrase_with(Zeroizing::new(text.to_owned()), costs)
}

fn credential(bytes: &[u8]) -> Result<Kek, VaultError> {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("moat-kek"), bytes).unwrap();
    Kek::credential_in(folder.path())
}

fn refusal(folder: &Path, kek: &Kek) -> VaultError {
    Vault::open(folder, kek).err().unwrap()
}

#[test]
fn only_the_right_key_opens_and_the_keys_come_back() {
    let folder = tempdir().unwrap();
    let kek = passphrase("correct horse battery");
    assert!(matches!(refusal(folder.path(), &kek), VaultError::Missing(_)));
    let vault = Vault::create(folder.path(), &kek).unwrap();
    let (key, wrapped) = vault.new_key("run/7").unwrap();
    let (derived, tag) = (vault.derived("index").unwrap(), vault.lookup("path", b"/srv/a").unwrap());
    assert_eq!(vault.unwrap("run/7", &wrapped).unwrap().expose(), key.expose());
    drop(vault);

    let error = refusal(folder.path(), &passphrase("correct horse batterz"));
    assert!(matches!(error, VaultError::WrongKek("passphrase")), "{error}");
    let error = refusal(folder.path(), &credential(&[7; 32]).unwrap());
    assert!(matches!(error, VaultError::NoSlot("credential")), "{error}");
    assert!(matches!(Vault::create(folder.path(), &kek), Err(VaultError::Exists(_))));

    let vault = Vault::open(folder.path(), &kek).unwrap();
    assert!(matches!(refusal(folder.path(), &kek), VaultError::InUse(_)));
    assert_eq!(vault.unwrap("run/7", &wrapped).unwrap().expose(), key.expose());
    assert_eq!(vault.derived("index").unwrap().expose(), derived.expose());
    assert_eq!(vault.lookup("path", b"/srv/a").unwrap(), tag);
}

#[test]
fn a_wrapped_key_opens_for_its_object_and_vault_only() {
    let (folder, other) = (tempdir().unwrap(), tempdir().unwrap());
    let kek = credential(&[7; 32]).unwrap();
    let vault = Vault::create(folder.path(), &kek).unwrap();
    let (_, wrapped) = vault.new_key("run/7").unwrap();
    assert!(matches!(vault.unwrap("run/8", &wrapped), Err(VaultError::Refused)));
    assert!(matches!(vault.unwrap("", &wrapped), Err(VaultError::Refused)));
    let other = Vault::create(other.path(), &kek).unwrap();
    assert!(matches!(other.unwrap("run/7", &wrapped), Err(VaultError::Refused)));
    for place in 0..WrappedKey::LENGTH {
        for bit in 0..8 {
            let mut changed = *wrapped.as_bytes();
            changed[place] ^= 1 << bit;
            let opened = WrappedKey::from_bytes(&changed).and_then(|wrapped| vault.unwrap("run/7", &wrapped));
            assert!(opened.is_err(), "byte {place}, bit {bit}");
        }
    }
    assert!(WrappedKey::from_bytes(&wrapped.as_bytes()[1..]).is_err());
    assert_ne!(vault.new_key("run/7").unwrap().0.expose(), vault.new_key("run/7").unwrap().0.expose());
}

#[test]
fn purposes_are_apart_and_lookups_are_equal_for_equal_values_only() {
    let folder = tempdir().unwrap();
    let vault = Vault::create(folder.path(), &credential(&[7; 32]).unwrap()).unwrap();
    assert_ne!(vault.derived("a").unwrap().expose(), vault.derived("b").unwrap().expose());
    assert_eq!(vault.lookup("a", b"x").unwrap(), vault.lookup("a", b"x").unwrap());
    assert_ne!(vault.lookup("a", b"x").unwrap(), vault.lookup("a", b"y").unwrap());
    assert_ne!(vault.lookup("a", b"x").unwrap(), vault.lookup("b", b"x").unwrap());
}

#[test]
fn a_rotation_keeps_every_key_and_then_forgets_the_old_root() {
    let folder = tempdir().unwrap();
    let kek = credential(&[7; 32]).unwrap();
    let vault = Vault::create(folder.path(), &kek).unwrap();
    let (key, old) = vault.new_key("a").unwrap();
    let sealed = seal_bytes(&key, "a", b"text").unwrap();
    let (derived, tag) = (vault.derived("index").unwrap(), vault.lookup("path", b"/srv/a").unwrap());
    assert_eq!(vault.rewrap("a", &old).unwrap(), None);

    assert_eq!(vault.begin_rotation().unwrap(), 2);
    assert!(matches!(vault.begin_rotation(), Err(VaultError::Rotating)));
    assert_eq!(vault.new_key("b").unwrap().1.generation(), 2);
    drop(vault);
    let vault = Vault::open(folder.path(), &kek).unwrap();
    assert_eq!(vault.rotating().unwrap(), Some(1));
    assert_eq!(vault.unwrap("a", &old).unwrap().expose(), key.expose());
    let new = vault.rewrap("a", &old).unwrap().unwrap();
    assert!(matches!(vault.rewrap("b", &old), Err(VaultError::Refused)));
    let early = vault.finish_rotation([new.generation(), old.generation()]);
    assert!(matches!(early, Err(VaultError::StillInUse { generation: 1 })));
    vault.finish_rotation([new.generation()]).unwrap();

    let check = |vault: &Vault| {
        assert!(matches!(vault.unwrap("a", &old), Err(VaultError::Forgotten { generation: 1 })));
        assert!(matches!(vault.rewrap("a", &old), Err(VaultError::Forgotten { generation: 1 })));
        assert_eq!(open_bytes(&vault.unwrap("a", &new).unwrap(), "a", &sealed).unwrap(), b"text");
        assert_eq!(vault.derived("index").unwrap().expose(), derived.expose());
        assert_eq!(vault.lookup("path", b"/srv/a").unwrap(), tag);
        assert_eq!((vault.generation().unwrap(), vault.rotating().unwrap()), (2, None));
    };
    check(&vault);
    vault.finish_rotation([]).unwrap();
    drop(vault);
    check(&Vault::open(folder.path(), &kek).unwrap());
}

#[test]
fn slots_come_and_go_without_touching_any_object() {
    let folder = tempdir().unwrap();
    let first = passphrase("the first passphrase");
    let vault = Vault::create(folder.path(), &first).unwrap();
    let (key, wrapped) = vault.new_key("a").unwrap();
    assert!(matches!(vault.remove_slot(1), Err(VaultError::LastSlot(1))));
    assert!(matches!(vault.add_slot(&passphrase("short")), Err(VaultError::WeakPassphrase(12))));
    let machine = credential(&[9; 32]).unwrap();
    let (people, shares) = Kek::split(2, 3).unwrap();
    assert_eq!((vault.add_slot(&machine).unwrap(), vault.add_slot(&people).unwrap()), (2, 3));
    let shared = SlotKind::Shares { set: shares[0].set(), needed: 2, of: 3 };
    let info = |id, kind| SlotInfo { id, kind };
    let all = [info(1, SlotKind::Passphrase), info(2, SlotKind::Credential), info(3, shared)];
    assert_eq!(vault.slots().unwrap(), all);
    drop(vault);

    assert_eq!(Vault::inspect(folder.path()).unwrap(), all);
    let any_two = Kek::from_shares(&[shares[2].clone(), shares[0].clone()]).unwrap();
    for kek in [&first, &machine, &people, &any_two] {
        let vault = Vault::open(folder.path(), kek).unwrap();
        assert_eq!(vault.unwrap("a", &wrapped).unwrap().expose(), key.expose());
    }
    let (strangers, _) = Kek::split(2, 3).unwrap();
    assert!(matches!(refusal(folder.path(), &strangers), VaultError::WrongKek("set of shares")));

    let vault = Vault::open(folder.path(), &any_two).unwrap();
    let second = passphrase("the second passphrase");
    assert_eq!(vault.rekey_slot(1, &second).unwrap(), 4);
    assert!(matches!(vault.rekey_slot(1, &second), Err(VaultError::UnknownSlot(1))));
    vault.remove_slot(2).unwrap();
    let before = fs::read(folder.path().join("root")).unwrap();
    drop(vault);
    assert!(matches!(refusal(folder.path(), &first), VaultError::WrongKek(_)));
    assert!(matches!(refusal(folder.path(), &machine), VaultError::NoSlot(_)));

    // After a reset nothing of the old keys is left, and an old root file does not come together with a new one.
    let vault = Vault::open(folder.path(), &second).unwrap();
    let third = passphrase("the third passphrase");
    assert_eq!(vault.reset_slots(&third).unwrap(), 5);
    drop(vault);
    assert!(matches!(refusal(folder.path(), &second), VaultError::WrongKek(_)));
    assert!(matches!(refusal(folder.path(), &any_two), VaultError::NoSlot(_)));
    let vault = Vault::open(folder.path(), &third).unwrap();
    assert_eq!(vault.unwrap("a", &wrapped).unwrap().expose(), key.expose());
    let serial = vault.serial().unwrap();
    drop(vault);
    fs::write(folder.path().join("root"), before).unwrap();
    assert!(
        Vault::open(folder.path(), &second).unwrap().serial().unwrap() < serial,
        "the serial shows a file put back"
    );
}

#[test]
fn a_vault_that_was_sealed_gives_nothing_more_and_can_be_unsealed_again() {
    let folder = tempdir().unwrap();
    let kek = credential(&[7; 32]).unwrap();
    let vault = Vault::create(folder.path(), &kek).unwrap();
    let (key, wrapped) = vault.new_key("a").unwrap();
    vault.seal();
    vault.seal();
    assert!(vault.sealed());
    assert!(matches!(vault.new_key("a"), Err(VaultError::Sealed)));
    assert!(matches!(vault.unwrap("a", &wrapped), Err(VaultError::Sealed)));
    assert!(matches!(vault.lookup("a", b"a"), Err(VaultError::Sealed)));
    assert!(matches!(vault.begin_rotation(), Err(VaultError::Sealed)));
    let again = Vault::open(folder.path(), &kek).unwrap();
    assert_eq!(again.unwrap("a", &wrapped).unwrap().expose(), key.expose());
    assert!(vault.sealed());
}

#[test]
fn every_changed_cut_or_foreign_root_file_is_refused() {
    let folder = tempdir().unwrap();
    let (kek, path) = (credential(&[7; 32]).unwrap(), folder.path().join("root"));
    Vault::create(folder.path(), &kek).unwrap();
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(matches!(refusal(folder.path(), &kek), VaultError::Damaged(_)), "byte {place}");
        fs::write(&path, &whole[..place]).unwrap();
        assert!(matches!(refusal(folder.path(), &kek), VaultError::Damaged(_)), "cut at {place}");
    }

    // Someone who makes the checksum right again is caught by the key.
    let forge = |from: &str, to: &str| {
        let text = String::from_utf8(whole.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let signed = &text[..text.trim_end().rfind('\n').unwrap() + 1];
        let sum = ring::digest::digest(&ring::digest::SHA256, signed.as_bytes());
        let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(&path, format!("{signed}{sum}\n")).unwrap();
        refusal(folder.path(), &kek)
    };
    assert!(matches!(forge("\"serial\":0", "\"serial\":7"), VaultError::Forged(_)));
    assert!(matches!(forge("\"next_slot\":2", "\"next_slot\":9"), VaultError::Forged(_)));
    assert!(matches!(forge("\"generation\":1", "\"generation\":2"), VaultError::Forged(_)));
    assert!(matches!(forge("\"id\":1", "\"id\":2"), VaultError::WrongKek(_)));
    assert!(matches!(forge("\"version\":1", "\"version\":2"), VaultError::Newer { found: 2, known: 1 }));
    fs::write(&path, &whole).unwrap();
    Vault::open(folder.path(), &kek).unwrap();
}

#[test]
fn a_disk_that_refuses_leaves_the_vault_as_it_was() {
    let folder = tempdir().unwrap();
    let kek = credential(&[7; 32]).unwrap();
    let vault = Vault::create(folder.path(), &kek).unwrap();
    let (key, wrapped) = vault.new_key("a").unwrap();
    let before = fs::read(folder.path().join("root")).unwrap();
    // Nothing can be written where a folder stands in the draft's place.
    fs::create_dir(folder.path().join("root.draft")).unwrap();
    assert!(matches!(vault.begin_rotation(), Err(VaultError::Io { .. })));
    assert!(matches!(vault.add_slot(&kek), Err(VaultError::Io { .. })));
    assert!(matches!(vault.reset_slots(&credential(&[8; 32]).unwrap()), Err(VaultError::Io { .. })));
    assert_eq!(
        (vault.generation().unwrap(), vault.slots().unwrap().len(), vault.serial().unwrap()),
        (1, 1, 0)
    );
    assert_eq!(vault.unwrap("a", &wrapped).unwrap().expose(), key.expose());
    assert_eq!(fs::read(folder.path().join("root")).unwrap(), before);
    fs::remove_dir(folder.path().join("root.draft")).unwrap();
    assert_eq!(vault.begin_rotation().unwrap(), 2);
    drop(vault);
    assert_eq!(
        Vault::open(folder.path(), &kek).unwrap().unwrap("a", &wrapped).unwrap().expose(),
        key.expose()
    );
}

#[test]
fn costs_that_would_exhaust_the_machine_are_refused_before_they_are_paid() {
    let folder = tempdir().unwrap();
    let huge = PassphraseCosts { memory: u32::MAX, passes: 1, lanes: 1 };
    let kek = Kek::passphrase_with(Zeroizing::new("correct horse battery".into()), huge);
    assert!(matches!(Vault::create(folder.path(), &kek), Err(VaultError::Costs)));
    assert!(!Vault::exists(folder.path()));
}

#[test]
fn a_credential_is_32_bytes_or_64_digits() {
    let folder = tempdir().unwrap();
    let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let bytes: Vec<u8> = (0..32).collect();
    Vault::create(folder.path(), &credential(&bytes).unwrap()).unwrap();
    for same in [digits.clone(), digits.to_uppercase(), format!("{digits}\n")] {
        Vault::open(folder.path(), &credential(same.as_bytes()).unwrap()).unwrap();
    }
    for wrong in ["", "00", &digits[1..], &format!("{digits}00"), &digits.replace('0', "g")] {
        assert!(matches!(credential(wrong.as_bytes()), Err(VaultError::Credential { .. })), "{wrong}");
    }
    assert!(matches!(Kek::credential_in(folder.path()), Err(VaultError::Io { .. })));
}

#[test]
fn no_key_is_in_the_folder_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let path = folder.path().join("vault");
    let vault = Vault::create(&path, &credential(&[0x5a; 32]).unwrap()).unwrap();
    vault.add_slot(&passphrase("correct horse battery")).unwrap();
    vault.begin_rotation().unwrap();
    let (key, wrapped) = vault.new_key("a").unwrap();
    assert!(!wrapped.as_bytes().windows(8).any(|window| key.expose().starts_with(window)));
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(!text.contains("horse") && !text.contains("5a5a5a5a"));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(format!("{key:?}"), "DataKey(hidden)");
}

#[test]
fn threads_share_a_vault_through_a_rotation() {
    let folder = tempdir().unwrap();
    let vault = Vault::create(folder.path(), &credential(&[7; 32]).unwrap()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let vault = &vault;
            scope.spawn(move || {
                for round in 0..200 {
                    let object = format!("{thread}/{round}");
                    let (key, wrapped) = vault.new_key(&object).unwrap();
                    match vault.unwrap(&object, &wrapped) {
                        Ok(same) => assert_eq!(same.expose(), key.expose()),
                        // Two whole rotations may pass between the two calls.
                        Err(error) => assert!(matches!(error, VaultError::Forgotten { .. }), "{error}"),
                    }
                }
            });
        }
        for _ in 0..5 {
            vault.begin_rotation().unwrap();
            vault.finish_rotation([]).unwrap();
        }
    });
    assert_eq!(vault.generation().unwrap(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in the file, with a right checksum or not: an error, never a panic or an endless effort.
    #[test]
    fn any_root_file_is_refused_in_peace(body in "\\PC{0,300}", sum in any::<bool>()) {
        let folder = tempdir().unwrap();
        let signed = format!("{body}\n{}\n", "0".repeat(64));
        let digest = ring::digest::digest(&ring::digest::SHA256, signed.as_bytes());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(folder.path().join("root"), if sum { format!("{signed}{digest}\n") } else { signed }).unwrap();
        prop_assert!(Vault::open(folder.path(), &credential(&[7; 32]).unwrap()).is_err());
    }
}
