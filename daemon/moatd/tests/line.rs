//! The whole line on a tiny base: documents in, an owned model out; then a document changes and another is deleted.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod site;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use moat_contracts::{Claim, Keep, Method, Progress, Sampling, Schedule, Split};
use moat_protocol::control::{DatasetDiff, Fault, Reply, Request, Run, RunState, Status, Update, Why};
use site::people::{ADA, BEN, can_be_others, refused};
use site::{Random, Site, prose, tiny_recipe};

fn status(site: &Site) -> Status {
    match site.call(Request::Status) {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn why(site: &Site, path: &str) -> Why {
    match site.call(Request::Why { path: path.to_owned() }) {
        Reply::Why(mut whys) => {
            assert_eq!(whys.len(), 1, "{whys:?}");
            whys.remove(0)
        }
        other => panic!("{other:?}"),
    }
}

fn diff(site: &Site, a: &str, b: &str) -> DatasetDiff {
    match site.call(Request::DatasetDiff { a: a.to_owned(), b: b.to_owned() }) {
        Reply::DatasetDiff(diff) => diff,
        other => panic!("{other:?}"),
    }
}

fn company(site: &Site) {
    for index in 0..40 {
        site.write(&format!("team/{index}.txt"), &prose(&mut Random(index), 10));
    }
    let secret = format!("{}Write to jane.doe@corp-mail.com about it.\n", prose(&mut Random(900), 10));
    site.write("secret.txt", &secret);
    let twin = prose(&mut Random(901), 30);
    site.write("twin-a.txt", &twin);
    site.write("twin-b.txt", &format!("{twin}The line is new.\n"));
    site.write("copy.txt", &twin);
    site.write("image.png", "\u{89}PNG\0\0\0");
    site.write("short.txt", "No.\n");
    let ticket = |index| format!("{{\"text\": \"{}\"}}\n", prose(&mut Random(index), 6).replace('\n', " "));
    let tickets: Vec<_> = (910..916).map(ticket).collect();
    site.write(
        "tickets.jsonl",
        &format!("{}{{\"text\": torn\n{}", tickets[..3].concat(), tickets[3..].concat()),
    );
}

/// Two people agree, and the folder is what they agreed to.
fn export(site: &Site, run: &str) {
    let [_, ada, ben] = site.set_up_three();
    let own = site.path("exports/own").display().to_string();
    let asked = site.ask_export(&ada, run, &own);
    assert_eq!((asked.state.as_str(), asked.destination.as_str()), ("waiting", own.as_str()));
    assert!(!std::path::Path::new(&own).exists());
    let reply = site.approve(BEN, &ben, &asked);
    let Reply::Exported(exported) = reply else { panic!("{reply:?}") };
    for file in ["adapter/adapter_model.safetensors", "model/model.safetensors", "README.md", "lineage.json"]
    {
        assert!(exported.files.contains_key(file), "{file} of {:?}", exported.files);
    }
    let mut sums = std::process::Command::new("sha256sum");
    let sums = sums.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&own).status().unwrap();
    assert!(sums.success());
    let listed = std::fs::read(site.path("exports/own/SHA256SUMS")).unwrap();
    assert_eq!(asked.hash, moat_contracts::Digest::of(&listed).to_string());
    let Reply::Card(card) = site.call(Request::RunCard { name: run.to_owned() }) else { panic!() };
    assert_eq!(card, std::fs::read_to_string(site.path("exports/own/README.md")).unwrap());
    let proof = ada.proof();
    let again = Request::Export { run: run.to_owned(), folder: own, recipient: None, proof };
    assert_eq!(refused(site.call_as(ADA, again)).0, Fault::Request);
}

#[test]
fn documents_become_a_model_that_is_owned() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();

    let counts = &status(&site).sources["documents"];
    assert_eq!((counts.present, counts.skipped.get("binary"), counts.deleted), (46, Some(&1), 0));
    assert_eq!(counts.partial, 1);
    assert_eq!(counts.redactions.get("EMAIL"), Some(&1));
    assert_eq!((counts.dropped.get("duplicate"), counts.dropped.get("near_duplicate")), (Some(&1), Some(&1)));
    let redacted = why(&site, "secret.txt");
    assert_eq!(redacted.records[0].verdict, "redacted");
    let twin = why(&site, "twin-b.txt");
    assert_eq!(twin.records[0].twin.as_ref().unwrap().path, "copy.txt");
    assert_eq!(why(&site, "short.txt").records[0].verdict, "dropped");
    assert!(!why(&site, "short.txt").records[0].reasons.is_empty());
    let tickets = why(&site, "tickets.jsonl");
    assert_eq!((tickets.records.len(), tickets.faults.len(), tickets.faults[0].line), (6, 1, 4));
    let whole = site.path("documents/secret.txt").display().to_string();
    assert_eq!(why(&site, &whole).path, "secret.txt");

    let recipe = tiny_recipe(30);
    let mut states = Vec::new();
    let name = site.start_run(&recipe);
    let reply = site.call_and_watch(&Request::RunWatch { name: name.clone() }, |update| {
        if let Update::RunState { state, .. } = update {
            states.push(state);
        }
    });
    let Reply::Run(run) = reply else { panic!("{reply:?}") };
    assert_eq!((run.state, states.last()), (RunState::Done, Some(&RunState::Done)));
    let (outcome, edge) = (run.outcome.unwrap(), run.edge.unwrap());
    assert!(outcome.last_loss < outcome.first_loss);
    assert!(edge.has_edge && edge.all.edge.unwrap().low > 0.0, "{edge:?}");

    // The same recipe, dataset and seed give the same bytes.
    let again = site.run(&recipe);
    assert_eq!((again.dataset, again.outcome.unwrap().weights), (run.dataset, outcome.weights));
    let second = again.name;

    if can_be_others() {
        export(&site, &name);
    }

    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 8 };
    let ask = Request::Ask { run: None, prompt: "The pump".to_owned(), chat: false, sampling };
    let Reply::Answer(answers) = site.call(ask) else { panic!() };
    assert_eq!(answers.iter().map(|answer| answer.model.as_str()).collect::<Vec<_>>(), ["base", "tuned"]);

    // A change and a deletion arrive at the next dataset, and are told.
    let before = run.dataset.unwrap().to_string();
    std::fs::remove_file(site.path("documents/copy.txt")).unwrap();
    site.write("team/0.txt", &prose(&mut Random(5000), 12));
    site.scan();
    let reply = site.call(Request::DatasetBuild { recipe: Box::new(recipe.clone()) });
    let Reply::Dataset(after) = reply else { panic!("{reply:?}") };
    let diff = diff(&site, &before, &after.id.to_string());
    let added: Vec<_> = diff.added.iter().flat_map(|entry| entry.paths.clone()).collect();
    assert!(added.contains(&"documents:team/0.txt".to_owned()), "{added:?}");
    let gone = why(&site, "copy.txt");
    assert_eq!((gone.state.as_str(), gone.records.len()), ("deleted", 0));
    assert!(gone.reached.iter().any(|reached| reached.runs.contains(&name)), "{gone:?}");
    assert_eq!(why(&site, "twin-a.txt").records[0].twin, None);
    site.end();

    // Everything is still there after a restart, and nothing is curated again.
    site.start();
    site.scan();
    assert_eq!(status(&site).sources["documents"].present, 45);
    assert_eq!(status(&site).sources["documents"].read, 0);
    let Reply::Dataset(same) = site.call(Request::DatasetBuild { recipe: Box::new(recipe) }) else {
        panic!()
    };
    assert_eq!(same.id, after.id);
    site.end();
    assert_eq!(site.adapter(&second), outcome.weights);
    assert_eq!(site.adapter(&name), outcome.weights);
}

