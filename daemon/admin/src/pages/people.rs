//! People and keys: accounts with their roles, who may do what, API keys.

use maud::{Markup, html};
use moat_protocol::control::{Account, ApiKey, MadeAccount, NewAccount, Reply, Request, Secret};
use moat_rights::{Act, Role, TABLE};

use super::approvals::{proof, proof_fields};
use super::boundary::typed;
use crate::Refusal;
use crate::draw::parts::{bytes, chip, table, time, words};
use crate::draw::{qr, token};
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Accounts, rights, and keys where they may be seen.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let accounts = reply_of!(visit.ask(Request::Accounts).await?, Reply::Accounts(accounts) => accounts);
    let keys = match visit.may(Act::KeyRevoke) {
        true => Some(reply_of!(visit.ask(Request::ApiKeys).await?, Reply::ApiKeys(keys) => keys)),
        false => None,
    };
    let body = html! {
        h1 { "People" }
        section aria-labelledby="accounts" { h2 #accounts { "Accounts" } (list(&accounts)) }
        @if visit.may(Act::AccountCreate) { (new_account(&visit)) }
        @if let Some(keys) = &keys { section aria-labelledby="keys" { h2 #keys { "API keys" } (key_list(&visit, keys)) } }
        @if visit.may(Act::KeyCreate) { (new_key(&visit)) }
        section aria-labelledby="rights" { h2 #rights { "Who may do what" } (rights()) }
    };
    Ok(Page::of("/people", "People", body))
}

fn list(accounts: &[Account]) -> Markup {
    table(
        "Accounts",
        &[words("Account"), words("Roles"), words("Since"), words("User of the machine"), words("State")],
        html! {
            @for account in accounts {
                tr {
                    th scope="row" { a href=(path(&["people", &account.name])) { (account.name) } }
                    td { @if account.roles.is_empty() { span.soft { "none" } } @else { (account.roles.join(", ")) } }
                    td { (time(account.roles_since)) }
                    td { @match account.uid { Some(uid) => (uid), None => span.soft { "none" } } }
                    td { @if account.enabled { (chip("good", "enabled")) } @else { (chip("quiet", "disabled")) } }
                }
            }
        },
    )
}

fn key_list(visit: &Visit, keys: &[ApiKey]) -> Markup {
    if keys.is_empty() {
        return html! { p.empty { "No API key. Tools show one to ask models or to start runs." } };
    }
    table(
        "API keys",
        &[
            words("Key"),
            words("Owner"),
            words("For"),
            words("Void from"),
            words("Served today"),
            words("Revoke"),
        ],
        html! {
            @for key in keys {
                tr {
                    th scope="row" { (key.name) " " code.soft { (key.id) } }
                    td { (key.owner) }
                    td { (key.scope.join(", ")) }
                    td { (time(key.expires)) }
                    td { @match key.cap { Some(cap) => { (bytes(key.served)) " of " (bytes(cap)) }, None => span.soft { "–" } } }
                    td {
                        @if key.revoked.is_some() { (chip("quiet", "revoked")) } @else {
                            form method="post" action={ (path(&["keys", &key.id])) "/revoke" } {
                                (token(visit.token()))
                                button.link { "Revoke" span.unseen { " " (key.name) } }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn new_key(visit: &Visit) -> Markup {
    html! {
        details.panel {
            summary { "New API key" }
            form.stack method="post" action="/keys/new" {
                (token(visit.token()))
                label for="key-name" { "What to call it" }
                input #key-name name="name" required autocomplete="off";
                fieldset {
                    legend { "What it is for" }
                    @for row in TABLE.iter().filter(|row| !row.in_person && visit.may(row.act)) {
                        label.check { input type="checkbox" name=(row.word) value="yes"; " " (row.word) " " span.soft { (row.meaning) } }
                    }
                }
                label for="days" { "Days until it is void" }
                input #days name="days" inputmode="numeric" value="30" required;
                button { "Make it" }
            }
        }
    }
}

fn new_account(visit: &Visit) -> Markup {
    html! {
        details.panel {
            summary { "New account" }
            form.stack method="post" action="/people/new" {
                (token(visit.token()))
                p { "It has no role at first: an admin asks for its roles, and an approver agrees." }
                label for="account-name" { "Name" }
                input #account-name name="name" required autocomplete="off" autocapitalize="off" spellcheck="false"
                    pattern="[a-z][a-z0-9._\\-]*" maxlength="64" aria-describedby="account-name-help";
                p.soft #account-name-help { "Letters a to z, digits, dots and dashes, a letter first." }
                label for="uid" { "User of the machine " span.soft { "(optional)" } }
                input #uid name="uid" inputmode="numeric" pattern="[0-9]*" autocomplete="off" aria-describedby="uid-help";
                p.soft #uid-help { "The number of the user who is the same person at the command line." }
                (new_password("new"))
                button { "Make it" }
            }
        }
    }
}

/// The fields of a new password.
pub(super) fn new_password(of: &str) -> Markup {
    html! {
        label for={ (of) "-password" } { "First password" }
        input id={ (of) "-password" } type="password" name="password" required autocomplete="new-password";
        label for={ (of) "-again" } { "Once more" }
        input id={ (of) "-again" } type="password" name="again" required autocomplete="new-password";
    }
}

/// The password that was typed twice.
pub(super) fn chosen(visit: &Visit) -> Result<Secret, Refusal> {
    let password = visit.form.get("password").filter(|text| !text.is_empty());
    let password = password.ok_or_else(|| Refusal::request("no password was given"))?;
    if visit.form.get("again") != Some(password) {
        return Err(Refusal::request("the two passwords differ, so nothing was done"));
    }
    Ok(Secret(password.to_owned()))
}

/// Makes an account, and shows the secret of its codes this once.
pub(crate) async fn make(visit: Visit) -> Result<Outcome, Refusal> {
    let Some(name) = visit.form.word("name").map(ToOwned::to_owned) else {
        return Err(Refusal::request("the account has no name"));
    };
    let uid = visit.form.word("uid").map(str::parse).transpose();
    let uid = uid.map_err(|_| Refusal::request("a user of the machine is a number"))?;
    let account = NewAccount { name, uid, roles: Vec::new(), password: chosen(&visit)? };
    let made = reply_of!(visit.ask(Request::AccountCreate { account }).await?, Reply::Made(made) => made);
    shown_once(&made)
}

/// Gives an account new credentials, and shows the secret of its codes this once.
pub(crate) async fn reset(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    typed(&visit, &name)?;
    let request = Request::AccountReset { name, password: chosen(&visit)? };
    let made = reply_of!(visit.ask(request).await?, Reply::Made(made) => made);
    shown_once(&made)
}

fn shown_once(made: &[MadeAccount]) -> Result<Outcome, Refusal> {
    let [MadeAccount { name, uri }] = made else {
        return Err(Refusal::request("no account was made"));
    };
    let title = format!("The codes of {name}");
    let body = html! {
        p.trail { a href="/people" { "People" } " / " a href=(path(&["people", name])) { (name) } }
        h1 { (title) }
        p { "Their device needs this secret to show codes. It is shown this once, and kept nowhere in the open: have "
            strong { (name) } " scan it now, or type it into an authenticator app (SHA-1, six digits, 30 seconds)." }
        (secret_of(name, uri))
    };
    Ok(Page::of("/people", title, body))
}

/// The secret of an account's codes, to scan or to type.
pub(super) fn secret_of(name: &str, uri: &Secret) -> Markup {
    let secret = uri.0.split(['?', '&']).find_map(|part| part.strip_prefix("secret=")).unwrap_or_default();
    html! {
        div.columns {
            section.panel aria-labelledby="scan" { h2 #scan { "Scan" }
                @match qr::code(&uri.0, &format!("QR code with the secret of {name}")) {
                    Some(code) => (code),
                    None => p.soft { "The secret is too long for a code to scan: type it." },
                }
            }
            section.panel aria-labelledby="type" {
                h2 #type { "Or type" }
                pre { code #secret { (grouped(secret)) } }
                details { summary { "The whole address" } pre { code { (uri.0) } } }
            }
        }
    }
}

/// A secret in groups of four letters, as people read it to each other.
fn grouped(secret: &str) -> String {
    let mut text = String::with_capacity(secret.len() * 5 / 4 + 1);
    for (at, letter) in secret.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            text.push(' ');
        }
        text.push(letter);
    }
    text
}

/// The table of rights.
pub(crate) fn rights() -> Markup {
    html! {
        div.scroll role="group" aria-label="Who may do what" tabindex="0" {
            table.rights {
                caption.unseen { "Who may do what" }
                thead { tr { th scope="col" { "Act" } @for role in Role::ALL { th scope="col" { (role.word()) } } th scope="col" { "By key" } } }
                tbody {
                    @for row in TABLE {
                        tr {
                            th scope="row" { (row.meaning.trim_end_matches('.')) " " code.soft { (row.word) } }
                            @for role in Role::ALL { td { @if row.roles.contains(&role) { "yes" } @else { span.soft { "–" } } } }
                            td { @if row.in_person { span.soft { "–" } } @else { "yes" } }
                        }
                    }
                }
            }
        }
    }
}

/// Makes an API key, and shows it this once.
pub(crate) async fn make_key(visit: Visit) -> Result<Outcome, Refusal> {
    let Some(name) = visit.form.word("name").map(ToOwned::to_owned) else {
        return Err(Refusal::request("the key has no name"));
    };
    let days = visit.form.word("days").and_then(|text| text.parse().ok());
    let days = days.ok_or_else(|| Refusal::request("the days are no number"))?;
    let scope = TABLE.iter().filter(|row| visit.form.get(row.word).is_some()).map(|row| row.word.to_owned());
    let request = Request::ApiKeyCreate { name, scope: scope.collect(), days };
    let key = reply_of!(visit.ask(request).await?, Reply::ApiKey(key) => key);
    let body = html! {
        p.trail { a href="/people" { "People" } }
        h1 { "The new API key" }
        p { "It is shown this once, and kept nowhere in the open." }
        pre { code { (key.0) } }
    };
    Ok(Page::of("/people", "The new API key", body))
}

/// Revokes an API key.
pub(crate) async fn revoke_key(visit: Visit) -> Result<Outcome, Refusal> {
    visit.ask(Request::ApiKeyRevoke { id: visit.segments[0].clone() }).await?;
    Ok(visit.done("/people".to_owned(), "The key is revoked.".to_owned()))
}

/// One account.
pub(crate) async fn one(visit: Visit) -> Result<Outcome, Refusal> {
    let accounts = reply_of!(visit.ask(Request::Accounts).await?, Reply::Accounts(accounts) => accounts);
    let Some(account) = accounts.into_iter().find(|account| account.name == visit.segments[0]) else {
        return Err(Refusal::request("there is no such account"));
    };
    let at = path(&["people", &account.name]);
    let body = html! {
        p.trail { a href="/people" { "People" } }
        h1 { (account.name) }
        (list(std::slice::from_ref(&account)))
        @if account.enabled && visit.may(Act::RoleRequest) {
            section.panel aria-labelledby="roles" {
                h2 #roles { "Ask for other roles" }
                form.stack method="post" action={ (at) "/roles" } {
                    (token(visit.token()))
                    fieldset {
                        legend { "All roles that the account is to have" }
                        @for role in Role::ALL {
                            label.check { input type="checkbox" name=(role.word()) value="yes"
                                checked[account.roles.iter().any(|word| word == role.word())]; " " (role.word()) }
                        }
                    }
                    (proof_fields("roles"))
                    button { "Ask for them" }
                }
            }
        }
        @if account.enabled && visit.may(Act::AccountReset) {
            details.danger {
                summary { "Give this account a new password and new codes" }
                form.stack method="post" action={ (at) "/reset" } {
                    (token(visit.token()))
                    p { "It is signed out everywhere, and its old password and device count no more. It may not approve what you ask for." }
                    (new_password("reset"))
                    label for="reset-typed" { "Type " code { (account.name) } " to do it" }
                    input #reset-typed name="typed" required autocomplete="off" autocapitalize="off" spellcheck="false";
                    button.bad { "Give new ones" }
                }
            }
        }
        @if account.enabled && visit.may(Act::AccountDisable) {
            details.danger {
                summary { "Disable this account for good" }
                form.stack method="post" action={ (at) "/disable" } {
                    (token(visit.token()))
                    p { "It is signed out everywhere, its keys are void, and its name is never given again." }
                    label for="typed" { "Type " code { (account.name) } " to do it" }
                    input #typed name="typed" required autocomplete="off" autocapitalize="off" spellcheck="false";
                    button.bad { "Disable" }
                }
            }
        }
    };
    Ok(Page::of("/people", account.name.clone(), body))
}

/// Asks for other roles of an account.
pub(crate) async fn ask_roles(visit: Visit) -> Result<Outcome, Refusal> {
    let roles = Role::ALL.iter().filter(|role| visit.form.get(role.word()).is_some());
    let roles = roles.map(|role| role.word().to_owned()).collect();
    let request = Request::AccountRoles { name: visit.segments[0].clone(), roles, proof: proof(&visit) };
    let statement = reply_of!(visit.ask(request).await?, Reply::Statement(statement) => statement);
    Ok(visit
        .done(path(&["approvals", &statement.id]), "It is asked for, and waits for an approver.".to_owned()))
}

/// Disables an account.
pub(crate) async fn disable(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    typed(&visit, &name)?;
    visit.ask(Request::AccountDisable { name: name.clone() }).await?;
    Ok(visit.done("/people".to_owned(), format!("Account {name} is disabled.")))
}
