use moat_protocol::control::{BackedUp, Base, Exported, Statement};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, counted, parameters};
use super::{Tone, View};

/// A base that was taken in.
pub(super) fn imported(view: &View, base: &Base) -> String {
    pairs(
        view,
        &[
            ("base", view.paint(Tone::Strong, &clean(&base.name))),
            ("family", clean(&base.family)),
            ("parameters", parameters(base.parameters)),
            ("weights", bytes(base.bytes)),
            ("chat", yes(base.chat).to_owned()),
            ("sha256", base.hash.to_string()),
        ],
    )
}

/// All bases.
pub(super) fn bases(view: &View, bases: &[Base]) -> String {
    if bases.is_empty() {
        return "no bases: `moat base import DIR` takes one in\n".to_owned();
    }
    let row = |base: &Base| {
        vec![
            Cell::toned(clean(&base.name), Tone::Strong),
            clean(&base.family).into(),
            parameters(base.parameters).into(),
            bytes(base.bytes).into(),
            yes(base.chat).into(),
            base.hash.short().into(),
        ]
    };
    let rows: Vec<_> = bases.iter().map(row).collect();
    table(view, &["base", "family", ">parameters", ">weights", "chat", "sha256"], &rows)
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// What an export wrote.
pub(super) fn exported(view: &View, exported: &Exported) -> String {
    let row = |(path, digest): (&String, &moat_contracts::Digest)| {
        vec![Cell::from(clean(path)), Cell::toned(digest.short(), Tone::Faint)]
    };
    let rows: Vec<_> = exported.files.iter().map(row).collect();
    let folder = clean(&exported.folder);
    let Statement { requester, approver, .. } = &*exported.statement;
    let agreed = format!(
        "asked for by {}, agreed to by {}",
        clean(requester),
        approver.as_deref().map(clean).unwrap_or_default()
    );
    let table = table(view, &["file", "sha256"], &rows);
    format!(
        "{}\n{agreed}\n{table}\n`moat verify {folder}` checks it at any time\n",
        view.paint(Tone::Strong, &folder)
    )
}

/// What a backup holds.
pub(super) fn backed_up(view: &View, made: &BackedUp) -> String {
    let folder = clean(&made.folder);
    format!(
        "{}\n{}, {}, sealed; sha256 of its sums {}\n`moat verify {folder}` checks it, `moat restore {folder} STATE` puts it \
         back; what opens the vault is not in it\n",
        view.paint(Tone::Strong, &folder),
        counted(made.files, "file"),
        bytes(made.bytes),
        made.hash.short()
    )
}
