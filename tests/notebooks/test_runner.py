"""Tests that the runner fails for each way in which a notebook can be wrong, with the right message.

Each fixture runs through the real kernel, two at a time.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import nbformat  # noqa: E402

import house  # noqa: E402
import index as ix  # noqa: E402
import run_notebooks as rn  # noqa: E402

FIXTURES = HERE / "fixtures"
LIMIT = {"hang": 30}

# Texts that the runner must print for each fixture.
LIES = {
    "panic": ("cell 3", "panicked at", "index out of bounds"),
    "thread_panic": ("cell 3", "panicked at", "far away"),
    "question_mark": ("cell 3", "left the cell through `?`", "invalid digit"),
    "or_stop": ("cell 3", "stopped by an error: invalid digit"),
    "shown_error": ("cell 3", "the last expression is an error: Err(ParseIntError"),
    "figure_as_text": ("cell 3", "a figure is shown as text"),
    "exit": ("cell 3", "Subprocess terminated with status: exit status: 0"),
    "hang": ("cell 3", "not finished after the limit of 30 s"),
    "no_sentinel": ("cell 3", "does not end with the line `mem2gen: finished no_sentinel in profile smoke`"),
    "early_sentinel": ("cell 3", "is not the last cell"),
    "wrong_name": ("cell 3", "does not end with the line"),
    "compile_error": ("cell 3", "mismatched types"),
    "not_utf8": ("cell 3", "valid UTF-8"),
    "skipped": ("cell 3", "panicked at", "never seen"),
    "allowed": ("cell 3", "panicked at", "tagged as expected"),
    "restart": ("cell 3", "kernel command `:restart`"),
    "no_figure": ("the figure nowhere was not drawn",),
}
PLAIN = ("good", "panic", "or_stop", "question_mark", "exit")

FIGURE = {
    "id": "nowhere",
    "notebook": "no_figure",
    "paper": "-",
    "title": "a figure that is not drawn",
    "command": "-",
    "data": "none",
    "profile": "smoke",
    "state": "drawn",
}


def toml(kind: str, entry: dict) -> str:
    def value(v):
        return "{" + ", ".join(f"{k} = {x}" for k, x in v.items()) + "}" if isinstance(v, dict) else json.dumps(v)

    return f"[[{kind}]]\n" + "".join(f"{k} = {value(v)}\n" for k, v in entry.items()) + "\n"


def entry(name: str, **other) -> dict:
    seconds = LIMIT.get(name, 120)
    limits = dict.fromkeys(ix.PROFILES, seconds)
    return {"name": name, "title": name, "summary": name, "limit_seconds": limits, "tables": []} | other


# A crate with only the items that the kernel's prelude names, so that an item can change.
CRATE = {
    "Cargo.toml": '[package]\nname = "mem2gen"\n',
    "Cargo.lock": '[[package]]\nname = "mem2gen"\nversion = "0.1.0"\n',
    "src/lib.rs": "pub mod notebook { pub use std::eprintln; pub fn install() {} }\n"
    "pub mod prelude { pub use crate::begin; }\npub fn begin(_: &str) -> u8 { 1 }\n",
}


def project(folder: Path, *entries: dict, figures=()) -> Path:
    """A project at `folder` with these fixture notebooks."""
    for part in ("notebooks", "src", "data/results"):
        (folder / part).mkdir(parents=True)
    for name, text in CRATE.items():
        (folder / name).write_text(text)
    for e in entries:
        source = FIXTURES / f"{e['name']}.ipynb"
        if source.is_file():
            shutil.copy(source, folder / "notebooks")
    text = "".join(toml("notebook", e) for e in entries) + "".join(toml("figure", f) for f in figures)
    (folder / "notebooks/figures.toml").write_text(text)
    return folder


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools/run_notebooks.py"), "--root", str(root), *arguments]


def runner(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(root, *arguments), capture_output=True, text=True, timeout=300, check=False)


def living(root: Path) -> list[int]:
    """Processes that carry this project's root in their environment."""
    mark, found = f"MEM2GEN_ROOT={root}\0".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
            except OSError:
                pass
    return found


