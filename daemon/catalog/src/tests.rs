mod sources;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use moat_contracts::{
    Claim, Dataset, DatasetEntry, DatasetId, Decision, Digest, Document, DocumentId, DocumentLoss,
    DocumentState, Kind, MemoryPlan, Proof, Reason, Recipe, Record, RecordId, RecordKey, SelectionRecipe,
    Split, Survey, Sweep, SweepOrder, TextFault, Verdict,
};
use moat_vault::{Kek, Vault};

use crate::{
    Catalog, CatalogError, Known, Line, RecordFilter, Review, RunRow, Stamp, StepRow, SweepRow,
    ValidationRow, Waits, schema,
};

fn known(path: &str) -> Known {
    let digest = Digest::of(path.as_bytes());
    Known {
        document: Document {
            id: DocumentId(digest),
            source: "docs".to_owned(),
            path: path.to_owned(),
            digest,
            size: 3,
            authored: Some(7),
            readers: vec!["other".to_owned()],
            policy: "internal".to_owned(),
        },
        state: DocumentState::Present,
        skip: None,
        stamp: Stamp { device: u64::MAX, inode: 1, size: 3, modified_ns: -1, changed_ns: 2, header: digest },
        rules: Some(digest),
    }
}

fn record(known: &Known, body: &str) -> Record {
    Record {
        key: RecordKey { document: known.document.id, ordinal: 0 },
        id: Record::id_of(Kind::Prose, None, body),
        first_line: 1,
        kind: Kind::Prose,
        language: None,
        verdict: Verdict::Kept,
        reasons: Vec::new(),
        margin: None,
        redactions: Vec::new(),
        body: body.to_owned(),
        words: 1,
        signature: vec![1, u32::MAX],
    }
}

fn open() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(folder.path());
    let catalog = Catalog::open(&folder.path().join("catalog.db"), &vault).unwrap();
    (folder, catalog)
}

fn vault(folder: &Path) -> Arc<Vault> {
    std::fs::write(folder.join("moat-kek"), [7; 32]).unwrap();
    let kek = Kek::credential_in(folder).unwrap();
    Arc::new(Vault::create(&folder.join("vault"), &kek).unwrap())
}

fn kept(catalog: &Catalog) -> Vec<String> {
    let mut paths = Vec::new();
    let all = SelectionRecipe::default();
    let mut each = |row: crate::Row| {
        paths.push(row.path);
        Ok(())
    };
    catalog.each_kept(&all, &mut each).unwrap();
    paths
}

#[test]
fn a_document_comes_back_as_it_was_written() {
    let (_folder, catalog) = open();
    let written = known("a/b.txt");
    let batch = catalog.write().unwrap();
    batch.put_document(&written).unwrap();
    assert_eq!(batch.document(written.document.id).unwrap().as_ref(), Some(&written));
    batch.commit().unwrap();
    assert_eq!(catalog.document_at("docs", "a/b.txt").unwrap(), Some(written.clone()));
    assert_eq!(catalog.documents_at_inode("docs", u64::MAX, 1).unwrap(), std::slice::from_ref(&written));
    assert_eq!(catalog.documents_under("docs", "a/").unwrap(), [written]);
    assert_eq!(catalog.documents_under("docs", "a/b/").unwrap(), []);
}

#[test]
fn the_faults_of_a_document_are_replaced_and_go_with_it() {
    let (_folder, catalog) = open();
    let written = known("a.jsonl");
    let id = written.document.id;
    let fault = |line| TextFault { line, what: "not JSON".to_owned() };
    let batch = catalog.write().unwrap();
    batch.put_document(&written).unwrap();
    batch.put_faults(id, &[fault(9), fault(4)]).unwrap();
    batch.put_faults(id, &[fault(7), fault(3)]).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.faults(id).unwrap(), [fault(7), fault(3)]);
    assert_eq!(catalog.source_counts("docs").unwrap().partial, 1);
    let batch = catalog.write().unwrap();
    batch.delete_document(id).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.faults(id).unwrap(), []);
}

#[test]
fn a_batch_that_is_dropped_never_happened() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    batch.put_document(&known("a")).unwrap();
    drop(batch);
    assert_eq!(catalog.document_at("docs", "a").unwrap(), None);
    catalog.write().unwrap().commit().unwrap();
}

