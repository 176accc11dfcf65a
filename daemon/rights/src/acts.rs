//! The table: every act that touches data, weights, keys or rights, and the roles that may do it.

use std::fmt;
use std::str::FromStr;

/// What a person at a site is there for. An account may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees what runs and asks the models.
    Viewer,
    /// Answers for the data: sources, texts, verdicts.
    Steward,
    /// Builds datasets and models.
    Engineer,
    /// Agrees, or does not, to what others ask for.
    Approver,
    /// Runs the box: accounts, keys, updates.
    Admin,
    /// Reads the ledger.
    Auditor,
}

use Role::{Admin, Approver, Auditor, Engineer, Steward, Viewer};

impl Role {
    /// Every role, in the table's order.
    pub const ALL: [Self; 6] = [Viewer, Steward, Engineer, Approver, Admin, Auditor];

    /// The role's word, as the configuration and the ledger write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Viewer => "viewer",
            Steward => "steward",
            Engineer => "engineer",
            Approver => "approver",
            Admin => "admin",
            Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(self.word())
    }
}

/// A word that names no role or act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} of this name; there are: {known}")]
pub struct UnknownWord {
    what: &'static str,
    known: String,
}

impl FromStr for Role {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let known = || Self::ALL.map(Self::word).join(", ");
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| UnknownWord { what: "role", known: known() })
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No role at all.
    pub const NONE: Self = Self(0);

    /// These roles.
    #[must_use]
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |set, role| set | 1 << *role as u8))
    }

    /// Whether a role is among them.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.0 >> role as u8 & 1 == 1
    }

    /// The roles, in the table's order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(&self.iter().map(Role::word).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Roles {
    type Err = UnknownWord;

    /// Reads what its display wrote: words with commas between; the empty text is no role.
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let words = text.split(',').filter(|word| !word.is_empty());
        Ok(Self::of(&words.map(str::parse).collect::<Result<Vec<_>, _>>()?))
    }
}

/// Only a person may do it.
const PERSON: bool = true;
/// An API key may do it as well.
const ANYHOW: bool = false;

macro_rules! acts {
    ($($name:ident $word:literal $meaning:literal [$($role:ident),*] $how:ident;)*) => {
        /// An act that needs a right.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Act {
            $(#[doc = $meaning] $name,)*
        }

        /// Every act with the roles that may do it.
        pub const TABLE: &[Row] = &[
            $(Row {
                act: Act::$name,
                word: $word,
                meaning: $meaning,
                roles: &[$($role),*],
                in_person: $how,
            },)*
        ];
    };
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// The act.
    pub act: Act,
    /// Its dotted word, as the ledger writes it.
    pub word: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Who may do it.
    pub roles: &'static [Role],
    /// Whether a person must do it: no API key can have it in its scope.
    pub in_person: bool,
}

