use std::path::PathBuf;

use clap::{Args, Subcommand};
use moat_bundle::Version;

/// What to do with offline bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Make release keys.
    #[command(subcommand)]
    Key(BundleKey),
    /// Say which keys sign bundles; several of them, and of the keys before, then sign that.
    Keys {
        /// The public keys, as `moat bundle key create` or openssl wrote them.
        #[arg(required = true, value_name = "PUBLIC_KEY")]
        public: Vec<PathBuf>,
        /// How many of them it takes.
        #[arg(long, value_name = "N", default_value_t = 2)]
        threshold: usize,
        /// 1 for the first ones, and one more each time they change.
        #[arg(long, value_name = "N")]
        version: u64,
        /// The day from which on they sign nothing any more.
        #[arg(long, value_name = "DAY", value_parser = day)]
        expires: Option<i64>,
        /// The file, which must not exist.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Pack a folder that holds packages/, bases/, licences/ and moat-VERSION.cdx.json; nobody has signed it then.
    Pack(Pack),
    /// Sign a bundle, the manifest of one, or release keys.
    Sign(Sign),
    /// Check a bundle whole, and say what it holds, who signed it and how it stands to this machine.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// Trust these release keys, and say nothing about this machine.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
    /// Verify a bundle and install it on this machine, as root. Ends with 1 where it is refused, and nothing is
    /// installed; with 6 where the package manager fails.
    Install {
        /// The bundle.
        bundle: PathBuf,
    },
}

/// What to do with a release key.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleKey {
    /// Make a key pair: FILE, which signs and lies in the open for its owner, and FILE.pub.
    Create {
        /// The file, which must not exist.
        file: PathBuf,
    },
}

/// What to pack.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The release's number, larger than any before.
    #[arg(long, value_name = "N")]
    pub(crate) number: u64,
    /// The version of its packages.
    #[arg(long)]
    pub(crate) version: Version,
    /// The day from which on nobody takes it any more.
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub(crate) expires: i64,
    /// Release keys, in the order of their versions, from 1 to those that will sign it.
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// The bundle, which must not exist. $SOURCE_DATE_EPOCH, where it is set, is when it was made.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

/// What to sign, and with what.
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The bundle, or a `manifest.json` or `release-keys.json`.
    pub(crate) file: PathBuf,
    /// The private key.
    #[arg(long, value_name = "FILE", required_unless_present = "signature", conflicts_with = "signature")]
    pub(crate) key: Option<PathBuf>,
    /// Add this signature, which was made elsewhere over the bundle's manifest.
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
    /// Where the signature over a manifest goes.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub(crate) to: Option<PathBuf>,
}

/// The first second of a day in UTC, or a moment as RFC 3339 writes it, in Unix seconds.
fn day(text: &str) -> Result<i64, String> {
    let moment = text.parse::<jiff::Timestamp>().ok();
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let moment = moment.or_else(|| Some(day()?.timestamp()));
    moment.map(jiff::Timestamp::as_second).ok_or_else(|| "must be a day, such as 2027-06-30".to_owned())
}
