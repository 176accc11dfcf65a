use moat_protocol::control::{Account, ApiKey, Enlisted, Guest, Invitation, MadeAccount, Secret, Statement};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean};
use super::{Tone, View};

/// New accounts with the secrets of their codes, once.
pub(super) fn made(view: &View, made: &[MadeAccount]) -> String {
    let mut page = String::new();
    for account in made {
        let name = view.paint(Tone::Strong, &clean(&account.name));
        page.push_str(&format!("{name}\n{}\n\n", clean(&account.uri.0)));
    }
    page.push_str(
        "Each line is shown this once. Its owner adds it to an authenticator app, which then shows a new code every 30 \
         seconds.\n",
    );
    page
}

/// An invitation, once.
pub(super) fn invitation(view: &View, made: &Invitation) -> String {
    format!(
        "{}\nIt is shown this once and counts until {}. Give it to the two people who make the first accounts: each types it\n\
         at the page /set-up of the admin port, with a name and a password of their own.\n",
        view.paint(Tone::Strong, &clean(&made.code.0)),
        view.time(made.until)
    )
}

/// How far the first accounts have come.
pub(super) fn enlisted(view: &View, found: &Enlisted) -> String {
    let row = |guest: &Guest| {
        let state = if guest.ready { Cell::toned("ready", Tone::Good) } else { Cell::from("not confirmed") };
        vec![Cell::from(clean(&guest.name)), clean(&guest.roles.join(", ")).into(), state]
    };
    let rows: Vec<_> = found.guests.iter().map(row).collect();
    let end = found.missing.as_ref().map_or_else(|| "the accounts are made".to_owned(), |what| clean(what));
    format!("{}{end}\n", table(view, &["account", "roles", ""], &rows))
}

/// A list of accounts.
pub(super) fn accounts(view: &View, accounts: &[Account]) -> String {
    if accounts.is_empty() {
        return "no accounts: whoever keeps the box may do everything but export; `moat account set-up` makes the first\n"
            .to_owned();
    }
    let row = |account: &Account| {
        let state = if account.enabled { Cell::from("") } else { Cell::toned("disabled", Tone::Bad) };
        vec![
            Cell::from(clean(&account.name)),
            account.uid.map(|uid| uid.to_string()).unwrap_or_default().into(),
            if account.roles.is_empty() { "none".into() } else { clean(&account.roles.join(", ")).into() },
            view.time(account.roles_since).into(),
            state,
        ]
    };
    let rows: Vec<_> = accounts.iter().map(row).collect();
    table(view, &["account", ">user", "roles", "since", ""], &rows)
}

/// One statement, whole: what its reader is asked to agree to.
pub(super) fn statement(view: &View, said: &Statement) -> String {
    let next = match said.state.as_str() {
        "waiting" => format!(
            "\nSomebody else agrees with `moat statement approve {}`, until {}.\n",
            short(&said.id),
            view.time(said.expires)
        ),
        _ => String::new(),
    };
    let facts = pairs(
        view,
        &[
            ("statement", view.paint(Tone::Strong, &clean(&said.id))),
            ("what", clean(&said.what)),
            ("to", clean(&said.destination)),
            ("encrypted to", said.recipient.as_deref().map(clean).unwrap_or_default()),
            ("sha256", clean(&said.hash)),
            ("size", bytes(said.bytes)),
            ("asked by", format!("{}, {}", clean(&said.requester), view.time(said.created))),
            ("agreed by", said.approver.as_deref().map(clean).unwrap_or_default()),
            ("state", state(view, said)),
            ("reason", said.message.as_deref().map(clean).unwrap_or_default()),
        ],
    );
    let source = said.source.as_ref().map(|asked| super::source::asked(view, asked)).unwrap_or_default();
    facts + &source + &next
}

/// All statements.
pub(super) fn statements(view: &View, statements: &[Statement]) -> String {
    if statements.is_empty() {
        return "nothing took two people yet\n".to_owned();
    }
    let row = |said: &Statement| {
        vec![
            Cell::from(short(&said.id)),
            clean(&said.what).into(),
            clean(&said.destination).into(),
            bytes(said.bytes).into(),
            clean(&said.requester).into(),
            said.approver.as_deref().map(clean).unwrap_or_default().into(),
            Cell::from(view.time(said.created)),
            Cell::toned(clean(&said.state), tone(said)),
        ]
    };
    let rows: Vec<_> = statements.iter().map(row).collect();
    table(view, &["statement", "what", "to", ">size", "asked by", "agreed by", "asked", "state"], &rows)
}

fn state(view: &View, said: &Statement) -> String {
    view.paint(tone(said), &clean(&said.state))
}

fn tone(said: &Statement) -> Tone {
    match said.state.as_str() {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        "waiting" => Tone::Strong,
        _ => Tone::Faint,
    }
}

fn short(id: &str) -> String {
    clean(&id.chars().take(8).collect::<String>())
}

/// A new key, once.
pub(super) fn key(view: &View, key: &Secret) -> String {
    let key = view.paint(Tone::Strong, &clean(&key.0));
    format!("{key}\nIt is shown this once. Tools send it as `Authorization: Bearer KEY`.\n")
}

/// All keys.
pub(super) fn keys(view: &View, keys: &[ApiKey]) -> String {
    if keys.is_empty() {
        return "no API keys: `moat key create NAME --for ACTS` makes one\n".to_owned();
    }
    let row = |key: &ApiKey| {
        let served = match key.cap {
            Some(cap) => format!("{} of {}", bytes(key.served), bytes(cap)),
            None => String::new(),
        };
        let state = match key.revoked {
            Some(at) => Cell::toned(format!("revoked {}", view.time(at)), Tone::Bad),
            None => Cell::from(format!("until {}", view.time(key.expires))),
        };
        vec![
            Cell::from(clean(&key.id)),
            clean(&key.name).into(),
            clean(&key.owner).into(),
            clean(&key.scope.join(", ")).into(),
            served.into(),
            state,
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    table(view, &["key", "name", "of", "for", ">served today", "counts"], &rows)
}
