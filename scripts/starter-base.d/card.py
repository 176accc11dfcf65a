"""Puts the trained base together: weights and small files, the model card, the list of texts, the loss curve.

    card.py WORK RECIPE OUTPUT
"""

import hashlib
import json
import math
import shutil
import sys
import tomllib
from pathlib import Path

FILES = ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
CARD = """\
# moat-starter

A small language model that Moat's own trainer made from random weights, so that Moat's demo and tests have a base
where no other one can be fetched. **It is for the demo and the tests only.** It writes text that looks like
documentation and code; it knows nothing reliably, follows no instructions, and is no base for work. A site brings
its own base: `moat base import DIR`.

| | |
|---|---|
| architecture | Qwen2: {layers} blocks, hidden {hidden}, {heads} heads, {kv_heads} key heads, MLP {inner}, head tied |
| parameters | {parameters:,}, stored as bfloat16 |
| tokenizer | byte-level BPE of its own, {vocabulary} tokens, digits one by one |
| context | trained on {length} tokens; positions go to {positions} |
| trained on | {tokens:,} tokens in {steps:,} steps, out of a corpus of {corpus:,} ({megabytes:.1f} MB of text), none twice |
| loss | {first:.3f} nats a token in the first step, {last:.3f} over the last tenth |
| held back | {documents} documents, {bytes:,} bytes: **{before:.3f} bits a byte before training, {after:.3f} after** |
| trained with | `recipe.toml`, by `scripts/starter-base`, on 2 cores, in f32 |

Chat: ChatML, with few examples in training. Fill in the middle: `<|fim_prefix|>`…`<|fim_suffix|>`…`<|fim_middle|>`,
{fim} examples in training. Every text ends with `<|endoftext|>`.

`TEXTS.md` lists the texts with their packages, versions and licences; no document about PostgreSQL, which the demo
examines, is among them. `loss-curve.csv` has the loss of every tenth step, as a mean over the ten.

The weights, the tokenizer and these files are under Moat's licence, Apache-2.0. The texts stay their authors', each
under the licence that `TEXTS.md` names, and are not in this folder.

SHA-256 of `model.safetensors`: `{digest}`
"""
TEXTS = """\
# The texts that moat-starter learnt from

Debian 12 packages under permissive licences, as each one's `/usr/share/doc/PACKAGE/copyright` tells them for the files
that were taken. Left out: files that speak of a GNU or Creative Commons ShareAlike licence, whatever names PostgreSQL
more than twice, paragraphs that stood in an earlier document, tests, generated tables, indexes.
`scripts/starter-base.d/texts.py` says which files.

| package | version | licence of what was taken | bytes of text |
|---|---|---|--:|
{rows}
| | | together | {total:,} |

{documents:,} documents to train on and {held_out} held back (one in a hundred, chosen by a hash of its path). Added:
{fim:,} fill-in-the-middle examples cut out of code, {chats:,} questions and answers cut out of reference pages.
"""
LICENCE = """\
moat-starter: weights, tokenizer and the files beside them

Licensed under the Apache License, Version 2.0; the text is in the file LICENSE at the root of Moat's repository.

The texts that the model learnt from are not in this folder. They are their authors', under the licences that TEXTS.md
names; all of them allow use, change and redistribution.
"""


def curve(steps):
    lines = ["step,loss,gradient_norm,learning_rate,tokens"]
    numbers, tokens = sorted(steps), 0
    for start in range(0, len(numbers), 10):
        ten = [steps[number] for number in numbers[start:start + 10]]
        tokens += sum(step["tokens"] for step in ten)
        mean = {key: sum(step[key] for step in ten) / len(ten) for key in ("loss", "gradient_norm")}
        lines.append(f'{ten[-1]["step"]},{mean["loss"]:.5f},{mean["gradient_norm"]:.4f},'
                     f'{ten[-1]["learning_rate"]:.3e},{tokens}')
    return "\n".join(lines) + "\n"


def bits_a_byte(losses, key):
    return sum(loss[key] for loss in losses) / sum(loss["bytes"] for loss in losses) / math.log(2)


def main():
    work, recipe_path, output = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    model = work / "run/model"
    for name in FILES:
        shutil.copyfile(model / name, output / name)
    if recipe_path.resolve() != (output / "recipe.toml").resolve():
        shutil.copyfile(recipe_path, output / "recipe.toml")
    # A step that was done again after a stop stands in the log twice; it is the same step.
    steps = {step["step"]: step for step in map(json.loads, (work / "steps.jsonl").open())}
    (output / "loss-curve.csv").write_text(curve(steps))
    texts = json.loads((work / "corpus/texts.json").read_text())
    counts, packages = texts["counts"], texts["packages"]
    total = sum(package["bytes"] for package in packages)
    rows = "\n".join("| {package} | {version} | {licence} | {bytes:,} |".format(**package) for package in packages)
    (output / "TEXTS.md").write_text(TEXTS.format(
        rows=rows, total=total, documents=counts["documents"], held_out=counts["held_out"],
        fim=counts["fill_in_the_middle"], chats=counts["chats"]))
    (output / "LICENSE").write_text(LICENCE)
    config = json.loads((model / "config.json").read_text())
    outcome = json.loads((work / "outcome.json").read_text())
    measured = json.loads((work / "measured.json").read_text())["held_out"]
    told = json.loads((work / "told.json").read_text())
    started = next(progress for progress in told if progress["what"] == "training")
    packed = next(progress["doing"] for progress in told if progress.get("doing", "").startswith("packing"))
    recipe = tomllib.loads(recipe_path.read_text())
    last = steps[max(steps)]
    seen = sum(step["tokens"] for step in steps.values())
    (output / "README.md").write_text(CARD.format(
        layers=config["num_hidden_layers"], hidden=config["hidden_size"], heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"], inner=config["intermediate_size"], vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"], length=recipe["train"]["sequence_length"],
        corpus=int(packed.split()[1]), parameters=started["parameters"], tokens=seen, steps=last["step"],
        megabytes=total / 1e6,
        first=outcome["first_loss"], last=outcome["last_loss"], documents=len(measured),
        bytes=sum(loss["bytes"] for loss in measured), before=bits_a_byte(measured, "base_nats"),
        after=bits_a_byte(measured, "tuned_nats"), fim=counts["fill_in_the_middle"],
        digest=hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()))


main()
