//! What a bundle holds, for whom, and until when.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use moat_contracts::Digest;
use serde::{Deserialize, Serialize};

use crate::{BundleError, FORMAT, MANIFEST, PRODUCT, codec, tar};

/// Largest release number: JSON readers that count in f64 lose nothing up to here.
const HIGHEST: u64 = 1 << 53;

/// A release's version: three numbers with dots between, compared one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version(u64, u64, u64);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no version of three numbers, such as 1.4.0");
        let numbers: Option<Vec<u64>> = text.split('.').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some([major, minor, patch]) => {
                let version = Self(*major, *minor, *patch);
                if version.to_string() == text { Ok(version) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a file in a bundle is; each kind has its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// `packages/NAME`: a .deb or an .rpm.
    Package,
    /// `bases/NAME/FILE`: a file of a base in Hugging Face's layout.
    Base,
    /// `licences/FILE`: the terms of something in the bundle.
    Licence,
    /// `moat-VERSION.cdx.json`: what the programs are made of, in CycloneDX.
    Sbom,
}

impl What {
    /// What a path in a bundle of this version must be; `None` where nothing has such a path.
    #[must_use]
    pub fn of(path: &str, version: Version) -> Option<Self> {
        let parts: Vec<_> = path.split('/').collect();
        match parts[..] {
            ["packages", _] => Some(Self::Package),
            ["bases", _, _, ..] => Some(Self::Base),
            ["licences", _, ..] => Some(Self::Licence),
            [name] if name == sbom(version) => Some(Self::Sbom),
            _ => None,
        }
    }

    /// The word that stands in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Base => "base",
            Self::Licence => "licence",
            Self::Sbom => "sbom",
        }
    }
}

/// The name of a release's SBOM.
#[must_use]
pub fn sbom(version: Version) -> String {
    format!("moat-{version}.cdx.json")
}

/// A package manager's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packaging {
    /// Debian's, put in by `dpkg`.
    Deb,
    /// Put in by `rpm`.
    Rpm,
}

/// Architectures by the names of Linux and rpm, and of Debian.
const ARCHITECTURES: [(&str, &str); 2] = [("aarch64", "arm64"), ("x86_64", "amd64")];

impl Packaging {
    /// The name of the package of a release for an architecture by Linux's name; `None` for one that no release has.
    #[must_use]
    pub fn file(self, version: Version, architecture: &str) -> Option<String> {
        let (linux, debian) = ARCHITECTURES.into_iter().find(|(linux, _)| *linux == architecture)?;
        Some(match self {
            Self::Deb => format!("moat_{version}_{debian}.deb"),
            Self::Rpm => format!("moat-{version}-1.{linux}.rpm"),
        })
    }

    /// The architecture of a package by its name in a bundle of this version.
    fn architecture_of(path: &str, version: Version) -> Option<&'static str> {
        let name = path.strip_prefix("packages/")?;
        let is = |architecture| {
            [Self::Deb, Self::Rpm]
                .iter()
                .any(|it| it.file(version, architecture).is_some_and(|it| it == name))
        };
        ARCHITECTURES.into_iter().map(|(linux, _)| linux).find(|linux| is(linux))
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Where, with `/` between its parts.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// What a bundle holds, for whom, and until when: the document that is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the bundle.
    pub format: u32,
    /// `moat`.
    pub product: String,
    /// The version that the packages have.
    pub version: Version,
    /// The release's number: a later release has a larger one, whatever it holds.
    pub number: u64,
    /// When it was packed, in Unix seconds.
    pub made: i64,
    /// From when on nobody takes it any more, in Unix seconds.
    pub expires: i64,
    /// The machines that it has packages for, by Linux's names, ascending.
    pub architectures: Vec<String>,
    /// The version of the release keys that sign it.
    pub keys: u64,
    /// Every file, by path, ascending.
    pub files: Vec<Member>,
}

