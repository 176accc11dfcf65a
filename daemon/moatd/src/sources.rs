//! The sources that are read: those that the configuration names, and those that two people added.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use moat_catalog::SourceRow;
use moat_protocol::control::{Added, SourceDefinition};
use moat_rights::hex;
use moat_settings::{Settings, SourceKind, SourceSettings};

use crate::boundary;
use crate::daemon::Daemon;
use crate::failure::Failure;

/// A source that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) settings: SourceSettings,
    /// Who brought it; nothing where the configuration names it.
    pub(crate) added: Option<Added>,
    /// Whether its documents are being deleted.
    pub(crate) removing: bool,
}

/// Those that the configuration names.
pub(crate) fn configured(settings: &Settings) -> Vec<Source> {
    let source =
        |settings: &SourceSettings| Source { settings: settings.clone(), added: None, removing: false };
    settings.source.iter().map(source).collect()
}

/// All of them. A name that stands in the configuration and was added as well is refused: nobody could tell whose documents
/// are whose.
pub(crate) fn all(daemon: &Daemon) -> Result<Vec<Source>, Failure> {
    let catalog = daemon.state.catalog()?;
    let mut all = configured(&daemon.settings);
    let rows = catalog.sources()?;
    if rows.is_empty() {
        return Ok(all);
    }
    let names: BTreeMap<_, _> = catalog.accounts()?.into_iter().map(|row| (row.id, row.name)).collect();
    let statements = catalog.statements()?;
    let lost =
        || Failure::internal("the catalog holds a source without its statement: restore it from a backup");
    for row in rows {
        let settings = settings_of(&definition(&row)?)?;
        if let Some(other) = all.iter().find(|other| other.settings.name == row.name) {
            return Err(Failure::request(format!(
                "source `{0}` is named twice: by the configuration, for {1}, and by two people, who added it for {2}: give the \
                 [[source]] of moat.toml another name, or take it out",
                row.name,
                other.settings.path.display(),
                settings.path.display()
            )));
        }
        let statement =
            statements.iter().find(|statement| statement.nonce == row.statement).ok_or_else(lost)?;
        let name = |id: &String| names.get(id).cloned().ok_or_else(lost);
        let added = Added {
            asked_by: name(&statement.requester)?,
            agreed_by: name(statement.approver.as_ref().ok_or_else(lost)?)?,
            since: row.since,
            statement: hex(&row.statement),
        };
        all.push(Source { settings, added: Some(added), removing: row.removing });
    }
    Ok(all)
}

fn definition(row: &SourceRow) -> Result<SourceDefinition, Failure> {
    serde_json::from_str(&row.definition)
        .map_err(|_| Failure::internal("the catalog holds a damaged source: restore it from a backup"))
}

/// What two people sign of a source, and the catalog keeps.
pub(crate) fn text(definition: &SourceDefinition) -> Result<String, Failure> {
    serde_json::to_string(definition).map_err(Failure::internal)
}

/// A definition as the configuration would say it.
pub(crate) fn settings_of(definition: &SourceDefinition) -> Result<SourceSettings, Failure> {
    let kind = match definition.kind.as_str() {
        "folder" => SourceKind::Folder,
        "git" => SourceKind::Git,
        _ => return Err(Failure::request("a source's kind is `folder` or `git`")),
    };
    Ok(SourceSettings {
        name: definition.name.clone(),
        kind,
        path: PathBuf::from(&definition.path),
        branch: definition.branch.clone(),
        policy: definition.policy.clone(),
        max_bytes: definition.max_bytes,
        settle_seconds: definition.settle_seconds,
        rescan_seconds: definition.rescan_seconds,
        hidden: definition.hidden,
    })
}

