#!/usr/bin/env python3
"""Prints the crates that are linked into the program, with their licences.

Every file of a crate with the name of a licence counts, at any depth, so that the licences of vendored C libraries are
included. A text that several crates share is printed once. A crate without a licence file gets those of the other crates
of its repository. If these have no file either, the crate must be under Apache-2.0, whose text the archive contains, or
under MIT, whose text is printed with the authors of the crate as its holders.
Only the standard library is used.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

NAMES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
# Files with other suffixes are source code.
SUFFIXES = {"", ".md", ".txt", ".mit", ".apache", ".apache2", ".bsd", ".zlib", ".boost", ".bsd-3-clause"}
RULE = "=" * 80
MIT = Path(__file__).resolve().parent.parent / "LICENSE-MIT"


def cargo(*arguments: str) -> str:
    """Standard output of cargo."""
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked() -> list[dict]:
    """Packages that are linked into the program, sorted by name and version."""
    tree = cargo("tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    host = re.search(r"^host: (.*)$", cargo("-vV"), re.MULTILINE)[1]
    known = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", host))["packages"]
    found = [p for p in known if (p["name"], "v" + p["version"]) in wanted and p["source"]]
    return sorted(found, key=lambda p: (p["name"], p["version"]))


def texts(package: dict) -> list[str]:
    """Texts of the licence files of a package, without trailing white space."""
    folder = Path(package["manifest_path"]).parent
    files = [f for f in folder.rglob("*") if NAMES.match(f.name) and f.suffix.lower() in SUFFIXES and f.is_file()]
    read = [f.read_text(encoding="utf-8", errors="replace") for f in sorted(files)]
    return ["\n".join(line.rstrip() for line in text.strip().splitlines()) for text in read]


def home(package: dict) -> str:
    """Address of its repository, in one form for all crates of a repository."""
    return re.sub(r"(\.git)?/*$", "", (package["repository"] or "").split("/tree/")[0])


def main() -> int:
    packages = linked()
    own = {p["id"]: texts(p) for p in packages}
    lines, holders, bare = ["Rust crates inside the program, and their licences.", ""], {}, []
    for package in packages:
        title = f"{package['name']} {package['version']}"
        authors = ", ".join(package["authors"]) or "no authors named"
        lines.append(f"{title}: {package['license'] or package['license_file']}; {authors}; {package['repository']}")
        found = own[package["id"]]
        if not found:
            siblings = [p for p in packages if home(p) and home(p) == home(package)]
            found = list(dict.fromkeys(text for p in siblings for text in own[p["id"]]))
        if not found:
            licence, holder = package["license"] or "", ", ".join(package["authors"]) or f"the authors of {title}"
            if "Apache-2.0" in licence:
                bare.append(title)
            elif "MIT" in licence:
                found = [re.sub(r"(?m)^Copyright.*$", f"Copyright (c) {holder}", MIT.read_text(encoding="utf-8")).strip()]
            else:
                print(f"crate_licences: {title} has no licence text", file=sys.stderr)
                return 1
        for text in found:
            holders.setdefault(text, []).append(title)
    if bare:
        lines += ["", f"Without a text of their own, under Apache-2.0 (mem2gen-APACHE.txt): {', '.join(bare)}"]
    for text, titles in holders.items():
        lines += ["", RULE, ", ".join(dict.fromkeys(titles)), RULE, "", text]
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
