"""Makes the trace of preferences that daemon/train replays: trl's DPOTrainer on the small random Llama and the fresh adapter
that replay.py left in FOLDER. Every batch as the model got it, and every step's loss, gradient norm, learning rate and margin.

usage: preferences.py FOLDER [--seed N]"""

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

from replay_parts import OPTIMIZER, TEMPLATE, TOKENIZER, WORDS, runs

STEPS, MICRO_BATCH, ACCUMULATE, BETA = 30, 2, 2, 0.25


def preferences(draw):
    def words(most):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))

    for _ in range(48):
        chosen, rejected = words(6), words(6)
        while rejected == chosen:
            rejected = words(6)
        yield {"prompt": [{"role": "user", "content": words(4)}],
               "chosen": [{"role": "assistant", "content": chosen}],
               "rejected": [{"role": "assistant", "content": rejected}]}


class Recorded(DPOTrainer):
    """Keeps what the model gets and what its loss is: the chosen answers are the first half of a batch."""

    def _compute_loss(self, model, inputs, return_outputs):
        sequences = []
        for tokens, learnt, seen in zip(*(inputs[name].tolist() for name in ("input_ids", "completion_mask", "attention_mask"))):
            first, length = seen.index(1), sum(seen)
            if seen[first:first + length] != [1] * length:
                raise SystemExit("preferences: a sequence is not in one piece")
            places = [place for place in range(length) if learnt[first + place]]
            sequences.append({"tokens": tokens[first:first + length], "trained": runs(places)})
        half = len(sequences) // 2
        self.recorded.append([sequence for pair in zip(sequences[:half], sequences[half:]) for sequence in pair])
        result = super()._compute_loss(model, inputs, return_outputs)
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
    model = LlamaForCausalLM.from_pretrained(given.folder, dtype=torch.float32, attn_implementation="eager")
    # Its B is zero, so the reference that trl copies of it is the base.
    model = PeftModel.from_pretrained(model, given.folder / "adapter", is_trainable=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    output = given.folder / "output"
    settings = DPOConfig(
        output_dir=str(output), max_steps=STEPS, per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ACCUMULATE, learning_rate=OPTIMIZER["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=3, adam_beta1=OPTIMIZER["beta1"], adam_beta2=OPTIMIZER["beta2"],
        adam_epsilon=OPTIMIZER["epsilon"], weight_decay=OPTIMIZER["weight_decay"], max_grad_norm=OPTIMIZER["clip"],
        beta=BETA, max_length=96, gradient_checkpointing=False, bf16=False, use_cpu=True,
        logging_steps=1, save_strategy="no", report_to="none", seed=given.seed, disable_tqdm=True)
    rates = Rates()
    data = Dataset.from_list(list(preferences(random.Random(given.seed))))
    trainer = Recorded(model=model, args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[rates])
    trainer.recorded, trainer.losses = [], []
    trainer.train()

    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    if not len(logged) == len(rates.rates) == STEPS or len(trainer.recorded) != STEPS * ACCUMULATE:
        raise SystemExit(f"preferences: {len(logged)} steps, {len(trainer.recorded)} micro-batches were recorded")
    steps = []
    for step, (entry, rate) in enumerate(zip(logged, rates.rates)):
        micro = slice(step * ACCUMULATE, (step + 1) * ACCUMULATE)
        # A micro-batch's loss is a mean over as many pairs as any other's.
        loss = sum(trainer.losses[micro]) / ACCUMULATE
        if abs(loss - entry["loss"]) > 1e-3:
            raise SystemExit(f"preferences: step {step + 1} logs {entry['loss']}, its micro-batches {loss}")
        steps.append({"loss": loss, "gradient_norm": float(entry["grad_norm"]), "rate": rate,
                      "margin": float(entry["rewards/margins"]), "batches": trainer.recorded[micro]})
    trace = {"optimizer": OPTIMIZER, "beta": BETA, "steps": steps}
    lines = json.dumps(trace, separators=(",", ":")).replace('{"loss"', '\n{"loss"')
    (given.folder / "preferences.json").write_text(lines + "\n")
    shutil.rmtree(output, ignore_errors=True)
    print(f"parity: trl's DPO: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f} in {STEPS} steps")


main()
