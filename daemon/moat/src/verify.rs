//! `moat verify`: an exported folder against its SHA256SUMS (the format of coreutils' sha256sum), without moatd.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use moat_contracts::Digest;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Output, notice};
use crate::render::text::{clean, counted};

/// The file of sums.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// A file that is not as the sums say.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Deviation {
    pub(crate) file: String,
    pub(crate) message: String,
}

/// Checks every file that the sums name, and that there is no other.
pub(crate) fn verify(output: &Output, folder: &Path) -> Result<Exit, Failure> {
    let (files, deviations) = compare(folder)?;
    let shown = clean(&folder.display().to_string());
    if output.json {
        let value = serde_json::json!({ "folder": folder, "files": files, "deviations": deviations });
        output.line(&serde_json::json!({ "reply": "verified", "value": value }))?;
    } else if deviations.is_empty() {
        output.page(&format!("{shown}: sound, {} as exported\n", counted(files, "file")))?;
    } else {
        for deviation in &deviations {
            notice(&format!("{shown}/{}: {}\n", clean(&deviation.file), deviation.message));
        }
        notice(&format!("{shown} is not as exported: export it again, and do not use this copy\n"));
    }
    Ok(if deviations.is_empty() { Exit::Done } else { Exit::Request })
}

/// How many files the sums name, and which deviate.
pub(crate) fn compare(folder: &Path) -> Result<(u64, Vec<Deviation>), Failure> {
    let failed = |message: String| Failure::new(Exit::Request, message);
    let sums = folder.join(SUMS);
    let text = fs::read_to_string(&sums).map_err(|error| {
        failed(format!("{} cannot be read: {error}; name an exported folder", sums.display()))
    })?;
    let mut named = BTreeSet::from([SUMS.to_owned()]);
    let mut deviations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let damaged = || failed(format!("{} is damaged at line {}", sums.display(), index + 1));
        let (digest, file) = line.split_once("  ").ok_or_else(damaged)?;
        let digest: Digest = digest.parse().map_err(|_| damaged())?;
        // A sums file from elsewhere must not send us out of the folder.
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || file.is_empty() || !named.insert(file.to_owned()) {
            return Err(damaged());
        }
        let message = match digest_of(&folder.join(file)) {
            Ok(found) if found == digest => continue,
            Ok(_) => "its SHA-256 is another one".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        deviations.push(Deviation { file: file.to_owned(), message });
    }
    let mut found = Vec::new();
    files_below(folder, "", &mut found)
        .map_err(|error| failed(format!("{} cannot be read: {error}", folder.display())))?;
    for file in found.into_iter().filter(|file| !named.contains(file)) {
        deviations.push(Deviation { file, message: "is not in the sums".to_owned() });
    }
    deviations.sort_by(|a, b| a.file.cmp(&b.file));
    Ok((named.len() as u64 - 1, deviations))
}

/// Reads in pieces: weights are larger than memory should hold.
fn digest_of(path: &Path) -> io::Result<Digest> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => context.update(&piece[..length]),
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Ok(Digest::from_bytes(bytes))
}

fn files_below(folder: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moat_contracts::Digest;

    use super::{SUMS, compare};

    #[test]
    fn every_deviation_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("adapter")).unwrap();
        let mut sums = String::new();
        for (name, text) in [("adapter/weights", "abc"), ("card.md", "card"), ("gone", "x")] {
            fs::write(path(name), text).unwrap();
            sums.push_str(&format!("{}  {name}\n", Digest::of(text.as_bytes())));
        }
        fs::write(path(SUMS), &sums).unwrap();
        assert_eq!(compare(folder.path()).unwrap(), (3, Vec::new()));

        fs::write(path("card.md"), "Card").unwrap();
        fs::remove_file(path("gone")).unwrap();
        fs::write(path("adapter/more"), "").unwrap();
        let files: Vec<_> =
            compare(folder.path()).unwrap().1.into_iter().map(|deviation| deviation.file).collect();
        assert_eq!(files, ["adapter/more", "card.md", "gone"]);
        for damage in ["short  card.md\n".to_owned(), sums.replace("card.md", "../card.md"), sums.repeat(2)] {
            fs::write(path(SUMS), damage).unwrap();
            assert!(compare(folder.path()).unwrap_err().message.contains("is damaged at line"));
        }
    }
}
