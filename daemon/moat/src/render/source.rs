use std::collections::BTreeMap;
use std::fmt::Write;

use moat_protocol::control::{
    Added, AskedSource, FolderEntry, FolderListing, RemovedSource, SourceFaults, SourceListing, SourceStatus,
    SourceTrial,
};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, count, counted, duration, tally};
use super::{Tone, View};

/// Sources, and how each stands.
pub(super) fn sources(view: &View, sources: &BTreeMap<String, SourceStatus>) -> String {
    if sources.is_empty() {
        return "no sources: `moat source add NAME PATH` asks for one in boundary.sources, and somebody else agrees; or name a [[source]] in \
                moat.toml and restart moatd\n".to_owned();
    }
    let row = |(name, source): (&String, &SourceStatus)| {
        let (state, tone) = if source.removing {
            ("being removed".to_owned(), Tone::Strong)
        } else {
            match (source.paused, &source.fault, source.scanning, source.scanned) {
                (Some(since), ..) => (format!("paused since {}", view.time(since)), Tone::Strong),
                (_, Some(_), ..) => ("failed".to_owned(), Tone::Bad),
                (_, _, true, _) => ("scanning".to_owned(), Tone::Plain),
                (_, _, _, Some(_)) => ("in step".to_owned(), Tone::Good),
                _ => ("not scanned yet".to_owned(), Tone::Faint),
            }
        };
        vec![
            Cell::toned(clean(name), Tone::Strong),
            clean(&source.kind).into(),
            Cell::toned(state, tone),
            if source.lag == 0 { "".into() } else { duration(source.lag).into() },
            source.scanned.map_or_else(|| "never".to_owned(), |at| view.time(at)).into(),
            count(source.present).into(),
            bytes(source.bytes).into(),
            count(source.skipped.values().sum::<u64>() + source.partial).into(),
            clean(&source.location).into(),
            source.added.as_ref().map_or_else(|| "moat.toml".to_owned(), by).into(),
        ]
    };
    let rows: Vec<_> = sources.iter().map(row).collect();
    let heads = [
        "source",
        "kind",
        "state",
        ">lag",
        "scanned",
        ">documents",
        ">size",
        ">with faults",
        "where",
        "named by",
    ];
    let mut page = table(view, &heads, &rows);
    for (name, source) in sources {
        if let Some(fault) = &source.fault {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(page, "{}", view.paint(Tone::Bad, &clean(&format!("{name}: {fault}"))));
        }
    }
    page
}

/// Who brought a source.
fn by(added: &Added) -> String {
    format!("{} and {}", clean(&added.asked_by), clean(&added.agreed_by))
}

/// Folders to choose a source from.
pub(super) fn folders(view: &View, listing: &FolderListing) -> String {
    let row = |folder: &FolderEntry| {
        let stands = match (&folder.source, folder.allowed) {
            (Some(source), _) => Cell::toned(format!("is source {}", clean(source)), Tone::Good),
            (None, true) => Cell::from(""),
            (None, false) => Cell::toned("only to look into", Tone::Faint),
        };
        vec![
            Cell::from(clean(&folder.name)),
            if folder.repository { "git".into() } else { "folder".into() },
            clean(&folder.path).into(),
            stands,
        ]
    };
    let rows: Vec<_> = listing.folders.iter().map(row).collect();
    if rows.is_empty() && listing.folder.is_empty() {
        return "no folder: whoever keeps the box names some under boundary.sources in moat.toml\n"
            .to_owned();
    }
    let mut page = table(view, &["folder", "kind", "path", ""], &rows);
    let _ =
        writeln!(page, "{} in all, beside {}", counted(listing.of, "folder"), counted(listing.files, "file"));
    if let Some(more) = &listing.more {
        let _ = writeln!(page, "there are more: `--after {}`", clean(more));
    }
    page
}

/// A source that is gone.
pub(super) fn removed(gone: &RemovedSource) -> String {
    format!(
        "source {} is removed: {} of it deleted with their records, and the next dataset is without them\n",
        clean(&gone.source),
        counted(gone.documents, "document")
    )
}

