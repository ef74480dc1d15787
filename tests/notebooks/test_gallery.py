"""Opens the pages in headless Chromium: images load, links work, formulas are rendered,
and no page sends a request to another host.

The tests make a small gallery from notebooks without a kernel. `MEM2GEN_GALLERY` and `MEM2GEN_DOCS` name a real gallery
and real documentation that are tested too; `make test` sets both.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(HERE))

import nbformat  # noqa: E402
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output  # noqa: E402
import gallery  # noqa: E402
import index as ix  # noqa: E402
import figures_table  # noqa: E402
from browser import Browser, png  # noqa: E402

KATEX = ROOT / ".mem2gen/katex"


INDEX = """
[[notebook]]
name = "first"
title = "First & foremost"
summary = "About $E(x) = x^2$."
limit_seconds = { smoke = 1, desk = 1, paper = 1 }
tables = []

[[figure]]
id = "parabola"
notebook = "first"
paper = "Fig. 1"
title = "A parabola with $\\\\beta = 2$ | and a bar"
command = "make notebooks"
data = "none"
profile = "smoke"
state = "drawn"

[[figure]]
id = "later"
notebook = "first"
paper = "Fig. 2"
title = "Not there yet"
command = "make notebooks"
data = "none"
profile = "paper"
state = "planned"
"""


def project(root: Path, prose: str = "") -> Path:
    out = root / "out/smoke"
    for part in ("notebooks", "figures", "tables"):
        (out / part).mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "notebooks/figures.toml").write_text(INDEX)
    picture = png()
    (out / "figures/parabola.png").write_bytes(picture)
    (out / "figures/parabola.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"/>')
    (out / "tables/numbers.parquet").write_bytes(b"PAR1")
    data = {"image/png": base64.b64encode(picture).decode(), "text/plain": "figure"}
    table = {"text/html": "<table><tr><td>costs $5 or $6</td></tr></table>"}
    cells = [
        new_markdown_cell(f"# First\nHere $a_1 + b$ and\n\n$$\\sum_i e^{{-\\beta x_i^2}}$$\n\n{prose}"),
        new_code_cell('show("parabola")', outputs=[new_output("execute_result", data=data, execution_count=1)], execution_count=1),
        new_code_cell("table", outputs=[new_output("execute_result", data=table, execution_count=2)], execution_count=2),
    ]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": {"name": "mem2gen", "display_name": "Rust"}}),
                   out / "notebooks/first.ipynb")
    return root


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mem2gen-gallery-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def build(self, prose: str = "") -> Path:
        return gallery.build(ix.load(project(self.folder / "p", prose)), "smoke", KATEX)

    def whole(self, folder: Path) -> int:
        """Opens all pages of a gallery; returns the number of rendered formulas and images."""
        gallery.check_links(folder)
        seen = 0
        pages = sorted(folder.glob("*.html"))
        self.assertTrue(pages)
        for page in pages:
            self.assertEqual(self.browser.faults(page.as_uri()), [], page.name)
            seen += self.browser.driver.execute_script("return document.images.length + document.querySelectorAll('.katex').length")
            for target in self.browser.driver.execute_script(
                "return [...document.querySelectorAll('a[href]')].map(a => a.href).filter(h => h.startsWith('file:'))"
            ):
                path = urlsplit(target).path
                self.assertTrue(Path(path).is_file(), f"{page.name}: {target}")
        return seen

    def test_a_gallery_is_complete(self):
        folder = self.build("A link to [itself](first.ipynb).")
        # Index: image and two formulas. Page: image and two formulas; `$5 or $6` in an output stays.
        self.assertEqual(self.whole(folder), 6)
        text = (folder / "index.html").read_text()
        for word in ('id="parabola"', "Fig. 1", "figures/parabola.svg", "tables/numbers.parquet", "not drawn in this profile"):
            self.assertIn(word, text)
        self.assertRegex(text, r'href="first.html#cell-[\w-]+"')

    def test_a_second_gallery_replaces_the_first(self):
        folder = self.build()
        (folder / "left-over").write_text("old")
        gallery.build(ix.load(self.folder / "p"), "smoke", KATEX)
        self.assertFalse((folder / "left-over").exists())
        self.assertEqual([p.name for p in (self.folder / "p/out/smoke").glob(".gallery*")], [])

    def test_the_browser_sees_faults(self):
        folder = self.build()
        page = folder / "first.html"
        good = page.read_text()
        for old, new, why in (
            ("data:image/png;base64,", "data:image/png;base64,AAAA", "image does not load"),
            ("</main>", '<p class="prose">$x^2^3$</p></main>', "formula has an error"),
            ("</main>", '<p class="prose">$\\nosuchthing x$</p></main>', "formula has an unknown command"),
            ("</main>", '<img src="http://elsewhere.invalid/x.png"></main>', "asks another host"),
        ):
            with self.subTest(why):
                self.assertIn(old, good)
                page.write_text(good.replace(old, new, 1))
                faults = self.browser.faults(page.as_uri())
                self.assertTrue(any(why in f for f in faults), faults)
        page.write_text(good)
        script = folder / "maths.js"
        script.write_text(script.read_text().replace('left: "$$"', 'left: "@@"').replace('left: "$"', 'left: "@"'))
        self.assertTrue(any("not rendered" in f for f in self.browser.faults(page.as_uri())))

    def test_broken_links_and_missing_figures_stop_the_build(self):
        for prose, why in (
            ("[gone](gone.html)", "not in the gallery"),
            ("[gone](index.html#nowhere)", "no such anchor"),
            ("![x](http://elsewhere.invalid/x.png)", "from another host"),
            ("<style>@import 'http://elsewhere.invalid/x.css';</style>", "from another host"),
            ('<p style="background: url(//elsewhere.invalid/x.png)">x</p>', "from another host"),
            ('<object data="http://elsewhere.invalid/x.svg"></object>', "from another host"),
            ('<video poster="http://elsewhere.invalid/x.png"></video>', "from another host"),
            ('<img srcset="figures/x.png 1x, http://elsewhere.invalid/x.png 2x">', "from another host"),
            ('<a href=" javascript:alert(1)">x</a>', "is a program"),
            ("[up](../../../x)", "not in the gallery"),
        ):
            with self.subTest(prose), self.assertRaisesRegex(gallery.Broken, why):
                shutil.rmtree(self.folder / "p", ignore_errors=True)
                self.build(prose)
        (self.folder / "p/out/smoke/figures/parabola.svg").unlink()
        with self.assertRaisesRegex(gallery.Broken, "figure parabola"):
            gallery.build(ix.load(self.folder / "p"), "smoke", KATEX)
        (self.folder / "p/out/smoke/notebooks/first.ipynb").unlink()
        with self.assertRaisesRegex(gallery.Broken, "no run in profile smoke"):
            gallery.build(ix.load(self.folder / "p"), "smoke", KATEX)

    @unittest.skipUnless(os.environ.get("MEM2GEN_GALLERY"), "MEM2GEN_GALLERY names no gallery")
    def test_the_real_gallery_is_complete(self):
        self.assertGreater(self.whole(Path(os.environ["MEM2GEN_GALLERY"]).resolve()), 0)

    @unittest.skipUnless(os.environ.get("MEM2GEN_DOCS"), "MEM2GEN_DOCS names no documentation")
    def test_documentation_renders_its_formulas(self):
        folder = Path(os.environ["MEM2GEN_DOCS"]).resolve()
        # rustdoc's pages load modules, which a browser refuses on file: pages.
        handler = partial(Quiet, directory=str(folder))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                pages = [p for p in sorted(folder.glob("mem2gen/**/*.html")) if "$" in visible(p)]
                self.assertTrue(pages, "no page of the documentation has a formula")
                rendered = 0
                for page in pages:
                    url = f"http://127.0.0.1:{server.server_port}/{page.relative_to(folder).as_posix()}"
                    self.assertEqual(self.browser.faults(url), [], page)
                    rendered += self.browser.driver.execute_script("return document.querySelectorAll('.katex').length")
                self.assertGreater(rendered, 0)
            finally:
                server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def visible(page: Path) -> str:
    """The body of the page; the head contains the script that looks for `$`."""
    return page.read_text(encoding="utf-8").partition("</head>")[2]


class FiguresTable(unittest.TestCase):
    def test_the_table_is_written_between_its_marks_and_checked(self):
        with tempfile.TemporaryDirectory() as folder:
            root = project(Path(folder) / "p")
            page = root / "docs" / "figures.md"
            page.parent.mkdir(exist_ok=True)
            script = [sys.executable, str(ROOT / "tools/figures_table.py"), "--root", str(root)]

            def call(*arguments):
                return subprocess.run([*script, *arguments], capture_output=True, text=True, check=False)

            page.write_text("# x\n")
            self.assertIn("needs the lines", call().stderr)
            page.write_text(f"# x\n{figures_table.BEGIN}\nold\n{figures_table.END}\nrest\n")
            self.assertEqual(call("--check").returncode, 1)
            self.assertEqual(call().returncode, 0)
            self.assertEqual(call("--check").returncode, 0)
            text = page.read_text()
            self.assertIn("| `parabola` | Fig. 1 |", text)
            self.assertIn("\\| and a bar", text)
            self.assertTrue(text.startswith("# x\n") and text.endswith("rest\n"))


if __name__ == "__main__":
    unittest.main()
