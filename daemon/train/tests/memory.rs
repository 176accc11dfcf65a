//! The memory plan against what a run takes. Each case is a process of its own, since a peak is a process's: this program
//! runs itself again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]
mod common;

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use common::{Place, text};
use moat_contracts::{
    Architecture, Frozen, MemoryPlan, Method, Precision, Progress, Recipe, Recompute, TrainJob, TrainRecipe,
};
use moat_tensor::{StoredType, Weights};
use moat_train::{Ended, Streams, train_together};
use serde_json::{Value, json};

const CASE: &str = "MOAT_MEMORY_CASE";

/// A base, and the batches that it is trained with.
#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    intermediate: usize,
    vocabulary: usize,
    /// Tokens of a row.
    row: usize,
    /// Rows of a micro-batch.
    rows: usize,
    /// Optimiser steps; of several the batches are as unlike each other as documents are.
    steps: u64,
}

const SMALL: Shape = Shape {
    hidden: 384,
    layers: 6,
    heads: 4,
    kv_heads: 2,
    intermediate: 1024,
    vocabulary: 264,
    row: 128,
    rows: 4,
    steps: 1,
};

const SHAPES: [Shape; 4] = [
    SMALL,
    Shape { hidden: 256, layers: 4, intermediate: 704, vocabulary: 8000, row: 512, rows: 2, ..SMALL },
    Shape { hidden: 256, layers: 8, intermediate: 512, row: 384, ..SMALL },
    Shape { hidden: 256, layers: 4, intermediate: 768, vocabulary: 8192, row: 1024, steps: 8, ..SMALL },
];

/// Of the width, the depth and the heads of Llama 3.2 1B, with the vocabulary of bytes that the tests have.
const BILLION: Shape = Shape {
    hidden: 2048,
    layers: 16,
    heads: 32,
    kv_heads: 8,
    intermediate: 8192,
    vocabulary: 264,
    row: 512,
    rows: 2,
    steps: 1,
};

fn config(shape: Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate, "vocab_size": shape.vocabulary, "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "eos_token_id": 260})
}

/// A frozen base that is large beside all else.
const FROZEN: Shape = Shape { hidden: 512, layers: 8, intermediate: 2048, row: 256, ..SMALL };

fn recipe(shape: Shape, method: Method, recompute: Recompute) -> Recipe {
    let (sequence_length, micro_batch) = (shape.row, shape.rows);
    let train = TrainRecipe {
        method,
        sequence_length,
        micro_batch,
        max_steps: shape.steps,
        recompute,
        ..Default::default()
    };
    Recipe { train, ..Recipe::default() }
}

/// A base of this shape.
fn base(shape: Shape, stored: StoredType) -> Place {
    let place = Place::new();
    std::fs::write(place.path("base/config.json"), config(shape).to_string()).unwrap();
    std::fs::remove_file(place.path("base/model.safetensors")).unwrap();
    let architecture = Architecture::from_config(&config(shape).to_string()).unwrap();
    Weights::random(architecture, 3).save(&place.path("base"), stored).unwrap();
    place
}

/// What the child process does: it trains, and prints the plan and the peak.
#[test]
fn a_case() {
    let Some(case) = std::env::var_os(CASE) else { return };
    moat_train::settle_allocator();
    moat_train::watch_memory();
    let case: Value = serde_json::from_str(case.to_str().unwrap()).unwrap();
    let recipe: Recipe = serde_json::from_value(case["recipe"].clone()).unwrap();
    let job: TrainJob = serde_json::from_value(case["job"].clone()).unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(2 / job.processes).build_global().unwrap();
    let mut intake = moat_train::Intake::new(job.base.as_ref(), recipe.train.method).unwrap();
    // As many as fill a few micro-batches, and one of them as long as a row.
    let texts = (recipe.train.sequence_length / 16).clamp(24, 64);
    for number in 0..texts {
        let words = format!("the night valve {number} opens before shift and closes after the check. ");
        let whole = recipe.train.sequence_length / words.len() + 1;
        let times = match number {
            0 => whole,
            _ if recipe.train.max_steps > 1 => 1 + number * number * 7 % (2 * whole),
            _ => 3 + number % 11 * 2,
        };
        intake.add(text(&words.repeat(times))).unwrap();
    }
    let corpus = intake.finish().unwrap();
    let mut planned: Option<MemoryPlan> = None;
    let mut streams = Vec::new();
    if job.processes > 1 {
        streams.push(UnixStream::from(stdin().as_fd().try_clone_to_owned().unwrap()));
    }
    let mut exchange = Streams::new(job.rank, job.processes, streams).unwrap();
    let ended = train_together(&job, &corpus, &mut exchange, &AtomicBool::new(false), &mut |report| {
        if let Progress::Surveyed { memory, .. } = report {
            planned = Some(memory);
        }
    });
    let Ok(Ended::Trained(outcome)) = ended else { panic!("{ended:?}") };
    println!("measured {}", json!({ "plan": planned, "peak": outcome.peak_memory }));
}

