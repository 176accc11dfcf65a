"""Makes the curves that the schedules of daemon/train are held against: a list of an [optimizer] section with the keys
that matter, the steps, and the learning rate of each step by transformers' scheduler of that name.

transformers' first step has the rate 0; Moat leaves it out, so step n here is step n + 1 of steps + 1 there, with one
more step of warm-up."""

import itertools
import json
import sys
from pathlib import Path

import torch
from transformers import get_scheduler

RATE = 3e-4
SHAPES = {"linear": "linear", "cosine": "cosine", "one_minus_sqrt": "1-sqrt"}


def curve(recipe, steps, name, warmup, **settings):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=RATE)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup + 1, num_training_steps=steps + 1,
                             scheduler_specific_kwargs=settings or None)
    rates = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return {"recipe": {"learning_rate": RATE, **recipe}, "steps": steps, "rates": rates}


def curves():
    for steps, warmup in itertools.product([1, 20, 37], [0.0, 0.2]):
        count = round(warmup * steps)
        common = {"warmup": warmup, "final_share": 0.0}
        yield curve({**common, "schedule": "constant"}, steps, "constant_with_warmup", count)
        yield curve({**common, "schedule": "linear"}, steps, "linear", count)
        yield curve({**common, "schedule": "cosine"}, steps, "cosine", count)
        yield curve({**common, "final_share": 0.1}, steps, "cosine_with_min_lr", count, min_lr_rate=0.1)
        for own, theirs in SHAPES.items():
            # transformers' warm-up of this one begins at the final share, ours at 0: they agree where it is 0, or
            # where there is no warm-up.
            share = 0.0 if warmup else 0.1
            recipe = {**common, "final_share": share, "schedule": "wsd", "decay": 0.4, "decay_shape": own}
            yield curve(recipe, steps, "warmup_stable_decay", count, num_decay_steps=round(0.4 * steps),
                        decay_type=theirs, min_lr_ratio=share)


Path(sys.argv[1]).write_text(json.dumps(list(curves()), separators=(",", ":")).replace("},{", "},\n{") + "\n")
