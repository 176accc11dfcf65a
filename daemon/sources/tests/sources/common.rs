//! What the tests share: a folder, a catalog, and changes applied to it as the daemon applies them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moat_catalog::{Catalog, Known};
use moat_contracts::{Digest, DocumentId, DocumentState};
use moat_sources::{Change, Folder, ScanReport, SinkClosed, SourceError};
use moat_vault::{Kek, Vault};
use tempfile::TempDir;

pub(crate) const SOURCE: &str = "files";

pub(crate) fn rules() -> Digest {
    Digest::of(b"rules")
}

/// A folder as a source, beside the catalog that knows it.
pub(crate) struct Place {
    pub(crate) data: TempDir,
    _state: TempDir,
    pub(crate) catalog: Catalog,
    pub(crate) folder: Folder,
}

impl Place {
    pub(crate) fn new() -> Self {
        let (data, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = Folder {
            name: SOURCE.to_owned(),
            root: data.path().to_owned(),
            max_bytes: 1 << 20,
            policy: "internal".to_owned(),
            settle: Duration::ZERO,
            hidden: false,
        };
        let catalog = Catalog::open(&state.path().join("catalog.db"), &vault(state.path())).unwrap();
        Self { data, _state: state, catalog, folder }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.data.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Scans, and commits each change at once.
    pub(crate) fn scan(&self) -> Result<(ScanReport, Vec<Change>), SourceError> {
        let mut changes = Vec::new();
        let report = self.folder.scan(&self.catalog, rules(), &mut |change| {
            apply(&self.catalog, rules(), &change);
            changes.push(change);
            Ok(())
        })?;
        Ok((report, changes))
    }

    /// Scans, and commits every change when the scan has ended.
    pub(crate) fn scan_then_commit(&self) -> Result<(ScanReport, Vec<Change>), SourceError> {
        let mut changes = Vec::new();
        let report = self.folder.scan(&self.catalog, rules(), &mut |change| {
            changes.push(change);
            Ok(())
        })?;
        changes.iter().for_each(|change| apply(&self.catalog, rules(), change));
        Ok((report, changes))
    }

    /// Scans some paths, and commits each change at once.
    pub(crate) fn scan_paths(&self, paths: &[&str]) -> (ScanReport, Vec<Change>) {
        let mut changes = Vec::new();
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let report = self
            .folder
            .scan_paths(&self.catalog, rules(), &paths, &mut |change| {
                apply(&self.catalog, rules(), &change);
                changes.push(change);
                Ok::<_, SinkClosed>(())
            })
            .unwrap();
        (report, changes)
    }

    pub(crate) fn known(&self, path: &str) -> Known {
        self.catalog.document_at(SOURCE, path).unwrap().unwrap()
    }

    pub(crate) fn id(&self, path: &str) -> DocumentId {
        self.known(path).document.id
    }
}

/// Commits one change as the daemon does: the document, and which rules its records were made under.
pub(crate) fn apply(catalog: &Catalog, rules: Digest, change: &Change) {
    let batch = catalog.write().unwrap();
    match change {
        Change::Arrived { known, bytes } => {
            assert_eq!((known.state, known.skip, known.rules), (DocumentState::Present, None, None));
            assert_eq!(known.document.digest, Digest::of(bytes));
            assert_eq!(known.document.size, bytes.len() as u64);
            batch.put_document(&Known { rules: Some(rules), ..known.clone() }).unwrap();
        }
        Change::Restamped { known } => {
            let before = batch.document(known.document.id).unwrap().unwrap();
            assert_eq!(before.document.digest, known.document.digest);
            batch.put_document(known).unwrap();
        }
        Change::Skipped { known } => {
            assert_eq!(known.state, DocumentState::Skipped);
            assert!(known.skip.is_some());
            batch.put_document(known).unwrap();
            batch.put_records(known.document.id, &[]).unwrap();
        }
        Change::Gone { id, .. } => batch.delete_document(*id).unwrap(),
    }
    batch.commit().unwrap();
}

/// Changes in short: a word and a path each, sorted.
pub(crate) fn brief(changes: &[Change]) -> Vec<String> {
    let mut brief: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Arrived { known, .. } => format!("arrived {}", known.document.path),
            Change::Restamped { known } => format!("restamped {}", known.document.path),
            Change::Skipped { known } => {
                format!("skipped {} {}", known.document.path, known.skip.unwrap().word())
            }
            Change::Gone { path, .. } => format!("gone {path}"),
        })
        .collect();
    brief.sort();
    brief
}

/// What the catalog has of a source: path and digest of present documents.
pub(crate) fn present(catalog: &Catalog, source: &str) -> BTreeMap<String, Digest> {
    let mut present = BTreeMap::new();
    catalog
        .each_document(source, |known| {
            if known.state == DocumentState::Present {
                let twice = present.insert(known.document.path, known.document.digest);
                assert!(twice.is_none(), "two documents at one path");
            }
            Ok(())
        })
        .unwrap();
    present
}

/// What is in a folder: path and digest of regular files, hidden ones aside.
pub(crate) fn actual(root: &Path) -> BTreeMap<String, Digest> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if entry.file_name().to_str().unwrap().starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, Digest::of(&fs::read(path).unwrap()));
            }
        }
    }
    files
}

/// Runs on a thread that may not pass over permissions, as root otherwise does.
pub(crate) fn without_privilege<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let act = move || {
        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
        let passing = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let now = capabilities(None).unwrap();
        set_capabilities(None, CapabilitySets { effective: now.effective.difference(passing), ..now })
            .unwrap();
        act()
    };
    std::thread::spawn(act).join().unwrap()
}

/// A vault of the test's own.
pub(crate) fn vault(folder: &Path) -> Arc<Vault> {
    std::fs::write(folder.join("moat-kek"), [7; 32]).unwrap();
    let kek = Kek::credential_in(folder).unwrap();
    Arc::new(Vault::create(&folder.join("vault"), &kek).unwrap())
}
