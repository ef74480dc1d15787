"""Documents against the code: each link of docs/equations.md names a file that defines the item."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"\[`([^`]+)`\]\(([^)#]+)\)")
ANY_LINK = re.compile(r"\]\(((?!https?:)[^)#\s]+)")


def defines(source: str, item: str) -> bool:
    return re.search(rf"\b(?:fn|struct|enum|trait|type|const)\s+{re.escape(item)}\b", source) is not None


def broken(text: str, folder: Path) -> list[str]:
    """What is wrong with the links of a page that lies in `folder`."""
    wrong = []
    for item, target in LINK.findall(text):
        path = folder / target
        if not path.is_file():
            wrong.append(f"{item}: there is no file {target}")
        elif path.suffix == ".rs" and not defines(path.read_text(encoding="utf-8"), item):
            wrong.append(f"{item}: {target} does not define it")
    return wrong


class Links(unittest.TestCase):
    def test_equations_lead_to_their_functions(self) -> None:
        text = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
        self.assertGreater(len(LINK.findall(text)), 40)
        self.assertEqual(broken(text, ROOT / "docs"), [])

    def test_a_wrong_link_is_found(self) -> None:
        wrong = "[`Nothing`](../src/lib.rs) [`Class`](../src/no_file.rs) [`Class`](../src/class.rs)"
        found = broken(wrong, ROOT / "docs")
        self.assertEqual(len(found), 2)
        self.assertIn("does not define it", found[0])
        self.assertIn("no file", found[1])

    def test_every_relative_link_of_a_page_exists(self) -> None:
        pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
        missing = []
        for page in pages:
            for target in ANY_LINK.findall(page.read_text(encoding="utf-8")):
                if not (page.parent / target).exists():
                    missing.append(f"{page.relative_to(ROOT)}: {target}")
        self.assertEqual(missing, [])


if __name__ == "__main__":
    unittest.main()
