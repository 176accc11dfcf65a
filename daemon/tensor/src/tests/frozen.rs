//! Adapters on weights that are held in fewer bits: whatever is computed is what the opened weights give, bit for bit.

use moat_contracts::{Frozen, Precision};

use super::{KINDS, Kind, batch, config, model, tiny};
use crate::{
    Batch, Cache, Folder, Gradients, Lora, LoraShape, Model, StoredType, TensorError, Weights, decode,
    forward_backward, logits, merged_logits, token_losses,
};

const HELD: [Frozen; 3] = [Frozen::Bf16, Frozen::Int8, Frozen::Nf4];

/// The model with its base held so, and with that base opened again.
fn pair(plain: &Model, frozen: Frozen) -> [Model; 2] {
    let weights = plain.weights.clone().freeze(frozen).unwrap();
    let mut opened = weights.clone();
    opened.thaw();
    assert_eq!((weights.frozen(), opened.frozen()), (frozen, Frozen::F32));
    [weights, opened].map(|weights| Model { weights, adapter: plain.adapter.clone() })
}

fn learnt(model: &Model, batch: &Batch, recompute: bool) -> (u64, Gradients) {
    let mut gradients = Gradients::new(model);
    let sum = forward_backward(model, batch, 0.1, recompute, &mut gradients).unwrap();
    (sum.nats.to_bits(), gradients)
}

#[test]
fn gradients_are_those_of_the_opened_weights_to_the_bit() {
    for kind in KINDS {
        let all = model(tiny(kind), Some(2), 5);
        let mut some = all.clone();
        let targets = [if kind == Kind::Phi3 { "qkv_proj" } else { "v_proj" }.to_owned()];
        let shape =
            LoraShape { rank: 2, alpha: 3.0, rank_stabilized: true, decomposed: false, targets: &targets };
        some.adapter = Some(Lora::shaped(some.weights.architecture(), shape, 5).unwrap());
        for plain in [all, some] {
            for frozen in HELD {
                let [held, opened] = pair(&plain, frozen);
                // Few rows take thin products, more of them the merged weights.
                for lengths in [&[2][..], &[9, 4, 8]] {
                    let batch = batch(lengths, 17, 6);
                    let (expected, gradients) = learnt(&opened, &batch, false);
                    for recompute in [false, true] {
                        let (nats, own) = learnt(&held, &batch, recompute);
                        assert_eq!(nats, expected, "{kind:?} {frozen:?}");
                        assert_eq!(own.named(), gradients.named(), "{kind:?} {frozen:?}");
                    }
                    let exact = learnt(&plain, &batch, false);
                    assert_ne!(exact.0, expected, "{kind:?} {frozen:?} rounds nothing");
                }
            }
        }
    }
}

#[test]
fn a_merge_opens_adds_and_is_what_base_and_adapter_were() {
    for frozen in HELD {
        let [mut held, opened] = pair(&model(tiny(Kind::Qwen2), Some(3), 2), frozen);
        let batch = batch(&[40], 17, 3);
        let before = (held.weights.held_sums(), logits(&held, &batch).unwrap());
        let adapter = held.adapter.clone().unwrap();
        let block_by_block = merged_logits(&mut held, &adapter, &batch).unwrap();
        assert_eq!((held.weights.held_sums(), logits(&held, &batch).unwrap()), before);
        let [mut merged, mut expected] = [held.weights.clone(), opened.weights.clone()];
        adapter.merge(&mut merged).unwrap();
        adapter.merge(&mut expected).unwrap();
        assert_eq!(merged.parameters(), expected.parameters());
        assert_eq!(merged.frozen(), Frozen::F32);
        let merged = logits(&Model { weights: merged, adapter: None }, &batch).unwrap();
        assert_eq!(merged, block_by_block);
        assert!(merged.iter().zip(&before.1).all(|(merged, tuned)| (merged - tuned).abs() < 1e-4));
    }
}

#[test]
fn decoding_is_that_of_the_opened_weights() {
    for frozen in HELD {
        let [held, opened] = pair(&model(tiny(Kind::Llama), Some(1), 2), frozen);
        let decoded = [&held, &opened].map(|model| {
            let mut cache = Cache::new(model, 16);
            decode(model, &mut cache, &[3, 9, 1, 4, 4, 7, 2, 11]).unwrap();
            decode(model, &mut cache, &[5]).unwrap()
        });
        assert_eq!(decoded[0], decoded[1], "{frozen:?}");
    }
}

