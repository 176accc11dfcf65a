//! What is learnt is what was meant: masks, ends, boundaries, accumulation, merging, refusals.

#![allow(clippy::unwrap_used)]
mod common;

use std::fs;
use std::path::Path;

use common::{Place, bytes, chat, examples, recipe, run, steps, text};
use moat_contracts::{Claim, ExportJob, Frozen, Method, Progress, Split};
use moat_template::BaseText;
use moat_tensor::{Batch, Folder, IGNORE, Lora, Model, Weights, logits};
use moat_train::{Corpus, Ended, Plan, TrainError, learning_rate, merge};

/// Every token with what it is trained to be followed by, segment by segment.
fn pairs(corpus: &Corpus, method: Method) -> Vec<Vec<(u32, Option<u32>)>> {
    let mut recipe = recipe(method);
    recipe.train.epochs = 1.0;
    let mut plan = Plan::new(corpus, &recipe.train, 1);
    let batches: Vec<Batch> = (0..plan.steps()).flat_map(|step| plan.micro_batches(corpus, step)).collect();
    let mut found = Vec::new();
    for batch in batches {
        for segment in batch.segments.windows(2) {
            let target = |index: usize| Some(batch.targets[index]).filter(|target| *target != IGNORE);
            found.push((segment[0]..segment[1]).map(|index| (batch.tokens[index], target(index))).collect());
        }
    }
    found
}

#[test]
fn a_text_is_trained_whole_and_to_its_end() {
    let place = Place::new();
    let base = BaseText::load(&place.path("base")).unwrap();
    let corpus = place.corpus(Method::Lora, &[text("short words")]).unwrap();
    let mut tokens = base.encode("short words").unwrap();
    tokens.push(base.end());
    let expected: Vec<_> = tokens.windows(2).map(|pair| (pair[0], Some(pair[1]))).collect();
    assert_eq!(pairs(&corpus, Method::Lora), [expected]);
}

#[test]
fn only_answers_of_a_chat_are_trained_with_their_end() {
    let place = Place::new();
    let base = BaseText::load(&place.path("base")).unwrap();
    let body = r#"[{"role":"user","content":"Open?"},{"role":"assistant","content":"Shut."}]"#;
    let corpus = place.corpus(Method::Lora, &[chat(body)]).unwrap();
    let learnt: Vec<u32> =
        pairs(&corpus, Method::Lora).concat().into_iter().filter_map(|(_, target)| target).collect();
    assert!(base.stops().contains(learnt.last().unwrap()));
    assert_eq!(base.decode(&learnt).unwrap(), "Shut.");
}

#[test]
fn documents_speak_in_control_tokens_only_where_bases_are_made() {
    let place = Place::new();
    let base = BaseText::load(&place.path("base")).unwrap();
    let special = &base.special()[0];
    let id = base.encode_special(special).unwrap();
    assert_eq!(id.len(), 1);
    let body = format!("before {special} after");
    let inputs = |method| {
        let corpus = place.corpus(method, &[text(&body)]).unwrap();
        pairs(&corpus, method).concat().into_iter().map(|(token, _)| token).collect::<Vec<u32>>()
    };
    assert!(!inputs(Method::Lora).contains(&id[0]));
    assert!(inputs(Method::Full).contains(&id[0]));
}

#[test]
fn what_cannot_be_trained_is_refused_by_its_record_without_its_text() {
    let place = Place::new();
    let refused = |example| place.corpus(Method::Lora, &[example]).unwrap_err();
    for example in [
        chat("no JSON, but a secret"),
        chat(r#"[{"role":"user","content":"secret"}]"#),
        moat_contracts::Example { split: Split::HeldOut, ..text("secret") },
    ] {
        let record = example.record;
        let error = refused(example);
        assert!(matches!(&error, TrainError::Example { record: named, .. } if *named == record), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
    assert!(matches!(place.corpus(Method::Lora, &[]), Err(TrainError::Nothing)));
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let mut long = recipe(Method::Lora);
    long.train.sequence_length = 65;
    let error = run(&place.job("long", &long), &corpus, None).0.unwrap_err();
    assert!(matches!(error, TrainError::Length { asked: 65, limit: 64 }));
}

#[test]
fn a_corpus_does_not_depend_on_the_order_of_arrival() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let mut reversed = examples();
    reversed.reverse();
    let other = place.corpus(Method::Lora, &reversed).unwrap();
    assert_eq!(corpus.fingerprint(), other.fingerprint());
    assert_eq!(pairs(&corpus, Method::Lora), pairs(&other, Method::Lora));
}

/// The loss is the mean over all trained tokens of the step, however they are divided: not a mean of means.
#[test]
fn accumulation_is_one_big_batch() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let with = |name: &str, micro_batch, accumulate| {
        let mut recipe = recipe(Method::Lora);
        recipe.train.micro_batch = micro_batch;
        recipe.train.accumulate = accumulate;
        let reports = run(&place.job(name, &recipe), &corpus, None).1;
        steps(&reports)
            .into_iter()
            .map(|step| (f64::from_bits(step.1), f64::from_bits(step.2)))
            .collect::<Vec<_>>()
    };
    let big = with("big", 4, 1);
    let small = with("small", 1, 4);
    assert_eq!(big.len(), small.len());
    for (big, small) in big.iter().zip(&small) {
        assert!((big.0 - small.0).abs() < 1e-4 * big.0, "{big:?} {small:?}");
        assert!((big.1 - small.1).abs() < 1e-3 * big.1, "{big:?} {small:?}");
    }
}

#[test]
fn reports_tell_the_schedule_and_the_size() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let recipe = recipe(Method::Lora);
    let reports = run(&place.job("run", &recipe), &corpus, None).1;
    let weights = Weights::load(&place.path("base")).unwrap();
    let adapter = Lora::load(weights.architecture(), &place.path("run/adapter")).unwrap();
    let trainable = adapter.parameters().count();
    let all = weights.parameters().count() + trainable;
    let training = reports.iter().find(|report| matches!(report, Progress::Training { .. })).unwrap();
    let count = steps(&reports).len() as u64;
    assert_eq!(*training, Progress::Training { from: 0, steps: count, trainable, parameters: all });
    for (done, step) in steps(&reports).iter().enumerate() {
        assert_eq!(f64::from_bits(step.3), learning_rate(&recipe.optimizer, done as u64, count));
    }
}