#[test]
fn a_sweep_tells_what_was_not_met() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    let documents: Vec<_> = ["a", "b", "c"].map(known).into();
    for known in &documents {
        batch.put_document(known).unwrap();
    }
    batch.delete_document(documents[2].document.id).unwrap();
    batch.commit().unwrap();
    let mut sweep = catalog.sweep("docs").unwrap();
    sweep.met(documents[0].document.id).unwrap();
    let mut unmet = Vec::new();
    let each = |known: Known| {
        unmet.push(known.document.path);
        Ok(())
    };
    sweep.unmet(each).unwrap();
    assert_eq!(unmet, ["b"]);
}

#[test]
fn a_text_lives_while_a_document_or_a_dataset_holds_it() {
    let (_folder, catalog) = open();
    let (a, b) = (known("a"), known("b"));
    let (shared, own) = (record(&a, "shared"), record(&b, "own"));
    let batch = catalog.write().unwrap();
    for known in [&a, &b] {
        batch.put_document(known).unwrap();
    }
    batch.put_records(a.document.id, std::slice::from_ref(&shared)).unwrap();
    let both = [record(&b, "shared"), Record { key: RecordKey { ordinal: 1, ..own.key }, ..own.clone() }];
    batch.put_records(b.document.id, &both).unwrap();
    let entry = |record: &Record| DatasetEntry {
        record: record.id,
        split: Split::Train,
        source: "docs".to_owned(),
        tokens: 2,
        bytes: 3,
    };
    let digest = Digest::of(b"x");
    let dataset = Dataset {
        id: DatasetId(digest),
        recipe: digest,
        rules: digest,
        tokenizer: digest,
        entries: vec![entry(&shared)],
        sources: BTreeMap::from([("docs".to_owned(), moat_contracts::DatasetSource::default())]),
    };
    batch.put_dataset(&dataset, 1).unwrap();
    batch.delete_document(b.document.id).unwrap();
    assert_eq!(batch.text(own.id).unwrap(), None);
    batch.delete_document(a.document.id).unwrap();
    assert_eq!(batch.text(shared.id).unwrap().as_deref(), Some("shared"));
    batch.commit().unwrap();
    assert_eq!(kept(&catalog), [""; 0]);
    assert_eq!(catalog.datasets_reached(a.document.id).unwrap(), [(DatasetId(digest), Split::Train)]);
    assert_eq!(catalog.datasets_reached(b.document.id).unwrap(), [(DatasetId(digest), Split::Train)]);
    assert_eq!(catalog.dataset(DatasetId(digest)).unwrap().unwrap().entries, dataset.entries);
    assert_eq!(catalog.datasets_with_prefix(&digest.short()).unwrap(), [DatasetId(digest)]);
}

#[test]
fn a_record_with_a_twin_is_not_kept_and_each_id_comes_once() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    let mut rows = Vec::new();
    for (path, body) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let known = known(path);
        batch.put_document(&known).unwrap();
        rows.extend(batch.put_records(known.document.id, &[record(&known, body)]).unwrap());
    }
    assert_eq!(kept(&batch).len(), 2);
    batch.set_twin(rows[2], Some((rows[0], 0.9))).unwrap();
    assert_eq!(kept(&batch), ["a"]);
    assert_eq!(batch.row(rows[2]).unwrap().effective(), Verdict::Dropped);
    batch.delete_document(known("a").document.id).unwrap();
    let counts = batch.source_counts("docs").unwrap();
    assert_eq!((counts.present, counts.deleted, counts.dropped["near_duplicate"]), (2, 1, 1));
}

#[test]
fn no_text_no_path_and_no_reader_stands_in_the_file() {
    let (folder, catalog) = open();
    let mut written = known("Termination of Mr Smith/draft 2.txt");
    written.document.readers = vec!["user:jane-the-lawyer".to_owned()];
    let body = "Mr Smith leaves on Friday, which nobody must know. ".repeat(200);
    let batch = catalog.write().unwrap();
    batch.put_document(&written).unwrap();
    batch.put_records(written.document.id, &[record(&written, &body)]).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.text(record(&written, &body).id).unwrap().as_deref(), Some(body.as_str()));
    for name in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        for secret in ["Smith", "draft 2", "Termination", "jane-the-lawyer", "Friday"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} in {name}");
        }
    }
    catalog.vault.seal();
    assert!(matches!(catalog.text(record(&written, &body).id), Err(CatalogError::Vault(_))));
    assert!(catalog.document(written.document.id).is_err());
    assert!(catalog.record_rows(written.document.id).is_err());
}

