//! Who calls, and what they may do.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use moat_catalog::{AccountRow, ApiKeyRow};
use moat_ledger::Who;
use moat_protocol::control::Request;
use moat_rights::{Account, Act, KeyRecord, Roles, may};
use moat_settings::Settings;
use tokio::net::unix::UCred;

use crate::daemon::{Daemon, now};
use crate::failure::Failure;

/// What is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A process of this machine: its user and group, as the kernel says.
    Process {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Whoever shows this API key.
    Bearer(String),
    /// A browser in which an account's owner signed in.
    Browser {
        /// The account's id.
        account: String,
        /// The public half of the key that the account had then.
        credentials: [u8; 32],
        /// Where it calls from.
        from: IpAddr,
    },
    /// Whoever shows a passphrase or a share at the admin port: holding it is all the right there is.
    Holder {
        /// Where it is shown.
        from: IpAddr,
    },
    /// Whoever shows an invitation at the admin port, before there is any account.
    Guest {
        /// Where it is shown.
        from: IpAddr,
    },
}

impl From<&UCred> for Caller {
    fn from(credentials: &UCred) -> Self {
        Self::Process { uid: credentials.uid(), gid: credentials.gid() }
    }
}

const OVER: &str = "the site is set up, and this was for before: accounts have the rights now";

/// Who acts.
pub(crate) struct Person {
    /// As the ledger names them.
    pub(crate) who: Who,
    /// The user of the machine at whose command line they act.
    pub(crate) uid: Option<u32>,
    /// The address from which they act, where that is known.
    pub(crate) from: Option<IpAddr>,
    standing: Standing,
}

enum Standing {
    /// Whoever keeps the box: root, the daemon's own user, and whom the configuration names.
    Keeper(Keeping),
    /// An account.
    Account(Box<AccountRow>),
    /// An API key, and what its owner may do.
    Key { shown: String, key: Box<ApiKeyRow>, owner: Option<Roles> },
    /// A holder of a passphrase or a share.
    Holder,
    /// Somebody who says to be invited, and whether nobody has an account yet.
    Guest(bool),
    /// Nobody whom Moat knows, or can know now.
    Stranger(Failure),
}

/// What keeping the box comes to.
enum Keeping {
    /// Opening the vault, for the time being: who has an account is not to be read.
    Sealed(Failure),
    /// Everything that does not take two people: the site is not set up.
    Alone,
    /// Very little: accounts have the rights.
    Relieved,
}

