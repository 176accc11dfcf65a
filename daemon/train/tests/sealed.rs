//! With a key, nothing that a run leaves on the disk can be read without it, and nothing else is taken for it.

#![allow(clippy::unwrap_used)]
mod common;

use std::fs;
use std::path::Path;

use common::{Place, bytes, examples, files, recipe, run, text};
use moat_contracts::{Example, ExportJob, Method, RunKey, RunPart, TrainJob};
use moat_tensor::Folder;
use moat_train::{Corpus, Ended, TrainError, merge};

/// Words of the texts, and what safetensors' headers, an adapter, a base and a checkpoint's state say of themselves.
const WORDS: [&str; 14] = [
    "Quillfeather",
    "zanzibarbecue",
    "the night valve",
    "lora_A",
    "__metadata__",
    "q_proj",
    "data_offsets",
    "peft_type",
    "LoraConfig",
    "hidden_size",
    "model_max_length",
    "nats",
    "first_loss",
    "gradient_norm",
];

fn planted() -> Vec<Example> {
    let plant =
        |number| text(&format!("Quillfeather {number} says zanzibarbecue to the night valve {number}"));
    (0..12).map(plant).chain(examples()).collect()
}

/// That every file is sealed and shows none of the words, in letters or in UTF-16.
fn shows_nothing(folder: &Path) -> usize {
    let files = files(folder);
    for path in &files {
        assert!(path.to_str().unwrap().ends_with(".sealed"), "{}", path.display());
        let bytes = bytes(path);
        for word in WORDS {
            let wide: Vec<u8> = word.bytes().flat_map(|byte| [byte, 0]).collect();
            for wanted in [word.as_bytes(), &wide] {
                let found = bytes.windows(wanted.len()).any(|window| window == wanted);
                assert!(!found, "{word} in {}", path.display());
            }
        }
    }
    files.len()
}

#[test]
fn neither_texts_nor_weights_nor_losses_are_on_the_disk_at_any_time() {
    for method in [Method::Lora, Method::Full] {
        let place = Place::new();
        let corpus = place.corpus(method, &planted()).unwrap();
        let job = place.sealed("run", &recipe(method));
        let folder = place.path("run");
        // The same words are found where nothing is sealed, so that the search is no empty one.
        run(&place.job("plain", &recipe(method)), &corpus, Some(4)).0.unwrap();
        let plain = place.path("plain/checkpoint/4");
        let found = |name: &str, word: &str| {
            bytes(&plain.join(name)).windows(word.len()).any(|window| window == word.as_bytes())
        };
        assert!(found("state.json", "gradient_norm") && found("moments.safetensors", "__metadata__"));

        let mut seen = 0;
        for stop in [0, 1, 4] {
            assert_eq!(run(&job, &corpus, Some(stop)).0.unwrap(), Ended::Stopped);
            seen += shows_nothing(&folder);
        }
        assert_eq!(seen, 9);
        assert!(matches!(run(&job, &corpus, None).0, Ok(Ended::Trained(_))));
        assert!(shows_nothing(&folder) >= 5);
    }
}

fn reason(job: &TrainJob, corpus: &Corpus) -> (String, String) {
    match run(job, corpus, None).0 {
        Err(TrainError::Io { path, source, .. }) => {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), source.to_string())
        }
        Err(TrainError::Checkpoint { reason, .. }) => (String::new(), reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn checkpoints_that_were_cut_swapped_or_sealed_under_another_key_are_refused() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let job = place.sealed("run", &recipe);
    run(&job, &corpus, Some(2)).0.unwrap();
    let refused = |job: &TrainJob, name: &str| {
        let (file, reason) = reason(job, &corpus);
        assert_eq!(file, format!("{name}.sealed"));
        assert!(reason.contains("cut or changed, or belong to another object or key"), "{reason}");
    };
    refused(&TrainJob { key: Some(RunKey::from_bytes(&[1; 32])), ..job.clone() }, "state.json");
    refused(&TrainJob { run: "other".to_owned(), ..job.clone() }, "state.json");
    // Without its key, a sealed checkpoint is not passed over as if it were none.
    assert_eq!(reason(&TrainJob { key: None, ..job.clone() }, &corpus).0, "state.json");

    let checkpoint = place.path("run/checkpoint/2");
    let names = ["state.json", "trainable.safetensors", "moments.safetensors"];
    for (name, other) in names.into_iter().zip(names.into_iter().cycle().skip(1)) {
        let [path, other] = [name, other].map(|name| checkpoint.join(format!("{name}.sealed")));
        let whole = bytes(&path);
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        refused(&job, name);
        fs::copy(&other, &path).unwrap();
        refused(&job, name);
        fs::write(&path, &whole).unwrap();
    }

    // A file of the same name from another checkpoint of the run opens, and is told by its digest.
    let later = place.sealed("later", &recipe);
    run(&TrainJob { run: "run".to_owned(), ..later }, &corpus, Some(3)).0.unwrap();
    let moments = checkpoint.join("moments.safetensors.sealed");
    let whole = bytes(&moments);
    fs::copy(place.path("later/checkpoint/3/moments.safetensors.sealed"), &moments).unwrap();
    assert!(reason(&job, &corpus).1.contains("changed"));
    fs::write(&moments, whole).unwrap();
    assert!(matches!(run(&job, &corpus, None).0, Ok(Ended::Trained(_))));
}

#[test]
fn a_sealed_adapter_is_merged_into_the_same_model_and_sealed_again() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let merged = |job: &TrainJob, key: Option<RunKey>| {
        run(job, &corpus, None).0.unwrap();
        let output = place.path(&format!("{}-merged", job.run));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let export = ExportJob {
            run: job.run.clone(),
            key,
            base: text(&place.path("base")),
            adapter: text(&place.path(&job.run).join("adapter")),
            output: text(&output),
        };
        merge(&export).map(|()| {
            let folder = Folder::of_run(&output, &job.run, RunPart::Model, export.key.as_ref());
            assert_eq!(export.key.is_some(), !output.join("model.safetensors").exists());
            folder.read("model.safetensors").unwrap()
        })
    };
    let plain = merged(&place.job("plain", &recipe), None).unwrap();
    let job = place.sealed("sealed", &recipe);
    let wrong = merged(&job, Some(RunKey::from_bytes(&[1; 32]))).unwrap_err();
    assert!(wrong.to_string().contains("do not open"), "{wrong}");
    assert_eq!(merged(&job, job.key.clone()).unwrap(), plain);
}