#[test]
fn documents_below_a_folder_are_found_without_any_name() {
    let (_folder, catalog) = open();
    let paths = ["a", "a.txt", "a/b", "a/b/c/d", "a/b0", "ab/c", "a/b/c/e"];
    let batch = catalog.write().unwrap();
    for path in paths {
        batch.put_document(&known(path)).unwrap();
    }
    batch.commit().unwrap();
    let under = |prefix: &str| {
        let found = catalog.documents_under("docs", prefix).unwrap();
        found.into_iter().map(|known| known.document.path).collect::<Vec<_>>()
    };
    assert_eq!(under("a/b/"), ["a/b/c/d", "a/b/c/e"]);
    assert_eq!(under("a/"), ["a/b", "a/b/c/d", "a/b0", "a/b/c/e"]);
    assert_eq!(under("").len(), paths.len());
    assert_eq!(under("b/"), Vec::<String>::new());
    assert_eq!(catalog.documents_under("wiki", "a/").unwrap(), []);
}

#[test]
fn every_key_follows_the_root_and_the_old_root_can_be_forgotten() {
    let (_folder, catalog) = open();
    let written: Vec<_> = (0..5).map(|number| known(&format!("{number}.txt"))).collect();
    let batch = catalog.write().unwrap();
    for known in &written {
        batch.put_document(known).unwrap();
        batch.put_records(known.document.id, &[record(known, &known.document.path)]).unwrap();
    }
    batch.commit().unwrap();
    let first = catalog.vault.generation().unwrap();
    catalog.vault.begin_rotation().unwrap();
    let mut rounds = 0;
    loop {
        let batch = catalog.write().unwrap();
        let moved = batch.rewrap(2).unwrap();
        batch.commit().unwrap();
        if moved == 0 {
            break;
        }
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    let batch = catalog.write().unwrap();
    let oldest = batch.oldest_root().unwrap().unwrap();
    assert!(oldest > first);
    catalog.vault.finish_rotation([oldest]).unwrap();
    for known in &written {
        let text = catalog.text(record(known, &known.document.path).id).unwrap();
        assert_eq!(text.as_deref(), Some(known.document.path.as_str()));
    }
}

#[test]
fn a_catalog_from_before_anything_was_sealed_is_refused() {
    let (folder, catalog) = open();
    catalog.connection.pragma_update(None, "application_id", 0).unwrap();
    let error = Catalog::open(&folder.path().join("catalog.db"), &catalog.vault).err().unwrap();
    assert!(matches!(error, CatalogError::Unreleased), "{error}");
}

#[test]
fn a_newer_catalog_is_refused() {
    let (folder, catalog) = open();
    catalog.connection.pragma_update(None, "user_version", 999).unwrap();
    let error = Catalog::open(&folder.path().join("catalog.db"), &catalog.vault).err().unwrap();
    assert!(matches!(error, CatalogError::Newer { found: 999, .. }));
}

#[test]
fn what_a_run_told_while_it_trained_comes_back_and_a_repeated_step_replaces_itself() {
    let (folder, catalog) = open();
    let run = RunRow {
        name: "demo-1".to_owned(),
        number: 1,
        state: "training".to_owned(),
        message: None,
        recipe: Recipe::default(),
        dataset: None,
        base: None,
        created: 0,
        outcome: None,
        edge: None,
        planned: None,
    };
    let step = |step: u64, loss: f64| StepRow {
        step,
        loss,
        gradient_norm: 0.5,
        learning_rate: 1e-4,
        tokens: 64,
        tokens_per_second: 1234.5,
        memory: 1 << 30,
        seconds_left: 9.5,
        cores: 1.5,
    };
    let look = |step: u64, loss: f64| ValidationRow { step, loss, gain: loss < 3.0 };
    let batch = catalog.write().unwrap();
    batch.put_run(&run).unwrap();
    batch.put_planned("demo-1", 600).unwrap();
    let (survey, memory) =
        (Survey { rows: 7, ..Survey::default() }, MemoryPlan { available: 5, ..MemoryPlan::default() });
    batch.put_survey("demo-1", &survey, &memory).unwrap();
    let proof = |claim, figure| Proof::of(claim, "2 tensors", figure);
    batch.put_proofs("demo-1", &[proof(Claim::Packing, 1.0), proof(Claim::Masks, 0.0)]).unwrap();
    batch.put_proofs("demo-1", &[proof(Claim::Packing, 0.0), proof(Claim::MergeTrained, 0.0)]).unwrap();
    batch.put_steps("demo-1", &[step(1, 4.0), step(2, 3.5)]).unwrap();
    batch.put_validations("demo-1", &[look(0, 4.5), look(2, 3.5)]).unwrap();
    batch.put_steps("demo-1", &[step(2, 3.25), step(3, 3.0)]).unwrap();
    batch.put_validations("demo-1", &[look(2, 2.5)]).unwrap();
    // Where a run stands is written often, and does not take what was planned back.
    batch.put_run(&RunRow { state: "evaluating".to_owned(), ..run }).unwrap();
    batch.commit().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db"), &catalog.vault).unwrap();
    assert_eq!(catalog.steps_after("demo-1", 1, 1).unwrap(), [step(2, 3.25)]);
    let joined = catalog.joined_steps("demo-1", 2).unwrap();
    assert_eq!(joined.iter().map(|row| (row.steps, row.mean.step)).collect::<Vec<_>>(), [(2, 2), (1, 3)]);
    assert_eq!(
        (joined[0].low, joined[0].mean, joined[0].high),
        (step(2, 3.25), step(2, 3.625), step(2, 4.0))
    );
    assert_eq!((joined[1].low, joined[1].high), (step(3, 3.0), step(3, 3.0)));
    assert_eq!(catalog.steps("demo-1").unwrap(), [step(1, 4.0), step(2, 3.25), step(3, 3.0)]);
    assert_eq!(catalog.validations("demo-1").unwrap(), [look(0, 4.5), look(2, 2.5)]);
    assert_eq!(catalog.last_step("demo-1").unwrap(), Some(3));
    assert_eq!(catalog.survey("demo-1").unwrap(), Some((survey, memory)));
    assert_eq!(catalog.survey("other").unwrap(), None);
    let proofs = [Claim::Masks, Claim::Packing, Claim::MergeTrained].map(|claim| proof(claim, 0.0));
    assert_eq!(catalog.proofs("demo-1").unwrap(), proofs);
    let found = catalog.run("demo-1").unwrap().unwrap();
    assert_eq!((found.planned, found.state.as_str()), (Some(600), "evaluating"));
    assert_eq!(catalog.runs().unwrap(), [found]);
    assert_eq!((catalog.steps("other").unwrap(), catalog.last_step("other").unwrap()), (Vec::new(), None));
}

/// A file of the release before runs told more than losses.
#[test]
fn the_steps_of_an_older_catalog_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    for migration in &schema::MIGRATIONS[..2] {
        old.execute_batch(migration).unwrap();
    }
    old.pragma_update(None, "application_id", schema::APPLICATION).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    let recipe = serde_json::to_string(&Recipe::default()).unwrap();
    let run = "INSERT INTO runs (name, number, state, recipe, created) VALUES ('demo-1', 1, 'done', ?1, 0)";
    old.execute(run, [recipe]).unwrap();
    old.execute("INSERT INTO steps VALUES ('demo-1', 1, 4.5, 0.5, 1e-4, 64)", []).unwrap();
    drop(old);
    let catalog = Catalog::open(&path, &vault(folder.path())).unwrap();
    assert_eq!(catalog.run("demo-1").unwrap().unwrap().planned, None);
    let steps = catalog.steps("demo-1").unwrap();
    assert_eq!((steps.len(), steps[0].loss, steps[0].tokens_per_second), (1, 4.5, 0.0));
    assert_eq!((steps[0].memory, steps[0].seconds_left, steps[0].cores), (0, 0.0, 0.0));
}

