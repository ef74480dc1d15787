//! Images in every form that people have, each with the right value: arrays, archives, tensors, pickles, pictures.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::Zip;
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use mem2gen::data::image_folder::{Background, walk};
use mem2gen::data::image_set::{Format, Layout, Nominal, Together, reconcile};
use mem2gen::data::input::Options;
use mem2gen::data::{DataError, ImageSet, Input, cifar};
use mem2gen::shape::Shape;
use mem2gen::store::write_array;
use ndarray::{Array, Array2, Array4, Dimension};
use ndarray_npy::{WritableElement, WriteNpyExt};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn array<T: WritableElement, D: Dimension>(&self, name: &str, array: &Array<T, D>) -> PathBuf {
        write_array(&self.path(name), array).unwrap();
        self.path(name)
    }

    fn picture(&self, name: &str, image: impl Into<DynamicImage>, format: ImageFormat) -> PathBuf {
        self.bytes(name, &encoded(image, format))
    }
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn npy<T: WritableElement, D: Dimension>(array: &Array<T, D>) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

fn read(path: &Path) -> ImageSet {
    Input::from_path(path).read().unwrap()
}

fn refused(input: &Input, words: &[&str]) {
    let said = input.read().unwrap_err().to_string();
    assert!(words.iter().all(|word| said.contains(word)) && said.len() < 600, "{words:?}: {said}");
}

/// Bytes of four images of 5x6x3.
fn world() -> Array4<u8> {
    Array4::from_shape_fn((4, 5, 6, 3), |(i, y, x, c)| (60 * i + 11 * y + 5 * x + 3 * c + 1) as u8)
}

fn rgb(world: &Array4<u8>, i: usize) -> RgbImage {
    RgbImage::from_fn(6, 5, |x, y| image::Rgb([0, 1, 2].map(|c| world[[i, y as usize, x as usize, c]])))
}

#[track_caller]
fn is_world(set: &ImageSet) {
    assert_eq!((set.len(), set.shape()), (4, Some(Shape::image(5, 6, 3))));
    let due = world().mapv(|v| f32::from(v) / 255.0);
    for (row, due) in set.rows().outer_iter().zip(due.outer_iter()) {
        assert!(row.iter().zip(&due).all(|(a, b)| (a - b).abs() < 1e-6), "{row} {due}");
    }
}

#[test]
fn arrays_of_every_type_and_order_are_the_same_images() {
    let place = Place::new();
    let world = world();
    is_world(&read(&place.array("u1.npy", &world)));
    is_world(&read(&place.array("i4.npy", &world.mapv(i32::from))));
    is_world(&read(&place.array("i8.npy", &world.mapv(i64::from))));
    is_world(&read(&place.array("u2.npy", &world.mapv(u16::from))));
    is_world(&read(&place.array("f4.npy", &world.mapv(|v| f32::from(v) / 255.0))));
    is_world(&read(&place.array("f8.npy", &world.mapv(|v| f64::from(v) / 255.0))));
    is_world(&read(&place.array("fortran.npy", &world.t().as_standard_layout().reversed_axes().to_owned())));
    let planes = world.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().to_owned();
    is_world(&read(&place.array("chw.npy", &planes)));
    is_world(&read(&place.bytes(
        "arr.npz",
        &stored(&[("arr_0.npy", npy(&world)), ("arr_1.npy", npy(&Array2::<i64>::zeros((4, 1))))]),
    )));
    is_world(&read(&place.bytes("one.npz", &deflated(&[("samples.npy", npy(&world))]))));
    // Truth values are 0 and 1.
    let masks = read(&place.array("bool.npy", &world.mapv(|v| v > 100)));
    assert_eq!(masks.values().max, Some(1.0));
}

