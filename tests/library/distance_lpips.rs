//! LPIPS: comparison with the `lpips` package in torch, and the properties that make it a distance of vectors.

use std::fs;
use std::io::Write;
use std::path::Path;

use mem2gen::data::DataError;
use mem2gen::data::weights::Arrays;
use mem2gen::distance::{Backbone, DistanceError, Lpips};
use mem2gen::ops::OpError;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::shape::Shape;
use ndarray::{Array2, ArrayD, Axis, s};
use serde_json::Value;

const BOTH: [(Backbone, &str); 2] = [(Backbone::AlexNet, "alex"), (Backbone::Vgg16, "vgg")];

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lpips.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// n integers of 32 bits, the same as in tests/golden/make_lpips_golden.py.
fn noise(n: usize, seed: u32) -> impl Iterator<Item = u32> {
    (0..n as u32).map(move |i| {
        let mut x = i.wrapping_add(seed.wrapping_mul(1_000_003));
        for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b_u32)] {
            x ^= x >> shift;
            x = x.wrapping_mul(factor);
        }
        x ^ x >> 16
    })
}

/// The five kinds of images of the same script.
fn images(shape: Shape) -> Array2<f32> {
    let Shape { height: h, width: w, channels: c } = shape;
    let places = (0..h).flat_map(|i| (0..w).flat_map(move |j| (0..c).map(move |k| (i, j, k))));
    let mut rows = Array2::zeros((5, shape.len()));
    let noises = noise(shape.len(), 7).zip(noise(shape.len(), 9));
    for (at, ((i, j, k), (first, second))) in places.zip(noises).enumerate() {
        let ramp = i * 255 / (h - 1).max(1);
        let inside = i * 4 >= h && i * 4 < 3 * h && j * 4 >= w && j * 4 < 3 * w;
        let square = if inside { 200 - 60 * k } else { ramp / 2 };
        let values = [
            first as usize >> 24,
            ramp,
            (3 * i + 5 * j + 70 * k) % 256,
            square,
            (square + (second as usize >> 27)) % 256,
        ];
        for (kind, value) in values.into_iter().enumerate() {
            rows[[kind, at]] = value as f32 / 255.0;
        }
    }
    rows
}

/// The random weights of the same script.
fn made_up(backbone: Backbone) -> Arrays {
    let (module, outputs): (_, &[usize]) = match backbone {
        Backbone::AlexNet => ("AlexNet_0", &[64, 192, 384, 256, 256]),
        Backbone::Vgg16 => ("VGG16_0", &[64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]),
    };
    let compared: &[usize] = match backbone {
        Backbone::AlexNet => &[64, 192, 384, 256, 256],
        Backbone::Vgg16 => &[64, 128, 256, 512, 512],
    };
    let mut arrays = Arrays::new();
    let mut put = |name: String, shape: Vec<usize>| {
        let seed = name.bytes().map(u32::from).sum();
        let fan: usize = shape.iter().take(3).product();
        let scale = (24.0 / fan as f64).sqrt() as f32;
        let values = noise(shape.iter().product(), seed).map(|u| (u >> 8) as f32 / (1 << 24) as f32);
        let values = values.map(|u| match () {
            () if name.ends_with("bias") => u * 0.1,
            () if name.starts_with("NetLinLayer") => u,
            () => (u - 0.5) * scale,
        });
        arrays.insert(name.clone(), ArrayD::from_shape_vec(shape, values.collect()).unwrap());
    };
    let mut inputs = 3;
    for (i, &outputs) in outputs.iter().enumerate() {
        let side = match (backbone, i) {
            (Backbone::AlexNet, 0) => 11,
            (Backbone::AlexNet, 1) => 5,
            _ => 3,
        };
        put(format!("{module}.Conv_{i}.kernel"), vec![side, side, inputs, outputs]);
        put(format!("{module}.Conv_{i}.bias"), vec![outputs]);
        inputs = outputs;
    }
    for (i, &channels) in compared.iter().enumerate() {
        put(format!("NetLinLayer_{i}.Conv_0.kernel"), vec![1, 1, channels, 1]);
    }
    arrays
}