#[test]
fn a_sweep_is_written_with_its_runs_and_losses_replace_those_before() {
    let (_folder, catalog) = open();
    let run = |number: i64, dataset: Option<u8>| RunRow {
        name: format!("demo-{number}"),
        number,
        state: "queued".to_owned(),
        message: None,
        recipe: Recipe::default(),
        dataset: dataset.map(|byte| DatasetId(Digest::from_bytes([byte; 32]))),
        base: dataset.map(|byte| Digest::from_bytes([byte + 1; 32])),
        created: 0,
        outcome: None,
        edge: None,
        planned: None,
    };
    let sweep = Sweep { recipe: Recipe::default(), order: SweepOrder::Grid, runs: 0, values: Vec::new() };
    let row = SweepRow { name: "demo-sweep-1".to_owned(), number: 1, sweep, created: 5 };
    let names = ["demo-2", "demo-3"].map(ToOwned::to_owned);
    let batch = catalog.write().unwrap();
    for number in 1..=3 {
        batch.put_run(&run(number, None)).unwrap();
    }
    batch.put_sweep(&row, &names).unwrap();
    // A run belongs to one sweep at most.
    let other = SweepRow { name: "other".to_owned(), number: 2, ..row.clone() };
    assert!(batch.put_sweep(&other, &names).is_err());
    drop(batch);
    assert_eq!(catalog.sweeps().unwrap(), []);
    let batch = catalog.write().unwrap();
    for number in 1..=3 {
        batch.put_run(&run(number, None)).unwrap();
    }
    batch.put_sweep(&row, &names).unwrap();
    batch.commit().unwrap();
    assert_eq!(
        (catalog.sweeps().unwrap(), catalog.sweep_runs("demo-sweep-1").unwrap()),
        (vec![row], names.to_vec())
    );
    assert_eq!(catalog.sweep_of("demo-3").unwrap().as_deref(), Some("demo-sweep-1"));
    assert_eq!((catalog.sweep_of("demo-1").unwrap(), catalog.swept().unwrap().len()), (None, 2));
    assert_eq!(catalog.sweep_began_with("demo-3").unwrap(), None);
    let batch = catalog.write().unwrap();
    batch.put_run(&run(2, Some(7))).unwrap();
    batch.put_run(&run(1, Some(9))).unwrap();
    batch.commit().unwrap();
    let began = (DatasetId(Digest::from_bytes([7; 32])), Some(Digest::from_bytes([8; 32])));
    assert_eq!(catalog.sweep_began_with("demo-3").unwrap(), Some(began));
    assert_eq!(catalog.sweep_began_with("demo-1").unwrap(), None);

    let loss = |byte: u8, tuned_nats: f64| DocumentLoss {
        record: RecordId(Digest::from_bytes([byte; 32])),
        source: "docs".to_owned(),
        bytes: 10,
        base_nats: 3.0,
        tuned_nats,
        answers: None,
    };
    let batch = catalog.write().unwrap();
    batch.put_losses("demo-2", &[loss(2, 1.5), loss(1, 2.5)]).unwrap();
    batch.put_losses("demo-3", &[loss(1, 9.0)]).unwrap();
    batch.put_losses("demo-2", &[loss(3, 0.5), loss(1, 2.0)]).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.losses("demo-2").unwrap(), [loss(1, 2.0), loss(3, 0.5)]);
    assert_eq!(catalog.losses("demo-1").unwrap(), []);
}