#[test]
fn a_run_chooses_by_its_validation_side_and_its_page_is_whole_after_a_restart() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let plain = site.run(&tiny_recipe(30));
    let mut recipe = tiny_recipe(30);
    recipe.split.validation = 0.3;
    recipe.validation.every = 4;
    recipe.validation.keep = Keep::Best;
    recipe.validation.keep_best = 2;
    recipe.optimizer.schedule = Schedule::Wsd;
    recipe.optimizer.decay = 0.3;
    recipe.lora.b_rate = 4.0;
    let name = site.start_run(&recipe);
    let mut told = Vec::new();
    let reply = site.call_and_watch(&Request::RunWatch { name: name.clone() }, |update| {
        if let Update::Run { progress: Progress::Validated { step, .. }, .. } = update {
            told.push(step);
        }
    });
    let Reply::Run(run) = reply else { panic!("{reply:?}") };
    let looks: Vec<u64> = run.course.validations.iter().map(|look| look.step).collect();
    assert_eq!(looks, [0, 4, 8, 12, 16, 20, 24, 28, 30]);
    assert!(looks.ends_with(&told) && !told.is_empty(), "{told:?}");
    assert_eq!((run.course.steps.len(), run.steps, run.planned), (30, 30, Some(30)));
    let last = run.course.steps[29];
    assert!(last.tokens_per_second > 0.0 && last.seconds_left == 0.0, "{last:?}");
    assert!(run.course.steps[0].seconds_left > 0.0);
    let validation = run.outcome.as_ref().unwrap().validation.unwrap();
    assert!(validation.kept < validation.first && !validation.early, "{validation:?}");
    assert!(run.edge.as_ref().unwrap().has_edge);

    // What is held back is the same as without; what is chosen by comes off the rest.
    let sides = |run: &Run, wanted: Split| {
        let id = run.dataset.unwrap().to_string();
        let Reply::Dataset(dataset) = site.call(Request::Dataset { id }) else { panic!() };
        let entries = dataset.entries.into_iter().filter(|entry| entry.split == wanted);
        entries.map(|entry| entry.record).collect::<Vec<_>>()
    };
    assert_eq!(sides(&plain, Split::HeldOut), sides(&run, Split::HeldOut));
    assert!(sides(&plain, Split::Validation).is_empty() && !sides(&run, Split::Validation).is_empty());
    let lists = site.call(Request::Runs);
    assert!(matches!(lists, Reply::Runs(runs) if runs.iter().all(|run| run.course.steps.is_empty())));
    site.end();
    site.start();
    assert_eq!(site.call(Request::Run { name }), Reply::Run(run));
    site.end();
}

