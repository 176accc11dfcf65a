//! The root file: one line of JSON, the line's HMAC under the master key, and a digest of both that tells damage from
//! a wrong key.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cipher::{Secret, derive, open_secret, seal_small};
use crate::kek::unhex;
use crate::{Kek, VaultError, disk};

/// The file's name in the vault's folder.
pub(crate) const FILE: &str = "root";
const VERSION: u32 = 1;
/// Far more slots than anyone needs, and far less than would tire a machine.
const LONGEST: u64 = 1 << 20;

/// Bytes that JSON shows as hexadecimal digits.
#[derive(Clone)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let mut bytes = vec![0; digits.len() / 2];
        let read = unhex(digits.as_bytes(), &mut bytes);
        read.then_some(Self(bytes)).ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// What a slot keeps in the open about the key that opens it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Lock {
    Credential {},
    Passphrase { salt: Hex, memory: u32, passes: u32, lanes: u32 },
    Shares { set: String, needed: u8, of: u8 },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slot {
    id: u32,
    lock: Lock,
    /// The master key, sealed with the key-encryption key's secret.
    master: Hex,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generation {
    generation: u32,
    /// The generation's root key, sealed with the master key.
    key: Hex,
}

/// What opens a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// A systemd credential.
    Credential,
    /// A passphrase.
    Passphrase,
    /// Shares of people.
    Shares {
        /// Which split; see [`Share::set`](crate::Share::set).
        set: String,
        /// How many shares open.
        needed: u8,
        /// How many shares there are.
        of: u8,
    },
}

/// A slot of a vault, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its number; never given twice in one vault.
    pub id: u32,
    /// What opens it.
    pub kind: SlotKind,
}

/// The content of the root file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    version: u32,
    /// Names this vault in every derivation: nothing moves from one vault to another.
    vault: Hex,
    /// Counts the writes of this file.
    pub(crate) serial: u64,
    next_slot: u32,
    slots: Vec<Slot>,
    /// The generations whose keys are kept: one, or two during a rotation, the newest last.
    generations: Vec<Generation>,
    /// The field key, sealed with the master key.
    field: Hex,
}

impl Root {
    /// A root of one generation without slots; its secrets must be sealed into it by [`seal`](Self::seal).
    pub(crate) fn new(vault: Vec<u8>) -> Self {
        let first = Generation { generation: 1, key: Hex(Vec::new()) };
        Self {
            version: VERSION,
            vault: Hex(vault),
            serial: 0,
            next_slot: 1,
            slots: Vec::new(),
            generations: vec![first],
            field: Hex(Vec::new()),
        }
    }

    /// Seals the field key and the root keys, oldest first, with the master key.
    pub(crate) fn seal(
        &mut self,
        master: &[u8; 32],
        field: &[u8; 32],
        roots: &[&[u8; 32]],
    ) -> Result<(), VaultError> {
        self.field = Hex(seal_small(master, &[b"moat field key\0", &self.vault.0], &[], field)?);
        for (kept, root) in self.generations.iter_mut().zip(roots) {
            let generation = kept.generation.to_le_bytes();
            kept.key =
                Hex(seal_small(master, &[b"moat root key\0", &self.vault.0, &generation], &[], *root)?);
        }
        Ok(())
    }

    /// The field key, and the root keys, oldest first.
    pub(crate) fn open(&self, master: &[u8; 32]) -> Result<(Secret, Vec<Secret>), VaultError> {
        let field = open_secret(master, &[b"moat field key\0", &self.vault.0], &self.field.0)?;
        let roots = self.generations.iter().map(|kept| {
            let generation = kept.generation.to_le_bytes();
            open_secret(master, &[b"moat root key\0", &self.vault.0, &generation], &kept.key.0)
        });
        Ok((field, roots.collect::<Result<_, _>>()?))
    }

    /// The newest generation.
    pub(crate) fn generation(&self) -> u32 {
        self.generations.last().map_or(0, |newest| newest.generation)
    }

    /// The generation before it, during a rotation.
    pub(crate) fn previous(&self) -> Option<u32> {
        (self.generations.len() > 1).then(|| self.generations[0].generation)
    }

    /// Adds a generation, or leaves only the newest; the keys must then be sealed again.
    pub(crate) fn begin_generation(&mut self) {
        let generation = self.generation() + 1;
        self.generations.push(Generation { generation, key: Hex(Vec::new()) });
    }

    pub(crate) fn forget_generations(&mut self) {
        let newest = self.generations.len().saturating_sub(1);
        self.generations.drain(..newest);
    }

    /// The slots, without anything secret.
    pub(crate) fn slots(&self) -> Vec<SlotInfo> {
        let kind = |lock: &Lock| match lock {
            Lock::Credential {} => SlotKind::Credential,
            Lock::Passphrase { .. } => SlotKind::Passphrase,
            Lock::Shares { set, needed, of } => {
                SlotKind::Shares { set: set.clone(), needed: *needed, of: *of }
            }
        };
        self.slots.iter().map(|slot| SlotInfo { id: slot.id, kind: kind(&slot.lock) }).collect()
    }