const LINE: Line = Line { margin: 0.1, redacted: true, sample: 1.0 };

fn decided(decision: Decision) -> Review {
    Review { decision, who: "ada".to_owned(), at: 7 }
}

#[test]
fn what_waits_for_a_person_waits_once_and_until_somebody_decided() {
    let (_folder, catalog) = open();
    let known: Vec<_> = ["a", "b", "c", "d", "e"].map(known).into();
    let reason =
        |rule: &str| Reason { rule: rule.to_owned(), measured: Some(1.0), limit: Some(2.0), line: None };
    let dropped = |index: usize, margin| Record {
        verdict: Verdict::Dropped,
        reasons: vec![reason("min_words")],
        margin,
        ..record(&known[index], &format!("dropped {margin:?}"))
    };
    let kept = record(&known[0], "kept");
    let (near, far, forced) = (dropped(1, Some(0.05)), dropped(2, Some(0.5)), dropped(3, None));
    let redacted = Record { verdict: Verdict::Redacted, ..record(&known[4], "redacted [EMAIL_1]") };
    let batch = catalog.write().unwrap();
    for (known, record) in known.iter().zip([&kept, &near, &far, &forced, &redacted]) {
        batch.put_document(known).unwrap();
        batch.put_records(known.document.id, std::slice::from_ref(record)).unwrap();
    }
    batch.commit().unwrap();
    let queue = |line: &Line| {
        let mut all = Vec::new();
        // One by one, as a person goes through them.
        while let [next] = catalog.waiting(line, all.last().copied(), 1).unwrap()[..] {
            assert_eq!(catalog.waits(line, next.id).unwrap(), Some(next.why));
            all.push((next.why, next.id));
        }
        assert_eq!(catalog.waiting_count(line, 99).unwrap(), all.len() as u64);
        all
    };
    let all = [(Waits::Borderline, near.id), (Waits::Redacted, redacted.id), (Waits::Sample, kept.id)];
    assert_eq!(queue(&LINE), all);
    assert_eq!(queue(&Line { margin: 0.0, redacted: false, ..LINE }), all[2..]);
    assert_eq!(queue(&Line { sample: 0.0, ..LINE }), all[..2]);
    assert_eq!(catalog.waiting_count(&LINE, 2).unwrap(), 2);
    assert_eq!(catalog.waits(&LINE, far.id).unwrap(), None);
    assert_eq!(kept_ids(&catalog), sorted([kept.id, redacted.id]));

    // Who is kept against the rules is kept, but for what detectors dropped; who is dropped is dropped.
    let batch = catalog.write().unwrap();
    for (record, decision) in
        [(&near, Decision::Keep), (&forced, Decision::Keep), (&redacted, Decision::Drop)]
    {
        batch.put_review(record.id, &decided(decision)).unwrap();
    }
    batch.commit().unwrap();
    assert_eq!(queue(&LINE), all[2..]);
    assert_eq!(kept_ids(&catalog), sorted([kept.id, near.id]));
    let counts = catalog.source_counts("docs").unwrap();
    assert_eq!((counts.verdicts["kept"], counts.verdicts["dropped"], counts.dropped["review"]), (2, 3, 1));
    let filter = |verdict| RecordFilter { verdict: Some(verdict), ..RecordFilter::default() };
    for (verdict, number) in [(Verdict::Kept, 2), (Verdict::Redacted, 0), (Verdict::Dropped, 3)] {
        assert_eq!(catalog.count_filtered(&filter(verdict)).unwrap(), number);
        for (row, _) in catalog.next_filtered(&filter(verdict), 0, 9).unwrap() {
            assert_eq!(catalog.row(row).unwrap().effective(), verdict);
        }
    }
    let rule = RecordFilter { rule: Some("min_words".to_owned()), ..RecordFilter::default() };
    assert_eq!(catalog.count_filtered(&rule).unwrap(), 3);

    // The same text in another place is decided; another text is not.
    let batch = catalog.write().unwrap();
    let moved = Record { key: RecordKey { document: known[0].document.id, ordinal: 0 }, ..redacted.clone() };
    batch.put_records(known[0].document.id, &[moved]).unwrap();
    let changed = Record { verdict: Verdict::Redacted, ..record(&known[4], "redacted [EMAIL_1], and more") };
    batch.put_records(known[4].document.id, std::slice::from_ref(&changed)).unwrap();
    batch.commit().unwrap();
    assert_eq!(queue(&LINE), [(Waits::Redacted, changed.id)]);
    assert_eq!(kept_ids(&catalog), sorted([near.id, changed.id]));
    let batch = catalog.write().unwrap();
    assert!(batch.remove_review(redacted.id).unwrap() && !batch.remove_review(redacted.id).unwrap());
    batch.commit().unwrap();
    assert_eq!(queue(&LINE).len(), 2);
}

