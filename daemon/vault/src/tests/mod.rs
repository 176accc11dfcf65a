//! Tests that need what the crate keeps to itself: its steps on the disk, and its field arithmetic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod known;
mod memory;
mod power;
mod recipient;
mod shamir;
pub(crate) mod steps;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::Kek;

/// A folder in memory where there is one: these tests sync thousands of times, and cut the power themselves.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A credential that is all one byte; costs nothing to open a slot with.
fn kek(byte: u8) -> Kek {
    let folder = scratch();
    fs::write(folder.path().join("moat-kek"), [byte; 32]).unwrap();
    Kek::credential_in(folder.path()).unwrap()
}

/// Whether this key opens the vault of a folder.
fn opens(folder: &Path, byte: u8) -> bool {
    crate::Vault::open(folder, &kek(byte)).is_ok()
}
