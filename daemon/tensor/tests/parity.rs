//! Small random models of each family against what PyTorch, transformers and PEFT compute of them. `tests/fixtures`
//! says what is there and how it was made; `MOAT_PARITY_FIXTURES` names a folder of other ones.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::path::{Path, PathBuf};

use moat_tensor::{
    AdamW, Batch, Gradients, IGNORE, Lora, Model, Moments, Weights, adamw, forward_backward, logits,
    token_losses,
};
use safetensors::SafeTensors;

fn cases() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = std::env::var_os("MOAT_PARITY_FIXTURES").map_or(own, PathBuf::from);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.join("expected.safetensors").exists()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// `expected.safetensors` of one case.
struct Expected(Vec<u8>);

impl Expected {
    fn numbers<const SIZE: usize, T>(&self, name: &str, read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("{name}"));
        let (chunks, rest) = view.data().as_chunks::<SIZE>();
        assert!(rest.is_empty());
        chunks.iter().map(|bytes| read(*bytes)).collect()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.numbers(name, f32::from_le_bytes)
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.numbers(name, f64::from_le_bytes)
    }

    fn i64(&self, name: &str) -> Vec<i64> {
        self.numbers(name, i64::from_le_bytes)
    }

    fn batch(&self) -> Batch {
        let documents = self.i64("segments");
        let ends = (1..documents.len()).filter(|row| documents[*row] != documents[row - 1]);
        let segments = std::iter::once(0).chain(ends).chain([documents.len()]).collect();
        let target = |target: &i64| if *target == -100 { IGNORE } else { u32::try_from(*target).unwrap() };
        Batch {
            tokens: self.i64("tokens").iter().map(|token| u32::try_from(*token).unwrap()).collect(),
            targets: self.i64("targets").iter().map(target).collect(),
            segments,
        }
    }
}

fn farthest(own: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(own.len(), expected.len());
    own.iter().zip(expected).fold(0.0, |most, (own, expected)| most.max((own - expected).abs()))
}

/// Logits, loss, every gradient, and the losses and gradient norms of the optimiser's steps.
fn check(case: &Path, method: &str, mut model: Model, expected: &Expected) {
    let name = format!("{} {method}", case.file_name().unwrap().to_string_lossy());
    let batch = expected.batch();
    let which = if method == "lora" { "tuned" } else { "base" };
    let error = farthest(&logits(&model, &batch).unwrap(), &expected.f32(&format!("{which}.logits")));
    assert!(error <= 1e-4, "{name}: logits differ by {error:e}");

    let loss = expected.f64(&format!("{method}.loss"))[0];
    let losses = token_losses(&model, &batch).unwrap();
    let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / batch.trained() as f64;
    assert!((mean - loss).abs() <= 1e-5, "{name}: loss {mean} against {loss}");

    let scale = 1.0 / batch.trained() as f32;
    let mut gradients = Gradients::new(&model);
    let sum = forward_backward(&model, &batch, scale, false, &mut gradients).unwrap();
    assert!((sum.nats / sum.tokens as f64 - loss).abs() <= 1e-5, "{name}: loss of the backward");
    for gradient in gradients.named().list() {
        let reference = expected.f32(&format!("{method}.gradient.{}", gradient.name));
        let largest = reference.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "{name}: the reference of {} is zero", gradient.name);
        let error = farthest(&gradient.values, &reference);
        assert!(
            error <= 2e-5 * (largest + 0.01),
            "{name}: {} differs by {error:e} of {largest:e}",
            gradient.name
        );
    }

    let text = std::fs::read_to_string(case.join("training.json")).unwrap();
    let training: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let settings = AdamW {
        learning_rate: number(&training["learning_rate"][method]),
        beta1: number(&training["beta1"]),
        beta2: number(&training["beta2"]),
        epsilon: number(&training["epsilon"]),
        weight_decay: number(&training["weight_decay"]),
    };
    let clip = number(&training["clip"]);
    let losses = Course::of(expected, &format!("{method}.losses"));
    let norms = Course::of(expected, &format!("{method}.gradient_norms"));
    assert_eq!(losses.exact.len() as u64, training["steps"].as_u64().unwrap());
    assert!(losses.exact[losses.exact.len() - 1] < losses.exact[0]);
    let mut moments = Moments::new(&model);
    let (mut own_losses, mut own_norms) = (Vec::new(), Vec::new());
    for step in 0..losses.exact.len() {
        gradients.zero();
        let sum = forward_backward(&model, &batch, scale, step % 2 == 1, &mut gradients).unwrap();
        let norm = gradients.norm();
        own_losses.push(sum.nats / sum.tokens as f64);
        own_norms.push(norm);
        if norm > clip {
            gradients.scale(clip / norm);
        }
        adamw(&mut model, &gradients, &mut moments, settings).unwrap();
    }
    losses.hold(&format!("{name}: losses"), &own_losses, 1e-5);
    norms.hold(&format!("{name}: gradient norms"), &own_norms, 1e-4);
}

/// What PyTorch measured at each step, in f64 and in f32.
struct Course {
    exact: Vec<f64>,
    rounded: Vec<f64>,
}

impl Course {
    fn of(expected: &Expected, name: &str) -> Self {
        Self { exact: expected.f64(name), rounded: expected.f64(&format!("{name}_f32")) }
    }

    /// AdamW divides by what it rounds, so any f32 drifts from f64, step by step, in some models a hundred times as
    /// fast as in others. Ours may drift as PyTorch's own f32 does.
    fn hold(&self, name: &str, own: &[f64], floor: f64) {
        let (mut farthest, mut yardstick) = (0.0_f64, 0.0_f64);
        for (step, own) in own.iter().enumerate() {
            let far = |value: f64| (value - self.exact[step]).abs();
            farthest = farthest.max(far(*own));
            yardstick = yardstick.max(far(self.rounded[step]));
            assert!(
                farthest <= floor + 10.0 * yardstick,
                "{name}: step {step}: {own} against {}, PyTorch's f32 {}",
                self.exact[step],
                self.rounded[step]
            );
        }
        println!("parity: {name}: {farthest:.1e} from f64, PyTorch's f32 {yardstick:.1e}");
    }
}

#[test]
fn models_are_those_of_pytorch() {
    for case in cases() {
        let expected = Expected(std::fs::read(case.join("expected.safetensors")).unwrap());
        let weights = Weights::load(&case).unwrap();
        let adapter = Lora::load(weights.architecture(), &case.join("adapter")).unwrap();
        check(&case, "full", Model { weights: weights.clone(), adapter: None }, &expected);
        check(&case, "lora", Model { weights, adapter: Some(adapter) }, &expected);
    }
}
