//! Measures the tiny base with random weights, against losses worked out from its logits.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moat_contracts::{
    Architecture, Digest, DocumentLoss, EvaluateJob, Example, Frozen, Kind, RecordId, RunKey, RunPart, Split,
};
use moat_evaluate::{EvaluateError, FORGETTING, Measured, examine, passages};
use moat_template::BaseText;
use moat_tensor::{Batch, Folder, Lora, Model, StoredType, Weights, logits};

struct Site {
    root: tempfile::TempDir,
    base: Model,
    tuned: Model,
    text: BaseText,
}

/// A base folder, and beside it an adapter folder whose adapter changes something.
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
    // Deviation 0.02 leaves every token nearly as likely as any other, which would hide mistakes.
    for parameter in weights.parameters_mut().list_mut().iter_mut().filter(|one| one.shape.len() == 2) {
        parameter.values.iter_mut().for_each(|value| *value *= 12.0);
    }
    weights.save(&folder, StoredType::F32).unwrap();
    let lora = Lora::new(weights.architecture(), 4, 8.0, 5);
    let mut tuned = Model { weights: weights.clone(), adapter: Some(lora) };
    for (index, parameter) in tuned.trainable_mut().list_mut().iter_mut().enumerate() {
        let shift = 0.01 * (index % 7) as f32;
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

    fn job(&self, tuned: &str, sequence_length: usize) -> EvaluateJob {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        EvaluateJob {
            run: "run".to_owned(),
            key: None,
            base: text(self.path("base")),
            tuned: text(self.path(tuned)),
            sequence_length,
            threads: 0,
        }
    }

    fn measure(&self, sequence_length: usize, examples: &[Example]) -> Measured {
        let job = self.job("adapter", sequence_length);
        examine(&job, examples, &mut |_, _, _| ControlFlow::Continue(())).unwrap().unwrap()
    }
}

fn example(body: &str, chat: bool) -> Example {
    let record = RecordId(Digest::of(body.as_bytes()));
    let kind = if chat { Kind::Chat } else { Kind::Prose };
    Example { record, source: "docs".to_owned(), split: Split::HeldOut, kind, body: body.to_owned() }
}

/// Nats of tokens `wanted` of one sequence, out of its logits.
fn nats(model: &Model, tokens: &[u32], wanted: impl Iterator<Item = usize>) -> f64 {
    let rows = logits(model, &Batch::sequence(tokens)).unwrap();
    let vocabulary = rows.len() / tokens.len();
    let loss = |index: usize| {
        let row = &rows[(index - 1) * vocabulary..index * vocabulary];
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(row[tokens[index] as usize])
    };
    wanted.map(loss).sum()
}

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-4 * right.abs().max(1.0)
}

#[test]
fn losses_are_those_of_the_logits() {
    let site = site();
    let bodies = ["the thing in there", "Ünïcödé 😀", "x", "", "say <|end|> now"];
    let examples: Vec<Example> = bodies.iter().map(|body| example(body, false)).collect();
    let measured = site.measure(64, &examples);
    for (loss, body) in measured.held_out.iter().zip(bodies) {
        let tokens = site.text.encode(body).unwrap();
        assert_eq!((loss.record, loss.source.as_str()), (example(body, false).record, "docs"));
        if tokens.len() < 2 {
            assert_eq!((loss.bytes, loss.base_nats, loss.tuned_nats), (0, 0.0, 0.0));
            continue;
        }
        // The tiny base has no start token: its first token is context only.
        let first = if body.starts_with('Ü') { 0 } else { site.text.decode(&tokens[..1]).unwrap().len() };
        assert_eq!(loss.bytes as usize, body.len() - first, "{body}");
        let (base, tuned) =
            (nats(&site.base, &tokens, 1..tokens.len()), nats(&site.tuned, &tokens, 1..tokens.len()));
        assert!(near(loss.base_nats, base) && near(loss.tuned_nats, tuned), "{loss:?} {base} {tuned}");
        assert!((base - tuned).abs() > 1e-3);
    }
}

