//! One record with its text, beside the document that it comes from.

use std::collections::BTreeMap;

use moat_catalog::{Catalog, Row};
use moat_contracts::{RecordId, Redaction};
use moat_curate::spans;
use moat_protocol::control::{Mark, Near, Piece, RecordShown, Reply, ShownDocument, ShownText};

use super::{reviews, why};
use crate::daemon::Daemon;
use crate::failure::Failure;

/// Bytes of a record's text that are told, and of each text around it.
const WHOLE: usize = 256 << 10;
const BESIDE: usize = 8 << 10;
/// Texts of the document before and after the record's own.
const AROUND: u32 = 3;
/// Near-duplicates, and other documents, that are told.
const SOME: usize = 50;

/// The record that an id or its beginning names.
pub(crate) fn find(catalog: &Catalog, id: &str) -> Result<RecordId, Failure> {
    match catalog.records_with_prefix(id)?.as_slice() {
        [] => Err(Failure::request("there is no record of this id: `moat record search` finds records")),
        [id] => Ok(*id),
        _ => Err(Failure::request("several records' ids begin so: give more of it")),
    }
}

/// The record of an id that is shown, of those that hold the same text: the one that may go into datasets, else the first.
pub(crate) fn one_of(catalog: &Catalog, id: RecordId) -> Result<Option<Row>, Failure> {
    let mut first = None;
    for row in catalog.rows_with_id(id)?.into_iter().take(SOME) {
        let row = catalog.row(row)?;
        if row.twin.is_none() {
            return Ok(Some(row));
        }
        first.get_or_insert(row);
    }
    Ok(first)
}

/// One record.
pub(crate) fn show(daemon: &Daemon, id: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let id = find(&catalog, id)?;
    let gone = || Failure::request("the text of this record is gone: its document was changed or deleted");
    let (body, kind) = catalog.text_and_kind(id)?.ok_or_else(gone)?;
    let row = one_of(&catalog, id)?;
    let (reasons, twin) = match &row {
        Some(row) => why::reasons(&catalog, row)?,
        None => (Vec::new(), None),
    };
    let mut redactions = BTreeMap::new();
    for redaction in row.iter().flat_map(|row| &row.redactions) {
        *redactions.entry(redaction.label.clone()).or_default() += 1;
    }
    let (near, near_count) = near(&catalog, id)?;
    let document = row.as_ref().map(|row| document(&catalog, row, &body)).transpose()?.flatten();
    let mut elsewhere = catalog.paths_of(id)?;
    if let Some(row) = &row {
        elsewhere.retain(|(source, path)| (source, path) != (&row.source, &row.path));
    }
    elsewhere.truncate(SOME);
    Ok(Reply::Record(Box::new(RecordShown {
        record: id.0,
        kind: kind.word().to_owned(),
        language: row.as_ref().and_then(|row| row.language.clone()),
        words: row.as_ref().map_or(0, |row| row.words),
        bytes: body.len() as u64,
        text: pieces(&body, &[], 1, WHOLE),
        verdict: row.as_ref().map(|row| row.effective().word().to_owned()),
        reasons,
        redactions,
        review: catalog.review(id)?.as_ref().map(reviews::told),
        waits: catalog.waits(&reviews::line(daemon), id)?.map(|why| reviews::word(why).to_owned()),
        may_be_kept: row.as_ref().is_some_and(Row::may_be_kept),
        twin,
        near,
        near_count,
        document,
        elsewhere,
        reached: why::reached(&catalog, catalog.datasets_with(id)?)?,
    })))
}

fn near(catalog: &Catalog, id: RecordId) -> Result<(Vec<Near>, u64), Failure> {
    let (groups, count) = catalog.near(id, SOME)?;
    let survivor = match groups.first() {
        Some(group) => catalog.cluster(group.cluster)?.map(|cluster| cluster.survivor),
        None => None,
    };
    let near = groups.into_iter().map(|group| {
        let place = catalog.place(group.first)?.map(|(source, path, _)| (source, path));
        let similarity = group.shown.map(|(_, similarity)| similarity);
        Ok(Near { record: group.id.0, place, similarity, survives: survivor == Some(group.first) })
    });
    Ok((near.collect::<Result<_, Failure>>()?, count))
}

/// The document of a record, with what extraction took out of it around the record.
fn document(catalog: &Catalog, row: &Row, body: &str) -> Result<Option<ShownDocument>, Failure> {
    let Some(known) = catalog.document(row.key.document)? else { return Ok(None) };
    let ordinal = row.key.ordinal;
    let rows = catalog.rows_between(
        row.key.document,
        ordinal.saturating_sub(AROUND),
        ordinal.saturating_add(AROUND),
    )?;
    let mut around = Vec::with_capacity(rows.len());
    for other in rows {
        let here = other.row == row.row;
        let text = if here { Some(body.to_owned()) } else { catalog.text(other.id)? };
        let room = if here { WHOLE } else { BESIDE };
        around.push(ShownText {
            record: other.id.0,
            first_line: other.first_line,
            verdict: other.effective().word().to_owned(),
            here,
            text: pieces(&text.unwrap_or_default(), &other.redactions, other.first_line, room),
        });
    }
    let texts = catalog.records_of(row.key.document)?;
    let (source, path, size) = (row.source.clone(), row.path.clone(), known.document.size);
    Ok(Some(ShownDocument { source, path, size, texts, around }))
}

/// A text in pieces, with the labels of what was replaced apart; cut where there is too much.
fn pieces(body: &str, redactions: &[Redaction], first_line: u64, room: usize) -> Vec<Piece> {
    let end = body.floor_char_boundary(room);
    let mut pieces = Vec::new();
    let (mut at, mut line) = (0, first_line);
    let plain = |text: &str| Piece { text: text.to_owned(), mark: None };
    for span in spans(body, redactions).into_iter().take_while(|span| span.end <= end) {
        line += body[at..span.start].matches('\n').count() as u64;
        if at < span.start {
            pieces.push(plain(&body[at..span.start]));
        }
        let redaction = &redactions[span.redaction];
        let mark = Mark::Replaced { label: redaction.label.clone(), length: redaction.length, line };
        pieces.push(Piece { text: body[span.start..span.end].to_owned(), mark: Some(mark) });
        at = span.end;
    }
    if at < end {
        pieces.push(plain(&body[at..end]));
    }
    if end < body.len() {
        pieces.push(Piece { text: "…".to_owned(), mark: Some(Mark::Cut) });
    }
    pieces
}
