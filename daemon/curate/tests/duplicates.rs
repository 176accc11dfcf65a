//! Holds that the clusters depend on the documents present and on nothing else.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use moat_catalog::{Batch, Catalog, Known, Stamp};
use moat_contracts::{
    Digest, Document, DocumentId, DocumentState, Kind, Quality, Record, Rules, Text, Verdict,
};
use moat_curate::duplicates::Change;
use moat_curate::{Compiled, curate, similarity};
use moat_vault::{Kek, Vault};
use proptest::prelude::*;

fn rules() -> Rules {
    let mut rules = Rules::default();
    rules.quality.prose = Quality { min_words: 3, ..Quality::default() };
    rules
}

static RULES: LazyLock<Compiled> = LazyLock::new(|| Compiled::new(&rules()));

/// Texts too short for a signature, one of them dropped for itself; then families of texts, each drifting away from its first step by step, so that neighbours are near-duplicates
/// and far ones are not.
fn pool() -> Vec<String> {
    let mut texts = ["three short words", "three other words", "too short"].map(str::to_owned).to_vec();
    for family in 0..12 {
        for step in 0..8 {
            let word = |index: usize| {
                let age = if index < step * 10 { 1 } else { 0 };
                format!("w{family}x{index}x{age}")
            };
            texts.push((0..180).map(word).collect::<Vec<_>>().join(" "));
        }
    }
    texts
}

static POOL: LazyLock<Vec<String>> = LazyLock::new(pool);

#[derive(Clone, Debug)]
enum Act {
    /// Document, and which texts it holds now.
    Store(u8, Vec<usize>),
    Remove(u8),
    /// Document, and the number in its new path.
    Rename(u8, u8),
    Settle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..12u8, prop::collection::vec(0..27usize, 0..4)).prop_map(|(d, texts)| Act::Store(d, texts)),
        3 => (0..12u8).prop_map(Act::Remove),
        1 => (0..12u8, any::<u8>()).prop_map(|(d, path)| Act::Rename(d, path)),
        3 => Just(Act::Settle),
    ];
    prop::collection::vec(act, 1..40)
}

fn known(document: u8, path: &str) -> Known {
    let digest = Digest::of(&[document]);
    Known {
        document: Document {
            id: DocumentId(digest),
            source: format!("source{}", document % 2),
            path: path.to_owned(),
            digest,
            size: 1,
            authored: None,
            readers: Vec::new(),
            policy: "internal".to_owned(),
        },
        state: DocumentState::Present,
        skip: None,
        stamp: Stamp { device: 1, inode: 1, size: 1, modified_ns: 0, changed_ns: 0, header: digest },
        rules: None,
    }
}

fn records(rules: &Compiled, document: u8, texts: &[usize]) -> Vec<Record> {
    let text = |(ordinal, index): (u32, &usize)| Text {
        ordinal,
        first_line: 1,
        body: POOL[*index].clone(),
        kind: Kind::Prose,
        language: None,
        charset: "UTF-8",
    };
    let texts: Vec<Text> = (0..).zip(texts).map(text).collect();
    curate(rules, DocumentId(Digest::of(&[document])), &texts)
}

type Place = (String, String, u32);
/// Path and texts of each document.
type World = BTreeMap<u8, (String, Vec<usize>)>;
/// For each record its effective verdict and its twin with the similarity in thousandths.
type View = BTreeMap<Place, (Verdict, Option<(Place, u32)>)>;

fn thousandths(similarity: f64) -> u32 {
    (similarity * 1000.0).round() as u32
}