#[test]
fn a_long_text_is_scored_in_windows_that_overlap_by_half() {
    let site = site();
    let body = "in the hall there is a thing that nobody has seen, ".repeat(4);
    let tokens = site.text.encode(&body).unwrap();
    let measured = site.measure(16, &[example(&body, false)]);
    // Window by window: 16 tokens of context at most, the later half of them new.
    let (mut expected, mut done) = (0.0, 0);
    while done < tokens.len() - 1 {
        let start = if done == 0 { 0 } else { done - 8 };
        let end = (start + 16).min(tokens.len() - 1);
        expected += nats(&site.base, &tokens[start..=end], done - start + 1..end - start + 1);
        done = end;
    }
    assert!(near(measured.held_out[0].base_nats, expected));
}

#[test]
fn what_lies_beside_a_record_in_a_batch_does_not_matter() {
    let site = site();
    let examples: Vec<Example> = (0..60)
        .map(|number| example(&format!("thing {number} {}", "there ".repeat(number % 23)), false))
        .collect();
    let together = site.measure(32, &examples).held_out;
    for (number, loss) in together.iter().enumerate().step_by(7) {
        let alone = &site.measure(32, &examples[number..=number]).held_out[0];
        assert_eq!((alone.record, alone.bytes), (loss.record, loss.bytes));
        assert!(near(alone.base_nats, loss.base_nats) && near(alone.tuned_nats, loss.tuned_nats));
    }
    assert_eq!(site.measure(32, &examples).held_out, together);
}

#[test]
fn of_a_chat_the_answers_count() {
    let site = site();
    let body = r#"[{"role":"user","content":"hi"},{"role":"assistant","content":"so it is"}]"#;
    let loss = &site.measure(64, &[example(body, true)]).held_out[0];
    let tokens =
        site.text.encode_special("<|turn|>user\nhi<|done|>\n<|turn|>assistant\nso it is<|done|>\n").unwrap();
    let answer = site.text.encode("so it is").unwrap().len();
    let end = tokens.len() - 2;
    assert!(near(loss.base_nats, nats(&site.base, &tokens, end - answer..end)));
    assert_eq!(loss.bytes, "so it is".len() as u64);
    let job = site.job("adapter", 64);
    let failed =
        examine(&job, &[example("secret", true)], &mut |_, _, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(failed, EvaluateError::Example { .. }) && !failed.to_string().contains("secret"));
}

#[test]
fn a_fully_trained_model_is_measured_like_an_adapter() {
    let site = site();
    let full = site.path("full");
    fs::create_dir(&full).unwrap();
    let mut merged = site.base.weights.clone();
    site.tuned.adapter.as_ref().unwrap().merge(&mut merged).unwrap();
    merged.save(&full, StoredType::F32).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(site.path("base").join(file), full.join(file)).unwrap();
    }
    let examples = [example("the thing in there", false)];
    let by_adapter = site.measure(64, &examples);
    let go_on = &mut |_: DocumentLoss, _, _| ControlFlow::Continue(());
    let by_model = examine(&site.job("full", 64), &examples, go_on).unwrap().unwrap();
    assert!(near(by_adapter.held_out[0].tuned_nats, by_model.held_out[0].tuned_nats));
    fs::write(full.join("tokenizer.json"), "{}").unwrap();
    let stranger = examine(&site.job("full", 64), &examples, go_on);
    assert!(matches!(stranger, Err(EvaluateError::Strangers(_))));
}