acts! {
    StatusRead "status.read" "Sees what runs, counts and alarms." [Viewer, Steward, Engineer, Approver, Admin, Auditor] ANYHOW;
    RecordRead "record.read" "Reads the texts of documents and records." [Steward] ANYHOW;
    RecordWhy "record.why" "Sees why a document was kept or dropped and what it reached." [Steward, Engineer, Approver, Auditor] ANYHOW;
    VerdictReview "verdict.review" "Overrules a verdict on a record." [Steward] ANYHOW;
    SourceChange "source.change" "Asks for a new source, pauses one, or removes one that was added." [Steward] PERSON;
    SourceApprove "source.approve" "Agrees to a new source." [Approver] PERSON;
    SourceScan "source.scan" "Looks at the sources again." [Steward, Engineer, Admin] ANYHOW;
    DatasetBuild "dataset.build" "Builds a dataset." [Steward, Engineer] ANYHOW;
    BaseImport "base.import" "Imports a base from a folder." [Engineer, Admin] ANYHOW;
    RunStart "run.start" "Starts a run." [Engineer] ANYHOW;
    RunStop "run.stop" "Stops a run." [Engineer, Admin] ANYHOW;
    EdgeRead "edge.read" "Reads how much better a model became." [Viewer, Steward, Engineer, Approver, Auditor] ANYHOW;
    ModelAsk "model.ask" "Asks a model for completions." [Viewer, Steward, Engineer, Approver] ANYHOW;
    ModelServe "model.serve" "Starts or stops serving an approved model." [Engineer, Admin] ANYHOW;
    ModelApprove "model.approve" "Approves a candidate, or retires a model." [Approver] PERSON;
    ExportRequest "export.request" "Asks for an export of weights or data." [Steward, Engineer] PERSON;
    ExportApprove "export.approve" "Agrees to an export." [Approver] PERSON;
    PolicyRequest "policy.request" "Asks for a change of policy." [Steward, Admin] PERSON;
    PolicyApprove "policy.approve" "Agrees to a change of policy." [Approver] PERSON;
    RoleRequest "role.request" "Asks for a change of somebody's roles." [Admin] PERSON;
    RoleApprove "role.approve" "Agrees to a change of roles." [Approver] PERSON;
    AccountCreate "account.create" "Makes an account, which has no role yet." [Admin] PERSON;
    AccountDisable "account.disable" "Disables an account." [Approver, Admin] PERSON;
    AccountReset "account.reset" "Gives an account new credentials; it may not approve for whoever did." [Admin] PERSON;
    KeyCreate "key.create" "Makes an API key with at most its owner's rights." [Steward, Engineer, Admin] PERSON;
    KeyRevoke "key.revoke" "Revokes an API key." [Steward, Engineer, Approver, Admin] ANYHOW;
    VaultUnseal "vault.unseal" "Unseals the vault." [Admin] PERSON;
    VaultSeal "vault.seal" "Seals the vault at once." [Approver, Admin, Auditor] ANYHOW;
    VaultRotate "vault.rotate" "Rotates the vault's keys." [Admin] PERSON;
    LedgerRead "ledger.read" "Reads and verifies the ledger." [Approver, Admin, Auditor] ANYHOW;
    WitnessCopy "witness.copy" "Copies a checkpoint to the witness." [Admin, Auditor] ANYHOW;
    BackupCreate "backup.create" "Makes a sealed backup." [Admin] ANYHOW;
    BackupRestore "backup.restore" "Restores a backup." [Admin] PERSON;
    ServiceEnd "service.end" "Ends the daemon." [Admin] PERSON;
    UpdateInstall "update.install" "Installs a signed update." [Admin] PERSON;
}

impl Act {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The dotted word, as the ledger writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().word
    }
}

impl FromStr for Act {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let known = || TABLE.iter().map(|row| row.word).collect::<Vec<_>>().join(", ");
        let row = TABLE.iter().find(|row| row.word == word);
        row.map(|row| row.act).ok_or_else(|| UnknownWord { what: "act", known: known() })
    }
}

/// Whether an account with these roles may do this.
#[must_use]
pub fn may(roles: Roles, act: Act) -> bool {
    act.row().roles.iter().any(|role| roles.has(*role))
}

/// The acts that an API key is for. A scope holds nothing that must be done in person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope(u64);

impl Scope {
    /// These acts, less those that must be done in person.
    #[must_use]
    pub fn of(acts: &[Act]) -> Self {
        let allowed = acts.iter().filter(|act| !act.row().in_person);
        Self(allowed.fold(0, |set, act| set | 1 << *act as u8))
    }

    /// Whether an act is within it.
    #[must_use]
    pub fn has(self, act: Act) -> bool {
        !act.row().in_person && self.0 >> act as u8 & 1 == 1
    }

