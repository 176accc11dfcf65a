use std::io::Write;
use std::path::Path;

use moat_contracts::{Digest, RunKey, RunPart};

use super::{KINDS, Kind, batch, model, tiny};
use crate::{
    AdamW, Folder, Gradients, Lora, LoraShape, Model, Moments, Parameters, StoredType, TensorError, Tuned,
    Weights, adamw, forward_backward,
};

fn config(dir: &Path, kind: Kind) {
    std::fs::write(dir.join("config.json"), super::config(kind).to_string()).unwrap();
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

fn bytes(parameters: &Parameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    parameters.write(&mut bytes).unwrap();
    bytes
}

/// A tensor on its way into the safetensors library.
struct Outgoing<'a>(&'a crate::Parameter, StoredType);

impl safetensors::View for Outgoing<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        if self.1 == StoredType::F32 { safetensors::Dtype::F32 } else { safetensors::Dtype::BF16 }
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        let values = self.0.values.iter();
        match self.1 {
            StoredType::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            StoredType::Bf16 => values.flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.data().len()
    }
}

#[test]
fn files_have_the_bytes_that_the_library_gives() {
    // One tensor is longer than what is converted at once.
    let long = crate::Parameter {
        name: "long".to_owned(),
        shape: vec![3, 30_001],
        values: (0..90_003).map(|value| value as f32 * 0.37 - 1e4).collect(),
    };
    let mut list = model(tiny(Kind::Qwen2), None, 1).weights.parameters().list().to_vec();
    list.insert(2, long);
    for stored in [StoredType::F32, StoredType::Bf16] {
        let format = || Some(("format", "pt".to_owned()));
        let named = || list.iter().map(|parameter| (parameter.name.clone(), parameter));
        let mut written = Vec::new();
        crate::stored::write(&mut written, named(), stored, format()).unwrap();
        let outgoing = named().map(|(name, parameter)| (name, Outgoing(parameter, stored)));
        let metadata = format().map(|(key, value)| [(key.to_owned(), value)].into());
        assert!(written == safetensors::serialize(outgoing, metadata).unwrap(), "{stored:?}");
    }
}