/// Finds out who calls.
pub(crate) fn person(daemon: &Daemon, caller: &Caller) -> Result<Person, Failure> {
    // Accounts lie in the catalog, which only an open vault opens; whoever keeps the box is not shut out with it.
    let known = daemon.state.catalog().and_then(|catalog| Ok((catalog.accounts()?, catalog)));
    let (accounts, catalog, unknown) = match known {
        Ok((accounts, catalog)) => (accounts, Some(catalog), None),
        Err(failure) => (Vec::new(), None, Some(failure)),
    };
    let from = match caller {
        Caller::Browser { from, .. } | Caller::Holder { from } | Caller::Guest { from } => Some(*from),
        Caller::Process { .. } | Caller::Bearer(_) => None,
    };
    let (who, uid, standing) = match caller {
        Caller::Holder { .. } => {
            (Who::account("a holder at the admin port", "holder"), None, Standing::Holder)
        }
        Caller::Guest { .. } => {
            if let Some(refusal) = unknown {
                return Err(refusal);
            }
            let first = accounts.is_empty() && !daemon.set_up.load(Ordering::SeqCst);
            (Who::account("a guest at the admin port", "guest"), None, Standing::Guest(first))
        }
        Caller::Browser { account, credentials, .. } => {
            let own = |row: &AccountRow| row.id == *account && row.key == *credentials && row.enabled;
            match (accounts.into_iter().find(own), unknown) {
                (Some(row), _) => (Who::account(&row.name, "none"), None, Standing::Account(Box::new(row))),
                (None, Some(failure)) => return Err(failure),
                (None, None) => {
                    let gone = "this account was disabled or given new credentials: sign in again";
                    (nobody(), None, Standing::Stranger(Failure::denied(gone)))
                }
            }
        }
        Caller::Process { uid, gid } => {
            let keeper = is_keeper(*uid, *gid, &daemon.settings);
            let keeping = match &unknown {
                Some(refusal) => Keeping::Sealed(refusal.clone()),
                None if accounts.is_empty() && !daemon.set_up.load(Ordering::SeqCst) => Keeping::Alone,
                None => Keeping::Relieved,
            };
            let account = accounts.into_iter().find(|account| account.uid == Some(*uid));
            match account.filter(|account| account.enabled) {
                Some(account) => {
                    let who = Who::user(*uid, &account.name, "none");
                    (who, Some(*uid), Standing::Account(Box::new(account)))
                }
                None if keeper => {
                    let name = if *uid == 0 { "root".to_owned() } else { format!("uid-{uid}") };
                    (Who::user(*uid, &name, "keeper"), Some(*uid), Standing::Keeper(keeping))
                }
                None => {
                    let who = Who::user(*uid, &format!("uid-{uid}"), "stranger");
                    let nobody_known = || {
                        Failure::denied(format!(
                            "user {uid} may not call: it has no account, and is not named in control.uids or control.gids"
                        ))
                    };
                    (who, Some(*uid), Standing::Stranger(unknown.unwrap_or_else(nobody_known)))
                }
            }
        }
        Caller::Bearer(shown) => match (catalog, moat_rights::find_by(shown)) {
            (None, _) => {
                return Err(unknown.unwrap_or_else(|| Failure::denied("no key can be looked up".to_owned())));
            }
            (_, Err(error)) => (nobody(), None, Standing::Stranger(Failure::denied(error.to_string()))),
            (Some(catalog), Ok(hash)) => match catalog.api_keys()?.into_iter().find(|key| key.hash == hash) {
                None => {
                    let unknown = Failure::denied(moat_rights::KeyError::Unknown.to_string());
                    (nobody(), None, Standing::Stranger(unknown))
                }
                Some(key) => {
                    let owner = accounts.into_iter().find(|account| account.id == key.owner);
                    let name = owner.as_ref().map_or("nobody", |owner| owner.name.as_str());
                    let who = Who::account(&format!("{name}, key {}", key.name), "key");
                    let owner = owner.filter(|owner| owner.enabled).map(|owner| roles(&owner)).transpose()?;
                    (who, None, Standing::Key { shown: shown.clone(), key: Box::new(key), owner })
                }
            },
        },
    };
    Ok(Person { who, uid, from, standing })
}

fn nobody() -> Who {
    Who::account("nobody", "stranger")
}

/// Root, the daemon's own user, and whom the configuration names.
fn is_keeper(uid: u32, gid: u32, settings: &Settings) -> bool {
    let own = rustix::process::geteuid().as_raw();
    uid == 0 || uid == own || settings.control.uids.contains(&uid) || settings.control.gids.contains(&gid)
}

impl Person {
    /// Whether this person may ask for this at all. What takes two people is judged again where it happens.
    pub(crate) fn may(&mut self, request: &Request) -> Result<(), Failure> {
        if let Some(act) = also(request) {
            self.allows(Needed::Act(act))?;
        }
        self.allows(needed(request))
    }

