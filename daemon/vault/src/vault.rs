use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use ring::hmac;

use crate::cipher::{derive, random, random_secret};
use crate::locked::Locked;
use crate::root::{FILE, Root, Stored};
use crate::{DataKey, Kek, SlotInfo, VaultError, WrappedKey, disk};

/// An unsealed vault: wraps and unwraps the keys of objects. One process holds a vault at a time; threads share it.
pub struct Vault {
    folder: PathBuf,
    state: RwLock<Option<State>>,
}

struct State {
    root: Root,
    secrets: Locked,
    /// The folder, locked for as long as the vault is unsealed.
    _held: File,
}

impl Vault {
    /// Makes a vault with new keys in a folder, which is made where it is missing, with one slot for this key.
    ///
    /// # Errors
    /// [`VaultError::Exists`] where the folder has a vault, [`VaultError::InUse`], [`VaultError::Io`], and
    /// [`VaultError::WeakPassphrase`].
    pub fn create(folder: &Path, kek: &Kek) -> Result<Self, VaultError> {
        disk::make_folder(folder)?;
        let held = hold(folder)?;
        if folder.join(FILE).exists() {
            return Err(VaultError::Exists(folder.to_owned()));
        }
        let mut secrets = Locked::new()?;
        random(&mut secrets.master)?;
        random(&mut secrets.field)?;
        random(&mut secrets.current)?;
        let mut name = vec![0; 16];
        random(&mut name)?;
        let mut root = Root::new(name);
        root.seal(&secrets.master, &secrets.field, &[&secrets.current])?;
        root.add_slot(kek.new_lock()?, &secrets.master)?;
        root.store(folder, &secrets.master)?;
        Ok(Self::unsealed(folder, State { root, secrets, _held: held }))
    }

    /// Unseals the vault of a folder. A passphrase takes as long as its costs say, for each slot that it is tried on.
    ///
    /// # Errors
    /// [`VaultError::WrongKek`] or [`VaultError::NoSlot`] where this key opens nothing; [`VaultError::Missing`],
    /// [`VaultError::InUse`], [`VaultError::Damaged`], [`VaultError::Forged`], [`VaultError::Newer`].
    pub fn open(folder: &Path, kek: &Kek) -> Result<Self, VaultError> {
        if !Self::exists(folder) {
            return Err(VaultError::Missing(folder.to_owned()));
        }
        let held = hold(folder)?;
        // Who was killed may not have come to this, and keys must not hang on a root that a power cut takes back.
        disk::settle(&folder.join(FILE))?;
        let (root, master) = Stored::load(folder)?.prove(folder, kek)?;
        let forged = |_| VaultError::Forged(folder.join(FILE));
        let (field, roots) = root.open(&master).map_err(forged)?;
        let mut secrets = Locked::new()?;
        secrets.master.copy_from_slice(master.as_slice());
        secrets.field.copy_from_slice(field.as_slice());
        for key in roots {
            secrets.previous = secrets.current;
            secrets.current.copy_from_slice(key.as_slice());
        }
        Ok(Self::unsealed(folder, State { root, secrets, _held: held }))
    }

    /// Whether a folder has a vault.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// The slots of a vault that is sealed, so that people know which key to bring. Nothing proves them yet.
    ///
    /// # Errors
    /// [`VaultError::Missing`], [`VaultError::Damaged`], [`VaultError::Newer`], [`VaultError::Io`].
    pub fn inspect(folder: &Path) -> Result<Vec<SlotInfo>, VaultError> {
        Stored::load(folder).map(|stored| stored.slots())
    }

    /// Wipes the keys from memory now, whoever still shares this vault: every later call is [`VaultError::Sealed`].
    pub fn seal(&self) {
        self.write().take();
    }

    /// Whether [`seal`](Self::seal) was called.
    #[must_use]
    pub fn sealed(&self) -> bool {
        self.read().is_none()
    }