#[test]
fn shards_and_patterns_make_one_set() {
    let place = Place::new();
    let world = world();
    for i in 0..4 {
        let part = world.slice(ndarray::s![i..=i, .., .., ..]).to_owned();
        place.array(&format!("shards/part_{i}.npy"), &part);
    }
    is_world(&read(&place.path("shards/part_*.npy")));
    is_world(&read(&place.path("shards")));
    let paths = (0..4).map(|i| place.path(&format!("shards/part_{i}.npy"))).collect();
    is_world(&Input { paths, ..Input::default() }.read().unwrap());
    refused(&Input::from_path(&place.path("shards/none_*.npy")), &["no file matches", "none_*.npy"]);
    let other = place.array("other.npy", &Array4::<u8>::zeros((1, 5, 5, 3)));
    let paths = vec![place.path("shards/part_0.npy"), other];
    refused(&Input { paths, ..Input::default() }, &["other.npy", "5x5x3", "part_0.npy", "5x6x3"]);
}

#[test]
fn pictures_of_every_format_are_read_in_any_depth_by_their_content() {
    let place = Place::new();
    let world = world();
    place.picture("D/a/0.PNG", rgb(&world, 0), ImageFormat::Png);
    place.picture("D/b/c/1.bmp", rgb(&world, 1), ImageFormat::Bmp);
    place.picture("D/b/c/2.webp", rgb(&world, 2), ImageFormat::WebP);
    // A TIFF that has another ending, and none.
    place.picture("D/z", rgb(&world, 3), ImageFormat::Tiff);
    for name in [".hidden.png", "._0.png", "Thumbs.db", ".DS_Store", ".git/x.png", "__MACOSX/y.png"] {
        place.bytes(&format!("D/{name}"), b"no image");
    }
    place.bytes("D/labels.txt", b"cat");
    let found = read(&place.path("D"));
    is_world(&found);
    assert_eq!(found.files().unwrap(), ["a/0.PNG", "b/c/1.bmp", "b/c/2.webp", "z"]);
    let said = found.said();
    assert!(said.contains("1 file that is no image") && said.contains("several depths"), "{said}");
    for (name, format) in
        [("x.ppm", ImageFormat::Pnm), ("x.tif", ImageFormat::Tiff), ("x.jpg", ImageFormat::Png)]
    {
        let one = read(&place.picture(name, rgb(&world, 2), format));
        assert_eq!((one.len(), one.format()), (1, Format::Picture), "{name}");
        assert!((one.rows()[[0, 0]] - 121.0 / 255.0).abs() < 1e-6);
    }
    let gif = read(&place.picture("x.gif", rgb(&world, 2), ImageFormat::Gif));
    assert!((gif.rows()[[0, 0]] - 121.0 / 255.0).abs() < 0.05, "{}", gif.rows()[[0, 0]]);
}

#[test]
fn what_looks_like_an_image_and_was_not_read_is_named_and_refused() {
    let place = Place::new();
    let world = world();
    for i in 0..4 {
        place.picture(&format!("D/{i}.png"), rgb(&world, i), ImageFormat::Png);
    }
    place.bytes("D/photo.HEIC", b"....ftypheic");
    let jpeg = encoded(rgb(&world, 0), ImageFormat::Jpeg);
    place.bytes("D/cut.jpg", &jpeg[..jpeg.len() / 2]);
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere.png", place.path("D/dangling.png")).unwrap();
    let input = Input::from_path(&place.path("D"));
    refused(&input, &["read 4 images, passed over", "photo.HEIC", "cut.jpg", "--allow-skipped"]);
    #[cfg(unix)]
    assert!(walk(&place.path("D")).unwrap().passed.iter().any(|one| one.name == "dangling.png"));
    let options = Options { allow_skipped: true, ..Options::default() };
    let found = Input { options, ..input }.read().unwrap();
    is_world(&found);
    assert!(found.said().contains("passed over"), "{}", found.said());
    let alone = place.path("D/cut.jpg");
    refused(&Input::from_path(&alone), &["cut.jpg", "cut short"]);
}

