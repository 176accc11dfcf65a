//! Every gradient against finite differences in f64: the code that trains, instantiated for f64.

use super::{KINDS, Kind, batch, model, tiny};
use crate::random::Random;
use crate::{
    Batch, Gradients, Lora, LoraShape, Model, Preference, forward_backward, forward_backward_pairs, logits,
    segment_losses, token_losses,
};

fn loss(model: &Model<f64>, batch: &Batch) -> f64 {
    token_losses(model, batch).unwrap().iter().sum()
}

/// Compares with fourth-order central differences of the loss, at up to twelve places of every tensor.
fn check(model: &Model<f64>, batch: &Batch) {
    let mut model = model.clone();
    let mut gradients = Gradients::new(&model);
    let sum = forward_backward(&model, batch, 0.5, false, &mut gradients).unwrap();
    assert!((sum.nats - loss(&model, batch)).abs() < 1e-9);
    assert_eq!(sum.tokens, batch.trained());
    let step = 1e-4;
    for tensor in 0..model.trainable().list().len() {
        let count = model.trainable().list()[tensor].values.len();
        let own = &gradients.named().list()[tensor];
        let largest = own.values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        assert!(largest > 1e-6, "{} has no gradient", own.name);
        for place in (0..count).step_by(count.div_ceil(12)) {
            let mut at = |offset: f64| {
                let value = model.trainable().list()[tensor].values[place];
                model.trainable_mut().list_mut()[tensor].values[place] = value + offset;
                let loss = loss(&model, batch);
                model.trainable_mut().list_mut()[tensor].values[place] = value;
                loss
            };
            let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
            let error = (own.values[place] - 0.5 * slope).abs();
            assert!(
                error < 1e-7 * (1.0 + largest),
                "{} at {place}: {} against {}",
                own.name,
                own.values[place],
                0.5 * slope
            );
        }
    }
}

#[test]
fn all_weights_of_each_family() {
    for kind in KINDS {
        let model = model(tiny(kind), None, 3).cast();
        check(&model, &batch(&[7, 1, 5], 17, 4));
    }
}

#[test]
fn adapters_of_each_family() {
    for kind in KINDS {
        let model = model(tiny(kind), Some(2), 5).cast();
        // Few rows take the thin products, many rows the merged weights.
        check(&model, &batch(&[3], 17, 6));
        check(&model, &batch(&[9, 4, 8], 17, 6));
    }
}

#[test]
fn adapters_on_some_linears_of_each_family() {
    for (kind, targets) in [
        (Kind::Llama, &["o_proj"][..]),
        (Kind::Qwen2, &["q_proj", "v_proj"]),
        (Kind::Qwen3, &["k_proj", "up_proj"]),
        (Kind::Biased, &["gate_proj", "down_proj"]),
    ] {
        let targets: Vec<String> = targets.iter().map(|name| (*name).to_owned()).collect();
        let shape =
            LoraShape { rank: 2, alpha: 3.0, rank_stabilized: true, decomposed: false, targets: &targets };
        let mut model = model(tiny(kind), None, 3);
        let mut adapter = Lora::shaped(model.weights.architecture(), shape, 5).unwrap();
        let mut random = Random::new(7);
        for parameter in adapter.parameters.list_mut() {
            parameter.values.iter_mut().for_each(|value| *value += (0.3 * random.normal()) as f32);
        }
        assert_eq!(adapter.parameters.list().len(), 2 * 2 * targets.len());
        model.adapter = Some(adapter);
        check(&model.cast(), &batch(&[3], 17, 6));
        check(&model.cast(), &batch(&[9, 4, 8], 17, 6));
        let mut merged = Model { weights: model.weights.clone(), adapter: None };
        model.adapter.as_ref().unwrap().merge(&mut merged.weights).unwrap();
        let batch = batch(&[20], 17, 6);
        let (tuned, merged) = (logits(&model, &batch).unwrap(), logits(&merged, &batch).unwrap());
        assert!(tuned.iter().zip(&merged).all(|(tuned, merged)| (tuned - merged).abs() < 1e-4));
    }
}

#[test]
fn attention_over_more_rows_than_one_block() {
    for kind in [Kind::Llama, Kind::Gemma2] {
        let mut architecture = tiny(kind);
        architecture.layers = 1;
        check(&model(architecture, Some(1), 8).cast(), &batch(&[150, 70], 17, 9));
    }
}

/// The loss of pairs against finite differences of it, with a reference of other weights and with smoothed labels.
#[test]
fn pairs_of_each_family() {
    let preference = Preference { beta: 0.7, label_smoothing: 0.1 };
    for kind in KINDS {
        for rank in [None, Some(2)] {
            let mut model: Model<f64> = model(tiny(kind), rank, 5).cast();
            let batch = batch(&[9, 4, 8, 6], 17, 6);
            let reference = [20.0, 9.0, 12.0, 14.0];
            let mut gradients = Gradients::new(&model);
            let mut buffers = Gradients::new(&model);
            let mut loss = |model: &Model<f64>| -> f64 {
                let sums = segment_losses(model, &batch, &mut buffers).unwrap();
                let pairs = sums.chunks(2).zip(reference.chunks(2));
                pairs.map(|(own, of)| preference.loss([own[0], own[1]], [of[0], of[1]]).loss).sum()
            };
            let sums =
                forward_backward_pairs(&model, &batch, &reference, preference, 0.5, false, &mut gradients)
                    .unwrap();
            let rows = token_losses(&model, &batch).unwrap();
            for (sum, ends) in sums.iter().zip(batch.segments.windows(2)) {
                assert!((sum - rows[ends[0]..ends[1]].iter().sum::<f64>()).abs() < 1e-9);
            }
            let step = 1e-4;
            for tensor in 0..model.trainable().list().len() {
                let own = gradients.named().list()[tensor].clone();
                let largest = own.values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                for place in (0..own.values.len()).step_by(own.values.len().div_ceil(5)) {
                    let mut at = |offset: f64| {
                        let value = model.trainable().list()[tensor].values[place];
                        model.trainable_mut().list_mut()[tensor].values[place] = value + offset;
                        let loss = loss(&model);
                        model.trainable_mut().list_mut()[tensor].values[place] = value;
                        loss
                    };
                    let slope =
                        (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
                    let error = (own.values[place] - 0.5 * slope).abs();
                    assert!(error < 1e-7 * (1.0 + largest), "{} at {place}: {error:e}", own.name);
                }
            }
        }
    }
}
