"""The curation peers on one core: datatrove's quality rules and MinHash with their defaults, and rensa's MinHash.

usage: curate_peer.py FILE.jsonl      prints {"stage", "peer", "mb", "mb_per_s"} a line

Speed is megabytes of UTF-8 by the second of this process's CPU time. Every rule sees every text: a text that one
rule drops is still shown to the others, as Moat does in order to tell all reasons.
"""
import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from rensa import RMinHash

BANDS, ROWS, SHINGLE = 14, 8, 5


def minhash(config=MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)):
    stage = MinhashDedupSignature("/dev/null", config=config)

    def sign(text):
        shingles = stage.get_shingles(text)
        if len(shingles):
            stage.get_signature(shingles)
    return sign


def rensa(text):
    words = text.split()
    sketch = RMinHash(num_perm=BANDS * ROWS, seed=1)
    sketch.update([" ".join(words[at:at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))])
    sketch.digest()


def rule(made):
    return lambda text: made.filter(Document(text=text, id=""))


def main():
    with open(sys.argv[1], encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    megabytes = sum(len(text.encode("utf-8")) for text in texts) / 1e6

    def report(stage, peer, seconds):
        print(json.dumps({"stage": stage, "peer": peer, "mb": round(megabytes, 2),
                          "mb_per_s": round(megabytes / seconds, 4)}), flush=True)

    def seconds(work):
        # The first text loads tokenizers and tables.
        work(texts[0])
        start = time.process_time()
        for text in texts:
            work(text)
        return time.process_time() - start

    whole = 0.0
    for stage, work in [
        ("quality", rule(GopherQualityFilter())),
        ("repetition", rule(GopherRepetitionFilter())),
        ("line", rule(FineWebQualityFilter())),
        ("minhash", minhash()),
    ]:
        spent = seconds(work)
        whole += spent
        report(stage, "datatrove", spent)
    report("minhash", "rensa", seconds(rensa))
    # Our whole also looks for secrets and personal data and makes records, which datatrove's does not.
    report("all", "datatrove, without detectors", whole)


main()
