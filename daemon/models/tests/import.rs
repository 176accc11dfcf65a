//! Takes in folders made of the tiny base and weights written by the safetensors library, whole and broken ones.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use moat_contracts::{Architecture, Digest};
use moat_models::{ModelError, find, import, list, verify};
use moat_template::TemplateError;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

/// Name, shape, bytes of BF16 ones.
type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

struct Site {
    _root: tempfile::TempDir,
    folder: PathBuf,
    store: PathBuf,
}

fn tensors() -> Tensors {
    tensors_of(&fs::read_to_string(tiny().join("config.json")).unwrap())
}

fn tensors_of(config: &str) -> Tensors {
    let tensors = Architecture::from_config(config).unwrap().tensors();
    let ones = |shape: &[usize]| [0x80, 0x3f].repeat(shape.iter().product());
    tensors.into_iter().map(|tensor| (tensor.name, tensor.shape.clone(), ones(&tensor.shape))).collect()
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny")
}

fn save(tensors: &Tensors, dtype: Dtype, path: &Path) {
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()))
        .collect();
    serialize_to_file(views, None, path).unwrap();
}

fn site() -> Site {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("tiny");
    fs::create_dir(&folder).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny().join(file), folder.join(file)).unwrap();
    }
    save(&tensors(), Dtype::BF16, &folder.join("model.safetensors"));
    Site { folder, store: root.path().join("store"), _root: root }
}

impl Site {
    fn import(&self) -> Result<moat_models::ImportedBase, ModelError> {
        import(&self.folder, &self.store, None)
    }

    /// The failure, after which the store must be as empty as before.
    fn refusal(&self) -> ModelError {
        let error = self.import().unwrap_err();
        assert_eq!(list(&self.store).unwrap(), []);
        let left: Vec<_> = fs::read_dir(&self.store).map(|entries| entries.collect()).unwrap_or_default();
        assert_eq!(left.len(), 0);
        error
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.folder.join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }
}

#[test]
fn a_sound_folder_is_taken_in_and_found_again() {
    let site = site();
    fs::write(site.folder.join("modeling_tiny.py"), "raise SystemExit").unwrap();
    fs::write(site.folder.join("pytorch_model.bin"), "pickle").unwrap();
    let base = site.import().unwrap();
    assert_eq!((base.name.as_str(), base.family.as_str(), base.chat), ("tiny", "Qwen2ForCausalLM", true));
    let numbers: usize = tensors().iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    assert_eq!(base.parameters, numbers as u64);
    assert_eq!(
        base.files.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    for (file, entry) in &base.files {
        let bytes = fs::read(site.store.join("tiny").join(file)).unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (entry.sha256, entry.size));
        assert_eq!(bytes, fs::read(site.folder.join(file)).unwrap());
    }
    assert_eq!(list(&site.store).unwrap(), std::slice::from_ref(&base));
    assert_eq!(verify(&site.store, "tiny").unwrap(), base);
    assert_eq!(site.import().unwrap(), base);
    assert_eq!(import(&site.folder, &site.store, Some("other")).unwrap().hash, base.hash);
    for name in ["none", "..", "../tiny", ""] {
        assert_eq!(find(&site.store, name).unwrap(), None);
        assert!(matches!(verify(&site.store, name), Err(ModelError::Unknown(_))));
    }
}