#[test]
fn a_run_starts_from_an_earlier_one_and_is_not_measured_on_what_that_saw() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let first = site.run(&tiny_recipe(30));
    let mut recipe = tiny_recipe(30);
    recipe.seed = 2;
    recipe.split.validation = 0.2;
    recipe.train.start_from = first.name.clone();
    let further = site.run(&recipe);
    let (before, after) = (first.outcome.unwrap(), further.outcome.unwrap());
    assert!(after.first_loss < before.first_loss, "{before:?} {after:?}");

    // Another seed holds others back, of which the first run saw some.
    let entries = |id: moat_contracts::DatasetId| {
        let Reply::Dataset(dataset) = site.call(Request::Dataset { id: id.to_string() }) else { panic!() };
        dataset.entries.into_iter().map(|entry| (entry.record, entry.split)).collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (entries(first.dataset.unwrap()), entries(further.dataset.unwrap()));
    let held = new.iter().filter(|(_, split)| **split == Split::HeldOut);
    let (seen, unseen): (Vec<_>, Vec<_>) = held.partition(|(record, _)| old[record] == Split::Train);
    assert!(!seen.is_empty() && !unseen.is_empty());
    assert_eq!(further.edge.unwrap().all.records, unseen.len() as u64);

    // What the first run learnt, the second holds too.
    let path = (0..40).map(|index| format!("team/{index}.txt"));
    let mut trained_by_first = 0;
    for path in path {
        for reached in why(&site, &path).reached {
            let both = reached.runs.contains(&first.name) && reached.runs.contains(&further.name);
            if Some(reached.dataset) == first.dataset {
                assert_eq!(both, reached.split == "train", "{reached:?}");
                trained_by_first += u64::from(both);
            }
        }
    }
    assert!(trained_by_first > 0);

    let refused = |change: &dyn Fn(&mut moat_contracts::Recipe)| {
        let mut recipe = recipe.clone();
        change(&mut recipe);
        match site.call(Request::RunStart { recipe: Box::new(recipe) }) {
            Reply::Failed { fault: Fault::Request, message } => message,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&|recipe| recipe.train.start_from.push('x')).contains("moat run list"));
    assert!(refused(&|recipe| recipe.lora.rank = 3).contains("[lora]"));
    assert!(refused(&|recipe| recipe.train.method = Method::Full).contains("train.method"));
    site.end();
}