#[test]
fn an_adapter_on_a_rounded_base_is_measured_on_it_and_against_the_base_as_released() {
    let mut site = site();
    let examples = [example("the thing in there", false)];
    let whole = site.measure(64, &examples);
    Folder::plain(&site.path("adapter")).note_frozen(Frozen::Nf4).unwrap();
    let rounded = site.measure(64, &examples);
    assert_eq!(rounded.held_out[0].base_nats, whole.held_out[0].base_nats);
    site.tuned.weights = site.tuned.weights.freeze(Frozen::Nf4).unwrap();
    let tokens = site.text.encode("the thing in there").unwrap();
    let expected = nats(&site.tuned, &tokens, 1..tokens.len());
    assert!(near(rounded.held_out[0].tuned_nats, expected), "{expected}");
    assert!((expected - whole.held_out[0].tuned_nats).abs() > 1e-3);
}

#[test]
fn sealed_weights_measure_as_plain_ones_and_only_with_their_key() {
    let site = site();
    let key = RunKey::from_bytes(&[4; 32]);
    let [adapter, full] = ["sealed-adapter", "sealed-full"].map(|name| {
        fs::create_dir(site.path(name)).unwrap();
        let part = if name.ends_with("full") { RunPart::Model } else { RunPart::Adapter };
        Folder::of_run(&site.path(name), "run", part, Some(&key))
    });
    site.tuned.adapter.as_ref().unwrap().save_to(&adapter, "tiny").unwrap();
    let mut merged = site.base.weights.clone();
    site.tuned.adapter.as_ref().unwrap().merge(&mut merged).unwrap();
    merged.save_to(&full, StoredType::F32).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        let bytes = fs::read(site.path("base").join(file)).unwrap();
        full.write(file, |into| into.write_all(&bytes)).unwrap();
    }
    let examples = [example("the thing in there", false)];
    let measure = |tuned: &str, key| {
        let job = EvaluateJob { key, ..site.job(tuned, 64) };
        examine(&job, &examples, &mut |_, _, _| ControlFlow::Continue(()))
    };
    let plain = site.measure(64, &examples);
    assert_eq!(measure("sealed-adapter", Some(key.clone())).unwrap().unwrap(), plain);
    let by_model = measure("sealed-full", Some(key.clone())).unwrap().unwrap();
    assert!(near(plain.held_out[0].tuned_nats, by_model.held_out[0].tuned_nats));
    for name in ["sealed-adapter", "sealed-full"] {
        let wrong = measure(name, Some(RunKey::from_bytes(&[5; 32]))).unwrap_err().to_string();
        assert!(wrong.contains(name) && wrong.contains("belong to another object or key"), "{wrong}");
    }
    full.write("tokenizer.json", |into| into.write_all(b"{}")).unwrap();
    assert!(matches!(measure("sealed-full", Some(key.clone())), Err(EvaluateError::Strangers(_))));
}

#[test]
fn the_forgetting_text_is_measured_too_and_a_stop_is_heard() {
    let site = site();
    let passages = passages().unwrap();
    assert!(passages.len() >= 10);
    let examples: Vec<Example> = (0..5).map(|number| example(&format!("thing {number}"), false)).collect();
    let mut told = Vec::new();
    let job = site.job("adapter", 64);
    let measured = examine(&job, &examples, &mut |loss, done, of| {
        told.push((loss.record, done, of));
        ControlFlow::Continue(())
    });
    let measured = measured.unwrap().unwrap();
    let expected: Vec<_> =
        examples.iter().zip(1..).map(|(example, done)| (example.record, done, 5)).collect();
    assert_eq!(told, expected);
    assert_eq!(measured.forgetting.len(), passages.len());
    for (loss, passage) in measured.forgetting.iter().zip(&passages) {
        assert_eq!((loss.record, loss.source.as_str()), (passage.record, FORGETTING));
        assert!(loss.bytes > 0 && loss.base_nats > 0.0 && loss.tuned_nats > 0.0);
    }
    let stopped = examine(&job, &examples, &mut |_, done, _| {
        if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap(), None);
    let short = examine(&site.job("adapter", 1), &examples, &mut |_, _, _| ControlFlow::Continue(()));
    assert!(matches!(short, Err(EvaluateError::Window(1))));
}
