use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use moat_protocol::control::{Seal, Slot};
use moat_vault::{Kek, Share, SlotKind, Vault, VaultError};
use tracing::{error, info};

use crate::failure::Failure;

/// How long a share that was given is kept while the others are on their way.
const CEREMONY: Duration = Duration::from_secs(15 * 60);

/// The vault as the daemon holds it: there or not, open or sealed.
pub(crate) struct Safe {
    folder: PathBuf,
    vault: RwLock<Option<Arc<Vault>>>,
    shares: Mutex<Shares>,
}

#[derive(Default)]
struct Shares {
    given: Vec<Share>,
    since: Option<Instant>,
}

impl Shares {
    fn forget_old(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() > CEREMONY) {
            *self = Self::default();
        }
    }
}

impl Safe {
    /// Opens the vault of a folder with the credential that systemd handed over, where there is one; the first start
    /// with a credential makes the vault. Without one the daemon stays sealed.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let safe = Self { folder, vault: RwLock::default(), shares: Mutex::default() };
        match Kek::credential() {
            Err(VaultError::NoCredentials) => info!("sealed: no credential was given, so people unseal"),
            Err(error) => error!("sealed: {error}"),
            Ok(kek) => match safe.enter(&kek) {
                Ok(()) => info!("unsealed by the credential moat-kek"),
                Err(error) => error!("sealed: {error}"),
            },
        }
        safe
    }

    /// Opens the vault, or makes it where there is none.
    fn enter(&self, kek: &Kek) -> Result<(), VaultError> {
        let exists = Vault::exists(&self.folder);
        let vault = if exists { Vault::open(&self.folder, kek) } else { Vault::create(&self.folder, kek) }?;
        *self.vault.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(vault));
        Ok(())
    }

    /// The open vault.
    pub(crate) fn vault(&self) -> Result<Arc<Vault>, Failure> {
        let vault = self.vault.read().unwrap_or_else(PoisonError::into_inner).clone();
        vault.filter(|vault| !vault.sealed()).ok_or_else(|| self.refusal())
    }

    fn refusal(&self) -> Failure {
        Failure::sealed(if Vault::exists(&self.folder) {
            "moat is sealed: `moat vault unseal` opens it with a passphrase or with shares"
        } else {
            "moat has no vault yet: `moat vault init` makes one"
        })
    }

    /// Whether nothing that is sealed can be opened now.
    pub(crate) fn is_sealed(&self) -> bool {
        self.vault().is_err()
    }

    /// Wipes the keys from memory.
    pub(crate) fn seal(&self) {
        self.forget_shares();
        if let Some(vault) = self.vault.write().unwrap_or_else(PoisonError::into_inner).take() {
            vault.seal();
        }
    }

    /// Makes the vault with a first slot for a passphrase.
    pub(crate) fn create(&self, kek: &Kek) -> Result<(), Failure> {
        if Vault::exists(&self.folder) {
            return Err(Failure::request(
                "moat has a vault already: `moat vault slot` adds another way to open it",
            ));
        }
        self.enter(kek).map_err(failure)
    }

    /// Opens the vault with a key.
    pub(crate) fn unseal(&self, kek: &Kek) -> Result<(), Failure> {
        if !Vault::exists(&self.folder) || !self.is_sealed() {
            return Err(if self.is_sealed() {
                self.refusal()
            } else {
                Failure::request("moat is open already")
            });
        }
        self.enter(kek).map_err(failure)
    }

    /// Takes one share in; opens the vault once there are enough. Gives how many are still wanted.
    pub(crate) fn give_share(&self, share: Share) -> Result<u64, Failure> {
        if !Vault::exists(&self.folder) || !self.is_sealed() {
            return Err(if self.is_sealed() {
                self.refusal()
            } else {
                Failure::request("moat is open already")
            });
        }
        let needed = usize::from(share.needed());
        let given = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.forget_old();
            if shares.given.iter().any(|other| other.set() != share.set()) {
                return Err(Failure::request("this share is of another set than those given before it"));
            }
            if shares.given.iter().any(|other| other.place() == share.place()) {
                return Err(Failure::request("this share was given already"));
            }
            shares.since.get_or_insert_with(Instant::now);
            shares.given.push(share);
            if shares.given.len() < needed {
                return Ok((needed - shares.given.len()) as u64);
            }
            std::mem::take(&mut *shares).given
        };
        let kek = Kek::from_shares(&given).map_err(failure)?;
        self.enter(&kek).map_err(failure)?;
        Ok(0)
    }

    /// Forgets the shares of a ceremony that was begun.
    pub(crate) fn forget_shares(&self) {
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = Shares::default();
    }

    /// How the vault stands, as anyone may know it.
    pub(crate) fn state(&self) -> Seal {
        // Without a vault there are none, and what is wrong with a damaged one is told to whoever opens it.
        let slots = Vault::inspect(&self.folder).unwrap_or_default();
        let vault = self.vault().ok();
        let (given, needed) = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.forget_old();
            (shares.given.len(), shares.given.first().map(|share| u64::from(share.needed())))
        };
        Seal {
            sealed: vault.is_none(),
            made: Vault::exists(&self.folder),
            shares_given: given as u64,
            shares_needed: needed,
            generation: vault.as_ref().and_then(|vault| vault.generation().ok()),
            rotating: vault.as_ref().is_some_and(|vault| matches!(vault.rotating(), Ok(Some(_)))),
            guarded: vault.and_then(|vault| vault.guarded().ok()),
            slots: slots
                .into_iter()
                .map(|slot| Slot {
                    id: slot.id,
                    kind: match slot.kind {
                        SlotKind::Credential => "credential".to_owned(),
                        SlotKind::Passphrase => "passphrase".to_owned(),
                        SlotKind::Shares { needed, of, .. } => format!("{needed} of {of} shares"),
                    },
                })
                .collect(),
        }
    }
}

/// A wrong key is the caller's; a damaged file is not.
pub(crate) fn failure(error: VaultError) -> Failure {
    match error {
        VaultError::WrongKek(_)
        | VaultError::NoSlot(_)
        | VaultError::UnknownSlot(_)
        | VaultError::LastSlot(_)
        | VaultError::Rotating
        | VaultError::NoCredentials
        | VaultError::Credential { .. }
        | VaultError::WeakPassphrase(_)
        | VaultError::Share(_) => Failure::request(error),
        _ => Failure::internal(error),
    }
}
