#!/usr/bin/env python3
"""Writes the table of figures in docs/figures.md, between two marks, from `notebooks/figures.toml`.

    figures_table.py            writes the table
    figures_table.py --check    fails when the table does not match the index
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
    lines = ["| figure | paper | what it shows | data | notebook | command | profile | state |", "|---|---|---|---|---|---|---|---|"]
    for figure in index.figures:
        link = f"[{figure.notebook}](../notebooks/{figure.notebook}.ipynb)"
        row = [f"`{figure.id}`", figure.paper, figure.title, figure.data, link, f"`{figure.command}`", figure.profile, figure.state]
        lines.append("| " + " | ".join(cell(x) for x in row) + " |")
    return "\n".join(lines)


def place(page: str, text: str) -> str:
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ix.BadIndex(f"docs/figures.md needs the lines {BEGIN} and {END}, each once and in this order")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n\n{text}\n\n{page[page.index(END) :]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ix.ROOT)
    args = parser.parse_args()
    path = args.root / "docs" / "figures.md"
    try:
        old = path.read_text(encoding="utf-8")
        new = place(old, table(ix.load(args.root)))
    except (ix.BadIndex, OSError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    if args.check:
        if old != new:
            print("figures: the table in docs/figures.md does not match figures.toml; run tools/figures_table.py", file=sys.stderr)
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
