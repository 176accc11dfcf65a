use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use moat_catalog::{AccountRow, Batch, Catalog};
use moat_protocol::control::{Account, MadeAccount, NewAccount, Proof, Reply, Secret};
use moat_rights::{
    Kind, LoginError, Presence, Role, Roles, hash_password, hex, may, public_key, random, wait_after,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::people::{self, Person};
use crate::policy;

/// Letters of an account's name at most.
const LONGEST_NAME: usize = 64;

/// What an account's sealed field holds.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Credentials {
    /// PHC string of the password.
    password: String,
    /// Secret of the codes.
    codes: [u8; 20],
    /// Seed of the signing key.
    seed: [u8; 32],
}

impl Credentials {
    fn new(name: &str, password: &Secret) -> Result<(Self, [u8; 32], MadeAccount), Failure> {
        let password = hash_password(name, &password.0).map_err(Failure::request)?;
        let codes = moat_rights::Secret::generate().map_err(Failure::internal)?;
        let seed = random().map_err(Failure::internal)?;
        let key = public_key(&seed).map_err(Failure::internal)?;
        let made = MadeAccount { name: name.to_owned(), uri: Secret(codes.uri("Moat", name)) };
        Ok((Self { password, codes: *codes.as_bytes(), seed }, key, made))
    }

    fn of(row: &AccountRow) -> Result<Self, Failure> {
        serde_json::from_slice(&row.credentials)
            .map_err(|_| Failure::internal(format!("the credentials of account {} are damaged", row.name)))
    }

    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(Failure::internal)
    }
}

/// All accounts.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let accounts = daemon.state.catalog()?.accounts()?;
    Ok(Reply::Accounts(accounts.iter().map(shown).collect()))
}

fn shown(row: &AccountRow) -> Account {
    Account {
        name: row.name.clone(),
        id: row.id.clone(),
        uid: row.uid,
        roles: row.roles.split(',').filter(|role| !role.is_empty()).map(ToOwned::to_owned).collect(),
        enabled: row.enabled,
        created: row.created,
        roles_since: row.roles_since,
    }
}

/// The account of a name.
pub(crate) fn find(catalog: &Catalog, name: &str) -> Result<AccountRow, Failure> {
    let found = catalog.accounts()?.into_iter().find(|account| account.name == name);
    found.ok_or_else(|| {
        Failure::request(format!("there is no account {name}: `moat account list` shows those there are"))
    })
}

/// Makes the first accounts, with their roles, and puts the configuration's policy in force. From then on rights come
/// from accounts, and what takes two people takes two of them.
pub(crate) fn set_up(daemon: &Daemon, new: &[NewAccount]) -> Result<Reply, Failure> {
    let people = new.iter().map(|account| Ok((account.uid, parse_roles(&account.roles)?)));
    let people = people.collect::<Result<Vec<_>, Failure>>()?;
    if let Some(missing) = undoable(&people) {
        return Err(Failure::request(missing));
    }
    let made = new.iter().zip(&people).map(|(account, (_, roles))| build(account, &roles.to_string(), ""));
    let (rows, made): (Vec<_>, Vec<_>) = made.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    begin(daemon, &rows)?;
    Ok(Reply::Made(made))
}

/// Why something that takes two people could not be done by any two of these, if that is so: it would have to be repaired
/// by hand.
fn undoable(people: &[(Option<u32>, Roles)]) -> Option<String> {
    // A source is left out: whom nobody made a steward yet, two people can.
    let kinds = [
        (Kind::Export, "an export", "engineer or steward"),
        (Kind::Policy, "a change of policy", "steward or admin"),
        (Kind::Role, "a change of roles", "admin"),
    ];
    let undoable = kinds.into_iter().find(|(kind, ..)| {
        let able = |at: usize, act| people[at].0 != Some(0) && may(people[at].1, act);
        let pairs = (0..people.len()).flat_map(|asks| (0..people.len()).map(move |agrees| (asks, agrees)));
        let mut pairs = pairs.filter(|(asks, agrees)| asks != agrees);
        !pairs.any(|(asks, agrees)| able(asks, kind.request()) && able(agrees, kind.approve()))
    });
    let (_, what, role) = undoable?;
    Some(format!(
        "nobody could ask for {what}, or nobody else agree: give one person the role {role} and another one approver"
    ))
}

