//! Asks the tiny base with random weights, against whole forwards without a cache.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moat_contracts::{Architecture, AskJob, Completion, Frozen, RunKey, RunPart, Sampling};
use moat_serve::{ServeError, answer};
use moat_template::BaseText;
use moat_tensor::{Batch, Folder, Lora, Model, StoredType, Weights, logits};

struct Site {
    root: tempfile::TempDir,
    base: Model,
    tuned: Model,
    text: BaseText,
}

fn site() -> Site {
    let root = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny");
    let folder = root.path().join("base");
    fs::create_dir(&folder).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny.join(file), folder.join(file)).unwrap();
    }
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut weights = Weights::random(Architecture::from_config(&config).unwrap(), 3);
    // Deviation 0.02 leaves every token nearly as likely as any other, and a large embedding makes a tied head repeat
    // the last token: both would hide mistakes.
    for parameter in weights.parameters_mut().list_mut().iter_mut().filter(|one| one.shape.len() == 2) {
        let factor = if parameter.name.starts_with("model.layers") { 20.0 } else { 10.0 };
        parameter.values.iter_mut().for_each(|value| *value *= factor);
    }
    weights.save(&folder, StoredType::F32).unwrap();
    let lora = Lora::new(weights.architecture(), 4, 8.0, 5);
    let mut tuned = Model { weights: weights.clone(), adapter: Some(lora) };
    for (index, parameter) in tuned.trainable_mut().list_mut().iter_mut().enumerate() {
        let shift = 0.03 * (index % 7) as f32;
        parameter.values.iter_mut().for_each(|value| *value += shift);
    }
    let adapter = root.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    tuned.adapter.as_ref().unwrap().save(&adapter, "tiny").unwrap();
    let text = BaseText::load(&folder).unwrap();
    Site { root, base: Model { weights, adapter: None }, tuned, text }
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn job(&self, prompt: &str, temperature: f64, max_tokens: usize) -> AskJob {
        AskJob {
            run: "run".to_owned(),
            key: None,
            base: self.path("base").to_str().unwrap().to_owned(),
            tuned: Some(self.path("adapter").to_str().unwrap().to_owned()),
            prompt: prompt.to_owned(),
            chat: false,
            sampling: Sampling { temperature, top_p: 1.0, seed: 1, max_tokens },
        }
    }

    /// What always taking the likeliest token gives, with a whole forward for each, and their log-probabilities.
    fn greedy(&self, model: &Model, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, Vec<f64>, bool) {
        let (mut tokens, mut logprobs) = (prompt.to_vec(), Vec::new());
        while tokens.len() < prompt.len() + max_tokens {
            let rows = logits(model, &Batch::sequence(&tokens)).unwrap();
            let row = &rows[rows.len() - rows.len() / tokens.len()..];
            let best = (0..row.len()).reduce(|best, token| if row[token] > row[best] { token } else { best });
            let best = best.unwrap();
            if self.text.stops().contains(&(best as u32)) {
                return (tokens[prompt.len()..].to_vec(), logprobs, true);
            }
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            logprobs.push(f64::from(row[best]) - sum.ln());
            tokens.push(best as u32);
        }
        (tokens[prompt.len()..].to_vec(), logprobs, false)
    }
}

