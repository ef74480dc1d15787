#!/usr/bin/env python3
"""Writes the table of figures between its two marks in README.md, from `notebooks/figures.toml`.

    readme_table.py            writes
    readme_table.py --check    fails where the table is not what the index says
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import index as ix

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def table(index: ix.Index) -> str:
    lines = ["| figure | paper | what it shows | notebook | command | profile | state |", "|---|---|---|---|---|---|---|"]
    for figure in index.figures:
        link = f"[{figure.notebook}](notebooks/{figure.notebook}.ipynb)"
        row = [f"`{figure.id}`", figure.paper, figure.title, link, f"`{figure.command}`", figure.profile, figure.state]
        lines.append("| " + " | ".join(cell(x) for x in row) + " |")
    return "\n".join(lines)


def place(readme: str, text: str) -> str:
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ix.BadIndex(f"README.md needs the lines {BEGIN} and {END}, each once and in this order")
    return f"{readme[: readme.index(BEGIN)]}{BEGIN}\n\n{text}\n\n{readme[readme.index(END) :]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ix.ROOT)
    args = parser.parse_args()
    path = args.root / "README.md"
    try:
        old = path.read_text(encoding="utf-8")
        new = place(old, table(ix.load(args.root)))
    except (ix.BadIndex, OSError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 1
    if args.check:
        if old != new:
            print("readme: the table of figures is not what figures.toml says; run tools/readme_table.py", file=sys.stderr)
            return 1
        return 0
    if old != new:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".mem2gen-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(new)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
