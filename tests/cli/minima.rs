//! `mem2gen minima`: the table is correct and complete, by comparison with sums of Eq. 6 that share no code with the
//! crate.

use std::f64::consts::TAU;

use crate::common::{Dice, Exact, Folder};
use mem2gen::frame::{column_f64, column_i64, column_text, read_parquet};
use ndarray::{Array1, Array2, Axis, array, concatenate, s};

struct Row {
    x: Array1<f64>,
    energy: f64,
    nearest: usize,
    distance: f64,
    kind: String,
    share: f64,
    hessian_min: f64,
}

/// Runs the program and reads its table, whose columns are checked.
fn minima(folder: &Folder, memories: &Array2<f64>, beta: f64, more: &[&str]) -> (Vec<Row>, String) {
    let (file, out, beta) = (folder.array("M.npy", memories), folder.at("T.parquet"), beta.to_string());
    let call = ["minima", "--memories", &file, "--beta", &beta, "--out", &out];
    let said = folder.runs(&[&call[..], more].concat());
    let frame = read_parquet(&folder.path("T.parquet")).unwrap();
    let n = memories.ncols();
    let mut expected: Vec<String> = (0..n).map(|k| format!("x{k}")).collect();
    expected.extend(
        ["energy", "nearest_memory", "distance", "kind", "basin_share", "hessian_min"].map(str::to_owned),
    );
    let names: Vec<String> = frame.get_column_names().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, expected);
    let real = |name: &str| column_f64(&frame, name).unwrap();
    let x: Vec<Vec<f64>> = (0..n).map(|k| real(&format!("x{k}"))).collect();
    let (energy, distance, share, least) =
        (real("energy"), real("distance"), real("basin_share"), real("hessian_min"));
    let nearest = column_i64(&frame, "nearest_memory").unwrap();
    let kind = column_text(&frame, "kind").unwrap();
    let rows = (0..frame.height())
        .map(|i| Row {
            x: x.iter().map(|column| column[i]).collect(),
            energy: energy[i],
            nearest: usize::try_from(nearest[i]).unwrap(),
            distance: distance[i],
            kind: kind[i].clone(),
            share: share[i],
            hessian_min: least[i],
        })
        .collect();
    (rows, said)
}

fn gap(a: &Array1<f64>, b: &Array1<f64>) -> f64 {
    (a - b).mapv(|v| v * v).sum().sqrt()
}

fn shift(memories: &Array2<f64>, x: &Array1<f64>, beta: f64) -> Array1<f64> {
    Array1::from(Exact::at(memories, x.view(), beta).shift)
}

/// Smallest eigenvalue of the Hessian in the plane, by central differences of the gradient -2 (m(x) - x).
fn curvature(memories: &Array2<f64>, x: &Array1<f64>, beta: f64) -> f64 {
    let h = 1e-5 / (1.0 + beta.sqrt());
    let mut hessian = [[0.0; 2]; 2];
    for k in 0..2 {
        let (mut up, mut down) = (x.clone(), x.clone());
        up[k] += h;
        down[k] -= h;
        let slope = (shift(memories, &up, beta) - shift(memories, &down, beta)) / -h;
        hessian[0][k] = slope[0];
        hessian[1][k] = slope[1];
    }
    let [[a, b], [c, d]] = hessian;
    0.5 * (a + d) - (0.25 * (a - d) * (a - d) + 0.25 * (b + c) * (b + c)).sqrt()
}

/// The end of x <- m(x) from x; `None` when it has not converged after many steps.
fn follow(memories: &Array2<f64>, mut x: Array1<f64>, beta: f64) -> Option<Array1<f64>> {
    for _ in 0..30_000 {
        let step = shift(memories, &x, beta);
        x += &step;
        if step.dot(&step).sqrt() < 1e-13 {
            return Some(x);
        }
    }
    None
}

