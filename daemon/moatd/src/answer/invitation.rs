//! The first accounts in the browser: whoever keeps the box invites, and the invited people type their own passwords and
//! see their own codes alone. Nothing is kept until two of them can do together what takes two.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moat_catalog::AccountRow;
use moat_contracts::Digest;
use moat_ledger::{Act, Phase};
use moat_protocol::control::{Enlisted, Guest, Invitation, NewAccount, Reply, Secret};
use moat_rights::random;

use super::accounts;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::people::Person;
use crate::record;

/// How long an invitation counts.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Letters of a code: none that is taken for another one.
const LETTERS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Letters of a code, five bits each, and how many stand together.
const LENGTH: usize = 20;
const GROUP: usize = 5;

/// People that one invitation may hold.
const MOST: usize = 16;

/// An invitation that counts, and who took it up. Only in memory: a restart forgets it.
pub(crate) struct Invited {
    /// Of the code that was shown once.
    code: Digest,
    until: Instant,
    guests: Vec<Pending>,
}

/// An account that is to be.
struct Pending {
    row: AccountRow,
    /// Whether its owner's device showed the right code.
    ready: bool,
}

fn standing(daemon: &Daemon) -> MutexGuard<'_, Option<Invited>> {
    let mut invited = daemon.invited.lock().unwrap_or_else(PoisonError::into_inner);
    if invited.as_ref().is_some_and(|invited| invited.until <= Instant::now()) {
        *invited = None;
    }
    invited
}

/// What is hashed of a code, however it was typed.
fn hash(code: &str) -> Digest {
    let letters = code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase());
    Digest::of(letters.collect::<String>().as_bytes())
}

fn over() -> Failure {
    Failure::request(
        "the site is set up already: an admin makes accounts, and an approver agrees to their roles",
    )
}

/// Makes an invitation, in place of one that there was.
pub(crate) fn invite(daemon: &Daemon, person: &Person) -> Result<Reply, Failure> {
    if !person.is_alone() {
        return Err(over());
    }
    let mut bytes = random::<LENGTH>().map_err(Failure::internal)?;
    let mut code = String::with_capacity(LENGTH + LENGTH / GROUP);
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % GROUP == 0 {
            code.push('-');
        }
        code.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    zeroize::Zeroize::zeroize(&mut bytes);
    *standing(daemon) = Some(Invited { code: hash(&code), until: Instant::now() + LIFE, guests: Vec::new() });
    let until = now().saturating_add(LIFE.as_secs().cast_signed());
    Ok(Reply::Invitation(Invitation { code: Secret(code), until }))
}

/// Takes an account in that is to be: its secret is shown this once. One of the same name is replaced.
pub(crate) fn enlist(
    daemon: &Daemon,
    person: &Person,
    code: &Secret,
    account: &NewAccount,
) -> Result<Reply, Failure> {
    if !person.may_be_first() {
        return Err(over());
    }
    let counts = |invited: &Option<Invited>| {
        invited.as_ref().is_some_and(|invited| invited.code == hash(&code.0)).then_some(()).ok_or_else(|| {
            Failure::request(
                "this invitation does not count: it is wrong, older than an hour, or there is a newer one; `moat account \
                 invite` makes another",
            )
        })
    };
    counts(&standing(daemon))?;
    let roles = accounts::parse_roles(&account.roles)?;
    // The password costs a moment, in which the others are not held up.
    let (row, made) = accounts::build(account, &roles.to_string(), "")?;
    let mut standing = standing(daemon);
    counts(&standing)?;
    if let Some(invited) = standing.as_mut() {
        invited.guests.retain(|guest| guest.row.name != row.name);
        if invited.guests.len() >= MOST {
            return Err(Failure::request("enough people took this invitation up: make more accounts later"));
        }
        invited.guests.push(Pending { row, ready: false });
    }
    Ok(Reply::Made(vec![made]))
}

/// Judges the first code of a device. Once those who are ready can do together what takes two people, their accounts are
/// made.
pub(crate) fn confirm(daemon: &Daemon, person: &Person, name: &str, code: &Secret) -> Result<Reply, Failure> {
    if !person.may_be_first() {
        return Err(over());
    }
    let mut standing = standing(daemon);
    let nobody = || Failure::request("no invitation counts any more: `moat account invite` makes another");
    let invited = standing.as_mut().ok_or_else(nobody)?;
    let guest = invited.guests.iter_mut().find(|guest| guest.row.name == name && !guest.ready);
    let guest = guest.ok_or_else(|| Failure::request("nobody of this name waits to be confirmed"))?;
    guest.row.last_step = Some(accounts::first_code(&guest.row, code)?);
    guest.ready = true;
    let ready: Vec<_> =
        invited.guests.iter().filter(|guest| guest.ready).map(|guest| guest.row.clone()).collect();
    let missing = accounts::missing(&ready)?;
    if missing.is_none() {
        let names: Vec<_> = ready.iter().map(|row| row.name.as_str()).collect();
        let act = Act::new(person.who.clone(), "site.set-up", Phase::Intent).on("account", names.join(","));
        let made = record::recorded(&daemon.ledger, &act, || accounts::begin(daemon, &ready));
        if let Err(failure) = made {
            // What cannot be made as it is, such as two people with one user of the machine, is typed again.
            invited.guests.retain(|guest| guest.row.name != name);
            return Err(failure);
        }
    }
    let guests = invited.guests.iter().map(|guest| Guest {
        name: guest.row.name.clone(),
        roles: guest.row.roles.split(',').filter(|role| !role.is_empty()).map(ToOwned::to_owned).collect(),
        ready: guest.ready,
    });
    let reply = Enlisted { guests: guests.collect(), missing: missing.clone() };
    if missing.is_none() {
        *standing = None;
    }
    Ok(Reply::Enlisted(reply))
}

#[cfg(test)]
mod tests {
    use super::{LETTERS, hash};

    #[test]
    fn a_code_is_the_same_however_it_is_typed() {
        assert_eq!(hash("ABCDE-FGHJK"), hash(" abcde fghjk\n"));
        assert_ne!(hash("ABCDE"), hash("ABCDF"));
        let letters: std::collections::BTreeSet<_> = LETTERS.iter().collect();
        assert!(letters.len() == 32 && !LETTERS.iter().any(|letter| b"01IO".contains(letter)));
    }
}
