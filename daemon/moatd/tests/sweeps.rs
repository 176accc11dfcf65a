//! Sweeps and the comparison of runs, on a tiny base: what is cut off goes on, what fails ends nothing else, and what is
//! shown in a browser is what was measured.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeSet;
use std::time::Duration;

use moat_catalog::{Catalog, StepRow};
use moat_contracts::{Recipe, Sweep, SweepOrder, Swept};
use moat_protocol::control::{
    Comparison, Fault, Reply, Request, Run, RunState, SweepReport, SweepState, Update,
};
use serde_json::{Value, json};
use site::browser::Browser;
use site::{Random, Site, prose, tiny_recipe};

fn validated(steps: u64) -> Recipe {
    let mut recipe = tiny_recipe(steps);
    recipe.split.validation = 0.2;
    recipe.validation.every = 4;
    recipe
}

fn sweep(recipe: Recipe, values: &[(&str, Value)]) -> Box<Sweep> {
    let swept = |(key, values): &(&str, Value)| Swept {
        key: (*key).to_owned(),
        values: values.as_array().unwrap().clone(),
    };
    let values = values.iter().map(swept).collect();
    Box::new(Sweep { recipe, order: SweepOrder::Grid, runs: 0, values })
}

fn told(reply: Reply) -> SweepReport {
    match reply {
        Reply::Sweep(sweep) => *sweep,
        other => panic!("{other:?}"),
    }
}

fn show(site: &Site, name: &str) -> SweepReport {
    told(site.call(Request::Sweep { name: name.to_owned() }))
}

fn run(site: &Site, name: &str) -> Run {
    match site.call(Request::Run { name: name.to_owned() }) {
        Reply::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn runs(site: &Site) -> Vec<Run> {
    match site.call(Request::Runs) {
        Reply::Runs(runs) => runs,
        other => panic!("{other:?}"),
    }
}

fn compare(site: &Site, names: &[&str]) -> Comparison {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    match site.call(Request::RunCompare { names }) {
        Reply::Comparison(found) => *found,
        other => panic!("{other:?}"),
    }
}

fn filled() -> Site {
    let mut site = Site::new();
    for index in 0..60 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 8));
    }
    site.start();
    site.import_base();
    site.scan();
    site
}

#[test]
fn a_sweep_goes_on_after_kills_and_each_of_its_points_is_one_run() {
    let mut site = filled();
    let asked = sweep(
        validated(12),
        &[("optimizer.learning_rate", json!([1e-2, 1e-4])), ("lora.rank", json!([2, 4]))],
    );
    let started = told(site.call(Request::SweepStart { sweep: asked.clone() }));
    assert_eq!((started.of, started.done, started.keys.len()), (4, 0, 2));
    assert_eq!(runs(&site).len(), 4);
    let mut random = Random(5);
    for kill in 0..20 {
        std::thread::sleep(Duration::from_millis(random.below(400)));
        site.kill();
        // What changes meanwhile is in no run of the sweep: they are to differ by what was asked for alone.
        site.write(&format!("new-{kill}.txt"), &prose(&mut Random(1000 + kill), 8));
        site.start();
        if show(&site, &started.name).state == SweepState::Done {
            break;
        }
    }
    let mut seen = 0;
    let reply = site.call_and_watch(&Request::SweepWatch { name: started.name.clone() }, |update| {
        seen += u64::from(matches!(update, Update::Sweep(_)));
    });
    let done = told(reply);
    assert_eq!((done.state, done.done, done.failed), (SweepState::Done, 4, 0), "{done:?}");
    assert_eq!(show(&site, "tiny-sw"), done);
    let all = runs(&site);
    assert_eq!(all.len(), 4, "a run began twice");
    assert_eq!(all.iter().map(|run| run.dataset.unwrap()).collect::<BTreeSet<_>>().len(), 1);
    let expected: Vec<_> = asked.recipes().unwrap().iter().map(Recipe::hash).collect();
    assert_eq!(all.iter().map(|run| run.recipe_hash).collect::<Vec<_>>(), expected);

    // Sorted by what they are chosen by, which is what each run's own page says.
    let losses: Vec<f64> = done.runs.iter().map(|run| run.validation.unwrap()).collect();
    assert!(losses.is_sorted(), "{losses:?}");
    assert_eq!(done.best.as_deref(), Some(done.runs[0].run.as_str()));
    for row in &done.runs {
        let run = run(&site, &row.run);
        assert_eq!(row.validation, run.outcome.as_ref().unwrap().validation.map(|outcome| outcome.kept));
        assert_eq!(row.edge, run.edge.unwrap().all.edge);
        let values = [run.recipe.optimizer.learning_rate.to_string(), run.recipe.lora.rank.to_string()];
        assert_eq!(row.values, values);
    }

    // Two of them side by side: the difference is that of their edges, and one with itself is none.
    let (a, b) = (all[0].name.as_str(), all[3].name.as_str());
    let found = compare(&site, &[a, b]);
    let keys: Vec<_> = found.recipe.iter().map(|difference| difference.key.as_str()).collect();
    assert_eq!(keys, ["lora.rank", "optimizer.learning_rate"]);
    assert_eq!(found.recipe[0].values, ["2", "4"]);
    let [against] = &found.against[..] else { panic!("{found:?}") };
    assert!(against.same_base && against.same_dataset && against.why.is_none());
    let difference = against.difference.unwrap();
    let edge = |name: &str| run(&site, name).edge.unwrap().all;
    assert_eq!(difference.records, edge(a).records);
    let expected = edge(b).edge.unwrap().value - edge(a).edge.unwrap().value;
    assert!((difference.edge.value - expected).abs() < 1e-9 && difference.edge.low <= difference.edge.high);
    assert!((difference.saved.value - difference.edge.value).abs() < 1e-9);
    assert!(
        difference.is_sure() && difference.edge.value < 0.0,
        "a hundredth of the rate learns less: {difference:?}"
    );
    let three = compare(&site, &[a, b, &all[1].name]);
    let confidence = three.against[0].difference.unwrap().confidence;
    assert!((confidence - 0.975).abs() < 1e-9, "{confidence}");
    let twice = Request::RunCompare { names: vec![a.to_owned(), a.to_owned()] };
    assert!(matches!(site.call(twice), Reply::Failed { fault: Fault::Request, .. }));
    site.end();
}

