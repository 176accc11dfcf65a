use std::path::Path;

use super::{KINDS, Kind, batch, model, tiny};
use crate::{
    AdamW, Gradients, Lora, Model, Moments, Parameters, StoredType, TensorError, Weights, adamw,
    forward_backward,
};

fn config(dir: &Path, kind: Kind) {
    let architecture = tiny(kind);
    let name = match kind {
        Kind::Llama | Kind::Biased => "LlamaForCausalLM",
        Kind::Qwen2 => "Qwen2ForCausalLM",
        Kind::Qwen3 => "Qwen3ForCausalLM",
    };
    let config = serde_json::json!({
        "architectures": [name],
        "hidden_size": architecture.hidden,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "intermediate_size": architecture.intermediate,
        "vocab_size": architecture.vocabulary,
        "max_position_embeddings": architecture.max_position,
        "rms_norm_eps": architecture.norm_epsilon,
        "rope_theta": architecture.rope_theta,
        "attention_bias": kind == Kind::Biased,
        "tie_word_embeddings": architecture.tied,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn weights_come_back_as_they_were_stored() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        config(dir.path(), kind);
        let weights = model(tiny(kind), None, 1).weights;
        weights.save(dir.path(), StoredType::F32).unwrap();
        let loaded = Weights::load(dir.path()).unwrap();
        assert_eq!(loaded.architecture(), weights.architecture());
        assert_eq!(loaded.parameters(), weights.parameters());

        weights.save(dir.path(), StoredType::Bf16).unwrap();
        let loaded = Weights::load(dir.path()).unwrap();
        for (loaded, exact) in loaded.parameters().list().iter().zip(weights.parameters().list()) {
            for (loaded, exact) in loaded.values.iter().zip(&exact.values) {
                assert_eq!(*loaded, half::bf16::from_f32(*exact).to_f32());
            }
        }
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

/// Saves weights after a change to their list of tensors.
fn saved(dir: &Path, weights: &Weights, change: impl FnOnce(&mut Vec<crate::Parameter>)) {
    let mut list = weights.parameters().list().to_vec();
    change(&mut list);
    std::fs::write(dir.join("model.safetensors"), Parameters::new(list).to_bytes().unwrap()).unwrap();
}

#[test]
fn other_models_weights_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), Kind::Qwen2);
    let weights = model(tiny(Kind::Qwen2), None, 1).weights;
    let named =
        |name: &str| crate::Parameter { name: name.to_owned(), ..weights.parameters().list()[0].clone() };
    saved(dir.path(), &weights, |list| _ = list.remove(3));
    assert!(
        matches!(Weights::load(dir.path()), Err(TensorError::Missing { name }) if name.contains("layers.0"))
    );
    saved(dir.path(), &weights, |list| list.push(named("model.layers.9.x")));
    assert!(
        matches!(Weights::load(dir.path()), Err(TensorError::Unexpected { name }) if name == "model.layers.9.x")
    );
    saved(dir.path(), &weights, |list| list[0].shape = vec![12, 17]);
    assert!(matches!(Weights::load(dir.path()), Err(TensorError::Shape { found, .. }) if found == [12, 17]));
    saved(dir.path(), &weights, |list| {
        list.push(named("lm_head.weight"));
        list.push(named("model.layers.0.self_attn.rotary_emb.inv_freq"));
    });
    assert!(Weights::load(dir.path()).is_ok());
    let whole = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(Weights::load(dir.path()), Err(TensorError::Format { .. })));
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(matches!(Weights::load(dir.path()), Err(TensorError::Io { .. })));
}

#[test]
fn shards_are_read_as_their_index_says() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), Kind::Llama);
    let weights = model(tiny(Kind::Llama), None, 1).weights;
    let mut map = serde_json::Map::new();
    for (shard, part) in weights.parameters().list().chunks(7).enumerate() {
        let file = format!("model-{shard}.safetensors");
        std::fs::write(dir.path().join(&file), Parameters::new(part.to_vec()).to_bytes().unwrap()).unwrap();
        map.extend(part.iter().map(|parameter| (parameter.name.clone(), file.clone().into())));
    }
    let index = |map| serde_json::json!({ "weight_map": serde_json::Value::Object(map) }).to_string();
    let path = dir.path().join("model.safetensors.index.json");
    std::fs::write(&path, index(map.clone())).unwrap();
    assert_eq!(Weights::load(dir.path()).unwrap().parameters(), weights.parameters());
    map.insert("x".to_owned(), "../model-0.safetensors".into());
    std::fs::write(&path, index(map)).unwrap();
    assert!(matches!(Weights::load(dir.path()), Err(TensorError::Format { .. })));
}

#[test]
fn adapters_come_back_and_are_named_as_peft_does() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let adapter = model(tiny(kind), Some(3), 1).adapter.unwrap();
        adapter.save(dir.path(), "starter").unwrap();
        let loaded = Lora::load(&tiny(kind), dir.path()).unwrap();
        assert_eq!((loaded.rank(), loaded.alpha()), (3, 6.0));
        assert_eq!(loaded.parameters(), adapter.parameters());
        for name in [
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight",
        ] {
            assert!(loaded.parameters().get(name).is_some(), "{name}");
        }
        let path = dir.path().join("adapter_config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("\"use_rslora\": false", "\"use_rslora\": true")).unwrap();
        let error = Lora::load(&tiny(kind), dir.path()).unwrap_err();
        assert!(error.to_string().contains("use_rslora"), "{error}");
    }
}

#[test]
fn training_goes_on_from_saved_state_bit_for_bit() {
    for rank in [None, Some(2)] {
        let start = model(tiny(Kind::Qwen3), rank, 1);
        let batch = batch(&[20, 9], 17, 2);
        let settings =
            AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        let step = |model: &mut Model, moments: &mut Moments| {
            let mut gradients = Gradients::new(model);
            forward_backward(model, &batch, 0.1, false, &mut gradients).unwrap();
            adamw(model, &gradients, moments, settings).unwrap();
        };
        let (mut model, mut moments) = (start.clone(), Moments::new(&start));
        step(&mut model, &mut moments);
        step(&mut model, &mut moments);
        let (bytes, state) = (model.trainable().to_bytes().unwrap(), moments.to_bytes().unwrap());
        step(&mut model, &mut moments);

        let (mut resumed, mut resumed_moments) = (start.clone(), Moments::new(&start));
        resumed.trainable_mut().restore(&bytes).unwrap();
        resumed_moments.restore(&state).unwrap();
        assert_eq!(resumed_moments.steps(), 2);
        step(&mut resumed, &mut resumed_moments);
        assert_eq!(resumed.trainable(), model.trainable());
        assert_eq!(resumed_moments, moments);

        assert!(resumed_moments.restore(&state[..state.len() - 4]).is_err());
        assert!(resumed_moments.restore(&bytes).is_err());
        assert_eq!(resumed_moments, moments);
    }
}
