//! Code that is rearranged to fill in its middle: nothing is lost, only code is, as much of it as is asked for, always the
//! same, and runs on it resume with the same bytes.

#![allow(clippy::unwrap_used)]
mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Place, opened, recipe, run, steps, text};
use moat_contracts::{Example, Kind, Method, Recipe, RunPart, Split};
use moat_template::BaseText;
use moat_tensor::StoredType;
use moat_train::{Ended, Intake, Plan, TrainError, initialise, preview};

const MARKS: [u32; 3] = [263, 264, 265];
const END: u32 = 260;

/// The tiny base, with the tokens of Qwen2.5-Coder.
fn coder() -> Place {
    let place = Place::new();
    let base = place.path("base");
    let edit = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = base.join(name);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
    };
    edit("config.json", &|config| config["vocab_size"] = 272.into());
    edit("tokenizer.json", &|tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for (name, id) in ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"].into_iter().zip(MARKS) {
            let mut token = added[0].clone();
            token["content"] = name.into();
            token["id"] = id.into();
            added.push(token);
        }
    });
    for entry in fs::read_dir(&base).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            fs::remove_file(path).unwrap();
        }
    }
    initialise(&base, 3, StoredType::F32).unwrap();
    place
}

fn code(body: &str) -> Example {
    Example { kind: Kind::Code, ..text(body) }
}

fn sources() -> Vec<Example> {
    (0..60).map(|at| code(&format!("fn f{at}(ä: u32) {{ g({}) }}", at * 7))).collect()
}

fn filling(fim: f64) -> Recipe {
    let mut recipe = recipe(Method::Lora);
    recipe.train.fim = fim;
    recipe.train.sequence_length = 60;
    recipe
}

/// Every sequence that one pass trains on, with its last target.
fn sequences(place: &Place, recipe: &Recipe, examples: &[Example]) -> Result<Vec<Vec<u32>>, TrainError> {
    let mut intake = Intake::for_recipe(&place.path("base"), recipe)?;
    for example in examples {
        intake.add(example.clone())?;
    }
    let corpus = intake.finish()?;
    let mut train = recipe.train.clone();
    train.epochs = 1.0;
    let mut plan = Plan::new(&corpus, &train, 1);
    let mut found = Vec::new();
    for batch in (0..plan.steps()).flat_map(|step| plan.micro_batches(&corpus, step)) {
        for ends in batch.segments.windows(2) {
            let mut tokens = batch.tokens[ends[0]..ends[1]].to_vec();
            tokens.push(batch.targets[ends[1] - 1]);
            found.push(tokens);
        }
    }
    found.sort();
    Ok(found)
}

/// The text that a rearranged sequence was made of.
fn restored(base: &BaseText, tokens: &[u32]) -> String {
    let at = |mark: u32| {
        let places: Vec<usize> = (0..tokens.len()).filter(|place| tokens[*place] == mark).collect();
        assert_eq!(places.len(), 1, "{tokens:?}");
        places[0]
    };
    let [prefix, suffix, middle] = MARKS.map(at);
    assert_eq!((prefix, tokens.last()), (0, Some(&END)));
    let after = &tokens[suffix + 1..middle];
    let rest = &tokens[middle + 1..tokens.len() - 1];
    // Before the marks of the suffix stands the prefix, or nothing where that comes with the middle.
    let before = &tokens[1..suffix];
    base.decode(&[before, rest, after].concat()).unwrap()
}

#[test]
fn what_is_rearranged_is_whole_and_as_much_as_is_asked_for() {
    let place = coder();
    let base = BaseText::load(&place.path("base")).unwrap();
    let bodies: Vec<String> = sources().into_iter().map(|example| example.body).collect();
    for (fim, least, most) in [(1.0, 60, 60), (0.5, 18, 42), (0.0, 0, 0)] {
        let all = sequences(&place, &filling(fim), &sources()).unwrap();
        assert_eq!(all.len(), 60);
        let (drawn, plain): (Vec<_>, Vec<_>) = all.iter().partition(|tokens| tokens.contains(&MARKS[0]));
        assert!((least..=most).contains(&drawn.len()), "{} of {fim}", drawn.len());
        let mut texts: Vec<String> = drawn.iter().map(|tokens| restored(&base, tokens)).collect();
        texts.extend(plain.iter().map(|tokens| base.decode(tokens).unwrap()));
        texts.sort();
        let mut expected = bodies.clone();
        expected.sort();
        assert_eq!(texts, expected);
        if fim == 1.0 {
            let first = drawn.iter().filter(|tokens| tokens[1] == MARKS[1]).count();
            assert!((15..=45).contains(&first), "{first} with the suffix first");
        }
    }
    // The same draws in any order, others by another seed.
    let once = sequences(&place, &filling(0.5), &sources()).unwrap();
    let turned: Vec<Example> = sources().into_iter().rev().collect();
    assert_eq!(once, sequences(&place, &filling(0.5), &turned).unwrap());
    assert_ne!(once, sequences(&place, &Recipe { seed: 2, ..filling(0.5) }, &sources()).unwrap());
}

