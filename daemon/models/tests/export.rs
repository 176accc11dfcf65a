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
use moat_models::{Export, ImportedBase, ModelError, Parts, measure, release, stage, verify_export};
use moat_vault::{DataKey, Recipient, SealedFolder};

struct Run {
    root: tempfile::TempDir,
    recipe: Recipe,
    dataset: Dataset,
    base: ImportedBase,
    outcome: TrainOutcome,
    edge: EdgeReport,
}

fn key() -> RunKey {
    RunKey::from_bytes(&[7; 32])
}

fn seal(folder: &Path, part: RunPart, name: &str, content: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let folder = SealedFolder::new(folder, DataKey::from_bytes(key().expose()), part.object("demo-1"));
    let mut file = folder.create(name).unwrap();
    file.write_all(content).unwrap();
    file.publish().unwrap();
}

fn run(has_edge: bool) -> Run {
    let root = tempfile::tempdir().unwrap();
    for (part, file, content) in [
        (RunPart::Adapter, "adapter_config.json", "{}"),
        (RunPart::Adapter, "adapter_model.safetensors", "A"),
        (RunPart::Model, "config.json", "{}"),
        (RunPart::Model, "model.safetensors", "A"),
    ] {
        seal(&root.path().join("sealed").join(part.word()), part, file, content.as_bytes());
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
            validation: None,
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
            preference: None,
            has_edge,
        },
    }
}

impl Run {
    /// As `moatd` does, with a model in place of the one that an engine merges.
    fn export(&self, to: &Path) -> Result<BTreeMap<String, Digest>, ModelError> {
        self.export_as(&key(), to, None)
    }

    fn export_as(
        &self,
        key: &RunKey,
        to: &Path,
        recipient: Option<&Recipient>,
    ) -> Result<BTreeMap<String, Digest>, ModelError> {
        let staging = self.root.path().join("staging");
        let _ = fs::remove_dir_all(&staging);
        let lora = self.recipe.train.method == Method::Lora;
        let tuned = self.root.path().join(if lora { "sealed/adapter" } else { "sealed/model" });
        let files = Parts { run: "demo-1", key, tuned: &tuned, staging: &staging };
        if lora {
            seal(&files.model(), RunPart::Model, "model.safetensors", b"M");
        }
        let staged = stage(&self.facts(files))?;
        assert_eq!(measure(&files).unwrap(), staged);
        assert!(!to.exists());
        release(&files, staged.hash, to, recipient)
    }

