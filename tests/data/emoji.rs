//! Pictures of emoji, drawn from a few icons in the formats of their packages.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::use_own_caches;
use mem2gen::data::emoji::{FILES, Group, Picture, SkinTone, Tally, Vendor, bases, pictures};
use mem2gen::data::fetch::{Outcome, Step, System, fetch_on};
use mem2gen::data::registry::{Files, SplitSpec};
use mem2gen::data::{DataError, Entry, Split, State, check, find, folder, load_entry, state};
use mem2gen::project::Layout;
use mem2gen::store::sha256_hex;
use tempfile::TempDir;

/// Checksums of the arrays and of the captions that this program draws on x86-64, without SIMD instructions, with SSE2 and
/// with AVX2.
const ARRAYS: &str = "2c8054b0ff691aee218a5255ed7ca6423313e2de5fbc68de3026f94cb9e0d16c";
const CAPTIONS: &str = "00d42ad4edae534400809bba59f299d52c58f208dd97445b58b2b6cbad189404";

/// Checksums of the files of the fixture, in the order of [`FILES`].
const PACKAGES: [&str; 8] = [
    "ae45b06f33aa593b3623b9b146b05f9fbd9fb62eda82c958d8e80d9e39c2a9af",
    "237f047dfdc07d63ce22dd4ee0c7d9b1c1e84564a1b40d2a18641345526f3a96",
    "f5afee1ba3763aca96d5c09efdef1529921f256e101f7b4c50bf81fefc27ed3d",
    "e605cde4c48dfb9963329c0055581554bdddee30d8368d06983329d4d4438a92",
    "2459e7ee20d61e7a2ee175a558d1c15cf1366d864374f2cd28b665179f94d0b6",
    "207c88bb50b4f2edcdef634dd4e7f98aa7165578f24786de649d743538da481f",
    "d916120cba001cb09022d25086582fc0bcc7e18252a023fed9b5a7789f297623",
    "3e8cfd218fe3f1ec9d01ef123d0e6f8e54ef862a3865e8ef76d3d84ec59f2500",
];

/// Checksums of the files of a folder of packages.
pub fn sums(folder: &Path) -> [&'static str; 8] {
    FILES.map(|file| &*sha256_hex(&fs::read(folder.join(file)).unwrap()).leak())
}

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emoji")
}

/// The entry of the registry, with the sums of the fixture.
pub fn few() -> Entry {
    few_of(PACKAGES)
}

