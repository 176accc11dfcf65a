//! Kills `moatd` and `moat-engine` at seeded random moments, 200 times, and holds what is left against a site that
//! was never disturbed: no document lost, no record doubled, no dataset changed, the same losses bit for bit.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod site;

use std::collections::BTreeMap;
use std::time::Duration;

use moat_catalog::Catalog;
use moat_contracts::{Dataset, Keep, Recipe, SelectionRecipe};
use moat_protocol::control::{Reply, Request, RunState};
use site::{Random, Site, prose, tiny_recipe};

const KILLS: u64 = 200;
const DOCUMENTS: u64 = 120;
const STEPS: u64 = 40;
const LOOKS: u64 = 5;

/// Writes the documents of one state of the company's folder: each revision changes some and deletes some.
fn documents(revision: u64) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for index in 0..DOCUMENTS {
        let version = if index % 7 == revision % 7 { revision } else { 0 };
        let deleted = revision > 0 && index % 11 == revision % 11;
        let mut random = Random(index * 1000 + version);
        if !deleted {
            all.insert(format!("team-{}/{index}.txt", index % 5), prose(&mut random, 8));
        }
    }
    all
}

fn put(site: &Site, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) {
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        std::fs::remove_file(site.path("documents").join(name)).unwrap();
    }
    for (name, text) in to {
        if from.get(name) != Some(text) {
            site.write(name, text);
        }
    }
}

/// Every present document with its records and verdicts, by path: twice the same key would show a doubled record.
fn records(site: &Site) -> Vec<(String, u32, String, String)> {
    let catalog = Catalog::open(&site.path("state/catalog.db"), &site.vault()).unwrap();
    let mut known = Vec::new();
    let each = |document: moat_catalog::Known| {
        known.push(document.document);
        Ok(())
    };
    catalog.each_document("documents", each).unwrap();
    let mut all = Vec::new();
    for document in known {
        for row in catalog.record_rows(document.id).unwrap() {
            let verdict = row.effective().word().to_owned();
            all.push((document.path.clone(), row.key.ordinal, row.id.to_string(), verdict));
        }
    }
    let selected = &mut 0;
    let each = |_| {
        *selected += 1;
        Ok(())
    };
    catalog.each_kept(&SelectionRecipe::default(), each).unwrap();
    assert!(*selected > 0);
    all.sort();
    all
}

/// The losses of every step, then those of every look at the validation side.
fn losses(site: &Site, run: &str) -> Vec<(u64, u64)> {
    let catalog = Catalog::open(&site.path("state/catalog.db"), &site.vault()).unwrap();
    let steps = catalog.steps(run).unwrap().into_iter().map(|step| (step.step, step.loss.to_bits()));
    let looks = catalog.validations(run).unwrap().into_iter().map(|look| (look.step, look.loss.to_bits()));
    steps.chain(looks).collect()
}

fn dataset(site: &Site, recipe: &Recipe) -> Dataset {
    match site.call(Request::DatasetBuild { recipe: Box::new(recipe.clone()) }) {
        Reply::Dataset(dataset) => *dataset,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_hundred_kills_change_nothing() {
    let mut recipe = tiny_recipe(STEPS);
    recipe.split.validation = 0.2;
    recipe.validation.every = LOOKS;
    recipe.validation.keep = Keep::Best;
    recipe.validation.keep_best = 2;
    let last = 20;
    let mut undisturbed = Site::new();
    put(&undisturbed, &BTreeMap::new(), &documents(last));
    undisturbed.start();
    undisturbed.import_base();
    undisturbed.scan();
    let reference = undisturbed.run(&recipe);
    assert_eq!(reference.state, RunState::Done);
    let (expected_records, expected_losses) = (records(&undisturbed), losses(&undisturbed, &reference.name));
    assert_eq!(expected_losses.len() as u64, STEPS + STEPS / LOOKS + 1);

    let mut random = Random(42);
    let mut site = Site::new();
    let mut current = BTreeMap::new();
    site.start();
    site.import_base();
    // Half of the kills fall into scans of a folder that changes.
    for round in 0..KILLS / 2 {
        let next = documents(round * last / (KILLS / 2));
        put(&site, &current, &next);
        current = next;
        std::thread::sleep(Duration::from_micros(random.below(120_000)));
        site.kill();
        site.start();
    }
    put(&site, &current, &documents(last));
    site.scan();
    assert_eq!(records(&site), expected_records);
    let before = dataset(&site, &recipe);
    assert_eq!(Some(before.id), reference.dataset);

    // The other half falls into a run: the daemon's death by turns with the engine's.
    let mut name = site.start_run(&recipe);
    let mut done = 0;
    for round in 0..KILLS / 2 {
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        // Where no engine runs at that moment, the daemon is killed in its place.
        if round % 2 == 0 || !site.kill_engine() {
            site.kill();
            site.start();
        }
        match site.call(Request::Run { name: name.clone() }) {
            Reply::Run(run) if run.state == RunState::Failed => {
                let message = run.message.unwrap();
                assert!(message.contains("signal 9"), "{message}");
                let reply = site.call(Request::RunResume { name: name.clone() });
                assert!(matches!(reply, Reply::Run(_)), "{reply:?}");
            }
            Reply::Run(run) if run.state == RunState::Done => {
                assert_eq!(losses(&site, &name), expected_losses);
                assert_eq!(site.weights(&name), undisturbed.weights(&reference.name));
                done += 1;
                name = site.start_run(&recipe);
            }
            Reply::Run(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let run = finish(&site, &name);
    assert_eq!(run.edge, reference.edge);
    assert_eq!(losses(&site, &name), expected_losses);
    assert_eq!(records(&site), expected_records);
    assert_eq!(dataset(&site, &recipe), before);
    assert!(done < KILLS / 4, "the kills came too late to meet a run at work");
    site.end();
    undisturbed.end();
    assert_eq!(site.adapter(&name), undisturbed.adapter(&reference.name));
}

/// Waits for a run, resuming it where the last kill failed it.
fn finish(site: &Site, name: &str) -> moat_protocol::control::Run {
    for _ in 0..3 {
        match site.call(Request::RunWatch { name: name.to_owned() }) {
            Reply::Run(run) => return *run,
            Reply::Failed { .. } => {
                let reply = site.call(Request::RunResume { name: name.to_owned() });
                assert!(matches!(reply, Reply::Run(_)), "{reply:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("run {name} does not end: {}", site.log())
}