#[test]
fn every_cut_of_a_jpeg_is_refused() {
    let place = Place::new();
    let jpeg = encoded(
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([6 * x as u8, 8 * y as u8, 9])),
        ImageFormat::Jpeg,
    );
    let path = place.path("x.jpg");
    for length in (2..jpeg.len()).step_by(7).chain([jpeg.len() - 1]) {
        fs::write(&path, &jpeg[..length]).unwrap();
        assert!(Input::from_path(&path).read().is_err(), "{length} of {}", jpeg.len());
    }
    fs::write(&path, [&jpeg[..], b"what a camera adds"].concat()).unwrap();
    assert_eq!(read(&path).shape(), Some(Shape::image(30, 40, 3)));
}

/// An EXIF segment with orientation 6: the camera was turned by a quarter.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat()
}

#[test]
fn pictures_are_turned_laid_on_a_background_and_rounded_with_a_word() {
    let place = Place::new();
    // Left half white, right half black: upright, the upper half is white.
    let half = RgbImage::from_fn(16, 8, |x, _| image::Rgb([if x < 8 { 255 } else { 0 }; 3]));
    let found = read(&place.bytes("t.jpg", &turned(&encoded(half, ImageFormat::Jpeg))));
    assert_eq!(found.shape(), Some(Shape::image(16, 8, 3)));
    assert!(found.rows()[[0, 0]] > 0.9 && found.rows()[[0, 15 * 8 * 3]] < 0.1);
    assert!(found.said().contains("turned"), "{}", found.said());

    let clear = RgbaImage::from_fn(4, 4, |x, _| image::Rgba([200, 10, 10, if x < 2 { 0 } else { 255 }]));
    let path = place.picture("clear.png", clear, ImageFormat::Png);
    for (background, due) in [(Background::White, 1.0), (Background::Black, 0.0)] {
        let options = Options { background, ..Options::default() };
        let found = Input { options, ..Input::from_path(&path) }.read().unwrap();
        assert_eq!(found.rows()[[0, 0]], due);
        assert!((found.rows()[[0, 9]] - 200.0 / 255.0).abs() < 1e-6);
        assert!(found.said().contains(background.name()), "{}", found.said());
    }
    let deep =
        image::ImageBuffer::<image::Luma<u16>, _>::from_fn(3, 3, |x, _| image::Luma([x as u16 * 257 * 100]));
    let found = read(&place.picture("deep.png", deep, ImageFormat::Png));
    assert_eq!(found.shape(), Some(Shape::image(3, 3, 1)));
    assert!((found.rows()[[0, 1]] - 100.0 / 255.0).abs() < 1e-6 && found.said().contains("rounded"));
}

#[test]
fn further_frames_and_pages_are_not_left_out_without_a_word() {
    for name in ["two.gif", "two.png", "two.tif", "two.webp"] {
        let found = read(&Path::new("tests/fixtures/data/frames").join(name));
        assert_eq!((found.len(), found.shape()), (1, Some(Shape::image(2, 2, 3))), "{name}");
        assert_eq!(found.rows().row(0).to_vec(), [1.0, 0.0, 0.0].repeat(4), "{name}");
        assert!(found.said().contains("1 have several frames or pages"), "{name}: {}", found.said());
    }
    let place = Place::new();
    for (name, format) in [
        ("a.gif", ImageFormat::Gif),
        ("a.png", ImageFormat::Png),
        ("a.tif", ImageFormat::Tiff),
        ("a.webp", ImageFormat::WebP),
    ] {
        let one = RgbaImage::from_pixel(3, 3, image::Rgba([10, 20, 30, 255]));
        let found = read(&place.picture(name, one, format));
        assert!(!found.said().contains("several"), "{name}: {}", found.said());
    }
}