/// What keeps these from being the first accounts, if anything.
pub(crate) fn missing(rows: &[AccountRow]) -> Result<Option<String>, Failure> {
    let people = rows.iter().map(|row| Ok((row.uid, people::roles(row)?)));
    Ok(undoable(&people.collect::<Result<Vec<_>, Failure>>()?))
}

/// Writes the first accounts, and puts the configuration's policy in force.
pub(crate) fn begin(daemon: &Daemon, rows: &[AccountRow]) -> Result<(), Failure> {
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    if !batch.accounts()?.is_empty() {
        return Err(Failure::request("the site is set up already"));
    }
    for row in rows {
        add(&batch, row)?;
    }
    policy::enact(&batch, &daemon.policy, None)?;
    batch.commit()?;
    daemon.set_up.store(true, Ordering::SeqCst);
    Ok(())
}

/// Judges the first code that the device of an account that is to be shows; gives its step.
pub(crate) fn first_code(row: &AccountRow, code: &Secret) -> Result<i64, Failure> {
    let credentials = Credentials::of(row)?;
    let codes = moat_rights::Secret::from_bytes(credentials.codes);
    let step = codes.verify(&code.0, now().cast_unsigned(), row.last_step.map(i64::cast_unsigned));
    Ok(step.map_err(Failure::request)?.cast_signed())
}

/// Makes an account without a role.
pub(crate) fn create(daemon: &Daemon, person: &Person, new: &NewAccount) -> Result<Reply, Failure> {
    if !new.roles.is_empty() {
        return Err(Failure::request(format!(
            "a new account has no role: `moat account roles {}` asks for some",
            new.name
        )));
    }
    let by = person.account().ok_or_else(not_set_up)?;
    let (row, made) = build(new, "", &by.id)?;
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    add(&batch, &row)?;
    batch.commit()?;
    Ok(Reply::Made(vec![made]))
}

/// An account that is to be, and its secret, which is shown once.
pub(crate) fn build(new: &NewAccount, roles: &str, by: &str) -> Result<(AccountRow, MadeAccount), Failure> {
    let sound = new.name.starts_with(|first: char| first.is_ascii_lowercase())
        && new.name.len() <= LONGEST_NAME
        && new.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if !sound {
        return Err(Failure::request(format!(
            "an account's name has at most {LONGEST_NAME} letters a to z, digits, `-`, `_` and `.`, a letter first"
        )));
    }
    let (credentials, key, made) = Credentials::new(&new.name, &new.password)?;
    let row = AccountRow {
        id: hex(&random::<16>().map_err(Failure::internal)?),
        name: new.name.clone(),
        uid: new.uid,
        roles: roles.to_owned(),
        enabled: true,
        created: now(),
        created_by: by.to_owned(),
        credentials_by: by.to_owned(),
        roles_by: String::new(),
        roles_since: now(),
        key,
        statement: None,
        credentials: credentials.to_bytes()?,
        last_step: None,
        failures: 0,
        failed_at: 0,
    };
    Ok((row, made))
}

fn add(batch: &Batch<'_>, row: &AccountRow) -> Result<(), Failure> {
    for other in batch.accounts()? {
        if other.name == row.name {
            return Err(Failure::request(format!("there is an account {} already", row.name)));
        }
        if let Some(uid) = row.uid
            && other.uid == Some(uid)
        {
            return Err(Failure::request(format!("user {uid} is account {} already", other.name)));
        }
    }
    Ok(batch.add_account(row)?)
}

/// Disables an account for good; its name is never given again.
pub(crate) fn disable(daemon: &Daemon, name: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    let mut row = find(&batch, name)?;
    row.enabled = false;
    batch.change_account(&row)?;
    batch.commit()?;
    Ok(Reply::Accounts(vec![shown(&row)]))
}

