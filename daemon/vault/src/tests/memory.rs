//! What is left in this process's memory: read as another process would, through /proc.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::{kek, scratch};
use crate::Vault;

/// Keys are remembered under this mask, so that what is looked for is not itself found.
const MASK: u8 = 0xa5;

/// How often the masked key's bytes stand in writable memory. The buffer that is read into counts too.
fn standing(masked: [u8; 32]) -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let mut bytes = Zeroizing::new(vec![0; (to - from) as usize]);
        // Other tests' threads map and unmap meanwhile.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            found += bytes
                .windows(32)
                .filter(|at| at.iter().zip(masked).all(|(byte, key)| *byte == key ^ MASK))
                .count();
        }
    }
    found
}

#[test]
fn keys_are_gone_from_memory_when_the_vault_is_sealed() {
    let folder = scratch();
    drop(Vault::create(folder.path(), &kek(1)).unwrap());
    let vault = Vault::open(folder.path(), &kek(1)).unwrap();
    vault.begin_rotation().unwrap();
    let (key, wrapped) = vault.new_key("a").unwrap();
    drop(vault.unwrap("a", &wrapped).unwrap());
    let masked = |bytes: &[u8; 32]| bytes.map(|byte| byte ^ MASK);
    let mut kept = vec![masked(key.expose())];
    vault.with_secrets(|secrets| {
        kept.extend([&secrets.master, &secrets.field, &secrets.current, &secrets.previous].map(masked));
    });
    assert!(kept.iter().all(|key| standing(*key) > 0), "the search finds nothing at all");
    drop(key);
    vault.seal();
    let left: Vec<_> = kept.iter().map(|key| standing(*key)).collect();
    assert_eq!(left, [0; 5], "copies of: data key, master, field, current, previous");
}

#[test]
fn the_page_of_the_keys_is_locked_and_stays_out_of_dumps_and_children() {
    let folder = scratch();
    let vault = Vault::create(folder.path(), &kek(1)).unwrap();
    if !vault.guarded().unwrap() {
        // The machine refused, and the vault says so.
        return;
    }
    let mut page = 0;
    vault.with_secrets(|secrets| page = std::ptr::from_ref(secrets) as usize);
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    // Pages of other tests' vaults may stand in the same mapping.
    let within = |line: &str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let parsed = range.map(|(from, to)| [from, to].map(|address| usize::from_str_radix(address, 16)));
        matches!(parsed, Some([Ok(from), Ok(to)]) if (from..to).contains(&page))
    };
    let flags =
        maps.lines().skip_while(|line| !within(line)).find(|line| line.starts_with("VmFlags:")).unwrap();
    for flag in ["lo", "dd", "wf"] {
        assert!(flags.split(' ').any(|found| found == flag), "{flag} is not among {flags}");
    }
}
