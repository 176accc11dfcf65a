//! What takes two people: asking, agreeing, and what happens then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moat_catalog::{AccountRow, Batch, Catalog, SourceRow, StatementRow};
use moat_contracts::Digest;
use moat_models::Staged;
use moat_protocol::control::{AskedSource, Exported, Proof, Reply, SourceDefinition, Statement};
use moat_rights::{Approval, Approved, Deed, Kind, Situation, hex, random};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::accounts::{self, Present, prove};
use super::{blocking, export};
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::people::{self, Person};
use crate::{policy, sources};

/// For how many seconds a request waits for the second person.
const LIFE: u64 = 3 * 24 * 3600;

/// How often it is looked whether requests have expired.
const LOOK: Duration = Duration::from_secs(600);

/// What the act needs besides what the statement says, kept with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum About {
    /// An export of a run.
    Export {
        /// The run.
        run: String,
        /// Name of the folder in the run's where it waits.
        staging: String,
    },
    /// The policy of this text.
    Policy {
        /// The text.
        text: String,
    },
    /// All roles that an account is to have.
    Role {
        /// Their words, with commas between.
        roles: String,
    },
    /// A source.
    Source(Box<AskedSource>),
}

/// All statements, oldest first.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let accounts = catalog.accounts()?;
    let rows = catalog.statements()?;
    Ok(Reply::Statements(rows.iter().map(|row| shown(row, &accounts)).collect::<Result<_, _>>()?))
}

/// How many wait.
pub(crate) fn waiting(catalog: &Catalog) -> Result<u64, Failure> {
    let waits = |row: &StatementRow| row.state == "waiting" && now() < row.expires;
    Ok(catalog.statements()?.iter().filter(|row| waits(row)).count() as u64)
}

fn shown(row: &StatementRow, accounts: &[AccountRow]) -> Result<Statement, Failure> {
    let name = |id: &str| {
        let known = accounts.iter().find(|account| account.id == id);
        known.map_or_else(|| id.to_owned(), |account| account.name.clone())
    };
    let said = moat_rights::Statement::parse(&row.text).map_err(Failure::internal)?;
    let about = about(row)?;
    let what = match &about {
        About::Export { run, .. } => format!("export run {run}"),
        About::Policy { .. } => "put the configuration's policy in force".to_owned(),
        About::Role { roles } if roles.is_empty() => {
            format!("take all roles of {}", name(&said.deed.destination))
        }
        About::Source(asked) => {
            let SourceDefinition { name, kind, path, .. } = &asked.definition;
            format!("add source {name}: {kind} {path}")
        }
        About::Role { roles } => format!("give {} the roles {roles}", name(&said.deed.destination)),
    };
    let expired = row.state == "waiting" && now() >= row.expires;
    Ok(Statement {
        id: hex(&row.nonce),
        kind: row.kind.clone(),
        what,
        hash: hex(&said.deed.subject),
        bytes: said.deed.bytes,
        destination: match said.deed.kind {
            Kind::Role => name(&said.deed.destination),
            _ => said.deed.destination,
        },
        recipient: said.deed.recipient,
        requester: name(&row.requester),
        approver: row.approver.as_deref().map(name),
        created: row.created,
        expires: row.expires,
        state: if expired { "expired".to_owned() } else { row.state.clone() },
        message: row.message.clone(),
        text: row.text.clone(),
        source: match about {
            About::Source(asked) => Some(asked),
            _ => None,
        },
    })
}

fn about(row: &StatementRow) -> Result<About, Failure> {
    serde_json::from_str(&row.about)
        .map_err(|_| Failure::internal("the catalog holds a damaged statement: restore it from a backup"))
}

/// Asks for an export.
pub(crate) async fn ask_export(
    daemon: &Arc<Daemon>,
    person: &Person,
    run: &str,
    folder: String,
    recipient: Option<String>,
    proof: &Proof,
) -> Result<Reply, Failure> {
    let run = export::find(daemon, run, &PathBuf::from(&folder), recipient.as_deref())?;
    let present = blocking(|| prove(daemon, person, proof))?;
    let staging = format!("export-{}", hex(&random::<8>().map_err(Failure::internal)?));
    let staged = export::stage(daemon, &run, &staging).await;
    let asked = staged.and_then(|staged| {
        let deed = deed_of_export(&staged, folder, recipient);
        ask(daemon, &present, deed, &About::Export { run: run.name.clone(), staging: staging.clone() })
    });
    if asked.is_err() {
        export::forget(daemon, &run.name, &staging);
    }
    asked
}

