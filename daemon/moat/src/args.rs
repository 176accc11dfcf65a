//! The command line.

mod bundle;
mod source;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use moat_contracts::Sampling;

use crate::exit;

pub(crate) use bundle::{Bundle, BundleKey, Pack, Sign};
pub(crate) use source::{Kind, NewSource, Source};

/// Curates private training sets, tunes open models on them, and measures how much better they became.
#[derive(Debug, Parser)]
#[command(name = "moat", version, after_help = exit::HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Write the reply as one line of JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The configuration; else $MOAT_CONFIG, else /etc/moat/moat.toml, else the built-in defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The socket of moatd; else $MOAT_SOCKET, else control.sock in the configuration's `daemon.runtime`.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show how sources, records and runs stand.
    Status,
    /// Show what the API takes and who may ask it; with --json its description in OpenAPI 3.1.
    Api,
    /// Check a configuration or a recipe whole, without moatd.
    Check(Check),
    /// Look at the sources again, and wait until everything found is curated.
    Scan,
    /// See what lies in a source, whether it can be read and what was not; add, pause and remove sources.
    #[command(subcommand)]
    Source(Source),
    /// Tell what became of a document, and why.
    Why {
        /// Its path in its source, or on this machine.
        path: PathBuf,
    },
    /// Build, show and compare datasets.
    #[command(subcommand)]
    Dataset(Dataset),
    /// Search the texts of records, and show one beside its document.
    #[command(subcommand)]
    Record(Record),
    /// See which records wait for a person, and decide about them.
    #[command(subcommand)]
    Review(Review),
    /// Tell what other curation rules would keep and drop; nothing is stored.
    Try {
        /// A file with what changes, as it would stand in moat.toml, such as `[curation.quality.prose]` and a key.
        rules: PathBuf,
        /// Records to judge at most.
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        most: u64,
        /// Draws them where there are more.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
    },
    /// Import and list bases.
    #[command(subcommand)]
    Base(Base),
    /// Start, follow, stop and resume runs.
    #[command(subcommand)]
    Run(Run),
    /// Start, follow, stop and resume sweeps: a run for each of several values of a recipe's keys.
    #[command(subcommand)]
    Sweep(Sweep),
    /// Ask that a run's adapter, merged model, card, lineage and sums be written into a new folder; somebody else agrees.
    Export {
        /// The run's name, or its beginning.
        run: String,
        /// The folder, which must not exist.
        folder: PathBuf,
        /// Encrypt every file to this age public key.
        #[arg(long, value_name = "AGE_KEY")]
        to: Option<String>,
        #[command(flatten)]
        proof: Proof,
    },
    /// See what waits for a second person, agree to it, or take it back.
    #[command(subcommand)]
    Statement(Statement),
    /// Make accounts, and change what they may do.
    #[command(subcommand)]
    Account(Account),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(ApiKey),
    /// Ask that the policy that the configuration says be the site's; somebody else agrees.
    #[command(subcommand)]
    Policy(Policy),
    /// Complete a prompt with the base and a tuned model.
    Ask(Ask),
    /// Check an exported folder against its SHA256SUMS, without moatd.
    Verify {
        /// The folder.
        folder: PathBuf,
    },
    /// Make, open and seal the vault, and change what opens it.
    #[command(subcommand)]
    Vault(Vault),
    /// Read, prove and verify the record of every act.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Make, sign, verify and install offline bundles, without moatd.
    #[command(subcommand)]
    Bundle(Bundle),
    /// Copy everything that moatd keeps, sealed as it is, into a new folder in one of boundary.backups.
    Backup {
        /// The folder, which must not exist.
        folder: PathBuf,
    },
    /// Check a backup and copy it into an empty state folder, without moatd.
    Restore {
        /// The backup.
        backup: PathBuf,
        /// The state folder: daemon.state of the configuration, /var/lib/moat where a package installed Moat.
        state: PathBuf,
    },
    /// End moatd once its work in hand is safe.
    Shutdown,
}

/// Who asks or agrees: password and code are asked for on the terminal, or read from two lines of standard input.
#[derive(Clone, Debug, Args)]
pub(crate) struct Proof {
    /// The account; else the one of the user who calls.
    #[arg(long = "as", value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
}