#[test]
fn images_are_brought_to_one_size_only_where_it_is_asked_for() {
    let place = Place::new();
    place.picture("D/a.png", RgbImage::from_pixel(16, 16, image::Rgb([10, 20, 30])), ImageFormat::Png);
    place.picture("D/b.png", RgbImage::from_pixel(20, 12, image::Rgb([10, 20, 30])), ImageFormat::Png);
    let input = Input::from_path(&place.path("D"));
    refused(&input, &["a.png", "16x16", "b.png", "12x20", "--size"]);
    let options = Options { size: Some(8), ..Options::default() };
    let found = Input { options, ..input }.read().unwrap();
    assert_eq!((found.len(), found.shape()), (2, Some(Shape::image(8, 8, 3))));
    assert!(found.rows().iter().step_by(3).all(|v| (v - 10.0 / 255.0).abs() < 1e-6));
    assert!(found.said().contains("bicubic"), "{}", found.said());
    // Nor are latents pictures.
    let path = place.array("latents.npy", &Array4::<u8>::zeros((1, 9, 9, 7)));
    let options = Options { size: Some(3), layout: Some(Layout::Hwc), ..Options::default() };
    refused(&Input { options, ..Input::from_path(&path) }, &["latents.npy", "9x9x7", "1 or 3 channels"]);
    // Halved by the mean of four pixels.
    let array = Array4::from_shape_fn((1, 2, 2, 1), |(_, y, x, _)| (100 * y + 50 * x) as u8);
    let options = Options { size: Some(1), ..Options::default() };
    let found = Input { options, ..Input::from_path(&place.array("a.npy", &array)) }.read().unwrap();
    assert_eq!(found.rows()[[0, 0]], 75.0 / 255.0);
}

