"""Which changes make a notebook stale, and which imports the floors allow: in small crates and in this one."""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import house  # noqa: E402
import rust  # noqa: E402

CRATE = {
    "Cargo.toml": """
[package]
name = "mem2gen"
version = "0.1.0"
[dependencies]
normal = "1"
renamed = { package = "real-name", version = "1", features = ["fast"] }
[dev-dependencies]
tester = "1"
[features]
quick = []
""",
    "Cargo.lock": """
version = 4
[[package]]
name = "mem2gen"
version = "0.1.0"
dependencies = ["normal", "real-name", "tester"]
[[package]]
name = "normal"
version = "1.0.0"
source = "registry"
checksum = "aa"
dependencies = ["inner 2.0.0"]
[[package]]
name = "inner"
version = "1.0.0"
[[package]]
name = "inner"
version = "2.0.0"
checksum = "bb"
[[package]]
name = "real-name"
version = "1.0.0"
[[package]]
name = "tester"
version = "1.0.0"
dependencies = ["inner 1.0.0"]
""",
    "data/profiles/desk.toml": 'beta = 20.0\nplans = ["small"]\n',
    "data/profiles/smoke.toml": "beta = 1.0\n",
    "data/plans/small.toml": "k = [2, 9]\n",
    "data/plans/large.toml": "k = [60000]\n",
    "kernels/add.cu": "// adds\n__global__ void add(float* x) { *x += 1.0f; }\n",
    "data/toy/points.npy": "points",
    "src/lib.rs": """
//! The crate.
mod analyse;
mod facade;
pub mod ground;
mod picked;
pub mod notebook;
pub mod prelude;
pub mod study;
mod unrelated;
#[cfg(test)]
mod only_tests;
""",
    "src/only_tests.rs": "fn helper() -> u8 { 1 }\n",
    "src/prelude.rs": """
pub use crate::notebook::{Run, begin};
pub use crate::study::{self, toy_ladder};
pub use crate::facade::*;
pub use crate::ground::Blanket;
pub use normal::Thing;
""",
    "src/notebook.rs": """
use crate::ground::Settings;
pub struct Run { pub settings: Settings }
pub fn begin(_: &str) -> Run { Run { settings: Settings::named("desk") } }
pub fn install() {}
#[macro_export]
macro_rules! __mem2gen_eprintln { ($($t:tt)*) => { $crate::notebook::question_mark() }; }
pub use crate::__mem2gen_eprintln as eprintln;
pub fn question_mark() {}
impl Run {
    pub fn evcxr_display(&self) { print!("{}", 77) }
    pub fn never_called(&self) -> u8 { 78 }
}
""",
    "src/ground.rs": """
#[derive(Default)]
pub struct Settings { pub beta: f64, #[with(default = "seed")] pub seed: u64, pub rows: [u8; 4] }
fn seed() -> u64 { 11 }
pub const PROFILES: [&str; 2] =
    [include_str!("../data/profiles/desk.toml"), include_str!("../data/profiles/smoke.toml")];
impl Settings {
    pub fn named(_: &str) -> Self { let _ = PROFILES; Self::default() }
}
pub trait Score { fn score(&self, x: f64) -> f64; fn twice(&self, x: f64) -> f64 { 2.0 * self.score(x) } }
pub trait Blanket { fn or_stop(&self) -> u8; }
impl<T> Blanket for T { fn or_stop(&self) -> u8 { 21 } }
""",
    "src/study/mod.rs": """
mod ladder;
mod other;
pub use ladder::toy_ladder;
pub use other::*;
""",
    "src/study/ladder.rs": """
use std::f64::consts;
use crate::analyse::toy::{self, Ladder as Rows, LIMIT};
use crate::ground::Score;
use crate::notebook::Run;
/// The ladder.
#[must_use]
pub fn toy_ladder(run: &Run) -> f64 {
    const NAME: &str = "mean of {LIMIT}";
    let rows: Rows<3> = toy::rows(run.settings.beta, 4);
    let text = format!("{LIMIT} {NAME}");
    let s = match text.len() { 0 => consts::PI, 1 => 1.5, _ => rows.twice(2.5) };
    let Some(all) = Some(s) else { return 0.0 };
    let here = match all { 0.0 => { drop(s); 0.5 } 1.0 => return 2.0, _ => at_caller!() };
    rows.values.iter().map(|v| v + s).sum::<f64>() + here
}
fn only_here() -> f64 { 81.0 }
#[cfg(test)]
mod tests { #[test] fn works() { assert_eq!(1, 1); } }
""",
    "src/study/other.rs": """
use crate::unrelated::deep;
pub fn unused() -> u8 { deep() }
""",
    "src/picked.rs": "pub fn inside() -> u8 { 51 }\npub struct Hidden;\nmacro_rules! at_caller { () => { only_here() }; }\n",
    "src/unrelated.rs": "pub fn deep() -> u8 { 3 }\n",
    "src/facade.rs": """
pub use crate::analyse::table as shown;
pub mod inner { pub fn in_facade() -> u8 { 31 } }
fn holder() {
    use crate::picked::Hidden;
    impl crate::ground::Score for Hidden { fn score(&self, x: f64) -> f64 { x + 71.0 } }
}
""",
    "src/analyse/mod.rs": """
pub mod toy;
mod score_of;
pub fn table() -> &'static [u8] { include_bytes!("../../data/toy/points.npy") }
pub fn kernel() -> &'static str { include_str!("../../kernels/add.cu") }
pub fn plans() -> &'static str { "data/plans" }
""",
    "src/analyse/toy.rs": """
use crate::ground::Score;
use crate::picked;
macro_rules! square { ($x:expr) => { $x * scale($x) + 5.0 }; }
macro_rules! rule { ($name:ident, $n:literal) => { pub fn $name() -> u8 { $n } }; }
rule!(made_by_rule, 61);
macro_rules! scored {
    ($t:ty) => { impl crate::ground::Score for $t { fn score(&self, x: f64) -> f64 { x * 41.0 } } };
}
scored!(Other);
macro_rules! of { ($m:ident) => { $m::inside() }; }
pub struct Other;
pub static LIMIT: u8 = 9;
pub struct Ladder<const N: usize> { pub values: Vec<f64> }
fn scale(x: f64) -> f64 { x / 3.0 }
pub fn rows<const N: usize>(beta: f64, n: u8) -> Ladder<N> {
    let all = (0..n).map(|i| square!(beta + f64::from(i)));
    #[cfg(unix)]
    let all = all.map(|x| x + 0.25);
    let _ = made_by_rule();
    let _ = (Other.twice(1.0), of!(picked), picked::Hidden.twice(1.0));
    Ladder { values: all.collect() }
}
""",
    "src/analyse/score_of.rs": """
use super::toy::Ladder;
use crate::ground::Score;
impl<const N: usize> Score for Ladder<N> {
    fn score(&self, x: f64) -> f64 {
        x + 0.125
    }
}
""",
}
CELLS = [
    'let run: Run = begin("x");',
    'println!("{}", toy_ladder(&run)); run.or_stop();',
    "shown(); inner::in_facade()",
]


