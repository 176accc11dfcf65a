//! The memory plan against what a run takes. Each case is a process of its own, since a peak is a process's: this program
//! runs itself again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]
mod common;

use std::process::Command;
use std::sync::atomic::AtomicBool;

use common::{Place, text};
use moat_contracts::{
    Architecture, Frozen, MemoryPlan, Method, Precision, Progress, Recipe, Recompute, TrainRecipe,
};
use moat_tensor::{StoredType, Weights};
use moat_train::{Ended, train};
use serde_json::{Value, json};

const CASE: &str = "MOAT_MEMORY_CASE";

/// The shapes: width, blocks, MLP, vocabulary, tokens of a row, rows of a micro-batch.
const SHAPES: [(usize, usize, usize, usize, usize, usize); 3] =
    [(384, 6, 1024, 264, 128, 4), (256, 4, 704, 8000, 512, 2), (256, 8, 512, 264, 384, 4)];

fn config(
    (hidden, layers, intermediate, vocabulary, ..): (usize, usize, usize, usize, usize, usize),
) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": intermediate,
        "vocab_size": vocabulary, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "eos_token_id": 260})
}

fn recipe(
    shape: (usize, usize, usize, usize, usize, usize),
    (method, frozen): (Method, Frozen),
    recompute: Recompute,
) -> Recipe {
    let (.., sequence_length, micro_batch) = shape;
    let max_steps = 1;
    let precision = if frozen == Frozen::Int8 { Precision::Int8 } else { Precision::F32 };
    let train = TrainRecipe {
        method,
        sequence_length,
        micro_batch,
        max_steps,
        recompute,
        frozen,
        precision,
        ..Default::default()
    };
    Recipe { train, ..Recipe::default() }
}

/// What the child process does: it trains, and prints the plan and the peak.
#[test]
fn a_case() {
    let Some(case) = std::env::var_os(CASE) else { return };
    let case: Value = serde_json::from_str(case.to_str().unwrap()).unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let recipe: Recipe = serde_json::from_value(case["recipe"].clone()).unwrap();
    let job: moat_contracts::TrainJob = serde_json::from_value(case["job"].clone()).unwrap();
    let mut intake = moat_train::Intake::new(job.base.as_ref(), recipe.train.method).unwrap();
    for number in 0..24 {
        let words = format!("the night valve {number} opens before shift and closes after the check. ");
        intake.add(text(&words.repeat(3 + number % 11 * 2))).unwrap();
    }
    let corpus = intake.finish().unwrap();
    let mut planned: Option<MemoryPlan> = None;
    let ended = train(&job, &corpus, &AtomicBool::new(false), &mut |report| {
        if let Progress::Surveyed { memory, .. } = report {
            planned = Some(memory);
        }
    });
    let Ok(Ended::Trained(outcome)) = ended else { panic!("{ended:?}") };
    println!("measured {}", json!({ "plan": planned.unwrap(), "peak": outcome.peak_memory }));
}

#[test]
fn the_peak_is_within_a_tenth_of_the_plan() {
    let own = std::env::current_exe().unwrap();
    let mut worst = 0.0_f64;
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let place = Place::new();
        std::fs::write(place.path("base/config.json"), config(shape).to_string()).unwrap();
        std::fs::remove_file(place.path("base/model.safetensors")).unwrap();
        let architecture = Architecture::from_config(&config(shape).to_string()).unwrap();
        Weights::random(architecture, 3).save(&place.path("base"), StoredType::F32).unwrap();
        let lora = [Frozen::F32, Frozen::Int8, Frozen::Nf4].map(|frozen| (Method::Lora, frozen));
        for method in lora.into_iter().chain([(Method::Full, Frozen::F32)]) {
            for recompute in [Recompute::No, Recompute::Yes] {
                let recipe = recipe(shape, method, recompute);
                let (of, frozen) = (method.0, method.1.word());
                let name = format!("{number}-{of:?}-{frozen}-{recompute:?}");
                let case = json!({ "job": place.job(&name, &recipe), "recipe": recipe });
                let child = Command::new(&own)
                    .args(["--exact", "a_case", "--nocapture"])
                    .env(CASE, case.to_string())
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&child.stdout).into_owned();
                assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
                let line = said.lines().find_map(|line| line.split_once("measured ")).unwrap().1;
                let measured: Value = serde_json::from_str(line).unwrap();
                let plan: MemoryPlan = serde_json::from_value(measured["plan"].clone()).unwrap();
                let peak = measured["peak"].as_u64().unwrap();
                let apart = peak as f64 / plan.total() as f64 - 1.0;
                let mib = |bytes: u64| bytes >> 20;
                let parts: Vec<_> = plan
                    .parts
                    .iter()
                    .map(|part| format!("{} {}", part.used.word(), mib(part.bytes)))
                    .collect();
                println!(
                    "{name}: planned {} MiB, took {} MiB ({:+.1}%): {}",
                    mib(plan.total()),
                    mib(peak),
                    100.0 * apart,
                    parts.join(", ")
                );
                assert!(plan.total() > 50 << 20, "{name} is too small to be told from the program itself");
                worst = worst.max(apart.abs());
            }
        }
    }
    assert!(worst < 0.1, "the plan is off by {:.0}%", 100.0 * worst);
}
