//! A folder of images, and ADM's centre crop of them.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use mem2gen::data::DataError;
use mem2gen::data::image_folder::{decode, list};
use mem2gen::store::sha256_hex;

/// The pictures of tests/fixtures/data/crop_golden.py.
fn picture(width: u32, height: u32) -> RgbImage {
    let value = |x: u32, y: u32, c: u32| {
        ((x * x * 7 + y * 13 + x * y * 3 + c * 101 + (x / 9 + y / 5) % 2 * 90) % 256) as u8
    };
    RgbImage::from_fn(width, height, |x, y| image::Rgb([value(x, y, 0), value(x, y, 1), value(x, y, 2)]))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn crop(bytes: &[u8], size: usize) -> Result<Vec<u8>, DataError> {
    decode(Path::new("church.png"), bytes, size)
}

/// Sums of the output of Pillow 11.2.1 itself, from tests/fixtures/data/crop_golden.py.
#[test]
fn the_crop_equals_pillows_to_the_last_bit() {
    for (width, height, size, sum) in [
        (300, 211, 64, "b69b3417e2ce9fb4cb0d06cb699b43e64898cae72d753a985f98cb6b195e8b23"),
        (64, 64, 64, "78b91b7b204601b657d621c5f92f9d33a1bcc64e99c8f7c6fb81cb6a3cbf7f86"),
        (129, 257, 64, "80a6812110114e8311288835304899118603ed058ddf0c48fbf61ccca255510c"),
        (50, 80, 64, "5137adfa644c960d3e5f98922425db46d8a8c2647d70a082a14be6e027c1a8ad"),
        (128, 128, 64, "691f29693b1193223f546200375da605a1af9cb8d085651f1c85213f77ee44cb"),
        (600, 131, 64, "462ced4206549ffcbc259b1c2c2d7fab8bd5fc1c84cef23e3e9fc7743a76b058"),
        (131, 600, 64, "d63b7eeb29f3ba82e18098e7f0ff74412dae0a909e4affa3b240a653b6eaf068"),
        (65, 64, 64, "78b91b7b204601b657d621c5f92f9d33a1bcc64e99c8f7c6fb81cb6a3cbf7f86"),
        (1, 1, 64, "6419f13551125c93184f003f6fb3aa36d4e78a4129d1fe5f0febf5ef5ee30d12"),
        (37, 29, 8, "4271251d14462b8d342fc716cbe61844255a1d38a6256c3e4adb2ed81527ead9"),
        (255, 341, 16, "cedb1f6fa5fb23dc5ad8728454870ce66791dba6ede340b9d5d53da2311a8a07"),
    ] {
        let square = crop(&encoded(picture(width, height), ImageFormat::Png), size).unwrap();
        assert_eq!(square.len(), 3 * size * size);
        assert_eq!(sha256_hex(&square), sum, "{width} x {height} to {size}");
    }
}

#[test]
fn alpha_is_dropped_and_gray_is_repeated() {
    let rgb = picture(64, 64);
    let rgba = RgbaImage::from_fn(64, 64, |x, y| {
        let [r, g, b] = rgb.get_pixel(x, y).0;
        image::Rgba([r, g, b, (x * 3) as u8])
    });
    assert_eq!(crop(&encoded(rgba, ImageFormat::Png), 64).unwrap(), rgb.into_raw());

    let gray = image::GrayImage::from_fn(64, 64, |x, y| image::Luma([(x + 2 * y) as u8]));
    let square = crop(&encoded(gray, ImageFormat::Png), 64).unwrap();
    assert!(square.as_chunks::<3>().0.iter().enumerate().all(|(i, &pixel)| {
        let value = (i % 64 + 2 * (i / 64)) as u8;
        pixel == [value; 3]
    }));
}

#[test]
fn jpeg_is_read_with_any_file_name() {
    let smooth = RgbImage::from_fn(64, 64, |x, y| image::Rgb([(2 * x) as u8, (2 * y) as u8, 100]));
    let square = crop(&encoded(smooth.clone(), ImageFormat::Jpeg), 64).unwrap();
    let worst = square.iter().zip(smooth.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst > 0 && worst < 16, "JPEG is lossy, but its largest error is {worst}");
}

#[test]
fn damaged_pictures_are_refused_by_name() {
    let whole = encoded(picture(90, 70), ImageFormat::Png);
    for length in [0, 1, 8, 20, 100, whole.len() / 2, whole.len() - 20] {
        let message = crop(&whole[..length], 64).unwrap_err().to_string();
        assert!(message.contains("church.png") && message.contains(&length.to_string()), "{message}");
    }
    assert!(matches!(crop(b"GIF89a, but no image", 64), Err(DataError::Image { .. })));
    // A header that claims 4 billion pixels per side must be refused.
    let mut liar = whole.clone();
    liar[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    assert!(matches!(crop(&liar, 64), Err(DataError::Image { .. })));
    assert!(matches!(crop(&whole, 0), Err(DataError::Image { .. })));
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.png", "a.JPG", "c.jpeg", "10.png", "9.png", "readme.txt"] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    fs::create_dir(dir.path().join("folder.png")).unwrap();
    let names: Vec<_> = list(dir.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["10.png", "9.png", "a.JPG", "b.png", "c.jpeg"]);

    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(list(empty.path()), Err(DataError::Count { found: 0, .. })));
    assert!(matches!(list(&empty.path().join("none")), Err(DataError::Io { .. })));
}
