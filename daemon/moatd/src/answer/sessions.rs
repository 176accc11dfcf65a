//! Browsers that sign in and out.

use std::net::IpAddr;

use moat_catalog::AccountRow;
use moat_ledger::{Act, Phase, Who};
use moat_protocol::control::Proof;

use super::accounts::prove;
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::people::Person;
use crate::record;

fn act(name: &str, who: &str, from: IpAddr) -> Act {
    Act::new(Who::account(who, "browser"), name, Phase::Intent).detail("address", from)
}

/// Judges an account's password and code for a browser that signs in. The ledger names accounts that are there alone:
/// what a stranger typed is not repeated.
pub(crate) fn sign_in(daemon: &Daemon, from: IpAddr, proof: &Proof) -> Result<AccountRow, Failure> {
    let accounts = daemon.state.catalog()?.accounts()?;
    let known = accounts.iter().find(|account| Some(&account.name) == proof.name.as_ref());
    let who = known.map_or("nobody", |account| account.name.as_str());
    record::recorded(&daemon.ledger, &act("session.begin", who, from), || {
        prove(daemon, &Person::unknown(from), proof).map(|present| present.row)
    })
}

/// Writes down that a browser signed out.
pub(crate) fn sign_out(daemon: &Daemon, from: IpAddr, name: &str) -> Result<(), Failure> {
    record::recorded(&daemon.ledger, &act("session.end", name, from), || Ok(()))
}

/// Writes down that an account was shown no page for an act that its roles do not allow.
pub(crate) fn refused(
    daemon: &Daemon,
    from: IpAddr,
    name: &str,
    denied: moat_rights::Act,
) -> Result<(), Failure> {
    record::refused(daemon, &act(denied.word(), name, from))
}