    fn allows(&mut self, needed: Needed) -> Result<(), Failure> {
        let denied = |message: String| Err(Failure::denied(message));
        match &self.standing {
            Standing::Stranger(failure) => Err(failure.clone()),
            Standing::Holder if matches!(needed, Needed::Act(Act::VaultUnseal)) => Ok(()),
            Standing::Holder => {
                denied("a passphrase or a share opens the vault, and gives no other right".to_owned())
            }
            Standing::Guest(true) if matches!(needed, Needed::Invitation) => Ok(()),
            Standing::Guest(_) => denied(OVER.to_owned()),
            Standing::Keeper(keeping) => match (keeping, needed) {
                (Keeping::Alone, _) | (_, Needed::Nothing) => Ok(()),
                (_, Needed::Act(Act::VaultSeal | Act::VaultUnseal | Act::ServiceEnd)) => Ok(()),
                (Keeping::Sealed(_), Needed::Keeper | Needed::Act(Act::LedgerRead)) => Ok(()),
                (Keeping::Sealed(refusal), _) => Err(refusal.clone()),
                (Keeping::Relieved, Needed::Keeper | Needed::Invitation) => denied(OVER.to_owned()),
                (Keeping::Relieved, Needed::Act(act)) => denied(format!(
                    "this user has no account: `{}` is for accounts with a role that may do it",
                    act.word()
                )),
            },
            Standing::Account(account) => {
                let roles = roles(account)?;
                let role = |act| roles.iter().find(|role| may(Roles::of(&[*role]), act));
                let acts_as = match needed {
                    Needed::Nothing => roles.iter().next(),
                    Needed::Act(act) => role(act),
                    Needed::Keeper | Needed::Invitation => None,
                };
                if let Some(role) = acts_as {
                    role.word().clone_into(&mut self.who.role);
                    return Ok(());
                }
                let needs = match needed {
                    Needed::Nothing => return Ok(()),
                    Needed::Keeper | Needed::Invitation => return denied(OVER.to_owned()),
                    Needed::Act(act) => act,
                };
                let all = moat_rights::Role::ALL.into_iter();
                let may_do: Vec<_> =
                    all.filter(|role| may(Roles::of(&[*role]), needs)).map(|role| role.word()).collect();
                denied(format!(
                    "account {} may not: `{}` is for the role {}",
                    account.name,
                    needs.word(),
                    may_do.join(" or ")
                ))
            }
            Standing::Key { shown, key, owner } => {
                let act = match needed {
                    Needed::Act(act) => act,
                    Needed::Nothing => Act::StatusRead,
                    Needed::Keeper | Needed::Invitation => return denied(OVER.to_owned()),
                };
                let record = KeyRecord {
                    hash: key.hash,
                    owner: key.owner.clone(),
                    scope: key.scope.parse().map_err(Failure::internal)?,
                    expires: key.expires.cast_unsigned(),
                    revoked: key.revoked.is_some(),
                };
                let allowed = record.allow(shown, act, now().cast_unsigned(), *owner);
                allowed.or_else(|error| denied(error.to_string()))
            }
        }
    }

    /// The caller's own account.
    pub(crate) fn account(&self) -> Option<&AccountRow> {
        match &self.standing {
            Standing::Account(account) => Some(account),
            _ => None,
        }
    }

    /// The roles of the caller's own account.
    pub(crate) fn roles(&self) -> Result<Roles, Failure> {
        match &self.standing {
            Standing::Account(account) => roles(account),
            Standing::Stranger(failure) => Err(failure.clone()),
            _ => Ok(Roles::NONE),
        }
    }

    /// Somebody of whom nothing is known yet, at an address.
    pub(crate) fn unknown(from: IpAddr) -> Self {
        let unknown = Failure::denied("nobody is signed in");
        Self { who: nobody(), uid: None, from: Some(from), standing: Standing::Stranger(unknown) }
    }

