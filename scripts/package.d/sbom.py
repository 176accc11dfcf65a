"""The SBOM (CycloneDX 1.5) and the licence texts of what the programs link, from cargo's own metadata.

usage: sbom.py --version V --commit C --time SECONDS --sbom FILE --licences FILE
Run in the workspace's root. Standard library only; the same commit gives the same bytes.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import tomllib
import uuid

PROGRAMS = ("moat", "moatd", "moat-engine")
# Files beside a crate's manifest that hold terms or notices.
TERMS = re.compile(r"^(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


def linked(metadata):
    """Ids of the packages that end up in a program: normal dependencies, from the programs down."""
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package for package in metadata["workspace_members"] if names[package] in PROGRAMS]
    found = {}
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found[package] = sorted(
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        )
        waiting.extend(found[package])
    return found


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    described = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"],
                 "purl": purl(package)}
    if package["license"]:
        # Older crates write MIT/Apache-2.0 for what SPDX calls OR.
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def sbom(found, packages, arguments):
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    time = datetime.datetime.fromtimestamp(arguments.time, datetime.timezone.utc)
    top = {"type": "application", "bom-ref": f"moat@{arguments.version}", "name": "moat", "version": arguments.version,
           "licenses": [{"license": {"id": "Apache-2.0"}}]}
    base = {"type": "machine-learning-model", "bom-ref": "moat-starter", "name": "moat-starter",
            "version": arguments.version, "licenses": [{"license": {"id": "Apache-2.0"}}]}
    system = {"type": "library", "bom-ref": "libsystemd", "name": "libsystemd", "description": "linked dynamically",
              "licenses": [{"license": {"id": "LGPL-2.1-or-later"}}]}
    programs = [purl(packages[package]) for package in found if packages[package]["name"] in PROGRAMS]
    edges = [{"ref": purl(packages[package]), "dependsOn": sorted(purl(packages[other]) for other in others)}
             for package, others in found.items()]
    edges.append({"ref": top["bom-ref"], "dependsOn": sorted([*programs, "moat-starter", "libsystemd"])})
    components = [component(packages[package], checksums) for package in found] + [base, system]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # Named by the commit, so that the same commit gives the same number.
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, f"moat {arguments.commit}").urn,
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": top},
        "components": sorted(components, key=lambda entry: entry["bom-ref"]),
        "dependencies": sorted(edges, key=lambda entry: entry["ref"]),
    }


def licences(found, packages):
    """Each text once, above it the crates that it comes with."""
    texts, silent = {}, []
    for package in (packages[package] for package in found):
        if package["source"] is None:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        named = f"{package['name']} {package['version']} ({package['license']})"
        terms = [file for file in sorted(folder.iterdir()) if file.is_file() and TERMS.match(file.name)]
        for file in terms:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(named)
        if not terms:
            silent.append(named)
    rule = "=" * 100
    parts = [f"{rule}\n" + "\n".join(sorted(set(names))) + f"\n{rule}\n\n{text}\n" for text, names in texts.items()]
    # Crates that come without a text of their own are under one of the texts above.
    if silent:
        parts.append(f"{rule}\nwithout a text of their own, under the licence named\n{rule}\n\n" + "\n".join(sorted(silent)) + "\n")
    return "\n".join(sorted(parts))


def main():
    parser = argparse.ArgumentParser()
    for name in ("version", "commit", "sbom", "licences"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--time", required=True, type=int)
    arguments = parser.parse_args()
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    host = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout
    command += ["--filter-platform", re.search(r"^host: (.*)$", host, re.MULTILINE).group(1)]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    found = linked(metadata)
    with open(arguments.sbom, "w") as file:
        json.dump(sbom(found, packages, arguments), file, indent=1, sort_keys=True)
        file.write("\n")
    pathlib.Path(arguments.licences).write_text(licences(found, packages))


main()
