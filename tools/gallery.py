#!/usr/bin/env python3
"""Builds the gallery of one profile: a static page for each notebook and an index of all figures.

    gallery.py [--profile desk]      writes out/<profile>/gallery

The folder is self-contained: its pages load nothing from another host and render equations with the local KaTeX. Every
local link is checked before the old gallery is replaced.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

import index as ix

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } a { color: #0b57a4; } a.anchor-link { display: none; }
img, svg { max-width: 100%; height: auto; } pre { overflow-x: auto; padding: .6rem .8rem; margin: .4rem 0; }
.highlight { background: #f6f7f9; border-left: 3px solid #c9d3df; } .highlight pre { font-size: 85%; }
.jp-OutputArea-output pre { background: #fff; font-size: 85%; color: #333; }
table { border-collapse: collapse; font-size: 85%; margin: .6rem 0; display: block; overflow-x: auto; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; } nav { font-size: 90%; }
.jp-InputPrompt, .jp-OutputPrompt, .jp-Collapser, .prompt { display: none; }
figure { margin: 1.5rem 0; padding: 1rem; border: 1px solid #ddd; border-radius: 6px; }
figcaption { font-size: 92%; } .state { border-radius: 9px; padding: 0 .6rem; background: #e7edf4; font-size: 85%; }
.planned { background: #eee; color: #666; } .agrees { background: #dcf0df; } .differs { background: #f8e3d4; }
code { font-size: 88%; }
""" + HtmlFormatter(style="default").get_style_defs(".highlight")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<link rel="stylesheet" href="katex/katex.min.css">
<script defer src="katex/katex.min.js"></script>
<script defer src="katex/auto-render.min.js"></script>
<script defer src="maths.js"></script>
</head>
<body>
{body}
</body>
</html>
"""

# Only prose has formulas: a `$` in code or in an output stays a `$`.
MATHS = """
document.addEventListener("DOMContentLoaded", () => {
  for (const prose of document.querySelectorAll(".jp-RenderedMarkdown, .text_cell_render, .prose")) {
    renderMathInElement(prose, {
      delimiters: [
        { left: "$$", right: "$$", display: true }, { left: "\\\\[", right: "\\\\]", display: true },
        { left: "$", right: "$", display: false }, { left: "\\\\(", right: "\\\\)", display: false },
      ],
      throwOnError: false,
    });
  }
  document.documentElement.dataset.maths = "done";
});
"""


class Broken(Exception):
    """The gallery would not hold together."""


class Links(HTMLParser):
    """Collects what a page refers to, what it loads, and the anchors that it has."""

    def __init__(self):
        super().__init__()
        self.refers: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.in_style = False

    def handle_starttag(self, tag, attrs):
        self.in_style = tag == "style"
        given = {name: value for name, value in attrs if value}
        if name := given.get("id"):
            self.anchors.add(name)
        # Links are followed by readers; what any other element names in these attributes is loaded with the page.
        for name in ("href", "xlink:href", "action", "formaction"):
            if name in given:
                (self.refers if tag in ("a", "area", "form", "button") else self.loads).append(given[name])
        self.loads += [given[name] for name in ("src", "poster", "data", "background") if name in given]
        for name in ("srcset", "imagesrcset"):
            self.loads += [part.split()[0] for part in given.get(name, "").split(",") if part.strip()]
        self.loads += style_loads(given.get("style", ""))

    def handle_endtag(self, tag):
        self.in_style = self.in_style and tag != "style"

    def handle_data(self, data):
        if self.in_style:
            self.loads += style_loads(data)


def style_loads(text: str) -> list[str]:
    """What a style sheet loads: imports, backgrounds, fonts."""
    found = re.findall(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^)"'\s]*))\s*\)|@import\s+(?:"([^"]*)"|'([^']*)')""", text, re.IGNORECASE)
    return [target for groups in found for target in groups if target]


def read_links(path: Path) -> Links:
    links = Links()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        links.loads = style_loads(text)
    else:
        links.feed(text)
    return links


def check_links(folder: Path) -> int:
    """Every load is local, every local file and anchor is there. Returns how many links were looked at."""
    pages = {path: read_links(path) for kind in ("*.html", "**/*.css") for path in sorted(folder.glob(kind))}
    count = 0
    for page, links in pages.items():
        for target in links.loads:
            parts = urlsplit(target)
            if parts.netloc or parts.scheme not in ("", "data"):
                raise Broken(f"{page.name} loads {target[:80]} from another host")
        for target in links.refers:
            # Browsers leave out control characters and spaces before the scheme.
            if re.match(r"[\x00-\x20]*(javascript|vbscript|data)\s*:", target, re.IGNORECASE):
                raise Broken(f"{page.name} links to {target[:80]}, which is a program")
        for target in links.refers + [t for t in links.loads if not t.startswith("data:")]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not file.is_file() or not file.is_relative_to(folder.resolve()):
                raise Broken(f"{page.name} links to {target}, which is not in the gallery")
            if parts.fragment and file.suffix == ".html":
                anchors = (pages.get(file) or read_links(file)).anchors
                if unquote(parts.fragment) not in anchors:
                    raise Broken(f"{page.name} links to {target}, but the page has no such anchor")
    return count


