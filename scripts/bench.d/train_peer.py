"""The training peer: LoRA on a random Llama with transformers and PEFT, in PyTorch on this machine's CPU.

usage: train_peer.py [--recompute] [--threads N] [--batch B] [--seq T] [--steps N]
prints {"tokens_per_s", "peak_mib", "loss"}

The model and the batch are those of Moat's own example: Llama of hidden size 512, 8 layers, 8 heads, 4 key-value
heads, MLP 1408, vocabulary 8192, f32; rank 16 on all linears; AdamW. tokens_per_s is the median of the steps after
the first two.
"""
import argparse
import json
import resource
import statistics
import time

import peft
import torch
import transformers


def arguments():
    parser = argparse.ArgumentParser(description="LoRA steps of transformers and PEFT on the CPU")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    return parser.parse_args()


def model(recompute):
    shape = transformers.LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=8192, max_position_embeddings=2048, tie_word_embeddings=False, attn_implementation="sdpa")
    lora = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    made = peft.get_peft_model(transformers.LlamaForCausalLM(shape), lora)
    if recompute:
        made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        made.enable_input_require_grads()
    return made.train()


def main():
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    trained = model(given.recompute)
    adamw = torch.optim.AdamW((weight for weight in trained.parameters() if weight.requires_grad), lr=1e-4)
    tokens = torch.randint(0, 8192, (given.batch, given.seq))
    seconds = []
    for _ in range(given.steps):
        start = time.perf_counter()
        loss = trained(input_ids=tokens, labels=tokens).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "tokens_per_s": round(given.batch * given.seq / statistics.median(seconds[2:]), 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "loss": round(loss.item(), 5)}))


main()