fn sorted<const N: usize>(mut ids: [RecordId; N]) -> Vec<RecordId> {
    ids.sort_unstable();
    ids.into()
}

fn kept_ids(catalog: &Catalog) -> Vec<RecordId> {
    let mut ids = Vec::new();
    let each = |row: crate::Row| {
        ids.push(row.id);
        Ok(())
    };
    catalog.each_kept(&SelectionRecipe::default(), each).unwrap();
    ids
}

#[test]
fn a_review_that_was_written_behind_moats_back_does_not_count() {
    let (_folder, catalog) = open();
    let known = known("a");
    let kept = record(&known, "kept");
    let batch = catalog.write().unwrap();
    batch.put_document(&known).unwrap();
    batch.put_records(known.document.id, std::slice::from_ref(&kept)).unwrap();
    batch.put_review(kept.id, &decided(Decision::Keep)).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.review(kept.id).unwrap(), Some(decided(Decision::Keep)));
    assert_eq!(catalog.reviews(9).unwrap(), [(kept.id, decided(Decision::Keep), 1)]);
    catalog.connection.execute("UPDATE reviews SET decision = 'drop'", []).unwrap();
    assert!(matches!(catalog.review(kept.id), Err(CatalogError::Damaged { .. })));
    assert!(catalog.record_rows(known.document.id).is_err());
}