/// Gives an account a new password, code and signing key.
pub(crate) fn reset(
    daemon: &Daemon,
    person: &Person,
    name: &str,
    password: &Secret,
) -> Result<Reply, Failure> {
    let by = person.account().ok_or_else(not_set_up)?;
    let (credentials, key, made) = Credentials::new(name, password)?;
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    let mut row = find(&batch, name)?;
    row.key = key;
    row.credentials = credentials.to_bytes()?;
    row.credentials_by.clone_from(&by.id);
    batch.change_account(&row)?;
    (row.failures, row.last_step) = (0, None);
    batch.keep_try(&row)?;
    batch.commit()?;
    Ok(Reply::Made(vec![made]))
}

/// Roles by their words.
pub(crate) fn parse_roles(words: &[String]) -> Result<Roles, Failure> {
    let roles = words.iter().map(|word| word.parse::<Role>()).collect::<Result<Vec<_>, _>>();
    Ok(Roles::of(&roles.map_err(Failure::request)?))
}

/// That accounts are needed first.
pub(crate) fn not_set_up() -> Failure {
    Failure::request("this takes people with accounts: `moat account set-up` makes the first ones")
}

/// Somebody who showed an account's password and code just now.
pub(crate) struct Present {
    pub(crate) row: AccountRow,
    pub(crate) presence: Presence,
    seed: Zeroizing<[u8; 32]>,
}

impl Present {
    /// The seed of the signing key.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

/// Judges a password and a code. Whoever tries often has to wait; a code counts once, whatever comes of the rest.
pub(crate) fn prove(daemon: &Daemon, person: &Person, proof: &Proof) -> Result<Present, Failure> {
    // One try after the other: side by side they could all come before the wait that the first one brings.
    let _turn = daemon.proving.lock().unwrap_or_else(PoisonError::into_inner);
    let catalog = daemon.state.catalog()?;
    let accounts = catalog.accounts()?;
    if accounts.is_empty() {
        return Err(not_set_up());
    }
    let found = accounts.into_iter().find(|account| match &proof.name {
        Some(name) => account.name == *name,
        None => person.account().is_some_and(|own| own.id == account.id),
    });
    let at = now();
    let Some(mut row) = found else {
        // It takes as long, and says the same, as for an account that is there.
        let refused = Presence::prove(None, &proof.password.0, &proof.code.0, at.cast_unsigned(), person.uid);
        return Err(Failure::request(refused.err().unwrap_or(LoginError::Wrong)));
    };
    let wait = i64::try_from(wait_after(row.failures).as_secs()).unwrap_or(i64::MAX);
    let left = row.failed_at.saturating_add(wait).saturating_sub(at);
    if left > 0 && row.failures > 0 {
        // As long as any other answer takes, so that strangers learn nothing of who has an account.
        let _ = Presence::prove(None, &proof.password.0, &proof.code.0, at.cast_unsigned(), person.uid);
        return Err(Failure::request(format!(
            "account {} is closed for {left} s after {} wrong tries: wait, then try again",
            row.name, row.failures
        )));
    }
    let credentials = Credentials::of(&row)?;
    let codes = moat_rights::Secret::from_bytes(credentials.codes);
    let known = moat_rights::Credentials {
        password: &credentials.password,
        totp: &codes,
        last_step: row.last_step.map(i64::cast_unsigned),
    };
    let account = people::account(&row)?;
    let judged = Presence::prove(
        Some((&account, &known)),
        &proof.password.0,
        &proof.code.0,
        at.cast_unsigned(),
        person.uid,
    );
    match &judged {
        Ok((_, step)) => (row.last_step, row.failures) = (Some(step.cast_signed()), 0),
        Err(_) => (row.failures, row.failed_at) = (row.failures.saturating_add(1), at),
    }
    let batch = catalog.write()?;
    batch.keep_try(&row)?;
    batch.commit()?;
    let (presence, _) = judged.map_err(|error| {
        Failure::request(format!(
            "{error}; a code counts once, so wait for the next one before you try again"
        ))
    })?;
    Ok(Present { row, presence, seed: Zeroizing::new(credentials.seed) })
}
