"""Makes the fixtures that the parity test of daemon/tensor reads: small random models of every family, and what
PyTorch, transformers and PEFT compute with them. The format is told in daemon/tensor/tests/fixtures/README.md."""

import argparse
import json
import math
import random
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig,
    MistralForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

MASKED = -100
STEPS = 20
# With a smaller epsilon, or a higher rate, AdamW magnifies rounding until the steps of some seeds are chaos.
OPTIMIZER = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-5, "weight_decay": 0.01, "clip": 1.0}
LEARNING_RATE = {"lora": 2e-3, "full": 2e-3}

# The committed cases. Between them: grouped, single and one-to-one key heads, both heads, every bias, every scaling,
# windows shorter than the documents in all blocks, in some and in none, caps that bend scores and logits.
CASES = {
    "llama": (LlamaConfig, LlamaForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=48,
        tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "llama-linear": (LlamaConfig, LlamaForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=8, intermediate_size=40,
        tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
    # The original length is so small that some frequencies are kept, some divided and some interpolated.
    "llama-scaled": (LlamaConfig, LlamaForCausalLM, dict(
        hidden_size=48, num_attention_heads=3, num_key_value_heads=3, head_dim=16, intermediate_size=64,
        tie_word_embeddings=True, attention_bias=True, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64})),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(
        hidden_size=48, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        tie_word_embeddings=True, rms_norm_eps=1e-6, use_sliding_window=True, sliding_window=24, max_window_layers=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(
        hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=56,
        tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})),
    "mistral": (MistralConfig, MistralForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=48,
        tie_word_embeddings=False, rms_norm_eps=1e-5, sliding_window=16,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=48,
        tie_word_embeddings=True, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh", sliding_window=16,
        query_pre_attn_scalar=11, attn_logit_softcapping=3.0, final_logit_softcapping=6.0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=12, intermediate_size=48,
        tie_word_embeddings=True, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh", sliding_window=16,
        query_pre_attn_scalar=10, layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})),
    # No document is longer than the original length: beyond it, LongRoPE's other divisors hold.
    "phi3": (Phi3Config, Phi3ForCausalLM, dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        tie_word_embeddings=False, rms_norm_eps=1e-5, original_max_position_embeddings=144,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
                         "short_factor": [1.0, 1.5, 2.5], "long_factor": [1.0, 4.0, 9.0]})),
}


def reshaped(settings, draw):
    """Draws other sizes for a case; the features that the case is there for stay."""
    settings = dict(settings)
    kv_heads = draw.choice([1, 2, 3])
    heads = kv_heads * draw.choice([1, 2, 3])
    head_dim = draw.choice([6, 8, 16, 20])
    settings.update(num_key_value_heads=kv_heads, num_attention_heads=heads, intermediate_size=draw.randint(24, 90),
                    hidden_size=heads * (draw.choice([5, 8, 12]) if "head_dim" in settings else head_dim))
    if "head_dim" in settings:
        settings["head_dim"] = head_dim
    if settings["rope_parameters"].get("rope_type") == "longrope":
        head_dim = draw.choice([8, 16])
        pairs = head_dim * 3 // 8
        settings["hidden_size"] = heads * head_dim
        settings["rope_parameters"] = settings["rope_parameters"] | {
            "short_factor": [1 + 3 * draw.random() for _ in range(pairs)], "long_factor": [9.0] * pairs}
    return settings


def randomise(model, generator):
    """Values large enough that a part that is left out changes the result."""
    # Gemma stores its norms' weights less one.
    centre = 0 if type(model).__name__.startswith("Gemma") else 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(centre + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(0.15 * noise)


def batch(vocabulary, lengths, draw):
    """One packed row: (tokens, targets, segments). A document's last position has no target, and some more have none."""
    tokens, targets, segments = [], [], []
    for segment, length in enumerate(lengths):
        document = [draw.randrange(vocabulary) for _ in range(length)]
        tokens += document
        targets += [token if draw.random() > 0.2 else MASKED for token in document[1:]] + [MASKED]
        segments += [segment] * length
    return tuple(torch.tensor(column) for column in (tokens, targets, segments))


def logits_of(model, tokens, segments):
    """Each document by itself, so that attention and positions cannot reach another one."""
    documents = [tokens[segments == segment] for segment in segments.unique()]
    return torch.cat([model(input_ids=document[None], use_cache=False).logits[0] for document in documents])


def loss_of(model, tokens, targets, segments):
    logits = logits_of(model, tokens, segments)
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=MASKED)


