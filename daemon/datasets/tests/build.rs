//! Datasets out of real catalogs, with the tiny base's tokenizer.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_catalog::{Catalog, Known, Stamp};
use moat_contracts::{
    Dataset, Digest, Document, DocumentId, DocumentState, Kind, Recipe, Record, RecordId, RecordKey, Split,
    SplitRecipe, Verdict,
};
use moat_datasets::{DatasetError, LeftOut, build, diff, manifest, parse, seen};
use moat_template::BaseText;
use moat_vault::{Kek, Vault};
use proptest::prelude::*;

struct Entry {
    path: String,
    kind: Kind,
    body: String,
    signature: Vec<u32>,
    authored: Option<i64>,
}

fn prose(number: u64) -> Entry {
    let body = format!("The thing number {number} in there.");
    Entry {
        path: format!("{number}.txt"),
        kind: Kind::Prose,
        signature: signature(number),
        authored: None,
        body,
    }
}

/// A signature that no other seed's resembles.
fn signature(seed: u64) -> Vec<u32> {
    let value = |place: u64| {
        let digest = Digest::of_parts(&[&seed.to_le_bytes(), &place.to_le_bytes()]);
        digest.as_bytes()[..4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
    };
    (0..112).map(value).collect()
}

fn catalog(entries: &[Entry]) -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db"), &vault(folder.path())).unwrap();
    let batch = catalog.write().unwrap();
    for entry in entries {
        let digest = Digest::of(entry.path.as_bytes());
        let id = DocumentId(digest);
        let size = entry.body.len() as u64;
        let document = Document {
            id,
            source: "docs".to_owned(),
            path: entry.path.clone(),
            digest,
            size,
            authored: entry.authored,
            readers: vec!["other".to_owned()],
            policy: "internal".to_owned(),
        };
        let stamp = Stamp { device: 1, inode: 1, size, modified_ns: 0, changed_ns: 0, header: digest };
        let known = Known { document, state: DocumentState::Present, skip: None, stamp, rules: Some(digest) };
        batch.put_document(&known).unwrap();
        let record = Record {
            key: RecordKey { document: id, ordinal: 0 },
            id: Record::id_of(entry.kind, None, &entry.body),
            first_line: 1,
            kind: entry.kind,
            language: None,
            verdict: Verdict::Kept,
            reasons: Vec::new(),
            margin: None,
            redactions: Vec::new(),
            body: entry.body.clone(),
            words: 6,
            signature: entry.signature.clone(),
        };
        batch.put_records(id, &[record]).unwrap();
    }
    batch.commit().unwrap();
    (folder, catalog)
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny")
}

fn built(entries: &[Entry], recipe: &Recipe) -> Result<(Dataset, LeftOut), DatasetError> {
    let (_folder, catalog) = catalog(entries);
    let mut told = Vec::new();
    let mut progress = |done, of| told.push((done, of));
    let built = build(&catalog, recipe, Digest::of(b"rules"), &base(), &mut progress)?;
    let of = built.dataset.entries.len() as u64 + built.left_out.unlearnable;
    assert_eq!((told[0], told[told.len() - 1]), ((0, of), (of, of)));
    Ok((built.dataset, built.left_out))
}

