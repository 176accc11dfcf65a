//! What each verb asks of moatd.

use std::io::{IsTerminal, Read};
use std::path::{Component, Path};

use moat_contracts::Recipe;
use moat_protocol::control::{
    Judgement, Key, NewAccount, NewSlot, Proof, RecordFilter, Request, SourceDefinition,
};
use moat_settings::{SourceKind, SourceSettings};

use crate::args::{
    self, Account, ApiKey, Base, Dataset, Ledger, NewSource, Policy, Record, Review, Run, Source, Statement,
    Sweep, Vault, Verb,
};
use crate::exit::{Exit, Failure};
use crate::secret;

/// The request for a verb; `None` for one that needs no moatd. Reads recipes and the prompt.
pub(crate) fn request(verb: &Verb) -> Result<Option<Request>, Failure> {
    let request = match verb {
        Verb::Check(_) | Verb::Verify { .. } | Verb::Restore { .. } | Verb::Bundle(_) => return Ok(None),
        Verb::Ledger(Ledger::Verify { .. } | Ledger::CheckReceipt { .. }) => return Ok(None),
        Verb::Status => Request::Status,
        Verb::Api => Request::Api,
        Verb::Scan => Request::Scan,
        Verb::Source(verb) => sources(verb)?,
        Verb::Why { path } => Request::Why { path: document(path)?.0 },
        Verb::Dataset(Dataset::Build { recipe }) => Request::DatasetBuild { recipe: read(recipe)? },
        Verb::Dataset(Dataset::List) => Request::Datasets,
        Verb::Dataset(Dataset::Show { id }) => Request::Dataset { id: id.clone() },
        Verb::Dataset(Dataset::Diff { a, b }) => Request::DatasetDiff { a: a.clone(), b: b.clone() },
        Verb::Dataset(Dataset::Facts { id }) => Request::DatasetFacts { id: id.clone() },
        Verb::Record(Record::Search { words, source, verdict, kind, rule, language, most, after }) => {
            Request::RecordSearch {
                words: if words.as_slice() == ["-"] { typed("words", "-")? } else { words.join(" ") },
                filter: RecordFilter {
                    source: source.clone(),
                    verdict: verdict.clone(),
                    kind: kind.clone(),
                    rule: rule.clone(),
                    language: language.clone(),
                },
                most: *most,
                after: *after,
                patience: None,
            }
        }
        Verb::Record(Record::Show { id }) => Request::Record { id: id.clone() },
        Verb::Review(Review::List { most }) => Request::Reviews { after: None, most: *most },
        Verb::Review(Review::Keep { id }) => Request::Review { id: id.clone(), judgement: Judgement::Keep },
        Verb::Review(Review::Drop { id }) => Request::Review { id: id.clone(), judgement: Judgement::Drop },
        Verb::Review(Review::Undo { id }) => Request::Review { id: id.clone(), judgement: Judgement::Undo },
        Verb::Try { rules, most, seed } => {
            let changes = moat_settings::load_curation(rules)
                .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            Request::Tryout { changes, most: *most, seed: *seed }
        }
        Verb::Base(Base::Import { folder, name }) => {
            Request::BaseImport { folder: absolute(folder)?, name: name.clone() }
        }
        Verb::Base(Base::List) => Request::Bases,
        Verb::Run(Run::Start { recipe, .. }) => Request::RunStart { recipe: read(recipe)? },
        Verb::Run(Run::Preview { recipe }) => Request::RunPreview { recipe: read(recipe)? },
        Verb::Run(Run::Plan { recipe }) => Request::RunPlan { recipe: read(recipe)? },
        Verb::Run(Run::Compare { names }) => Request::RunCompare { names: names.clone() },
        Verb::Sweep(Sweep::Start { recipe }) => {
            let sweep = moat_settings::load_sweep(recipe);
            let sweep = sweep.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            Request::SweepStart { sweep: Box::new(sweep) }
        }
        Verb::Sweep(Sweep::List) => Request::Sweeps,
        Verb::Sweep(Sweep::Show { name }) => Request::Sweep { name: name.clone() },
        Verb::Sweep(Sweep::Watch { name }) => Request::SweepWatch { name: name.clone() },
        Verb::Sweep(Sweep::Stop { name }) => Request::SweepStop { name: name.clone() },
        Verb::Sweep(Sweep::Resume { name }) => Request::SweepResume { name: name.clone() },
        Verb::Run(Run::List) => Request::Runs,
        Verb::Run(Run::Show { name }) => Request::Run { name: name.clone() },
        Verb::Run(Run::Steps { name, after, most }) => {
            Request::RunSteps { name: name.clone(), after: *after, most: *most }
        }
        Verb::Run(Run::Watch { name }) => Request::RunWatch { name: name.clone() },
        Verb::Run(Run::Card { name }) => Request::RunCard { name: name.clone() },
        Verb::Run(Run::Sample { name, number, max_tokens }) => {
            Request::RunSample { name: name.clone(), number: Some(*number), tokens: Some(*max_tokens) }
        }
        Verb::Run(Run::Stop { name }) => Request::RunStop { name: name.clone() },
        Verb::Run(Run::Resume { name, .. }) => Request::RunResume { name: name.clone() },
        Verb::Export { run, folder, to, proof } => Request::Export {
            run: run.clone(),
            folder: absolute(folder)?,
            recipient: to.clone(),
            proof: shown(proof)?,
        },
        Verb::Statement(Statement::List) => Request::Statements,
        Verb::Statement(Statement::Approve { id, proof }) => {
            Request::Approve { id: id.clone(), proof: shown(proof)? }
        }
        Verb::Statement(Statement::Withdraw { id }) => Request::Withdraw { id: id.clone() },
        Verb::Account(account) => accounts(account)?,
        Verb::Key(ApiKey::Create { name, acts, days }) => {
            Request::ApiKeyCreate { name: name.clone(), scope: args::words(acts), days: *days }
        }
        Verb::Key(ApiKey::List) => Request::ApiKeys,
        Verb::Key(ApiKey::Revoke { id }) => Request::ApiKeyRevoke { id: id.clone() },
        Verb::Policy(Policy::Request { proof }) => Request::PolicyRequest { proof: shown(proof)? },
        Verb::Ask(ask) => Request::Ask {
            run: ask.run.clone(),
            prompt: typed("prompt", &ask.prompt)?,
            chat: ask.chat,
            sampling: ask.sampling(),
        },
        Verb::Vault(Vault::Init(new)) => Request::VaultInit { with: slot(new)? },
        Verb::Vault(Vault::Unseal { share: true }) => {
            Request::VaultUnseal { with: Key::Share(secret::ask("share")?) }
        }
        Verb::Vault(Vault::Unseal { share: false }) => {
            Request::VaultUnseal { with: Key::Passphrase(secret::ask("passphrase")?) }
        }
        Verb::Vault(Vault::Seal) => Request::VaultSeal,
        Verb::Vault(Vault::Show) => Request::Status,
        Verb::Vault(Vault::AddSlot(new)) => Request::VaultSlotAdd { with: slot(new)? },
        Verb::Vault(Vault::RemoveSlot { slot }) => Request::VaultSlotRemove { id: *slot },
        Verb::Vault(Vault::Rotate) => Request::VaultRotate,
        Verb::Ledger(Ledger::List { act, before, most }) => {
            Request::Ledger { act: act.clone(), before: *before, most: *most }
        }
        Verb::Ledger(Ledger::Receipt { entry }) => Request::LedgerReceipt { index: *entry },
        Verb::Backup { folder } => Request::Backup { folder: absolute(folder)? },
        Verb::Shutdown => Request::Shutdown,
    };
    Ok(Some(request))
}

