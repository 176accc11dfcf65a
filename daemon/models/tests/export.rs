//! Hands over folders, and lets `sha256sum` check them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use moat_contracts::{
    Dataset, DatasetEntry, DatasetId, DatasetSource, Digest, EdgeReport, ForgettingReport, Interval, Method,
    Recipe, RecordId, RunKey, RunPart, SourceEdge, Split, TrainOutcome,
};
use moat_models::{Export, ImportedBase, ModelError, begin, verify_export};
use moat_vault::{DataKey, SealedFolder};

struct Run {
    root: tempfile::TempDir,
    recipe: Recipe,
    dataset: Dataset,
    base: ImportedBase,
    outcome: TrainOutcome,
    edge: EdgeReport,
}

fn run(has_edge: bool) -> Run {
    let root = tempfile::tempdir().unwrap();
    for (file, content) in [
        ("adapter/adapter_config.json", "{}"),
        ("adapter/adapter_model.safetensors", "A"),
        ("model/config.json", "{}"),
        ("model/model.safetensors", "A"),
    ] {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let digest = Digest::of(b"x");
    let entry = DatasetEntry {
        record: RecordId(digest),
        split: Split::Train,
        source: "wiki".to_owned(),
        tokens: 1234,
        bytes: 5678,
    };
    let mut source = DatasetSource::default();
    source.add(&entry);
    let id = DatasetId(digest);
    let sources = BTreeMap::from([("wiki".to_owned(), source)]);
    let dataset =
        Dataset { id, recipe: digest, rules: digest, tokenizer: digest, entries: vec![entry], sources };
    let low = if has_edge { 0.1 } else { -0.1 };
    let saved = Interval { value: 0.25, low, high: 0.5 };
    let source = SourceEdge { records: 7, bytes: 70, base: 2.0, tuned: 1.75, edge: Some(saved) };
    let forgetting =
        ForgettingReport { text: "general English".to_owned(), bytes: 9, base: 1.0, tuned: 1.5, lost: saved };
    Run {
        root,
        recipe: Recipe::default(),
        dataset,
        base: ImportedBase {
            name: "tiny".to_owned(),
            hash: Digest::of(b"base"),
            family: "Qwen2ForCausalLM".to_owned(),
            parameters: 4242,
            bytes: 1,
            chat: false,
            chat_fault: None,
            files: BTreeMap::new(),
            folder: PathBuf::new(),
        },
        outcome: TrainOutcome {
            steps: 3,
            tokens: 99,
            first_loss: 2.5,
            last_loss: 1.5,
            weights: Digest::of(b"A"),
            peak_memory: 1,
        },
        edge: EdgeReport {
            dataset: id,
            confidence: 0.95,
            resamples: 2000,
            all: source.clone(),
            sources: BTreeMap::from([
                ("wiki".to_owned(), source.clone()),
                ("mail".to_owned(), SourceEdge { edge: None, ..source }),
            ]),
            forgetting,
            has_edge,
        },
    }
}

impl Run {
    fn export(&self, to: &Path) -> Result<BTreeMap<String, Digest>, ModelError> {
        self.export_from("adapter", None, to)
    }

    /// As `moatd` does, with a model in place of the one that an engine merges.
    fn export_from(
        &self,
        tuned: &str,
        key: Option<&RunKey>,
        to: &Path,
    ) -> Result<BTreeMap<String, Digest>, ModelError> {
        let facts = Export {
            run: "demo-1",
            version: "0.1.0",
            recipe: &self.recipe,
            dataset: &self.dataset,
            manifest: "moat dataset 1\n",
            base: &self.base,
            outcome: &self.outcome,
            edge: &self.edge,
            tuned: &self.root.path().join(tuned),
            key,
        };
        let begun = begin(to)?;
        if self.recipe.train.method == Method::Lora {
            fs::create_dir(begun.model()).unwrap();
            fs::write(begun.model().join("model.safetensors"), "M").unwrap();
        }
        begun.finish(&facts)
    }

    fn seal(&self, part: RunPart, key: &RunKey) {
        let plain = self.root.path().join(part.word());
        let folder = self.root.path().join("sealed");
        fs::create_dir_all(&folder).unwrap();
        let folder = SealedFolder::new(&folder, DataKey::from_bytes(key.expose()), part.object("demo-1"));
        for entry in fs::read_dir(plain).unwrap() {
            let entry = entry.unwrap();
            let mut file = folder.create(entry.file_name().to_str().unwrap()).unwrap();
            file.write_all(&fs::read(entry.path()).unwrap()).unwrap();
            file.publish().unwrap();
        }
    }

    fn target(&self) -> PathBuf {
        self.root.path().join("out")
    }
}

#[test]
fn an_export_is_whole_and_its_sums_are_those_of_sha256sum() {
    let run = run(true);
    let files = run.export(&run.target()).unwrap();
    assert_eq!(
        files.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "README.md",
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "dataset-manifest",
            "lineage.json",
            "model/model.safetensors"
        ]
    );
    assert_eq!(files["model/model.safetensors"], Digest::of(b"M"));
    let mut check = Command::new("sha256sum");
    check.args(["--strict", "-c", "SHA256SUMS"]).current_dir(run.target());
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), files.len());
    assert_eq!(verify_export(&run.target()).unwrap(), files);
    let lineage: serde_json::Value =
        serde_json::from_slice(&fs::read(run.target().join("lineage.json")).unwrap()).unwrap();
    assert_eq!(lineage["recipe_hash"], run.recipe.hash().to_string());
    assert_eq!(lineage["base"]["hash"], run.base.hash.to_string());
    assert_eq!(lineage["dataset"]["id"], run.dataset.id.to_string());
    assert_eq!(serde_json::from_value::<EdgeReport>(lineage["edge"].clone()).unwrap(), run.edge);
    assert_eq!(serde_json::from_value::<Recipe>(lineage["recipe"].clone()).unwrap(), run.recipe);
    // Nothing unfinished stays beside it.
    assert_eq!(fs::read_dir(run.root.path()).unwrap().count(), 3);
}

