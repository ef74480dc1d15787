//! Clusters of samples equal those of scikit-learn, for which the paper states thresholds.

use mem2gen::detect::ward;
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    points: Vec<Vec<f64>>,
    cuts: Vec<Cut>,
}

#[derive(Deserialize)]
struct Cut {
    threshold: f64,
    label: Vec<usize>,
}

#[test]
fn labels_are_those_of_scikit_learn() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../clusters/ward.json")).unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let dim = case.points[0].len();
        let x = Array2::from_shape_vec((case.points.len(), dim), case.points.concat()).unwrap();
        for cut in case.cuts {
            let got = ward(x.view(), cut.threshold).unwrap();
            assert_eq!(got.label, cut.label, "{}", cut.threshold);
            assert_eq!(got.size.iter().sum::<usize>(), x.nrows());
        }
    }
}