fn sources(verb: &Source) -> Result<Request, Failure> {
    Ok(match verb.clone() {
        Source::List { source: None, .. } => Request::Sources,
        Source::List { source: Some(source), folder, after } => Request::SourceList { source, folder, after },
        Source::Test { source } => Request::SourceTest { source },
        Source::Faults { source, after } => Request::SourceFaults { source, after },
        Source::Pause { source } => Request::SourcePause { source },
        Source::Resume { source } => Request::SourceResume { source },
        Source::Folders { folder, after } => {
            let folder = folder.as_deref().map(absolute).transpose()?.unwrap_or_default();
            Request::SourceFolders { folder, after }
        }
        Source::Try(source) => Request::SourceTry { definition: definition(&source)? },
        Source::Add { source, proof } => {
            Request::SourceAdd { definition: definition(&source)?, proof: shown(&proof)? }
        }
        Source::Remove { source } => Request::SourceRemove { source },
    })
}

/// A source, whole: what is not said is what the configuration takes where it does not say.
fn definition(new: &NewSource) -> Result<Box<SourceDefinition>, Failure> {
    let kind = match new.kind {
        args::Kind::Folder => SourceKind::Folder,
        args::Kind::Git => SourceKind::Git,
    };
    let default = SourceSettings::default();
    Ok(Box::new(SourceDefinition {
        name: new.name.clone(),
        kind: kind.word().to_owned(),
        path: absolute(&new.path)?,
        branch: new.branch.clone(),
        policy: new.policy.clone().unwrap_or(default.policy),
        max_bytes: new.max_bytes.unwrap_or(default.max_bytes),
        settle_seconds: new.settle.unwrap_or(default.settle_seconds),
        rescan_seconds: new.rescan.unwrap_or(default.rescan_seconds),
        hidden: new.hidden,
    }))
}

