//! Times LoRA steps of a random model of Llama 3 8B's shape on the first GPU, in bfloat16, and prints one line of JSON: the
//! median tokens per second over the steps after the first two, and the GPU memory taken. With `--small` the model is one of
//! a few million parameters, which only shows that it works.

use std::time::Instant;

use moat_contracts::Architecture;
use moat_tensor::cuda::{Device, OnDevice, Precision};
use moat_tensor::{AdamW, Batch, Lora, Model, Parameter, Tuning, Weights};

const USAGE: &str = "usage: gpu_step [--small] [--recompute] [--steps N] [--batch N] [--seq N]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut small, mut recompute, mut steps, mut rows, mut length) = (false, false, 8, 1, 4096);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|number| number.parse::<usize>().ok()).ok_or(USAGE);
        match argument.as_str() {
            "--small" => small = true,
            "--recompute" => recompute = true,
            "--steps" => steps = number()?.max(3),
            "--batch" => rows = number()?,
            "--seq" => length = number()?,
            _ => return Err(USAGE.into()),
        }
    }
    let device = Device::gpu(0)?;
    let pick = |whole: usize, little: usize| if small { little } else { whole };
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": pick(4096, 256),
        "num_hidden_layers": pick(32, 2),
        "num_attention_heads": pick(32, 4),
        "num_key_value_heads": pick(8, 2),
        "intermediate_size": pick(14336, 512),
        "vocab_size": pick(128_256, 1024),
        "max_position_embeddings": 8192.max(length),
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": false,
    });
    let architecture = Architecture::from_config(&config.to_string())?;
    let vocabulary = architecture.vocabulary as u64;
    let adapter = Some(Lora::new(&architecture, 16, 32.0, 1));
    let mut placed = {
        let model = Model { weights: Weights::random(architecture, 0), adapter };
        OnDevice::new(&device, &model, Precision::Bf16)?
    };
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    let mut state = 1_u64;
    for _ in 0..rows {
        let token = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary) as u32
        };
        let tokens: Vec<u32> = (0..length).map(token).collect();
        let one = Batch::sequence(&tokens);
        batch.tokens.extend(one.tokens);
        batch.targets.extend(one.targets);
        batch.segments.push(batch.tokens.len());
    }

    let settings = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let tuning = |parameter: &Parameter| Tuning { rate: 1.0, decays: parameter.shape.len() == 2 };
    let (mut seconds, mut loss, mut norm) = (Vec::new(), 0.0, 0.0);
    for _ in 0..steps {
        device.finish()?;
        let start = Instant::now();
        placed.zero()?;
        let sum = placed.forward_backward(&batch, 1.0 / batch.trained() as f32, recompute)?;
        norm = placed.norm()?;
        placed.adamw(settings, tuning)?;
        device.finish()?;
        seconds.push(start.elapsed().as_secs_f64());
        loss = sum.nats / sum.tokens as f64;
    }
    let mut counted = seconds.split_off(2);
    counted.sort_by(f64::total_cmp);
    let rate = (rows * length) as f64 / counted[counted.len() / 2];
    let line = serde_json::json!({
        "device": device.name(),
        "recompute": recompute,
        "tokens_per_s": (rate * 10.0).round() / 10.0,
        "gpu_mib": device.memory() >> 20,
        "loss": (loss * 1e5).round() / 1e5,
        "gradient_norm": norm,
    });
    #[allow(clippy::print_stdout)]
    {
        println!("{line}");
    }
    Ok(())
}