fn made_up_alex() -> Lpips {
    Lpips::new(Backbone::AlexNet, &made_up(Backbone::AlexNet)).unwrap()
}

fn shape(height: usize, width: usize, channels: usize) -> Shape {
    Shape { height, width, channels }
}

/// Compares all distances, by pairs and by rows of features, with the golden file.
fn agrees(lpips: &Lpips, name: &str) {
    let golden = golden();
    let pairs: Vec<[usize; 2]> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    let rows = golden["distances"][name].as_object().unwrap();
    assert_eq!(rows.len(), 7);
    let mut worst = 0.0f64;
    for (sizes, expected) in rows {
        let sizes: Vec<usize> = sizes.split('x').map(|n| n.parse().unwrap()).collect();
        let shape = shape(sizes[0], sizes[1], sizes[2]);
        let images = images(shape);
        let [a, b] =
            [0, 1].map(|side| images.select(Axis(0), &pairs.iter().map(|p| p[side]).collect::<Vec<_>>()));
        let found = lpips.distances(shape, a.view(), b.view()).unwrap();
        let features = lpips.features(shape, images.view(), &Silent).unwrap();
        assert_eq!(features.ncols(), lpips.length(shape).unwrap());
        for ((found, [i, j]), expected) in found.iter().zip(&pairs).zip(expected.as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            let difference = &features.row(*i) - &features.row(*j);
            let by_rows = f64::from(difference.dot(&difference));
            assert!(
                expected > 0.005,
                "{name} {shape}: the expected distance {expected} is too small for a test"
            );
            worst = worst.max((found - expected).abs()).max((by_rows - expected).abs());
        }
    }
    assert!(worst < 5e-5, "{name}: largest error {worst:e}");
    println!("{name}: at most {worst:e} off");
}

#[test]
fn random_weights_give_the_distances_of_the_package() {
    for (backbone, name) in BOTH {
        agrees(&Lpips::new(backbone, &made_up(backbone)).unwrap(), &format!("{name} made-up"));
    }
}

#[test]
fn the_fetched_weights_give_the_distances_of_the_package() {
    let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
    for (backbone, name) in BOTH {
        match Lpips::open(backbone, &layout) {
            Ok(lpips) => agrees(&lpips, &format!("{name} fetched")),
            Err(DistanceError::Data(DataError::Absent { .. })) => {
                let line = format!("SKIPPED: lpips-weights is not in {}\n", layout.data_cache().display());
                // The harness hides the output of a passing test, except this line.
                std::io::stderr().write_all(line.as_bytes()).unwrap();
            }
            Err(damage) => panic!("{damage}"),
        }
    }
}

#[test]
fn a_row_of_features_has_the_stated_length() {
    let alex = made_up_alex();
    // 7x7x64 + 3x3x192 + 384 + 256 + 256.
    assert_eq!(alex.length(shape(28, 28, 1)).unwrap(), 5760);
    assert_eq!(alex.length(shape(64, 64, 3)).unwrap(), 15 * 15 * 64 + 7 * 7 * 192 + 9 * (384 + 256 + 256));
    let vgg = Lpips::new(Backbone::Vgg16, &made_up(Backbone::Vgg16)).unwrap();
    assert_eq!(vgg.length(shape(32, 32, 3)).unwrap(), 124_928);
}

#[test]
fn small_images_are_enlarged_as_in_torch() {
    let (lpips, golden) = (made_up_alex(), golden());
    for (n, places) in golden["enlarged"].as_object().unwrap() {
        let (n, places): (usize, Vec<usize>) =
            (n.parse().unwrap(), serde_json::from_value(places.clone()).unwrap());
        let small = Array2::from_shape_fn((n, n), |(i, j)| ((i * 37 + j * 11) % 256) as f32 / 255.0);
        let large = small.select(Axis(0), &places).select(Axis(1), &places);
        let [small, large] = [small, large].map(|image| image.flatten().into_owned().insert_axis(Axis(0)));
        let features =
            |side, image: Array2<f32>| lpips.features(shape(side, side, 1), image.view(), &Silent).unwrap();
        assert_eq!(features(n, small), features(32, large), "side {n}");
    }
}

