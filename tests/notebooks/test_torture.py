"""What `tools/torture.py` calls bad: planted faults of a call are found, and a clear refusal is not one."""

import random
import sys
import tempfile
import unittest
import zipfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import torture  # noqa: E402
from torture import Said, Torture  # noqa: E402

WORDS = ["mem2gen", "knn", "--out", "/tmp/some/folder/T.parquet"]


def faults(code: int | None, err: str, allowed: tuple[int, ...] = ()) -> list[str]:
    place = Torture(Path("mem2gen"), 1, Path("/nowhere"))
    return place.faults(Said(code, b"", err.encode(), 1.0), WORDS, allowed)


class Faults(unittest.TestCase):
    def test_a_clear_refusal_and_a_success_have_none(self) -> None:
        progress = "sampling: 40/200, 20/s, 8 s left\n"
        self.assertEqual(faults(2, "mem2gen knn: k is 0, expected 1 to 9\n"), [])
        self.assertEqual(faults(1, progress + "mem2gen knn: write /tmp/some/folder/T.parquet: disk full\n"), [])
        self.assertEqual(faults(0, progress), [])
        self.assertEqual(faults(130, "mem2gen knn: stopped by SIGINT\n", (130,)), [])

    def test_planted_faults_are_found(self) -> None:
        good = "mem2gen knn: k is 0\n"
        for code, err in (
            (None, ""),
            (101, "thread 'main' panicked at src/main.rs:1:1:\nno\n"),
            (134, "memory allocation of 9 bytes failed\n"),
            (-11, ""),
            (130, "mem2gen knn: stopped by SIGINT\n"),
            (1, ""),
            (1, good + "and another line\n"),
            (1, "mem2gen knn: a\x1b[31mb\n"),
            (1, "mem2gen knn: " + "x" * 700 + "\n"),
            (1, "mem2gen knn: write /tmp/some/folder/.mem2gen-ab12: disk full\n"),
        ):
            with self.subTest(code=code, err=err):
                self.assertNotEqual(faults(code, err), [])

    def test_torn_and_missing_results_and_leftovers_are_found(self) -> None:
        call = torture.Call("knn", "knn", ("T.npy",))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            place = Torture(Path("mem2gen"), 1, folder)
            body = torture.npy("<f4", (1, 2), bytes(8))
            place.reference[call] = {"T.npy": body}
            self.assertEqual(place.compared(call, folder, complete=False), [])
            self.assertNotEqual(place.compared(call, folder, complete=True), [])
            (folder / "T.npy").write_bytes(body)
            self.assertEqual(place.compared(call, folder, complete=True) + place.leftovers(folder), [])
            (folder / "T.npy").write_bytes(body[:-1])
            (folder / ".mem2gen-ab12").write_bytes(b"")
            self.assertEqual(len(place.compared(call, folder, complete=False) + place.leftovers(folder)), 2)
            (folder / "T.npy").write_bytes(torture.npy("<f4", (1, 2), b"\0\0\xc0\x7f" * 2))
            self.assertIn("not finite", torture.not_finite(folder / "T.npy"))


class Damage(unittest.TestCase):
    def test_the_seed_decides_the_damage_and_an_archive_stays_readable(self) -> None:
        whole = torture.zipped([("a.npy", torture.npy("<f4", (4, 4), bytes(64)))])
        one, two = (torture.damaged(whole, b"other", random.Random(5)) for _ in range(2))
        self.assertEqual(one, two)
        inside = torture.within(whole, b"other", random.Random(5))
        self.assertIsNone(zipfile.ZipFile(BytesIO(inside)).testzip())
        self.assertNotEqual(inside, whole)


if __name__ == "__main__":
    unittest.main()