#[test]
fn a_long_text_is_rearranged_stretch_by_stretch() {
    let place = coder();
    let base = BaseText::load(&place.path("base")).unwrap();
    let body: String = (0..30).map(|at| format!("let v{at} = {};\n", at * at)).collect();
    let all = sequences(&place, &filling(1.0), &[code(&body)]).unwrap();
    assert!(all.len() > 5 && all.iter().all(|tokens| tokens.len() <= 61));
    let mut lines: BTreeMap<char, usize> = BTreeMap::new();
    for letter in all.iter().flat_map(|tokens| restored(&base, tokens).chars().collect::<Vec<_>>()) {
        *lines.entry(letter).or_default() += 1;
    }
    let mut expected: BTreeMap<char, usize> = BTreeMap::new();
    body.chars().for_each(|letter| *expected.entry(letter).or_default() += 1);
    assert_eq!(lines, expected);
}

#[test]
fn only_code_of_the_training_side_is_and_only_where_the_base_knows_how() {
    let place = coder();
    for kind in
        Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Code | Kind::Chat | Kind::Preference))
    {
        let example = Example { kind, ..text("fn f() { g() }") };
        let all = sequences(&place, &filling(1.0), &[example]).unwrap();
        assert!(all.iter().flatten().all(|token| !MARKS.contains(token)), "{}", kind.word());
    }
    let aside = Example { split: Split::Validation, ..code("fn h() { g() }") };
    let mut intake = Intake::for_recipe(&place.path("base"), &filling(1.0)).unwrap();
    intake.add(aside).unwrap();
    intake.add(code("fn f() { g() }")).unwrap();
    let corpus = intake.finish().unwrap();
    // As many tokens as bytes, and the end.
    assert_eq!(corpus.validation().unwrap().size(), "fn h() { g() }".len() as u64 + 1);
    let shown = preview(&place.job("shown", &filling(1.0)), &corpus).unwrap();
    assert_eq!((shown.survey.rearranged, shown.survey.examples), (1, 1));
    let all: String = shown.example.iter().map(|stretch| stretch.text.as_str()).collect();
    assert!(
        all.starts_with("<|fim_prefix|>") && all.contains("<|fim_middle|>") && all.ends_with("<|end|>"),
        "{all}"
    );

    let tiny = Place::new();
    let error = sequences(&tiny, &filling(0.1), &sources()).unwrap_err();
    assert!(matches!(error, TrainError::Infill) && error.to_string().contains("train.fim"), "{error}");
}

#[test]
fn a_run_on_rearranged_code_resumes_bit_for_bit() {
    let place = coder();
    let recipe = filling(0.5);
    let mut intake = Intake::for_recipe(&place.path("base"), &recipe).unwrap();
    sources().into_iter().take(20).for_each(|example| intake.add(example).unwrap());
    let corpus = intake.finish().unwrap();
    let file = "adapter_model.safetensors";
    let whole = place.job("whole", &recipe);
    let (ended, reports) = run(&whole, &corpus, None);
    let Ended::Trained(outcome) = ended.unwrap() else { panic!() };
    for cut in (0..outcome.steps).step_by(3) {
        let job = place.sealed(&format!("cut{cut}"), &recipe);
        assert_eq!(run(&job, &corpus, Some(cut)).0.unwrap(), Ended::Stopped);
        let (ended, again) = run(&job, &corpus, None);
        assert!(matches!(ended, Ok(Ended::Trained(_))));
        assert_eq!(steps(&again), steps(&reports));
        assert_eq!(opened(&job, RunPart::Adapter, file), opened(&whole, RunPart::Adapter, file));
    }
}