/// By how much a run's peak is off its plan, as a share of it; told with the plan's parts.
fn apart(place: &Place, name: &str, recipe: &Recipe) -> f64 {
    apart_in(place, name, recipe, 1)
}

/// The same of the peaks of one or two processes together.
fn apart_in(place: &Place, name: &str, recipe: &Recipe, processes: usize) -> f64 {
    let (first, second) = UnixStream::pair().unwrap();
    let start = |(rank, stream)| {
        let job = TrainJob { rank, processes, ..place.job(name, recipe) };
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_case", "--nocapture"])
            .env(CASE, json!({ "job": job, "recipe": recipe }).to_string())
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = [first, second].into_iter().take(processes).enumerate().map(start).collect();
    let ended: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for child in &ended {
        let [said, erred] = [&child.stdout, &child.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(child.status.success(), "{said}{erred}");
    }
    let said = String::from_utf8_lossy(&ended[0].stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once("measured ")).unwrap().1;
    let measured: Value = serde_json::from_str(line).unwrap();
    let plan: MemoryPlan = serde_json::from_value(measured["plan"].clone()).unwrap();
    let peak = measured["peak"].as_u64().unwrap();
    let apart = peak as f64 / plan.total() as f64 - 1.0;
    let mib = |bytes: u64| bytes >> 20;
    let parts: Vec<_> =
        plan.parts.iter().map(|part| format!("{} {}", part.used.word(), mib(part.bytes))).collect();
    println!(
        "{name}: planned {} MiB, took {} MiB ({:+.1}%): {}",
        mib(plan.total()),
        mib(peak),
        100.0 * apart,
        parts.join(", ")
    );
    assert!(plan.total() > 50 << 20, "{name} is too small to be told from the program itself");
    apart.abs()
}

#[test]
fn the_peak_is_within_a_tenth_of_the_plan() {
    let mut worst = 0.0_f64;
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let place = base(shape, StoredType::F32);
        for method in [Method::Lora, Method::Full] {
            for recompute in [Recompute::No, Recompute::Yes] {
                let name = format!("{number}-{method:?}-{recompute:?}");
                worst = worst.max(apart(&place, &name, &recipe(shape, method, recompute)));
            }
        }
    }
    let place = base(FROZEN, StoredType::F32);
    for frozen in Frozen::ALL {
        let mut recipe = recipe(FROZEN, Method::Lora, Recompute::No);
        recipe.train.frozen = frozen;
        if frozen == Frozen::Int8 {
            recipe.train.precision = Precision::Int8;
        }
        worst = worst.max(apart(&place, frozen.word(), &recipe));
    }
    let mut recipe = recipe(SMALL, Method::Lora, Recompute::No);
    recipe.train.accumulate = 2;
    worst = worst.max(apart_in(&base(SMALL, StoredType::F32), "together", &recipe, 2));
    assert!(worst < 0.1, "the plan is off by {:.0}%", 100.0 * worst);
}

#[test]
#[ignore = "takes minutes: up to 32,768 tokens in one sequence"]
fn memory_grows_with_the_tokens_of_a_sequence_as_the_plan_says() {
    let mut worst = 0.0_f64;
    let place = base(Shape { layers: 4, ..SMALL }, StoredType::F32);
    for row in [2048, 8192, 32768] {
        let shape = Shape { layers: 4, row, rows: 1, ..SMALL };
        for recompute in [Recompute::No, Recompute::Yes] {
            let name = format!("{row}-{recompute:?}");
            worst = worst.max(apart(&place, &name, &recipe(shape, Method::Lora, recompute)));
        }
    }
    assert!(worst < 0.1, "the plan is off by {:.0}%", 100.0 * worst);
}

#[test]
#[ignore = "takes minutes, 7 GiB of memory and 2 GB of disk: a billion parameters"]
fn a_billion_parameters_train_within_their_plan() {
    let place = base(BILLION, StoredType::Bf16);
    let apart = apart(&place, "billion", &recipe(BILLION, Method::Lora, Recompute::Yes));
    assert!(apart < 0.1, "the plan is off by {:.0}%", 100.0 * apart);
}