    /// Whether the machine keeps the root keys out of swap, dumps and forked children.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn guarded(&self) -> Result<bool, VaultError> {
        self.with(|state| Ok(state.secrets.guarded()))
    }

    /// How often the root file was written: grows with every change of slots or generations. The ledger remembers it, so
    /// that a file put back is noticed.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn serial(&self) -> Result<u64, VaultError> {
        self.with(|state| Ok(state.root.serial))
    }

    /// A new key for an object, and its wrapped form, which the object's owner stores. The name binds the wrapped key to
    /// the object: keep it unique, for example `document/` and the document's id.
    ///
    /// # Errors
    /// [`VaultError::Sealed`], [`VaultError::Random`].
    pub fn new_key(&self, object: &str) -> Result<(DataKey, WrappedKey), VaultError> {
        let key = DataKey::random()?;
        let wrapped = self.with(|state| state.wrap(object, &key))?;
        Ok((key, wrapped))
    }

    /// The key of an object.
    ///
    /// # Errors
    /// [`VaultError::Refused`] where the wrapped key was changed or is another object's or vault's,
    /// [`VaultError::Forgotten`] where its root generation is gone, [`VaultError::Sealed`].
    pub fn unwrap(&self, object: &str, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        self.with(|state| state.unwrap(object, wrapped))
    }

    /// The same key under the newest root generation; none where it is already there.
    ///
    /// # Errors
    /// Those of [`unwrap`](Self::unwrap), [`VaultError::Random`].
    pub fn rewrap(&self, object: &str, wrapped: &WrappedKey) -> Result<Option<WrappedKey>, VaultError> {
        self.with(|state| {
            if wrapped.generation() == state.root.generation() {
                return Ok(None);
            }
            state.wrap(object, &state.unwrap(object, wrapped)?).map(Some)
        })
    }

    /// A key for one purpose that stays the same through rotations.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn derived(&self, purpose: &str) -> Result<DataKey, VaultError> {
        self.with(|state| derived(&state.secrets.field, purpose))
    }

    /// A tag that is the same for the same value and purpose, through rotations, and says nothing else about the value:
    /// the first half of HMAC-SHA256. For finding sealed fields by equality; equal values show as equal.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn lookup(&self, purpose: &str, value: &[u8]) -> Result<[u8; 16], VaultError> {
        self.with(|state| look_up(&state.secrets.field, purpose, value))
    }

    /// The newest root generation.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn generation(&self) -> Result<u32, VaultError> {
        self.with(|state| Ok(state.root.generation()))
    }

    /// The generation that a rotation under way will forget; none where no rotation is.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn rotating(&self) -> Result<Option<u32>, VaultError> {
        self.with(|state| Ok(state.root.previous()))
    }

    /// Makes a new root generation and keeps the old one beside it. New keys are wrapped by the new one from here on; the
    /// owners of wrapped keys [`rewrap`](Self::rewrap) theirs. Returns the new generation.
    ///
    /// # Errors
    /// [`VaultError::Rotating`] where a rotation is under way: go on with that one. [`VaultError::Io`] where the root file
    /// cannot be written; nothing changed then, or only what the next call makes anew.
    pub fn begin_rotation(&self) -> Result<u32, VaultError> {
        let next = random_secret()?;
        self.change(|root, secrets| {
            if root.previous().is_some() {
                return Err(VaultError::Rotating);
            }
            root.begin_generation();
            secrets.previous = secrets.current;
            secrets.current.copy_from_slice(next.as_slice());
            Ok(root.generation())
        })
    }

    /// Forgets the old generation: what is still wrapped by it is gone for good. `in_use` yields the generations of every
    /// wrapped key that its owners store, read while none of them has a transaction open that stores another. Without a
    /// rotation under way this does nothing.
    ///
    /// # Errors
    /// [`VaultError::StillInUse`] where a stored key would be lost; nothing changed then. [`VaultError::Io`].
    pub fn finish_rotation(&self, in_use: impl IntoIterator<Item = u32>) -> Result<(), VaultError> {
        let Some(previous) = self.rotating()? else { return Ok(()) };
        if in_use.into_iter().any(|generation| generation <= previous) {
            return Err(VaultError::StillInUse { generation: previous });
        }
        self.change(|root, secrets| {
            // Another thread may have finished this rotation, and begun one that nobody looked through.
            if root.previous() != Some(previous) {
                return Err(VaultError::Rotating);
            }
            root.forget_generations();
            secrets.previous = [0; 32];
            Ok(())
        })
    }

    /// The slots: the keys that open this vault.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn slots(&self) -> Result<Vec<SlotInfo>, VaultError> {
        self.with(|state| Ok(state.root.slots()))
    }

    /// Adds a slot for another key; returns its number.
    ///
    /// # Errors
    /// [`VaultError::WeakPassphrase`], [`VaultError::Io`], [`VaultError::Sealed`].
    pub fn add_slot(&self, kek: &Kek) -> Result<u32, VaultError> {
        // Stretching a passphrase takes a second, in which nobody else should wait.
        let lock = kek.new_lock()?;
        self.change(|root, secrets| root.add_slot(lock, &secrets.master))
    }

    /// Removes a slot. Whoever holds its key and an old copy of the root file is not stopped: see
    /// [`reset_slots`](Self::reset_slots).
    ///
    /// # Errors
    /// [`VaultError::UnknownSlot`], [`VaultError::LastSlot`], [`VaultError::Io`], [`VaultError::Sealed`].
    pub fn remove_slot(&self, id: u32) -> Result<(), VaultError> {
        self.change(|root, _| root.remove_slot(id))
    }

    /// Puts another key in a slot's place, in one step; returns the new slot's number.
    ///
    /// # Errors
    /// Those of [`add_slot`](Self::add_slot) and [`remove_slot`](Self::remove_slot).
    pub fn rekey_slot(&self, id: u32, kek: &Kek) -> Result<u32, VaultError> {
        let lock = kek.new_lock()?;
        self.change(|root, secrets| {
            let added = root.add_slot(lock, &secrets.master)?;
            root.remove_slot(id)?;
            Ok(added)
        })
    }

    /// Replaces the master key and all slots by one for this key: the answer to a key that fell into wrong hands, with a
    /// rotation after it. No old key, and no old copy of the root file with one, opens a root file written from here on.
    /// Returns the slot's number.
    ///
    /// # Errors
    /// Those of [`add_slot`](Self::add_slot).
    pub fn reset_slots(&self, kek: &Kek) -> Result<u32, VaultError> {
        let (master, lock) = (random_secret()?, kek.new_lock()?);
        self.change(|root, secrets| {
            secrets.master.copy_from_slice(master.as_slice());
            root.clear_slots();
            root.add_slot(lock, &secrets.master)
        })
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    pub(crate) fn with_secrets(&self, look: impl FnOnce(&crate::locked::Secrets)) {
        look(&self.read().as_ref().unwrap().secrets);
    }

    fn unsealed(folder: &Path, state: State) -> Self {
        Self { folder: folder.to_owned(), state: RwLock::new(Some(state)) }
    }

    // A thread that panicked while it held the lock left the state as it was: changes are made on copies.
    fn read(&self) -> RwLockReadGuard<'_, Option<State>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<State>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&State) -> Result<T, VaultError>) -> Result<T, VaultError> {
        self.read().as_ref().ok_or(VaultError::Sealed).and_then(act)
    }

    /// Changes copies of the root and its secrets, writes the file, and only then takes the copies over.
    fn change<T>(
        &self,
        act: impl FnOnce(&mut Root, &mut Locked) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut state = self.write();
        let state = state.as_mut().ok_or(VaultError::Sealed)?;
        let mut root = state.root.clone();
        let mut secrets = Locked::new()?;
        secrets.copy(&state.secrets);
        let done = act(&mut root, &mut secrets)?;
        root.serial += 1;
        let roots = [&secrets.previous, &secrets.current];
        let kept = if root.previous().is_some() { &roots[..] } else { &roots[1..] };
        root.seal(&secrets.master, &secrets.field, kept)?;
        root.store(&self.folder, &secrets.master)?;
        (state.root, state.secrets) = (root, secrets);
        Ok(done)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Vault({}, {})",
            self.folder.display(),
            if self.sealed() { "sealed" } else { "unsealed" }
        )
    }
}

