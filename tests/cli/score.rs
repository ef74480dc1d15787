//! `mem2gen score`: comparison with the sum term by term; precision; errors.

use crate::common::{
    Exact, Folder, PRECISIONS, cases, common_refusals, common_usage_mistakes, lying_headers, says_the_device,
    tried,
};
use ndarray::{Array1, Array2, array};
use ndarray_npy::read_npy;

const SIGMAS: [&str; 9] = ["1e-6", "1e-3", "0.03", "0.2", "0.7", "1", "5", "300", "1e6"];

#[test]
fn scores_are_those_of_the_sum_term_by_term() {
    let folder = Folder::new();
    let out = folder.at("S.npy");
    for case in cases() {
        for precision in PRECISIONS {
            let (memories, queries) = folder.case(&case, precision);
            let single = precision == (true, true);
            let tolerance = if single { 1e-4 } else { 1e-6 };
            for &sigma in tried(&SIGMAS, precision) {
                folder.evaluates(["score", "--sigma", sigma], &memories, &queries, &out);
                // Single precision where both inputs have it, double otherwise.
                let got: Array2<f64> = if single {
                    read_npy::<_, Array2<f32>>(&out).unwrap().mapv(f64::from)
                } else {
                    read_npy(&out).unwrap()
                };
                assert_eq!(got.dim(), case.queries.dim());
                let variance = sigma.parse::<f64>().unwrap().powi(2);
                for (x, got) in case.queries.outer_iter().zip(got.outer_iter()) {
                    let exact = Exact::at(&case.memories, x, 0.5 / variance);
                    let length = |v: &[f64]| v.iter().map(|a| a * a).sum::<f64>().sqrt();
                    let error: Vec<f64> =
                        got.iter().zip(&exact.shift).map(|(g, s)| g * variance - s).collect();
                    // Weights below the smallest value of the precision are 0.
                    let least = if single { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
                    let floor = least * length(case.queries.as_slice().unwrap());
                    let scale = length(&exact.shift).max(0.01 * exact.shift_parts).max(floor / tolerance);
                    assert!(
                        length(&error) <= tolerance * scale,
                        "{}, {precision:?}, sigma {sigma}: off by {} of {scale}",
                        case.name,
                        length(&error)
                    );
                }
            }
        }
    }
}

#[test]
fn the_score_is_minus_beta_times_the_slope_of_the_energy() {
    let folder = Folder::new();
    let rows = array![[0.0, 1.0], [1.5, -0.5], [-1.0, -1.0]];
    let x = array![[0.3, 0.2], [-0.6, 0.9]];
    let h = 1e-5;
    let steps = Array2::from_shape_fn((8, 2), |(i, k)| {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        x[[i / 4, k]] + if (i / 2) % 2 == k { sign * h } else { 0.0 }
    });
    let memories = folder.array("M.npy", &rows);
    let (queries, around) = (folder.array("X.npy", &x), folder.array("around.npy", &steps));
    let (score, energy) = (folder.at("S.npy"), folder.at("E.npy"));
    let sigma: f64 = 0.8;
    let beta = (0.5 / (sigma * sigma)).to_string();
    folder.evaluates(["score", "--sigma", "0.8"], &memories, &queries, &score);
    folder.evaluates(["energy", "--beta", &beta], &memories, &around, &energy);
    let score: Array2<f64> = read_npy(&score).unwrap();
    let energy: Array1<f64> = read_npy(&energy).unwrap();
    for ((i, k), s) in score.indexed_iter() {
        let slope = (energy[4 * i + 2 * k] - energy[4 * i + 2 * k + 1]) / (2.0 * h);
        assert!((s + 0.5 / (sigma * sigma) * slope).abs() < 1e-8, "{s} {slope}");
    }
}

#[test]
fn one_memory_gives_its_direction_and_copies_change_nothing() {
    let folder = Folder::new();
    let queries = folder.array("X.npy", &array![[1.0f32, 1.0], [0.0, 0.0]]);
    let out = folder.at("S.npy");
    for (k, sigma, expected) in [(1, "2", 0.25f32), (5, "2", 0.25), (5, "0.5", 4.0)] {
        let memories = folder.array("M.npy", &Array2::<f32>::ones((k, 2)));
        folder.evaluates(["score", "--sigma", sigma], &memories, &queries, &out);
        let got: Array2<f32> = read_npy(&out).unwrap();
        assert_eq!(got, array![[0.0, 0.0], [expected, expected]], "{k} {sigma}");
    }
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    common_refusals("score", "--memories", "--sigma");
    let folder = Folder::new();
    let good = folder.array("good.npy", &array![[0.0, 1.0]]);
    let out = folder.at("out.npy");
    // Squares that vanish or overflow.
    for sigma in ["1e-200", "1e200"] {
        let call = ["score", "--memories", &good, "--queries", &good, "--sigma", sigma, "--out", &out];
        folder.refuses(&call, &["score", "sigma"]);
    }
}

#[test]
fn wrong_options_give_one_line() {
    common_usage_mistakes("score", "--memories", "--sigma");
}

#[test]
fn headers_with_too_many_values_are_refused() {
    lying_headers("score", "--memories", "--sigma");
}

#[test]
fn the_device_is_printed() {
    says_the_device("score", "--memories", "--sigma");
}