#[test]
fn weights_are_rounded_as_they_are_read_and_saved_as_what_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config(Kind::Phi3).to_string()).unwrap();
    let plain = model(tiny(Kind::Phi3), None, 1);
    plain.weights.save(dir.path(), StoredType::F32).unwrap();
    let folder = Folder::plain(dir.path());
    for frozen in HELD {
        let read = Weights::load_frozen(&folder, frozen).unwrap();
        let rounded = plain.weights.clone().freeze(frozen).unwrap();
        assert_eq!(read.held, rounded.held);
        assert_eq!(read.parameters(), rounded.parameters());
        assert!(matches!(rounded.clone().freeze(frozen), Err(TensorError::Frozen { .. })));
        let again = tempfile::tempdir().unwrap();
        std::fs::write(again.path().join("config.json"), config(Kind::Phi3).to_string()).unwrap();
        read.save(again.path(), StoredType::F32).unwrap();
        let mut opened = read;
        opened.thaw();
        assert_eq!(Weights::load(again.path()).unwrap().parameters(), opened.parameters());

        let notes = Folder::plain(again.path());
        assert_eq!(notes.frozen().unwrap(), Frozen::F32);
        notes.note_frozen(frozen).unwrap();
        assert_eq!(notes.frozen().unwrap(), frozen);
        std::fs::write(again.path().join("moat.json"), r#"{"frozen":"int3"}"#).unwrap();
        assert!(matches!(notes.frozen(), Err(TensorError::Format { .. })));
    }
    let mut broken = plain.weights;
    let name = "model.layers.1.self_attn.o_proj.weight";
    let list = broken.parameters_mut().list_mut();
    list.iter_mut().find(|tensor| tensor.name == name).unwrap().values[3] = f32::NAN;
    broken.save(dir.path(), StoredType::F32).unwrap();
    let refused = Weights::load_frozen(&folder, Frozen::Nf4).unwrap_err();
    assert!(refused.to_string().contains(name), "{refused}");
}

#[test]
fn what_is_rounded_is_not_trained() {
    let mut model = model(tiny(Kind::Llama), None, 1);
    let mut gradients = Gradients::new(&model);
    model.weights = model.weights.freeze(Frozen::Nf4).unwrap();
    let refused = forward_backward(&model, &batch(&[9], 17, 3), 1.0, false, &mut gradients);
    assert!(matches!(refused, Err(TensorError::Frozen { frozen: "nf4" })));
}

#[test]
fn a_fresh_decomposed_adapter_changes_nothing_and_a_merge_keeps_what_it_learnt() {
    for frozen in Frozen::ALL {
        let mut plain = model(tiny(Kind::Qwen3), None, 2);
        plain.weights = plain.weights.freeze(frozen).unwrap();
        let targets = ["q_proj".to_owned(), "down_proj".to_owned()];
        let shape =
            LoraShape { rank: 2, alpha: 3.0, rank_stabilized: false, decomposed: true, targets: &targets };
        let mut adapter = Lora::shaped(plain.weights.architecture(), shape, 5).unwrap();
        adapter.measure(&plain.weights).unwrap();
        let far = |left: &[f32], right: &[f32]| {
            left.iter().zip(right).fold(0.0_f32, |most, (left, right)| most.max((left - right).abs()))
        };
        let batch = batch(&[30], 17, 3);
        let base = logits(&plain, &batch).unwrap();
        let mut tuned = Model { adapter: Some(adapter), ..plain };
        assert!(far(&logits(&tuned, &batch).unwrap(), &base) < 1e-4);
        let mut random = crate::random::Random::new(3);
        for parameter in tuned.trainable_mut().list_mut() {
            parameter.values.iter_mut().for_each(|value| *value += (0.2 * random.normal()) as f32);
        }
        let learnt = logits(&tuned, &batch).unwrap();
        assert!(far(&learnt, &base) > 1e-2);
        let adapter = tuned.adapter.clone().unwrap();
        assert!(far(&merged_logits(&mut tuned, &adapter, &batch).unwrap(), &learnt) < 1e-4);
        // Few rows and many are one formula.
        let mut cache = Cache::new(&tuned, 32);
        let tokens = &batch.tokens;
        decode(&tuned, &mut cache, &tokens[..29]).unwrap();
        let last = decode(&tuned, &mut cache, &tokens[29..]).unwrap();
        assert!(far(&last, &learnt[29 * 17..]) < 1e-4);
    }
}

#[test]
fn products_in_eight_bits_keep_the_gradient_row_by_row() {
    for kind in KINDS {
        let [mut held, mut opened] = pair(&model(tiny(kind), Some(2), 5), Frozen::Int8);
        held.weights.set_precision(Precision::Int8).unwrap();
        assert!(matches!(opened.weights.set_precision(Precision::Int8), Err(TensorError::Precision { .. })));
        let packed = batch(&[9, 4, 28, 2], 17, 6);
        let (_, rounded) = learnt(&held, &packed, false);
        let mut apart = Gradients::new(&held);
        forward_backward(&opened, &packed, -0.1, false, &mut apart).unwrap();
        let norm = apart.norm();
        forward_backward(&held, &packed, 0.1, false, &mut apart).unwrap();
        let error = apart.norm() / norm;
        // Sums of a dozen numbers average little of the rounding away.
        assert!(error > 1e-5 && error < 0.25, "{kind:?}: {error}");
        // Each row is rounded by itself: packing, recomputing and more threads change nothing.
        let (_, again) = learnt(&held, &packed, true);
        assert_eq!(rounded.named(), again.named(), "{kind:?}");
        let together = token_losses(&held, &packed).unwrap();
        let mut alone = Vec::new();
        for pair in packed.segments.windows(2) {
            alone.extend(token_losses(&held, &packed.slice(pair[0]..pair[1])).unwrap());
        }
        let far = together.iter().zip(&alone).fold(0.0_f32, |most, (one, two)| most.max((one - two).abs()));
        assert!(far < 1e-4, "{kind:?}: {far}");
    }
}