#[test]
fn features_do_not_depend_on_other_images_or_threads() {
    let (lpips, shape) = (made_up_alex(), shape(30, 33, 1));
    let n = 300;
    let values: Vec<f32> = noise(n * shape.len(), 1).map(|u| (u >> 24) as f32 / 255.0).collect();
    let images = Array2::from_shape_vec((n, shape.len()), values).unwrap();
    let all = lpips.features(shape, images.view(), &Silent).unwrap();
    for i in [0, 1, 17, 255, 256, 299] {
        let one = lpips.features(shape, images.slice(s![i..=i, ..]), &Silent).unwrap();
        assert_eq!(one.row(0), all.row(i), "image {i}");
    }
    let gray = images.slice(s![..3, ..]);
    let colour = Array2::from_shape_fn((3, 3 * shape.len()), |(i, j)| gray[[i, j / 3]]);
    let shape_colour = Shape { channels: 3, ..shape };
    assert_eq!(lpips.features(shape_colour, colour.view(), &Silent).unwrap(), all.slice(s![..3, ..]));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let single = pool.install(|| lpips.features(shape, images.view(), &Silent).unwrap());
    assert_eq!(single, all);
    // Columns in another order of memory are the same images.
    let turned = images.t().as_standard_layout().into_owned();
    assert_eq!(lpips.features(shape, turned.t(), &Silent).unwrap(), all);
}

#[test]
fn rows_that_are_not_images_are_refused_by_row() {
    let (lpips, shape_of) = (made_up_alex(), shape);
    let shape = shape(28, 28, 1);
    let mut images = Array2::from_elem((4, shape.len()), 0.5);
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        images[[2, 100]] = value;
        let error = lpips.features(shape, images.view(), &Silent).unwrap_err();
        assert!(
            matches!(error, DistanceError::Op(OpError::NotFinite { row: 2, column: 100, .. })),
            "{error}"
        );
        assert!(error.to_string().contains(name), "{error}");
    }
    images[[2, 100]] = -1.0;
    let error = lpips.distances(shape, images.slice(s![..2, ..]), images.slice(s![1..3, ..])).unwrap_err();
    assert!(matches!(error, DistanceError::Range { argument: "b", row: 1, value: -1.0, .. }), "{error}");
    images[[2, 100]] = 1.0 + 1e-6;
    lpips.features(shape, images.view(), &Silent).unwrap();
    let a = images.slice(s![..2, ..]);
    assert!(matches!(lpips.distances(shape, a, images.view()), Err(DistanceError::Sizes { .. })));
    let error = lpips.features(shape_of(28, 28, 3), images.view(), &Silent).unwrap_err();
    assert!(matches!(error, DistanceError::Sizes { found: [4, 784], expected: [4, 2352], .. }), "{error}");
    for bad in [shape_of(28, 28, 2), shape_of(0, 28, 1), shape_of(2048, 8, 1)] {
        assert!(matches!(lpips.length(bad), Err(DistanceError::Images { .. })), "{bad}");
    }
    let none = lpips.features(shape, images.slice(s![..0, ..]), &Silent).unwrap();
    assert_eq!(none.dim(), (0, 5760));
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let mut arrays = made_up(Backbone::AlexNet);
    let refused = |arrays: &Arrays, words: &[&str]| {
        let error = Lpips::new(Backbone::AlexNet, arrays).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let vgg = Lpips::new(Backbone::Vgg16, &arrays).unwrap_err().to_string();
    assert!(vgg.contains("VGG16_0.Conv_0.kernel") && vgg.contains("None"), "{vgg}");
    arrays.get_mut("NetLinLayer_2.Conv_0.kernel").unwrap()[[0, 0, 5, 0]] = -0.5;
    refused(&arrays, &["NetLinLayer_2.Conv_0.kernel", "-0.5"]);
    arrays.get_mut("AlexNet_0.Conv_1.bias").unwrap()[[3]] = f32::NAN;
    refused(&arrays, &["AlexNet_0.Conv_1.bias", "NaN"]);
    arrays.insert("AlexNet_0.Conv_1.bias".into(), ArrayD::zeros(vec![191]));
    refused(&arrays, &["AlexNet_0.Conv_1.bias", "[191]", "[192]"]);
}