fn sides(dataset: &Dataset) -> BTreeMap<RecordId, Split> {
    dataset.entries.iter().map(|entry| (entry.record, entry.split)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_and_the_paths_of_documents_do_not_matter(
        order in Just((0..30u64).collect::<Vec<_>>()).prop_shuffle(),
        seed in 0u64..5,
    ) {
        let recipe = Recipe { seed, ..Recipe::default() };
        let straight: Vec<Entry> = (0..30).map(prose).collect();
        let shuffled = order.iter().enumerate();
        let shuffled: Vec<Entry> =
            shuffled.map(|(place, number)| Entry { path: format!("{place}/x"), ..prose(*number) }).collect();
        let (first, second) = (built(&straight, &recipe).unwrap().0, built(&shuffled, &recipe).unwrap().0);
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(first.id.0, Digest::of(manifest(&first).as_bytes()));
        prop_assert_eq!(&parse(&manifest(&first)).unwrap(), &first);
    }

    #[test]
    fn near_duplicates_are_never_on_both_sides(
        copies in prop::collection::vec((0u64..6, prop::collection::vec((0usize..112, any::<u32>()), 0..40)), 12..40),
        seed in 0u64..100,
        validation in prop::sample::select(vec![0.0, 0.4]),
    ) {
        let copy = |(number, (original, changes)): (usize, (u64, Vec<(usize, u32)>))| {
            let mut entry = prose(number as u64);
            entry.signature = signature(original);
            changes.into_iter().for_each(|(place, value)| entry.signature[place] = value);
            entry
        };
        let entries: Vec<Entry> = copies.into_iter().enumerate().map(copy).collect();
        let mut recipe = Recipe { seed, ..Recipe::default() };
        recipe.split.held_out = 0.4;
        recipe.split.validation = validation;
        match built(&entries, &recipe) {
            Ok((dataset, _)) => {
                let sides = sides(&dataset);
                for left in &entries {
                    for right in &entries {
                        let pairs = left.signature.iter().zip(&right.signature);
                        if pairs.filter(|(left, right)| left == right).count() >= 79 {
                            let id = |entry: &Entry| Record::id_of(entry.kind, None, &entry.body);
                            prop_assert_eq!(sides[&id(left)], sides[&id(right)]);
                        }
                    }
                }
            }
            Err(error) => {
                let too_few = matches!(
                    error,
                    DatasetError::TooFew { groups: 1, .. } | DatasetError::NoValidation { groups: 1 }
                );
                prop_assert!(too_few);
            }
        }
    }
}

#[test]
fn a_changed_record_changes_the_id_and_the_diff_names_it() {
    let recipe = Recipe::default();
    let mut entries: Vec<Entry> = (0..40).map(prose).collect();
    let (before, _) = built(&entries, &recipe).unwrap();
    entries[7].body.push_str(" Changed.");
    let (after, _) = built(&entries, &recipe).unwrap();
    assert_ne!(before.id, after.id);
    let difference = diff(&before, &after);
    assert!(difference.same_recipe && difference.same_rules && difference.same_tokenizer);
    let new = Record::id_of(Kind::Prose, None, &entries[7].body);
    assert_eq!(difference.added.iter().map(|entry| entry.record).collect::<Vec<_>>(), [new]);
    let old = Record::id_of(Kind::Prose, None, &prose(7).body);
    assert_eq!(difference.removed.iter().map(|entry| entry.record).collect::<Vec<_>>(), [old]);
    assert_eq!(difference.moved, []);

    let other_seed = Recipe { seed: 2, ..recipe };
    let (reseeded, _) = built(&entries, &other_seed).unwrap();
    let difference = diff(&after, &reseeded);
    assert!(!difference.same_recipe && difference.added.is_empty() && difference.removed.is_empty());
    let moved =
        after.entries.iter().zip(&reseeded.entries).filter(|(old, new)| old.split != new.split).count();
    assert_eq!(difference.moved.len(), moved);
    assert!(moved > 0);
}

#[test]
fn the_held_out_share_is_near_the_recipe_s() {
    let entries: Vec<Entry> = (0..2000).map(prose).collect();
    for share in [0.1, 0.3] {
        let mut recipe = Recipe::default();
        recipe.split.held_out = share;
        let (dataset, _) = built(&entries, &recipe).unwrap();
        let held = dataset.sources["docs"].held_out.records as f64 / 2000.0;
        // Five standard deviations of a binomial share.
        assert!((held - share).abs() < 5.0 * (share * (1.0 - share) / 2000.0).sqrt(), "{held} for {share}");
    }
}

#[test]
fn a_validation_side_is_taken_from_the_training_side_alone() {
    let entries: Vec<Entry> = (0..1000).map(prose).collect();
    let (plain, _) = built(&entries, &Recipe::default()).unwrap();
    assert!(!manifest(&plain).contains("validation") && plain.sources["docs"].validation.is_empty());
    let mut recipe = Recipe::default();
    recipe.split.validation = 0.2;
    let (dataset, _) = built(&entries, &recipe).unwrap();
    assert_ne!(dataset.id, plain.id);
    assert_eq!(parse(&manifest(&dataset)).unwrap(), dataset);
    for (with, without) in dataset.entries.iter().zip(&plain.entries) {
        assert_eq!(with.split == Split::HeldOut, without.split == Split::HeldOut);
    }
    let counts = dataset.sources["docs"];
    let left = plain.sources["docs"].train.records as f64;
    assert_eq!(counts.train.records + counts.validation.records, plain.sources["docs"].train.records);
    let share = counts.validation.records as f64 / left;
    assert!((share - 0.2).abs() < 5.0 * (0.16_f64 / left).sqrt(), "{share}");

    // With a day as well: what came after it is never chosen by.
    let mut timed: Vec<Entry> = (0..40).map(prose).collect();
    timed
        .iter_mut()
        .enumerate()
        .for_each(|(at, entry)| entry.authored = Some(if at < 30 { 0 } else { 1 << 40 }));
    recipe.split.train_before = Some("2000-01-01".to_owned());
    let (dataset, _) = built(&timed, &recipe).unwrap();
    let counts = dataset.sources["docs"];
    assert_eq!((counts.train.records + counts.validation.records, counts.held_out.records), (30, 10));
    assert!(counts.validation.records > 0 && counts.train.records > 0);

    recipe.split.train_before = None;
    for seed in 0..20 {
        recipe.seed = seed;
        let entries = [prose(1), prose(2), prose(3)];
        let plain =
            Recipe { split: SplitRecipe { validation: 0.0, ..recipe.split.clone() }, ..recipe.clone() };
        let left = built(&entries, &plain).unwrap().0.sources["docs"].train.records;
        match built(&entries, &recipe) {
            Ok((dataset, _)) => {
                let counts = dataset.sources["docs"];
                assert_eq!((left, counts.train.records, counts.validation.records), (2, 1, 1));
            }
            Err(error) => assert!(left == 1 && matches!(error, DatasetError::NoValidation { groups: 1 })),
        }
    }
    let error = built(&[prose(1), prose(2)], &recipe).unwrap_err();
    assert!(matches!(error, DatasetError::NoValidation { groups: 1 }), "{error}");
}

#[test]
fn what_was_trained_on_before_and_its_near_duplicates_tell_nothing_held_back() {
    let mut entries: Vec<Entry> = (0..40).map(prose).collect();
    let mut recipe = Recipe::default();
    recipe.split.held_out = 0.4;
    recipe.selection.kinds = vec![Kind::Prose];
    let (dataset, _) = built(&entries, &recipe).unwrap();
    let held: Vec<RecordId> =
        dataset.entries.iter().filter(|e| e.split == Split::HeldOut).map(|e| e.record).collect();
    let id = |entry: &Entry| Record::id_of(entry.kind, None, &entry.body);
    let place = entries.iter().position(|entry| id(entry) == held[0]).unwrap();
    // Another form of a held-back record, which an earlier run's selection took.
    let twin = Entry { kind: Kind::Markdown, signature: entries[place].signature.clone(), ..prose(100) };
    let trained = id(&twin);
    entries.push(twin);
    let (_folder, catalog) = catalog(&entries);
    let told = |records: &[RecordId]| seen(&catalog, &dataset, &records.iter().copied().collect()).unwrap();
    assert_eq!(told(&[]), BTreeSet::new());
    assert_eq!(told(&[trained]), BTreeSet::from([held[0]]));
    assert_eq!(told(&[held[1], Record::id_of(Kind::Prose, None, "long gone")]), BTreeSet::from([held[1]]));
    let train = dataset.entries.iter().find(|entry| entry.split == Split::Train).unwrap().record;
    assert_eq!(told(&[train]), BTreeSet::new());
}

#[test]
fn tokens_are_those_of_the_base_and_a_chat_s_are_its_messages() {
    let mut entries: Vec<Entry> = (0..3).map(prose).collect();
    let body = r#"[{"role":"user","content":"the end"},{"role":"assistant","content":"in"}]"#;
    entries[0] = Entry { kind: Kind::Chat, body: body.to_owned(), ..prose(0) };
    let (dataset, left_out) = built(&entries, &Recipe::default()).unwrap();
    assert_eq!(left_out, LeftOut::default());
    let text = BaseText::load(&base()).unwrap();
    assert_eq!(dataset.tokenizer, text.hash());
    let id = Record::id_of(Kind::Chat, None, body);
    let chat = dataset.entries.iter().find(|entry| entry.record == id).unwrap();
    assert_eq!(chat.tokens as usize, text.encode("the end").unwrap().len() + 1);
    assert_eq!(chat.bytes as usize, body.len());
    entries[0].body = "no list".to_owned();
    let error = built(&entries, &Recipe::default()).unwrap_err();
    assert!(matches!(error, DatasetError::Chat { .. }) && !error.to_string().contains("no list"));
}

#[test]
fn a_chat_that_the_base_cannot_learn_is_left_out_and_counted() {
    let mut entries: Vec<Entry> = (0..6).map(prose).collect();
    let (whole, _) = built(&entries[..4], &Recipe::default()).unwrap();
    let turn = r#"[{"role":"user","content":"the <|end|>"},{"role":"assistant","content":"in"}]"#;
    let question = r#"[{"role":"user","content":"the end"}]"#;
    for (entry, body) in entries[4..].iter_mut().zip([turn, question]) {
        (entry.kind, entry.body) = (Kind::Chat, body.to_owned());
    }
    let (dataset, left_out) = built(&entries, &Recipe::default()).unwrap();
    assert_eq!((left_out.unlearnable, dataset.entries.len()), (2, 4));
    assert_eq!(dataset.id, whole.id);
    let error = built(&entries[3..], &Recipe::default()).unwrap_err();
    assert!(
        matches!(error, DatasetError::Unlearnable { left_out: 2, .. })
            && !error.to_string().contains("the end")
    );
}

#[test]
fn both_sides_have_records_or_the_error_says_what_is_missing() {
    for seed in 0..20 {
        let recipe = Recipe { seed, ..Recipe::default() };
        let (dataset, _) = built(&[prose(1), prose(2)], &recipe).unwrap();
        let source = dataset.sources["docs"];
        assert_eq!((source.train.records, source.held_out.records), (1, 1));
    }
    let twins = [prose(1), Entry { signature: signature(1), ..prose(2) }];
    let error = built(&twins, &Recipe::default()).unwrap_err();
    assert!(matches!(error, DatasetError::TooFew { records: 2, groups: 1 }));
    assert!(matches!(built(&[], &Recipe::default()), Err(DatasetError::TooFew { records: 0, groups: 0 })));
}

#[test]
fn a_time_split_trains_on_the_past_only() {
    let day = 951_782_400; // 2000-02-29
    let mut entries: Vec<Entry> = (0..5).map(prose).collect();
    let times = [Some(day - 1), Some(day), Some(day + 9), None, Some(0)];
    entries.iter_mut().zip(times).for_each(|(entry, time)| entry.authored = time);
    entries[2].signature = entries[4].signature.clone();
    let mut recipe = Recipe::default();
    recipe.split.train_before = Some("2000-02-29".to_owned());
    let (dataset, left_out) = built(&entries, &recipe).unwrap();
    assert_eq!(left_out, LeftOut { untimed: 1, near: 1, unlearnable: 0 });
    let sides = sides(&dataset);
    let side = |index: usize| sides.get(&Record::id_of(Kind::Prose, None, &entries[index].body)).copied();
    let expected = [Some(Split::Train), Some(Split::HeldOut), None, None, Some(Split::Train)];
    assert_eq!([0, 1, 2, 3, 4].map(side), expected);
    recipe.split.train_before = Some("2000-03-01".to_owned());
    let error = built(&entries, &recipe).unwrap_err();
    assert!(matches!(error, DatasetError::Day { train: 4, held_out: 0, untimed: 1, near: 0 }), "{error}");
}

#[test]
fn only_the_canonical_manifest_is_read() {
    let (dataset, _) = built(&[prose(1), prose(2)], &Recipe::default()).unwrap();
    let text = manifest(&dataset);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let swapped = [&lines[..5], &[lines[6], lines[5]]].concat().concat();
    for (changed, line) in [
        (text.replacen("dataset 1", "dataset 2", 1), 1),
        (text.replacen("records 2", "records 3", 1), 8),
        (text.replacen("records 2", "records 1", 1), 7),
        (text.replacen("records 2", "records 02", 1), 5),
        (text.trim_end().to_owned(), 7),
        (swapped, 7),
        (text.replacen("\"docs\"", "\"doc\\u0073\"", 1), 6),
        (String::new(), 1),
    ] {
        match parse(&changed) {
            Err(DatasetError::Manifest { line: found, .. }) => assert_eq!(found, line, "{changed}"),
            other => panic!("{other:?} for {changed}"),
        }
    }
}

/// A vault of the test's own.
fn vault(folder: &Path) -> Arc<Vault> {
    std::fs::write(folder.join("moat-kek"), [7; 32]).unwrap();
    let kek = Kek::credential_in(folder).unwrap();
    Arc::new(Vault::create(&folder.join("vault"), &kek).unwrap())
}