/// A new source by where it really lies, if it may be added beside those that there are.
pub(crate) fn sound(daemon: &Daemon, definition: &SourceDefinition) -> Result<SourceDefinition, Failure> {
    let wanted = settings_of(definition)?;
    // A relative path would be looked for below whatever folder the daemon was started in.
    if !wanted.path.is_absolute() {
        return Err(Failure::request("a source's path must be absolute, such as /srv/handbook"));
    }
    let real = ground(&daemon.settings, &wanted)?;
    let path = real
        .to_str()
        .ok_or_else(|| Failure::request("the path is no UTF-8: rename the folder, or name another one"))?;
    let wanted = SourceSettings { path: real.clone(), ..wanted };
    let others = daemon.sources();
    for other in others.iter() {
        let Source { settings: other, removing, .. } = other;
        if other.name == wanted.name {
            let how = if *removing { "is being removed" } else { "is there already" };
            return Err(Failure::request(format!("source `{}` {how}: give another name", wanted.name)));
        }
        if (&other.path, other.kind, &other.branch) == (&wanted.path, wanted.kind, &wanted.branch) {
            return Err(Failure::request(format!("source `{}` reads {path} already", other.name)));
        }
    }
    // The configuration's own rules hold, as if it stood there alone.
    let alone = Settings { source: vec![wanted], ..daemon.settings.clone() };
    let faults: Vec<_> = alone
        .faults()
        .into_iter()
        .filter_map(|fault| Some(format!("{} {}", fault.key.strip_prefix("source[0].")?, fault.message)))
        .collect();
    if !faults.is_empty() {
        return Err(Failure::request(format!("the source is not sound: {}", faults.join("; "))));
    }
    Ok(SourceDefinition { path: path.to_owned(), ..definition.clone() })
}

/// Where a source that people add really lies: in one of the folders that the configuration allows, apart from what is Moat's
/// own. So do the folders that a repository consists of. Of what lies elsewhere nothing is told, not even whether it is there.
pub(crate) fn ground(settings: &Settings, source: &SourceSettings) -> Result<PathBuf, Failure> {
    let elsewhere = |path: &Path| {
        Failure::request(format!(
            "{} lies in no folder of boundary.sources: choose one there, or have whoever keeps the box name another in the \
             configuration",
            path.display()
        ))
    };
    let allowed = allowed(settings);
    let up = source.path.components().any(|part| part == Component::ParentDir);
    let written = settings.boundary.sources.iter().chain(&allowed);
    if up || !written.into_iter().any(|folder| source.path.starts_with(folder)) {
        return Err(elsewhere(&source.path));
    }
    let real = fs::canonicalize(&source.path)
        .map_err(|error| Failure::request(format!("{} cannot be opened: {error}", source.path.display())))?;
    let parts = match source.kind {
        SourceKind::Git => parts(&real),
        SourceKind::Folder => Vec::new(),
    };
    for part in std::iter::once(&real).chain(&parts) {
        let within = |part: &PathBuf| allowed.iter().any(|folder| part.starts_with(folder));
        let Some(part) = fs::canonicalize(part).ok().filter(within) else {
            return Err(elsewhere(&source.path));
        };
        if let Some(own) =
            own(settings).into_iter().find(|own| part.starts_with(own) || own.starts_with(&part))
        {
            return Err(Failure::request(format!(
                "{} holds, or lies in, Moat's own folder {}: a source cannot be there",
                source.path.display(),
                own.display()
            )));
        }
    }
    Ok(real)
}

/// The folders that a repository consists of, each as it is written: whatever reads them follows links.
fn parts(tree: &Path) -> Vec<PathBuf> {
    let mut parts = boundary::repository(tree);
    let folders: Vec<_> = std::iter::once(tree.to_owned()).chain(parts.clone()).collect();
    let inner = |folder: &PathBuf| [".git", "objects", ".git/objects"].map(|inner| folder.join(inner));
    parts.extend(folders.iter().flat_map(inner).filter(|part| part.symlink_metadata().is_ok()));
    parts
}

/// That a source that people added still lies where they agreed that it does: what took its place would be another one.
pub(crate) fn stands(settings: &Settings, source: &SourceSettings) -> Result<(), Failure> {
    if ground(settings, source)? == source.path {
        return Ok(());
    }
    Err(Failure::request(format!(
        "source `{}`: {} leads elsewhere than when it was added: put the folder back, or remove the source",
        source.name,
        source.path.display()
    )))
}

/// The folders in which sources may be added, by where they really lie. One that is not there allows nothing.
pub(crate) fn allowed(settings: &Settings) -> Vec<PathBuf> {
    settings.boundary.sources.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect()
}

/// Folders that are Moat's own, and those that it writes to.
pub(crate) fn own(settings: &Settings) -> Vec<PathBuf> {
    let (daemon, boundary) = (&settings.daemon, &settings.boundary);
    let own = [&daemon.state, &daemon.runtime].into_iter().chain(&boundary.exports).chain(&boundary.backups);
    own.filter_map(|folder| fs::canonicalize(folder).ok()).collect()
}