fn few_of(packages_sha256: [&'static str; 8]) -> Entry {
    let entry = *find("emoji").unwrap();
    let Files::Emoji { train, captions, .. } = entry.files else { panic!("not emoji") };
    Entry {
        files: Files::Emoji { train, captions, captions_sha256: CAPTIONS, packages_sha256 },
        train: SplitSpec { images: 25, sha256: Some(ARRAYS) },
        ..entry
    }
}

pub struct Place {
    dir: TempDir,
    pub layout: Layout,
}

impl Place {
    pub fn new() -> Self {
        use_own_caches();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().join("project"));
        Self { dir, layout }
    }

    pub fn fetch(&self, from: Option<&Path>) -> (Result<Outcome, DataError>, Vec<Step>) {
        self.fetch_entry(&few(), from)
    }

    fn fetch_entry(&self, entry: &Entry, from: Option<&Path>) -> (Result<Outcome, DataError>, Vec<Step>) {
        let mut path = self.dir.path().join("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        let system = System { path: Some(path), ..System::default() };
        let mut steps = Vec::new();
        let outcome = fetch_on(&system, &self.layout, entry, from, &mut |step| steps.push(step));
        (outcome, steps)
    }

    /// The file of captions of the fetched data set.
    pub fn captions(&self) -> PathBuf {
        folder(&self.layout, &few()).join("captions.json")
    }

    /// A copy of the fixture with one change.
    fn changed(&self, file: &str, from: &str, to: &str) -> PathBuf {
        let copy = self.dir.path().join("copy");
        let said = std::process::Command::new("cp").arg("-r").args([&fixture(), &copy]).status().unwrap();
        assert!(said.success());
        let text = fs::read_to_string(copy.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(copy.join(file), text.replacen(from, to, 1)).unwrap();
        copy
    }
}

fn pixel(image: &[u8], row: usize, column: usize) -> [u8; 3] {
    let at = 3 * (32 * row + column);
    [image[at], image[at + 1], image[at + 2]]
}

#[test]
fn icons_become_pictures_with_captions() {
    let place = Place::new();
    let (outcome, steps) = place.fetch(Some(&fixture()));
    assert!(matches!(outcome.unwrap(), Outcome::Fetched(_)));
    // The letter of flags has no name; two flags look alike.
    let tally = Tally { pictures: 25, unnamed: 2, repeats: 1 };
    assert!(steps.contains(&Step::Drawn(tally)), "{steps:?}");

    let entry = few();
    let data = load_entry(&place.layout, &entry, Split::Train).unwrap();
    let known = pictures(&place.layout, &entry).unwrap();
    assert_eq!((data.len(), known.len()), (25, 25));
    assert_eq!(
        bases(&known),
        [
            "red heart",
            "waving hand",
            "handshake",
            "red apple",
            "keycap #",
            "green square",
            "flag France",
            "flag St. Martin"
        ]
    );
    let hands: Vec<(&str, Vendor, Option<SkinTone>)> = known
        .iter()
        .filter(|picture| picture.base == "waving hand")
        .map(|Picture { caption, vendor, tone, .. }| (&caption[..], *vendor, *tone))
        .collect();
    let expected: Vec<_> = [
        ("waving hand", None),
        ("waving hand: light skin tone", Some(SkinTone::Light)),
        ("waving hand: dark skin tone", Some(SkinTone::Dark)),
    ]
    .into_iter()
    .flat_map(|(caption, tone)| Vendor::ALL.map(|vendor| (caption, vendor, tone)))
    .collect();
    assert_eq!(hands, expected);
    let shake = known.iter().find(|picture| picture.base == "handshake").unwrap();
    assert_eq!(shake.caption, "handshake: light skin tone, medium-light skin tone");
    assert_eq!((shake.tone, &shake.code[..]), (Some(SkinTone::Mixed), "1faf1-1f3fb-200d-1faf2-1f3fc"));

    for ((picture, image), &label) in known.iter().zip(data.images().rows()).zip(data.labels()) {
        assert_eq!(label, picture.group.label());
        let (image, name) = (image.to_vec(), format!("{} of {}", picture.base, picture.vendor));
        let [red, green, blue] = pixel(&image, 16, 16);
        match picture.base.as_str() {
            "red heart" => assert!(red > 180 && green < 80 && blue < 80 && label == 0, "{name}"),
            "green square" => assert!(green > 140 && red < 140 && label == Group::Symbols as u8, "{name}"),
            // Blue, white and red from left to right.
            "flag France" if picture.vendor != Vendor::Fluent => {
                let [left, middle, right] = [4, 16, 27].map(|column| pixel(&image, 16, column));
                assert!(
                    left[2] > left[0] && middle.iter().all(|&v| v > 220) && right[0] > right[2],
                    "{name}"
                );
            }
            _ => {}
        }
        // The corners of all these icons are empty.
        assert_eq!(pixel(&image, 0, 0), [255; 3], "{name}");
    }
    assert!(matches!(place.fetch(Some(&fixture())).0.unwrap(), Outcome::AlreadyThere(_)));
}

#[test]
fn npm_is_asked_for_each_package() {
    let place = Place::new();
    let bin = place.dir.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    // Packs the folder of the package with its contents below `package`, as npm does.
    let script = format!(
        "#!/bin/sh\nset -e\necho \"$@\" >> '{}/calls'\n[ \"$1\" = pack ]\nname=${{2%@*}}\n\
         tar -czf \"$(basename \"$name\").tgz\" -C '{}/'\"$name\" --transform 's,^\\.,package,' .\n",
        place.dir.path().display(),
        fixture().display()
    );
    fs::write(bin.join("npm"), script).unwrap();
    fs::set_permissions(bin.join("npm"), fs::Permissions::from_mode(0o755)).unwrap();
    place.fetch(None).0.unwrap();
    check(&place.layout, &few()).unwrap();
    let calls = fs::read_to_string(place.dir.path().join("calls")).unwrap();
    let names: Vec<&str> = calls.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    let expected = [
        "@iconify-json/noto@1.2.9",
        "@iconify-json/twemoji@1.2.5",
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "unicode-emoji-json@0.9.0",
    ];
    assert_eq!(names, expected);
}

#[track_caller]
fn refused(file: &str, from: &str, to: &str, words: &[&str]) {
    let place = Place::new();
    let copy = place.changed(file, from, to);
    // With the checksum of the registry the file is not even parsed.
    let unlike = place.fetch(Some(&copy)).0.unwrap_err();
    assert!(matches!(unlike, DataError::Package { .. }), "{unlike}");
    let said = place.fetch_entry(&few_of(sums(&copy)), Some(&copy)).0.unwrap_err().to_string();
    assert!(words.iter().all(|word| said.contains(word)) && said.lines().count() == 1, "{said}");
    assert!(matches!(state(&place.layout, &few()), State::Absent));
}

#[test]
fn packages_of_another_form_are_refused_by_file() {
    let (icons, chars) = ("@iconify-json/noto/icons.json", "@iconify-json/noto/chars.json");
    refused(icons, "{", "", &["noto/icons.json"]);
    refused(icons, "\"body\"", "\"rotate\":1,\"body\"", &["noto/icons.json", "rotate"]);
    refused(icons, "<path ", "<path", &["noto/icons.json", "can't be drawn"]);
    refused(chars, "\"red-apple\"", "\"blue-apple\"", &["noto/chars.json", "1f34e", "blue-apple"]);
    refused(chars, "\"1f34e\"", "\"apple\"", &["noto/chars.json", "'apple'", "code points"]);
    let ordered = "unicode-emoji-json/data-ordered-emoji.json";
    refused(ordered, "🍎", "🍏", &["data-ordered-emoji.json", "no name"]);
    refused("unicode-emoji-json/data-by-emoji.json", "Food & Drink", "Food", &["data-by-emoji.json", "Food"]);
    // Another picture, and another caption.
    refused(icons, "\"width\":128", "\"width\":120", &["emoji", "train", "SHA-256"]);
    refused(
        "unicode-emoji-json/data-by-emoji.json",
        "red apple",
        "green apple",
        &["captions.json", "SHA-256"],
    );

    let place = Place::new();
    let said = place.fetch(Some(place.dir.path())).0.unwrap_err().to_string();
    assert!(said.contains("noto/icons.json") && said.contains("fetch emoji"), "{said}");
}

#[test]
fn a_file_of_another_version_is_refused_before_it_is_parsed() {
    let place = Place::new();
    // tiny-skia ends the process for some paths, so nothing may be drawn of such a file.
    let copy = place.changed("@iconify-json/noto/icons.json", "<path ", "<path");
    let (outcome, steps) = place.fetch(Some(&copy));
    let said = outcome.unwrap_err().to_string();
    let due = format!("expected {} of @iconify-json/noto 1.2.9; give the unchanged files", PACKAGES[0]);
    assert!(said.contains("noto/icons.json: SHA-256 is ") && said.contains(&due), "{said}");
    assert!(steps.is_empty(), "{steps:?}");
}

#[test]
fn damaged_captions_are_found_on_every_load() {
    let place = Place::new();
    place.fetch(Some(&fixture())).0.unwrap();
    let path = folder(&place.layout, &few()).join("captions.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("waving", "saving", 1)).unwrap();
    let failed = load_entry(&place.layout, &few(), Split::Train);
    assert!(matches!(failed, Err(DataError::Sum { .. })), "{failed:?}");
    assert!(matches!(pictures(&place.layout, &few()), Err(DataError::Sum { .. })));
    assert!(matches!(state(&place.layout, &few()), State::Damaged(_)));
    place.fetch(Some(&fixture())).0.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn other_data_sets_have_no_captions() {
    let place = Place::new();
    let mnist = *find("mnist").unwrap();
    assert!(matches!(pictures(&place.layout, &few()), Err(DataError::Absent { .. })));
    let cache = folder(&place.layout, &mnist);
    fs::create_dir_all(&cache).unwrap();
    let manifest = r#"{"format": 1, "name": "mnist", "source": "a test", "splits": {}}"#;
    fs::write(cache.join("manifest.json"), manifest).unwrap();
    let said = pictures(&place.layout, &mnist).unwrap_err().to_string();
    assert!(said.contains("mnist has no captions"), "{said}");
}