fn accounts(verb: &Account) -> Result<Request, Failure> {
    Ok(match verb {
        Account::SetUp { accounts } => {
            let new = accounts.iter().map(|planned| {
                let what = format!("password of {}", planned.name);
                Ok(NewAccount {
                    name: planned.name.clone(),
                    uid: planned.uid,
                    roles: planned.roles.clone(),
                    password: secret::ask_new(&what)?,
                })
            });
            Request::SetUp { accounts: new.collect::<Result<_, Failure>>()? }
        }
        Account::Invite => Request::Invite,
        Account::List => Request::Accounts,
        Account::Create { name, uid } => {
            let password = secret::ask_new(&format!("password of {name}"))?;
            let account = NewAccount { name: name.clone(), uid: *uid, roles: Vec::new(), password };
            Request::AccountCreate { account }
        }
        Account::Roles { name, roles, proof } => {
            Request::AccountRoles { name: name.clone(), roles: args::words(roles), proof: shown(proof)? }
        }
        Account::Disable { name } => Request::AccountDisable { name: name.clone() },
        Account::Reset { name } => Request::AccountReset {
            name: name.clone(),
            password: secret::ask_new(&format!("password of {name}"))?,
        },
    })
}

/// Password and code, asked for.
fn shown(proof: &args::Proof) -> Result<Proof, Failure> {
    let whose = proof.account.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    Ok(Proof {
        name: proof.account.clone(),
        password: secret::ask(&format!("password{whose}"))?,
        code: secret::ask(&format!("code{whose}"))?,
    })
}

fn slot(new: &args::NewSlot) -> Result<NewSlot, Failure> {
    Ok(match (new.credential, new.shares) {
        (true, _) => NewSlot::Credential,
        (false, Some((needed, of))) => NewSlot::Shares { needed, of },
        (false, None) => NewSlot::Passphrase(secret::ask_new("passphrase")?),
    })
}

