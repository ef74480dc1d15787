//! `mem2gen toy`: the published points, nested sets, errors.

use crate::common::Folder;
use ndarray::s;

#[test]
fn points_are_on_the_circle_in_nested_sets_of_the_published_order() {
    let folder = Folder::new();
    let all = folder.toy_points("1000");
    assert_eq!(all.dim(), (1000, 2));
    assert!(all.outer_iter().all(|p| (p[0].hypot(p[1]) - 1.0).abs() < 1e-12));
    for k in [1usize, 2, 9, 137, 999] {
        assert_eq!(folder.toy_points(&k.to_string()), all.slice(s![..k, ..]), "{k}");
    }
    let degrees = |i: usize| all[[i, 1]].atan2(all[[i, 0]]).to_degrees().rem_euclid(360.0);
    for (i, published) in
        [151.88, 325.52, 220.65, 138.86, 129.15, 324.39, 213.83, 356.42, 161.73].into_iter().enumerate()
    {
        assert!((degrees(i) - published).abs() < 0.005, "{i}: {}", degrees(i));
    }
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let out = folder.at("P.npy");
    folder.refuses(&["toy", "--points", "0", "--out", &out], &["toy", "points", "empty"]);
    folder.refuses(&["toy", "--points", "1001", "--out", &out], &["toy", "points", "1001", "1000"]);
}

#[test]
fn wrong_options_give_one_line() {
    let folder = Folder::new();
    let out = folder.at("P.npy");
    folder.refuses(&["toy", "--points", "-1", "--out", &out], &["toy", "-1"]);
    for value in ["2.5", "many"] {
        folder.refuses(&["toy", "--points", value, "--out", &out], &["toy", "--points"]);
    }
    folder.refuses(&["toy", "--points", "2"], &["toy", "--out"]);
    folder.refuses(&["toy", "--out", &out], &["toy", "--points"]);
    folder.refuses(&["toy", "--points", "2", "--out", &out, "--seed", "9"], &["toy", "--seed"]);
}