fn deed_of_export(staged: &Staged, destination: String, recipient: Option<String>) -> Deed {
    Deed { kind: Kind::Export, subject: *staged.hash.as_bytes(), bytes: staged.bytes, destination, recipient }
}

/// Asks for other roles of an account.
pub(crate) fn ask_roles(
    daemon: &Daemon,
    person: &Person,
    name: &str,
    roles: &[String],
    proof: &Proof,
) -> Result<Reply, Failure> {
    let roles = accounts::parse_roles(roles)?.to_string();
    let concerned = accounts::find(&daemon.state.catalog()?, name)?;
    let present = blocking(|| prove(daemon, person, proof))?;
    ask(daemon, &present, deed_of_roles(&concerned, &roles), &About::Role { roles })
}

fn deed_of_roles(concerned: &AccountRow, roles: &str) -> Deed {
    let description = format!("account {}\nroles {roles}\n", concerned.id);
    deed_of_text(Kind::Role, &description, concerned.id.clone())
}

fn deed_of_text(kind: Kind, text: &str, destination: String) -> Deed {
    let subject = *Digest::of(text.as_bytes()).as_bytes();
    Deed { kind, subject, bytes: text.len() as u64, destination, recipient: None }
}

/// Asks that the configuration's policy be the site's.
pub(crate) fn ask_policy(daemon: &Daemon, person: &Person, proof: &Proof) -> Result<Reply, Failure> {
    let present = blocking(|| prove(daemon, person, proof))?;
    if policy::refusal(daemon)?.is_none() {
        return Err(Failure::request(
            "the configuration says the policy that was agreed to: there is nothing to ask",
        ));
    }
    let text = daemon.policy.clone();
    ask(daemon, &present, deed_of_policy(&text), &About::Policy { text })
}

/// Asks for a source in the name of whoever is present.
pub(crate) fn ask_source(daemon: &Daemon, present: &Present, asked: AskedSource) -> Result<Reply, Failure> {
    let deed = deed_of_source(&asked.definition)?;
    ask(daemon, present, deed, &About::Source(Box::new(asked)))
}

fn deed_of_source(definition: &SourceDefinition) -> Result<Deed, Failure> {
    Ok(deed_of_text(Kind::Source, &sources::text(definition)?, definition.path.clone()))
}

fn deed_of_policy(text: &str) -> Deed {
    deed_of_text(Kind::Policy, text, "policy".to_owned())
}

/// Signs a deed in the name of whoever is present, and keeps it for somebody else to agree to.
fn ask(daemon: &Daemon, present: &Present, deed: Deed, about: &About) -> Result<Reply, Failure> {
    let kind = deed.kind;
    let person = people::account(&present.row)?;
    if !moat_rights::may(person.roles, kind.request()) {
        return Err(Failure::denied(format!(
            "account {} may not: `{}` is not among what its roles allow",
            present.row.name,
            kind.request().word()
        )));
    }
    let said = moat_rights::Statement::new(deed, &present.presence, now().cast_unsigned(), LIFE);
    let said = said.map_err(Failure::request)?;
    let row = StatementRow {
        nonce: said.nonce,
        kind: match kind {
            Kind::Export => "export",
            Kind::Policy => "policy",
            Kind::Role => "role",
            Kind::Source => "source",
        }
        .to_owned(),
        text: said.to_text().map_err(Failure::request)?,
        about: serde_json::to_string(about).map_err(Failure::internal)?,
        requester: present.row.id.clone(),
        request: said.sign_request(present.seed()).map_err(Failure::internal)?,
        approver: None,
        approval: None,
        created: said.created.cast_signed(),
        expires: said.expires.cast_signed(),
        state: "waiting".to_owned(),
        message: None,
    };
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    batch.add_statement(&row)?;
    batch.commit()?;
    Ok(Reply::Statement(Box::new(shown(&row, &catalog.accounts()?)?)))
}