#[test]
fn a_failed_run_ends_no_sweep_and_a_stopped_sweep_goes_on() {
    let site = filled();
    // The tiny base has 512 positions.
    let asked = sweep(validated(8), &[("train.sequence_length", json!([1024, 64]))]);
    let name = told(site.call(Request::SweepStart { sweep: asked })).name;
    let done = told(site.call(Request::SweepWatch { name }));
    assert_eq!((done.state, done.done, done.failed), (SweepState::Done, 1, 1), "{done:?}");
    assert!(done.runs[0].state == RunState::Done && done.runs[1].message.as_ref().unwrap().contains("1024"));

    // Without a validation side there is nothing to choose by, and the report says so.
    let long = sweep(tiny_recipe(100_000), &[("lora.rank", json!([1, 2, 3]))]);
    let started = told(site.call(Request::SweepStart { sweep: long }));
    assert!(!started.validated && started.best.is_none());
    let first = started.runs[0].run.clone();
    let at_work = site.listen(&Request::RunWatch { name: first.clone() }, |update| {
        !matches!(update, Update::RunState { state: RunState::Training, .. })
    });
    assert_eq!(at_work, None);
    // What is asked for by itself goes before the rest of a sweep.
    let alone = site.start_run(&tiny_recipe(4));
    site.call(Request::RunStop { name: first.clone() });
    assert!(matches!(site.call(Request::RunWatch { name: alone.clone() }), Reply::Run(_)));
    assert!(run(&site, &started.runs[2].run).steps == 0);
    let stopped = told(site.call(Request::SweepStop { name: started.name.clone() }));
    assert_eq!(stopped.state, SweepState::Stopped);
    assert!(stopped.runs.iter().all(|run| run.state == RunState::Stopped), "{stopped:?}");
    let again = site.call(Request::SweepStop { name: started.name.clone() });
    assert!(matches!(again, Reply::Failed { fault: Fault::Request, .. }));
    let resumed = told(site.call(Request::SweepResume { name: started.name.clone() }));
    assert!(matches!(resumed.state, SweepState::Queued | SweepState::Running), "{resumed:?}");
    // A run that waits is stopped at once, though another is at work.
    let waits = site.call(Request::RunStop { name: started.runs[2].run.clone() });
    assert!(matches!(waits, Reply::Run(run) if run.state == RunState::Stopped && run.steps == 0));
    told(site.call(Request::SweepStop { name: started.name }));

    let faulty = sweep(tiny_recipe(4), &[("seed", json!([1, 2])), ("lora.rank", json!([0]))]);
    let Reply::Failed { fault, message } = site.call(Request::SweepStart { sweep: faulty }) else { panic!() };
    assert!(fault == Fault::Request && message.contains("seed decides the data"), "{message}");
}

