//! Times optimiser steps on a random model and prints one line of JSON: the median tokens per second over the steps
//! after the first two, and the peak of resident memory. Built with the feature `watch` it also tells how fast the machine
//! multiplies matrices of the model's shapes, which share of that the step reaches, and where the rest goes. `--products`
//! multiplies a base in 8 bits in 8-bit integers. Its defaults are the peer's: a Llama of 32 M parameters with an adapter of
//! rank 16 on all linears.

use std::time::Instant;

use moat_contracts::{Architecture, Frozen, Precision};
use moat_tensor::{AdamW, Batch, Gradients, Lora, Model, Moments, Weights, adamw, forward_backward};

const USAGE: &str = "usage: lora_step [--full] [--recompute] [--bf16 | --int8 | --nf4] [--products] [--steps N] [--batch N] \
                     [--seq N] [--threads N]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut full, mut recompute, mut steps, mut rows, mut length, mut threads) =
        (false, false, 12, 4, 512, 0);
    let (mut frozen, mut precision) = (Frozen::F32, Precision::F32);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|number| number.parse::<usize>().ok()).ok_or(USAGE);
        match argument.as_str() {
            "--full" => full = true,
            "--recompute" => recompute = true,
            "--bf16" => frozen = Frozen::Bf16,
            "--int8" => frozen = Frozen::Int8,
            "--nf4" => frozen = Frozen::Nf4,
            "--products" => (frozen, precision) = (Frozen::Int8, Precision::Int8),
            "--steps" => steps = number()?.max(3),
            "--batch" => rows = number()?,
            "--seq" => length = number()?,
            "--threads" => threads = number()?,
            _ => return Err(USAGE.into()),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    // Full training is what makes the starter base: smaller, and tied.
    let hidden = if full { 288 } else { 512 };
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": 8,
        "num_attention_heads": if full { 6 } else { 8 },
        "num_key_value_heads": if full { 2 } else { 4 },
        "intermediate_size": if full { 768 } else { 1408 },
        "vocab_size": 8192,
        "max_position_embeddings": 2048.max(length),
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": full,
    });
    let architecture = Architecture::from_config(&config.to_string())?;
    let adapter = (!full).then(|| Lora::new(&architecture, 16, 32.0, 1));
    let mut weights = Weights::random(architecture, 0).freeze(frozen)?;
    weights.set_precision(precision)?;
    let mut model = Model { weights, adapter };
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    let mut state = 1_u64;
    for _ in 0..rows {
        let tokens: Vec<u32> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 51) as u32
            })
            .collect();
        let one = Batch::sequence(&tokens);
        batch.tokens.extend(one.tokens);
        batch.targets.extend(one.targets);
        batch.segments.push(batch.tokens.len());
    }

    let (mut gradients, mut moments) = (Gradients::new(&model), Moments::new(&model));
    let settings = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let (mut seconds, mut loss) = (Vec::new(), 0.0);
    for _ in 0..steps {
        let start = Instant::now();
        gradients.zero();
        let scale = 1.0 / batch.trained() as f32;
        let sum = forward_backward(&model, &batch, scale, recompute, &mut gradients)?;
        adamw(&mut model, &gradients, &mut moments, settings)?;
        seconds.push(start.elapsed().as_secs_f64());
        loss = sum.nats / sum.tokens as f64;
    }
    let mut counted = seconds.split_off(2);
    counted.sort_by(f64::total_cmp);
    let rate = (rows * length) as f64 / counted[counted.len() / 2];
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    let peak: u64 = peak.ok_or("the kernel does not say the peak of memory")?;
    let method = if full { "full" } else { "lora" };
    #[allow(unused_mut, reason = "only what was watched is added")]
    let mut line = serde_json::json!({
        "method": method,
        "recompute": recompute,
        "frozen": frozen,
        "precision": precision,
        "threads": rayon::current_num_threads(),
        "tokens_per_s": (rate * 10.0).round() / 10.0,
        "peak_mib": peak / 1024,
        "loss": (loss * 1e5).round() / 1e5,
    });
    #[cfg(feature = "watch")]
    {
        line["course"] = course(&model, &batch, recompute, counted[counted.len() / 2])?;
    }
    #[allow(clippy::print_stdout)]
    {
        println!("{line}");
    }
    Ok(())
}

/// Where one more step's time goes, and how that compares with products alone.
#[cfg(feature = "watch")]
fn course(
    model: &Model,
    batch: &Batch,
    recompute: bool,
    seconds: f64,
) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let mut gradients = Gradients::new(model);
    // The first one makes the buffers.
    for _ in 0..2 {
        moat_tensor::take_watched();
        forward_backward(model, batch, 1.0, recompute, &mut gradients)?;
    }
    let parts = moat_tensor::take_watched();
    let threads = rayon::current_num_threads() as f64;
    let watched: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let mut shares: Vec<_> = parts
        .iter()
        .map(|(name, spent)| serde_json::json!([name, (1e3 * spent / (threads * seconds)).round() / 1e3]))
        .collect();
    let idle = (1.0 - watched / (threads * seconds)).max(0.0);
    shares.push(serde_json::json!(["waiting", (1e3 * idle).round() / 1e3]));
    let architecture = &model.weights.architecture;
    let rate = products(architecture.hidden, architecture.intermediate, rayon::current_num_threads());
    // Forward and the gradient of the input take two operations a weight each, a weight's own gradient as many more;
    // the embedding is looked up.
    let looked_up = (architecture.vocabulary * architecture.hidden) as u64;
    let weights = (architecture.parameters() - if architecture.tied { 0 } else { looked_up }) as f64;
    let passes = if model.adapter.is_some() { 4.0 } else { 6.0 };
    let operations = passes * weights * batch.tokens.len() as f64;
    Ok(serde_json::json!({
        "gemm_gflop_per_s": (rate * 1e-9).round(),
        "share_of_gemm": (1e3 * operations / seconds / rate).round() / 1e3,
        "shares": shares,
    }))
}

/// Operations a second of f32 products of a part's rows with an MLP's weight, on each thread its own.
#[cfg(feature = "watch")]
fn products(hidden: usize, intermediate: usize, threads: usize) -> f64 {
    const ROWS: usize = 512;
    const TIMES: usize = 24;
    let one = || {
        let (left, right) = (vec![0.5_f32; ROWS * hidden], vec![0.5_f32; hidden * intermediate]);
        let mut out = vec![0.0_f32; ROWS * intermediate];
        let start = Instant::now();
        for _ in 0..TIMES {
            moat_tensor::multiply(&left, &right, &mut out, [ROWS, hidden, intermediate]);
            std::hint::black_box(&mut out);
        }
        (2 * TIMES * ROWS * hidden * intermediate) as f64 / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        started.into_iter().filter_map(|one| one.join().ok()).sum()
    })
}