/// Every file in a folder.
fn raw(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn sealed_adapters_and_models_come_back_and_show_nothing() {
    let key = RunKey::from_bytes(&[5; 32]);
    let (adapters, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = model(tiny(Kind::Qwen3), Some(3), 1);
    let (weights, adapter) = (start.weights, start.adapter.unwrap());

    let sealed = Folder::of_run(adapters.path(), "run-1", RunPart::Adapter, Some(&key));
    let digest = adapter.save_to(&sealed, "starter").unwrap();
    let plain = tempfile::tempdir().unwrap();
    assert_eq!(digest, adapter.save_to(&Folder::plain(plain.path()), "starter").unwrap());
    let plain = std::fs::read(plain.path().join("adapter_model.safetensors")).unwrap();
    assert_eq!(digest, Digest::of(&plain));
    let Tuned::Adapter(found) = Folder::tuned(adapters.path(), "run-1", Some(&key)) else { panic!() };
    assert_eq!(Lora::load_from(&tiny(Kind::Qwen3), &found).unwrap().parameters(), adapter.parameters());

    let sealed = Folder::of_run(models.path(), "run-1", RunPart::Model, Some(&key));
    weights.save_to(&sealed, StoredType::F32).unwrap();
    config(models.path(), Kind::Qwen3);
    let told = std::fs::read(models.path().join("config.json")).unwrap();
    std::fs::remove_file(models.path().join("config.json")).unwrap();
    sealed.write("config.json", |file| file.write_all(&told)).unwrap();
    let Tuned::Model(found) = Folder::tuned(models.path(), "run-1", Some(&key)) else { panic!() };
    assert_eq!(Weights::load_from(&found).unwrap().parameters(), weights.parameters());

    for (name, bytes) in raw(adapters.path()).into_iter().chain(raw(models.path())) {
        assert!(name.ends_with(".sealed"), "{name}");
        for word in ["lora_A", "__metadata__", "q_proj", "peft_type", "hidden_size"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} in {name}");
        }
    }
}

#[test]
fn what_was_sealed_for_something_else_or_was_cut_is_refused() {
    let key = RunKey::from_bytes(&[5; 32]);
    let dir = tempfile::tempdir().unwrap();
    let adapter = model(tiny(Kind::Llama), Some(2), 1).adapter.unwrap();
    let folder = |run: &str, part, key: &RunKey| Folder::of_run(dir.path(), run, part, Some(key));
    let right = folder("run-1", RunPart::Adapter, &key);
    adapter.save_to(&right, "starter").unwrap();
    let refused = |folder: &Folder| match Lora::load_from(&tiny(Kind::Llama), folder) {
        Err(TensorError::Io { path, source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::InvalidData);
            assert!(source.to_string().contains("cut or changed, or belong to another object or key"));
            path.file_name().unwrap().to_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    };
    let config = "adapter_config.json.sealed";
    let other = RunKey::from_bytes(&[6; 32]);
    assert_eq!(refused(&folder("run-1", RunPart::Adapter, &other)), config);
    assert_eq!(refused(&folder("run-2", RunPart::Adapter, &key)), config);
    assert_eq!(refused(&folder("run-1", RunPart::Checkpoint, &key)), config);

    let weights = right.place("adapter_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for bytes in [&whole[..whole.len() - 1], &whole[..40], &changed] {
        std::fs::write(&weights, bytes).unwrap();
        assert_eq!(refused(&right), "adapter_model.safetensors.sealed");
    }
    std::fs::copy(right.place("adapter_config.json"), &weights).unwrap();
    assert_eq!(refused(&right), "adapter_model.safetensors.sealed");
    std::fs::write(&weights, &whole).unwrap();
    Lora::load_from(&tiny(Kind::Llama), &right).unwrap();
}

/// Saves weights after a change to their list of tensors.
fn saved(dir: &Path, weights: &Weights, change: impl FnOnce(&mut Vec<crate::Parameter>)) {
    let mut list = weights.parameters().list().to_vec();
    change(&mut list);
    std::fs::write(dir.join("model.safetensors"), bytes(&Parameters::new(list))).unwrap();
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
        std::fs::write(dir.path().join(&file), bytes(&Parameters::new(part.to_vec()))).unwrap();
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
        let first = if kind == Kind::Phi3 { "qkv_proj" } else { "q_proj" };
        for name in [
            &format!("base_model.model.model.layers.0.self_attn.{first}.lora_A.weight"),
            "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight",
        ] {
            assert!(loaded.parameters().get(name).is_some(), "{name}");
        }
        let path = dir.path().join("adapter_config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        let told: serde_json::Value = serde_json::from_str(&config).unwrap();
        let targets: &[&str] = if kind == Kind::Phi3 {
            &["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
        } else {
            &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        };
        assert_eq!(told["target_modules"], serde_json::json!(targets));
        std::fs::write(&path, config.replace("\"use_dora\": false", "\"use_qalora\": true")).unwrap();
        let error = Lora::load(&tiny(kind), dir.path()).unwrap_err();
        assert!(error.to_string().contains("use_qalora"), "{error}");
    }
}

#[test]
fn an_adapter_comes_back_with_its_scale_and_its_targets() {
    let dir = tempfile::tempdir().unwrap();
    let targets = ["down_proj".to_owned(), "q_proj".to_owned()];
    let shape =
        LoraShape { rank: 4, alpha: 6.0, rank_stabilized: true, decomposed: false, targets: &targets };
    let adapter = Lora::shaped(&tiny(Kind::Qwen3), shape, 1).unwrap();
    adapter.save(dir.path(), "starter").unwrap();
    let path = dir.path().join("adapter_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(config["target_modules"], serde_json::json!(["q_proj", "down_proj"]));
    let loaded = Lora::load(&tiny(Kind::Qwen3), dir.path()).unwrap();
    assert!(loaded.is_like(&adapter) && loaded.is_rank_stabilized());
    assert_eq!(loaded.scale(), 3.0);
    assert_eq!(loaded.parameters(), adapter.parameters());

    let mut with = |targets: serde_json::Value| {
        config["target_modules"] = targets;
        std::fs::write(&path, config.to_string()).unwrap();
        Lora::load(&tiny(Kind::Qwen3), dir.path())
    };
    // PEFT matches the last parts of a name, of any number.
    let found = with(serde_json::json!(["self_attn.q_proj", "down_proj"])).unwrap();
    assert_eq!(found.parameters(), adapter.parameters());
    let refused = |loaded: Result<Lora, TensorError>| loaded.unwrap_err().to_string();
    assert!(refused(with(serde_json::json!(["q_proj"]))).contains("down_proj"));
    assert!(refused(with(serde_json::json!("all-linear"))).contains("is missing"));
    assert!(refused(with(serde_json::json!(".*_proj"))).contains("target_modules"));
    assert!(refused(with(serde_json::json!([]))).contains("target_modules"));
    assert!(refused(with(serde_json::json!(["lm_head", "q_proj"]))).contains("`lm_head`"));
}

#[test]
fn training_goes_on_from_saved_state_bit_for_bit() {
    for (rank, fresh) in [
        (None, Moments::new as fn(&Model) -> Moments),
        (Some(2), Moments::new),
        (None, Moments::quantized),
        (Some(2), Moments::quantized),
    ] {
        let start = model(tiny(Kind::Qwen3), rank, 1);
        let batch = batch(&[20, 9], 17, 2);
        let settings =
            AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        let step = |model: &mut Model, moments: &mut Moments| {
            let mut gradients = Gradients::new(model);
            forward_backward(model, &batch, 0.1, false, &mut gradients).unwrap();
            adamw(model, &gradients, moments, settings).unwrap();
        };
        let (mut model, mut moments) = (start.clone(), fresh(&start));
        step(&mut model, &mut moments);
        step(&mut model, &mut moments);
        let (bytes, mut state) = (bytes(model.trainable()), Vec::new());
        moments.write(&mut state).unwrap();
        step(&mut model, &mut moments);

        let (mut resumed, mut resumed_moments) = (start.clone(), fresh(&start));
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
