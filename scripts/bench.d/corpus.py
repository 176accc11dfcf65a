"""Writes the curation benchmark's corpus: texts of this machine's own documentation and Python's own sources.

usage: corpus.py MEGABYTES OUT.jsonl      one {"text": ...} a line, in an order that depends on the files only
"""
import json
import pathlib
import sys
import sysconfig

MIN_BYTES, MAX_BYTES = 200, 400_000
PLAIN = {"", ".txt", ".md", ".rst", ".html", ".py", ".changelog", ".copyright"}

megabytes, out = float(sys.argv[1]), sys.argv[2]
folders = [pathlib.Path("/usr/share/doc"), pathlib.Path(sysconfig.get_path("stdlib"))]


def texts(folder):
    """UTF-8 texts of plain files, links and installed packages left out."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in PLAIN or path.is_symlink() or not path.is_file() or "site-packages" in path.parts:
            continue
        if not MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            yield text


def main():
    seen, sizes = set(), []
    with open(out, "w", encoding="utf-8") as lines:
        # Half from each folder, so that neither prose nor code decides alone.
        for folder in folders:
            wanted, size = megabytes * 1e6 / len(folders), 0
            for text in texts(folder):
                # Licences lie in a hundred packages each; a corpus of copies would measure the wrong thing.
                if hash(text) in seen:
                    continue
                seen.add(hash(text))
                size += len(text.encode("utf-8"))
                lines.write(json.dumps({"text": text}) + "\n")
                if size >= wanted:
                    break
            sizes.append(size)
    if sum(sizes) < megabytes * 1e6 * 0.5:
        sys.exit(f"corpus: only {sum(sizes) / 1e6:.1f} MB of {megabytes} MB found in "
                 f"{' and '.join(map(str, folders))}; install some -doc packages")


main()
