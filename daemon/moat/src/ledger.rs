//! `moat ledger verify`: a copy of the ledger against its key and a witness, without moatd.

use std::path::Path;

use moat_ledger::{PublicKey, Report, verify, verify_receipt};

use crate::exit::{Exit, Failure};
use crate::output::{Output, notice};
use crate::render::text::{clean, counted};

/// Recomputes a ledger from its folder or a copy of it.
pub(crate) fn check(
    output: &Output,
    folder: &Path,
    key: &str,
    witness: Option<&Path>,
) -> Result<Exit, Failure> {
    let failed = |error: moat_ledger::LedgerError| Failure::new(Exit::Request, error.to_string());
    let report = verify(folder, &read(key)?, witness).map_err(failed)?;
    let exit = if report.is_sound() { Exit::Done } else { Exit::Request };
    if output.json {
        output.line(&serde_json::json!({ "reply": "ledger_verified", "value": {
            "sound": report.is_sound(),
            "entries": report.entries,
            "covered": report.covered,
            "witnessed": report.witnessed,
            "checkpoints": report.checkpoints,
            "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "unlisted": report.unlisted,
        }}))?;
        return Ok(exit);
    }
    for finding in &report.findings {
        notice(&format!("{}\n", clean(&finding.to_string())));
    }
    if report.unlisted > 0 {
        notice(&format!("and {}\n", counted(report.unlisted, "more finding")));
    }
    output.page(&words(&report, witness.is_some()))?;
    Ok(exit)
}

fn words(report: &Report, witnessed: bool) -> String {
    let entries = |number: u64| if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") };
    let state = if report.is_sound() { "sound" } else { "NOT as it was written" };
    let witness = if witnessed {
        format!(", {} by the witness", report.witnessed)
    } else {
        ", none by a witness: without one, a whole older ledger put back would look the same".to_owned()
    };
    format!(
        "{state}: {}, {} covered by {}{witness}\n",
        entries(report.entries),
        report.covered,
        counted(report.checkpoints, "signed checkpoint")
    )
}

/// Checks a receipt that `moat ledger receipt` gave, and shows the entry that it proves.
pub(crate) fn check_receipt(output: &Output, file: &Path, key: &str) -> Result<Exit, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::Request, format!("{} cannot be read: {error}", file.display()))
    })?;
    let proven = verify_receipt(&text, &read(key)?);
    let (entry, checkpoint) = proven.map_err(|error| Failure::new(Exit::Request, error.to_string()))?;
    if output.json {
        let value = serde_json::json!({ "entry": entry, "size": checkpoint.size });
        output.line(&serde_json::json!({ "reply": "receipt_verified", "value": value }))?;
    } else {
        output.page(&format!(
            "sound: entry {} of {}, {} by {}\n",
            entry.index,
            checkpoint.size,
            clean(&entry.act),
            clean(&entry.who.name)
        ))?;
    }
    Ok(Exit::Done)
}

fn read(key: &str) -> Result<PublicKey, Failure> {
    PublicKey::from_text(key).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}
