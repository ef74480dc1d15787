"""Opens `report.html` of `mem2gen classify` in headless Chromium and compares it with the files beside it."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from browser import Browser, png  # noqa: E402

SIDE = 8
# Names that a page must not take for markup.
ODD = "<b>a&amp;'b\".png"


def program() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/mem2gen"


def folder(at: Path, images: list[bytes], first: str | None = None) -> Path:
    at.mkdir()
    for i, image in enumerate(images):
        name = first if i == 0 and first else f"{i:03}.png"
        (at / name).write_bytes(png(SIDE, SIDE, image))
    return at


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)
        place = tempfile.TemporaryDirectory(prefix="mem2gen-report-")
        cls.addClassCleanup(place.cleanup)
        cls.at = Path(place.name)
        # At a false discovery rate of 5 percent some draws have a false copy; this one has none.
        draw = random.Random(4)
        noise = lambda n: [draw.randbytes(SIDE * SIDE) for _ in range(n)]  # noqa: E731
        off = lambda image, level: bytes(v ^ level for v in image)  # noqa: E731
        train, new = noise(90), noise(3)
        # Copies of four images, of one of them three times; three new images three times each; 20 new images.
        copies = [train[0], off(train[0], 1), off(train[0], 2), off(train[1], 1), off(train[2], 2), off(train[3], 3)]
        samples = copies + [off(image, level) for image in new for level in (0, 1, 2)] + noise(20)
        sets = ("--train", folder(cls.at / "train", train, ODD), "--synthetic", folder(cls.at / "samples", samples, ODD))
        cls.whole = cls.classify("whole", *sets, "--held-out", folder(cls.at / "new", noise(200)), code=0)
        # Without repeats and held-out images nothing says what a repeat is.
        few = folder(cls.at / "few", [*copies[3:], *noise(20)])
        cls.part = cls.classify("part", *sets[:2], "--synthetic", few, "--delta-m", "0.5", code=3)

    @classmethod
    def classify(cls, out: str, *arguments, code: int) -> Path:
        command = [program(), "classify", *arguments, "--out", cls.at / out]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode != code:
            raise AssertionError(f"classify ended with {done.returncode}: {done.stderr}{done.stdout}")
        return cls.at / out

    def page(self, out: Path, width: int = 1100):
        """Opens the page alone in a folder, without the files beside it."""
        alone = self.at / f"alone-{out.name}"
        alone.mkdir(exist_ok=True)
        shutil.copy(out / "report.html", alone / "report.html")
        self.browser.driver.set_window_size(width, 900)
        self.assertEqual(self.browser.faults((alone / "report.html").as_uri(), maths=False), [])
        return self.browser.driver.execute_script

    def test_the_page_says_what_the_files_say(self):
        run = self.page(self.whole)
        numbers = json.loads((self.whole / "fractions.json").read_text())
        verdict = run("return document.querySelector('#verdict').textContent")
        self.assertEqual(verdict.lower(), numbers["verdict"].lower() + ".")
        self.assertIn("6 of 35 samples", verdict)
        self.assertIn("copies of 4 training images", verdict)
        with open(self.whole / "labels.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        copies = [row for row in rows if row["label"] == "memorized"]
        text = lambda query: run(  # noqa: E731
            f"return [...document.querySelectorAll({query!r})].map(e => e.innerText.trim().split('\\n')[0])"
        )
        # The originals that are shown with copies, apart from those of the next in line.
        shown = text(".group:has(.memorized) .original")
        self.assertEqual(sorted(shown), sorted({row["train_file"] for row in copies}))
        self.assertEqual(shown[0], ODD)
        self.assertEqual(sorted(text(".memorized")), sorted(row["sample_file"] for row in copies))
        repeats = [row["sample_file"] for row in rows if row["label"] == "spurious"]
        self.assertEqual(len(repeats), 9)
        self.assertEqual(sorted(text(".spurious")), sorted(repeats))
        self.assertEqual(run("return document.querySelectorAll('figure img').length"), 3)
        self.assertIn("--held-out", run("return document.querySelector('#command').textContent"))
        self.assertIn("read 90 images", run("return document.querySelector('#inputs').textContent").lower())

    def test_pictures_are_those_of_the_files(self):
        run = self.page(self.whole)
        # The first copy is exact: it and its original are the same picture, whose pixels are those of the file.
        sources = run("return [...document.querySelectorAll('.group:has(.memorized) img')].slice(0, 2).map(i => i.src)")
        self.assertEqual(sources[0], sources[1])
        pixels = run(
            "const i = document.querySelector('.group:has(.memorized) img'), c = document.createElement('canvas');"
            " c.width = i.naturalWidth; c.height = i.naturalHeight; const d = c.getContext('2d'); d.drawImage(i, 0, 0);"
            " const a = d.getImageData(0, 0, c.width, c.height).data; return [...a].filter((_, k) => k % 4 == 0)"
        )
        draw = random.Random(4)
        self.assertEqual(bytes(pixels), draw.randbytes(SIDE * SIDE))

    def test_nothing_is_cut_off_on_a_narrow_or_a_wide_window(self):
        for width in (500, 1400):
            run = self.page(self.whole, width)
            with self.subTest(width):
                self.assertLessEqual(*run("const r = document.scrollingElement; return [r.scrollWidth, r.clientWidth]"))

    def test_an_open_question_is_on_the_page(self):
        run = self.page(self.part)
        self.assertIn("repeat among the samples", run("return document.querySelector('#open').textContent"))
        labels = run("return [...document.querySelectorAll('#fractions td:first-child')].map(e => e.textContent)")
        self.assertEqual(labels, ["memorized", "new"])


if __name__ == "__main__":
    unittest.main()