impl State {
    fn wrap(&self, object: &str, key: &DataKey) -> Result<WrappedKey, VaultError> {
        WrappedKey::wrap(&self.secrets.current, self.root.generation(), object, key)
    }

    fn unwrap(&self, object: &str, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        let generation = wrapped.generation();
        if generation == self.root.generation() {
            wrapped.unwrap(&self.secrets.current, object)
        } else if Some(generation) == self.root.previous() {
            wrapped.unwrap(&self.secrets.previous, object)
        } else if generation < self.root.generation() {
            Err(VaultError::Forgotten { generation })
        } else {
            Err(VaultError::Refused)
        }
    }
}

/// HKDF-SHA256's expansion of the field key.
pub(crate) fn derived(field: &[u8; 32], purpose: &str) -> Result<DataKey, VaultError> {
    derive(field, &[b"moat derived key\0", purpose.as_bytes()]).map(DataKey::from_secret)
}

/// The first 16 bytes of HMAC-SHA256 under a key of the purpose.
pub(crate) fn look_up(field: &[u8; 32], purpose: &str, value: &[u8]) -> Result<[u8; 16], VaultError> {
    let key = derive(field, &[b"moat look-up\0", purpose.as_bytes()])?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), value);
    tag.as_ref()[..16].try_into().map_err(|_| VaultError::Cipher)
}

/// How often a lock that is held is asked for again, and how long apart.
const PATIENCE: (u32, Duration) = (50, Duration::from_millis(10));

/// Locks a vault's folder until the file is closed.
fn hold(folder: &Path) -> Result<File, VaultError> {
    let held = File::open(folder).map_err(VaultError::io("open the folder", folder))?;
    for _ in 0..PATIENCE.0 {
        match held.try_lock() {
            Ok(()) => return Ok(held),
            // A child that this process is just starting shares the lock of a vault closed meanwhile, until it runs its
            // own program.
            Err(TryLockError::WouldBlock) => thread::sleep(PATIENCE.1),
            Err(TryLockError::Error(error)) => return Err(VaultError::io("lock", folder)(error)),
        }
    }
    Err(VaultError::InUse(folder.to_owned()))
}
