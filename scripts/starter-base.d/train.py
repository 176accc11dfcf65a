"""Trains the base by Moat's engine, over the engine's own protocol (daemon/protocol), and measures the result on the
documents that were held back. Goes on from the engine's last checkpoint when it is run again.

    train.py ENGINE BASE CORPUS WORK RECIPE [THREADS]

WORK gets run/ (checkpoints, then model/), steps.jsonl (every step), told.json, outcome.json and measured.json.
"""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import tomllib
from pathlib import Path


class Engine:
    """One engine process and its connection."""

    def __init__(self, program):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process = subprocess.Popen([program, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        self.stream = ours.makefile("rwb")
        hello = self.receive()
        self.send({"version": hello["version"], "program": "moatd"})

    def send(self, message):
        data = json.dumps(message).encode()
        self.stream.write(struct.pack("<I", len(data)) + data)

    def receive(self):
        prefix = self.stream.read(4)
        if len(prefix) < 4:
            sys.exit(f"train: the engine ended with code {self.process.wait()}")
        return json.loads(self.stream.read(struct.unpack("<I", prefix)[0]))

    def job(self, job, examples):
        """Sends a job with its examples, and yields what the engine says until the last message."""

        def speak():
            self.send(job)
            for example in examples:
                self.send({"type": "example", "value": example})
            self.send({"type": "end"})
            self.stream.flush()

        speaker = threading.Thread(target=speak)
        speaker.start()
        while True:
            message = self.receive()
            if message["type"] == "failed":
                # What is still being said finds nobody; the process ends.
                print(f"train: {message['value']['reason']}", file=sys.stderr)
                os._exit(1)
            if message["type"] == "canary":
                continue
            yield message
            if message["type"] not in ("progress", "canary"):
                break
        speaker.join()
        self.stream.close()
        self.process.wait()


def examples(path, split):
    for line in path.open():
        document = json.loads(line)
        chat = "chat" in document
        body = document["chat" if chat else "text"]
        record = hashlib.sha256((document["source"] + "\0" + body).encode()).hexdigest()
        yield {"record": record, "source": document["source"].split("/")[0], "split": split, "chat": chat, "body": body}


def train(program, base, corpus, work, recipe, threads):
    job = {"type": "train", "value": {"run": "moat-starter", "base": str(base), "output": str(work / "run"),
                                      "recipe": recipe, "threads": threads}}
    resumed, told = (work / "run").is_dir(), []
    (work / "run").mkdir(parents=True, exist_ok=True)
    with (work / "steps.jsonl").open("a" if resumed else "w") as log:
        for message in Engine(program).job(job, examples(corpus / "train.jsonl", "train")):
            progress = message["value"] if message["type"] == "progress" else {}
            if progress.get("what") == "step":
                log.write(json.dumps(progress) + "\n")
                log.flush()
                if progress["step"] % 10 == 0 or progress["step"] < 4:
                    print("step {step}/{steps} loss {loss:.4f} norm {gradient_norm:.2f} rate {learning_rate:.2e}"
                          " {tokens_per_second:.0f} tokens/s".format(**progress), flush=True)
            elif progress:
                told.append(progress)
                print(json.dumps(progress), flush=True)
    (work / "told.json").write_text(json.dumps(told, indent=1) + "\n")
    return message["value"]


def measure(program, base, tuned, corpus, threads, length):
    """Bits a byte on what was held back, before training and after."""
    job = {"type": "evaluate", "value": {"run": "moat-starter", "base": str(base), "tuned": str(tuned),
                                         "sequence_length": length, "threads": threads}}
    for message in Engine(program).job(job, examples(corpus / "held_out.jsonl", "held_out")):
        pass
    return message["value"]


def main():
    program, base, corpus, work, recipe_path = map(Path, sys.argv[1:6])
    threads = int(sys.argv[6]) if len(sys.argv) > 6 else 0
    recipe = tomllib.loads(recipe_path.read_text())
    outcome = train(program, base, corpus, work, recipe, threads)
    (work / "outcome.json").write_text(json.dumps(outcome, indent=1) + "\n")
    print(json.dumps(outcome))
    measured = measure(program, base, work / "run/model", corpus, threads, recipe["train"]["sequence_length"])
    (work / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


main()