#[test]
fn runs_and_sweeps_are_begun_compared_and_read_in_a_browser() {
    let mut site = Site::new();
    for index in 0..60 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 8));
    }
    let address = site.open_port();
    site.start();
    site.import_base();
    site.scan();
    let own = rustix::process::geteuid().as_raw();
    let people = site.set_up(&[
        ("ada", "steward,engineer,admin", None),
        ("eva", "engineer", None),
        ("ben", "approver", None),
        ("k", "admin,engineer,steward", Some(own)),
    ]);
    let (ada, eva) = (Browser::trusting(&site, address), Browser::trusting(&site, address));
    ada.sign_in(&people[0]);
    eva.sign_in(&people[1]);

    // The form begins with what is shipped, on a base that is here.
    let page = ada.get("/runs/new").text;
    assert!(page.contains("base = &quot;tiny&quot;") && page.contains("Start from"), "{page}");
    let begun = ada.send("/runs/new", &[("from", "sweep")]).text;
    assert!(begun.contains("[sweep]"), "{begun}");
    let faulty = ada.send("/runs/check", &[("recipe", "base = \"tiny\"\n[lora]\nrnk = 3\n")]);
    assert!(faulty.status == 422 && faulty.text.contains("did you mean") && faulty.text.contains("rnk = 3"));
    let text = "name = \"web\"\nbase = \"tiny\"\n[split]\nheld_out = 0.35\nvalidation = 0.2\n[validation]\nevery = 4\n[train]\n\
                sequence_length = 64\nmax_steps = 6\nepochs = 50.0\n[evaluate]\nresamples = 200\n[sweep]\n\"lora.rank\" = [2, 4]\n";
    let checked = ada.send("/runs/check", &[("recipe", text)]).text;
    assert!(checked.contains("A sweep of 2 runs"), "{checked}");
    // The text of a record is for those who may read it.
    let seen = ada.send("/runs/preview", &[("recipe", text)]).text;
    assert!(seen.contains("Memory as planned") && seen.contains("<mark>"), "{seen}");
    eva.get("/runs/new");
    let planned = eva.send("/runs/preview", &[("recipe", text)]);
    assert!(
        planned.text.contains("Memory as planned") && !planned.text.contains("<mark>"),
        "{}",
        planned.text
    );
    ada.get("/runs/new");
    let fields = [("recipe", text), ("was:train.max_steps", "6"), ("set:train.max_steps", "8")];
    let started = ada.send("/runs/start", &fields);
    let at = started.leads_to().unwrap().to_owned();
    assert_eq!((started.status, at.as_str()), (303, "/sweeps/web-sweep-1"));
    let live = ada.glance(&format!("/live{at}")).text;
    assert!(live.contains("event: part") || live.contains("event: over"), "{live}");
    let done = told(site.call(Request::SweepWatch { name: "web-sweep-1".to_owned() }));
    assert_eq!(done.done, 2, "{done:?}");
    assert_eq!(done.runs[0].planned, Some(8));
    let page = ada.get(&at).text;
    for shown in ["svg class=\"parallel\"", "lora.rank", "validation loss", "was not chosen by"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(ada.get("/sweeps").text.contains("web-sweep-1"));
    assert!(ada.get(&format!("/runs/{}", done.runs[0].run)).text.contains("href=\"/sweeps/web-sweep-1\""));

    let names: Vec<&str> = done.runs.iter().map(|run| run.run.as_str()).collect();
    assert!(ada.get("/runs").text.contains("name=\"run\" value="));
    let chosen = ada.send("/runs/compare", &[("run", names[0]), ("run", names[1])]);
    let to = chosen.leads_to().unwrap().to_owned();
    assert_eq!(to, format!("/runs/compare/{}~{}", names[0], names[1]));
    let page = ada.get(&to);
    assert!(page.status == 200 && page.text.contains("lora.rank") && page.text.contains("held-back records"));
    assert!(page.text.contains("class=\"line-1\""), "{}", page.text);
    assert_eq!(ada.get(&format!("/runs/compare/{}", names[0])).status, 404);

    // A long run is as light as a short one, keeps what stands out, and is whole after a restart.
    let name = names[0];
    let catalog = Catalog::open(&site.path("state/catalog.db"), &site.vault()).unwrap();
    let step = |step: u64| StepRow {
        step,
        loss: if step == 77_777 { 99.5 } else { 3.0 },
        gradient_norm: 1.0,
        learning_rate: 1e-4,
        tokens: 64,
        tokens_per_second: 1000.0,
        memory: 1 << 30,
        seconds_left: 1.0,
        cores: 1.5,
    };
    let batch = catalog.write().unwrap();
    batch.put_steps(name, &(1..=100_000).map(step).collect::<Vec<_>>()).unwrap();
    batch.commit().unwrap();
    drop(catalog);
    site.kill();
    site.start();
    let run = run(&site, name);
    assert!(run.course.steps.is_empty() && run.course.joined.len() <= 500);
    assert_eq!(run.course.joined.iter().map(|steps| steps.steps).sum::<u64>(), 100_000);
    assert!(run.course.joined.iter().any(|steps| steps.high.loss == 99.5));
    assert_eq!(run.course.last.unwrap().step, 100_000);
    let request = Request::RunSteps { name: name.to_owned(), after: 77_775, most: 3 };
    let Reply::Steps(steps) = site.call(request) else { panic!() };
    assert_eq!(steps.iter().map(|step| (step.step, step.loss)).collect::<Vec<_>>()[1], (77_777, 99.5));
    ada.sign_in(&people[0]);
    let page = ada.get(&format!("/runs/{name}")).text;
    assert!(page.contains("to 99.5") && page.contains("Processor"), "{page}");
    assert!(page.len() < 400_000, "{}", page.len());
    site.kill();
}
