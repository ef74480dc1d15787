#!/usr/bin/env python3
"""Executes the notebooks of `notebooks/figures.toml` without a browser and verifies the results.

The kernel answers `ok` to cells that panicked or returned an error. This runner fails and names notebook, cell and
reason for: a compile error, a panic, an error through `?`, an exit, a hang, a kernel that died, a cell that was not
executed, output on stderr, a displayed `Err(..)`, a figure shown as text, text that is not UTF-8, a missing last line,
and figures that the index promises and the run did not draw.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete, CellExecutionError, CellTimeoutError, DeadKernelError

import index as ix
from house import House, record_of
from rust import BadSource

KERNEL = "mem2gen"
STARTUP_SECONDS = 60
# Seconds to wait for output that arrives after its cell failed.
LATE_SECONDS = 1.0
COMMITTED_BYTES = 1_000_000
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# The line of `Run::recall`.
RECALLED = re.compile(r"(?:read from|computed) (?:\S*/)?(\w+)\.parquet\b")
# A command to the kernel (`:dep`, `:restart`, `!sh`). It could remove the panic hook, so notebooks must not have any.
COMMAND = re.compile(r"^\s*(:[a-z_]+\b|!)")


class Failed(Exception):
    """A notebook failed, or its file is wrong."""

    def __init__(self, why: str, cell: int | None = None):
        super().__init__(why if cell is None else f"cell {cell}: {why}")


def short(text: str, lines: int = 12) -> str:
    kept = [line.rstrip() for line in ANSI.sub("", text).splitlines() if line.strip()]
    more = f"\n... {len(kept) - lines} more lines" if len(kept) > lines else ""
    return "\n".join(kept[:lines]) + more


def write_notebook(path: Path, notebook) -> None:
    """Writes atomically: a reader sees the old notebook or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".mem2gen-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            nbformat.write(notebook, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_notebook(path: Path):
    if not path.is_file():
        raise Failed(f"{path} is listed in figures.toml but does not exist")
    try:
        notebook = nbformat.reads(path.read_bytes().decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except UnicodeDecodeError as error:
        raise Failed(f"the file is not UTF-8: {error}") from error
    except (nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise Failed(f"the file is not a notebook: {short(str(error), 3)}") from error
    return notebook


def check_form(notebook) -> list[int]:
    """Checks that need no run. Returns the indices of the code cells. Messages count cells from 1."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != KERNEL:
        raise Failed(f"the kernelspec is {kernel!r}, expected {KERNEL!r}")
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    if not code:
        raise Failed("the notebook has no code cell")
    for i in code:
        source = notebook.cells[i].source
        if not source.strip():
            raise Failed("the cell is empty, so it is never executed", i + 1)
        for line in source.splitlines():
            if COMMAND.match(line):
                raise Failed(f"the kernel command `{line.strip()}` is not allowed in a notebook", i + 1)
    return code


def check_outputs(cell, number: int) -> None:
    """Checks the outputs of a cell that the kernel answered with `ok`."""
    for output in cell.outputs:
        if output.output_type == "error":
            raise Failed(f"error: {short(output.evalue or '')}\n{short(chr(10).join(output.traceback))}", number)
        if output.output_type == "stream":
            if output.name == "stderr" and output.text.strip():
                what = "panicked" if "panicked at" in output.text else "wrote to stderr"
                raise Failed(f"{what}: {short(output.text)}", number)
            texts = [output.text]
        else:
            texts = [t for mime, t in output.data.items() if isinstance(t, str) and not mime.startswith("image/p")]
            plain = output.data.get("text/plain", "")
            if plain.lstrip().startswith("Err("):
                raise Failed(f"the last expression is an error: {short(plain, 3)}", number)
            if plain.startswith("Figure(") and "image/png" not in output.data:
                raise Failed("a figure is shown as text: the cell moves a variable that it declares itself", number)
        for text in texts:
            if "\ufffd" in text:
                raise Failed("the output is not UTF-8", number)
            if "EVCXR_" in text:
                raise Failed(f"the output contains internal text of the kernel: {short(text, 3)}", number)
            if "panicked at" in text:
                raise Failed(f"panicked: {short(text)}", number)
    if cell.execution_count is None:
        raise Failed("was not executed", number)


def stdout_lines(cell) -> list[str]:
    text = "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_end(notebook, code: list[int], name: str, profile: str) -> None:
    """The last code cell, and it alone, ends with the line of `Run::finish`."""
    wanted = f"mem2gen: finished {name} in profile {profile}"
    for i in code[:-1]:
        if any(line.startswith("mem2gen: finished") for line in stdout_lines(notebook.cells[i])):
            raise Failed("prints that the notebook is finished, but is not the last cell", i + 1)
    last = stdout_lines(notebook.cells[code[-1]])
    if not last or last[-1] != wanted:
        raise Failed(f"the last cell does not end with the line `{wanted}`", code[-1] + 1)


def check_figures(index: ix.Index, entry: ix.Notebook, profile: str, since: float) -> None:
    folder = index.output(profile) / "figures"
    for figure in index.figures_of(entry):
        if not figure.drawn_in(profile):
            continue
        for kind, start in (("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<")):
            path = folder / f"{figure.id}.{kind}"
            shown = path.relative_to(index.root)
            if not path.is_file():
                raise Failed(f"the figure {figure.id} was not drawn: {shown} is missing")
            if path.stat().st_mtime < since - 1.0:
                raise Failed(f"the figure {figure.id} was not drawn: {shown} is from an earlier run")
            if not path.read_bytes().startswith(start):
                raise Failed(f"the figure {figure.id} is not a {kind.upper()} file: {shown}")


class Kernel:
    """One kernel in its own process group, which is always killed as a whole at the end."""

    current: Kernel | None = None

    def __init__(self, client: NotebookClient):
        self.client = client
        self.group: int | None = None
        self.why_killed: str | None = None

    def kill(self, why: str | None = None) -> None:
        if why and self.why_killed is None:
            self.why_killed = why
        if self.group is not None:
            try:
                os.killpg(self.group, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def __aenter__(self) -> Kernel:
        Kernel.current = self
        self.client.create_kernel_manager()
        return self

    async def start(self, env: dict[str, str]) -> None:
        await self.client.async_start_new_kernel(env=env, stdout=subprocess.DEVNULL)
        provisioner = self.client.km.provisioner
        self.group = provisioner.pgid or provisioner.pid
        if self.group == os.getpgrp():
            self.group = None
            raise Failed("the kernel shares the runner's process group, so it could not be killed as a whole")
        await self.client.async_start_new_kernel_client()

    async def __aexit__(self, *_) -> None:
        self.kill()
        Kernel.current = None
        if self.client.kc is not None:
            self.client.kc.stop_channels()
        if self.client.km is not None and self.client.km.has_kernel:
            await asyncio.wait_for(self.client.km.shutdown_kernel(now=True), 30)


class Cells(NotebookClient):
    """Executes cells and assigns the printed lines to them.

    The kernel forwards the lines of a cell from another thread. On a busy machine they arrive after the reply to the
    cell, and nbclient drops them or assigns them to the next cell. So every cell first prints a mark to stdout and to
    stderr, and the lines after a mark belong to the marked cell whenever they arrive.
    """

    MARK = re.compile(r"mem2gen: cell (\d+)\n")
    # The mark of a statement after the last cell: it shows that the lines of all cells have arrived.
    END = 0

    def begin(self) -> None:
        self.lines: dict[tuple[int, str], list[str]] = {}
        self.marked = {"stdout": self.END, "stderr": self.END}

    async def mark_and_execute(self, mark: int, i: int, source: str) -> None:
        """Executes `source` after a mark. Cell `i` gets the outputs and the number and keeps its source."""
        cell = self.nb.cells[i]
        marked = nbformat.v4.new_code_cell(f"mem2gen::notebook::mark({mark});{source}", id=cell.id)
        try:
            await self.async_execute_cell(marked, i, store_history=True)
        finally:
            # nbclient replaces the cell by the executed one.
            self.nb.cells[i] = cell
            if mark != self.END:
                cell.outputs, cell.execution_count = marked.outputs, marked.execution_count

    async def _async_poll_output_msg(self, parent_msg_id, cell, cell_index):
        while True:
            message = await self.kc.iopub_channel.get_msg(timeout=None)
            if message["msg_type"] == "stream":
                self.take_line(message["content"])
            elif message["parent_header"].get("msg_id") == parent_msg_id:
                try:
                    self.process_message(message, cell, cell_index)
                except CellExecutionComplete:
                    return

    def take_line(self, content) -> None:
        name, text = content["name"], content["text"]
        if mark := self.MARK.fullmatch(text):
            self.marked[name] = int(mark[1])
        else:
            self.lines.setdefault((self.marked[name], name), []).append(text)

    async def wait_for_lines(self, patience: float, complete: bool) -> None:
        """Takes late lines for at most `patience` seconds; with `complete`, until the last mark of both streams."""
        end = time.monotonic() + patience
        while not (complete and all(mark == self.END for mark in self.marked.values())):
            left = end - time.monotonic()
            try:
                message = await self.kc.get_iopub_msg(timeout=max(left, 0.0))
            except queue.Empty:
                if complete:
                    raise Failed(f"the kernel did not send all printed lines within {patience:g} s") from None
                return
            if message["msg_type"] == "stream":
                self.take_line(message["content"])

    def collect(self, notebook, i: int) -> None:
        """Sets the outputs of cell `i`: first printed lines, then displayed results."""
        cell = notebook.cells[i]
        cell.outputs = [
            nbformat.v4.new_output("stream", name=name, text="".join(self.lines[i + 1, name]))
            for name in ("stdout", "stderr")
            if (i + 1, name) in self.lines
        ] + [output for output in cell.outputs if output.output_type != "stream"]


async def run_cells(kernel: Kernel, notebook, code: list[int], env: dict[str, str], label: str) -> None:
    client = kernel.client
    began = time.monotonic()
    await kernel.start(env)
    client.begin()
    print(f"{label}: kernel ready after {time.monotonic() - began:.1f} s", flush=True)
    for i in code:
        cell, began = notebook.cells[i], time.monotonic()
        why = None
        try:
            await client.mark_and_execute(i + 1, i, cell.source)
        except CellExecutionError:
            why = "the kernel reported an error"
            await client.wait_for_lines(LATE_SECONDS, complete=False)
        except (DeadKernelError, asyncio.CancelledError):
            why = kernel.why_killed or "the kernel died"
        except CellTimeoutError as error:
            why = f"lost contact with the kernel: {short(str(error), 3)}"
        client.collect(notebook, i)
        if why and kernel.why_killed is None:
            check_outputs(cell, i + 1)
        if why:
            raise Failed(why, i + 1)
        check_outputs(cell, i + 1)
        print(f"{label}: cell {i + 1}/{len(notebook.cells)} {time.monotonic() - began:.2f} s", flush=True)
    await client.mark_and_execute(Cells.END, code[-1], "")
    await client.wait_for_lines(LATE_SECONDS * 10, complete=True)
    for i in code:
        client.collect(notebook, i)
        check_outputs(notebook.cells[i], i + 1)


async def execute(index: ix.Index, entry: ix.Notebook, profile: str):
    """One notebook in one fresh kernel. Returns the executed notebook."""
    finished = index.output(profile) / "notebooks" / f"{entry.name}.ipynb"
    failed = finished.with_suffix(".failed.ipynb")
    for old in (finished, failed):
        old.unlink(missing_ok=True)
    notebook = read_notebook(index.path(entry))
    code = check_form(notebook)
    for i in code:
        notebook.cells[i].outputs = []
        notebook.cells[i].execution_count = None
    scratch = Path(tempfile.mkdtemp(prefix="mem2gen-notebook-"))
    env = {k: v for k, v in os.environ.items() if k != "MEM2GEN_INTERACTIVE"}
    env |= {"MEM2GEN_ROOT": str(index.root), "MEM2GEN_PROFILE": profile, "TMPDIR": str(scratch)}
    limit = entry.limit_seconds[profile]
    client = Cells(
        notebook,
        kernel_name=KERNEL,
        timeout=None,
        startup_timeout=STARTUP_SECONDS,
        iopub_timeout=20,
        raise_on_iopub_timeout=True,
        force_raise_errors=True,
        skip_cells_with_tag="",
        allow_stdin=False,
        record_timing=False,
        resources={"metadata": {"path": str(index.root / "notebooks")}},
    )
    since = time.time()
    try:
        async with Kernel(client) as kernel:
            loop = asyncio.get_running_loop()
            alarm = loop.call_later(limit, lambda: kernel.kill(f"not finished after the limit of {limit:g} s"))
            try:
                await run_cells(kernel, notebook, code, env, entry.name)
            except Failed:
                raise
            except Exception as error:
                raise Failed(kernel.why_killed or f"{type(error).__name__}: {short(str(error), 4)}") from error
            finally:
                alarm.cancel()
        check_end(notebook, code, entry.name, profile)
        check_figures(index, entry, profile, since)
    except Failed:
        write_notebook(failed, notebook)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_notebook(finished, notebook)
    return notebook


def codes(notebook) -> list[str]:
    """The text of each code cell."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def check_tables(entry: ix.Notebook, notebook, code: list[int]) -> None:
    """Checks that the run read exactly the tables that the index lists."""
    read = {m[1] for i in code for line in stdout_lines(notebook.cells[i]) if (m := RECALLED.match(line))}
    if extra := read - set(entry.tables):
        raise Failed(f"the run read tables that figures.toml does not list: {', '.join(sorted(extra))}")
    if missing := set(entry.tables) - read:
        raise Failed(f"figures.toml lists tables that the run did not read: {', '.join(sorted(missing))}")


def committed_form(index: ix.Index, entry: ix.Notebook, profile: str, notebook):
    """The executed notebook for the commit: PNG outputs, without times and traces of the machine."""
    number = 0
    for i, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if "data" in output:
                if "image/svg+xml" in output.data and "image/png" not in output.data:
                    raise Failed("shows an SVG without a PNG", i + 1)
                output.data.pop("image/svg+xml", None)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Rust (mem2gen)", "language": "rust", "name": KERNEL},
            "language_info": {"file_extension": ".rs", "mimetype": "text/rust", "name": "Rust", "pygment_lexer": "rust"},
            "mem2gen": {
                "profile": profile,
                "cells_sha256": ix.cells_sha256(notebook.cells),
                "depends": record_of(House(index.root).parts(codes(notebook))),
                "tables": ix.tables_sha256(index, entry),
            },
        }
    )
    check_tables(entry, notebook, [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"])
    check_committable(index, notebook)
    return notebook


def check_committable(index: ix.Index, notebook) -> None:
    text = nbformat.writes(notebook)
    if len(text.encode()) >= COMMITTED_BYTES:
        raise Failed(f"the executed notebook has {len(text.encode())} bytes, expected at most {COMMITTED_BYTES}")
    home = os.path.expanduser("~")
    for path in {str(index.root), home, tempfile.gettempdir() + "/"} - {"/", "//"}:
        if path in text:
            where = next((i + 1 for i, c in enumerate(notebook.cells) if path in nbformat.writes(
                nbformat.v4.new_notebook(cells=[c]))), None)
            raise Failed(f"contains the path `{path}` of this machine", where)


def stale(index: ix.Index, entry: ix.Notebook, house: House) -> list[str]:
    """Reasons why the committed notebook may differ from a desk run of the present code."""
    try:
        notebook = read_notebook(index.path(entry))
        code = check_form(notebook)
    except Failed as error:
        return [str(error)]
    made = notebook.metadata.get("mem2gen")
    if not made:
        return ["it has no metadata of a run, so it was not executed"]
    reasons = []
    if made.get("profile") != "desk":
        reasons.append(f"it comes from profile {made.get('profile')}, expected desk")
    if made.get("cells_sha256") != ix.cells_sha256(notebook.cells):
        reasons.append("its cells changed after it was executed")
    try:
        if "depends" not in made:
            reasons.append("it has no record of what it depends on")
        elif changes := house.changes(codes(notebook), made["depends"]):
            reasons.append(changes)
    except BadSource as error:
        reasons.append(str(error))
    if made.get("tables") != ix.tables_sha256(index, entry):
        reasons.append("the tables that it was made from changed")
    try:
        for i in code:
            check_outputs(notebook.cells[i], i + 1)
        check_end(notebook, code, entry.name, "desk")
        check_tables(entry, notebook, code)
        check_committable(index, notebook)
    except Failed as error:
        reasons.append(str(error))
    return reasons


def check(index: ix.Index, entries: list[ix.Notebook]) -> int:
    bad = 0
    house = House(index.root)
    for entry in entries:
        for reason in stale(index, entry, house):
            bad += 1
            print(f"notebook {entry.name} is stale: {reason}", file=sys.stderr)
            print(f"  refresh: make notebooks PROFILE=desk UPDATE=1 ONLY={entry.name}", file=sys.stderr)
    listed = {n.name for n in index.notebooks}
    for path in sorted((index.root / "notebooks").glob("*.ipynb")):
        if path.stem not in listed:
            bad += 1
            print(f"notebook {path.name} is not listed in figures.toml", file=sys.stderr)
    if not bad:
        print(f"{len(entries)} committed notebooks are current")
    return 1 if bad else 0


async def run(index: ix.Index, entries: list[ix.Notebook], profile: str, update: bool) -> int:
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()

    def stop(name: str) -> None:
        interrupted.set()
        if Kernel.current is not None:
            Kernel.current.kill(f"interrupted by {name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number.name)
    bad = []
    for entry in entries:
        if interrupted.is_set():
            break
        began = time.monotonic()
        try:
            notebook = await execute(index, entry, profile)
            if update:
                write_notebook(index.path(entry), committed_form(index, entry, profile, notebook))
            print(f"{entry.name}: passed in {time.monotonic() - began:.1f} s", flush=True)
        except (Failed, ix.BadIndex, BadSource) as error:
            bad.append(entry.name)
            print(f"{entry.name}: FAILED: {error}", file=sys.stderr, flush=True)
    if interrupted.is_set():
        print("notebooks: interrupted", file=sys.stderr)
        return 130
    print(f"notebooks in profile {profile}: {len(entries) - len(bad)} passed, {len(bad)} failed", flush=True)
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=ix.PROFILES, default="desk")
    parser.add_argument("--only", action="append", metavar="NAME", help="run only this notebook; may be repeated")
    parser.add_argument("--update", action="store_true", help="replace the committed notebooks by the executed ones")
    parser.add_argument("--check", action="store_true", help="run nothing; list the committed notebooks that are stale")
    parser.add_argument("--root", type=Path, default=ix.ROOT, help="the project (for the tests of this runner)")
    args = parser.parse_args()
    if args.update and args.profile != "desk":
        parser.error("--update goes with --profile desk: committed notebooks come from there")
    try:
        index = ix.load(args.root.resolve())
        entries = list(index.notebooks)
        if args.only:
            if unknown := set(args.only) - {n.name for n in entries}:
                raise ix.BadIndex(f"figures.toml lists no notebook {', '.join(sorted(unknown))}")
            entries = [n for n in entries if n.name in args.only]
        if args.check:
            return check(index, entries)
        return asyncio.run(run(index, entries, args.profile, args.update))
    except (ix.BadIndex, BadSource) as error:
        print(f"notebooks: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