/// Median distance from a memory to its nearest distinct neighbour.
fn spacing(memories: &Array2<f64>) -> f64 {
    let mut apart: Vec<f64> = memories
        .outer_iter()
        .map(|a| {
            memories
                .outer_iter()
                .map(|b| gap(&a.to_owned(), &b.to_owned()))
                .filter(|d| *d > 0.0)
                .fold(f64::INFINITY, f64::min)
        })
        .filter(|d| d.is_finite())
        .collect();
    apart.sort_by(f64::total_cmp);
    apart.get(apart.len() / 2).copied().unwrap_or(0.0)
}

/// Compares each row with the sums at its position.
fn check_rows(name: &str, memories: &Array2<f64>, beta: f64, delta: f64, rows: &[Row]) {
    assert!(!rows.is_empty(), "{name}");
    for row in rows {
        let exact = Exact::at(memories, row.x.view(), beta);
        let step = Array1::from(exact.shift.clone());
        assert!(step.dot(&step).sqrt() < 1e-8, "{name}, beta {beta}: {} moves by {step}", row.x);
        assert!((row.energy - exact.energy).abs() < 1e-10, "{name}: {} {}", row.energy, exact.energy);
        assert!((row.distance - exact.nearest.1).abs() < 1e-10, "{name}");
        // Either of two equally near memories is correct.
        let named = gap(&row.x, &memories.row(row.nearest).to_owned());
        assert!((named - exact.nearest.1).abs() < 1e-10, "{name}");
        let kind = if row.distance <= delta { "memorized" } else { "spurious" };
        assert_eq!(row.kind, kind, "{name}, beta {beta}: {} against {delta}", row.distance);
        assert!(row.hessian_min > 0.0 && row.hessian_min <= 2.0 + 1e-12, "{name}");
        if memories.ncols() == 2 {
            let least = curvature(memories, &row.x, beta);
            assert!((row.hessian_min - least).abs() < 1e-5, "{name}: {} {least}", row.hessian_min);
        }
    }
    assert!(rows.windows(2).all(|w| w[0].energy <= w[1].energy), "{name}: not in the order of energy");
    assert!(rows.iter().map(|row| row.share).sum::<f64>() <= 1.0 + 1e-12, "{name}");
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[..i] {
            assert!(gap(&a.x, &b.x) > 1e-7, "{name}: {} is listed twice", a.x);
        }
    }
}

/// Runs x <- m(x) from a dense grid and from noisy memories: it ends only at listed minima, and at each as often as the
/// table states.
fn check_complete(name: &str, memories: &Array2<f64>, beta: f64, rows: &[Row]) {
    let home = |x: &Array1<f64>| rows.iter().position(|row| gap(&row.x, x) < 1e-6);
    let side = 41usize;
    let mut cut = 0;
    for i in 0..side * side {
        let at = |i: usize| -1.15 + 2.3 * i as f64 / (side - 1) as f64;
        match follow(memories, array![at(i / side), at(i % side)], beta) {
            None => cut += 1,
            Some(end) => assert!(
                home(&end).is_some() || curvature(memories, &end, beta) < 1e-3,
                "{name}, beta {beta}: {end} is missing"
            ),
        }
    }
    assert!(cut <= side * side / 100, "{name}, beta {beta}: {cut} starts were cut");

    let mut dice = Dice::new(7);
    let draws = 1500;
    let mut counts = vec![0; rows.len()];
    for _ in 0..draws {
        let memory = memories.row((dice.word() % memories.nrows() as u64) as usize);
        let start = memory.mapv(|y| y + (0.5 / beta).sqrt() * dice.normal());
        if let Some(i) = follow(memories, start, beta).and_then(|end| home(&end)) {
            counts[i] += 1;
        }
    }
    for (row, count) in rows.iter().zip(counts) {
        let share = f64::from(count) / f64::from(draws);
        // Both are counts, of 1500 and of 1000: five standard deviations.
        let spread = 5.0 * (share.max(0.01) * (1.0 / 1500.0 + 1.0 / 1000.0)).sqrt();
        assert!((row.share - share).abs() < spread, "{name}, beta {beta}: {} {share}", row.share);
    }
}