/// Agrees to what somebody else asked for, and does it.
pub(crate) async fn approve(
    daemon: &Arc<Daemon>,
    person: &Person,
    id: &str,
    proof: &Proof,
) -> Result<Reply, Failure> {
    // One at a time, so that none takes effect twice.
    let _turn = daemon.agreeing.lock().await;
    let row = find(&daemon.state.catalog()?, id)?;
    match row.state.as_str() {
        "waiting" => {}
        state => {
            return Err(Failure::request(format!("this request is {state}: it counts no more, ask again")));
        }
    }
    let about = about(&row)?;
    if let (About::Export { .. } | About::Source(_), Some(refusal)) = (&about, daemon.held_back()) {
        return Err(Failure::denied(refusal));
    }
    let present = blocking(|| prove(daemon, person, proof))?;
    let again = (daemon.clone(), row.clone(), about.clone());
    let agreed = tokio::task::spawn_blocking(move || {
        let (daemon, row, about) = again;
        agree(&daemon, &row, &about, &present)
    });
    let approved = agreed.await.map_err(Failure::internal)??;
    let done = match about {
        About::Export { run, staging } => {
            let done = export::release(daemon, &run, &staging, &approved).await;
            end(daemon, &row, done.as_ref().err())?;
            export::forget(daemon, &run, &staging);
            Some(done?)
        }
        About::Source(_) => {
            daemon.look_at_sources()?;
            None
        }
        About::Policy { .. } | About::Role { .. } => None,
    };
    let catalog = daemon.state.catalog()?;
    let statement = Box::new(shown(&find(&catalog, &hex(&row.nonce))?, &catalog.accounts()?)?);
    Ok(match done {
        Some((folder, files)) => {
            info!("an export of {} bytes was written", statement.bytes);
            Reply::Exported(Exported { statement, folder, files })
        }
        None => Reply::Statement(statement),
    })
}

/// Judges the statement against what is really the case, and keeps the second signature; a change of roles or of the
/// policy, and a new source, take effect in the same transaction.
fn agree(daemon: &Daemon, row: &StatementRow, about: &About, present: &Present) -> Result<Approved, Failure> {
    let catalog = daemon.state.catalog()?;
    let accounts = catalog.accounts()?;
    let gone = || Failure::internal("the catalog holds a statement of an account that is not there");
    let requester = accounts.iter().find(|account| account.id == row.requester).ok_or_else(gone)?;
    let approver = accounts.iter().find(|account| account.id == present.row.id).ok_or_else(gone)?;
    let said = moat_rights::Statement::parse(&row.text).map_err(Failure::internal)?;
    let mut concerned = None;
    // What is really about to be done, from what lies here now and not from what the statement says of it.
    let deed = match about {
        About::Export { run, staging } => {
            let staged = export::measure(daemon, run, staging)?;
            deed_of_export(&staged, said.deed.destination.clone(), said.deed.recipient.clone())
        }
        About::Policy { .. } => deed_of_policy(&daemon.policy),
        About::Source(asked) => deed_of_source(&sources::sound(daemon, &asked.definition)?)?,
        About::Role { roles } => {
            let account =
                accounts.iter().find(|account| account.id == said.deed.destination).ok_or_else(gone)?;
            concerned = Some(account.clone());
            deed_of_roles(account, roles)
        }
    };
    let approval = Approval {
        statement: row.text.clone(),
        request: row.request,
        approval: said.sign_approval(present.seed()).map_err(Failure::internal)?,
    };
    let affected = concerned.as_ref().map(people::account).transpose()?;
    let approved = approval.check(&Situation {
        deed: &deed,
        requester: &people::account(requester)?,
        approver: &people::account(approver)?,
        concerned: affected.as_ref(),
        presence: &present.presence,
        used: row.state != "waiting",
        now: now().cast_unsigned(),
    });
    let approved = approved.map_err(|refusal| Failure::denied(refusal.to_string()))?;
    let batch = catalog.write()?;
    batch.agree(&row.nonce, approved.approver(), &approval.approval)?;
    enact(&batch, daemon, row, about, concerned, &approved)?;
    batch.commit()?;
    Ok(approved)
}

