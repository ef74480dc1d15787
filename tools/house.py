#!/usr/bin/env python3
"""Finds what a notebook depends on and which modules import which, from the Rust source of the crate.

    house.py --check        fails when a module imports from a module that is not on a lower floor
    house.py --of NOTEBOOK  lists the code and the files that a notebook depends on; NOTEBOOK is the path of a .ipynb

A notebook depends on the items that its cells name, on the items that those name, and so on. A method counts when its
type counts and some of this code contains the method's name. An `impl` of a trait counts when its type and its trait
count. The hash of an item covers its tokens, without the paths before the names of other items. So a comment, a test,
other formatting or a moved item makes no notebook stale, and a changed number does.

The reader does not see which traits of other crates are imported, or the names that their globs import: only the versions
of these crates count. Of the files that are read at run time only plans and settings of training count; a notebook records
hashes of its tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kernelspec import PRELUDE
from rust import OPEN, ROOTS, BadSource, External, Found, Item, Module, Source, Target, Tokens
from rust import head_at, parts_of, tokenise, uses_in, without_choices, without_tests

ROOT = Path(__file__).resolve().parent.parent

# The floors of the house, lowest first. A module imports from lower floors, from itself and from the others on its
# floor. `study::*` stands for every part of `study` that no floor names; these do not import one another.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("store", "random", "progress", "project", "setting", "shape", "class", "metric", "device", "display"),
    ("frame",),
    ("plot",),
    ("data",),
    ("ops",),
    ("process",),
    ("memory",),
    ("net",),
    ("distance",),
    ("score",),
    ("sample",),
    ("train",),
    ("detect",),
    ("study::context", "study::error", "study::lapack"),
    ("study::sweep",),
    ("study::subject",),
    ("study::curvature",),
    ("study::*",),
    ("study::claims",),
    ("study",),
    ("notebook",),
    ("cli",),
)
# These may import any module, as the root of the crate may. No module imports the prelude or an item of the root.
EXEMPT = ("error", "prelude")
# The lowest floor that may import `crate::Error`.
SEES_ERROR = "study::context"

# Committed notebooks come from one profile and read the plans and the settings of training that it names.
PROFILE = "data/profiles/desk.toml"
OTHER_PROFILES = ("data/profiles/smoke.toml", "data/profiles/paper.toml")
PLANS = ("data/plans", "data/training")
# Methods that the kernel calls, without a call in any code.
CALLED = {"evcxr_display"}

# Number of digits of the hash of each part that a notebook keeps, and of changed parts that a message names.
SHORT = 6
NAMED = 8

CAPTURE = re.compile(r"\{([^\W\d]\w*)")
WORD_PATH = re.compile(r"[^\W\d]\w*(?:::[^\W\d]\w*)*")
C_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*(?s:.*?)\*/')


class Part(NamedTuple):
    """One thing that a notebook depends on."""

    label: str
    place: str
    digest: str


@dataclass
class Facts:
    """The contents of one item. A piece is a text, or the item that a path names."""

    pieces: list[str | Item] = field(default_factory=list)
    uses: set[Item] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)
    plans: set[str] = field(default_factory=set)
    # Its imports: position, path and targets.
    imports: list[tuple[int, tuple[str, ...], list[Target]]] = field(default_factory=list)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class House(Source):
    """The source and the dependencies in it."""

    def __init__(self, root: Path, read: Callable[[Path], bytes] = Path.read_bytes):
        super().__init__(root, read)
        self.known: dict[Item, Facts] = {}
        self.digests: dict[Item | Path, str] = {}
        self.built_from: list[Part] = []
        self.conditions: dict[int, tuple[set[Item], set[Item]]] = {}
        self.in_scope: dict[Module, list[tuple[Item, set[str]]]] = {}
        # An unresolved import would hide dependencies, so all imports are resolved first.
        modules = list(self.library.all())
        for module in modules:
            list(self.imports_of(module))
        items = [item for module in modules for item in module.items]
        self.conditional = [item for item in items if item.head or item.nested or item.kind == "call"]

    # Contents of one item.

    def facts(self, item: Item) -> Facts:
        if item not in self.known:
            self.known[item] = facts = Facts(pieces=list(item.module.conditions))
            module, imports = item.module, [use for _, _, uses in uses_in(item.tokens) for use in uses]
            if imports:
                module = Module(module.path, module.file, module.folder, module.parent, imports=imports, around=module)
            try:
                self.scan(item, item.tokens, module, facts, {item})
            except BadSource as error:
                raise BadSource(f"{self.shown(item.module.file)}: {item.kind} {item.name}: {error}") from error
            facts.uses |= {trait for trait, methods in self.traits(module) if methods & facts.words}
        return self.known[item]

    def traits(self, module: Module) -> list[tuple[Item, set[str]]]:
        """The traits in scope, with the names of their members."""
        if module not in self.in_scope:
            traits = dict.fromkeys(self.traits_of(module))
            self.in_scope[module] = [(trait, members_of(trait)) for trait in traits]
        return self.in_scope[module]

    def scan(self, item: Item, tokens: Tokens, module: Module, facts: Facts, expanded: set[Item]) -> None:
        """Reads the tokens of an item, or of a macro that it calls; names are resolved in the item's module."""
        own, mates = tokens is item.tokens, tokens.mates()
        imports = {start: (end, uses) for start, end, uses in uses_in(tokens)}
        attribute = call = i = 0
        while i < len(tokens):
            kind, text, at = tokens[i]
            pieces: list[str | Item] = [text]
            path = tokens.path(i)
            after = i + max(2 * len(path) - 1, 1)
            if len(path) == 1 and text[0].islower() and tokens.text(after) == ":" and i >= call:
                # The name of a field or of a parameter.
                path = ()
            if i in imports:
                end, uses = imports[i]
                for use in uses:
                    facts.words |= set(use.path)
                    self.take(module, use.path, use.at, facts, own, everything=False, names=True)
                pieces, after = [], end + 1
            elif text == "#" and tokens.text(i + 1) == "[":
                attribute = mates[i + 1]
            elif kind == "str":
                content = text.strip('"')
                facts.plans |= {content} & set(PLANS)
                for said in (WORD_PATH if i < attribute else CAPTURE).findall(text):
                    facts.words |= set(said.split("::"))
                    self.take(module, tuple(said.split("::")), at, facts, False, everything=said == content)
            elif path:
                facts.words |= set(path)
                open_path = i < call or (tokens.text(after) == "::" and tokens.text(after + 1) == "$")
                targets = self.take(
                    module, path, at, facts, own, everything=open_path, names=path[0] in (*ROOTS, self.name)
                )
                if tokens.text(after) == "!" and tokens.text(after + 1) in OPEN:
                    macros = [t.item for t in targets if isinstance(t, Found) and t.item.kind == "macro"]
                    macros = macros or ([] if targets else self.macros.get(path[-1], []))
                    facts.uses |= set(macros)
                    facts.imports += [(at, path, [Found(macro)]) for macro in macros if own]
                    for macro in macros:
                        if macro not in expanded:
                            expanded.add(macro)
                            self.scan(item, macro.tokens, module, facts, expanded)
                    call = max(call, mates[after + 1]) if macros else call
                    if path[-1] in ("include_str", "include_bytes", "include") and not macros:
                        self.include(item, path[-1], tokens.part(after + 2, mates[after + 1]), facts)
                pieces = self.meant(path, targets, tokens, i, after)
                if pieces and tokens.text(i - 1) == "$" and isinstance(pieces[0], Item) and own:
                    facts.pieces.pop()
            elif kind == "word":
                facts.words.add(text)
            if own:
                facts.pieces += pieces
            i = after

    def take(
        self,
        module: Module,
        path: tuple[str, ...],
        at: int,
        facts: Facts,
        strict: bool,
        everything: bool,
        names: bool = False,
    ) -> list[Target]:
        """What a path is. Of a module all names are taken where it is not known which one is meant."""
        targets = self.resolve(module, path)
        if strict and not targets and any(isinstance(t, Module) for t in self.resolve(module, path[:1])):
            raise BadSource(f"{'::'.join(path)} is not found")
        for target in targets:
            if isinstance(target, Found):
                facts.uses.add(target.item)
            elif isinstance(target, Module) and everything:
                for inner in target.all():
                    brought = [t for use in inner.imports for t in self.resolve(inner, use.path)]
                    facts.uses |= {*inner.items, *(t.item for t in brought if isinstance(t, Found))}
        if strict and names:
            facts.imports.append((at, path, targets))
        return targets

    def include(self, item: Item, name: str, said: Tokens, facts: Facts) -> None:
        if name == "include" or len(said) != 1 or said.kind(0) != "str":
            raise BadSource(f"{name}! with {' '.join(t.text for t in said)} can't be followed")
        facts.files.add(Path(os.path.normpath(item.module.file.parent / said.text(0).strip('"'))))

    def meant(
        self, path: tuple[str, ...], targets: list[Target], tokens: Tokens, i: int, after: int
    ) -> list[str | Item]:
        """The pieces of a path for the hash: the item and the rest of the path, or the whole path into another crate."""
        for target in targets:
            if isinstance(target, Found) and target.item.kind != "call":
                return [target.item, *(piece for step in target.rest for piece in ("::", step))]
        for target in targets:
            # A single word in small letters may be a variable.
            if isinstance(target, External) and (
                len(path) > 1 or path[0][0].isupper() or tokens.text(after) in ("!", "(")
            ):
                return ["::".join(target.path)]
        return [t.text for t in tokens[i:after]]

    # Dependencies.

    def condition(self, module: Module, head: Tokens) -> tuple[set[Item], set[Item]]:
        """The items of the type and of the trait of an `impl`: one of each set must be reached, if the set has any."""
        if id(head) not in self.conditions:
            generics, trait, kind = parts_of(head)
            own = {t.text for i, t in enumerate(generics) if generics.text(i - 1) in ("<", ",", "const")}
            self.conditions[id(head)] = (self.items_in(module, kind, own), self.items_in(module, trait, own))
        return self.conditions[id(head)]

    def items_in(self, module: Module, tokens: Tokens, own: set[str]) -> set[Item]:
        """The items that tokens name: those of the first path if it has any, else those of all paths. Generic parameters
        do not count."""
        every: set[Item] = set()
        first = True
        for i in range(len(tokens)):
            if (path := tokens.path(i)) and path[0] not in own:
                named = {t.item for t in self.resolve(module, path) if isinstance(t, Found)}
                for alias in [item for item in named if item.kind == "type"]:
                    named |= self.facts(alias).uses
                if first and named:
                    return named
                first, every = False, every | named
        return every

    def holds(self, item: Item, reached: set[Item], words: set[str]) -> bool:
        """Whether an item that no code names is reached through its type and its trait."""

        def met(head: Tokens) -> bool:
            return all(not needed or needed & reached for needed in self.condition(item.module, head))

        if item.kind == "call":
            # Items that the macro makes are found by name. If it makes an `impl`, every item that it may be for counts.
            macros = self.macros.get(item.name, [])
            bodies = [m.tokens for m in macros] or [item.tokens]
            heads = [head_at(b, b.mates(), i) for b in bodies for i, t in enumerate(b) if t.text == "impl"]
            about = self.facts(item).uses.union(*(self.items_in(item.module, head, set()) for head in heads))
            return bool(heads or not macros) and not reached.isdisjoint(about - set(macros))
        nested = (head for head in item.nested if any(self.condition(item.module, head)))
        own = item.head is not None and (not item.member or item.member in words) and met(item.head)
        return own or any(met(head) for head in nested)

    def reach(self, cells: Iterable[str]) -> set[Item]:
        """All items that cells depend on."""
        tokens = without_choices(without_tests(tokenise(";\n".join([PRELUDE, *cells]))))
        start = Item("cells", "of a notebook", Module((), self.root / "notebook", self.root, None), tokens)
        reached, left, words = {start}, [start], set(CALLED)
        while left:
            while left:
                facts = self.facts(left.pop())
                words |= facts.words
                left += facts.uses - reached
                reached |= facts.uses
            left = [item for item in self.conditional if item not in reached and self.holds(item, reached, words)]
            reached |= set(left)
        return reached - {start}

    # Hashes.

    def parts(self, cells: Iterable[str]) -> list[Part]:
        """All that cells depend on, sorted: items, files and packages."""
        reached = self.reach(cells)
        by_name: dict[str, list[Item]] = defaultdict(list)
        for item in reached:
            if not item.head and item.kind != "call":
                by_name[item.name].append(item)
        # Tags distinguish items of the same name; items with the same contents share a tag.
        tags: dict[Item, str] = {}
        for name, items in by_name.items():
            said = sorted({self.digest(item) for item in items})
            tags |= {item: f"{name}#{said.index(self.digest(item))}" for item in items if len(said) > 1}
        parts = [Part(f"{i.kind} {i.name}", self.shown(i.module.file), self.digest(i, tags)) for i in reached]
        facts = [self.facts(item) for item in reached]
        files = {file for f in facts for file in f.files} - {self.root / other for other in OTHER_PROFILES}
        for folder in set().union(*(f.plans for f in facts)):
            named = set(json.dumps(self.toml(self.root / PROFILE)).split('"'))
            files |= {file for file in (self.root / folder).glob("*.toml") if file.stem in named}
        parts += [Part(f"file {file.name}", self.shown(file), self.digest_of_file(file)) for file in files]
        self.built_from = self.built_from or list(self.packages())
        return sorted([*parts, *self.built_from], key=lambda part: (part.place, part.label, part.digest))

    def changes(self, cells: Iterable[str], record: dict[str, str]) -> str:
        """The changes since `record` was made; empty without changes."""
        parts = self.parts(cells)
        if record == record_of(parts):
            return ""
        kept, new = Counter(record.get("parts", "").split()), []
        for part in parts:
            if kept[part.digest[:SHORT]] > 0:
                kept[part.digest[:SHORT]] -= 1
            else:
                new.append(f"{part.label} ({part.place})")
        if not kept.total() and not new:
            return "code or data that it depends on has changed"
        if not new:
            return f"code or data that it depends on is gone: {kept.total()} parts"
        more = f" and {len(new) - NAMED} more" if len(new) > NAMED else ""
        return f"code or data that it depends on has changed: {', '.join(new[:NAMED])}{more}"

    def digest(self, item: Item, tags: dict[Item, str] | None = None) -> str:
        """A hash of the contents of an item, with tags instead of the names of items that have one."""
        pieces = self.facts(item).pieces
        if tags and not tags.keys().isdisjoint(pieces):
            return sha256("\0".join(p if isinstance(p, str) else tags.get(p, p.name) for p in pieces))
        if item not in self.digests:
            self.digests[item] = sha256("\0".join(p if isinstance(p, str) else p.name for p in pieces))
        return self.digests[item]

    def digest_of_file(self, path: Path) -> str:
        if path not in self.digests:
            self.digests[path] = self.hash_of_file(path)
        return self.digests[path]

    def hash_of_file(self, path: Path) -> str:
        """A hash of the contents of a file, without comments when the format is known."""
        if path.suffix == ".toml":
            return sha256(json.dumps(self.toml(path), sort_keys=True, default=str))
        data = self.bytes_of(path)
        if path.suffix in (".cu", ".cuh", ".h", ".ptx"):
            return sha256(" ".join(C_COMMENT.sub(lambda m: m[1] or " ", data.decode()).split()))
        return hashlib.sha256(data).hexdigest()

    def packages(self) -> Iterator[Part]:
        """The requested features, and each package of Cargo.lock that the library is built from."""
        asked = {k: self.manifest.get(k, {}) for k in ("dependencies", "target", "features")}
        yield Part("dependencies", "Cargo.toml", sha256(json.dumps(asked, sort_keys=True)))
        packages = self.toml(self.root / "Cargo.lock").get("package", [])
        named = {" ".join(said): p for p in packages for said in ((p["name"],), (p["name"], p["version"]))}
        own = named.get(self.manifest["package"]["name"])
        if own is None:
            raise BadSource("Cargo.lock does not have the package of Cargo.toml")
        wanted, taken = set(self.dependencies.values()), {}
        left = [d for d in own.get("dependencies", []) if d.split()[0] in wanted]
        while left:
            package = named[" ".join(left.pop().split()[:2])]
            key = (package["name"], package["version"], package.get("source", ""))
            if key not in taken:
                taken[key] = Part(
                    f"package {package['name']}", "Cargo.lock", sha256(repr((*key, package.get("checksum"))))
                )
                left += package.get("dependencies", [])
        yield from taken.values()

    # Floors.

    def floors(self) -> list[str]:
        """All imports that the floors forbid, and all modules without a floor."""
        # Benchmarks have no floor: nothing imports them.
        paths = [b["path"] for b in self.manifest.get("bin", []) if "path" in b]
        programs = [self.root / path for path in paths if not path.startswith("benches/")]
        main = self.root / "src/main.rs"
        programs += [main] if main not in programs and self.exists(main) else []
        wrong = set()
        for crate in [self.library, *map(self.crate, programs)]:
            for module in crate.all():
                unit = unit_of(module)
                if module.parent and unit != unit_of(module.parent) and unit not in EXEMPT and floor_of(unit) is None:
                    wrong.add(f"{self.place(module.parent.file, module.at)}: {unit} is on no floor")
                if unit == "" or unit in EXEMPT:
                    continue
                imports = [(use.at, use.path, targets) for use, targets in self.imports_of(module)]
                for at, path, targets in [*imports, *(i for item in module.items for i in self.facts(item).imports)]:
                    for why in sorted({w for t in self.units(module, path, targets) if (w := refusal(unit, t))}):
                        wrong.add(f"{self.place(module.file, at)}: {unit} imports {'::'.join(path)}: {why}")
        return sorted(wrong, key=lambda line: [int(s) if s.isdigit() else s for s in line.split(":", 2)])

    def units(self, module: Module, path: tuple[str, ...], targets: list[Target]) -> set[str]:
        """The modules that an import names, and those that define the imported items."""
        named = next(
            (t for n in range(len(path), 0, -1) for t in self.resolve(module, path[:n]) if isinstance(t, Module)), None
        )
        units = {unit_of(t.item.module if isinstance(t, Found) else t) for t in targets if not isinstance(t, External)}
        return units | ({unit_of(named)} - {""} if named and path[0] in (*ROOTS, self.name) else set())