#[test]
fn minima_of_toy_points_are_correct_and_complete() {
    let folder = Folder::new();
    for (k, betas) in [
        (2, &[0.45, 0.7, 33.0][..]),
        (3, &[0.6, 4.4]),
        (4, &[1.3, 6.5, 70.0]),
        (6, &[2.7, 15.0, 410.0]),
        (9, &[0.8, 7.7, 33.0, 3000.0]),
        (14, &[5.5, 90.0]),
        (25, &[27.0, 650.0]),
    ] {
        let memories = folder.toy_points(&k.to_string());
        for &beta in betas {
            let name = format!("{k} toy points");
            let (rows, said) = minima(&folder, &memories, beta, &[]);
            check_rows(&name, &memories, beta, 0.1 * spacing(&memories), &rows);
            check_complete(&name, &memories, beta, &rows);
            assert!(said.starts_with(&format!("{} attractors: ", rows.len())), "{said}");
        }
    }
}

#[test]
fn minima_of_other_subsets_of_the_circle_are_correct_and_complete() {
    let folder = Folder::new();
    let regular = |k: usize, radius: f64| {
        Array2::from_shape_fn((k, 2), |(i, axis)| {
            let angle = 0.1 + TAU * i as f64 / k as f64;
            radius * if axis == 0 { angle.cos() } else { angle.sin() }
        })
    };
    let all = folder.toy_points(&1000.to_string());
    let sets = [
        ("triangle", regular(3, 1.0)),
        ("pentagon", regular(5, 1.0)),
        ("heptagon and its centre", concatenate![Axis(0), regular(7, 1.0), array![[0.0, 0.0]]]),
        ("two rings", concatenate![Axis(0), regular(4, 1.0), regular(3, 0.4)]),
        ("every 90th toy point", all.slice(s![5..;90, ..]).to_owned()),
        ("toy points 20 to 27", all.slice(s![20..28, ..]).to_owned()),
    ];
    for (name, memories) in sets {
        for beta in [0.9, 3.3, 12.5, 170.0] {
            let (rows, _) = minima(&folder, &memories, beta, &[]);
            check_rows(name, &memories, beta, 0.1 * spacing(&memories), &rows);
            check_complete(name, &memories, beta, &rows);
        }
    }
}

/// Just above the critical beta of a hexagon its minima lie in a flat valley, in which a small step does not indicate
/// convergence: the energy along it varies by 4e-8. By symmetry there are six minima.
#[test]
fn a_flat_valley_has_no_more_minima_than_its_symmetry_gives() {
    let folder = Folder::new();
    let hexagon = Array2::from_shape_fn((6, 2), |(i, axis)| {
        let angle = TAU * i as f64 / 6.0;
        if axis == 0 { angle.cos() } else { angle.sin() }
    });
    let (rows, _) = minima(&folder, &hexagon, 1.01, &["--random-starts", "200"]);
    assert_eq!(rows.len(), 6);
}

#[test]
fn one_memory_copies_and_many_dimensions() {
    let folder = Folder::new();
    let one = array![[0.3, -0.2, 0.9]];
    for (memories, beta) in [(one.clone(), 5.0), (concatenate![Axis(0), one, one, one, one], 0.02)] {
        let (rows, _) = minima(&folder, &memories, beta, &[]);
        assert_eq!(rows.len(), 1);
        assert!(gap(&rows[0].x, &memories.row(0).to_owned()) < 1e-12);
        assert_eq!((rows[0].kind.as_str(), rows[0].share), ("memorized", 1.0));
        let exact = -(memories.nrows() as f64).ln() / beta;
        assert!((rows[0].energy - exact).abs() < 1e-12 && (rows[0].hessian_min - 2.0).abs() < 1e-12);
    }
    let memories = Dice::new(3).cloud(15, 12, 1.0, 0.0);
    let mut counts = Vec::new();
    for beta in [0.01, 0.2, 0.6, 40.0] {
        let (rows, _) = minima(&folder, &memories, beta, &["--random-starts", "100"]);
        check_rows("cloud", &memories, beta, 0.1 * spacing(&memories), &rows);
        counts.push(rows.len());
    }
    // At small beta all share one minimum, at large beta each has its own.
    assert_eq!((counts[0], counts[3]), (1, 15), "{counts:?}");
}