fn go_on(_: &str, _: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn drawn(completion: &Completion) -> Vec<u32> {
    completion.tokens.iter().map(|token| token.token).collect()
}

#[test]
fn greedy_answers_are_those_of_whole_forwards() {
    let site = site();
    let mut answers = Vec::new();
    for prompt in ["the thing", "x", "Ü 😀 in there"] {
        let found = answer(&site.job(prompt, 0.0, 20), &mut go_on).unwrap();
        let tokens = site.text.encode(prompt).unwrap();
        for (completion, (name, model)) in found.iter().zip([("base", &site.base), ("tuned", &site.tuned)]) {
            let (expected, logprobs, stopped) = site.greedy(model, &tokens, 20);
            assert_eq!(
                (completion.model.as_str(), drawn(completion), completion.stopped),
                (name, expected, stopped)
            );
            for (token, expected) in completion.tokens.iter().zip(logprobs) {
                assert!((token.logprob - expected).abs() < 1e-4);
            }
            assert_eq!(completion.text, site.text.decode(&drawn(completion)).unwrap());
        }
        assert_eq!(found.len(), 2);
        answers.extend(found.iter().map(drawn));
    }
    let kinds: BTreeSet<u32> = answers.iter().flatten().copied().collect();
    answers.sort_unstable();
    answers.dedup();
    assert!(answers.len() == 6 && kinds.len() > 12, "{answers:?}");
}

#[test]
fn an_adapter_on_a_rounded_base_answers_on_it() {
    let mut site = site();
    moat_tensor::Folder::plain(&site.path("adapter")).note_frozen(Frozen::Nf4).unwrap();
    site.tuned.weights = site.tuned.weights.freeze(Frozen::Nf4).unwrap();
    let found = answer(&site.job("the thing", 0.0, 12), &mut go_on).unwrap();
    let tokens = site.text.encode("the thing").unwrap();
    for (completion, model) in found.iter().zip([&site.base, &site.tuned]) {
        assert_eq!(drawn(completion), site.greedy(model, &tokens, 12).0);
    }
}

#[test]
fn a_merged_model_answers_like_its_adapter() {
    let site = site();
    let full = site.path("full");
    fs::create_dir(&full).unwrap();
    let mut merged = site.base.weights.clone();
    site.tuned.adapter.as_ref().unwrap().merge(&mut merged).unwrap();
    merged.save(&full, StoredType::F32).unwrap();
    fs::copy(site.path("base/config.json"), full.join("config.json")).unwrap();
    let by_adapter = answer(&site.job("the", 0.0, 10), &mut go_on).unwrap();
    let job = AskJob { tuned: Some(full.to_str().unwrap().to_owned()), ..site.job("the", 0.0, 10) };
    assert_eq!(drawn(&answer(&job, &mut go_on).unwrap()[1]), drawn(&by_adapter[1]));
    let alone = answer(&AskJob { tuned: None, ..job }, &mut go_on).unwrap();
    assert_eq!(alone.len(), 1);
}

#[test]
fn sealed_weights_answer_as_plain_ones_and_only_with_their_key() {
    let site = site();
    let key = RunKey::from_bytes(&[4; 32]);
    let seal = |name: &str, part, fill: &dyn Fn(&Folder)| {
        fs::create_dir(site.path(name)).unwrap();
        fill(&Folder::of_run(&site.path(name), "run", part, Some(&key)));
    };
    let adapter = site.tuned.adapter.as_ref().unwrap();
    let mut merged = site.base.weights.clone();
    adapter.merge(&mut merged).unwrap();
    let config = fs::read(site.path("base/config.json")).unwrap();
    seal("sealed-adapter", RunPart::Adapter, &|folder| _ = adapter.save_to(folder, "tiny").unwrap());
    seal("sealed-full", RunPart::Model, &|folder| {
        merged.save_to(folder, StoredType::F32).unwrap();
        folder.write("config.json", |file| file.write_all(&config)).unwrap();
    });
    fs::create_dir(site.path("full")).unwrap();
    merged.save(&site.path("full"), StoredType::F32).unwrap();
    fs::write(site.path("full/config.json"), &config).unwrap();
    for (plain, sealed) in [("adapter", "sealed-adapter"), ("full", "sealed-full")] {
        let ask = |tuned: &str, key| {
            let tuned = Some(site.path(tuned).to_str().unwrap().to_owned());
            answer(&AskJob { tuned, key, ..site.job("the thing", 1.2, 16) }, &mut go_on)
        };
        let tokens = |answers: Vec<Completion>| answers.into_iter().map(|one| one.tokens).collect::<Vec<_>>();
        let expected = tokens(ask(plain, None).unwrap());
        assert_eq!(tokens(ask(sealed, Some(key.clone())).unwrap()), expected);
        let wrong = ask(sealed, Some(RunKey::from_bytes(&[5; 32]))).unwrap_err().to_string();
        assert!(wrong.contains(sealed) && wrong.contains("belong to another object or key"), "{wrong}");
        assert!(matches!(ask(sealed, None), Err(ServeError::Tensor(_))));
    }
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_gives_another() {
    let site = site();
    let ask = |seed: u64| {
        let mut job = site.job("the thing", 1.5, 20);
        job.sampling.seed = seed;
        answer(&job, &mut go_on).unwrap().iter().map(drawn).collect::<Vec<_>>()
    };
    assert_eq!(ask(1), ask(1));
    assert_ne!(ask(1), ask(2));
}

#[test]
fn pieces_add_up_to_the_answer_and_a_break_ends_it() {
    let site = site();
    let mut given = [String::new(), String::new()];
    let found = answer(&site.job("the thing", 1.5, 25), &mut |model, piece| {
        assert!(!piece.is_empty());
        given[usize::from(model == "tuned")].push_str(piece);
        ControlFlow::Continue(())
    });
    assert_eq!(found.unwrap().into_iter().map(|one| one.text).collect::<Vec<_>>(), given);
    let cut = answer(&site.job("the thing", 1.5, 25), &mut |_, _| ControlFlow::Break(())).unwrap();
    assert!(
        cut.len() == 1 && !cut[0].stopped && given[0].starts_with(&cut[0].text) && !cut[0].text.is_empty()
    );
}

#[test]
fn an_answer_ends_at_an_end_token() {
    let site = site();
    // The likeliest first token becomes an end token, and then a model that gives it says nothing.
    let tokens = site.text.encode("the").unwrap();
    let first = site.greedy(&site.base, &tokens, 1).0[0];
    fs::write(site.path("base/generation_config.json"), format!(r#"{{"eos_token_id": {first}}}"#)).unwrap();
    let found = answer(&AskJob { tuned: None, ..site.job("the", 0.0, 8) }, &mut go_on).unwrap();
    assert!(found[0].stopped && found[0].text.is_empty() && found[0].tokens.is_empty());
}

#[test]
fn a_chat_goes_through_the_template() {
    let site = site();
    let job = AskJob { chat: true, ..site.job("hi", 0.0, 8) };
    let prompt = site.text.encode_special("<|turn|>user\nhi<|done|>\n<|turn|>assistant\n").unwrap();
    let expected = site.greedy(&site.base, &prompt, 8);
    assert_eq!(drawn(&answer(&job, &mut go_on).unwrap()[0]), expected.0);
}

#[test]
fn prompts_without_room_or_content_are_refused_and_long_answers_end_with_the_positions() {
    let site = site();
    assert!(matches!(answer(&site.job("", 0.0, 8), &mut go_on), Err(ServeError::Empty)));
    let full = "x".repeat(64);
    let found = answer(&site.job(&full, 0.0, 8), &mut go_on).unwrap();
    assert!(found[0].tokens.len() <= 1);
    let long = answer(&site.job(&format!("{full}x"), 0.0, 8), &mut go_on);
    assert!(matches!(long, Err(ServeError::TooLong { tokens: 65, positions: 64 })));
    assert!(matches!(answer(&site.job("x", 0.0, 0), &mut go_on), Err(ServeError::Sampling { .. })));
    let found = answer(&site.job("x", 1.0, 1000), &mut go_on).unwrap();
    assert!(found[0].stopped || found[0].tokens.len() == 64);
}