/// What to do with what takes two people.
#[derive(Debug, Subcommand)]
pub(crate) enum Statement {
    /// List all that took or takes two people.
    List,
    /// Agree to what somebody else asks for: it happens at once.
    Approve {
        /// The statement's id, or its beginning.
        id: String,
        #[command(flatten)]
        proof: Proof,
    },
    /// Take a request back, or refuse it.
    Withdraw {
        /// The statement's id, or its beginning.
        id: String,
    },
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Make the first accounts. From then on rights come from accounts, and exports take two people.
    SetUp {
        /// Each as NAME:ROLES, or NAME:ROLES:UID for a user of this machine, such as ada:steward,engineer:1000.
        #[arg(required = true, value_name = "NAME:ROLES[:UID]", value_parser = planned)]
        accounts: Vec<Planned>,
    },
    /// Print a code with which people make the first accounts themselves, in their browsers at the admin port.
    Invite,
    /// List all accounts.
    List,
    /// Make an account, which has no role yet.
    Create {
        /// Its name.
        name: String,
        /// The user of this machine who is the same person.
        #[arg(long)]
        uid: Option<u32>,
    },
    /// Ask for other roles of an account; somebody else agrees.
    Roles {
        /// Its name.
        name: String,
        /// All roles that it is to have: viewer, steward, engineer, approver, admin, auditor, with commas between.
        roles: String,
        #[command(flatten)]
        proof: Proof,
    },
    /// Disable an account for good.
    Disable {
        /// Its name.
        name: String,
    },
    /// Give an account a new password and a new secret for its codes.
    Reset {
        /// Its name.
        name: String,
    },
}

/// An account to be made when the site is set up.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) uid: Option<u32>,
}

fn planned(text: &str) -> Result<Planned, String> {
    let wrong =
        || "must be written NAME:ROLES or NAME:ROLES:UID, such as ada:steward,engineer:1000".to_owned();
    let fields: Vec<_> = text.split(':').collect();
    let (name, roles, uid) = match fields[..] {
        [name, roles] => (name, roles, None),
        [name, roles, uid] => (name, roles, Some(uid.parse().map_err(|_| wrong())?)),
        _ => return Err(wrong()),
    };
    Ok(Planned { name: name.to_owned(), roles: words(roles), uid })
}

/// Words with commas between.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKey {
    /// Make a key for the account of the user who calls; it is shown this once.
    Create {
        /// What to call it.
        name: String,
        /// The acts that it is for, with commas between, such as model.ask,status.read.
        #[arg(long = "for", value_name = "ACTS")]
        acts: String,
        /// Days until it is void.
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    /// List all keys.
    List,
    /// Revoke a key for good.
    Revoke {
        /// Its id, or the beginning.
        id: String,
    },
}

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Ask that what the configuration says about what may leave, come in and be trained on be in force.
    Request {
        #[command(flatten)]
        proof: Proof,
    },
}

/// What to do with the vault.
#[derive(Debug, Subcommand)]
pub(crate) enum Vault {
    /// Make the vault, opened by a passphrase unless told otherwise.
    Init(NewSlot),
    /// Open the vault with a passphrase, or give one share.
    Unseal {
        /// Give one share of several; the vault opens with the last one that is needed.
        #[arg(long)]
        share: bool,
    },
    /// Wipe the keys from moatd's memory: all work stops until the vault is opened again.
    Seal,
    /// Show how the vault stands and what opens it.
    Show,
    /// Add another way to open the vault, by a passphrase unless told otherwise.
    AddSlot(NewSlot),
    /// Remove a way to open the vault.
    RemoveSlot {
        /// The slot's number.
        slot: u32,
    },
    /// Wrap every key under a new root and forget the old one.
    Rotate,
}

