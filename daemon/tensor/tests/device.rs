//! The device's path against the processor's: the same models, batches and steps. Without a GPU the kernels run in their
//! emulation (`--features cuda-on-cpu`); with one and `--features cuda`, on it as well.

#![cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::path::{Path, PathBuf};

use moat_contracts::Architecture;
use moat_tensor::cuda::{Device, OnDevice, Precision};
use moat_tensor::{
    AdamW, Batch, Gradients, IGNORE, Lora, Model, Moments, Parameters, Tuning, Weights, adamw,
    forward_backward, logits, token_losses,
};

/// Every device that there is.
fn devices() -> Vec<Device> {
    #[cfg(feature = "cuda-on-cpu")]
    let emulated = Some(Device::emulated(false));
    #[cfg(not(feature = "cuda-on-cpu"))]
    let emulated = None;
    #[cfg(feature = "cuda")]
    let gpu = Device::gpu(0).inspect_err(|error| println!("device: SKIPPED on a GPU: {error}")).ok();
    #[cfg(not(feature = "cuda"))]
    let gpu = None;
    emulated.into_iter().chain(gpu).collect()
}

/// The small models of each family, with adapters that are not at their start.
fn fixtures() -> Vec<(String, Model)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.join("adapter").exists()).collect();
    cases.sort();
    assert!(cases.len() >= 7, "a fixture for each family");
    let model = |case: PathBuf| {
        let weights = Weights::load(&case).unwrap();
        let adapter = Lora::load(weights.architecture(), &case.join("adapter")).unwrap();
        (case.file_name().unwrap().to_string_lossy().into_owned(), Model { weights, adapter: Some(adapter) })
    };
    cases.into_iter().map(model).collect()
}

/// Numbers that look random and are the same everywhere.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    }
}