#[test]
fn a_diverging_run_ends_with_the_reason() {
    let place = Place::new();
    let corpus = place.corpus(Method::Full, &examples()).unwrap();
    let mut recipe = recipe(Method::Full);
    recipe.optimizer.learning_rate = 0.99;
    recipe.optimizer.warmup = 0.0;
    recipe.optimizer.epsilon = 1e-300;
    let config = place.path("base/model.safetensors");
    // Weights near the end of the range overflow within the first forward.
    let mut weights = Weights::load(&place.path("base")).unwrap();
    for tensor in weights.parameters_mut().list_mut() {
        tensor.values.iter_mut().for_each(|value| *value *= 1e30);
    }
    fs::remove_file(&config).unwrap();
    weights.save(&place.path("base"), moat_tensor::StoredType::F32).unwrap();
    let error = run(&place.job("run", &recipe), &corpus, None).0.unwrap_err();
    assert!(matches!(error, TrainError::Proof(_) | TrainError::Diverged { .. }), "{error}");
    assert!(!place.path("run/model").exists());
}

#[test]
fn an_adapter_on_a_base_in_four_bits_learns_and_is_merged_with_what_it_was_trained_on() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let mut four = recipe(Method::Lora);
    four.train.frozen = Frozen::Nf4;
    let (ended, reports) = run(&place.job("four", &four), &corpus, None);
    let Ok(Ended::Trained(outcome)) = ended else { panic!("{ended:?}") };
    assert!(outcome.last_loss < outcome.first_loss - 0.05, "{outcome:?}");
    let proven = reports.iter().filter_map(|report| match report {
        Progress::Proven { proofs } => Some(proofs.len()),
        _ => None,
    });
    // All but that of preferences.
    assert_eq!(proven.sum::<usize>(), Claim::ALL.len() - 1);
    let adapter_folder = Folder::plain(&place.path("four/adapter"));
    assert_eq!(adapter_folder.frozen().unwrap(), Frozen::Nf4);
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (run, base) = ("four".to_owned(), text("base"));
    merge(&ExportJob { run, key: None, base, adapter: text("four/adapter"), output: text("merged") })
        .unwrap();

    let weights = Weights::load_frozen(&Folder::plain(&place.path("base")), Frozen::Nf4).unwrap();
    let adapter = Lora::load(weights.architecture(), &place.path("four/adapter")).unwrap();
    let mut expected = weights.clone();
    adapter.merge(&mut expected).unwrap();
    let merged = Weights::load(&place.path("merged")).unwrap();
    assert_eq!(merged.parameters(), expected.parameters());
    let batch = Batch::sequence(&(40..70).collect::<Vec<u32>>());
    let tuned = logits(&Model { weights, adapter: Some(adapter) }, &batch).unwrap();
    let merged = logits(&Model { weights: merged, adapter: None }, &batch).unwrap();
    assert!(tuned.iter().zip(&merged).all(|(tuned, merged)| (tuned - merged).abs() < 1e-4));
}

#[test]
fn a_merged_model_gives_the_logits_of_base_and_adapter_and_is_a_base() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    assert!(matches!(run(&place.job("run", &recipe(Method::Lora)), &corpus, None).0, Ok(Ended::Trained(_))));
    let job = ExportJob {
        run: "run".to_owned(),
        key: None,
        base: place.path("base").to_str().unwrap().to_owned(),
        adapter: place.path("run/adapter").to_str().unwrap().to_owned(),
        output: place.path("merged").to_str().unwrap().to_owned(),
    };
    merge(&job).unwrap();
    assert!(matches!(merge(&job), Err(TrainError::Exists(_))));
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&place.path("merged")), names(&place.path("base")));
    assert_eq!(bytes(&place.path("merged/config.json")), bytes(&place.path("base/config.json")));

    let weights = Weights::load(&place.path("base")).unwrap();
    let adapter = Lora::load(weights.architecture(), &place.path("run/adapter")).unwrap();
    let plain = Model { weights: weights.clone(), adapter: None };
    let tuned = Model { weights, adapter: Some(adapter) };
    let merged = Model { weights: Weights::load(&place.path("merged")).unwrap(), adapter: None };
    let batch = Batch::sequence(&(40..70).collect::<Vec<u32>>());
    let distance = |a: &Model, b: &Model| {
        let (a, b) = (logits(a, &batch).unwrap(), logits(b, &batch).unwrap());
        a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    };
    assert!(distance(&tuned, &merged) < 1e-4);
    assert!(distance(&plain, &tuned) > 1e-2);
}
