//! How long the server takes for each page of a site at size: 50,000 records, 500 runs, 10,000 entries of the ledger.
//! `scripts/bench pages` runs it. Nothing is asserted about time: machines differ.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement tells what it measured")]

mod site;

use moat_admin::routes;
use moat_catalog::{Catalog, StepRow};
use moat_ledger::{Act, Ledger, Phase, Who};
use moat_protocol::control::{RecordFilter, Reply, Request};

use site::browser::Browser;
use site::{Random, Site, prose, tiny_recipe};

const RECORDS: u64 = 50_000;
const RUNS: i64 = 500;
const ENTRIES: u64 = 10_000;
const STEPS: u64 = 200;
/// Times that each page is asked for.
const ROUNDS: usize = 15;

/// Runs like one that was really done, by the catalog's own code.
fn more_runs(site: &Site, like: &str) {
    let catalog = Catalog::open(&site.path("state/catalog.db"), &site.vault()).unwrap();
    let done = catalog.run(like).unwrap().unwrap();
    let batch = catalog.write().unwrap();
    for number in done.number + 1..=RUNS {
        let run = moat_catalog::RunRow { name: format!("tiny-{number}"), number, ..done.clone() };
        batch.put_run(&run).unwrap();
        batch.new_run_key(&run.name).unwrap();
        let step = |step| StepRow {
            step,
            loss: 4.0 / step as f64,
            gradient_norm: 1.0,
            learning_rate: 1e-3,
            tokens: 512,
            tokens_per_second: 1000.0,
            memory: 1 << 30,
            seconds_left: 1.0,
            cores: 1.0,
        };
        batch.put_steps(&run.name, &(1..=STEPS).map(step).collect::<Vec<_>>()).unwrap();
    }
    batch.commit().unwrap();
}

/// Entries as the daemon writes them, each on disk before the next.
fn more_entries(site: &Site) {
    let ledger = Ledger::open(&site.path("state/ledger"), None).unwrap();
    for number in ledger.size()..ENTRIES {
        let who = Who::account("ada", "engineer");
        let act = Act::new(who, "run.show", Phase::Done).on("run", format!("tiny-{number}"));
        ledger.append(&act.detail("address", "127.0.0.1")).unwrap();
    }
}

#[test]
#[ignore = "a measurement of minutes: scripts/bench pages runs it"]
fn every_page_of_a_site_at_size() {
    let json = std::env::var_os("MOAT_BENCH_JSON").is_some();
    let records = if std::env::var_os("MOAT_BENCH_QUICK").is_some() { RECORDS / 50 } else { RECORDS };
    let mut site = Site::new();
    for index in 0..records {
        site.write(&format!("{:03}/{index}.txt", index % 500), &prose(&mut Random(index), 6));
    }
    let address = site.open_port();
    site.start();
    site.import_base();
    site.scan();
    let run = site.run(&tiny_recipe(6));
    site.end();
    more_runs(&site, &run.name);
    more_entries(&site);
    site.start();
    let search = Request::RecordSearch {
        words: String::new(),
        filter: RecordFilter::default(),
        most: 1,
        after: None,
        patience: None,
    };
    let Reply::Records(found) = site.call(search) else { panic!("no records") };
    let record = found.found[0].record.to_string();
    let people = site.set_up(&[
        ("ada", "steward,engineer,admin,auditor", None),
        ("ben", "approver", None),
        ("cyd", "steward,engineer,admin", None),
    ]);
    let browser = Browser::trusting(&site, address);
    browser.sign_in(&people[0]);
    browser.get("/people/ben");
    let proof = people[0].proof();
    let fields =
        [("approver", "yes"), ("auditor", "yes"), ("password", &proof.password.0), ("code", &proof.code.0)];
    let asked = browser.send("/people/ben/roles", &fields);
    let statement = asked.leads_to().and_then(|page| page.strip_prefix("/approvals/")).unwrap().to_owned();

    let dataset = run.dataset.unwrap().to_string();
    let filled = |path: &str| {
        let part = |part: &str| match part {
            "{run}" => Some(format!("tiny-{RUNS}")),
            "{runs}" => Some(format!("tiny-{RUNS}~tiny-{}", RUNS - 1)),
            "{source}" => Some("documents".to_owned()),
            "{record}" => Some(record.clone()),
            "{id}" if path.starts_with("/records") => Some(record.clone()),
            "{id}" if path.starts_with("/datasets") => Some(dataset.clone()),
            "{id}" if path.starts_with("/approvals") => Some(statement.clone()),
            "{older}" | "{newer}" => Some(dataset.clone()),
            "{name}" => Some("ben".to_owned()),
            "{kind}" => Some("vault.".to_owned()),
            "{before}" | "{index}" => Some((ENTRIES / 2).to_string()),
            part if part.starts_with('{') => None,
            part => Some(part.to_owned()),
        };
        path.split('/').map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
    };
    if !json {
        println!(
            "{records} documents, {RUNS} runs of {STEPS} steps, {ENTRIES} entries; {ROUNDS} rounds, from request to first byte"
        );
        println!("{:40} {:>9} {:>9} {:>9}", "page", "median ms", "max ms", "bytes");
    }
    for route in routes().filter(|route| route.method == "GET" && !route.live) {
        let Some(path) = filled(route.path) else {
            println!("{:40} nothing to fill it with", route.path);
            continue;
        };
        let rounds: Vec<_> = (0..ROUNDS).map(|_| browser.timed(&path)).collect();
        let (status, bytes) = (rounds[0].1, rounds[0].2);
        let mut times: Vec<_> = rounds.iter().map(|round| round.0 * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let (median, most) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        if json {
            let line = serde_json::json!({
                "name": format!("page {}", route.path), "ours": median, "most": most, "unit": "ms", "bytes": bytes,
                "conditions": format!("{records} documents, {RUNS} runs, {ENTRIES} entries, status {status}"),
            });
            println!("{line}");
        } else {
            println!("{:40} {median:9.1} {most:9.1} {bytes:9}   {status}", route.path);
        }
    }
    site.end();
}