#[test]
fn an_export_never_overwrites() {
    let run = run(true);
    fs::create_dir(run.target()).unwrap();
    assert!(matches!(run.export(&run.target()), Err(ModelError::Exists(_))));
    let nowhere = run.root.path().join("missing/out");
    run.export(&nowhere).unwrap();
}

#[test]
fn the_card_says_what_the_run_brought_and_when_it_brought_nothing() {
    let won = run(true);
    won.export(&won.target()).unwrap();
    let card = fs::read_to_string(won.target().join("README.md")).unwrap();
    assert!(!card.contains("no edge"));
    for part in [
        "base_model: tiny\n",
        "| all | 7 | 2.0000 | 1.7500 | +0.2500 | +0.1000 to +0.5000 |",
        "| mail | 7 | 2.0000 | 1.7500 | +0.2500 | too few records |",
        "| trained on | 1 | 1234 | 5678 |",
        "the whole 95 % interval lies above 0",
        "general English",
        "PeftModel.from_pretrained",
    ] {
        assert!(card.contains(part), "{part} in {card}");
    }
    let lost = run(false);
    lost.export(&lost.target()).unwrap();
    assert!(
        fs::read_to_string(lost.target().join("README.md")).unwrap().contains("**This run shows no edge**")
    );
}

#[test]
fn changed_added_and_missing_files_are_noticed() {
    let run = run(true);
    run.export(&run.target()).unwrap();
    let extra = run.target().join("model/extra.py");
    fs::write(&extra, "x").unwrap();
    assert!(matches!(verify_export(&run.target()), Err(ModelError::Unlisted { path }) if path == extra));
    fs::remove_file(extra).unwrap();
    let weights = run.target().join("model/model.safetensors");
    fs::write(&weights, "N").unwrap();
    assert!(matches!(verify_export(&run.target()), Err(ModelError::Sum { path, .. }) if path == weights));
    fs::remove_file(weights).unwrap();
    assert!(matches!(verify_export(&run.target()), Err(ModelError::Io { .. })));
    fs::remove_file(run.target().join("SHA256SUMS")).unwrap();
    assert!(matches!(verify_export(&run.target()), Err(ModelError::NoFile { .. })));
}

#[test]
fn what_a_run_sealed_is_exported_plain_and_as_it_was_trained() {
    let key = RunKey::from_bytes(&[7; 32]);
    for (method, part) in [(Method::Lora, RunPart::Adapter), (Method::Full, RunPart::Model)] {
        let mut run = run(true);
        run.recipe.train.method = method;
        run.seal(part, &key);
        let beside = |name: &str| run.root.path().join(name);
        let plain = run.export_from(part.word(), None, &beside("plain")).unwrap();
        assert_eq!(run.export_from("sealed", Some(&key), &beside("opened")).unwrap(), plain);
        assert_eq!(verify_export(&beside("opened")).unwrap(), plain);

        let wrong = RunKey::from_bytes(&[8; 32]);
        let refused = run.export_from("sealed", Some(&wrong), &run.target()).unwrap_err();
        assert!(refused.to_string().contains("do not open"), "{refused}");
        let name = if method == Method::Lora { "adapter_model.safetensors" } else { "model.safetensors" };
        let weights = beside("sealed").join(format!("{name}.sealed"));
        let whole = fs::read(&weights).unwrap();
        fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
        let refused = run.export_from("sealed", Some(&key), &run.target()).unwrap_err();
        assert!(matches!(&refused, ModelError::Io { path, .. } if *path == weights), "{refused}");
        fs::remove_file(&weights).unwrap();
        let refused = run.export_from("sealed", Some(&key), &run.target());
        assert!(matches!(refused, Err(ModelError::NoFile { .. })));
        // A refused export leaves nothing beside its place, plain weights least of all.
        let left = fs::read_dir(run.root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_str().unwrap().contains("unfinished")));
        assert!(!run.target().exists());
    }
}

#[test]
fn other_weights_than_the_run_ended_with_are_not_handed_over() {
    let run = run(true);
    fs::write(run.root.path().join("adapter/adapter_model.safetensors"), "B").unwrap();
    assert!(
        matches!(run.export(&run.target()), Err(ModelError::Sum { found, .. }) if found == Digest::of(b"B"))
    );
    assert!(!run.target().exists());
}