/// Segments of these lengths; one token in five is no target.
fn batch(vocabulary: usize, lengths: &[usize]) -> Batch {
    let mut next = noise(lengths.len() as u64);
    let mut token = || ((next() + 0.5) * vocabulary as f32) as u32 % vocabulary as u32;
    let rows = lengths.iter().sum();
    let tokens = (0..rows).map(|_| token()).collect();
    let targets = (0..rows).map(|row| if row % 5 == 3 { IGNORE } else { token() }).collect();
    let segments = std::iter::once(0).chain(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    Batch { tokens, targets, segments: segments.collect() }
}

/// A model whose every weight counts.
fn model(config: &str, rank: usize, seed: u64) -> Model {
    let architecture = Architecture::from_config(config).unwrap();
    let adapter = Lora::new(&architecture, rank, 2.0 * rank as f64, seed);
    let mut model = Model { weights: Weights::random(architecture, seed), adapter: Some(adapter) };
    let mut next = noise(seed);
    for parameter in model.weights.parameters_mut().list_mut() {
        parameter.values.iter_mut().for_each(|value| *value += 0.2 * next());
    }
    for parameter in model.adapter.as_mut().unwrap().parameters_mut().list_mut() {
        parameter.values.iter_mut().for_each(|value| *value += 0.2 * next());
    }
    model
}

/// A Llama with heads of this width, of which the second block slides.
fn wide(head: usize) -> String {
    format!(
        r#"{{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": {head}, "intermediate_size": 24, "vocab_size": 37,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "use_sliding_window": true, "sliding_window": 40, "max_window_layers": 1}}"#
    )
}

/// How far numbers are from others, as a share of the largest.
fn farthest(own: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(own.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    let far =
        |(own, expected): (&f32, &f32)| if own.is_nan() { f32::INFINITY } else { (own - expected).abs() };
    own.iter().zip(expected).map(far).fold(0.0, f32::max) / largest
}

/// How far numbers are from others altogether, as a share of these.
fn apart(own: &[f32], expected: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let difference: f64 = own.iter().zip(expected).map(|(own, expected)| square(own - expected)).sum();
    (difference / expected.iter().map(|value| square(*value)).sum::<f64>().max(1e-30)).sqrt()
}

fn worst(own: &Parameters, expected: &Parameters, measure: impl Fn(&[f32], &[f32]) -> f64) -> (f64, String) {
    assert_eq!(own.list().len(), expected.list().len());
    let mut worst = (0.0, String::new());
    for (own, expected) in own.list().iter().zip(expected.list()) {
        assert_eq!(own.name, expected.name);
        let far = measure(&own.values, &expected.values);
        if far >= worst.0 {
            worst = (far, own.name.clone());
        }
    }
    worst
}

fn gradients(model: &Model, batch: &Batch, scale: f32) -> Parameters {
    let mut gradients = Gradients::new(model);
    forward_backward(model, batch, scale, false, &mut gradients).unwrap();
    gradients.named().clone()
}

/// Logits, losses, every gradient, and the losses and weights of AdamW's steps, in f32.
fn agrees(name: &str, device: &Device, mut model: Model, batch: &Batch) {
    let mut placed = OnDevice::new(device, &model, Precision::F32).unwrap();
    let far = farthest(&placed.logits(batch).unwrap(), &logits(&model, batch).unwrap());
    assert!(far <= 1e-5, "{name}: logits differ by {far:e}");
    let far = farthest(&placed.token_losses(batch).unwrap(), &token_losses(&model, batch).unwrap());
    assert!(far <= 1e-5, "{name}: losses differ by {far:e}");

    let scale = 1.0 / batch.trained() as f32;
    let expected = gradients(&model, batch, scale);
    placed.forward_backward(batch, scale, false).unwrap();
    let found = placed.gradients().unwrap();
    let (far, tensor) = worst(&found, &expected, |own, expected| f64::from(farthest(own, expected)));
    assert!(far <= 1e-5, "{name}: {tensor} differs by {far:e}");
    println!("device: {name} on {device:?}: gradients within {far:.1e} of the largest of each tensor");

    // With recomputation the same bits, and what is added twice is twice as much.
    placed.zero().unwrap();
    placed.forward_backward(batch, scale, true).unwrap();
    assert_eq!(placed.gradients().unwrap(), found, "{name}: recomputed");
    placed.forward_backward(batch, scale, true).unwrap();
    placed.scale(0.5).unwrap();
    let (far, tensor) =
        worst(&placed.gradients().unwrap(), &found, |own, twice| f64::from(farthest(own, twice)));
    assert!(far <= 1e-6, "{name}: {tensor} added up differs by {far:e}");

    let settings = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-6, weight_decay: 0.1 };
    let tuning =
        |parameter: &moat_tensor::Parameter| Tuning { rate: 1.0, decays: parameter.shape.len() == 2 };
    let (mut moments, mut own) = (Moments::new(&model), Gradients::new(&model));
    for step in 0..4 {
        own.zero();
        placed.zero().unwrap();
        let expected = forward_backward(&model, batch, scale, false, &mut own).unwrap();
        let found = placed.forward_backward(batch, scale, step % 2 == 1).unwrap();
        assert_eq!(found.tokens, expected.tokens);
        assert!((found.nats - expected.nats).abs() <= 1e-5 * expected.nats, "{name}: loss of step {step}");
        let (far, norm) = ((placed.norm().unwrap() - own.norm()).abs(), own.norm());
        assert!(far <= 1e-5 * norm, "{name}: norm of step {step}: {far:e} of {norm:e}");
        adamw(&mut model, &own, &mut moments, settings).unwrap();
        placed.adamw(settings, tuning).unwrap();
    }
    let mut stepped = model.adapter.clone().unwrap();
    placed.read_adapter(&mut stepped).unwrap();
    let expected = model.adapter.as_ref().unwrap().parameters();
    let (far, tensor) =
        worst(stepped.parameters(), expected, |own, expected| f64::from(farthest(own, expected)));
    assert!(far <= 1e-3, "{name}: {tensor} after four steps differs by {far:e}");

    // What a checkpoint takes and gives back goes on with the same bits.
    let mut kept = Moments::new(&model);
    placed.read_moments(&mut kept).unwrap();
    assert_eq!(kept.steps(), 4);
    let mut resumed = OnDevice::new(device, &model, Precision::F32).unwrap();
    resumed.write_adapter(&stepped).unwrap();
    resumed.write_moments(&kept).unwrap();
    for placed in [&mut placed, &mut resumed] {
        placed.zero().unwrap();
        placed.forward_backward(batch, scale, false).unwrap();
        placed.adamw(settings, tuning).unwrap();
    }
    let mut both = [stepped.clone(), stepped];
    placed.read_adapter(&mut both[0]).unwrap();
    resumed.read_adapter(&mut both[1]).unwrap();
    assert_eq!(both[0].parameters(), both[1].parameters(), "{name}: resumed");
}

#[test]
fn every_family_is_that_of_the_processor() {
    for device in devices() {
        for (name, model) in fixtures() {
            let batch = batch(model.weights.architecture().vocabulary, &[13, 1, 21]);
            agrees(&name, &device, model, &batch);
        }
    }
}

/// Segments longer than a tile and a window that begins inside of one, for each width that there are kernels for.
#[test]
fn tiles_and_windows_fall_together_at_every_width() {
    for device in devices() {
        for head in [48, 128, 200] {
            let model = model(&wide(head), 3, 7);
            agrees(&format!("heads of {head}"), &device, model, &batch(37, &[5, 140, 66]));
        }
    }
}

#[test]
fn what_is_not_trained_is_measured_and_what_carries_no_adapter_learns_nothing() {
    for device in devices() {
        let mut model = model(&wide(16), 4, 9);
        let batch = batch(37, &[9, 12]);
        let targets = ["q_proj".to_owned(), "down_proj".to_owned()];
        let shape = moat_tensor::LoraShape {
            rank: 3,
            alpha: 5.0,
            rank_stabilized: true,
            decomposed: false,
            targets: &targets,
        };
        let mut some = Lora::shaped(model.weights.architecture(), shape, 3).unwrap();
        let mut next = noise(5);
        for parameter in some.parameters_mut().list_mut() {
            parameter.values.iter_mut().for_each(|value| *value += 0.2 * next());
        }
        model.adapter = Some(some);
        agrees("an adapter on some linears", &device, model.clone(), &batch);

        model.adapter = None;
        let mut base = OnDevice::new(&device, &model, Precision::F32).unwrap();
        let far = farthest(&base.token_losses(&batch).unwrap(), &token_losses(&model, &batch).unwrap());
        assert!(far <= 1e-5, "losses of a base differ by {far:e}");
        assert!(base.forward_backward(&batch, 1.0, false).is_err());
    }
}

/// In bfloat16 each number has eight bits, and what is summed of them more: gradients are near those of f32 with the same
/// rounded weights.
#[test]
fn bfloat16_is_near() {
    for device in devices() {
        let wide = [64, 128, 256].map(|head| (format!("heads of {head}"), model(&wide(head), 4, 11)));
        for (name, mut model) in fixtures().into_iter().chain(wide) {
            for parameter in model.weights.parameters_mut().list_mut() {
                if parameter.shape.len() == 2 {
                    let rounded = |value: &mut f32| *value = half::bf16::from_f32(*value).to_f32();
                    parameter.values.iter_mut().for_each(rounded);
                }
            }
            let batch = batch(model.weights.architecture().vocabulary, &[70, 11, 25]);
            let scale = 1.0 / batch.trained() as f32;
            let mut placed = OnDevice::new(&device, &model, Precision::Bf16).unwrap();
            let far = apart(&placed.logits(&batch).unwrap(), &logits(&model, &batch).unwrap());
            placed.forward_backward(&batch, scale, true).unwrap();
            let found = placed.gradients().unwrap();
            let (worst, tensor) = worst(&found, &gradients(&model, &batch, scale), apart);
            println!("device: {name} in bfloat16: logits {far:.1e}, gradients {worst:.1e} at {tensor}");
            assert!(far <= 0.025, "{name}: logits are {far:e} apart");
            assert!(worst <= 0.06, "{name}: {tensor} is {worst:e} apart");
        }
    }
}

/// Blocks and threads in the opposite order give the same bits: no kernel lacks a barrier, and no sum depends on who comes
/// first.
#[cfg(feature = "cuda-on-cpu")]
#[test]
fn the_order_of_threads_changes_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (name, model) in fixtures() {
            let batch = batch(model.weights.architecture().vocabulary, &[17, 6]);
            let both = [false, true].map(|turned| {
                let mut placed = OnDevice::new(&Device::emulated(turned), &model, precision).unwrap();
                let sum = placed.forward_backward(&batch, 0.1, true).unwrap();
                let norm = placed.norm().unwrap();
                (sum, norm, placed.gradients().unwrap())
            });
            assert_eq!(both[0], both[1], "{name} in {precision:?}");
        }
    }
}
