//! Times optimiser steps on a random model and prints one line of JSON: the median tokens per second over the steps
//! after the first two, and the peak of resident memory. Its defaults are the peer's: a Llama of 32 M parameters with an
//! adapter of rank 16 on all linears. `--products` multiplies a base in 8 bits in 8-bit integers.

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
    let line = serde_json::json!({
        "method": method,
        "recompute": recompute,
        "frozen": frozen,
        "precision": precision,
        "threads": rayon::current_num_threads(),
        "tokens_per_s": (rate * 10.0).round() / 10.0,
        "peak_mib": peak / 1024,
        "loss": (loss * 1e5).round() / 1e5,
    });
    #[allow(clippy::print_stdout)]
    {
        println!("{line}");
    }
    Ok(())
}