/// What opens the vault.
#[derive(Debug, Args)]
pub(crate) struct NewSlot {
    /// The credential moat-kek that systemd hands to moatd.
    #[arg(long, conflicts_with = "shares")]
    pub(crate) credential: bool,
    /// N of M shares, such as 3/5, each for another person.
    #[arg(long, value_name = "N/M", value_parser = shares)]
    pub(crate) shares: Option<(u8, u8)>,
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// List entries, newest first.
    List {
        /// Only acts that begin so, such as `vault` or `run.start`.
        #[arg(long, value_name = "ACT")]
        act: Option<String>,
        /// Only entries before this one.
        #[arg(long, value_name = "ENTRY")]
        before: Option<u64>,
        /// Entries at most.
        #[arg(long, value_name = "N", default_value_t = 50)]
        most: usize,
    },
    /// Print a signed proof that an entry is in the ledger.
    Receipt {
        /// The entry.
        entry: u64,
    },
    /// Check a receipt, without moatd.
    CheckReceipt {
        /// The file that holds it.
        file: PathBuf,
        /// The ledger's key, as `moat ledger list` shows it.
        #[arg(long)]
        key: String,
    },
    /// Recompute a ledger from its folder or a copy of it, without moatd.
    Verify {
        /// The folder `ledger` of the state folder, or a copy.
        folder: PathBuf,
        /// The ledger's key, as `moat ledger list` shows it.
        #[arg(long)]
        key: String,
        /// The witness's file.
        #[arg(long, value_name = "FILE")]
        witness: Option<PathBuf>,
    },
}

fn shares(text: &str) -> Result<(u8, u8), String> {
    let parsed = text.split_once('/').and_then(|(needed, of)| Some((needed.parse().ok()?, of.parse().ok()?)));
    let parsed = parsed.filter(|(needed, of): &(u8, u8)| (2..=*of).contains(needed));
    parsed.ok_or_else(|| "must be written N/M with 2 <= N <= M, such as 3/5".to_owned())
}

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration; else as --config says.
    pub(crate) config_file: Option<PathBuf>,
    /// Check this recipe instead.
    #[arg(long, value_name = "FILE", conflicts_with = "config_file")]
    pub(crate) recipe: Option<PathBuf>,
    /// Check the text alone: do not look for folders and programs on this machine.
    #[arg(long)]
    pub(crate) text_only: bool,
}

/// What to do with datasets.
#[derive(Debug, Subcommand)]
pub(crate) enum Dataset {
    /// Build a dataset by a recipe, or find the one that is already built.
    Build {
        /// The recipe's file.
        recipe: PathBuf,
    },
    /// List all datasets.
    List,
    /// Show one dataset.
    Show {
        /// Its id, or the id's beginning.
        id: String,
    },
    /// Show how one dataset is spread over lengths, kinds and languages, and the runs on it.
    Facts {
        /// Its id, or the id's beginning.
        id: String,
    },
    /// Show what differs between two datasets.
    Diff {
        /// The older one's id, or its beginning.
        a: String,
        /// The newer one's id, or its beginning.
        b: String,
    },
}

/// What to do with records.
#[derive(Debug, Subcommand)]
pub(crate) enum Record {
    /// Find records whose text holds every word, whatever its case and accents.
    Search {
        /// The words; a phrase goes in double quotation marks of its own. `-` reads them from standard input.
        words: Vec<String>,
        /// Only of this source.
        #[arg(long)]
        source: Option<String>,
        /// Only kept, redacted or dropped ones.
        #[arg(long)]
        verdict: Option<String>,
        /// Only of this kind, such as prose or code.
        #[arg(long)]
        kind: Option<String>,
        /// Only those with this rule or label among their reasons, such as min_words or EMAIL.
        #[arg(long)]
        rule: Option<String>,
        /// Only in this language, such as eng.
        #[arg(long)]
        language: Option<String>,
        /// Records at most.
        #[arg(long, value_name = "N", default_value_t = 20)]
        most: usize,
        /// Go on where a search ended.
        #[arg(long, value_name = "PLACE")]
        after: Option<u64>,
    },
    /// Show one record with its text.
    Show {
        /// Its id, or the id's beginning.
        id: String,
    },
}

/// What to do about records that wait for a person.
#[derive(Debug, Subcommand)]
pub(crate) enum Review {
    /// List records that wait, and what was decided last.
    List {
        /// Records at most.
        #[arg(long, value_name = "N", default_value_t = 20)]
        most: usize,
    },
    /// Keep a record, also against quality rules: the next dataset takes it.
    Keep {
        /// Its id, or the id's beginning.
        id: String,
    },
    /// Drop a record: the next dataset does without it.
    Drop {
        /// Its id, or the id's beginning.
        id: String,
    },
    /// Take back what was decided about a record.
    Undo {
        /// Its id, or the id's beginning.
        id: String,
    },
}

/// What to do with bases.
#[derive(Debug, Subcommand)]
pub(crate) enum Base {
    /// Take in a base from a folder in Hugging Face's layout.
    Import {
        /// The folder.
        folder: PathBuf,
        /// Its name from now on; else the folder's name.
        #[arg(long)]
        name: Option<String>,
    },
    /// List all bases.
    List,
}