/// What the definition says, by comparing everything with everything.
fn defined(rules: &Compiled, world: &World) -> View {
    let mut all: Vec<(Place, Record)> = Vec::new();
    for (document, (path, texts)) in world {
        let source = known(*document, path).document.source;
        for record in records(rules, *document, texts) {
            all.push(((source.clone(), path.clone(), record.key.ordinal), record));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let part: Vec<usize> = (0..all.len()).filter(|i| all[*i].1.verdict != Verdict::Dropped).collect();
    let bands = |i: usize| rules.minhash.bands(&all[i].1.signature).into_iter().collect::<BTreeSet<_>>();
    let linked = |a: usize, b: usize| {
        let near = similarity(&all[a].1.signature, &all[b].1.signature) >= rules.rules().duplicates.threshold;
        all[a].1.id == all[b].1.id || (near && !bands(a).is_disjoint(&bands(b)))
    };
    // The first of each component in order of place is its survivor, since `all` is sorted.
    let mut survivor: BTreeMap<usize, usize> = BTreeMap::new();
    for &start in &part {
        if survivor.contains_key(&start) {
            continue;
        }
        let mut open = vec![start];
        survivor.insert(start, start);
        while let Some(at) = open.pop() {
            for &other in &part {
                if !survivor.contains_key(&other) && linked(at, other) {
                    survivor.insert(other, start);
                    open.push(other);
                }
            }
        }
    }
    let mut view = View::new();
    for (index, (place, record)) in all.iter().enumerate() {
        let twin = survivor.get(&index).filter(|survivor| **survivor != index).map(|survivor| {
            let (place, other) = &all[*survivor];
            let near = similarity(&record.signature, &other.signature).min(1.0 - 0.5 / 112.0);
            (place.clone(), if record.id == other.id { 1000 } else { thousandths(near) })
        });
        let verdict = if twin.is_some() { Verdict::Dropped } else { record.verdict };
        view.insert(place.clone(), (verdict, twin));
    }
    view
}

fn kept(catalog: &Catalog, world: &World) -> View {
    let mut view = View::new();
    for document in world.keys() {
        for row in catalog.record_rows(DocumentId(Digest::of(&[*document]))).unwrap() {
            let twin = row.twin.map(|(twin, similarity)| {
                let twin = catalog.row(twin).unwrap();
                ((twin.source, twin.path, twin.key.ordinal), thousandths(similarity))
            });
            view.insert((row.source.clone(), row.path.clone(), row.key.ordinal), (row.effective(), twin));
        }
    }
    view
}

fn open() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db"), &vault(folder.path())).unwrap();
    (folder, catalog)
}

/// Does one thing to the catalog and to the world that it is to show.
fn act(batch: &Batch<'_>, change: &mut Change<'_>, rules: &Compiled, world: &mut World, act: &Act) {
    match act {
        Act::Store(document, texts) => {
            let path =
                world.get(document).map_or_else(|| format!("path{document:03}"), |(path, _)| path.clone());
            batch.put_document(&known(*document, &path)).unwrap();
            let rows = change.store(DocumentId(Digest::of(&[*document])), &records(rules, *document, texts));
            assert_eq!(rows.unwrap().len(), texts.len());
            world.insert(*document, (path, texts.clone()));
        }
        Act::Remove(document) => {
            if world.remove(document).is_some() {
                let id = DocumentId(Digest::of(&[*document]));
                change.remove(id).unwrap();
                batch.delete_document(id).unwrap();
            }
        }
        Act::Rename(document, number) => {
            let path = format!("path{number:03}-{document}");
            if let Some((old, _)) = world.get_mut(document) {
                *old = path.clone();
                batch.put_document(&known(*document, &path)).unwrap();
                change.renamed(DocumentId(Digest::of(&[*document]))).unwrap();
            }
        }
        Act::Settle => {}
    }
}

fn run(catalog: &Catalog, rules: &Compiled, world: &mut World, acts: &[Act]) {
    for together in acts.split_inclusive(|act| matches!(act, Act::Settle)) {
        let batch = catalog.write().unwrap();
        let mut change = Change::begin(&batch, rules).unwrap();
        together.iter().for_each(|one| act(&batch, &mut change, rules, world, one));
        change.settle().unwrap();
        batch.commit().unwrap();
        assert_eq!(kept(catalog, world), defined(rules, world));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_history_ends_where_the_definition_says(acts in acts()) {
        let (_folder, catalog) = open();
        run(&catalog, &RULES, &mut World::new(), &acts);
    }
}

#[test]
fn a_broken_cluster_that_is_merged_in_the_same_change_still_falls_apart() {
    for family in 0..12 {
        let (_folder, catalog) = open();
        let mut world = World::new();
        let store = |step: u8| Act::Store(step, vec![3 + family * 8 + usize::from(step)]);
        run(&catalog, &RULES, &mut world, &[0, 1, 2, 4, 5, 6, 7].map(store));
        run(&catalog, &RULES, &mut world, &[Act::Remove(1), store(3)]);
    }
}

#[test]
fn other_rules_make_other_clusters() {
    let (_folder, catalog) = open();
    let mut world = World::new();
    let acts: Vec<Act> =
        (0..8).map(|d| Act::Store(d, vec![3 + usize::from(d), 11 + usize::from(d)])).collect();
    run(&catalog, &RULES, &mut world, &acts);
    let mut strict = rules();
    strict.duplicates.threshold = 0.95;
    let mut short = rules();
    (short.duplicates.shingle, short.duplicates.bands) = (2, 16);
    for rules in [strict, short] {
        let rules = Compiled::new(&rules);
        // Every document is curated again, in another order and in two batches.
        let mut again: Vec<Act> = acts.iter().rev().cloned().collect();
        {
            let batch = catalog.write().unwrap();
            let mut change = Change::begin(&batch, &rules).unwrap();
            again.drain(..4).for_each(|one| act(&batch, &mut change, &rules, &mut world, &one));
            change.settle().unwrap();
            batch.commit().unwrap();
        }
        run(&catalog, &rules, &mut world, &again);
    }
}

#[test]
fn many_equal_files_stay_cheap() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    let text = |document: u64, body: &str| {
        let text = Text {
            ordinal: 0,
            first_line: 1,
            body: body.to_owned(),
            kind: Kind::Prose,
            language: None,
            charset: "UTF-8",
        };
        curate(&RULES, DocumentId(Digest::of(&document.to_le_bytes())), &[text])
    };
    let mut change = Change::begin(&batch, &RULES).unwrap();
    // Twenty thousand equal files, and two thousand near-duplicates of them: comparing all pairs would take hours.
    for number in 0..22_000u64 {
        let id = DocumentId(Digest::of(&number.to_le_bytes()));
        let mut known = known(0, &format!("{:08}", number.wrapping_mul(7919) % 100_003));
        known.document.id = id;
        batch.put_document(&known).unwrap();
        let body = if number < 20_000 { POOL[3].clone() } else { format!("{} w{number}", POOL[3]) };
        change.store(id, &text(number, &body)).unwrap();
    }
    change.settle().unwrap();
    let mut survivors = Vec::new();
    batch
        .each_kept(&moat_contracts::SelectionRecipe::default(), |row| {
            survivors.push(row.path);
            Ok(())
        })
        .unwrap();
    assert_eq!(survivors, ["00000000"]);
    let counts = batch.source_counts("source0").unwrap();
    assert_eq!((counts.dropped["duplicate"], counts.dropped["near_duplicate"]), (19_999, 2_000));
    // All survivors in turn, in one change.
    let mut change = Change::begin(&batch, &RULES).unwrap();
    for number in 0..20_000u64 {
        change.remove(DocumentId(Digest::of(&number.to_le_bytes()))).unwrap();
    }
    change.settle().unwrap();
    let mut survivors = 0;
    batch
        .each_kept(&moat_contracts::SelectionRecipe::default(), |_| {
            survivors += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(survivors, 1);
}

/// A vault of the test's own.
fn vault(folder: &Path) -> Arc<Vault> {
    std::fs::write(folder.join("moat-kek"), [7; 32]).unwrap();
    let kek = Kek::credential_in(folder).unwrap();
    Arc::new(Vault::create(&folder.join("vault"), &kek).unwrap())
}
