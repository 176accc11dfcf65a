//! Hashes and proofs against RFC 6962: its test tree, a naive reading of its definitions, and forged proofs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moat_ledger::{
    Act, Hash, Ledger, LedgerError, Phase, Who, empty_root, leaf_hash, node_hash, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;

/// MTH of RFC 6962, section 2.1, as it is written there.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            node_hash(&naive(&leaves[..split]), &naive(&leaves[split..]))
        }
    }
}

/// PATH of section 2.1.1.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, beside) = match index < split {
        true => (naive_path(index, left), naive(right)),
        false => (naive_path(index - split, right), naive(left)),
    };
    path.push(beside);
    path
}

/// SUBPROOF of section 2.1.2.
fn naive_consistency(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![naive(leaves)] };
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, beside) = match old <= split {
        true => (naive_consistency(old, left, whole), naive(right)),
        false => (naive_consistency(old - split, right, false), naive(left)),
    };
    path.push(beside);
    path
}

fn hex(text: &str) -> Hash {
    let bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// A ledger of `size` entries, and their leaf hashes.
fn ledger(folder: &std::path::Path, size: u64) -> (Ledger, Vec<Hash>) {
    let ledger = Ledger::open(folder, None).unwrap();
    for number in 0..size {
        let act = Act::new(Who::daemon(), "test.append", Phase::Done).on("run", number);
        assert_eq!(ledger.append(&act).unwrap(), number);
    }
    let leaves = (0..size).map(|index| leaf_hash(&ledger.entry_bytes(index).unwrap())).collect();
    (ledger, leaves)
}

#[test]
fn the_tree_is_that_of_rfc_6962() {
    let leaves: Vec<Hash> = [
        &[][..],
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ]
    .map(leaf_hash)
    .to_vec();
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(naive(&leaves[..size]), hex(root), "the root of {size}");
    }
    for size in 1..=leaves.len() {
        for index in 0..size {
            let path = naive_path(index, &leaves[..size]);
            let root = naive(&leaves[..size]);
            assert!(verify_inclusion(&leaves[index], index as u64, size as u64, &path, &root));
        }
    }
}

#[test]
fn every_proof_of_a_small_ledger_is_the_naive_one() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, leaves) = ledger(folder.path(), 40);
    for size in 0..=leaves.len() {
        assert_eq!(ledger.root_at(size as u64).unwrap(), naive(&leaves[..size]));
        for index in 0..size {
            let path = ledger.prove(index as u64, size as u64).unwrap();
            assert_eq!(path, naive_path(index, &leaves[..size]));
        }
        for old in 1..=size {
            let path = ledger.prove_consistency(old as u64, size as u64).unwrap();
            assert_eq!(path, naive_consistency(old, &leaves[..size], true));
            let (before, after) = (naive(&leaves[..old]), naive(&leaves[..size]));
            assert!(verify_consistency(old as u64, &before, size as u64, &after, &path));
        }
        assert!(ledger.prove_consistency(0, size as u64).unwrap().is_empty());
    }
    assert!(verify_consistency(0, &empty_root(), 40, &ledger.root(), &[]));
    assert!(matches!(ledger.prove(40, 41), Err(LedgerError::Beyond { .. })));
    assert!(matches!(ledger.prove(40, 40), Err(LedgerError::Beyond { .. })));
    assert!(matches!(ledger.prove_consistency(7, 41), Err(LedgerError::Beyond { .. })));
}

fn tree(size: usize) -> Vec<Hash> {
    (0..size).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
}

proptest! {
    #[test]
    fn a_changed_inclusion_proof_is_refused(size in 1usize..300, pick: prop::sample::Index, at: prop::sample::Index, bit in 0usize..256) {
        let leaves = tree(size);
        let (index, root) = (pick.index(size), naive(&leaves));
        let mut path = naive_path(index, &leaves);
        let check = |index: usize, size: usize, path: &[Hash]| {
            verify_inclusion(&leaves[pick.index(leaves.len())], index as u64, size as u64, path, &root)
        };
        prop_assert!(check(index, size, &path));
        prop_assert!(!check(index ^ 1, size, &path) || size == 1);
        prop_assert!(!check(size, size, &path));
        let mut longer = path.clone();
        longer.push([7; 32]);
        prop_assert!(!check(index, size, &longer));
        if !path.is_empty() {
            prop_assert!(!check(index, size, &path[1..]));
            prop_assert!(!check(index, size, &path[..path.len() - 1]));
            let at = at.index(path.len());
            path[at][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!check(index, size, &path));
        }
    }

    #[test]
    fn a_changed_consistency_proof_is_refused(new in 2usize..300, pick: prop::sample::Index, at: prop::sample::Index, bit in 0usize..256) {
        let leaves = tree(new);
        let old = 1 + pick.index(new - 1);
        let (before, after) = (naive(&leaves[..old]), naive(&leaves));
        let mut path = naive_consistency(old, &leaves, true);
        let check = |old: usize, before: &Hash, path: &[Hash]| {
            verify_consistency(old as u64, before, new as u64, &after, path)
        };
        prop_assert!(check(old, &before, &path));
        let mut other = tree(old);
        other[pick.index(old)][0] ^= 1;
        prop_assert!(!check(old, &naive(&other), &path), "another history of the same size");
        prop_assert!(!check(new, &before, &path));
        let mut longer = path.clone();
        longer.push([7; 32]);
        prop_assert!(!check(old, &before, &longer));
        prop_assert!(!check(old, &before, &path[1..]));
        let at = at.index(path.len());
        path[at][bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!check(old, &before, &path));
    }
}