/// What to do with runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Run {
    /// Build the dataset, train, measure the edge, and follow the run until it ends.
    Start {
        /// The recipe's file.
        recipe: PathBuf,
        /// Return as soon as the run is in the queue.
        #[arg(long)]
        detach: bool,
    },
    /// Tell what a run would train on and take, with an example of the data; nothing is trained.
    Preview {
        /// The recipe's file.
        recipe: PathBuf,
    },
    /// As preview, without any text of the data.
    Plan {
        /// The recipe's file.
        recipe: PathBuf,
    },
    /// Show several runs side by side: what differs in their recipes, and whether their edges differ by more than chance.
    Compare {
        /// Their names, or the names' beginnings; the later ones are held against the first.
        #[arg(required = true, num_args = 2..=8, value_name = "RUN")]
        names: Vec<String>,
    },
    /// List all runs.
    List,
    /// Show one run and its edge.
    Show {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Show a run's steps as they were measured; --json has every value.
    Steps {
        /// Its name, or the name's beginning.
        name: String,
        /// Only those after this one.
        #[arg(long, value_name = "STEP", default_value_t = 0)]
        after: u64,
        /// Steps at most.
        #[arg(long, value_name = "N", default_value_t = 100_000)]
        most: u64,
    },
    /// Follow a run until it ends.
    Watch {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Print the model card of a run, as an export of it holds it.
    Card {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Show the beginning of a held-back record, and how the base and the tuned model go on from there.
    Sample {
        /// The run's name, or the name's beginning.
        name: String,
        /// Which of the held-back records, from 1.
        #[arg(long, value_name = "N", default_value_t = 1)]
        number: u64,
        /// New tokens at most.
        #[arg(long, value_name = "N", default_value_t = 96, value_parser = count)]
        max_tokens: usize,
    },
    /// Write a checkpoint and stop the run.
    Stop {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Go on from the last checkpoint, and follow the run until it ends.
    Resume {
        /// Its name, or the name's beginning.
        name: String,
        /// Return as soon as the run is in the queue.
        #[arg(long)]
        detach: bool,
    },
}

/// What to do with sweeps.
#[derive(Debug, Subcommand)]
pub(crate) enum Sweep {
    /// Put a run for each point of a recipe's table [sweep] into the queue.
    Start {
        /// The recipe's file.
        recipe: PathBuf,
    },
    /// List all sweeps.
    List,
    /// Show a sweep: its runs by their validation loss, with the edge of each.
    Show {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Follow a sweep until none of its runs goes on.
    Watch {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Stop a sweep: its run in hand at a checkpoint, those that wait at once.
    Stop {
        /// Its name, or the name's beginning.
        name: String,
    },
    /// Put a sweep's stopped and failed runs into the queue again.
    Resume {
        /// Its name, or the name's beginning.
        name: String,
    },
}

/// A question to base and tuned model.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// The prompt; `-` reads it from standard input.
    pub(crate) prompt: String,
    /// The run whose model answers; else the newest finished one.
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Put the prompt through the chat template.
    #[arg(long)]
    pub(crate) chat: bool,
    /// How freely tokens are drawn; 0 takes the likeliest.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f64,
    /// Draw from the smallest set of tokens with this much probability; 1 takes all.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f64,
    /// Decides every draw.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// New tokens at most.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    max_tokens: usize,
}

impl Ask {
    /// How tokens are drawn.
    pub(crate) const fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            max_tokens: self.max_tokens,
        }
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (0.0..=100.0).contains(value));
    value.ok_or_else(|| "must be a number from 0 to 100".to_owned())
}

fn probability(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| *value > 0.0 && *value <= 1.0);
    value.ok_or_else(|| "must be a number above 0 and at most 1".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|value| (1..=1 << 20).contains(value));
    value.ok_or_else(|| "must be a whole number from 1 to 1048576".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Ask, Verb};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_verb_is_understood() {
        for line in [
            "status",
            "--json status",
            "status --json --socket /tmp/s --config c.toml",
            "check",
            "check moat.toml --text-only",
            "check --recipe demo.toml",
            "scan",
            "source list",
            "source list handbook guide/old --after b.md",
            "source test handbook",
            "source faults handbook --after 7",
            "source pause handbook",
            "source resume handbook",
            "why a/b.md",
            "dataset build demo.toml",
            "dataset list",
            "dataset show 1a",
            "dataset diff 1a 2b",
            "dataset facts 1a",
            "record search pump valve --source docs --verdict dropped --kind prose --rule min_words --most 3 --after 9",
            "record show 3f2a",
            "review list --most 5",
            "review keep 3f2a",
            "review drop 3f2a",
            "review undo 3f2a",
            "try rules.toml --most 100 --seed 2",
            "base import . --name starter",
            "base list",
            "run start demo.toml --detach",
            "run preview demo.toml",
            "run plan demo.toml",
            "run compare demo-1 demo-2 demo-3",
            "sweep start sweep.toml",
            "sweep list",
            "sweep show demo-sweep-1",
            "sweep watch demo-sweep-1",
            "sweep stop demo-sweep-1",
            "sweep resume demo-sweep-1",
            "run list",
            "run show demo-1",
            "run steps demo-1 --after 100 --most 50",
            "run watch demo-1",
            "run card demo-1",
            "run sample demo-1 --number 3 --max-tokens 40",
            "run stop demo-1",
            "run resume demo-1 --detach",
            "export demo-1 out",
            "export demo-1 out --to age1abc --as ada",
            "statement list",
            "statement approve 3f --as ben",
            "statement withdraw 3f",
            "account set-up ada:steward,engineer:1000 ben:approver",
            "account invite",
            "account list",
            "account create cleo --uid 1002",
            "account roles cleo viewer,auditor",
            "account disable cleo",
            "account reset cleo",
            "key create ide --for model.ask --days 30",
            "key list",
            "key revoke 3f2a",
            "policy request",
            "ask --run demo-1 --chat --temperature 0.7 --top-p 0.9 --seed 3 --max-tokens 9 hello",
            "ask -",
            "verify out",
            "vault init",
            "vault init --shares 3/5",
            "vault unseal --share",
            "vault seal",
            "vault show",
            "vault add-slot --credential",
            "vault remove-slot 2",
            "vault rotate",
            "ledger list --act vault --before 9 --most 3",
            "ledger receipt 4",
            "ledger check-receipt proof.txt --key moat+1+2",
            "ledger verify ledger --key moat+1+2 --witness w",
            "bundle key create ada.key",
            "bundle keys a.pub b.pub c.pub --threshold 2 --version 1 --to release-keys.json --expires 2030-01-01",
            "bundle pack made --number 7 --version 0.2.0 --expires 2027-06-30 --keys k.json --to moat-0.2.0.bundle",
            "bundle sign moat-0.2.0.bundle --key ada.key",
            "bundle sign moat-0.2.0.bundle --signature ben.json",
            "bundle sign manifest.json --key ben.key --to ben.json",
            "bundle verify moat-0.2.0.bundle --keys release-keys.json",
            "bundle install moat-0.2.0.bundle",
            "backup /srv/backups/monday",
            "restore /srv/backups/monday /var/lib/moat",
            "shutdown",
        ] {
            let words = std::iter::once("moat").chain(line.split(' '));
            Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_cannot_be_sampled_is_refused() {
        for line in [
            "ask --temperature -1 x",
            "ask --temperature NaN x",
            "ask --top-p 0 x",
            "ask --max-tokens 0 x",
            "check a --recipe b",
            "",
            "run",
            "run compare demo-1",
            "vault init --shares 1/5",
            "account set-up",
            "account set-up ada",
            "account set-up ada:viewer:x",
            "key create ide",
            "vault init --shares 6/5",
            "vault init --credential --shares 2/3",
            "bundle pack made --number 7 --version 0.2 --expires 2027-06-30 --keys k.json --to b",
            "bundle pack made --number 7 --version 0.2.0 --expires soon --keys k.json --to b",
            "bundle pack made --number 7 --version 0.2.0 --expires 2027-06-30 --to b",
            "bundle sign b",
            "bundle sign b --key k --signature s",
        ] {
            let words = std::iter::once("moat").chain(line.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_err(), "{line}");
        }
        let parsed = Arguments::try_parse_from(["moat", "ask", "--seed", "7", "x"]).unwrap();
        let Verb::Ask(Ask { seed, .. }) = parsed.verb else { panic!() };
        assert_eq!(seed, 7);
    }
}
