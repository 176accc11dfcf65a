"""Makes the trace that daemon/train replays: trl's SFTTrainer on a small random Llama with LoRA and chats. Every batch as the
model got it, and every step's loss, gradient norm and learning rate. The files are told in the README.md beside them.

usage: replay.py FOLDER [--seed N]"""

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

from replay_parts import OPTIMIZER, TEMPLATE, TOKENIZER, WORDS, runs

STEPS, MICRO_BATCH, ACCUMULATE = 50, 2, 2
MASKED = -100


def chats(draw):
    def words(most):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))

    for _ in range(64):
        turns = []
        for _ in range(draw.randint(1, 2)):
            turns += [{"role": "user", "content": words(4)}, {"role": "assistant", "content": words(5)}]
        yield {"messages": turns}


class Recorded(SFTTrainer):
    """Keeps what the model gets and what its loss is; the step's loss is the sum over its micro-batches."""

    def compute_loss(self, model, inputs, *arguments, **settings):
        sequences = []
        for tokens, labels, seen in zip(*(inputs[name].tolist() for name in ("input_ids", "labels", "attention_mask"))):
            length = sum(seen)
            if seen != [1] * length + [0] * (len(seen) - length):
                raise SystemExit("replay: a sequence is not padded at its end")
            trained = [place for place in range(length) if labels[place] != MASKED]
            if any(labels[place] != tokens[place] for place in trained):
                raise SystemExit("replay: a label is not its token")
            sequences.append({"tokens": tokens[:length], "trained": runs(trained)})
        self.recorded.append(sequences)
        result = super().compute_loss(model, inputs, *arguments, **settings)
        self.losses.append((result[0] if isinstance(result, tuple) else result).item())
        return result


class Rates(TrainerCallback):
    """The learning rate that each step is taken with."""

    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, _arguments, _state, _control, optimizer=None, **_):
        self.rates.append(optimizer.param_groups[0]["lr"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    shutil.rmtree(given.folder, ignore_errors=True)
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=48, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=260, pad_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_(1 + 0.1 * noise if name.endswith("norm.weight") else (0.3 if "embed" in name else 0.15) * noise)
    # Stored in bfloat16, so that the file is small and both sides begin with the same bits.
    model.to(torch.bfloat16).save_pretrained(given.folder)
    (given.folder / "generation_config.json").unlink(missing_ok=True)
    model = LlamaForCausalLM.from_pretrained(given.folder, dtype=torch.float32, attn_implementation="eager")

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    settings = SFTConfig(
        output_dir=str(given.folder / "output"), max_steps=STEPS, per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ACCUMULATE, learning_rate=OPTIMIZER["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=5, adam_beta1=OPTIMIZER["beta1"], adam_beta2=OPTIMIZER["beta2"],
        adam_epsilon=OPTIMIZER["epsilon"], weight_decay=OPTIMIZER["weight_decay"], max_grad_norm=OPTIMIZER["clip"],
        max_length=96, packing=False, assistant_only_loss=True, gradient_checkpointing=False, bf16=False, use_cpu=True,
        logging_steps=1, save_strategy="no", report_to="none", seed=given.seed, disable_tqdm=True)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                      target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    rates = Rates()
    data = Dataset.from_list(list(chats(random.Random(given.seed))))
    trainer = Recorded(model=model, args=settings, train_dataset=data, processing_class=tokenizer, peft_config=lora,
                       callbacks=[rates])
    trainer.recorded, trainer.losses = [], []
    trainer.model.peft_config["default"].base_model_name_or_path = ".."
    trainer.model.save_pretrained(given.folder / "adapter")
    (given.folder / "adapter/README.md").unlink(missing_ok=True)
    trainer.train()

    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    if not len(logged) == len(rates.rates) == STEPS or len(trainer.recorded) != STEPS * ACCUMULATE:
        raise SystemExit(f"replay: {len(logged)} steps, {len(trainer.recorded)} micro-batches were recorded")
    steps = []
    for step, (entry, rate) in enumerate(zip(logged, rates.rates)):
        micro = slice(step * ACCUMULATE, (step + 1) * ACCUMULATE)
        loss = sum(trainer.losses[micro])
        if abs(loss - entry["loss"]) > 1e-3:
            raise SystemExit(f"replay: step {step + 1} logs {entry['loss']}, its micro-batches {loss}")
        steps.append({"loss": loss, "gradient_norm": float(entry["grad_norm"]), "rate": rate,
                      "batches": trainer.recorded[micro]})
    trace = {"optimizer": OPTIMIZER, "steps": steps}
    lines = json.dumps(trace, separators=(",", ":")).replace('{"loss"', '\n{"loss"')
    (given.folder / "trace.json").write_text(lines + "\n")
    for stray in ("output", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        path = given.folder / stray
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    print(f"parity: trl: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f} in {STEPS} steps")


main()
