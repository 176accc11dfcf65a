"""Makes what daemon/tensor's decomposed adapters (DoRA) are held against: one of PEFT's on the base of tests/variants, its
logits and gradients, ten steps of AdamW, and the weights that PEFT merges. Everything is computed in f64 on f32 weights.

    BASE                       the folder of tests/variants
    DIR/adapter/               the adapter as PEFT writes it
    DIR/expected.safetensors   tokens [T] i64; logits [T, vocabulary], gradient.NAME, losses [10], merged.NAME, f64"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

STEPS, RATE = 10, 1e-3
TARGETS = ["v_proj", "q_proj", "down_proj"]

base, folder = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(5)
model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(
    r=4, lora_alpha=6, use_dora=True, task_type="CAUSAL_LM", target_modules=TARGETS))
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "lora_magnitude_vector" in name:
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape))
        elif "lora_" in name:
            parameter.copy_(0.2 * torch.randn(parameter.shape))
model.peft_config["default"].base_model_name_or_path = ".."
model.save_pretrained(folder / "adapter")
(folder / "adapter/README.md").unlink(missing_ok=True)

model = model.double()
tokens = torch.randint(0, 40, (1, 24))
found = {"tokens": tokens[0], "logits": model(input_ids=tokens).logits[0].detach()}


def trained():
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            name = name.replace(".default", "")
            yield name.removesuffix(".weight") if "magnitude" in name else name, parameter


def loss():
    return model(input_ids=tokens, labels=tokens).loss


loss().backward()
for name, parameter in trained():
    found["gradient." + name] = parameter.grad.clone()
model.zero_grad()
merge = LlamaForCausalLM.from_pretrained(base)
merge = PeftModel.from_pretrained(merge, folder / "adapter").double().merge_and_unload()
for name, parameter in merge.named_parameters():
    if any(target in name for target in TARGETS):
        found["merged." + name] = parameter.detach()
optimizer = torch.optim.AdamW([parameter for _, parameter in trained()], lr=RATE, betas=(0.9, 0.999), eps=1e-5,
                              weight_decay=0.0)
losses = []
for _ in range(STEPS):
    step = loss()
    losses.append(step.item())
    step.backward()
    optimizer.step()
    optimizer.zero_grad()
found["losses"] = torch.tensor(losses, dtype=torch.float64)
save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "expected.safetensors")
