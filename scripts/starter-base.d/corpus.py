"""Builds the starter base's corpus out of Debian packages: unpacks them, takes out their text, leaves out what
comes twice and whatever is about PostgreSQL, holds one document in a hundred back, and turns a tenth of the code into
fill-in-the-middle examples. The same packages give the same bytes.

    corpus.py PACKAGES OUTPUT     PACKAGES holds NAME_VERSION_ARCH.deb files; OUTPUT gets train.jsonl,
                                  held_out.jsonl ({"text" or "chat", "source"} a line) and texts.json
"""

import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from page import text_of
from texts import TEXTS

FOREIGN = re.compile(r"postgres|psycopg|libpq|pgsql|plpgsql", re.IGNORECASE)
# Licences other than the package's own; a file that speaks of one is left out.
RESTRICTED = re.compile(r"GNU (Lesser |Library |Affero )?General Public|GNU Free Doc|GPL-[123]|CC[- ]BY[- ](SA|ND|NC)", re.I)
SKIPPED = re.compile(
    r"/(genindex|py-modindex|search|searchindex|print|modindex|contents|test|tests|testdata|_modules|_sources|vendor"
    r"|third_party|changelog|__pycache__|core_arch|simd|arch|encodings|lib2to3|unicode|idlelib|pydoc_data|conf/locale"
    r"|zoneinfo|changes|changelog_\d+|toc|sitemap|doc_keyword_crossref|doc_pagelink_crossref|doc_backlink_crossref"
    r"|doc_target_crossref|keyword_index|sysindex|c3ref)(/|\.html|_\d)|_test\.|_gen\.go|zsyscall|zerrors|ztypes|ztables"
    r"|tables\.go|/all\.html|\.min\.js|_data\.py|opGen|rewrite[A-Z0-9]")
# Lines that the documentation tools put on every page.
FURNITURE = re.compile(r"\| Home \| Libraries|Expand description$|\|$|Available Languages:|Copyright ©|(Prev|Next|Note)$")
MIDDLE = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
MARKS = re.compile(r"<\|[a-z_]+\|>")


def read(path):
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    head = data[:2000].lower()
    charset = re.search(rb"charset=[\"']?([a-z0-9_-]+)", head) if path.suffix == ".html" else None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(charset.group(1).decode() if charset else "latin-1", errors="replace")


def clean(text):
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return MARKS.sub("", text).strip()


def documents_of(task):
    """(source, kind, text) of each document in one file."""
    path, source, kind = task
    text = read(path)
    if kind == "html":
        text = "\n".join(line for line in text_of(text).split("\n") if not FURNITURE.match(line)).strip()
    if RESTRICTED.search(text) or FOREIGN.search(source) or len(FOREIGN.findall(text)) > 2:
        return []
    if kind == "jargon":
        entries = re.split(r"\n(?=\S)", text)
        groups = ["\n".join(entries[i:i + 12]) for i in range(0, len(entries), 12)]
        return [(f"{source}#{i}", "prose", clean(re.sub(r"\n   +", " ", group))) for i, group in enumerate(groups)]
    return [(source, kind, clean(text))]


def sound(text, kind):
    """Neither too short nor a table of numbers or symbols."""
    if len(text) < 300:
        return False
    letters = sum(c.isalpha() or c == " " for c in text) / len(text)
    longest = max(map(len, text.split("\n")))
    return letters > (0.55 if kind == "code" else 0.65) and (kind != "code" or longest < 500)


def without_repeats(text, kind, seen):
    """Drops paragraphs that stood word for word in an earlier document; in code only comments."""
    kept = []
    for paragraph in text.split("\n\n"):
        comment = paragraph.lstrip().startswith(("#", "//", "/*", '"""', " *", "*"))
        if len(paragraph) > 120 and (kind != "code" or comment):
            key = hashlib.blake2b(re.sub(r"\W+", " ", paragraph).encode(), digest_size=8).digest()
            if key in seen:
                continue
            seen.add(key)
        kept.append(paragraph)
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(kept)).strip()