def gradients(model, row):
    model.zero_grad()
    loss = loss_of(model, *row)
    loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}


def train(model, row, learning_rate):
    """20 steps on the one row: the loss before each step, and its gradient norm before clipping."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() == 2], "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": [p for p in trained if p.dim() != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate,
                                  betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]), eps=OPTIMIZER["epsilon"])
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, *row)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, OPTIMIZER["clip"]).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def make(folder, kinds, settings, seed, lengths):
    config_class, model_class, _ = kinds
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    activation = {} if "hidden_activation" in settings else {"hidden_act": "silu"}
    config = config_class(vocab_size=96, num_hidden_layers=2, max_position_embeddings=256, bos_token_id=None,
                          eos_token_id=0, pad_token_id=None, **activation, **settings)
    shutil.rmtree(folder, ignore_errors=True)

    def fresh(dtype=torch.float64):
        # The reference computes in f64, so that what differs is the tested side's rounding only.
        return model_class.from_pretrained(folder, dtype=dtype, attn_implementation="eager")

    base = model_class(config)
    randomise(base, generator)
    base.save_pretrained(folder)
    linears = {name.split(".")[-1] for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)}
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=sorted(linears),
                      task_type="CAUSAL_LM")
    adapted = get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    # What PEFT would note here is a path of the machine that made the fixture.
    adapted.peft_config["default"].base_model_name_or_path = ".."
    adapted.save_pretrained(folder / "adapter")
    for stray in ("adapter/README.md", "generation_config.json"):
        (folder / stray).unlink(missing_ok=True)

    row = batch(config.vocab_size, lengths, draw)
    tokens, targets, segments = row
    expected = {"tokens": tokens, "targets": targets, "segments": segments}

    def adapter(dtype=torch.float64):
        return PeftModel.from_pretrained(fresh(dtype), folder / "adapter", is_trainable=True).to(dtype)

    def keep(name, values):
        expected[name] = torch.as_tensor(values).detach()

    for method, build in (("full", fresh), ("lora", adapter)):
        model = build()
        with torch.no_grad():
            keep("base.logits" if method == "full" else "tuned.logits", logits_of(model, tokens, segments).float())
        loss, grads = gradients(model, row)
        keep(f"{method}.loss", torch.tensor([loss], dtype=torch.float64))
        for name, gradient in grads.items():
            if gradient.abs().max() < 1e-7:
                raise SystemExit(f"{folder.name}: the gradient of {name} is nothing; the fixture would prove nothing")
            keep(f"{method}.gradient.{name.replace('.default.', '.')}", gradient.float())
        losses, norms = train(build(), row, LEARNING_RATE[method])
        if not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
            raise SystemExit(f"{folder.name}: {method} training does not learn: {losses}")
        keep(f"{method}.losses", torch.tensor(losses, dtype=torch.float64))
        keep(f"{method}.gradient_norms", torch.tensor(norms, dtype=torch.float64))
        # How far f32 drifts from f64 over the same steps in PyTorch itself: the yardstick of the tested side's drift.
        rounded_losses, rounded_norms = train(build(torch.float32), row, LEARNING_RATE[method])
        keep(f"{method}.losses_f32", torch.tensor(rounded_losses, dtype=torch.float64))
        keep(f"{method}.gradient_norms_f32", torch.tensor(rounded_norms, dtype=torch.float64))
        print(f"parity: {folder.name:13} {method}: loss {losses[0]:.4f} -> {losses[-1]:.4f} in {STEPS} steps,"
              f" gradient norm {norms[0]:.3f}")
    save_file({name: value.contiguous() for name, value in expected.items()}, folder / "expected.safetensors")
    training = {"seed": seed, "steps": STEPS, "learning_rate": LEARNING_RATE, **OPTIMIZER}
    (folder / "training.json").write_text(json.dumps(training, indent=2) + "\n")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, help="draw sizes, weights and documents from this seed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for number, (name, kinds) in enumerate(CASES.items()):
        if arguments.seed is None:
            make(arguments.folder / name, kinds, kinds[2], 1 + number, [19, 75, 34])
        else:
            draw = random.Random(f"{arguments.seed} {name}")
            lengths = [draw.randint(2, 140) for _ in range(3)]
            make(arguments.folder / name, kinds, reshaped(kinds[2], draw), draw.getrandbits(31), lengths)


main()
