"""Makes what daemon/tensor's test of LoRA's variants is held against: a small random Llama with an adapter of PEFT that
is rank-stabilised and lies on some linears only, its logits and gradients, and ten steps of LoRA+ as PEFT's optimiser
takes them. Everything is computed in f64 on f32 weights.

    DIR/config.json, model.safetensors   the base, f32
    DIR/adapter/                         the adapter as PEFT writes it
    DIR/expected.safetensors             tokens [T] i64; logits [T, vocabulary], gradient.NAME, losses [10], f64

With a second folder, which holds an adapter that Moat wrote for the same base, it says how far PEFT's logits of that one
are from `own.safetensors` beside it."""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

STEPS, RATE, RATIO = 10, 1e-3, 16.0


def make(folder):
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    base = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    base.save_pretrained(folder)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, use_rslora=True, task_type="CAUSAL_LM",
                                            target_modules=["v_proj", "q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.peft_config["default"].base_model_name_or_path = ".."
    model.save_pretrained(folder / "adapter")
    for stray in ("adapter/README.md", "generation_config.json"):
        (folder / stray).unlink(missing_ok=True)

    model = model.double()
    tokens = torch.randint(0, 40, (1, 24))
    found = {"tokens": tokens[0]}

    def loss():
        return model(input_ids=tokens, labels=tokens).loss

    found["logits"] = model(input_ids=tokens).logits[0].detach()
    loss().backward()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            found["gradient." + name.replace(".default", "")] = parameter.grad.clone()
    model.zero_grad()
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO,
                                          loraplus_weight_decay=0.01, betas=(0.9, 0.999), eps=1e-5)
    losses = []
    for _ in range(STEPS):
        step = loss()
        losses.append(step.item())
        step.backward()
        optimizer.step()
        optimizer.zero_grad()
    found["losses"] = torch.tensor(losses, dtype=torch.float64)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "expected.safetensors")


def compare(folder, own):
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder), own).double()
    config = model.peft_config["default"]
    tokens = load_file(folder / "expected.safetensors")["tokens"][None]
    far = (model(input_ids=tokens).logits[0] - load_file(own / "own.safetensors")["logits"].double()).abs().max().item()
    print(f"PEFT reads use_rslora={config.use_rslora}, {sorted(config.target_modules)}: logits differ by {far:.1e}")
    sys.exit(far > 1e-4)


if len(sys.argv) > 2:
    compare(Path(sys.argv[1]), Path(sys.argv[2]))
else:
    make(Path(sys.argv[1]))
