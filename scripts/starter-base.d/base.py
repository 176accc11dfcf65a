"""Makes what a base has besides weights, in Hugging Face's layout: tokenizer, template, configuration.

    base.py CORPUS FOLDER
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 8192
# In this order they take the last ids.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]
# Words with the space before them, contractions, digits one by one, runs of symbols, line ends, runs of spaces.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 768}
# ChatML. A conversation's beginning is rendered as it is rendered within the whole, so that turns can be appended.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def texts(path):
    """The documents themselves, every second one, which is plenty to count pairs in."""
    for number, line in enumerate(path.open()):
        text = json.loads(line).get("text")
        if text and number % 2 == 0 and "<|fim_prefix|>" not in text:
            yield text


def tokenizer_of(path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # Every byte is a token of its own, so that no text is beyond the vocabulary.
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), max_token_length=24)
    tokenizer.train_from_iterator(texts(path), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    if tokenizer.get_vocab_size() != VOCABULARY:
        sys.exit(f"base: the corpus gives {tokenizer.get_vocab_size()} tokens, {VOCABULARY} are needed: it is too small")
    return tokenizer


def write(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main():
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").exists():
        tokenizer_of(corpus / "train.jsonl").save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end, turn_end = (tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>"))
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SIZES, "vocab_size": VOCABULARY,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
        "use_sliding_window": False, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": None, "eos_token_id": end, "pad_token_id": end, "dtype": "bfloat16",
    }
    write(folder / "config.json", config)
    write(folder / "generation_config.json", {"eos_token_id": [turn_end, end], "pad_token_id": end, "max_new_tokens": 256})
    write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config["max_position_embeddings"],
        "bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "add_bos_token": False, "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE,
        "additional_special_tokens": SPECIAL[1:],
    })
    # Every byte must come back.
    draw = random.Random(1)
    probe = "".join(chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xA0, 0x2000), 0x1F600])) for _ in range(2000))
    if tokenizer.decode(tokenizer.encode(probe).ids) != probe:
        sys.exit("base: the tokenizer loses text")
    sample = "".join(text for number, text in zip(range(300), texts(corpus / "train.jsonl")))
    tokens = len(tokenizer.encode(sample).ids)
    print(f"base: {len(sample.encode()) / tokens:.2f} bytes a token", file=sys.stderr)


main()