def middle_out(text, draw):
    """A window of the code, its middle moved to the end, cut at line ends or anywhere."""
    size = min(len(text), draw.randint(600, 2400))
    start = text.find("\n", draw.randrange(len(text) - size + 1)) + 1
    window = text[start:start + size]
    a, b = sorted(draw.sample(range(len(window)), 2)) if len(window) > 100 else (0, 0)
    b = min(b, a + 600)
    if draw.random() < 0.6:
        a, b = window.rfind("\n", 0, a) + 1, window.find("\n", b) + 1 or b
    prefix, suffix, middle = MIDDLE
    return f"{prefix}{window[:a]}{suffix}{window[b:]}{middle}{window[a:b]}"


def chats_of(source, text):
    """Questions whose answers stand in a reference page: a heading and the paragraph below it."""
    title = re.search(r"^# (.+)$", text, re.M)
    chats = []
    for heading, answer in re.findall(r"^#{2,4} ([^\n]{4,70})\n+((?![#|-])[A-Z][^\n]{80,600}[.:])$", text, re.M):
        heading = re.sub(r"^[\d.]+ *", "", heading).strip(" :")
        if title and heading and not re.search(r"^(Note|Warning|Example|See)", heading):
            chats.append((f"What does the page “{title.group(1)[:60]}” say about “{heading}”?", answer.rstrip(":") + ("." if answer.endswith(":") else "")))
    return [json.dumps([{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                       ensure_ascii=False) for question, answer in chats[:3]]


def main():
    packages, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    seen, told = set(), []
    documents = []
    with ProcessPoolExecutor() as pool:
        for package, licence, selections in TEXTS:
            deb, = packages.glob(f"{package}_*.deb")
            root = output / "unpacked" / deb.stem
            if not root.exists():
                root.parent.mkdir(exist_ok=True)
                subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
            taken = 0
            for pattern, kind, limit in selections:
                # A path's hash, not its name, decides what a limit lets in, so that no letter is preferred.
                paths = sorted((p for p in root.glob(pattern) if p.is_file() and not p.is_symlink()),
                               key=lambda p: hashlib.sha256(str(p.relative_to(root)).encode()).digest())
                tasks = [(p, f"{package}/{p.relative_to(root)}", kind) for p in paths
                         if not SKIPPED.search("/" + str(p.relative_to(root))) and p.stat().st_size < 2_500_000]
                size = 0
                for found in pool.map(documents_of, tasks, chunksize=16):
                    for source, form, text in found:
                        text = without_repeats(text, form, seen)
                        if size < limit and sound(text, form):
                            documents.append((source, form, text))
                            size += len(text.encode())
                taken += size
                print(f"corpus: {package:24} {pattern[-44:]:44} {size / 1e6:6.2f} MB", file=sys.stderr)
            version = deb.name.split("_")[1].replace("%3a", ":")
            told.append({"package": package, "version": version, "licence": licence, "bytes": taken})
    files = {side: (output / f"{side}.jsonl").open("w") for side in ("train", "held_out")}
    counts = {"documents": 0, "fill_in_the_middle": 0, "chats": 0, "held_out": 0}

    def write(side, source, **body):
        files[side].write(json.dumps({"source": source, **body}, ensure_ascii=False) + "\n")

    for source, kind, text in documents:
        draw = random.Random(source)
        if draw.random() < 0.01:
            write("held_out", source, text=text)
            counts["held_out"] += 1
            continue
        # Pages of an hour's reading are cut, so that a shuffled epoch mixes well.
        for start in range(0, len(text), 60_000):
            write("train", source, text=text[start:start + 60_000])
        counts["documents"] += 1
        if kind == "code" and len(text) > 800 and draw.random() < 0.6:
            for _ in range(1 + len(text) // 20_000):
                write("train", source, text=middle_out(text, draw))
                counts["fill_in_the_middle"] += 1
        if kind == "html" and draw.random() < 0.5:
            for chat in chats_of(source, text):
                write("train", source, chat=chat)
                counts["chats"] += 1
    for file in files.values():
        file.close()
    (output / "texts.json").write_text(json.dumps({"packages": told, "counts": counts}, indent=1) + "\n")
    print(f"corpus: {counts}, {sum(p['bytes'] for p in told) / 1e6:.1f} MB", file=sys.stderr)


main()
