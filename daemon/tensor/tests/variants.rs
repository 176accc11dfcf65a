//! LoRA's variants against PEFT: `scripts/parity.d/variants.py` made `tests/variants` and says what is in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use moat_tensor::{
    AdamW, Batch, Gradients, Lora, Model, Moments, Tuning, Weights, adamw_tuned, forward_backward, logits,
};
use safetensors::SafeTensors;

fn doubles(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("{name}"));
    let (numbers, rest) = view.data().as_chunks::<8>();
    assert!(rest.is_empty());
    numbers.iter().map(|number| f64::from_le_bytes(*number)).collect()
}

fn farthest(own: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(own.len(), expected.len());
    own.iter().zip(expected).fold(0.0, |most, (own, expected)| most.max((f64::from(*own) - expected).abs()))
}

#[test]
fn a_rank_stabilised_adapter_on_some_linears_is_that_of_peft_and_learns_as_lora_plus_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/variants");
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let tokens = expected.tensor("tokens").unwrap();
    let (tokens, _) = tokens.data().as_chunks::<8>();
    let tokens: Vec<u32> =
        tokens.iter().map(|token| u32::try_from(i64::from_le_bytes(*token)).unwrap()).collect();
    let batch = Batch::sequence(&tokens);

    let weights = Weights::load(&folder).unwrap();
    let adapter = Lora::load(weights.architecture(), &folder.join("adapter")).unwrap();
    assert!(adapter.is_rank_stabilized());
    assert_eq!(adapter.targets(), ["q_proj", "v_proj", "down_proj"]);
    let mut model = Model { weights, adapter: Some(adapter) };
    let own = logits(&model, &batch).unwrap();
    assert!(farthest(&own, &doubles(&expected, "logits")) < 1e-4);
    if let Some(to) = std::env::var_os("MOAT_VARIANTS_OUT") {
        // For `scripts/parity.d/variants.py DIR OUT`, which has PEFT read what is written here.
        let to = Path::new(&to);
        model.adapter.as_ref().unwrap().save(to, "..").unwrap();
        let own: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![tokens.len(), 40];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &own).unwrap();
        std::fs::write(to.join("own.safetensors"), safetensors::serialize([("logits", view)], None).unwrap())
            .unwrap();
    }

    let scale = 1.0 / batch.trained() as f32;
    let mut gradients = Gradients::new(&model);
    forward_backward(&model, &batch, scale, false, &mut gradients).unwrap();
    assert_eq!(gradients.named().list().len(), 2 * 2 * 3);
    for gradient in gradients.named().list() {
        let reference = doubles(&expected, &format!("gradient.{}", gradient.name));
        let largest = reference.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let error = farthest(&gradient.values, &reference);
        assert!(error <= 2e-5 * (largest + 0.01), "{}: {error:e} of {largest:e}", gradient.name);
    }

    let settings = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.01 };
    let mut moments = Moments::new(&model);
    for (step, expected) in doubles(&expected, "losses").into_iter().enumerate() {
        gradients.zero();
        let sum = forward_backward(&model, &batch, scale, false, &mut gradients).unwrap();
        let own = sum.nats / sum.tokens as f64;
        assert!((own - expected).abs() < 2e-5, "step {step}: {own} against {expected}");
        let tuning = |parameter: &moat_tensor::Parameter| Tuning {
            rate: if parameter.name.contains("lora_B") { 16.0 } else { 1.0 },
            decays: true,
        };
        adamw_tuned(&mut model, &gradients, &mut moments, settings, tuning).unwrap();
    }
}

/// `scripts/parity.d/dora.py` made `tests/dora` and says what is in it.
#[test]
fn a_decomposed_adapter_is_that_of_peft() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let bytes = std::fs::read(tests.join("dora/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let tokens = expected.tensor("tokens").unwrap();
    let (tokens, _) = tokens.data().as_chunks::<8>();
    let tokens: Vec<u32> =
        tokens.iter().map(|token| u32::try_from(i64::from_le_bytes(*token)).unwrap()).collect();
    let batch = Batch::sequence(&tokens);
    let weights = Weights::load(&tests.join("variants")).unwrap();
    let adapter = Lora::load(weights.architecture(), &tests.join("dora/adapter")).unwrap();
    assert!(adapter.is_decomposed());
    assert_eq!(adapter.targets(), ["q_proj", "v_proj", "down_proj"]);

    // What is written has PEFT's bytes, but for those that stand for its own version.
    let own = tempfile::tempdir().unwrap();
    adapter.save(own.path(), "..").unwrap();
    let file = "adapter_model.safetensors";
    let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
    let (own, peft) = (read(own.path()), read(&tests.join("dora/adapter")));
    let [own, peft] = [&own, &peft].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(own.len(), peft.len());
    for (name, view) in peft.tensors() {
        let found = own.tensor(&name).unwrap();
        assert_eq!((found.shape(), found.data()), (view.shape(), view.data()), "{name}");
    }

    let mut merged = weights.clone();
    adapter.merge(&mut merged).unwrap();
    for name in expected.names().into_iter().filter_map(|name| name.strip_prefix("merged.")) {
        let reference = doubles(&expected, &format!("merged.{name}"));
        assert!(farthest(merged.parameters().get(name).unwrap(), &reference) < 1e-6, "{name}");
    }

    let mut model = Model { weights, adapter: Some(adapter) };
    assert!(farthest(&logits(&model, &batch).unwrap(), &doubles(&expected, "logits")) < 1e-4);
    let scale = 1.0 / batch.trained() as f32;
    let mut gradients = Gradients::new(&model);
    forward_backward(&model, &batch, scale, false, &mut gradients).unwrap();
    assert_eq!(gradients.named().list().len(), 3 * 2 * 3);
    for gradient in gradients.named().list() {
        let reference = doubles(&expected, &format!("gradient.{}", gradient.name));
        let largest = reference.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let error = farthest(&gradient.values, &reference);
        assert!(error <= 2e-5 * (largest + 0.01), "{}: {error:e} of {largest:e}", gradient.name);
    }
    let settings = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.0 };
    let mut moments = Moments::new(&model);
    for (step, expected) in doubles(&expected, "losses").into_iter().enumerate() {
        gradients.zero();
        let sum = forward_backward(&model, &batch, scale, false, &mut gradients).unwrap();
        let own = sum.nats / sum.tokens as f64;
        assert!((own - expected).abs() < 2e-5, "step {step}: {own} against {expected}");
        let tuning = |_: &moat_tensor::Parameter| Tuning { rate: 1.0, decays: false };
        adamw_tuned(&mut model, &gradients, &mut moments, settings, tuning).unwrap();
    }
}
