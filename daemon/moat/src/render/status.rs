use std::fmt::Write;

use moat_protocol::control::{Canary, SourceStatus, Status};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, count, counted, duration, tally};
use super::{Tone, View, vault};

/// How everything stands.
pub(super) fn status(view: &View, status: &Status) -> String {
    let (had, lacking): (Vec<_>, Vec<_>) = status.protections.iter().partition(|(_, had)| **had);
    let names =
        |list: Vec<(&String, &bool)>| list.iter().map(|(name, _)| clean(name)).collect::<Vec<_>>().join(", ");
    let mut page = pairs(
        view,
        &[
            ("moatd", format!("{}, up {}", clean(&status.version), duration(status.uptime))),
            (
                "ALARM",
                status.alarm.as_deref().map(|alarm| view.paint(Tone::Bad, &clean(alarm))).unwrap_or_default(),
            ),
            ("vault", vault::line(view, &status.seal)),
            ("canary", canary(view, &status.canary)),
            ("ledger", vault::entries(status.ledger)),
            (
                "waiting",
                match status.waiting {
                    0 => String::new(),
                    waiting => {
                        format!("{} for a second person: `moat statement list`", counted(waiting, "request"))
                    }
                },
            ),
            ("rules", status.rules.map(|rules| rules.short()).unwrap_or_default()),
            ("protected by", names(had)),
            ("not protected", names(lacking)),
            ("active runs", status.active_runs.iter().map(|run| clean(run)).collect::<Vec<_>>().join(", ")),
        ],
    );
    if status.seal.sealed {
        return page;
    }
    if status.sources.is_empty() {
        page.push_str("\nno sources: add a [[source]] to moat.toml and restart moatd\n");
        return page;
    }
    let mut headings = vec![
        "source",
        "kind",
        ">documents",
        ">size",
        ">kept",
        ">redacted",
        ">dropped",
        ">skipped",
        ">deleted",
    ];
    headings.push("scanned");
    let rows: Vec<_> = status.sources.iter().map(|(name, source)| row(view, name, source)).collect();
    page.push('\n');
    page.push_str(&table(view, &headings, &rows));
    for (name, source) in &status.sources {
        page.push_str(&details(view, name, source));
    }
    page
}

/// What the canaries found, in one line.
fn canary(view: &View, canary: &Canary) -> String {
    let Some(flown) = canary.flown else { return String::new() };
    let open = canary.ways.values().filter(|(_, open)| *open > 0).count() as u64;
    let ways = counted(canary.ways.len() as u64, "way");
    let found = if open == 0 {
        view.paint(Tone::Good, "none open")
    } else {
        view.paint(Tone::Bad, &format!("{} WAS OPEN", count(open)))
    };
    format!("{ways} out tried, {found}, last {}", view.time(flown))
}

fn row(view: &View, name: &str, source: &SourceStatus) -> Vec<Cell> {
    let verdict = |word: &str| count(source.verdicts.get(word).copied().unwrap_or(0));
    let scanned = match (source.paused, source.scanning, source.scanned) {
        (Some(_), ..) => "paused".to_owned(),
        (_, true, _) => "now".to_owned(),
        (_, false, Some(time)) => view.time(time),
        (_, false, None) => "never".to_owned(),
    };
    vec![
        Cell::toned(clean(name), Tone::Strong),
        clean(&source.kind).into(),
        count(source.present).into(),
        bytes(source.bytes).into(),
        verdict("kept").into(),
        verdict("redacted").into(),
        verdict("dropped").into(),
        count(source.skipped.values().sum()).into(),
        count(source.deleted).into(),
        scanned.into(),
    ]
}

fn details(view: &View, name: &str, source: &SourceStatus) -> String {
    let mut page = format!("\n{} {}\n", view.paint(Tone::Strong, &clean(name)), clean(&source.location));
    if let Some(fault) = &source.fault {
        let line = format!("the last scan failed: {}", clean(fault));
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(page, "  {}", view.paint(Tone::Bad, &line));
    }
    if source.partial > 0 {
        let documents = counted(source.partial, "document");
        let _ = writeln!(page, "  {documents} could be read only in part: `moat why` tells the lines");
    }
    let lists = [
        ("dropped", &source.dropped, "records"),
        ("redacted", &source.redactions, "places"),
        ("skipped", &source.skipped, "documents"),
    ];
    for (what, counts, noun) in lists {
        let tally = tally(counts);
        if !tally.is_empty() {
            let _ = writeln!(page, "  {noun} {what}: {tally}");
        }
    }
    page
}