#[test]
fn the_same_documents_give_the_same_dataset_on_another_machine() {
    let recipe = tiny_recipe(1);
    let mut ids = BTreeMap::new();
    for backwards in [false, true] {
        let mut site = Site::new();
        site.start();
        site.import_base();
        let mut order: Vec<u64> = (0..60).collect();
        if backwards {
            order.reverse();
        }
        for index in order {
            site.write(&format!("{}/{index}.md", index % 7), &prose(&mut Random(index / 2), 9));
            if index % 20 == 0 {
                site.scan();
            }
        }
        site.scan();
        let Reply::Dataset(dataset) = site.call(Request::DatasetBuild { recipe: Box::new(recipe.clone()) })
        else {
            panic!()
        };
        ids.insert(dataset.id, backwards);
        site.end();
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn a_killed_engine_fails_its_run_and_harms_nothing_else() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let name = site.start_run(&tiny_recipe(100_000));
    let mut steps = 0;
    let reply = site.call_and_watch(&Request::RunWatch { name: name.clone() }, |update| {
        if let Update::Run { progress: Progress::Step { .. }, .. } = update {
            steps += 1;
            if steps == 5 {
                assert!(site.kill_engine());
            }
        }
    });
    let Reply::Failed { fault: Fault::Failed, message } = reply else { panic!("{reply:?}") };
    assert!(message.contains("killed by signal 9"), "{message}");
    assert_eq!(status(&site).sources["documents"].present, 46);

    assert!(matches!(site.call(Request::RunResume { name: name.clone() }), Reply::Run(_)));
    let reply = site.call(Request::RunStop { name });
    let Reply::Run(run) = reply else { panic!("{reply:?}") };
    assert_eq!(run.state, RunState::Stopped);
    site.end();
}

#[test]
fn two_processes_train_what_one_does_and_end_together() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let mut recipe = tiny_recipe(20);
    recipe.train.accumulate = 2;
    let alone = site.run(&recipe);
    site.end();
    let settings = std::fs::read_to_string(site.path("moat.toml")).unwrap();
    let both = settings.replace("threads = 1", "threads = 2\nprocesses = 2");
    assert_ne!(settings, both);
    std::fs::write(site.path("moat.toml"), both).unwrap();
    site.start();
    let together = site.run(&recipe);
    assert_eq!((together.state, together.dataset, together.steps), (RunState::Done, alone.dataset, 20));
    let (alone, together) = (alone.outcome.unwrap(), together.outcome.unwrap());
    assert_eq!(alone.tokens, together.tokens);
    assert!(
        (alone.last_loss - together.last_loss).abs() < 1e-5,
        "{} {}",
        alone.last_loss,
        together.last_loss
    );

    recipe.train.max_steps = 100_000;
    recipe.train.epochs = 1000.0;
    let name = site.start_run(&recipe);
    let mut steps = 0;
    let reply = site.call_and_watch(&Request::RunWatch { name: name.clone() }, |update| {
        if let Update::Run { progress: Progress::Step { .. }, .. } = update {
            steps += 1;
            if steps == 5 {
                assert!(site.kill_engine());
            }
        }
    });
    let Reply::Failed { fault: Fault::Failed, message } = reply else { panic!("{reply:?}") };
    assert!(message.contains("killed by signal 9"), "{message}");
    assert!(matches!(site.call(Request::RunResume { name: name.clone() }), Reply::Run(_)));
    let Reply::Run(run) = site.call(Request::RunStop { name }) else { panic!() };
    assert_eq!(run.state, RunState::Stopped);
    site.end();
}