    /// The API key that the caller shows.
    pub(crate) fn key(&self) -> Option<&ApiKeyRow> {
        match &self.standing {
            Standing::Key { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether nobody has an account yet, so that this may be one of the first.
    pub(crate) fn may_be_first(&self) -> bool {
        self.is_alone() || matches!(self.standing, Standing::Guest(true))
    }

    /// Whether nobody has an account yet, so that whoever keeps the box may set it up.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.standing, Standing::Keeper(Keeping::Alone))
    }
}

/// The roles of an account.
pub(crate) fn roles(account: &AccountRow) -> Result<Roles, Failure> {
    account.roles.parse().map_err(Failure::internal)
}

/// An account as far as rights are concerned.
pub(crate) fn account(row: &AccountRow) -> Result<Account, Failure> {
    Ok(Account {
        id: row.id.clone(),
        uid: row.uid,
        roles: roles(row)?,
        key: row.key,
        enabled: row.enabled,
        created_by: row.created_by.clone(),
        credentials_by: row.credentials_by.clone(),
        roles_by: row.roles_by.split(',').filter(|by| !by.is_empty()).map(ToOwned::to_owned).collect(),
        roles_since: row.roles_since.cast_unsigned(),
    })
}

/// What a request needs.
#[derive(Clone, Copy)]
pub(crate) enum Needed {
    /// Nothing but being known; what is shown besides is judged where it happens.
    Nothing,
    /// Keeping a box that is not set up.
    Keeper,
    /// An invitation by whoever keeps a box that is not set up; it is judged where it is shown.
    Invitation,
    /// The right to an act.
    Act(Act),
}

/// A second right that a request needs.
pub(crate) fn also(request: &Request) -> Option<Act> {
    matches!(request, Request::RunSample { .. }).then_some(Act::ModelAsk)
}

/// The right that a request needs: the one place that says it, for command line, API and web.
pub(crate) fn needed(request: &Request) -> Needed {
    Needed::Act(match request {
        Request::Api | Request::Status => return Needed::Nothing,
        Request::VaultInit { .. } | Request::SetUp { .. } | Request::Invite => return Needed::Keeper,
        Request::Enlist { .. } | Request::EnlistConfirm { .. } => return Needed::Invitation,
        Request::Scan => Act::SourceScan,
        Request::Sources => Act::StatusRead,
        // They show names of files, as a text's own path is one.
        Request::SourceList { .. } | Request::SourceTest { .. } => Act::RecordRead,
        Request::SourceFaults { .. } => Act::RecordWhy,
        Request::SourcePause { .. } | Request::SourceResume { .. } => Act::SourceChange,
        Request::SourceFolders { .. } | Request::SourceTry { .. } => Act::SourceChange,
        Request::SourceAdd { .. } | Request::SourceRemove { .. } => Act::SourceChange,
        Request::Why { .. } | Request::DatasetDiff { .. } => Act::RecordWhy,
        Request::DatasetBuild { .. } => Act::DatasetBuild,
        Request::Datasets | Request::Dataset { .. } | Request::Bases | Request::Runs => Act::StatusRead,
        Request::DatasetFacts { .. } => Act::StatusRead,
        // They show texts.
        Request::RecordSearch { .. } | Request::Record { .. } | Request::Tryout { .. } => Act::RecordRead,
        Request::Reviews { .. } | Request::Review { .. } => Act::VerdictReview,
        Request::BaseImport { .. } => Act::BaseImport,
        Request::RunStart { .. } | Request::RunResume { .. } => Act::RunStart,
        Request::RunPlan { .. } => Act::RunStart,
        Request::RunCompare { .. } => Act::EdgeRead,
        Request::SweepStart { .. } | Request::SweepResume { .. } => Act::RunStart,
        Request::Sweeps | Request::Sweep { .. } | Request::SweepWatch { .. } => Act::StatusRead,
        Request::SweepStop { .. } => Act::RunStop,
        // It shows a text.
        Request::RunPreview { .. } => Act::RecordRead,
        Request::Run { .. } | Request::RunSteps { .. } | Request::RunWatch { .. } => Act::StatusRead,
        Request::RunStop { .. } => Act::RunStop,
        Request::Export { .. } => Act::ExportRequest,
        Request::RunCard { .. } => Act::EdgeRead,
        // It shows a text, and asks a model; see below.
        Request::RunSample { .. } => Act::RecordRead,
        Request::Ask { .. } => Act::ModelAsk,
        Request::VaultUnseal { .. } => Act::VaultUnseal,
        Request::VaultSeal => Act::VaultSeal,
        Request::VaultSlotAdd { .. } | Request::VaultSlotRemove { .. } | Request::VaultRotate => {
            Act::VaultRotate
        }
        Request::Accounts | Request::Statements => Act::StatusRead,
        Request::AccountCreate { .. } => Act::AccountCreate,
        Request::AccountRoles { .. } => Act::RoleRequest,
        Request::AccountDisable { .. } => Act::AccountDisable,
        Request::AccountReset { .. } => Act::AccountReset,
        Request::PolicyRequest { .. } => Act::PolicyRequest,
        // An approver agrees to all kinds.
        Request::Approve { .. } => Act::ExportApprove,
        Request::Withdraw { .. } => Act::StatusRead,
        Request::ApiKeys | Request::ApiKeyRevoke { .. } => Act::KeyRevoke,
        Request::ApiKeyCreate { .. } => Act::KeyCreate,
        Request::Ledger { .. } | Request::LedgerReceipt { .. } => Act::LedgerRead,
        Request::Backup { .. } => Act::BackupCreate,
        Request::Shutdown => Act::ServiceEnd,
    })
}
