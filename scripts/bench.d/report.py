"""Joins what Moat and its peers measured, and prints it as a table or as one JSON object a line.

usage: report.py [--json] CONDITIONS FILE.jsonl...

The lines are {"side": "ours" or a peer's name, "run": what was run, and measurements}; several lines of one side and
run are rounds, of which the median counts. ratio is ours divided by the peer's: of a speed more is better, of MiB less.
"""
import collections
import json
import statistics
import sys

UNITS = {"mb_per_s": "MB/s of one core", "gb_per_s": "GB/s of one core", "tokens_per_s": "tokens/s", "peak_mib": "MiB"}

NAMES = {"quality": "Gopher quality rules", "repetition": "Gopher repetition rules", "line": "FineWeb line rules",
         "minhash": "MinHash 14x8", "all": "all of curation"}


def rounds(files):
    measured = collections.defaultdict(list)
    for name in files:
        with open(name, encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                found = json.loads(line)
                for key in filter(found.__contains__, UNITS):
                    measured[found["run"], key, found["side"]].append(found[key])
    return {key: statistics.median(values) for key, values in measured.items()}


def courses(files):
    """Where the time of a step went, as our side told it; the last round's word."""
    found = {}
    for name in files:
        with open(name, encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                told = json.loads(line)
                if "course" in told:
                    found[told["run"]] = told["course"]
    return found


def rows(measured, conditions):
    for (run, key, side), ours in measured.items():
        if side != "ours":
            continue
        for (peer_run, peer_key, peer), theirs in measured.items():
            if (peer_run, peer_key) == (run, key) and peer != "ours":
                yield {"name": NAMES.get(run, run), "ours": ours, "peer": theirs, "ratio": round(ours / theirs, 3),
                       "unit": UNITS[key], "conditions": f"beside {peer}; {conditions}"}


def main():
    as_json = sys.argv[1] == "--json"
    conditions, *files = sys.argv[1 + as_json:]
    found = list(rows(rounds(files), conditions))
    if not found:
        sys.exit("bench: nothing was measured on both sides")
    if as_json:
        for row in found:
            print(json.dumps(row))
        for run, course in courses(files).items():
            print(json.dumps({"name": run, **course}))
        return
    print(f"{'what':<34}{'ours':>10}{'peer':>10}{'ratio':>9}  unit, peer")
    for row in found:
        beside = row["conditions"].split(";")[0].removeprefix("beside ")
        print(f"{row['name']:<34}{row['ours']:>10.4g}{row['peer']:>10.4g}{row['ratio']:>8.2f}x  {row['unit']}, {beside}")
    for run, course in courses(files).items():
        parts = ", ".join(f"{name} {share:.0%}" for name, share in course["shares"] if share >= 0.005)
        print(f"{run}: {course['share_of_gemm']:.0%} of the {course['gemm_gflop_per_s']:.0f} GFLOP/s that products alone reach; "
              f"time: {parts}")
    print(f"({conditions})")


main()