    /// Adds a slot that this secret opens; returns its number.
    pub(crate) fn add_slot(
        &mut self,
        (lock, secret): (Lock, Secret),
        master: &[u8; 32],
    ) -> Result<u32, VaultError> {
        let id = self.next_slot;
        let sealed = Hex(seal_small(&secret, &self.slot_info(&id.to_le_bytes()), &[], master)?);
        self.slots.push(Slot { id, lock, master: sealed });
        self.next_slot += 1;
        Ok(id)
    }

    pub(crate) fn remove_slot(&mut self, id: u32) -> Result<(), VaultError> {
        let index = self.slots.iter().position(|slot| slot.id == id).ok_or(VaultError::UnknownSlot(id))?;
        if self.slots.len() == 1 {
            return Err(VaultError::LastSlot(id));
        }
        self.slots.remove(index);
        Ok(())
    }

    pub(crate) fn clear_slots(&mut self) {
        self.slots.clear();
    }

    /// The master key, from the first slot that this key opens.
    pub(crate) fn unlock(&self, kek: &Kek) -> Result<Secret, VaultError> {
        let mut refusal = VaultError::NoSlot(kek.kind());
        for slot in &self.slots {
            let Some(secret) = kek.secret_for(&slot.lock)? else { continue };
            match open_secret(&secret, &self.slot_info(&slot.id.to_le_bytes()), &slot.master.0) {
                Err(VaultError::Refused) => refusal = VaultError::WrongKek(kek.kind()),
                done => return done,
            }
        }
        Err(refusal)
    }

    fn slot_info<'a>(&'a self, id: &'a [u8; 4]) -> [&'a [u8]; 3] {
        [b"moat slot\0", &self.vault.0, id]
    }

    /// Writes the file anew, durably, as a whole.
    pub(crate) fn store(&self, folder: &Path, master: &[u8; 32]) -> Result<(), VaultError> {
        let line = serde_json::to_string(self).map_err(|_| VaultError::Cipher)?;
        let mac = hmac::sign(&self.mac_key(master)?, line.as_bytes());
        let signed = format!("{line}\n{}\n", Hex(mac.as_ref().to_vec()));
        let whole = format!("{signed}{}\n", Hex(digest(&SHA256, signed.as_bytes()).as_ref().to_vec()));
        disk::replace(&folder.join(FILE), whole.as_bytes())
    }

    fn mac_key(&self, master: &[u8; 32]) -> Result<hmac::Key, VaultError> {
        let key = derive(master, &[b"moat root file\0", &self.vault.0])?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
    }
}

/// The root file as read: whole, but proven only once a key has opened it.
pub(crate) struct Stored {
    root: Root,
    line: String,
    mac: Hex,
}

impl Stored {
    /// Reads the root file of a folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, VaultError> {
        let path = folder.join(FILE);
        let missing = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => VaultError::Missing(folder.to_owned()),
            _ => VaultError::io("read", &path)(error),
        };
        let damaged = || VaultError::Damaged(path.clone());
        if fs::metadata(&path).map_err(missing)?.len() > LONGEST {
            return Err(damaged());
        }
        let text = fs::read(&path).map_err(missing)?;
        let text = String::from_utf8(text).map_err(|_| damaged())?;
        let (signed, sum) =
            text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or_else(damaged)?;
        let (line, mac) = signed.split_once('\n').ok_or_else(damaged)?;
        let found = digest(&SHA256, format!("{signed}\n").as_bytes());
        if Hex(found.as_ref().to_vec()).to_string() != sum {
            return Err(damaged());
        }
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_str(line).map_err(|_| damaged())?;
        if head.version != VERSION {
            return Err(VaultError::Newer { found: head.version, known: VERSION });
        }
        let root: Root = serde_json::from_str(line).map_err(|_| damaged())?;
        let mut read = vec![0; 32];
        if !unhex(mac.as_bytes(), &mut read) || !(1..=2).contains(&root.generations.len()) {
            return Err(damaged());
        }
        Ok(Self { root, line: line.to_owned(), mac: Hex(read) })
    }

    /// What it says about its slots; not proven.
    pub(crate) fn slots(&self) -> Vec<SlotInfo> {
        self.root.slots()
    }

    /// Opens a slot and proves the file with the master key that it holds.
    pub(crate) fn prove(self, folder: &Path, kek: &Kek) -> Result<(Root, Secret), VaultError> {
        let master = self.root.unlock(kek)?;
        let proven = hmac::verify(&self.root.mac_key(&master)?, self.line.as_bytes(), &self.mac.0);
        proven.map_err(|_| VaultError::Forged(folder.join(FILE)))?;
        Ok((self.root, master))
    }
}