    fn facts<'a>(&'a self, files: Parts<'a>) -> Export<'a> {
        Export {
            version: "0.1.0",
            recipe: &self.recipe,
            dataset: &self.dataset,
            manifest: "moat dataset 1\n",
            base: &self.base,
            outcome: &self.outcome,
            edge: &self.edge,
            earlier: &[],
            files,
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
    let left = fs::read_dir(run.root.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["out", "sealed", "staging"]);
}

#[test]
fn an_export_never_overwrites() {
    let run = run(true);
    let staging = run.root.path().join("staging");
    run.export(&run.target()).unwrap();
    let tuned = run.root.path().join("sealed/adapter");
    let files = Parts { run: "demo-1", key: &key(), tuned: &tuned, staging: &staging };
    let staged = stage(&run.facts(files)).unwrap();
    assert!(matches!(release(&files, staged.hash, &run.target(), None), Err(ModelError::Exists(_))));
    release(&files, staged.hash, &run.root.path().join("missing/out"), None).unwrap();
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
fn what_waits_is_sealed_and_only_what_was_agreed_to_leaves() {
    let run = run(true);
    run.export(&run.root.path().join("first")).unwrap();
    let (staging, tuned) = (run.root.path().join("staging"), run.root.path().join("sealed/adapter"));
    let key = key();
    let files = Parts { run: "demo-1", key: &key, tuned: &tuned, staging: &staging };
    let staged = stage(&run.facts(files)).unwrap();
    assert_eq!(staged.bytes, {
        let folders = ["first", "first/adapter", "first/model"];
        let folders = folders.map(|name| fs::read_dir(run.root.path().join(name)).unwrap()).into_iter();
        let files = folders.flatten().map(|file| file.unwrap().metadata().unwrap());
        files.filter(fs::Metadata::is_file).map(|file| file.len()).sum::<u64>()
    });
    for path in [staging.join("README.md.sealed"), staging.join("model/model.safetensors.sealed")] {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(5).any(|text| text == b"Licen" || text == b"# dem"));
    }
    let refused = || release(&files, staged.hash, &run.target(), None).unwrap_err();
    let other = Digest::of(b"another export");
    assert!(matches!(release(&files, other, &run.target(), None), Err(ModelError::Sum { .. })));
    // Each file that is exchanged for another one under the right key, the list of sums included.
    for (folder, part, name) in [
        (&staging, RunPart::Export, "README.md"),
        (&staging, RunPart::Export, "SHA256SUMS"),
        (&files.model(), RunPart::Model, "model.safetensors"),
        (&tuned, RunPart::Adapter, "adapter_config.json"),
    ] {
        let place = folder.join(format!("{name}.sealed"));
        let before = fs::read(&place).unwrap();
        seal(folder, part, name, b"exchanged");
        assert!(matches!(refused(), ModelError::Sum { .. }), "{name}");
        fs::write(&place, &before[..before.len() - 1]).unwrap();
        assert!(matches!(refused(), ModelError::Io { .. }), "{name}");
        fs::write(&place, before).unwrap();
    }
    let wrong = RunKey::from_bytes(&[8; 32]);
    let wrong = release(&Parts { key: &wrong, ..files }, staged.hash, &run.target(), None).unwrap_err();
    assert!(wrong.to_string().contains("do not open"), "{wrong}");
    // A refused export leaves nothing beside its place, plain weights least of all.
    let left = fs::read_dir(run.root.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().contains("unfinished")));
    assert!(!run.target().exists());
    release(&files, staged.hash, &run.target(), None).unwrap();
}

#[test]
fn other_weights_than_the_run_ended_with_are_not_handed_over() {
    for (method, part, name) in [
        (Method::Lora, RunPart::Adapter, "adapter_model.safetensors"),
        (Method::Full, RunPart::Model, "model.safetensors"),
    ] {
        let mut run = run(true);
        run.recipe.train.method = method;
        run.export(&run.root.path().join("whole")).unwrap();
        let folder = run.root.path().join("sealed").join(part.word());
        seal(&folder, part, name, b"B");
        let refused = run.export(&run.target());
        assert!(matches!(refused, Err(ModelError::Sum { found, .. }) if found == Digest::of(b"B")));
        fs::remove_file(folder.join(format!("{name}.sealed"))).unwrap();
        assert!(matches!(run.export(&run.target()), Err(ModelError::NoFile { .. })));
        assert!(!run.target().exists());
    }
}

/// The peer is Debian's age, which the recipient would use.
#[test]
fn what_is_encrypted_to_a_recipient_opens_with_their_key_alone() {
    let run = run(true);
    let keygen = |name: &str| {
        let file = run.root.path().join(name);
        let made = Command::new("age-keygen").arg("-o").arg(&file).output().unwrap();
        assert!(made.status.success());
        let public = Command::new("age-keygen").arg("-y").arg(&file).output().unwrap();
        (file, String::from_utf8(public.stdout).unwrap())
    };
    let (ours, public) = keygen("ours");
    let (theirs, _) = keygen("theirs");
    let recipient: Recipient = public.parse().unwrap();
    assert_eq!(recipient.to_string(), public.trim());
    let files = run.export_as(&key(), &run.target(), Some(&recipient)).unwrap();
    assert!(files.keys().all(|name| name.ends_with(".age")) && files.contains_key("SHA256SUMS.age"));
    assert_eq!(verify_export(&run.target()).unwrap(), files);
    let open = |name: &str, identity: &Path| {
        let file = run.target().join(name);
        Command::new("age").arg("-d").arg("-i").arg(identity).arg(file).output().unwrap()
    };
    assert_eq!(open("model/model.safetensors.age", &ours).stdout, b"M");
    assert_eq!(open("adapter/adapter_config.json.age", &ours).stdout, b"{}");
    let sums = String::from_utf8(open("SHA256SUMS.age", &ours).stdout).unwrap();
    assert!(sums.contains(&format!("{}  model/model.safetensors\n", Digest::of(b"M"))));
    assert!(!open("model/model.safetensors.age", &theirs).status.success());
}
