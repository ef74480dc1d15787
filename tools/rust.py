"""A small and strict reader of Rust source: tokens, modules, items, and the meaning of a name in a module.

Two texts that differ only in comments, documentation, tests, formatting, visibility or lints have the same tokens here.
Names are resolved as the compiler resolves them, through `use`, `pub use`, globs and macros. Where the text alone does
not determine the item, the reader returns all candidates.

The reader does not know the names that a glob of another crate imports. It refuses `include!` and `extern crate`.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Attributes that do not change what the code computes.
INERT = set("doc allow expect warn deny forbid must_use inline cold deprecated rustfmt clippy".split())
ROOTS = ("crate", "self", "super")
KEYWORDS = set(
    "as async await break const continue dyn else enum extern false fn for if impl in let loop match mod move mut pub "
    "ref return static struct trait true type unsafe use where while Self _".split()
)
ITEMS = tuple("use mod fn struct enum union trait impl const static type macro_rules extern".split())
# These items end with a semicolon; other items end with a block or a semicolon.
ENDS_WITH_SEMICOLON = ("use", "const", "static", "type", "let")
QUALIFIERS = ("unsafe", "async", "default")
# Kinds of items after which a path may continue. A call is a macro call at the place of an item.
TYPES = ("struct", "enum", "union", "trait", "type", "call")
BEFORE_STATEMENT = ("", "{", "}", ";", "]")
OPEN = {"(": ")", "[": "]", "{": "}"}
CLOSE = set(OPEN.values())

# A token, after white space and line comments.
TOKEN = re.compile(
    r"""(?:\s+|//[^\n]*)*(?:(?P<block>/\*)
    |(?P<str>[bc]?r(?P<hash>\#*)"(?s:.*?)"(?P=hash)|[bc]?"(?:[^"\\]|\\(?s:.))*")
    |(?P<char>b?'(?:[^'\\\n]|\\(?:[^xu]|x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}))')
    |(?P<life>'[^\W\d]\w*)
    |(?P<word>(?:r\#)?[^\W\d]\w*)
    |(?P<num>0[xob][0-9a-fA-F_]+\w*|\d[\d_]*(?:\.(?!\.|[^\W\d])[\d_]*)?(?:[eE][+-]?[\d_]+)?\w*)
    |(?P<sign>::|->|=>|\.\.[.=]?|&&|\|\||<<|[<=!+\-*/%^&|]=|[^\s\w"'])|(?P<end>\Z))""",
    re.VERBOSE,
)
COMMENT_MARK = re.compile(r"/\*|\*/")


class BadSource(Exception):
    """The reader does not understand the source, or the source names an item that does not exist."""


class Token(NamedTuple):
    kind: str
    text: str
    at: int


class Tokens(list[Token]):
    """Tokens. Indices outside the list give empty tokens."""

    def text(self, i: int) -> str:
        return self[i].text if 0 <= i < len(self) else ""

    def kind(self, i: int) -> str:
        return self[i].kind if 0 <= i < len(self) else ""

    def part(self, start: int, end: int) -> Tokens:
        return Tokens(self[start:end])

    def mates(self) -> dict[int, int]:
        """Index of the matching bracket for each bracket."""
        mates: dict[int, int] = {}
        stack: list[int] = []
        for i, (_, text, at) in enumerate(self):
            if text in OPEN:
                stack.append(i)
            elif text in CLOSE:
                if not stack or OPEN[self[stack[-1]].text] != text:
                    raise BadSource(f"an unmatched bracket at character {at}: {text}")
                mates[i] = stack.pop()
                mates[mates[i]] = i
        if stack:
            raise BadSource(f"an unmatched bracket at character {self[stack[-1]].at}: {self[stack[-1]].text}")
        return mates

    def split(self) -> list[Tokens]:
        """The parts between commas outside brackets."""
        parts, depth = [Tokens()], 0
        for token in self:
            depth += (token.text in OPEN) - (token.text in CLOSE)
            if token.text == "," and depth == 0:
                parts.append(Tokens())
            else:
                parts[-1].append(token)
        return [part for part in parts if part]

    def path(self, i: int) -> tuple[str, ...]:
        """The words of the path that begins at `i`; they are every second token. Empty when no path begins there."""
        kind, text, _ = self[i]
        before = self.text(i - 1)
        if kind != "word" or text in KEYWORDS or before in (".", "::") or (before == "$" and text != "crate"):
            return ()
        j = i + 1
        while self.text(j) == "::" and self.kind(j + 1) == "word":
            j += 2
        return () if text in ROOTS and j == i + 1 else tuple(t.text for t in self[i:j:2])


def tokenise(text: str) -> Tokens:
    """The tokens of a source text, without comments."""
    found, at, next_token = Tokens(), 0, TOKEN.match
    while at < len(text):
        match = next_token(text, at)
        if match is None:
            raise BadSource(f"not a Rust token at character {at}: {text[at : at + 20]!r}")
        kind = match.lastgroup or ""
        start, at = match.start(kind), match.end()
        if kind == "block":
            depth = 1
            while depth:
                mark = COMMENT_MARK.search(text, at)
                if mark is None:
                    raise BadSource(f"the comment at character {start} has no end")
                depth, at = depth + (1 if mark[0] == "/*" else -1), mark.end()
        elif kind != "end":
            said = match[kind]
            if kind == "word":
                said = said.removeprefix("r#")
            elif kind == "str" and "\\\n" in said and "r" not in said[: said.index('"')]:
                # The indentation of a continued line of a string is not part of the string.
                said = re.sub(r"(?<!\\)((?:\\\\)*)\\\n\s*", r"\1", said)
            if kind == "num" and "." in said and found and found[-1].text == ".":
                # Not a fraction: two indices, of a tuple in a tuple.
                found += [Token(kind, said.partition(".")[0], start), Token("sign", ".", start)]
                said = said.partition(".")[2]
            found.append(Token(kind, said, start))
    return found


def cfg_holds(tokens: Tokens) -> bool | None:
    """Value of a `cfg` condition in a build without tests; None when it depends on the build."""
    name = tokens.text(0)
    if name not in ("not", "all", "any") or len(tokens) == 1:
        return False if [t.text for t in tokens] == ["test"] else None
    held = [cfg_holds(part) for part in tokens.part(2, -1).split()]
    if name == "not":
        return None if held[0] is None else not held[0]
    decides = name == "any"
    return decides if decides in held else None if None in held else not decides


def word_of(tokens: Tokens, i: int) -> int:
    """Index of the keyword of the item that begins at `i`."""
    while True:
        text, after = tokens.text(i), tokens.text(i + 1)
        if text in QUALIFIERS and after in (*ITEMS, *QUALIFIERS):
            i += 1
        elif text == "const" and after in ("fn", "unsafe", "async", "extern"):
            i += 1
        elif text == "extern" and tokens.kind(i + 1) == "str" and tokens.text(i + 2) == "fn":
            i += 2
        else:
            return i


def end_of(tokens: Tokens, mates: dict[int, int], i: int) -> int:
    """Index after the item, statement, field or arm that begins at `i`."""
    start, word = i, tokens.text(word_of(tokens, i))
    with_block = word in ITEMS and word not in ENDS_WITH_SEMICOLON
    while i < len(tokens) and tokens[i].text not in CLOSE:
        text = tokens[i].text
        if text == ";" or (text == "," and word not in (*ITEMS, "let")):
            return i + 1
        if text in OPEN:
            last = text == "{" and (with_block or i == start or tokens.text(i - 1) == "!")
            i = mates[i]
            if last:
                return i + 1
        i += 1
    return i


def without_tests(tokens: Tokens) -> Tokens:
    """The tokens without tests, visibility, and attributes that do not change what the code computes."""
    mates, kept, i = tokens.mates(), Tokens(), 0
    places = [i for i, token in enumerate(tokens) if token.text in ("#", "pub")]
    while i < len(tokens):
        next_place = bisect_left(places, i)
        end = places[next_place] if next_place < len(places) else len(tokens)
        kept += tokens[i:end]
        i = end
        attributes, test = Tokens(), False
        while tokens.text(i) == "#" and tokens.text(i + 1 + (tokens.text(i + 1) == "!")) == "[":
            inner = tokens.text(i + 1) == "!"
            end = mates[i + 1 + inner] + 1
            said = tokens.part(i + 2 + inner, end - 1)
            word = said.text(0)
            off = word in ("cfg", "cfg_attr") and cfg_holds(said.part(2, -1).split()[0]) is False
            if inner and word == "cfg" and off:
                return Tokens()
            test |= word in ("test", "bench") or (word == "cfg" and off)
            if not (inner or off or word in INERT):
                attributes += tokens[i:end]
            i = end
        if tokens.text(i) == "pub":
            i = mates[i + 1] + 1 if tokens.text(i + 1) == "(" and tokens.text(i + 2) in (*ROOTS, "in") else i + 1
        if test:
            i = end_of(tokens, mates, i)
            continue
        kept += attributes
        kept += tokens[i : i + 1]
        i += 1
    return kept


def without_choices(tokens: Tokens) -> Tokens:
    """The tokens without those that rustfmt adds or removes when it breaks lines: commas at the end of lists, semicolons
    after a `return`, and braces around the body of an arm or a closure."""
    mates = tokens.mates()
    ends = {i for i, token in enumerate(tokens) if token.text == ";" and ends_by_leaving(tokens, mates, i)}
    tokens = Tokens(token for i, token in enumerate(tokens) if i not in ends)
    mates = tokens.mates()
    dropped: set[int] = set()
    commas: set[int] = set()
    for i, token in enumerate(tokens):
        if token.text in ("=>", "|", "||") and tokens.text(i + 1) == "{":
            end, j = mates[i + 1], i + 2
            while j < end and tokens[j].text != ";":
                j = mates[j] + 1 if tokens[j].text in OPEN else j + 1
            if j == end > i + 2:
                dropped.add(i + 1)
                (commas if token.text == "=>" and tokens.text(end + 1) != "," else dropped).add(end)
            elif token.text == "=>" and tokens.text(end + 1) == ",":
                dropped.add(end + 1)
    kept = Tokens(t._replace(text=",") if i in commas else t for i, t in enumerate(tokens) if i not in dropped)
    mates, result = kept.mates(), Tokens()
    for i, token in enumerate(kept):
        after = kept.text(i + 1)
        if token.text == "," and (
            after in ("}", "]", ">") or (after == ")" and not is_tuple_of_one(kept, mates[i + 1], i))
        ):
            continue
        result.append(token)
    return result


def ends_by_leaving(tokens: Tokens, mates: dict[int, int], semicolon: int) -> bool:
    """Whether the semicolon ends a block whose last statement is a `return`, `break` or `continue`."""
    i = semicolon - 1 if tokens.text(semicolon + 1) == "}" else -1
    while i >= 0 and tokens[i].text not in (";", *OPEN):
        if tokens[i].text in ("return", "break", "continue"):
            return tokens.text(i - 1) in BEFORE_STATEMENT
        i = mates[i] - 1 if tokens[i].text in CLOSE else i - 1
    return False


def is_tuple_of_one(tokens: Tokens, start: int, comma: int) -> bool:
    """Whether the comma before the end of the bracket at `start` makes it a tuple."""
    before = tokens.text(start - 1)
    is_call = (tokens.kind(start - 1) == "word" and before not in KEYWORDS - {"fn", "Self"}) or before in (
        *CLOSE,
        "!",
        ">",
        "?",
    )
    return not is_call and len(tokens.part(start + 1, comma).split()) == 1


def head_at(tokens: Tokens, mates: dict[int, int], i: int) -> Tokens:
    """The tokens of the `impl` at `i`, before its block."""
    start = i
    while i < len(tokens) and tokens[i].text != "{":
        i = mates[i] + 1 if tokens[i].text in OPEN else i + 1
    return tokens.part(start, i)


def parts_of(head: Tokens) -> tuple[Tokens, Tokens, Tokens]:
    """The parameters, the trait and the type of the head of an `impl`; the first two may be empty."""
    parts, depth = [Tokens()], 0
    for i, token in enumerate(head[1:], 1):
        text = token.text
        depth += (text in ("<", *OPEN)) + 2 * (text == "<<") - (text in (">", *CLOSE))
        if depth == 0 and text == "where":
            break
        if depth == 0 and text == "for" and head.text(i + 1) != "<":
            parts.append(Tokens())
        else:
            parts[-1].append(token)
        if depth == 0 and text == ">" and head.text(1) == "<" and len(parts) == 1:
            parts = [parts[0], Tokens()]
    if head.text(1) != "<":
        parts.insert(0, Tokens())
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (parts[0], Tokens(), parts[1])


class Import(NamedTuple):
    """One name that a `use` imports; the name is empty for a glob."""

    name: str
    path: tuple[str, ...]
    at: int


def use_tree(tokens: Tokens, path: tuple[str, ...] = ()) -> Iterator[Import]:
    """The imports of the tree after a `use`. A path that begins with `::` begins with an empty name."""
    at, i = tokens[0].at, 0
    while i < len(tokens):
        text = tokens[i].text
        if text == "{":
            for part in tokens.part(i + 1, -1).split():
                yield from use_tree(part, path)
            return
        if text in ("*", "as"):
            yield Import("" if text == "*" else tokens.text(i + 1), path, at)
            return
        if text == "::":
            path = path or ("",)
        elif text != "$" and not (text == "self" and path):
            path = (*path, text)
        i += 1
    yield Import(path[-1], path, at)


def uses_in(tokens: Tokens) -> Iterator[tuple[int, int, list[Import]]]:
    """Each `use` of a body: its index, that of its semicolon, and its imports."""
    for i, token in enumerate(tokens):
        if token.text == "use" and token.kind == "word" and tokens.text(i - 1) in BEFORE_STATEMENT:
            end = next(j for j in range(i, len(tokens)) if tokens[j].text == ";")
            yield i, end, list(use_tree(tokens.part(i + 1, end)))


@dataclass(eq=False)
class Item:
    kind: str
    name: str
    module: Module
    tokens: Tokens
    # The head of the `impl` that it is or belongs to, its name in that `impl`, and the heads of the `impl`s inside it.
    head: Tokens | None = None
    member: str = ""
    nested: list[Tokens] = field(default_factory=list)


@dataclass(eq=False)
class Module:
    path: tuple[str, ...]
    file: Path
    folder: Path
    parent: Module | None
    # Position of its `mod` in the parent's file, and the conditions under which it is compiled.
    at: int = 0
    conditions: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    children: dict[str, Module] = field(default_factory=dict)
    named: dict[str, list[Item]] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    # The enclosing module, when this one stands for the imports inside the body of an item.
    around: Module | None = None

    @property
    def home(self) -> Module:
        return self.around or self

    @property
    def root(self) -> Module:
        return self.home.parent.root if self.home.parent else self.home

    def all(self) -> Iterator[Module]:
        yield self
        for child in self.children.values():
            yield from child.all()


class Found(NamedTuple):
    """An item, and the rest of the path after it."""

    item: Item
    rest: tuple[str, ...] = ()


class External(NamedTuple):
    """A path into another crate."""

    path: tuple[str, ...]


Target = Module | Found | External


class Source:
    """The library at `root` and its names. `read` returns the contents of a file."""

    def __init__(self, root: Path, read: Callable[[Path], bytes] = Path.read_bytes):
        self.root, self.read = root, read
        self.manifest = self.toml(root / "Cargo.toml")
        self.name: str = self.manifest["package"]["name"].replace("-", "_")
        tables = (self.manifest, *self.manifest.get("target", {}).values())
        self.dependencies: dict[str, str] = {
            name: value.get("package", name) if isinstance(value, dict) else name
            for table in tables
            for name, value in table.get("dependencies", {}).items()
        }
        self.externals = {"std", "core", "alloc", *(name.replace("-", "_") for name in self.dependencies)}
        self.macros: dict[str, list[Item]] = {}
        self.unread: list[Module] = []
        self.known_names: dict[tuple[Module, str], list[Target]] = {}
        self.library = self.crate(root / self.manifest.get("lib", {}).get("path", "src/lib.rs"))
        for item in (item for items in self.macros.values() for item in items):
            if any(t.text == "macro_export" for t in item.tokens) and item.module is not self.library:
                self.library.named.setdefault(item.name, []).append(item)

    # From files to modules and items.

    def bytes_of(self, path: Path) -> bytes:
        try:
            return self.read(path)
        except OSError as error:
            raise BadSource(f"{self.shown(path)}: {error.strerror}") from error

    def toml(self, path: Path) -> dict:
        try:
            return tomllib.loads(self.bytes_of(path).decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadSource(f"{self.shown(path)}: {error}") from error

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def place(self, file: Path, at: int) -> str:
        return f"{self.shown(file)}:{self.bytes_of(file).decode().count(chr(10), 0, at) + 1}"

    def crate(self, file: Path) -> Module:
        """The root module of the crate with this first file."""
        root = Module((), file, file.parent, None)
        self.unread = [root]
        while self.unread:
            module = self.unread.pop()
            text = self.bytes_of(module.file)
            try:
                tokens = without_choices(without_tests(tokenise(text.decode())))
                self.read_items(module, tokens, tokens.mates(), 0, len(tokens))
            except (BadSource, UnicodeDecodeError) as error:
                raise BadSource(f"{self.shown(module.file)}: {error}") from error
        return root

    def read_items(self, module: Module, tokens: Tokens, mates: dict[int, int], i: int, end: int) -> None:
        while i < end:
            start = i
            while tokens.text(i) == "#":
                i = mates[i + 1] + 1
            i = word_of(tokens, i)
            word, name, after = tokens.text(i), tokens.text(i + 1), end_of(tokens, mates, i)
            said = tokens.part(start, after)
            if word == "use":
                module.imports += use_tree(tokens.part(i + 1, after - 1))
            elif word == "mod":
                self.read_child(module, said, tokens, mates, i)
            elif word == "impl":
                self.read_impl(module, tokens, mates, start, i, after)
            elif word == "extern" and tokens.kind(i + 1) == "str":
                self.read_items(module, tokens, mates, i + 3, after - 1)
            elif word == "macro_rules":
                item = self.add(Item("macro", tokens.text(i + 2), module, said))
                self.macros.setdefault(item.name, []).append(item)
            elif name in ("!", "::") and tokens.kind(i) == "word":
                self.add(Item("call", tokens.path(i)[-1], module, said))
            elif word in ITEMS and name != "crate":
                self.add(Item(word, tokens.text(i + 2) if name == "mut" else name, module, said))
            elif word != ";":
                raise BadSource(f"an unknown kind of item at character {tokens[i].at}: {word} {name}")
            i = after

    def add(self, item: Item) -> Item:
        item.module.items.append(item)
        if item.kind != "call" and not item.head:
            item.module.named.setdefault(item.name, []).append(item)
        if item.kind not in ("macro", "call"):
            inside = [
                i
                for i, token in enumerate(item.tokens)
                if token.text == "impl" and i and item.tokens[i - 1].text in BEFORE_STATEMENT
            ]
            mates = item.tokens.mates() if inside else {}
            item.nested += [head for i in inside if (head := head_at(item.tokens, mates, i)) != item.head]
        return item

    def read_child(self, module: Module, said: Tokens, tokens: Tokens, mates: dict[int, int], i: int) -> None:
        name = tokens.text(i + 1)
        child = module.children[name] = Module(
            (*module.path, name), module.file, module.folder / name, module, tokens[i].at
        )
        attributes = "".join(t.text for t in said).partition("mod" + name)[0]
        child.conditions = module.conditions + [a for a in attributes.split("#") if a.startswith("[cfg")]
        if tokens.text(i + 2) == "{":
            self.read_items(child, tokens, mates, i + 3, mates[i + 2])
            return
        paths = [
            said.text(k + 2)[1:-1] for k in range(len(said)) if said.text(k) == "path" and said.kind(k + 2) == "str"
        ]
        places = [module.file.parent / p for p in paths] or [
            module.folder / f"{name}.rs",
            module.folder / name / "mod.rs",
        ]
        there = [place for place in places if self.exists(place)]
        if len(there) != 1:
            raise BadSource(
                f"mod {name}: of {' and '.join(map(self.shown, places))} one has to be there, not {len(there)}"
            )
        child.file = there[0]
        child.folder = child.file.parent if paths or child.file.name == "mod.rs" else child.file.with_suffix("")
        self.unread.append(child)

    def exists(self, path: Path) -> bool:
        try:
            self.read(path)
        except OSError:
            return False
        return True

    def read_impl(self, module: Module, tokens: Tokens, mates: dict[int, int], start: int, i: int, after: int) -> None:
        """An `impl` of a trait is one item; of any other `impl` each member is one."""
        head = head_at(tokens, mates, i)
        _, trait, kind = ("".join(t.text for t in part) for part in parts_of(head))
        if trait:
            self.add(Item("impl", f"{trait} for {kind}", module, tokens.part(start, after), head))
            return
        j = i + len(head) + 1
        while j < after - 1:
            begin = j
            while tokens.text(j) == "#":
                j = mates[j + 1] + 1
            word, j = word_of(tokens, j), end_of(tokens, mates, j)
            # The names of items that a macro makes here are unknown.
            member = "" if tokens.text(word + 1) in ("!", "::") else tokens.text(word + 1)
            said = Tokens([*tokens[start : i + len(head)], *tokens[begin:j]])
            self.add(Item(tokens.text(word), f"{kind}::{member}", module, said, head, member))

    # From names to items.

    def lookup(self, module: Module, name: str, seen: frozenset = frozenset()) -> list[Target]:
        """All meanings that a name may have in a module, without the imports that are being followed."""
        key = (module, name)
        if key in self.known_names:
            return self.known_names[key]
        found: list[Target] = [module.children[name]] if name in module.children else []
        found += [Found(item) for item in module.named.get(name, ())]
        for use in module.imports:
            if use.name not in (name, "") or (module, use) in seen:
                continue
            deeper = seen | {(module, use)}
            if use.name:
                found += self.resolve(module, use.path, deeper)
            else:
                for target in self.resolve(module, use.path, deeper):
                    if isinstance(target, Module):
                        found += self.lookup(target, name, deeper)
                    elif isinstance(target, Found) and any(t.text == name for t in target.item.tokens):
                        found.append(Found(target.item, (*target.rest, name)))
        if not found and module.around:
            found = self.lookup(module.around, name, seen)
        if not found:
            found += [Found(item) for item in module.items if item.kind == "call" and name in self.words_of_call(item)]
        found = list(dict.fromkeys(found))
        if not seen:
            self.known_names[key] = found
        return found

    def words_of_call(self, call: Item) -> set[str]:
        """All words that the expansion of a macro call can have: those of the call, and those of the macro."""
        return {t.text for item in (call, *self.macros.get(call.name, ())) for t in item.tokens if t.kind == "word"}

    def resolve(self, module: Module, path: tuple[str, ...], seen: frozenset = frozenset()) -> list[Target]:
        """All meanings that a path may have in a module; empty for local names and names from a glob of another crate."""
        first, home = path[0], module.home
        targets: list[Target]
        if first == "":
            return [External(path[1:])]
        if first in ROOTS:
            start = {"crate": home.root, "self": home, "super": home.parent}[first]
            targets = [start] if start else []
        else:
            targets = self.lookup(module, first, seen)
            if not targets and first == self.name:
                targets = [self.library]
            elif not targets and first in self.externals:
                targets = [External((first,))]
        for step in path[1:]:
            further: list[Target] = []
            for target in targets:
                if isinstance(target, External):
                    further.append(External((*target.path, step)))
                elif isinstance(target, Found):
                    further += [Found(target.item, (*target.rest, step))] if target.item.kind in TYPES else []
                elif step == "super":
                    further += [target.parent] if target.parent else []
                else:
                    further += self.lookup(target, step, seen)
            targets = further
        return targets

    def imports_of(self, module: Module) -> Iterator[tuple[Import, list[Target]]]:
        """The targets of each `use` of a module."""
        for use in module.imports:
            targets = self.resolve(module, use.path)
            if not targets:
                raise BadSource(f"{self.place(module.file, use.at)}: {'::'.join(use.path)} is not found")
            yield use, targets

    def traits_of(self, module: Module, seen: frozenset = frozenset()) -> list[Item]:
        """The traits of the crate whose methods can be called in a module."""
        if module in seen:
            return []
        targets: list[Target] = [Found(item) for item in module.items]
        for use, brought in self.imports_of(module):
            for target in brought:
                if isinstance(target, Module) and not use.name:
                    targets += [Found(item) for item in self.traits_of(target, seen | {module})]
                targets.append(target)
        around = self.traits_of(module.around, seen) if module.around else []
        return around + [t.item for t in targets if isinstance(t, Found) and t.item.kind == "trait"]