class Crates(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mem2gen-house-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def house(self, files: dict[str, str]) -> house.House:
        for old in [p for p in self.root.rglob("*") if p.is_file()]:
            old.unlink()
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return house.House(self.root)

    def record(self, files: dict[str, str], cells=CELLS) -> dict[str, str]:
        return house.record_of(self.house(files).parts(cells))


def changed(edits: dict[str, list[tuple[str, str]]] | None = None, **new: str) -> dict[str, str]:
    """The small crate with texts replaced."""
    files = dict(CRATE)
    for name, pairs in (edits or {}).items():
        for old, text in pairs:
            assert files[name].count(old) == 1, (name, old)
            files[name] = files[name].replace(old, text)
    return files | new


LADDER, TOY, GROUND = "src/study/ladder.rs", "src/analyse/toy.rs", "src/ground.rs"

# Changes that must not make a notebook stale.
SAME = {
    "line comments": {
        LADDER: [("    let rows", "    // why\n    let rows")],
        TOY: [("\nfn scale", "\n/// Doc.\n//// no doc\nfn scale")],
    },
    "block comments, nested": {TOY: [("x / 3.0", "x /* a /* b */ ' \" */ / 3.0")]},
    "documentation": {LADDER: [("/// The ladder.", '//! Inner.\n#[doc = "Other."]\n/** More. */')]},
    "lints and hints": {
        LADDER: [("#[must_use]", '#[inline]\n#[allow(dead_code)]\n#[expect(clippy::all, reason = "x")]')]
    },
    "visibility": {TOY: [("\nfn scale", "\npub(crate) fn scale"), ("pub values", "pub(in crate::analyse) values")]},
    "white space": {TOY: [("x / 3.0", "x\n\n   /3.0")]},
    "commas at the end of lists": {
        TOY: [
            ("(beta: f64, n: u8)", "(\n    beta: f64,\n    n: u8,\n)"),
            ("fn scale(x: f64)", "fn scale(\n    x: f64,\n)"),
        ],
        LADDER: [
            ("toy::rows(run.settings.beta, 4)", "toy::rows(\n  run.settings.beta,\n  4,\n )"),
            ("_ => rows.twice(2.5) }", "_ => rows.twice(2.5), }"),
        ],
    },
    "braces around the body of an arm or a closure": {
        LADDER: [
            ("1 => 1.5, _ => rows.twice(2.5) }", "1 => { 1.5 } _ => {\n rows.twice(2.5)\n} }"),
            ("|v| v + s", "|v| { v + s }"),
            ("0.5 } 1", "0.5 }, 1"),
        ]
    },
    "semicolons after what leaves a block": {
        LADDER: [("else { return 0.0 }", "else {\n return 0.0;\n}"), ("=> return 2.0,", "=> {\n return 2.0;\n}")]
    },
    "tests": {
        LADDER: [
            ("assert_eq!(1, 1)", "assert_eq!(2, 2)"),
            ("#[must_use]", "#[cfg(test)]\nuse std::fs;\n#[test]\nfn t() {}\n#[must_use]"),
        ],
        TOY: [
            ("    let _ = made", "    #[cfg(test)]\n    let all = all.rev();\n    let _ = made"),
            ("pub values: Vec<f64>", "pub values: Vec<f64>, #[cfg(all(test, unix))] pub extra: u8"),
        ],
        GROUND: [("    pub fn named", "    #[cfg(test)]\n    fn for_tests() -> u8 { 5 }\n    pub fn named")],
        "src/only_tests.rs": [("{ 1 }", "{ 2 }")],
    },
    "a path in place of a `use`": {
        LADDER: [
            ("use crate::ground::Score;\n", ""),
            ("rows.twice(2.5)", "rows.twice(2.5)"),
            ("use std::f64::consts;\n", "use crate::ground::{Score as _};\n"),
            ("consts::PI", "std::f64::consts::PI"),
            ("toy::rows(", "crate::analyse::toy::rows("),
        ]
    },
    "a `use` in place of a path": {
        LADDER: [
            ("toy::{self, Ladder as Rows, LIMIT}", "toy::{Ladder as Rows, LIMIT, rows as made}"),
            ("toy::rows(", "made("),
        ]
    },
    "another alias": {LADDER: [("Ladder as Rows", "Ladder"), ("let rows: Rows<3>", "let rows: Ladder<3>")]},
    "a `use` in a body": {
        LADDER: [("use std::f64::consts;\n", ""), ("    const NAME", "    use std::f64::consts;\n    const NAME")]
    },
    "another re-export": {"src/study/mod.rs": [("pub use ladder::toy_ladder;", "pub use self::ladder::*;")]},
    "order of items": {
        TOY: [("pub static LIMIT: u8 = 9;\n", ""), ("\nfn scale", "\npub static LIMIT: u8 = 9;\nfn scale")]
    },
    "code that nothing reaches": {
        "src/unrelated.rs": [("3", "4")],
        "src/study/other.rs": [("deep() }", "deep() + 1 }")],
        "src/notebook.rs": [("78", "79")],
    },
    "new code that nothing reaches": {TOY: [("\nfn scale", "\nfn fresh() -> u8 { 1 }\nfn scale")]},
    "another item of the same name that nothing reaches": {
        "src/unrelated.rs": [("pub fn deep", "pub fn scale() {}\npub fn deep")]
    },
    "comments in data": {
        "data/profiles/desk.toml": [("beta = 20.0", "# hot\nbeta   =  20.0")],
        "kernels/add.cu": [("// adds", "/* adds one */")],
    },
    "data that is not read": {"data/profiles/smoke.toml": [("1.0", "2.0")], "data/plans/small.toml": [("9", "8")]},
    "packages of tests": {
        "Cargo.lock": [
            ('name = "tester"\nversion = "1.0.0"', 'name = "tester"\nversion = "1.1.0"'),
            ('name = "inner"\nversion = "1.0.0"\n', 'name = "inner"\nversion = "1.0.0"\nchecksum = "cc"\n'),
        ]
    },
}

# Changes that must make it stale, and the texts that the message must contain.
STALE = {
    "a number": (TOY, "x / 3.0", "x / 4.0", "fn scale (src/analyse/toy.rs)"),
    "an operator": (TOY, "x / 3.0", "x * 3.0", "fn scale"),
    "a constant": (LADDER, '"mean of', '"sum of', "fn toy_ladder (src/study/ladder.rs)"),
    "a constant in a format string alone": (TOY, "u8 = 9", "u8 = 8", "static LIMIT"),
    "a const generic": (LADDER, "Rows<3>", "Rows<4>", "fn toy_ladder"),
    "the size of an array": (GROUND, "[u8; 4]", "[u8; 5]", "struct Settings"),
    "a derive": (GROUND, "#[derive(Default)]", "#[derive(Default, Clone)]", "struct Settings"),
    "a function in an attribute": (GROUND, "{ 11 }", "{ 12 }", "fn seed"),
    "the body of a macro": (TOY, "+ 5.0", "+ 6.0", "macro square"),
    "an item that a macro makes": (TOY, "61", "62", "call rule"),
    "an impl that a macro makes": (TOY, "41.0", "42.0", "macro scored"),
    "an impl in a body": ("src/facade.rs", "71.0", "72.0", "fn holder (src/facade.rs)"),
    "a module that a macro is given": ("src/picked.rs", "51", "52", "fn inside (src/picked.rs)"),
    "a condition of a module": (
        "src/analyse/mod.rs",
        "mod score_of;",
        "#[cfg(unix)]\nmod score_of;",
        "impl Score for Ladder<N>",
    ),
    "code under cfg": (TOY, "x + 0.25", "x + 0.5", "fn rows"),
    "a condition of cfg": (TOY, "#[cfg(unix)]", "#[cfg(windows)]", "fn rows"),
    "an impl in another file": (
        "src/analyse/score_of.rs",
        "0.125",
        "0.25",
        "impl Score for Ladder<N> (src/analyse/score_of.rs)",
    ),
    "a method of a trait": (GROUND, "2.0 * self", "3.0 * self", "trait Score"),
    "an impl for every type": (GROUND, "{ 21 }", "{ 22 }", "impl Blanket for T"),
    "a function behind another name": ("src/analyse/mod.rs", "&'static [u8]", "&'static [i8]", "fn table"),
    "an inline module behind a glob": ("src/facade.rs", "31", "32", "fn in_facade"),
    "a method that the kernel calls": ("src/notebook.rs", "77", "76", "fn Run::evcxr_display"),
    "what another crate is meant": (LADDER, "std::f64::consts", "std::f32::consts", "fn toy_ladder"),
    "data": ("data/toy/points.npy", "points", "other", "file points.npy (data/toy/points.npy)"),
    "settings": ("data/profiles/desk.toml", "20.0", "21.0", "file desk.toml"),
    "a package": (
        "Cargo.lock",
        'name = "normal"\nversion = "1.0.0"',
        'name = "normal"\nversion = "1.0.1"',
        "package normal (Cargo.lock)",
    ),
    "a package of a package": ("Cargo.lock", '"bb"', '"dd"', "package inner"),
    "a package under another name": (
        "Cargo.lock",
        'name = "real-name"\nversion = "1.0.0"',
        'name = "real-name"\nversion = "1.0.1"',
        "package real-name",
    ),
    "what a macro names where it is called": (LADDER, "81.0", "82.0", "fn only_here"),
    "features of this crate": ("Cargo.toml", "quick = []", 'quick = ["normal"]', "dependencies (Cargo.toml)"),
    "features": ("Cargo.toml", '["fast"]', '["slow"]', "dependencies (Cargo.toml)"),
}


class Staleness(Crates):
    def test_harmless_changes_keep_the_hash(self):
        before = self.record(CRATE)
        for why, edits in SAME.items():
            with self.subTest(why):
                self.assertEqual(self.record(changed(edits)), before)

    def test_changes_of_results_change_the_hash_and_are_named(self):
        before = self.record(CRATE)
        for why, (name, old, new, named) in STALE.items():
            with self.subTest(why):
                said = self.house(changed({name: [(old, new)]})).changes(CELLS, before)
                self.assertIn(named, said)
                self.assertNotIn(" more", said)

    def test_without_a_change_there_is_no_message(self):
        self.assertEqual(self.house(CRATE).changes(CELLS, self.record(CRATE)), "")

    def test_removed_code_is_reported(self):
        before = self.record(CRATE)
        said = self.house(CRATE).changes(CELLS[:2], before)
        self.assertIn("is gone: 3 parts", said)

    def test_a_file_may_move(self):
        files = changed(
            {
                "src/analyse/mod.rs": [("pub mod toy;", "pub mod deep;")],
                LADDER: [("analyse::toy::{self", "analyse::deep::toy::{self")],
                "src/analyse/score_of.rs": [("super::toy", "crate::analyse::deep::toy")],
            }
        )
        files["src/analyse/deep/toy.rs"] = files.pop(TOY)
        files["src/analyse/deep/mod.rs"] = "pub mod toy;\n"
        self.assertEqual(self.record(files), self.record(CRATE))

    def test_a_module_may_become_a_file_or_take_another_path(self):
        before = self.record(CRATE)
        inline = changed(
            {"src/analyse/mod.rs": [("mod score_of;", "mod score_of {" + CRATE["src/analyse/score_of.rs"] + "}")]}
        )
        del inline["src/analyse/score_of.rs"]
        self.assertEqual(self.record(inline), before)
        named = changed({"src/analyse/mod.rs": [("mod score_of;", '#[path = "elsewhere/x.rs"]\nmod score_of;')]})
        named["src/analyse/elsewhere/x.rs"] = named.pop("src/analyse/score_of.rs")
        self.assertEqual(self.record(named), before)

    def test_an_item_may_move_to_another_file(self):
        files = changed(
            {
                TOY: [("fn scale(x: f64) -> f64 { x / 3.0 }\n", "use crate::unrelated::scale;\n")],
                "src/unrelated.rs": [("pub fn deep", "pub fn scale(x: f64) -> f64 { x / 3.0 }\npub fn deep")],
            }
        )
        self.assertEqual(self.record(files), self.record(CRATE))

    def test_items_of_the_same_name_are_distinguished(self):
        both = {
            "src/unrelated.rs": [("pub fn deep() -> u8 { 3 }", "pub fn scale(x: f64) -> f64 { x }")],
            TOY: [("let _ = made_by_rule();", "let _ = (scale(1.0), crate::unrelated::scale(2.0)); made_by_rule();")],
            "src/study/other.rs": [("deep() }", "0 }"), ("use crate::unrelated::deep;", "")],
        }
        swapped = both | {
            TOY: [("let _ = made_by_rule();", "let _ = (crate::unrelated::scale(1.0), scale(2.0)); made_by_rule();")]
        }
        self.assertNotEqual(self.record(changed(both)), self.record(changed(swapped)))

    def test_plans_count_for_code_that_reads_them_if_the_profile_names_them(self):
        cells = [*CELLS, "mem2gen::study::plans()"]
        edit = {"src/study/mod.rs": [("mod ladder;", "mod ladder;\npub use crate::analyse::plans;")]}
        before = self.record(changed(edit), cells)
        self.assertEqual(self.record(changed(edit | {"data/plans/large.toml": [("60000", "50000")]}), cells), before)
        after = self.house(changed(edit | {"data/plans/small.toml": [("9", "8")]})).changes(cells, before)
        self.assertIn("file small.toml", after)

    def test_another_cell_depends_on_other_code(self):
        before = self.record(CRATE, ["study::unused()"])
        files = changed({"src/unrelated.rs": [("3", "4")]})
        self.assertIn("fn deep", self.house(files).changes(["study::unused()"], before))
        kernel = {"src/study/mod.rs": [("mod ladder;", "mod ladder;\npub use crate::analyse::kernel;")]}
        cells = ["use mem2gen::study as s; s::kernel()"]
        before = self.record(changed(kernel), cells)
        self.assertIn(
            "file add.cu", self.house(changed(kernel | {"kernels/add.cu": [("1.0f", "2.0f")]})).changes(cells, before)
        )

    def test_a_name_without_an_item_is_refused(self):
        for name, old, new, why in (
            (LADDER, "toy::rows(", "toy::nowhere(", "src/study/ladder.rs: fn toy_ladder: toy::nowhere is not found"),
            (LADDER, "toy::rows(", "crate::analyse::nowhere(", "crate::analyse::nowhere is not found"),
            (LADDER, "use std::f64", "use unheard::f64", "src/study/ladder.rs:2: unheard::f64::consts is not found"),
            ("src/study/other.rs", "d::deep;", "d::gone;", "src/study/other.rs:2: crate::unrelated::gone is not found"),
            ("src/lib.rs", "mod unrelated;", "mod unrelated;\nmod absent;", "mod absent"),
            (
                "src/analyse/mod.rs",
                'include_bytes!("../../data/toy/points.npy")',
                "include_bytes!(concat!())",
                "can't be followed",
            ),
            (
                "src/analyse/mod.rs",
                'include_bytes!("../../data/toy/points.npy")',
                'include!("x.rs")',
                "can't be followed",
            ),
            ("src/analyse/mod.rs", "points.npy", "absent.npy", "absent.npy: No such file"),
            (
                TOY,
                "fn scale(x: f64) -> f64 {",
                "fn scale(x: f64) -> f64 {{",
                "src/analyse/toy.rs: an unmatched bracket",
            ),
            (TOY, "\nfn scale", "\n/* open\nfn scale", "src/analyse/toy.rs: the comment at character"),
            (TOY, "\nfn scale", "\nextern crate x;\nfn scale", "an unknown kind of item"),
        ):
            with self.subTest(why), self.assertRaisesRegex(rust.BadSource, re.escape(why)):
                self.record(changed({name: [(old, new)]}))


class Reader(unittest.TestCase):
    def tokens(self, text: str) -> list[str]:
        return [t.text for t in rust.tokenise(text)]

    def test_strings_of_all_kinds(self):
        text = r'''"a\"b" r"\" r#"a"b"# r##"x"#y"## b"\x00" br#"""# c"z" b'\'' '"' '\\' '\u{3b2}' 'é' '''
        self.assertEqual(self.tokens(text), text.split())

    def test_lifetimes_are_not_characters(self):
        text = "< 'a , 'static > ( 'x' , 'a : loop )"
        self.assertEqual(self.tokens("<'a, 'static>('x', 'a: loop)"), text.split())

    def test_comments_nest_and_do_not_begin_in_strings(self):
        self.assertEqual(self.tokens('a /* /* " */ */ b // "\n"/* // " c'), ["a", "b", '"/* // "', "c"])
        self.assertEqual(self.tokens("a/**/b /***/ c //"), ["a", "b", "c"])

    def test_numbers_with_suffixes_fractions_and_ranges(self):
        text = "0 .. 9 1.5e-3f64 1. 2 . max ( 3 ) 0xff_u8 1_000usize x . 0 . 1 1 ..= 2 7e5"
        self.assertEqual(self.tokens("0..9 1.5e-3f64 1. 2.max(3) 0xff_u8 1_000usize x.0.1 1..=2 7e5"), text.split())

    def test_signs(self):
        text = "a > > = b && c || d << e -> f => g .. h != i"
        self.assertEqual(self.tokens("a>>=b&&c||d<<e->f=>g..h!=i"), text.split())

    def test_a_string_ignores_the_indentation_of_its_next_line_and_a_raw_string_does_not(self):
        self.assertEqual(self.tokens('"a \\\n    b"'), self.tokens('"a \\\n b"'))
        self.assertNotEqual(self.tokens('r"a \\\n    b"'), self.tokens('r"a \\\n b"'))
        self.assertNotEqual(self.tokens('"a\\\\\n    b"'), self.tokens('"a\\\\\n b"'))

    def test_raw_names(self):
        self.assertEqual(self.tokens("r#type r"), ["type", "r"])

    def test_the_comma_of_a_tuple_of_one_stays(self):
        plain = [
            t.text
            for t in rust.without_choices(rust.tokenise("f(a,); let x = (a,); let y: (T,); g::<A,>((b, c,), [d,],)"))
        ]
        self.assertEqual("".join(plain), "f(a);letx=(a,);lety:(T,);g::<A>((b,c),[d])")

    def test_conditions_of_cfg(self):
        for text, holds in (
            ("test", False),
            ("not(test)", True),
            ("unix", None),
            ("all(test, unix)", False),
            ("all(unix)", None),
            ("any(test, unix)", None),
            ("any(test, not(test))", True),
            ('feature = "test"', None),
            ("not(any(test))", True),
        ):
            with self.subTest(text):
                self.assertIs(rust.cfg_holds(rust.tokenise(text)), holds)

    def test_use_trees(self):
        said = "crate::a::{self, b::{c as d, *}, super::e}, ::f::g"
        trees = [use for part in rust.tokenise(said).split() for use in rust.use_tree(part)]
        self.assertEqual(
            [(u.name, "::".join(u.path)) for u in trees],
            [
                ("a", "crate::a"),
                ("d", "crate::a::b::c"),
                ("", "crate::a::b"),
                ("e", "crate::a::super::e"),
                ("g", "::f::g"),
            ],
        )

    def test_heads_of_impls(self):
        for text, *parts in (
            ("impl<'a, T: Into<Vec<u8>>> X<T> for Y<'a> where T: Z", "<'a,T:Into<Vec<u8>>>", "X<T>", "Y<'a>"),
            ("impl Y", "", "", "Y"),
            ("impl X<u8> for Y", "", "X<u8>", "Y"),
            ("impl<T> Y<T>", "<T>", "", "Y<T>"),
            ("impl<F: for<'a> Fn(&'a u8) -> u8> X for F", "<F:for<'a>Fn(&'au8)->u8>", "X", "F"),
        ):
            self.assertEqual(["".join(t.text for t in part) for part in rust.parts_of(rust.tokenise(text))], parts)


# Modules of a small crate with the floors of this one.
HOUSE = {
    "Cargo.toml": '[package]\nname = "mem2gen"\n',
    "src/main.rs": "mod cli;\nfn main() { cli::run() }\n",
    "src/cli/mod.rs": "mod toy;\nuse mem2gen::study;\npub fn run() { toy::run(); study::toy::rows(); }\n",
    "src/cli/toy.rs": "use super::run as again;\nuse mem2gen::Error;\npub fn run() -> Error { mem2gen::notebook::begin(); again() }\n",
    "src/lib.rs": "pub mod data;\nmod error;\npub mod notebook;\npub mod plot;\npub mod prelude;\npub mod random;\npub mod store;\npub mod study;\npub use error::Error;\n",
    "src/error.rs": "use crate::store::StoreError;\nuse crate::study::toy;\npub enum Error { S(StoreError), T(toy::Bad) }\n",
    "src/prelude.rs": "pub use crate::study;\npub use crate::notebook::begin;\n",
    "src/store.rs": "use crate::random::stream;\npub struct StoreError;\npub fn write() { stream() }\n",
    "src/random.rs": "use crate::store;\npub fn stream() { store::write() }\n",
    "src/plot.rs": "use crate::store;\npub fn draw() { store::write() }\n",
    "src/data/mod.rs": "mod idx;\npub use idx::read;\npub fn load() { self::idx::read(); crate::plot::draw() }\n",
    "src/data/idx.rs": "use super::load;\npub fn read() { load() }\n",
    "src/study/mod.rs": "pub mod claims;\npub mod context;\npub mod error;\npub mod load;\npub mod subject;\npub mod toy;\npub use toy::rows;\n",
    "src/study/context.rs": "use crate::Error;\nuse super::error::StudyError;\npub fn context() -> Result<StudyError, Error> { todo!() }\n",
    "src/study/error.rs": "pub struct StudyError;\n",
    "src/study/subject.rs": "use super::context::context;\npub fn subject() { context(); }\n",
    "src/study/toy.rs": "use crate::Error;\nuse super::{context, subject};\npub struct Bad;\npub fn rows() { subject::subject() }\n",
    "src/study/load.rs": "use crate::data;\npub fn cells() { data::read() }\n",
    "src/study/claims.rs": "use super::{load, toy};\npub fn claims() { load::cells(); toy::rows() }\n",
    "src/notebook.rs": "use crate::study;\npub fn begin() { study::rows() }\n",
}

# A module, the text put before its own, and the expected message.
AGAINST = {
    "an upward import": (
        "src/plot.rs",
        "use crate::data::read;\n",
        "src/plot.rs:1: plot imports crate::data::read: data is above plot",
    ),
    "an upward path in a body": (
        "src/plot.rs",
        "fn f() {\n crate::data::read()\n}\n",
        "src/plot.rs:2: plot imports crate::data::read: data is above plot",
    ),
    "an upward `use` in a body": (
        "src/plot.rs",
        "fn f() {\n use crate::data;\n data::read()\n}\n",
        "src/plot.rs:2: plot imports crate::data: data is above plot",
    ),
    "an upward glob": ("src/plot.rs", "use crate::data::*;\n", "data is above plot"),
    "one of a group": (
        "src/plot.rs",
        "use crate::{\n store::write,\n data::read,\n};\n",
        "src/plot.rs:3: plot imports crate::data::read",
    ),
    "a circle": ("src/plot.rs", "pub use crate::notebook;\n", "notebook is above plot"),
    "a sibling": (
        "src/study/load.rs",
        "use super::toy;\n",
        "src/study/load.rs:1: study::load imports super::toy: study::load and study::toy are siblings",
    ),
    "a sibling behind the facade": (
        "src/study/load.rs",
        "use crate::study::rows;\n",
        "study::load and study::toy are siblings",
    ),
    "the facade of the studies": ("src/study/load.rs", "use crate::study::rows;\n", "study is above study::load"),
    "claims": ("src/study/load.rs", "use super::claims;\n", "study::claims is above study::load"),
    "a study from the subject": ("src/study/subject.rs", "use super::toy;\n", "study::toy is above study::subject"),
    "the notebook from a study": ("src/study/toy.rs", "use crate::notebook::begin;\n", "notebook is above study::toy"),
    "the error from below": (
        "src/data/idx.rs",
        "use crate::Error;\n",
        "src/data/idx.rs:1: data imports crate::Error: only study::context and the floors above it may import the crate's error",
    ),
    "the prelude": ("src/notebook.rs", "use crate::prelude;\n", "no module may import from prelude"),
    "a module without a floor": (
        "src/lib.rs",
        "\npub mod plots { pub use crate::notebook; }\n",
        "src/lib.rs:2: plots is on no floor",
    ),
}


class Floors(Crates):
    def test_allowed_imports(self):
        self.assertEqual(self.house(HOUSE).floors(), [])

    def test_forbidden_imports(self):
        for why, (name, text, said) in AGAINST.items():
            with self.subTest(why):
                floors = self.house(HOUSE | {name: text + HOUSE[name]}).floors()
                self.assertTrue(any(said in line for line in floors), floors)

    def test_a_circle_is_reported_at_its_upward_import(self):
        files = HOUSE | {"src/plot.rs": "use crate::data::read;\npub fn draw() { read() }\n"}
        self.assertEqual(
            self.house(files).floors(), ["src/plot.rs:1: plot imports crate::data::read: data is above plot"]
        )

    def test_both_of_two_siblings_that_import_each_other_are_reported(self):
        files = HOUSE | {
            f"src/study/{a}.rs": f"use super::{b};\n" + HOUSE[f"src/study/{a}.rs"]
            for a, b in (("toy", "load"), ("load", "toy"))
        }
        self.assertEqual(
            [line.split(":")[0] for line in self.house(files).floors()], ["src/study/load.rs", "src/study/toy.rs"]
        )

    def test_no_module_imports_from_the_root(self):
        files = HOUSE | {
            "src/lib.rs": HOUSE["src/lib.rs"] + "pub fn at_the_root() {}\n",
            "src/plot.rs": "pub fn draw() { crate::at_the_root() }\n",
        }
        self.assertEqual(
            self.house(files).floors(),
            ["src/plot.rs:1: plot imports crate::at_the_root: no module may import from the root of the crate"],
        )

    def test_a_macro_is_imported_by_its_name(self):
        files = HOUSE | {
            "src/data/idx.rs": HOUSE["src/data/idx.rs"] + "macro_rules! shout { () => { 1 }; }\n",
            "src/plot.rs": "pub fn draw() { shout!() }\n",
        }
        self.assertEqual(self.house(files).floors(), ["src/plot.rs:1: plot imports shout: data is above plot"])

    def test_tests_may_import_any_module(self):
        files = HOUSE | {
            "src/plot.rs": HOUSE["src/plot.rs"]
            + "#[cfg(test)]\nmod tests { use crate::notebook; use crate::nowhere; }\n#[test]\nfn t() { use crate::notebook; }\n"
        }
        self.assertEqual(self.house(files).floors(), [])

    def test_an_import_of_a_missing_module_is_refused(self):
        with self.assertRaisesRegex(rust.BadSource, re.escape("src/plot.rs:1: crate::nowhere is not found")):
            self.house(HOUSE | {"src/plot.rs": "use crate::nowhere;\n" + HOUSE["src/plot.rs"]}).floors()

    def test_the_command_fails_and_says_why(self):
        def check(files):
            self.house(files)
            command = [sys.executable, str(ROOT / "tools/house.py"), "--root", str(self.root), "--check"]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        self.assertEqual((check(HOUSE).returncode, check(HOUSE).stderr), (0, ""))
        run = check(HOUSE | {"src/store.rs": "use crate::data;\n" + HOUSE["src/store.rs"]})
        self.assertEqual(
            (run.returncode, run.stderr), (1, "src/store.rs:1: store imports crate::data: data is above store\n")
        )


class Real(unittest.TestCase):
    """The notebooks of this project."""

    @classmethod
    def setUpClass(cls):
        cls.house = house.House(ROOT)
        cls.notebooks = {p.stem: house.cells_of(p) for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
        cls.parts = {name: cls.house.parts(cells) for name, cells in cls.notebooks.items()}

    def test_notebooks_depend_on_their_code_and_data_and_not_on_the_program(self):
        self.assertGreaterEqual(len(self.parts), 9)
        for name, parts in self.parts.items():
            with self.subTest(name):
                places = {part.place for part in parts}
                must = {"src/store.rs", "src/random.rs", "src/notebook.rs", house.PROFILE, "Cargo.lock", "Cargo.toml"}
                self.assertEqual(must - places, set())
                self.assertEqual([p for p in places if p.startswith(("src/cli", "src/main.rs", "src/prelude.rs"))], [])
                self.assertLess(len(house.record_of(parts)["parts"]), 40_000)
        places = {name: {part.place for part in parts} for name, parts in self.parts.items()}
        self.assertIn("data/toy/points.npy", places["01_toy_energy"])
        self.assertIn("data/plans/mnist-mlp.toml", places["03_distance_histograms"])
        self.assertNotIn("data/plans/paper-cifar10.toml", places["03_distance_histograms"])
        self.assertIn("data/training/emoji-doses.toml", places["10_prompts"])
        self.assertNotIn("data/training/emoji-smoke.toml", places["10_prompts"])

    def test_the_toy_does_not_depend_on_other_studies(self):
        labels = {name: {part.label for part in parts} for name, parts in self.parts.items()}
        # Below the studies, a function may have the name of one of a study.
        studies = [p for p in self.parts["01_toy_energy"] if p.place.startswith("src/study/")]
        beside = {p.label for p in studies if not p.place.startswith("src/study/toy/")}
        for name, cells in self.notebooks.items():
            rooms = r"\b(?:attractors|basin|claims|curvature|energy|load|prompts|toy|transition)::(?:\w+::)*([a-z]\w*)\("
            called = {f"fn {n}" for cell in cells for n in re.findall(rooms, cell)}
            with self.subTest(name):
                self.assertTrue(called)
                self.assertEqual(called - labels[name], set())
                if name != "01_toy_energy":
                    self.assertEqual(called & beside, set())

    def test_a_changed_number_in_any_file_changes_the_hash(self):
        reached = {name: self.house.reach(cells) for name, cells in self.notebooks.items()}
        texts, changed_in = {}, {}
        for item in sorted(set().union(*reached.values()), key=lambda i: (str(i.module.file), i.name)):
            numbers = [
                t for t in item.tokens if t.kind == "num" and re.fullmatch(r"[1-9]\w*(\.\d+)?|0(\.\d+)?", t.text)
            ]
            if numbers and item.module.file not in texts:
                text, at = item.module.file.read_text(), numbers[-1].at
                self.assertEqual(text[at : at + len(numbers[-1].text)], numbers[-1].text)
                texts[item.module.file] = (text[:at] + "9" + text[at:]).encode()
                changed_in[item.module.file] = item
        self.assertGreater(len(texts), 50)
        other = house.House(ROOT, read=lambda path: texts.get(path) or path.read_bytes())
        for name, cells in self.notebooks.items():
            parts = other.parts(cells)
            self.assertNotEqual(house.record_of(parts), house.record_of(self.parts[name]))
            before, after = (
                {(p.label, p.place, p.digest) for p in all_parts} for all_parts in (self.parts[name], parts)
            )
            for file, item in changed_in.items():
                if item in reached[name]:
                    with self.subTest(f"{name}: {item.name} in {file}"):
                        self.assertIn(
                            (f"{item.kind} {item.name}", self.house.shown(file)), {part[:2] for part in before - after}
                        )

    def test_comments_change_nothing_in_any_file(self):
        def read(path: Path) -> bytes:
            data = path.read_bytes()
            return (
                b"// A comment.\n/* And /* another */. */\n" + data + b"\n#[cfg(test)]\nmod more { fn f() {} }\n"
                if path.suffix == ".rs"
                else data
            )

        name = "01_toy_energy"
        self.assertEqual(house.House(ROOT, read=read).parts(self.notebooks[name]), self.parts[name])

    def test_committed_records_are_small(self):
        for path in (ROOT / "notebooks").glob("*.ipynb"):
            self.assertLess(len(json.dumps(json.loads(path.read_text())["metadata"])), 40_000, path)


if __name__ == "__main__":
    unittest.main()