impl Manifest {
    /// A manifest of files in any order; `made` and `expires` in Unix seconds.
    ///
    /// # Errors
    /// [`BundleError::Form`] or [`BundleError::Path`] where the files do not make a bundle.
    pub fn new(
        version: Version,
        number: u64,
        (made, expires): (i64, i64),
        keys: u64,
        mut files: Vec<Member>,
    ) -> Result<Self, BundleError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let found = files.iter().filter_map(|file| Packaging::architecture_of(&file.path, version));
        let architectures: BTreeSet<_> = found.map(str::to_owned).collect();
        let architectures = architectures.into_iter().collect();
        let product = PRODUCT.to_owned();
        let manifest =
            Self { format: FORMAT, product, version, number, made, expires, architectures, keys, files };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// [`BundleError::Format`], [`BundleError::Product`], [`BundleError::Form`] or [`BundleError::Path`].
    pub fn read(text: &[u8]) -> Result<Self, BundleError> {
        codec::head(MANIFEST, text)?;
        let manifest: Self = codec::read(MANIFEST, text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// [`BundleError::Form`] where it cannot be written.
    pub fn write(&self) -> Result<Vec<u8>, BundleError> {
        codec::write(MANIFEST, self)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The names of the bases, ascending.
    #[must_use]
    pub fn bases(&self) -> Vec<&str> {
        let bases = self.files.iter().filter(|file| file.what == What::Base);
        let mut names: Vec<_> = bases.filter_map(|file| file.path.split('/').nth(1)).collect();
        names.dedup();
        names
    }

    fn check(&self) -> Result<(), BundleError> {
        let wrong = |why: String| Err(BundleError::form(MANIFEST, why));
        codec::head_is(MANIFEST, self.format.into(), Some(&self.product))?;
        if !(1..=HIGHEST).contains(&self.number) {
            return wrong(format!("a release's number is from 1 to {HIGHEST}"));
        }
        if self.made < 0 || self.expires <= self.made {
            return wrong("it expires before it is made".to_owned());
        }
        check_paths(&self.files)?;
        let mut packaged = BTreeSet::new();
        for file in &self.files {
            if What::of(&file.path, self.version) != Some(file.what) {
                return wrong(format!("{} is no place for a {}", file.path, file.what.word()));
            }
            if file.what == What::Package {
                let Some(architecture) = Packaging::architecture_of(&file.path, self.version) else {
                    return wrong(format!("{} is no package of moat {}", file.path, self.version));
                };
                packaged.insert(architecture);
            }
        }
        if !self.architectures.iter().map(String::as_str).eq(packaged.iter().copied()) {
            return wrong("its architectures are not those of its packages, ascending".to_owned());
        }
        for (what, least) in
            [(What::Package, "packages/"), (What::Licence, "licences/"), (What::Sbom, "SBOM")]
        {
            if !self.files.iter().any(|file| file.what == what) {
                return wrong(format!("it has nothing for {least}"));
            }
        }
        if self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes)).is_none() {
            return wrong("its files are larger than any disk".to_owned());
        }
        Ok(())
    }
}

/// Paths stay inside, ascend strictly, and none is a folder of another.
fn check_paths(files: &[Member]) -> Result<(), BundleError> {
    let all: BTreeSet<_> = files.iter().map(|file| file.path.as_str()).collect();
    let mut before = None;
    for path in files.iter().map(|file| file.path.as_str()) {
        let refuse = |why| Err(BundleError::Path { path: path.to_owned(), why });
        check_path(path)?;
        if before.is_some_and(|before| before >= path) {
            return refuse("it stands there twice or out of order");
        }
        before = Some(path);
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if folders.any(|folder| all.contains(folder)) {
            return refuse("another file has the name of its folder");
        }
    }
    Ok(())
}

/// Whether a path may stand in a bundle.
pub(crate) fn check_path(path: &str) -> Result<(), BundleError> {
    let refuse = |why| Err(BundleError::Path { path: path.to_owned(), why });
    if path.len() > tar::LONGEST {
        return refuse("it is longer than 100 characters");
    }
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"._-+~^=@/".contains(&letter);
    if !path.bytes().all(plain) {
        return refuse("it has other characters than ASCII letters, digits and ._-+~^=@");
    }
    if path.split('/').any(|part| part.is_empty() || part.starts_with(['.', '-'])) {
        return refuse("a part of it is empty, or begins with a dot or a dash");
    }
    Ok(())
}
