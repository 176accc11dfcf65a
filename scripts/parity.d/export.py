"""Loads a folder that `moat export` wrote, as transformers and PEFT do, and compares the logits of the last position
with those that Moat served: `served-logits.json` holds {"tokens": [...], "logits": [...]}, and where Moat also
served the base "base_logits"."""

import argparse
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

LIMIT = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="the base's folder; else as adapter_config.json names it")
    arguments = parser.parse_args()
    folder = arguments.folder
    served = json.loads((folder / "served-logits.json").read_text())
    tokens = torch.tensor([served["tokens"]])

    def load(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()

    results = {}
    with torch.no_grad():
        if (folder / "adapter").is_dir():
            named = json.loads((folder / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
            base_folder = arguments.base or (folder / "adapter" / named)
            if not (base_folder / "config.json").is_file():
                sys.exit(f"parity: {base_folder} holds no base; name its folder with --base DIR")
            base = load(base_folder)
            if "base_logits" in served:
                results["base"] = (base(tokens).logits[0, -1], served["base_logits"])
            tuned = PeftModel.from_pretrained(base, folder / "adapter").eval()
            results["base + adapter (PEFT)"] = (tuned(tokens).logits[0, -1], served["logits"])
        if (folder / "model").is_dir():
            results["merged model"] = (load(folder / "model")(tokens).logits[0, -1], served["logits"])
    if not results:
        sys.exit(f"parity: {folder} holds neither adapter/ nor model/")
    worst = 0.0
    for name, (reference, logits) in results.items():
        logits = torch.tensor(logits)
        if logits.shape != reference.shape:
            sys.exit(f"parity: {name} has {reference.numel()} logits, served were {logits.numel()}")
        difference = (reference - logits).abs().max().item()
        worst = max(worst, difference)
        print(f"parity: {name}: largest difference {difference:.2e} over {logits.numel()} logits of position"
              f" {tokens.shape[1]}, spread of the logits {reference.std().item():.2f}")
    # Written so that NaN fails too.
    if not worst <= LIMIT:
        sys.exit(f"parity: {worst:.2e} is above {LIMIT:.0e}")


main()