#[test]
fn archives_of_pictures_and_tensors_are_read() {
    let place = Place::new();
    let world = world();
    let pictures: Vec<(String, Vec<u8>)> = (0..4)
        .map(|i| (format!("0000{}/img{i}.png", i / 2), encoded(rgb(&world, i), ImageFormat::Png)))
        .collect();
    let mut entries: Vec<(&str, Vec<u8>)> = pictures.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    entries.push(("dataset.json", b"{\"labels\": null}".to_vec()));
    entries.push(("__MACOSX/._img0.png", b"x".to_vec()));
    let found = read(&place.bytes("edm.zip", &stored(&entries)));
    is_world(&found);
    assert_eq!((found.format(), found.files().unwrap()[3].as_str()), (Format::Zip, "00001/img3.png"));
    is_world(&read(&place.bytes("deflated.zip", &deflated(&entries))));

    // A tensor of torch.save, and one in a dictionary.
    let values: Vec<u8> = (0..24u8).flat_map(|v| (f32::from(v) / 23.0).to_le_bytes()).collect();
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpu\
                   K\x18tQK\0(K\x02K\x01K\x02K\x06t(K\x0cK\x0cK\x06K\x01t\x89ccollections\nOrderedDict\n)RtR";
    let plain = [&b"\x80\x02"[..], tensor, b"."].concat();
    let named = [&b"\x80\x02}X\x01\0\0\0x"[..], tensor, b"s."].concat();
    for (i, pickle) in [plain, named].into_iter().enumerate() {
        let file = stored(&[("a/data.pkl", pickle), ("a/data/0", values.clone())]);
        let found = read(&place.bytes(&format!("{i}.pt"), &file));
        assert_eq!((found.format(), found.shape()), (Format::Torch, Some(Shape::image(2, 6, 1))));
        assert_eq!(found.rows()[[1, 11]], 1.0);
    }
    // A tensor under a number is not passed over.
    let numbered = [&b"\x80\x02}K\x07"[..], tensor, b"s."].concat();
    let file = stored(&[("a/data.pkl", numbered), ("a/data/0", values.clone())]);
    let words = [
        "numbered.pt",
        "1 array with a key that is not a text (the first is 7)",
        "save a dictionary with texts",
    ];
    refused(&Input::from_path(&place.bytes("numbered.pt", &file)), &words);
    let both =
        [&b"\x80\x02}(X\x01\0\0\0x"[..], tensor, b"K\x07", tensor, b"K\x08", tensor, b"K\x09Nu."].concat();
    let file = stored(&[("a/data.pkl", both), ("a/data/0", values.clone())]);
    refused(
        &Input::from_path(&place.bytes("both.pt", &file)),
        &["both.pt", "2 arrays with a key that is not a text"],
    );
    let evil = stored(&[("a/data.pkl", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".to_vec())]);
    refused(&Input::from_path(&place.bytes("evil.pt", &evil)), &["evil.pt", "'os system' is not allowed"]);
    // An archive that promises more than it can hold.
    // Nothing is unpacked, so that a name may lead anywhere.
    let up = stored(&[("../../0.png", encoded(rgb(&world, 0), ImageFormat::Png))]);
    assert_eq!(read(&place.bytes("up.zip", &up)).len(), 1);
    let mut tar = vec![0u8; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    refused(&Input::from_path(&place.bytes("x.tar", &tar)), &["x.tar", "is a tar archive; unpack it"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).unwrap();
    let packed = packed.finish().unwrap();
    refused(
        &Input::from_path(&place.bytes("x.tar.gz", &packed)),
        &["x.tar.gz", "is a tar archive; unpack it"],
    );
    let bomb = Zip::new().entry("x.npy", b"ab", u32::MAX - 1).finish();
    refused(&Input::from_path(&place.bytes("bomb.npz", &bomb)), &["bomb.npz"]);
}

/// A batch of CIFAR10 as Python 2 wrote it: images as planes, and a label for each.
pub fn pickled_cifar(data: &[u8], labels: &[u8]) -> Vec<u8> {
    let labels: Vec<u8> = labels.iter().flat_map(|label| [b'K', *label]).collect();
    let mut pickle = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x04testq\x03U\x06labelsq\x04]q\x05(".to_vec();
    pickle.extend([&labels, &b"eU\x04dataq\x06"[..]].concat());
    pickle.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\0\x85q\x09U\x01bq\x0a\x87q\x0bRq\x0c");
    pickle.extend([b"(K\x01K", &[labels.len() as u8 / 2][..], b"M\x00\x0c\x86q\x0d"].concat());
    pickle.extend(b"cnumpy\ndtype\nq\x0eU\x02u1q\x0fK\0K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNN");
    pickle.extend(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq\x13b\x89T");
    pickle.extend((data.len() as u32).to_le_bytes());
    pickle.extend(data);
    pickle.extend(b"tq\x14bU\x09filenamesq\x15]q\x16(U\x05a.pngU\x05b.pngU\x05c.pngeu.");
    pickle
}

#[test]
fn cifar_is_read_in_both_versions() {
    let place = Place::new();
    let pixel = |i: usize, c: usize, at: usize| (i * 7 + c * 40 + at % 30) as u8;
    let planes = |i: usize| -> Vec<u8> {
        (0..3).flat_map(|c| (0..1024).map(move |at| (c, at))).map(|(c, at)| pixel(i, c, at)).collect()
    };
    let binary: Vec<u8> = (0..3).flat_map(|i| [vec![i as u8], planes(i)].concat()).collect();
    let found = read(&place.bytes("data_batch_1.bin", &binary));
    assert_eq!((found.len(), found.shape()), (3, Some(Shape::image(32, 32, 3))));
    let due: Vec<f32> = [0, 1, 2].map(|c| f32::from(pixel(2, c, 33)) / 255.0).to_vec();
    assert_eq!(found.rows().row(2).to_vec()[33 * 3..34 * 3], due);

    // As Python 2 wrote it.
    let data: Vec<u8> = (0..3).flat_map(planes).collect();
    let pickle = pickled_cifar(&data, &[0, 1, 2]);
    let path = place.bytes("data_batch_1", &pickle);
    assert_eq!(read(&path).rows(), found.rows());
    let batch = cifar::read_pickled(&path, &pickle).unwrap();
    assert_eq!((batch.labels.clone(), batch), (vec![0, 1, 2], cifar::read_batch(&path, &binary).unwrap()));
    let cut = &pickle[..pickle.len() - 50];
    assert!(matches!(cifar::read_pickled(&path, cut), Err(DataError::Pickle { .. })));
}

fn pair(train: PathBuf, synthetic: PathBuf) -> [ImageSet; 2] {
    [read(&train), read(&synthetic)]
}

#[test]
fn ranges_are_found_by_type_and_extremes_and_brought_to_one() {
    let place = Place::new();
    let bytes = place.array("u8.npy", &world());
    let range = |name: &str, array: &Array4<f32>| read(&place.array(name, array)).values().range;
    let unit = world().mapv(|v| f32::from(v) / 255.0);
    assert_eq!(range("unit.npy", &unit), Nominal::Unit);
    assert_eq!(range("pm1.npy", &unit.mapv(|v| 2.0 * v - 1.0)), Nominal::Symmetric);
    assert_eq!(range("255.npy", &unit.mapv(|v| 255.0 * v)), Nominal::Bytes);
    assert_eq!(range("30.npy", &unit.mapv(|v| 30.0 * v)), Nominal::Other);
    // Sparse: one value of a thousand is not 0.
    let sparse =
        Array4::from_shape_fn((9, 32, 32, 1), |(_, y, x, _)| if (y, x) == (3, 4) { 255.0f32 } else { 0.0 });
    assert_eq!(range("sparse.npy", &sparse), Nominal::Bytes);

    for name in ["pm1.npy", "255.npy", "unit.npy"] {
        let mut sets = pair(bytes.clone(), place.path(name));
        reconcile(&mut sets, Together::default()).unwrap();
        is_world(&sets[1]);
        assert_eq!(sets[1].said().contains("brought from"), name != "unit.npy", "{}", sets[1].said());
    }
    let mut sets = pair(bytes.clone(), place.path("30.npy"));
    let said = reconcile(&mut sets, Together::default()).unwrap_err().to_string();
    assert!(said.contains("30.npy") && said.contains("--synthetic-range"), "{said}");
    let given = Input { range: Some(Nominal::Bytes), ..Input::from_path(&place.path("30.npy")) };
    let mut sets = [read(&bytes), given.read().unwrap()];
    reconcile(&mut sets, Together::default()).unwrap();
    assert!((sets[1].rows()[[0, 0]] - 30.0 / 255.0 / 255.0).abs() < 1e-6);

    // Bytes that are 0 and 1.
    let ones = place.array("ones.npy", &world().mapv(|v| v % 2));
    let mut sets = pair(bytes.clone(), ones.clone());
    assert!(sets[1].said().contains("at most 1"), "{}", sets[1].said());
    assert!(reconcile(&mut sets, Together::default()).is_err());
    let given = Input { range: Some(Nominal::Unit), ..Input::from_path(&ones) }.read().unwrap();
    assert_eq!(given.values().max, Some(1.0));
}

#[test]
fn planes_and_pixels_are_told_apart_by_the_distances_or_asked_for() {
    let place = Place::new();
    let mut seed = 1u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 56) as u8
    };
    let train = Array4::from_shape_fn((40, 6, 6, 3), |_| noise());
    let planes = train.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().to_owned();
    let rows = planes.clone().into_shape_with_order((40, 108)).unwrap();
    let pixels = train.clone().into_shape_with_order((40, 108)).unwrap();
    let other = Array4::from_shape_fn((40, 6, 6, 3), |_| noise());
    let mut copies = other.clone();
    copies.slice_mut(ndarray::s![..5, .., .., ..]).assign(&train.slice(ndarray::s![3..8, .., .., ..]));
    let copies = place.array("S.npy", &copies);
    let due = train.mapv(|v| f32::from(v) / 255.0);
    for (name, array) in [("planes.npy", &rows), ("pixels.npy", &pixels)] {
        let mut sets = pair(place.array(name, array), copies.clone());
        assert_eq!(reconcile(&mut sets, Together::default()).unwrap(), Some(Shape::image(6, 6, 3)));
        assert!(sets[0].rows().iter().zip(&due).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
    // Nothing but noise: neither is nearer.
    let mut sets = pair(place.path("planes.npy"), place.array("new.npy", &other));
    let said = reconcile(&mut sets, Together::default()).unwrap_err().to_string();
    assert!(said.contains("planes.npy") && said.contains("--layout"), "{said}");
    let mut sets = pair(place.path("planes.npy"), place.path("new.npy"));
    let how = Together { layout: Some(Layout::Chw), ..Together::default() };
    reconcile(&mut sets, how).unwrap();
    assert!(sets[0].rows().iter().zip(&due).all(|(a, b)| (a - b).abs() < 1e-6));
    // Axes that both could be channels are asked for.
    let both = place.array("both.npy", &Array4::<u8>::zeros((2, 3, 8, 3)));
    refused(&Input::from_path(&both), &["both.npy", "--layout"]);
    let options = Options { layout: Some(Layout::Chw), ..Options::default() };
    let found = Input { options, ..Input::from_path(&both) }.read().unwrap();
    assert_eq!(found.shape(), Some(Shape::image(8, 3, 3)));
}

#[test]
fn latents_and_features_keep_their_values() {
    let place = Place::new();
    let latents = Array4::from_shape_fn((5, 4, 8, 8), |(i, c, y, x)| (i + c) as f32 - 0.3 * (y * x) as f32);
    let found = read(&place.array("latents.npy", &latents));
    assert_eq!(found.shape(), Some(Shape::image(8, 8, 4)));
    assert_eq!(found.rows()[[2, 4 * 9 + 1]], latents[[2, 1, 1, 1]]);
    let mut sets = [found.clone(), found];
    assert_eq!(reconcile(&mut sets, Together::default()).unwrap(), None);
    let features = Array2::from_shape_fn((5, 7), |(i, j)| (i * j) as f32 - 4.0);
    let found = read(&place.array("features.npy", &features));
    assert_eq!((found.shape(), found.rows()[[3, 2]]), (None, 2.0));
}

#[test]
fn hostile_files_are_refused_at_once_and_in_few_words() {
    let place = Place::new();
    let bomb =
        |dict: &str| [&b"\x93NUMPY\x01\0"[..], &(dict.len() as u16).to_le_bytes(), dict.as_bytes()].concat();
    for dict in ["[".repeat(30), format!("{{'descr': {}", "[".repeat(200)), "\x1b[31m".repeat(9000)] {
        let path = place.bytes("bomb.npy", &bomb(&dict));
        let said = Input::from_path(&path).read().unwrap_err().to_string();
        assert!(said.len() < 500 && !said.contains('\x1b'), "{said}");
    }
    #[cfg(unix)]
    for device in ["/dev/zero", "/dev/null"] {
        refused(&Input::from_path(Path::new(device)), &[device, "not a regular file"]);
    }
    let mut text = place.bytes("text.png", b"hello");
    refused(&Input::from_path(&text), &["text.png"]);
    text = place.bytes("cut.parquet", b"PAR1 and no more");
    refused(&Input::from_path(&text), &["cut.parquet"]);
}

/// A zip archive of stored entries.
fn stored(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    entries
        .iter()
        .fold(Zip::new(), |zip, (name, content)| zip.entry(name, content, content.len() as u32))
        .finish()
}

/// A zip archive of deflated entries.
pub fn deflated(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let sizes = [
            crc.sum().to_le_bytes(),
            (packed.len() as u32).to_le_bytes(),
            (content.len() as u32).to_le_bytes(),
        ]
        .concat();
        let (at, length) = (bytes.len() as u32, (name.len() as u16).to_le_bytes());
        bytes.extend(
            [&b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0"[..], &sizes, &length, &[0, 0], name.as_bytes(), &packed]
                .concat(),
        );
        directory
            .extend([&b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0"[..], &sizes, &length, &[0; 12]].concat());
        directory.extend([&at.to_le_bytes()[..], name.as_bytes()].concat());
    }
    let (at, size, count) =
        (bytes.len() as u32, directory.len() as u32, (entries.len() as u16).to_le_bytes());
    bytes.extend(directory);
    bytes.extend(
        [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]]
            .concat(),
    );
    bytes
}