#[test]
fn wrong_requests_are_refused_with_what_to_do() {
    let mut site = Site::new();
    company(&site);
    site.start();
    let refused = |request| match site.call(request) {
        Reply::Failed { fault: Fault::Request, message } => message,
        other => panic!("{other:?}"),
    };
    let recipe = Box::new(tiny_recipe(1));
    assert!(refused(Request::RunStart { recipe: recipe.clone() }).contains("moat base import"));
    assert!(refused(Request::Why { path: "nowhere.txt".to_owned() }).contains("moat scan"));
    assert!(refused(Request::Run { name: "none".to_owned() }).contains("moat run list"));
    assert!(refused(Request::Dataset { id: "00".to_owned() }).contains("moat dataset list"));
    let faulty = Box::new(moat_contracts::Recipe { name: "../up".to_owned(), ..*recipe });
    assert!(refused(Request::RunStart { recipe: faulty }).contains("name"));
    let folder = |name: &str| site.path(name).display().to_string();
    assert!(refused(Request::BaseImport { folder: folder("exports"), name: None }).contains("config.json"));
    for outside in ["documents", "exports/../documents"] {
        let request = Request::BaseImport { folder: folder(outside), name: None };
        assert!(refused(request).contains("boundary.imports"));
    }
    site.end();
}

#[test]
fn a_stranger_to_the_protocol_and_a_second_daemon_are_turned_away() {
    let mut site = Site::new();
    site.start();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[5, 0, 0, 0, b'{']] {
        let mut stream = UnixStream::connect(site.path("run/control.sock")).unwrap();
        std::io::Write::write_all(&mut stream, bytes).unwrap();
        drop(stream);
    }
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_moatd"))
        .arg("--config")
        .arg(site.path("moat.toml"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another moatd"));
    assert_eq!(status(&site).active_runs, [""; 0]);
    site.end();
}

#[test]
fn a_preview_shows_the_data_to_whom_may_read_it() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let recipe = tiny_recipe(6);
    let request = Request::RunPreview { recipe: Box::new(recipe.clone()) };
    let Reply::Preview(seen) = site.call(request.clone()) else { panic!() };
    let preview = &seen.preview;
    assert!(seen.sides.train.records == preview.survey.examples && seen.sides.held_out.records > 0);
    assert!(preview.proofs.iter().all(|proof| proof.held) && preview.memory.total() > 1 << 20);
    let shown: String = preview.example.iter().map(|part| part.text.as_str()).collect();
    assert!(shown.len() > 50, "{shown}");
    // Nothing was queued or trained.
    let Reply::Runs(runs) = site.call(Request::Runs) else { panic!() };
    assert!(runs.is_empty());

    // What the run tells of itself is the same, and is there after a restart.
    let run = site.run(&recipe);
    assert_eq!((run.state, run.dataset), (RunState::Done, Some(seen.dataset)));
    site.end();
    site.start();
    let Reply::Run(kept) = site.call(Request::Run { name: run.name }) else { panic!() };
    let claims: Vec<Claim> = kept.course.proofs.iter().map(|proof| proof.claim).collect();
    let other = [Claim::Turns, Claim::Reference];
    let texts = Claim::ALL.into_iter().filter(|claim| !other.contains(claim)).collect::<Vec<_>>();
    assert_eq!(claims, texts);
    assert!(kept.course.proofs.iter().all(|proof| proof.held), "{:?}", kept.course.proofs);
    assert_eq!(kept.course.survey, Some(preview.survey));
    assert!(kept.course.memory.unwrap().total() > 0);

    // An act like others: in the ledger with its dataset and record, and only for the role that reads texts.
    let acts = Request::Ledger { act: Some("run.preview".to_owned()), before: None, most: 10 };
    let Reply::Ledger(page) = site.call(acts) else { panic!() };
    let entry = &page.entries[0];
    assert_eq!((entry.phase.as_str(), entry.on["dataset"].clone()), ("done", seen.dataset.to_string()));
    if can_be_others() {
        site.set_up_three();
        let (fault, message) = refused(site.call_as(BEN, request.clone()));
        assert!(fault == Fault::Denied && message.contains("record.read"), "{message}");
        assert!(matches!(site.call_as(ADA, request), Reply::Preview(_)));
    }
    site.end();
}