#[test]
fn shards_are_taken_in_by_their_index() {
    let site = site();
    let all = tensors();
    let (first, second) = (all[..5].to_vec(), all[5..].to_vec());
    fs::remove_file(site.folder.join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        save(part, Dtype::BF16, &site.folder.join(file));
        map.extend(part.iter().map(|(name, _, _)| (name.clone(), file.into())));
    }
    let index = site.folder.join("model.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let base = site.import().unwrap();
    assert!(
        base.files.contains_key("a.safetensors") && base.files.contains_key("model.safetensors.index.json")
    );
    fs::remove_dir_all(&site.store).unwrap();

    map["model.norm.weight"] = "a.safetensors".into();
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(matches!(site.refusal(), ModelError::Unexpected { name, .. } if name == "model.norm.weight"));
    map["model.norm.weight"] = "../b.safetensors".into();
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(matches!(site.refusal(), ModelError::Format { .. }));
}

#[test]
fn weights_that_are_not_the_configuration_s_are_refused() {
    let site = site();
    let path = site.folder.join("model.safetensors");
    let spoilt = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors();
        change(&mut tensors);
        save(&tensors, Dtype::BF16, &path);
        site.refusal()
    };
    let error = spoilt(&|tensors| drop(tensors.pop()));
    assert!(matches!(&error, ModelError::Missing { name } if name == "model.norm.weight"), "{error}");
    let error = spoilt(&|tensors| tensors[0].1.reverse());
    assert!(matches!(&error, ModelError::Shape { expected, .. } if expected == &[264, 16]), "{error}");
    let error = spoilt(&|tensors| tensors.push(("model.extra".to_owned(), vec![1], vec![0, 0])));
    assert!(matches!(&error, ModelError::Unexpected { name, .. } if name == "model.extra"), "{error}");
    for (wrong, high) in [(0x7f, 0x80), (0xff, 0xc1)] {
        let error = spoilt(&|tensors| {
            tensors[0].2[2 * 77 + 1] = wrong;
            tensors[0].2[2 * 77] = high;
        });
        assert!(matches!(&error, ModelError::NotFinite { element: 77, .. }), "{error}");
    }
    let mut halves = tensors();
    halves.iter_mut().for_each(|(_, shape, bytes)| *bytes = vec![0; shape.iter().product()]);
    save(&halves, Dtype::I8, &path);
    assert!(matches!(site.refusal(), ModelError::Type { found, .. } if found == "I8"));
    save(&tensors(), Dtype::BF16, &path);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(
        matches!(site.refusal(), ModelError::Format { reason, .. } if reason.contains("ends within tensor"))
    );
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(matches!(site.refusal(), ModelError::Format { reason, .. } if reason.contains("goes on")));
    fs::write(&path, &whole[..40]).unwrap();
    assert!(matches!(site.refusal(), ModelError::Format { reason, .. } if reason.contains("header")));
    fs::remove_file(&path).unwrap();
    assert!(matches!(site.refusal(), ModelError::NoFile { .. }));
    fs::write(site.folder.join("pytorch_model.bin"), "pickle").unwrap();
    let error = site.refusal();
    assert!(matches!(error, ModelError::Pickle { .. }) && error.to_string().contains("safe_serialization"));
}

#[test]
fn a_tied_head_that_is_stored_all_the_same_is_no_fault() {
    let site = site();
    let mut tensors = tensors();
    tensors.push(("lm_head.weight".to_owned(), tensors[0].1.clone(), tensors[0].2.clone()));
    save(&tensors, Dtype::BF16, &site.folder.join("model.safetensors"));
    site.import().unwrap();
}