/// What is asked for, whole, and what it would have read then.
pub(super) fn asked(view: &View, asked: &AskedSource) -> String {
    let source = &asked.definition;
    let facts = pairs(
        view,
        &[
            ("name", view.paint(Tone::Strong, &clean(&source.name))),
            ("kind", clean(&source.kind)),
            ("path", clean(&source.path)),
            ("branch", clean(&source.branch)),
            ("policy", clean(&source.policy)),
            ("at most", bytes(source.max_bytes)),
            ("waits for", format!("{} s", source.settle_seconds)),
            ("rescans", format!("every {} s", source.rescan_seconds)),
            ("dotted names", if source.hidden { "read".to_owned() } else { "passed over".to_owned() }),
        ],
    );
    format!("{facts}What it would have read when it was asked for:\n{}", trial(view, &asked.trial))
}

/// What a folder of a source holds.
pub(super) fn listing(view: &View, listing: &SourceListing) -> String {
    let rows = listing.entries.iter().map(|entry| {
        let stands = match (entry.state.as_deref(), entry.skip.as_deref(), entry.passed_over) {
            (_, _, true) => Cell::toned("passed over", Tone::Faint),
            (Some("present"), ..) => Cell::toned("taken in", Tone::Good),
            (_, Some(skip), _) => Cell::toned(format!("not read: {}", clean(skip)), Tone::Bad),
            _ => Cell::from(""),
        };
        let slash = if entry.kind == "folder" { "/" } else { "" };
        vec![
            Cell::from(format!("{}{slash}", clean(&entry.name))),
            clean(&entry.kind).into(),
            entry.size.map(bytes).unwrap_or_default().into(),
            entry.modified.map(|at| view.time(at)).unwrap_or_default().into(),
            stands,
        ]
    });
    let rows: Vec<_> = rows.collect();
    let mut page = table(view, &["name", "kind", ">size", "changed", ""], &rows);
    if let Some(more) = &listing.more {
        let _ =
            writeln!(page, "{} names in all; `--after {}` shows the next", count(listing.of), clean(more));
    }
    page
}

/// What a trial found.
pub(super) fn trial(view: &View, trial: &SourceTrial) -> String {
    let verdict = match (trial.is_sound(), trial.whole) {
        (true, true) => view.paint(Tone::Good, "all of it can be read"),
        (true, false) => view.paint(Tone::Good, "what was looked at can be read"),
        (false, _) => view.paint(Tone::Bad, "some of it would not be read"),
    };
    let looked = if trial.whole { "" } else { ", cut off: there is more than was looked at" };
    let mut page = pairs(
        view,
        &[
            ("source", view.paint(Tone::Strong, &clean(&trial.source))),
            ("found", verdict),
            (
                "files",
                format!(
                    "{}, {} in {}",
                    count(trial.files),
                    bytes(trial.bytes),
                    counted(trial.folders, "folder")
                ),
            ),
            ("commit", trial.commit.as_deref().map(clean).unwrap_or_default()),
            ("not read", tally(&trial.skipped)),
            ("closed folders", if trial.closed == 0 { String::new() } else { count(trial.closed) }),
            ("passed over", if trial.passed_over == 0 { String::new() } else { count(trial.passed_over) }),
            ("took", format!("{:.1} s{looked}", trial.seconds)),
        ],
    );
    for problem in &trial.problems {
        let _ = writeln!(page, "  {}  {}", clean(&problem.what), clean(&problem.path));
    }
    page
}

/// Documents with faults.
pub(super) fn faults(view: &View, found: &SourceFaults) -> String {
    if found.documents.is_empty() {
        return format!("every document of {} was read whole\n", clean(&found.source));
    }
    let mut page = String::new();
    for document in &found.documents {
        let what = match &document.skip {
            Some(skip) => format!("not read: {}", clean(skip)),
            None => format!("read in part: {} could not be", counted(document.places, "place")),
        };
        let path = view.paint(Tone::Strong, &clean(&document.path));
        let _ = writeln!(page, "{path} ({}) {}", bytes(document.size), view.paint(Tone::Bad, &what));
        for fault in &document.faults {
            let _ = writeln!(page, "  line {}: {}", count(fault.line), clean(&fault.what));
        }
    }
    if let Some(more) = found.more {
        let _ =
            writeln!(page, "there are more: `moat source faults {} --after {more}`", clean(&found.source));
    }
    page
}
