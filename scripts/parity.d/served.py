"""Loads a folder that `moat export` wrote, as transformers and PEFT do, and compares what they make of Moat's answers
with what Moat served: FILE holds {"prompt": ..., "answers": [...]}, the answers as `moat --json ask` gives them, each
token with its log-probability. So every step of the decoding is compared, not only its result."""

import argparse
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

LIMIT = 1e-3
# A merged model that is stored as bfloat16 has lost what does not fit in 8 bits of each weight.
ROUNDED = 0.1


def stored_rounded(folder):
    with safe_open(next(folder.glob("*.safetensors")), "pt") as weights:
        return any(weights.get_slice(name).get_dtype() == "BF16" for name in weights.keys())


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def worst(model, prompt, answer):
    """The largest difference of a token's log-probability, and whether transformers would have drawn the same."""
    drawn = [token["token"] for token in answer["tokens"]]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + drawn])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.double().log_softmax(-1)
    theirs = logprobs[range(len(drawn)), drawn]
    ours = torch.tensor([token["logprob"] for token in answer["tokens"]], dtype=torch.float64)
    return (theirs - ours).abs().max().item(), logits.argmax(-1).tolist() == drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("served", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="the base's folder")
    arguments = parser.parse_args()
    served = json.loads(arguments.served.read_text())
    answers = {answer["model"]: answer for answer in served["answers"]}
    tokenizer = Tokenizer.from_file(str(arguments.folder / "model/tokenizer.json"))
    prompt = tokenizer.encode(served["prompt"], add_special_tokens=False).ids
    base = load(arguments.base)
    results = [("base", *worst(base, prompt, answers["base"]), LIMIT)]
    adapter = PeftModel.from_pretrained(base, arguments.folder / "adapter").eval()
    results.append(("base + adapter (PEFT)", *worst(adapter, prompt, answers["tuned"]), LIMIT))
    merged = arguments.folder / "model"
    limit = ROUNDED if stored_rounded(merged) else LIMIT
    results.append(("merged model", *worst(load(merged), prompt, answers["tuned"]), limit))
    faults = []
    for name, difference, same, limit in results:
        print(f"parity: {name}: largest difference of a log-probability {difference:.1e} (at most {limit:.0e}), "
              f"{'the same' if same else 'other'} greedy tokens")
        # Written so that NaN fails too. A rounded model may draw another token where two are close.
        if not difference <= limit or (not same and limit == LIMIT):
            faults.append(name)
    if faults:
        sys.exit(f"parity: {', '.join(faults)}: not what Moat served")


main()