def gone_within(root: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not living(root):
            return True
        time.sleep(0.1)
    return False


class Runs(unittest.TestCase):
    """All fixtures, executed once for all tests of this class."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="mem2gen-fixtures-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        with ThreadPoolExecutor(2) as pool:
            runs = {n: pool.submit(cls.run_one, n) for n in [*LIES, "good", "outsider"]}
            plain = {n: pool.submit(cls.run_plain, n) for n in PLAIN}
        cls.runs = {n: r.result() for n, r in runs.items()}
        cls.plain = {n: r.result() for n, r in plain.items()}

    @classmethod
    def run_one(cls, name: str):
        figures = [FIGURE] if name == "no_figure" else []
        root = project(cls.folder / name, entry(name), figures=figures)
        if name == "good":
            return runner(root, "--profile", "desk", "--update")
        return runner(root, "--profile", "smoke")

    @classmethod
    def run_plain(cls, name: str):
        out = cls.folder / "plain" / name
        out.mkdir(parents=True)
        # The environment does not declare the session interactive.
        env = {k: v for k, v in os.environ.items() if k != "MEM2GEN_INTERACTIVE"} | {"TMPDIR": str(out)}
        arguments = ["--to", "notebook", "--execute", "--output-dir", str(out), str(FIXTURES / f"{name}.ipynb")]
        return subprocess.run(
            [sys.executable, "-m", "nbconvert", *arguments], capture_output=True, text=True, timeout=300, check=False, env=env
        )

    def test_the_honest_notebook_passes(self):
        run = self.runs["good"]
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("1 passed, 0 failed", run.stdout)
        done = nbformat.read(self.folder / "good/out/desk/notebooks/good.ipynb", as_version=4)
        self.assertIn("sum 10", done.cells[2].outputs[0].text)

    def test_somebody_from_outside_keeps_every_object_in_a_variable(self):
        run = self.runs["outsider"]
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        done = nbformat.read(self.folder / "outsider/out/smoke/notebooks/outsider.ipynb", as_version=4)
        self.assertIn("kept: 12 12 4", done.cells[-2].outputs[0].text)
        self.assertIn("image/png", done.cells[-3].outputs[0].data)

    def test_a_failed_run_leaves_no_executed_notebook(self):
        for name in LIES:
            with self.subTest(name):
                self.assertFalse((self.folder / name / f"out/smoke/notebooks/{name}.ipynb").exists())

    def test_a_hang_leaves_no_process(self):
        self.assertEqual(living(self.folder / "hang"), [])

    def test_plain_nbconvert_passes_the_honest_notebook(self):
        self.assertEqual(self.plain["good"].returncode, 0, self.plain["good"].stderr)

    def test_the_update_is_committable_and_current_until_something_changes(self):
        root = self.folder / "good"
        file = root / "notebooks/good.ipynb"
        fresh = file.read_text()
        self.assertNotIn(str(root), fresh)
        made = json.loads(fresh)["metadata"]["mem2gen"]
        self.assertEqual(made["profile"], "desk")
        self.assertEqual(rn.check(ix.load(root), list(ix.load(root).notebooks)), 0)

        def reasons():
            return stale(root)

        self.assertEqual(reasons(), [])
        for old, new, why in (
            ('sum {}', 'total {}', "cells changed"),
            ('"profile": "desk"', '"profile": "smoke"', "profile smoke"),
            ("in profile desk", "in profile des", "does not end with the line"),
            ("sum 10", f"sum {os.path.expanduser('~')}", "path"),
            ("sum 10", "x" * 1_000_000, "expected at most"),
        ):
            with self.subTest(why):
                self.assertIn(old, fresh)
                file.write_text(fresh.replace(old, new))
                self.assertTrue(any(why in r for r in reasons()), reasons())
        file.write_text(fresh)
        code = root / "src/lib.rs"
        code.write_text("// A comment.\n" + CRATE["src/lib.rs"])
        self.assertEqual(reasons(), [])
        code.write_text(CRATE["src/lib.rs"].replace("{ 1 }", "{ 2 }"))
        self.assertEqual(reasons(), ["code or data that it depends on has changed: fn begin (src/lib.rs)"])
        self.assertIn("notebook good is stale: code or data", runner(root, "--check").stderr)
        code.write_text(CRATE["src/lib.rs"].replace("crate::begin", "crate::end"))
        run = runner(root, "--check")
        self.assertEqual((run.returncode, run.stderr), (1, "notebooks: src/lib.rs:2: crate::end is not found\n"))

    def test_a_changed_table_makes_a_notebook_stale(self):
        root = project(self.folder / "tables", entry("good", tables=["numbers"]))
        table = root / "data/results/numbers.parquet"
        table.write_bytes(b"one")
        index = ix.load(root)
        notebook = nbformat.read(self.folder / "good/out/desk/notebooks/good.ipynb", as_version=4)
        notebook.cells[1].outputs = [said("read from data/results/numbers.parquet, fingerprint 0 fits\n")]
        committed = rn.committed_form(index, index.notebooks[0], "desk", notebook)
        rn.write_notebook(index.path(index.notebooks[0]), committed)
        self.assertEqual(stale(root), [])
        table.write_bytes(b"two")
        self.assertEqual(stale(root), ["the tables that it was made from changed"])


def stale(root: Path) -> list[str]:
    index = ix.load(root)
    return rn.stale(index, index.notebooks[0], house.House(root))


def said(text: str):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def lie(name: str, words: tuple):
    def test(self):
        run = self.runs[name]
        said = run.stdout + run.stderr
        self.assertEqual(run.returncode, 1, said)
        self.assertIn(f"{name}: FAILED: ", run.stderr)
        for word in words:
            self.assertIn(word, run.stderr)

    return test


for lie_name, lie_words in LIES.items():
    setattr(Runs, f"test_sees_{lie_name}", lie(lie_name, lie_words))


def plain_lie(name: str):
    def test(self):
        self.assertNotEqual(self.plain[name].returncode, 0, self.plain[name].stderr)
        self.assertIn("CellExecutionError", self.plain[name].stderr)

    return test


for plain_name in PLAIN[1:]:
    setattr(Runs, f"test_plain_nbconvert_fails_on_{plain_name}", plain_lie(plain_name))


class Ends(unittest.TestCase):
    """A runner that is stopped in the middle of a cell also ends the kernel and its children."""

    def stopped_by(self, number: int, patience: float) -> int:
        with tempfile.TemporaryDirectory(prefix="mem2gen-ends-") as folder:
            limits = dict.fromkeys(ix.PROFILES, 120)
            root = project(Path(folder) / "p", entry("hang", limit_seconds=limits))
            # Named, so that it is removed with the project even if the runner cannot clean up.
            env = os.environ | {"TMPDIR": folder}
            with subprocess.Popen(
                command(root, "--profile", "smoke"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
            ) as process:
                for line in process.stdout:
                    if "cell 2/" in line:
                        break
                time.sleep(1.0)
                self.assertTrue(living(root), "the kernel is not running")
                process.send_signal(number)
                process.wait(30)
            self.assertTrue(gone_within(root, patience), f"left behind: {living(root)}")
            return process.returncode

    def test_an_interrupt(self):
        self.assertEqual(self.stopped_by(signal.SIGINT, 2), 130)

    def test_a_kill_that_leaves_no_time_to_clean_up(self):
        self.assertEqual(self.stopped_by(signal.SIGKILL, 10), -signal.SIGKILL)


class Lines(unittest.TestCase):
    def test_a_line_that_comes_late_is_its_own_cells(self):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("") for _ in range(3)])
        cells = rn.Cells(notebook)
        cells.begin()
        stdout = ["mem2gen: cell 1\n", "one\n", "more of one\n", "mem2gen: cell 2\n", "mem2gen: cell 3\n", "three\n"]
        # All of stderr arrives first, as from a faster thread.
        for text in ["mem2gen: cell 1\n", "mem2gen: cell 2\n", "a warning\n", "mem2gen: cell 3\n"]:
            cells.take_line({"name": "stderr", "text": text})
        for text in stdout:
            cells.take_line({"name": "stdout", "text": text})
        for i in range(3):
            cells.collect(notebook, i)
        printed = [[(o.name, o.text) for o in cell.outputs] for cell in notebook.cells]
        self.assertEqual(printed, [[("stdout", "one\nmore of one\n")], [("stderr", "a warning\n")], [("stdout", "three\n")]])


class Tables(unittest.TestCase):
    """The tables that a run reads or writes are those of the index."""

    def check(self, text: str, *listed: str):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[said(text)])])
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mem2gen-tables-")))
        index = ix.load(project(folder / "p", entry("good", tables=list(listed))))
        rn.check_tables(index.notebooks[0], notebook, [0])

    def test_the_same_tables(self):
        text = "read from data/results/a.parquet, fingerprint 0 fits\nx.parquet\n"
        self.check(text + "computed data/results/b_2.parquet in 1 s: why\n", "b_2", "a")

    def test_one_that_is_not_listed(self):
        with self.assertRaisesRegex(rn.Failed, "does not list: b$"):
            self.check("read from data/results/a.parquet, f\nread from data/results/b.parquet, f\n", "a")

    def test_one_that_was_not_read(self):
        with self.assertRaisesRegex(rn.Failed, "did not read: b$"):
            self.check("read from data/results/a.parquet, f\n", "a", "b")


class Index(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mem2gen-index-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "p"

    def refuses(self, words: str, *entries, figures=()):
        with self.assertRaisesRegex(ix.BadIndex, words):
            ix.load(project(self.folder, *entries, figures=figures))

    def test_no_notebook(self):
        self.refuses("lists no notebook")

    def test_a_notebook_twice(self):
        self.refuses("listed twice", entry("good"), entry("good"))

    def test_a_limit_too_few(self):
        self.refuses("limit_seconds", entry("good", limit_seconds={"smoke": 1}))

    def test_a_figure_of_no_notebook(self):
        self.refuses("names the notebook no_figure, which is not listed", entry("good"), figures=[FIGURE])

    def test_a_state_that_is_none(self):
        self.refuses("state done", entry("no_figure"), figures=[FIGURE | {"state": "done"}])

    def test_a_key_too_many(self):
        self.refuses("unknown keys colour", entry("no_figure"), figures=[FIGURE | {"colour": "red"}])

    def test_figures_count_from_their_profile_on(self):
        figure = ix.Figure(**FIGURE | {"profile": "desk"})
        self.assertEqual([figure.drawn_in(p) for p in ix.PROFILES], [False, True, True])
        self.assertFalse(ix.Figure(**FIGURE | {"state": "planned"}).drawn_in("paper"))

    def test_a_listed_notebook_that_is_missing_is_an_error(self):
        root = project(self.folder, entry("absent"))
        for arguments in (["--profile", "smoke"], ["--check"]):
            run = runner(root, *arguments)
            self.assertEqual(run.returncode, 1)
            self.assertIn("listed in figures.toml but does not exist", run.stderr)

    def test_a_notebook_that_is_not_listed_is_an_error(self):
        root = project(self.folder, entry("good"))
        shutil.copy(FIXTURES / "panic.ipynb", root / "notebooks")
        run = runner(root, "--check")
        self.assertEqual(run.returncode, 1)
        self.assertIn("panic.ipynb is not listed", run.stderr)

    def test_the_fixtures_are_what_their_script_makes(self):
        spec = importlib.util.spec_from_file_location("make", FIXTURES / "make.py")
        make = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make)
        self.assertEqual(set(make.FIXTURES), {p.stem for p in FIXTURES.glob("*.ipynb")})
        for name, cells in make.FIXTURES.items():
            made = nbformat.writes(make.notebook(name, cells)).strip()
            self.assertEqual((FIXTURES / f"{name}.ipynb").read_text().strip(), made, name)


if __name__ == "__main__":
    unittest.main()
