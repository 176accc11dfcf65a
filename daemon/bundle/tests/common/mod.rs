//! Release teams and bundles, and a second writer of bundles that knows nothing of the first.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use moat_bundle::{
    Admitted, Bundle, BundleError, Machine, Manifest, Mark, Member, Release, Signatures, SignedKeys,
    SigningKey, Version, What, add_signature, pack,
};
use moat_contracts::Digest;
use tempfile::TempDir;

/// 2026-11-22 00:00 UTC.
pub(crate) const DAY: i64 = 1_795_305_600;
pub(crate) const YEAR: i64 = 365 * 86_400;

/// Three people with a key each.
pub(crate) struct Team {
    pub(crate) keys: Vec<SigningKey>,
    /// Their release keys, and those before.
    pub(crate) history: Vec<SignedKeys>,
}

impl Team {
    pub(crate) fn new() -> Self {
        let keys: Vec<_> = (0..3).map(|_| SigningKey::create().unwrap()).collect();
        let mut signed = release_keys(1, &keys);
        signed.sign(&keys[0]).unwrap();
        signed.sign(&keys[2]).unwrap();
        Self { keys, history: vec![signed] }
    }

    pub(crate) fn trusted(&self) -> &SignedKeys {
        self.history.last().unwrap()
    }

    /// The team after one key was exchanged, as it has to be done.
    pub(crate) fn rotated(&self) -> Self {
        let mut keys: Vec<_> = self.keys.iter().map(copy).collect();
        keys[0] = SigningKey::create().unwrap();
        let mut signed = release_keys(self.trusted().signed.version + 1, &keys);
        for key in [&self.keys[1], &self.keys[2]] {
            signed.sign(key).unwrap();
        }
        Self { keys, history: self.history.iter().cloned().chain([signed]).collect() }
    }
}

pub(crate) fn copy(key: &SigningKey) -> SigningKey {
    SigningKey::from_pem(&key.to_pem()).unwrap()
}

pub(crate) fn release_keys(version: u64, keys: &[SigningKey]) -> SignedKeys {
    let public: Vec<_> = keys.iter().map(|key| key.public().unwrap()).collect();
    SignedKeys::new(version, 2, None, &public).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(crate) fn machine(now: i64) -> Machine {
    Machine { architecture: "x86_64".to_owned(), version: version("0.1.0"), now }
}

/// The files of a release.
pub(crate) fn files(version: &str) -> Vec<(String, Vec<u8>)> {
    vec![
        ("bases/tiny/config.json".to_owned(), format!("{{\"release\": \"{version}\"}}").into_bytes()),
        ("bases/tiny/model.safetensors".to_owned(), version.repeat(150).into_bytes()),
        ("licences/moat.txt".to_owned(), b"the terms\n".to_vec()),
        ("licences/tiny/NOTICE".to_owned(), Vec::new()),
        (format!("moat-{version}.cdx.json"), b"{}\n".to_vec()),
        (format!("packages/moat-{version}-1.x86_64.rpm"), format!("rpm {version}").into_bytes()),
        (format!("packages/moat_{version}_amd64.deb"), format!("deb {version}").into_bytes()),
    ]
}

pub(crate) fn folder(files: &[(String, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// A release of this number, made that day and good for a year, signed by two of the team.
pub(crate) fn bundle(team: &Team, number: u64, version: &str) -> Vec<u8> {
    bundle_at(team, number, version, DAY)
}

pub(crate) fn bundle_at(team: &Team, number: u64, version: &str, made: i64) -> Vec<u8> {
    let into = tempfile::tempdir().unwrap();
    let path = into.path().join("moat.bundle");
    let release = Release {
        version: self::version(version),
        number,
        made,
        expires: made + YEAR,
        keys: team.history.clone(),
    };
    pack(folder(&files(version)).path(), release, &path, &mut |_, _| {}).unwrap();
    for key in &team.keys[..2] {
        add_signature(&path, Mark::Key(key), &mut |_, _| {}).unwrap();
    }
    fs::read(path).unwrap()
}

/// What a bundle is found to be, all of it read.
pub(crate) fn verdict(bundle: &[u8], trusted: &SignedKeys) -> Result<Admitted, BundleError> {
    let bundle = Bundle::read(bundle)?;
    let admitted = bundle.admit(trusted)?;
    bundle.contents(&admitted.manifest, &mut |_, _| Ok(()), &mut |_, _| {})?;
    Ok(admitted)
}

/// A member of a tar: header, content, padding.
pub(crate) fn member(path: &str, content: &[u8]) -> Vec<u8> {
    special(path, content, b'0', "")
}

/// A member of any kind.
pub(crate) fn special(path: &str, content: &[u8], kind: u8, link: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    let size = format!("{:011o}", content.len());
    let fields: [(usize, &[u8]); 10] = [
        (0, path.as_bytes()),
        (100, b"0000644"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, size.as_bytes()),
        (136, b"00000000000"),
        (148, b"        "),
        (156, &[kind]),
        (157, link.as_bytes()),
        (257, b"ustar\x0000"),
    ];
    for (at, text) in fields {
        header[at..at + text.len()].copy_from_slice(text);
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

/// A manifest of these files as `moat` would write it.
pub(crate) fn manifest(number: u64, version: &str, keys: u64, files: &[(String, Vec<u8>)]) -> Manifest {
    let version = self::version(version);
    let files = files.iter().map(|(path, content)| Member {
        path: path.clone(),
        what: What::of(path, version).unwrap(),
        bytes: content.len() as u64,
        sha256: Digest::of(content),
    });
    Manifest::new(version, number, (DAY, DAY + YEAR), keys, files.collect()).unwrap()
}

/// The two documents in front, over any text that is to pass as a manifest.
pub(crate) fn front(text: &[u8], history: &[SignedKeys], signers: &[&SigningKey]) -> Vec<u8> {
    let mut signatures: Vec<_> = signers.iter().map(|key| key.sign_manifest(text).unwrap()).collect();
    signatures.sort_by_key(|signature| signature.key);
    let signatures = Signatures { format: 1, keys: history.to_vec(), signatures };
    let mut document = serde_json::to_vec_pretty(&signatures).unwrap();
    document.push(b'\n');
    [member("manifest.json", text), member("signatures.json", &document)].concat()
}

pub(crate) fn body(files: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
    files.iter().map(|(path, content)| member(path, content)).collect()
}

/// A whole bundle of a text that is to pass as a manifest, and any members.
pub(crate) fn compose(text: &[u8], team: &Team, members: &[Vec<u8>]) -> Vec<u8> {
    let signers = [&team.keys[0], &team.keys[1]];
    [front(text, &team.history, &signers), members.concat(), vec![0; 1024]].concat()
}

pub(crate) fn written(into: &TempDir, name: &str, bundle: &[u8]) -> PathBuf {
    let path = into.path().join(name);
    fs::write(&path, bundle).unwrap();
    path
}

pub(crate) fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