def cell_anchor(notebook, figure: ix.Figure) -> str:
    """The anchor of the cell that names the figure; empty, the top of the page, when no cell does."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and f'"{figure.id}"' in cell.source:
            return f"#cell-{cell.id}"
    return ""


def notebook_page(entry: ix.Notebook, notebook) -> str:
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.exclude_anchor_links = True
    parts = []
    # Cell by cell, so that each cell gets its own anchor with any template.
    for cell in notebook.cells:
        one = nbformat.v4.new_notebook(cells=[cell], metadata=notebook.metadata)
        body, _ = exporter.from_notebook_node(one)
        parts.append(f'<section id="cell-{html.escape(cell.id)}">\n{body}\n</section>')
    body = re.sub(r'href="(\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', "\n".join(parts))
    head = '<nav><a href="index.html">All figures</a></nav>'
    return PAGE.format(title=html.escape(entry.title), body=f"{head}\n<main>\n{body}\n</main>")


def figure_block(figure: ix.Figure, target: str, kinds: list[str]) -> str:
    name = html.escape(figure.id)
    picture = f'<a href="{target}"><img src="figures/{name}.png" alt="{html.escape(figure.title)}"></a>' if kinds else ""
    files = " · ".join(f'<a href="figures/{name}.{kind}">{kind.upper()}</a>' for kind in kinds) or "not drawn in this profile"
    return (
        f'<figure id="{name}">{picture}<figcaption class="prose">'
        f'<strong>{html.escape(figure.paper)}</strong> <span class="state {figure.state}">{figure.state}</span> '
        f"{html.escape(figure.title)}<br><code>{name}</code> · <a href=\"{target}\">notebook</a> · {files} · "
        f"<code>{html.escape(figure.command)}</code></figcaption></figure>"
    )


def build(index: ix.Index, profile: str, katex: Path) -> Path:
    """Writes the gallery of `profile` and returns its folder."""
    output = index.output(profile)
    target = output / "gallery"
    output.mkdir(parents=True, exist_ok=True)
    if not (katex / "katex.min.js").is_file():
        raise Broken(f"{katex} has no KaTeX; run `make setup`")
    work = Path(tempfile.mkdtemp(dir=output, prefix=".gallery-"))
    try:
        work.chmod(0o755)
        shutil.copytree(katex, work / "katex")
        (work / "figures").mkdir()
        (work / "style.css").write_text(CSS, encoding="utf-8")
        (work / "maths.js").write_text(MATHS, encoding="utf-8")
        sections = []
        for entry in index.notebooks:
            source = output / "notebooks" / f"{entry.name}.ipynb"
            if not source.is_file():
                raise Broken(f"{entry.name} has no run in profile {profile}; run `make notebooks PROFILE={profile}`")
            notebook = nbformat.read(source, as_version=4)
            (work / f"{entry.name}.html").write_text(notebook_page(entry, notebook), encoding="utf-8")
            blocks = []
            for figure in index.figures_of(entry):
                kinds = []
                for kind in ("png", "svg"):
                    drawn = output / "figures" / f"{figure.id}.{kind}"
                    if drawn.is_file():
                        shutil.copy(drawn, work / "figures")
                        kinds.append(kind)
                if figure.drawn_in(profile) and kinds != ["png", "svg"]:
                    raise Broken(f"the figure {figure.id} is not in {output / 'figures'}; run the notebooks again")
                where = f"{entry.name}.html{cell_anchor(notebook, figure)}"
                blocks.append(figure_block(figure, where, kinds if "png" in kinds else []))
            sections.append(
                f'<section id="{entry.name}"><h2><a href="{entry.name}.html">{html.escape(entry.title)}</a></h2>'
                f'<p class="prose">{html.escape(entry.summary)}</p>{"".join(blocks)}</section>'
            )
        tables = sorted(p for p in (output / "tables").glob("*") if p.is_file()) if (output / "tables").is_dir() else []
        if tables:
            (work / "tables").mkdir()
            rows = []
            for path in tables:
                shutil.copy(path, work / "tables")
                name = html.escape(path.name)
                rows.append(f'<li><a href="tables/{name}">{name}</a> ({path.stat().st_size / 1000:.0f} kB)</li>')
            sections.append(f'<section id="tables"><h2>Tables</h2><ul>{"".join(rows)}</ul></section>')
        body = f'<h1>Figures, profile {profile}</h1>\n<main>\n{"".join(sections)}\n</main>'
        (work / "index.html").write_text(PAGE.format(title="mem2gen: figures", body=body), encoding="utf-8")
        check_links(work)
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=output, prefix=".gallery-old-"))
            target.rename(old / "gallery")
            work.rename(target)
            shutil.rmtree(old)
        else:
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=ix.PROFILES, default="desk")
    parser.add_argument("--root", type=Path, default=ix.ROOT)
    args = parser.parse_args()
    try:
        folder = build(ix.load(args.root.resolve()), args.profile, ix.ROOT / ".mem2gen/katex")
    except (Broken, ix.BadIndex) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    print(f"gallery: {folder / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