#[test]
fn single_precision_files_and_options_take_effect() {
    let folder = Folder::new();
    let memories = folder.toy_points(&5.to_string()).mapv(|v| f64::from(v as f32));
    let (double, _) = minima(&folder, &memories, 30.0, &[]);
    let file = folder.array("M32.npy", &memories.mapv(|v| v as f32));
    let out = folder.at("T32.parquet");
    folder.runs(&["minima", "--memories", &file, "--beta", "30", "--out", &out]);
    let single = column_f64(&read_parquet(&folder.path("T32.parquet")).unwrap(), "x0").unwrap();
    assert_eq!(single, double.iter().map(|row| row.x[0]).collect::<Vec<_>>());

    let farthest = double.iter().map(|row| row.distance).fold(0.0, f64::max);
    let wide = (2.0 * farthest).to_string();
    for (delta, kind) in [(wide.as_str(), "memorized"), ("1e-12", "spurious")] {
        let (rows, _) = minima(&folder, &memories, 3.0, &["--delta-m", delta]);
        check_rows("delta-m", &memories, 3.0, delta.parse().unwrap(), &rows);
        assert!(delta == wide || rows.iter().all(|row| row.kind == kind));
    }
    // The same seed gives the same bytes, and another seed gives the same minima.
    let table = || std::fs::read(folder.path("T.parquet")).unwrap();
    minima(&folder, &memories, 30.0, &["--seed", "1"]);
    let first = table();
    minima(&folder, &memories, 30.0, &["--seed", "1"]);
    assert_eq!(first, table());
    let (other, _) = minima(&folder, &memories, 30.0, &["--seed", "2", "--random-starts", "50"]);
    assert_eq!(other.len(), double.len());
    assert!(other.iter().zip(&double).all(|(a, b)| gap(&a.x, &b.x) < 1e-8));
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let good = folder.array("good.npy", &array![[0.0, 1.0], [2.0, 3.0]]);
    let out = folder.at("T.parquet");
    let refuses = |memories: &str, beta: &str, more: &[&str], words: &[&str]| {
        let call = ["minima", "--memories", memories, "--beta", beta, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["minima"], words].concat());
    };
    for beta in ["0", "-3", "NaN", "inf"] {
        refuses(&good, beta, &[], &["beta"]);
    }
    for delta in ["0", "-1", "NaN"] {
        refuses(&good, "1", &["--delta-m", delta], &["delta_m"]);
    }
    for bad in [f64::NAN, f64::INFINITY] {
        let file = folder.array("bad.npy", &array![[0.0, bad]]);
        refuses(&file, "1", &[], &["memories", "row 0", "column 1"]);
    }
    let empty = folder.array("empty.npy", &Array2::<f32>::zeros((0, 2)));
    refuses(&empty, "1", &[], &["memories", "empty", "[0, 2]"]);
    refuses(&folder.at("none.npy"), "1", &[], &["none.npy"]);
    let line = folder.array("line.npy", &array![1.0, 2.0]);
    refuses(&line, "1", &[], &["line.npy"]);
    let integers = folder.array("integers.npy", &array![[1i64, 2]]);
    refuses(&integers, "1", &[], &["integers.npy"]);
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(folder.path("short.npy"), &bytes[..bytes.len() - 1]).unwrap();
    refuses(&folder.at("short.npy"), "1", &[], &["short.npy"]);
}

#[test]
fn wrong_options_give_one_line() {
    let folder = Folder::new();
    let good = folder.array("good.npy", &array![[0.0, 1.0], [2.0, 3.0]]);
    let out = folder.at("T.parquet");
    let call = ["minima", "--memories", &good, "--beta", "1", "--out", &out];
    folder.refuses(&[&call[..], &["--bogus"]].concat(), &["minima", "--bogus"]);
    folder.refuses(&[&call[..], &["--random-starts", "-1"]].concat(), &["minima", "-1"]);
    for missing in [1, 3, 5] {
        folder.refuses(&[&call[..missing], &call[missing + 2..]].concat(), &["minima", call[missing]]);
    }
}