/// Does what is done in the catalog alone.
fn enact(
    batch: &Batch<'_>,
    daemon: &Daemon,
    row: &StatementRow,
    about: &About,
    concerned: Option<AccountRow>,
    approved: &Approved,
) -> Result<(), Failure> {
    match about {
        About::Export { .. } => return Ok(()),
        About::Policy { .. } => policy::enact(batch, &daemon.policy, Some(row.nonce))?,
        About::Source(asked) => batch.add_source(&SourceRow {
            name: asked.definition.name.clone(),
            statement: row.nonce,
            since: now(),
            removing: false,
            definition: sources::text(&asked.definition)?,
        })?,
        About::Role { roles } => {
            let Some(mut account) = concerned else { return Ok(()) };
            account.roles.clone_from(roles);
            account.roles_by = format!("{},{}", row.requester, approved.approver());
            account.roles_since = now();
            account.statement = Some(row.nonce);
            batch.change_account(&account)?;
        }
    }
    Ok(batch.end_statement(&row.nonce, "done", None)?)
}

fn end(daemon: &Daemon, row: &StatementRow, failure: Option<&Failure>) -> Result<(), Failure> {
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    match failure {
        None => batch.end_statement(&row.nonce, "done", None)?,
        Some(failure) => batch.end_statement(&row.nonce, "failed", Some(&failure.message))?,
    }
    Ok(batch.commit()?)
}

/// Takes a request back, or refuses it: whoever asked may, and whoever could agree.
pub(crate) fn withdraw(daemon: &Daemon, person: &Person, id: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let row = find(&catalog, id)?;
    let said = moat_rights::Statement::parse(&row.text).map_err(Failure::internal)?;
    let own = person.account().ok_or_else(accounts::not_set_up)?;
    if own.id != row.requester && !moat_rights::may(people::roles(own)?, said.deed.kind.approve()) {
        return Err(Failure::denied("only whoever asked, or could agree, takes a request back".to_owned()));
    }
    if row.state != "waiting" {
        return Err(Failure::request(format!("this request is {}: it cannot be taken back", row.state)));
    }
    let batch = catalog.write()?;
    batch.end_statement(&row.nonce, "withdrawn", Some(&format!("by {}", own.name)))?;
    batch.commit()?;
    if let About::Export { run, staging } = about(&row)? {
        export::forget(daemon, &run, &staging);
    }
    let row = find(&catalog, &hex(&row.nonce))?;
    Ok(Reply::Statement(Box::new(shown(&row, &catalog.accounts()?)?)))
}

/// A statement by its id or the beginning of it.
fn find(catalog: &Catalog, id: &str) -> Result<StatementRow, Failure> {
    let mut found = catalog.statements()?;
    found.retain(|row| !id.is_empty() && hex(&row.nonce).starts_with(id));
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(row),
        (None, _) => {
            Err(Failure::request("there is no such request: `moat statement list` shows those there are"))
        }
        (Some(_), false) => Err(Failure::request("several requests begin so: give more of the id")),
    }
}

/// What the daemon's last end cut off: an export that was agreed to and not written counts no more.
pub(crate) fn sweep(daemon: &Daemon) -> Result<(), Failure> {
    for row in daemon.state.catalog()?.statements()? {
        if let About::Export { .. } = about(&row)?
            && row.state == "agreed"
        {
            let cut = Failure::request("moatd ended while it was written: ask again");
            end(daemon, &row, Some(&cut))?;
            let said = moat_rights::Statement::parse(&row.text).map_err(Failure::internal)?;
            moat_models::forget_unfinished(&PathBuf::from(said.deed.destination));
            warn!("an export that was agreed to was cut off: it has to be asked for again");
        }
    }
    give_back(daemon)
}

/// Exports that wait no more give their room back.
fn give_back(daemon: &Daemon) -> Result<(), Failure> {
    for row in daemon.state.catalog()?.statements()? {
        let waits = row.state == "agreed" || (row.state == "waiting" && now() < row.expires);
        if let About::Export { run, staging } = about(&row)?
            && !waits
        {
            export::forget(daemon, &run, &staging);
        }
    }
    Ok(())
}

/// Gives room back every so often until the daemon ends.
pub(crate) async fn expire(daemon: Arc<Daemon>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = daemon.ending() => return,
        }
        if daemon.safe().is_sealed() {
            continue;
        }
        // Who agrees at the last moment is not cut off.
        let _turn = daemon.agreeing.lock().await;
        let again = daemon.clone();
        match tokio::task::spawn_blocking(move || give_back(&again)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => warn!("expired exports keep their room: {}", failure.message),
            Err(error) => warn!("expired exports keep their room: {error}"),
        }
    }
}