#[test]
fn text_that_does_not_belong_to_the_weights_is_refused() {
    let site1 = site();
    site1.edit("config.json", |config| config["vocab_size"] = 262.into());
    let error = site1.refusal();
    assert!(matches!(error, ModelError::Vocabulary { highest: 262, vocabulary: 262, .. }), "{error}");
    // Special tokens that nothing prints may lie beyond the embedding, and what the template prints may not.
    let special = |config: &mut Value| config["eos_token_id"] = json!([]);
    for (turn, imports) in [("<|turn|>", false), ("[turn]", true)] {
        let site = site();
        site.edit("config.json", |config| config["vocab_size"] = 261.into());
        site.edit("config.json", special);
        site.edit("generation_config.json", special);
        site.edit("tokenizer_config.json", |config| {
            let template = config["chat_template"].as_str().unwrap().replace("<|done|>", "<|end|>");
            config["chat_template"] = template.replace("<|turn|>", turn).into();
        });
        let config = fs::read_to_string(site.folder.join("config.json")).unwrap();
        save(&tensors_of(&config), Dtype::BF16, &site.folder.join("model.safetensors"));
        if imports {
            site.import().unwrap();
        } else {
            let error = site.refusal();
            assert!(matches!(error, ModelError::Vocabulary { highest: 261, .. }), "{error}");
        }
    }
    let site2 = site();
    site2.edit("generation_config.json", |config| config["eos_token_id"] = 264.into());
    assert!(matches!(site2.refusal(), ModelError::Vocabulary { what: "a special token", .. }));
    let site3 = site();
    site3.edit("tokenizer_config.json", |config| config["eos_token"] = "<|stop|>".into());
    assert!(matches!(site3.refusal(), ModelError::Template(TemplateError::Special { .. })));
    let site4 = site();
    site4.edit("tokenizer_config.json", |config| config["chat_template"] = "{% for %}".into());
    assert!(matches!(site4.refusal(), ModelError::Template(TemplateError::Template { .. })));
    let site5 = site();
    fs::write(site5.folder.join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(site5.refusal(), ModelError::Template(TemplateError::Format { .. })));
    let site6 = site();
    site6.edit("config.json", |config| config["architectures"] = json!(["MambaForCausalLM"]));
    assert!(site6.refusal().to_string().contains("Mamba"));
}

#[test]
fn a_template_that_never_stops_keeps_chats_out() {
    let site = site();
    site.edit("generation_config.json", |config| config["eos_token_id"] = 260.into());
    let base = site.import().unwrap();
    assert!(!base.chat && base.chat_fault.unwrap().contains("never stop"));
}

#[test]
fn sums_in_the_folder_are_held_against_it() {
    let site = site();
    let line = |file: &str| format!("{}  {file}\n", Digest::of(&fs::read(site.folder.join(file)).unwrap()));
    fs::write(site.folder.join("texts.tsv"), "a list").unwrap();
    let sums = line("model.safetensors") + &line("texts.tsv");
    fs::write(site.folder.join("SHA256SUMS"), &sums).unwrap();
    site.import().unwrap();
    fs::remove_dir_all(&site.store).unwrap();
    fs::write(site.folder.join("texts.tsv"), "another list").unwrap();
    assert!(matches!(site.refusal(), ModelError::Sum { path, .. } if path.ends_with("texts.tsv")));
    let wrong = sums.replace("model.safetensors", "tokenizer.json").replace(&line("texts.tsv"), "");
    fs::write(site.folder.join("SHA256SUMS"), wrong.lines().next().unwrap()).unwrap();
    assert!(matches!(site.refusal(), ModelError::Sum { path, .. } if path.ends_with("tokenizer.json")));
    fs::write(site.folder.join("SHA256SUMS"), sums.replace("texts.tsv", "../texts.tsv")).unwrap();
    assert!(matches!(site.refusal(), ModelError::Format { .. }));
}

#[test]
fn a_taken_name_and_a_changed_base_are_noticed() {
    let site = site();
    site.import().unwrap();
    site.edit("config.json", |config| config["note"] = 1.into());
    assert!(matches!(site.import(), Err(ModelError::Taken { .. })));
    assert_eq!(fs::read_dir(&site.store).unwrap().count(), 1);
    for name in ["", ".hidden", "a/b", "ümlaut"] {
        assert!(matches!(import(&site.folder, &site.store, Some(name)), Err(ModelError::Name(_))));
    }
    let kept = site.store.join("tiny/model.safetensors");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, &bytes).unwrap();
    assert!(find(&site.store, "tiny").unwrap().is_some());
    assert!(matches!(verify(&site.store, "tiny"), Err(ModelError::Sum { .. })));
    fs::write(&kept, b"").unwrap();
    assert!(matches!(find(&site.store, "tiny"), Err(ModelError::Format { .. })));
}
