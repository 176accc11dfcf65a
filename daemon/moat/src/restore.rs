//! `moat restore`: a backup into an empty state folder, without moatd, which must not run on it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use moat_contracts::Digest;
use rustix::fs::{Gid, Uid, chown};

use crate::exit::{Exit, Failure};
use crate::output::{Output, notice};
use crate::render::text::{clean, counted};
use crate::verify;

/// While this file is there moatd does not start on the folder.
const RESTORING: &str = "restoring";
/// Tells moatd at its first start, which writes it into the ledger.
const RESTORED: &str = "restored";

/// Checks a backup whole, and then copies it.
pub(crate) fn restore(output: &Output, backup: &Path, state: &Path) -> Result<Exit, Failure> {
    let failed = |message: String| Failure::new(Exit::Request, message);
    let (files, deviations) = verify::compare(backup)?;
    for deviation in &deviations {
        let file = clean(&deviation.file);
        notice(&format!("{}/{file}: {}\n", clean(&backup.display().to_string()), deviation.message));
    }
    if !deviations.is_empty() {
        return Err(failed(format!("{} is not as it was backed up: take another one", backup.display())));
    }
    let unread =
        |path: &Path, error: io::Error| failed(format!("{} cannot be read: {error}", path.display()));
    let sums = backup.join(verify::SUMS);
    let listed = fs::read(&sums).map_err(|error| unread(&sums, error))?;
    for needed in ["catalog.db", "vault/root"] {
        if !backup.join(needed).is_file() {
            return Err(failed(format!("{} is no backup of Moat's: it has no {needed}", backup.display())));
        }
    }
    if !is_empty(state).map_err(|error| unread(state, error))? {
        return Err(failed(format!(
            "{} is not empty: move what is there away first, so that nothing is mixed",
            state.display()
        )));
    }
    let written = copy(backup, state, &Digest::of(&listed));
    written.map_err(|error| {
        failed(format!("{} cannot be written: {error}; empty it, and restore again", state.display()))
    })?;
    if output.json {
        let value = serde_json::json!({ "backup": backup, "state": state, "files": files });
        output.line(&serde_json::json!({ "reply": "restored", "value": value }))?;
    } else {
        let state = clean(&state.display().to_string());
        output.page(&format!(
            "{state}: {} restored. moatd opens it with what opened the vault then; the ledger will tell.\n",
            counted(files, "file")
        ))?;
    }
    Ok(Exit::Done)
}

/// Whether a folder is not there, or holds nothing but empty folders.
fn is_empty(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !is_empty(&entry.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(backup: &Path, state: &Path, name: &Digest) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let facts = fs::metadata(state)?;
    let owner = Owner { uid: facts.uid(), gid: facts.gid() };
    let marker = state.join(RESTORING);
    owner.write(&mut &b""[..], &marker)?;
    sync(state)?;
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(backup.join(&folder))? {
            let entry = entry?;
            let inner = folder.join(entry.file_name());
            let to = state.join(&inner);
            if entry.file_type()?.is_dir() {
                owner.folder(&to)?;
                left.push(inner);
            } else if inner != Path::new(verify::SUMS) {
                owner.write(&mut File::open(entry.path())?, &to)?;
            }
        }
        sync(&state.join(&folder))?;
    }
    owner.write(&mut format!("{name}\n").as_bytes(), &state.join(RESTORED))?;
    sync(state)?;
    fs::remove_file(marker)?;
    sync(state)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whom the state folder belongs to: what is restored into it is theirs.
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn own(&self, path: &Path) -> io::Result<()> {
        let facts = fs::metadata(path)?;
        if (facts.uid(), facts.gid()) == (self.uid, self.gid) {
            return Ok(());
        }
        Ok(chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o770).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| self.own(path)),
        }
    }

    fn write(&self, from: &mut impl io::Read, path: &Path) -> io::Result<()> {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o660).open(path)?;
        io::copy(from, &mut to)?;
        to.sync_all()?;
        self.own(path)
    }
}
