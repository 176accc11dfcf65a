"""What both traces of trl are made with."""

from pathlib import Path

TOKENIZER = Path(__file__).parents[2] / "daemon/template/tests/fixtures/tiny/tokenizer.json"
# The tiny base's own, with marks around what the model writes.
TEMPLATE = (
    "{% for message in messages %}{{ '<|turn|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|done|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ message.content + '<|done|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}")
WORDS = "the night valve opens before shift and closes after check pump gate seal three four".split()
# As in fixtures.py: with a smaller epsilon AdamW magnifies rounding.
OPTIMIZER = {"learning_rate": 3e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-5, "weight_decay": 0.01, "clip": 1.0}


def runs(places):
    """[[first, length], …] of neighbouring places."""
    found = []
    for place in places:
        if found and sum(found[-1]) == place:
            found[-1][1] += 1
        else:
            found.append([place, 1])
    return found
