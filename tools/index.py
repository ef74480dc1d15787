"""Reads and checks `notebooks/figures.toml`, the index of notebooks and figures."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("smoke", "desk", "paper")
STATES = ("planned", "drawn", "agrees", "differs")

NOTEBOOK_KEYS = {"name", "title", "summary", "limit_seconds", "tables"}
FIGURE_KEYS = {"id", "notebook", "paper", "title", "data", "command", "profile", "state"}


class BadIndex(Exception):
    """The index, or a file that it names, is wrong."""


@dataclass(frozen=True)
class Notebook:
    name: str
    title: str
    summary: str
    limit_seconds: dict[str, float]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    id: str
    notebook: str
    paper: str
    title: str
    data: str
    command: str
    profile: str
    state: str

    def drawn_in(self, profile: str) -> bool:
        """Whether a run in `profile` must draw this figure."""
        return self.state != "planned" and PROFILES.index(self.profile) <= PROFILES.index(profile)


@dataclass(frozen=True)
class Index:
    root: Path
    notebooks: tuple[Notebook, ...]
    figures: tuple[Figure, ...]

    def path(self, notebook: Notebook) -> Path:
        return self.root / "notebooks" / f"{notebook.name}.ipynb"

    def output(self, profile: str) -> Path:
        return self.root / "out" / profile

    def figures_of(self, notebook: Notebook) -> list[Figure]:
        return [f for f in self.figures if f.notebook == notebook.name]

    def table(self, name: str) -> Path:
        return self.root / "data" / "results" / f"{name}.parquet"


def _entries(raw: dict, kind: str, keys: set[str]) -> list[dict]:
    entries = raw.get(kind, [])
    for entry in entries:
        name = entry.get("name", entry.get("id", "?"))
        if missing := keys - entry.keys():
            raise BadIndex(f"figures.toml: {kind} {name} lacks {', '.join(sorted(missing))}")
        if unknown := entry.keys() - keys:
            raise BadIndex(f"figures.toml: {kind} {name} has the unknown keys {', '.join(sorted(unknown))}")
    return entries


def load(root: Path = ROOT) -> Index:
    """The index of the project at `root`, checked."""
    file = root / "notebooks" / "figures.toml"
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadIndex(f"{file}: {error}") from error
    if unknown := raw.keys() - {"notebook", "figure"}:
        raise BadIndex(f"figures.toml: unknown tables {', '.join(sorted(unknown))}, expected notebook and figure")
    notebooks = tuple(
        Notebook(
            name=e["name"],
            title=e["title"],
            summary=e["summary"],
            limit_seconds=dict(e["limit_seconds"]),
            tables=tuple(e["tables"]),
        )
        for e in _entries(raw, "notebook", NOTEBOOK_KEYS)
    )
    figures = tuple(Figure(**e) for e in _entries(raw, "figure", FIGURE_KEYS))
    if not notebooks:
        raise BadIndex("figures.toml lists no notebook")
    names = [n.name for n in notebooks]
    ids = [f.id for f in figures]
    for what, seen in (("notebook", names), ("figure", ids)):
        if twice := {x for x in seen if seen.count(x) > 1}:
            raise BadIndex(f"figures.toml: {what} {', '.join(sorted(twice))} is listed twice")
    for n in notebooks:
        if set(n.limit_seconds) != set(PROFILES) or not all(s > 0 for s in n.limit_seconds.values()):
            raise BadIndex(f"figures.toml: notebook {n.name}: limit_seconds needs a value above 0 for {', '.join(PROFILES)}")
    for f in figures:
        if f.notebook not in names:
            raise BadIndex(f"figures.toml: figure {f.id} names the notebook {f.notebook}, which is not listed")
        if f.profile not in PROFILES:
            raise BadIndex(f"figures.toml: figure {f.id}: profile {f.profile} is unknown, expected {', '.join(PROFILES)}")
        if f.state not in STATES:
            raise BadIndex(f"figures.toml: figure {f.id}: state {f.state} is unknown, expected {', '.join(STATES)}")
    return Index(root=root, notebooks=notebooks, figures=figures)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cells_sha256(cells: list) -> str:
    """A hash of the sources of the cells, without outputs and metadata."""
    said = [[c["cell_type"], "".join(c["source"])] for c in cells]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def tables_sha256(index: Index, notebook: Notebook) -> dict[str, str]:
    """SHA-256 of each committed table that the notebook reads."""
    hashes = {}
    for name in notebook.tables:
        path = index.table(name)
        if not path.is_file():
            raise BadIndex(f"notebook {notebook.name}: the table {path.relative_to(index.root)} is missing")
        hashes[name] = file_sha256(path)
    return hashes