#[test]
fn a_record_is_found_by_the_beginning_of_its_id() {
    let (_folder, catalog) = open();
    let known = known("a");
    let records: Vec<_> = (0..40).map(|number| record(&known, &number.to_string())).collect();
    let records = (0..)
        .zip(records)
        .map(|(ordinal, record)| Record { key: RecordKey { ordinal, ..record.key }, ..record });
    let records: Vec<_> = records.collect();
    let batch = catalog.write().unwrap();
    batch.put_document(&known).unwrap();
    batch.put_records(known.document.id, &records).unwrap();
    batch.commit().unwrap();
    for record in &records {
        let id = record.id.to_string();
        assert_eq!(catalog.records_with_prefix(&id[..20]).unwrap(), [record.id]);
        assert_eq!(catalog.records_with_prefix(&id.to_uppercase()).unwrap(), [record.id]);
    }
    for wrong in ["", "x", &"0".repeat(65)] {
        assert!(catalog.records_with_prefix(wrong).unwrap().is_empty());
    }
    let ordinals: Vec<_> =
        catalog.rows_between(known.document.id, 3, 5).unwrap().iter().map(|row| row.key.ordinal).collect();
    assert_eq!((ordinals, catalog.records_of(known.document.id).unwrap()), (vec![3, 4, 5], 40));
}

#[test]
fn documents_with_faults_are_told_part_by_part() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    let of = |at: u8| Known {
        state: if at % 3 == 1 { DocumentState::Skipped } else { DocumentState::Present },
        skip: (at % 3 == 1).then_some(moat_contracts::Skip::Binary),
        ..known(&format!("{at}.txt"))
    };
    for at in 0..9 {
        let known = of(at);
        batch.put_document(&known).unwrap();
        let faults =
            (0..if at % 3 == 2 { 30 } else { 0 }).map(|line| TextFault { line, what: "torn".to_owned() });
        batch.put_faults(known.document.id, &faults.collect::<Vec<_>>()).unwrap();
    }
    batch.commit().unwrap();
    let all = catalog.faulty("docs", 0, 100).unwrap();
    let paths: Vec<_> = all.iter().map(|faulty| faulty.path.as_str()).collect();
    assert_eq!(paths, ["1.txt", "2.txt", "4.txt", "5.txt", "7.txt", "8.txt"]);
    assert_eq!((all[0].skip, all[0].places), (Some(moat_contracts::Skip::Binary), 0));
    assert_eq!((all[1].skip, all[1].places, all[1].faults.len()), (None, 30, 20));
    let first = catalog.faulty("docs", 0, 2).unwrap();
    let rest = catalog.faulty("docs", first[1].number, 100).unwrap();
    assert_eq!([first, rest].concat(), all);
    assert_eq!(catalog.faulty("other", 0, 9).unwrap(), []);
    assert_eq!(catalog.newest_step("none").unwrap(), None);
}