fn read(recipe: &Path) -> Result<Box<Recipe>, Failure> {
    moat_settings::load_recipe(recipe)
        .map(Box::new)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// What was given, or what standard input holds where that is `-`.
fn typed(what: &str, given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        crate::output::notice(&format!("type the {what}, then Ctrl-D\n"));
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Usage, format!("the {what} on standard input cannot be read as UTF-8: {error}"))
    })?;
    Ok(text)
}

/// moatd has another working folder: what is sent must not depend on ours.
fn absolute(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{} is no path: {error}", path.display())))?;
    text(&whole)
}

/// What to ask where moatd knows nothing of the first request: a document's path, read the other way.
pub(crate) fn second(verb: &Verb) -> Result<Option<Request>, Failure> {
    let Verb::Why { path } = verb else { return Ok(None) };
    Ok(document(path)?.1.map(|path| Request::Why { path }))
}

/// A path on this machine, or a path in a source: the likelier one, and the other where it can be meant. A document
/// that is gone is on this machine no more, so what lies here cannot decide alone.
fn document(path: &Path) -> Result<(String, Option<String>), Failure> {
    // Sources name files without `..`; only where it is written does it need to be resolved.
    let whole = match path.canonicalize() {
        Ok(whole) if path.components().any(|part| part == Component::ParentDir) => text(&whole)?,
        _ => absolute(path)?,
    };
    if path.is_absolute() || path.starts_with(".") || path.starts_with("..") {
        return Ok((whole, None));
    }
    let inner = text(path)?;
    let here = path.symlink_metadata().is_ok();
    Ok(if here { (whole, Some(inner)) } else { (inner, Some(whole)) })
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} is no UTF-8: give another path", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use moat_protocol::control::Request;

    use super::{document, request};
    use crate::args::Arguments;

    fn of(line: &[&str]) -> Request {
        let words = std::iter::once("moat").chain(line.iter().copied());
        request(&Arguments::try_parse_from(words).unwrap().verb).unwrap().unwrap()
    }

    #[test]
    fn folders_are_sent_whole() {
        let here = std::env::current_dir().unwrap().display().to_string();
        let folder = format!("{here}/out");
        assert_eq!(of(&["base", "import", "./out"]), Request::BaseImport { folder, name: None });
        assert_eq!(of(&["base", "import", "."]), Request::BaseImport { folder: here, name: None });
    }

    #[test]
    fn a_new_source_is_sent_whole() {
        let Request::SourceTry { definition } = of(&["source", "try", "book", "book", "--max-bytes", "9"])
        else {
            panic!()
        };
        let here = std::env::current_dir().unwrap().join("book").display().to_string();
        assert_eq!((definition.name.as_str(), definition.path), ("book", here));
        assert_eq!((definition.kind.as_str(), definition.policy.as_str()), ("folder", "internal"));
        assert_eq!((definition.max_bytes, definition.settle_seconds, definition.rescan_seconds), (9, 2, 300));
        let Request::SourceTry { definition } = of(&["source", "try", "code", "/c", "--kind", "git"]) else {
            panic!()
        };
        assert_eq!((definition.kind.as_str(), definition.path.as_str()), ("git", "/c"));
    }

    #[test]
    fn a_path_is_read_both_ways_where_both_can_be_meant() {
        let here = std::env::current_dir().unwrap();
        let whole = |name: &str| here.join(name).display().to_string();
        let read = |path: &str| document(Path::new(path)).unwrap();
        assert_eq!(read("guide/gone.md"), ("guide/gone.md".to_owned(), Some(whole("guide/gone.md"))));
        assert_eq!(read("Cargo.toml"), (whole("Cargo.toml"), Some("Cargo.toml".to_owned())));
        assert_eq!(read("./gone.md"), (whole("gone.md"), None));
        let name = here.file_name().unwrap().to_str().unwrap();
        let resolved = here.canonicalize().unwrap().join("Cargo.toml").display().to_string();
        assert_eq!(read(&format!("../{name}/Cargo.toml")), (resolved, None));
    }
}