    /// The acts, in the table's order.
    pub fn iter(self) -> impl Iterator<Item = Act> {
        TABLE.iter().map(|row| row.act).filter(move |act| self.has(*act))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(&self.iter().map(Act::word).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Scope {
    type Err = UnknownWord;

    /// Reads what its display wrote: words with commas between.
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let words = text.split(',').filter(|word| !word.is_empty());
        Ok(Self::of(&words.map(str::parse).collect::<Result<Vec<_>, _>>()?))
    }
}

/// The whole table, for a person to read.
#[must_use]
pub fn table() -> String {
    let mut page = format!("{:16}", "");
    for role in Role::ALL {
        page.push_str(&format!(" {:8}", role.word()));
    }
    page.push_str(" in person\n");
    for row in TABLE {
        page.push_str(&format!("{:16}", row.word));
        for role in Role::ALL {
            page.push_str(&format!(" {:8}", if row.roles.contains(&role) { "yes" } else { "-" }));
        }
        page.push_str(if row.in_person { " yes\n" } else { " -\n" });
    }
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_table_has_one_row_for_each_act_in_order() {
        assert!(TABLE.len() <= 64, "a scope has 64 bits");
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.act as usize, number);
            assert_eq!(row.word.parse::<Act>().unwrap(), row.act);
            assert!(!row.roles.is_empty() && row.roles.is_sorted(), "{}", row.word);
            assert!(table().contains(row.word) && row.word.len() <= 16);
        }
        assert_eq!(table().lines().count(), TABLE.len() + 1);
    }

    #[test]
    fn no_single_role_can_both_ask_and_agree() {
        for role in Role::ALL {
            let only = Roles::of(&[role]);
            for (ask, agree) in [
                (Act::ExportRequest, Act::ExportApprove),
                (Act::PolicyRequest, Act::PolicyApprove),
                (Act::RoleRequest, Act::RoleApprove),
                (Act::SourceChange, Act::SourceApprove),
            ] {
                assert!(!(may(only, ask) && may(only, agree)), "{role}");
            }
            assert!(!(may(only, Act::AccountReset) && may(only, Act::ExportApprove)), "{role}");
        }
    }

    #[test]
    fn who_runs_the_box_reads_no_texts_and_who_reads_the_ledger_changes_nothing() {
        for role in [Viewer, Engineer, Approver, Admin, Auditor] {
            assert!(!may(Roles::of(&[role]), Act::RecordRead), "{role}");
        }
        let harmless = "status.read record.why edge.read ledger.read witness.copy vault.seal";
        for row in TABLE.iter().filter(|row| row.roles.contains(&Auditor)) {
            assert!(harmless.split(' ').any(|word| word == row.word), "an auditor may not {}", row.word);
        }
        let seen = |row: &&Row| row.roles.contains(&Viewer);
        assert_eq!(TABLE.iter().filter(seen).count(), 3);
    }

    #[test]
    fn no_role_may_do_nothing_and_sets_read_back() {
        for bits in 0..64u8 {
            let roles: Vec<_> = Role::ALL.into_iter().filter(|role| bits >> *role as u8 & 1 == 1).collect();
            let set = Roles::of(&roles);
            assert_eq!(set.to_string().parse::<Roles>().unwrap(), set);
            assert_eq!(set.iter().collect::<Vec<_>>(), roles);
            for row in TABLE {
                assert_eq!(may(set, row.act), row.roles.iter().any(|role| roles.contains(role)));
            }
        }
        assert!(TABLE.iter().all(|row| !may(Roles::NONE, row.act)));
        assert!("root".parse::<Roles>().is_err());
        assert!("Admin".parse::<Role>().is_err());
    }

    #[test]
    fn a_scope_never_holds_what_must_be_done_in_person() {
        let all: Vec<_> = TABLE.iter().map(|row| row.act).collect();
        let scope = Scope::of(&all);
        for row in TABLE {
            assert_eq!(scope.has(row.act), !row.in_person, "{}", row.word);
        }
        for act in
            [Act::ExportRequest, Act::ExportApprove, Act::RoleApprove, Act::PolicyApprove, Act::VaultUnseal]
        {
            assert!(!scope.has(act));
        }
        assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope);
    }
}
