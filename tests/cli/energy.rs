//! `mem2gen energy`: comparison with Eq. 6 summed term by term; errors.

use crate::common::{
    Exact, Folder, PRECISIONS, cases, common_refusals, common_usage_mistakes, lying_headers, says_the_device,
    tried,
};
use ndarray::{Array1, Array2, array};
use ndarray_npy::read_npy;

const BETAS: [&str; 9] = ["1e-6", "1e-4", "0.01", "0.3", "1", "7.5", "120", "1e4", "1e6"];

#[test]
fn energies_are_those_of_the_sum_term_by_term() {
    let folder = Folder::new();
    let out = folder.at("E.npy");
    for case in cases() {
        for precision in PRECISIONS {
            let (memories, queries) = folder.case(&case, precision);
            let tolerance = if precision == (true, true) { 1e-4 } else { 1e-6 };
            for &beta in tried(&BETAS, precision) {
                folder.evaluates(["energy", "--beta", beta], &memories, &queries, &out);
                let got: Array1<f64> = read_npy(&out).unwrap();
                assert_eq!(got.len(), case.queries.nrows());
                let beta: f64 = beta.parse().unwrap();
                for (x, got) in case.queries.outer_iter().zip(&got) {
                    let exact = Exact::at(&case.memories, x, beta);
                    // The tolerance of a difference of two nearly equal values is relative to a hundredth of
                    // them; the logarithm of a value just above 1 is accurate to the last place of 1.
                    let scale = exact.energy.abs().max(0.01 * exact.energy_parts);
                    let error = (got - exact.energy).abs();
                    assert!(
                        error <= tolerance * scale + 4.0 * f64::EPSILON / beta,
                        "{}, {precision:?}, beta {beta}: {got}, expected {}",
                        case.name,
                        exact.energy
                    );
                }
            }
        }
    }
}

#[test]
fn one_memory_gives_the_squared_distance_at_any_beta() {
    let folder = Folder::new();
    let memories = folder.array("M.npy", &array![[1.0, -2.0, 0.5]]);
    let queries = folder.array("X.npy", &array![[1.0, -2.0, 0.5], [4.0, 2.0, 0.5], [1.0, -2.0, 1.0]]);
    let out = folder.at("E.npy");
    for beta in ["1e-6", "1", "1e6"] {
        folder.evaluates(["energy", "--beta", beta], &memories, &queries, &out);
        let got: Array1<f64> = read_npy(&out).unwrap();
        assert_eq!(got, array![0.0, 25.0, 0.25], "{beta}");
    }
}

#[test]
fn no_queries_give_no_energies_and_an_old_output_is_replaced() {
    let folder = Folder::new();
    let memories = folder.array("M.npy", &array![[1.0f32, 2.0]]);
    let none = folder.array("none.npy", &Array2::<f32>::zeros((0, 2)));
    let one = folder.array("one.npy", &array![[1.0f32, 3.0]]);
    let out = folder.at("deep/er/E.npy");
    for (queries, count) in [(&one, 1), (&none, 0), (&one, 1)] {
        folder.evaluates(["energy", "--beta", "2"], &memories, queries, &out);
        assert_eq!(read_npy::<_, Array1<f64>>(&out).unwrap().len(), count);
    }
}

#[test]
fn arrays_in_fortran_order_are_read_correctly() {
    let folder = Folder::new();
    let rows = array![[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]];
    let plain = folder.array("C.npy", &rows);
    let turned = folder.path("F.npy");
    // The transpose of a matrix in C order is in Fortran order.
    let other = rows.t().as_standard_layout().into_owned();
    ndarray_npy::write_npy(&turned, &other.t()).unwrap();
    let out = folder.at("E.npy");
    let mut energies = Vec::new();
    for memories in [plain.as_str(), turned.to_str().unwrap()] {
        folder.evaluates(["energy", "--beta", "0.1"], memories, &plain, &out);
        energies.push(read_npy::<_, Array1<f64>>(&out).unwrap());
    }
    assert_eq!(energies[0], energies[1]);
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    common_refusals("energy", "--memories", "--beta");
}

#[test]
fn wrong_options_give_one_line() {
    common_usage_mistakes("energy", "--memories", "--beta");
}

#[test]
fn headers_with_too_many_values_are_refused() {
    lying_headers("energy", "--memories", "--beta");
}

#[test]
fn the_device_is_printed() {
    says_the_device("energy", "--memories", "--beta");
}