def members_of(trait: Item) -> set[str]:
    return {trait.tokens.text(i + 1) for i, t in enumerate(trait.tokens) if t.text in ("fn", "const")}


def record_of(parts: list[Part]) -> dict[str, str]:
    """The record in a notebook: a hash of all its parts, and the first digits of the hash of each part."""
    digests = sorted(part.digest for part in parts)
    return {"sha256": sha256("".join(digests)), "parts": " ".join(d[:SHORT] for d in digests)}


def unit_of(module: Module) -> str:
    """The module that has a floor: the first of the path, or the first two if parts of the first have floors."""
    parted = {name.partition("::")[0] for floor in FLOORS for name in floor if "::" in name}
    return "::".join(module.path[: 2 if module.path[:1] and module.path[0] in parted else 1])


def floor_of(unit: str) -> int | None:
    names = (unit, unit.partition("::")[0] + "::*") if "::" in unit else (unit,)
    return next((n for name in names for n, floor in enumerate(FLOORS) if name in floor), None)


def refusal(importer: str, target: str) -> str:
    """The reason why a module may not import from another; empty if it may."""
    above, below = floor_of(importer), floor_of(target)
    if importer == target or above is None:
        return ""
    if target == "error":
        lowest = floor_of(SEES_ERROR) or 0
        return "" if above >= lowest else f"only {SEES_ERROR} and the floors above it may import the crate's error"
    if target in ("", *EXEMPT):
        return f"no module may import from {target or 'the root of the crate'}"
    if below is None or below < above:
        return ""
    if below == above:
        return f"{importer} and {target} are siblings" if any("*" in name for name in FLOORS[above]) else ""
    return f"{target} is above {importer}"


def cells_of(path: Path) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project (for tests)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="fail when the floors forbid an import")
    what.add_argument("--of", metavar="NOTEBOOK", type=Path, help="list what this notebook depends on")
    args = parser.parse_args()
    try:
        house = House(args.root.resolve())
        if args.of:
            for part in house.parts(cells_of(args.of)):
                print(f"{part.digest[:8]} {part.place}: {part.label}")
            return 0
        wrong = house.floors()
    except BadSource as error:
        print(f"house: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print("house: every import is from a lower floor")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
