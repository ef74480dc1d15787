use super::*;
use crate::random::Stream;

/// Image sides and channels that are not multiples of a block, and all kinds of windows.
const LAYERS: [(Shape, usize, usize, usize, bool); 19] = [
    (Shape::image(5, 7, 3), 33, 3, 1, false),
    (Shape::image(7, 7, 17), 5, 3, 1, false),
    (Shape::image(14, 14, 1), 32, 3, 1, false),
    (Shape::image(14, 14, 32), 1, 3, 1, false),
    (Shape::image(6, 5, 64), 3, 3, 1, false),
    (Shape::image(4, 4, 20), 80, 3, 1, false),
    (Shape::image(2, 2, 33), 65, 3, 1, false),
    (Shape::image(1, 1, 5), 2, 3, 1, false),
    (Shape::image(1, 9, 2), 17, 3, 1, false),
    (Shape::image(6, 4, 5), 17, 3, 2, false),
    (Shape::image(2, 2, 16), 48, 3, 2, false),
    (Shape::image(14, 14, 32), 32, 3, 2, false),
    (Shape::image(3, 5, 2), 33, 3, 1, true),
    (Shape::image(1, 1, 17), 16, 3, 1, true),
    (Shape::image(7, 7, 64), 64, 3, 1, true),
    (Shape::image(3, 3, 96), 96, 1, 1, false),
    (Shape::vector(100), 130, 1, 1, false),
    (Shape::vector(230), 270, 1, 1, false),
    (Shape::vector(1), 1, 1, 1, false),
];

fn layer(at: usize, simd: Arch, rows: usize) -> Linear {
    let (from, outputs, side, stride, upsample) = LAYERS[at];
    Linear::on(simd, from, outputs, side, stride, upsample, rows)
}

fn simds() -> Vec<Arch> {
    let mut simds = vec![Arch::Scalar, Arch::new()];
    #[cfg(target_arch = "x86_64")]
    simds.extend(pulp::x86::V3::try_new().map(Arch::V3));
    simds
}

fn draw(name: &str, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(1, name);
    (0..n).map(|_| stream.normal() as f32).collect()
}

/// Arguments of the layer.
struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    shift: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(layer: &Linear, m: usize) -> Self {
        let (inputs, outputs) = (layer.from.channels, layer.to.channels);
        Self {
            x: draw("x", m * layer.from.len()),
            weight: draw("weight", layer.places * inputs * outputs),
            bias: draw("bias", outputs),
            shift: draw("shift", m * outputs),
            dy: draw("dy", m * layer.to.len()),
        }
    }
}

/// Sums in f64, with the sum of the absolute values of their terms and the number of terms.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    size: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, term: f64) {
        self.value += term;
        self.size += term.abs();
        self.terms += 1;
    }
}

/// In a sum of n terms in f32 each term is rounded at most n times: once itself, and with each later addition. Two more
/// roundings are for weights that were summed before.
fn assert_close(what: &str, found: &[f32], expected: &[Sum]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, e)) in found.iter().zip(expected).enumerate() {
        let tolerance = (e.terms + 2) as f64 * f64::from(f32::EPSILON / 2.0) * e.size;
        let error = (f64::from(*found) - e.value).abs();
        assert!(error <= tolerance, "{what} {i}: {found}, expected {}, {error:e} > {tolerance:e}", e.value);
    }
}

/// Every position of every window inside the image: first element of the output pixel and of the input pixel, and the
/// position.
fn windows(at: usize, m: usize) -> Vec<(usize, usize, usize)> {
    let (from, outputs, side, stride, upsample) = LAYERS[at];
    let scale = if upsample { 2 } else { 1 };
    let (high, wide) = ((scale * from.height) as isize, (scale * from.width) as isize);
    let (rows, columns) = (high as usize / stride, wide as usize / stride);
    let before = if side == 3 && stride == 1 { 1 } else { 0 };
    let mut windows = vec![];
    for (s, i, j) in (0..m).flat_map(|s| (0..rows).flat_map(move |i| (0..columns).map(move |j| (s, i, j)))) {
        for (a, b) in (0..side).flat_map(|a| (0..side).map(move |b| (a, b))) {
            let (row, column) = ((i * stride + a) as isize - before, (j * stride + b) as isize - before);
            if (0..high).contains(&row) && (0..wide).contains(&column) {
                let (row, column) = (row as usize / scale, column as usize / scale);
                windows.push((
                    ((s * rows + i) * columns + j) * outputs,
                    ((s * from.height + row) * from.width + column) * from.channels,
                    a * side + b,
                ));
            }
        }
    }
    windows
}

/// The sums with one more term each.
fn with_terms(sums: &[Sum], terms: &[f32]) -> Vec<Sum> {
    let mut sums = sums.to_vec();
    sums.iter_mut().zip(terms).for_each(|(sum, term)| sum.add(f64::from(*term)));
    sums
}

#[test]
fn all_three_passes_are_the_plain_sums() {
    for (at, m) in (0..LAYERS.len()).flat_map(|at| [1, 3, 26].map(|m| (at, m))) {
        let sizes = layer(at, Arch::new(), 26);
        let case = Case::new(&sizes, m);
        let (inputs, outputs, len) = (sizes.from.channels, sizes.to.channels, sizes.to.len());
        let mut y = vec![Sum::default(); m * len];
        let mut dx = vec![Sum::default(); m * sizes.from.len()];
        let mut dw = vec![Sum::default(); case.weight.len()];
        let (mut db, mut ds) = (vec![Sum::default(); outputs], vec![Sum::default(); m * outputs]);
        for (p, q, t) in windows(at, m) {
            for (c, o) in (0..inputs).flat_map(|c| (0..outputs).map(move |o| (c, o))) {
                let k = (t * inputs + c) * outputs + o;
                let [x, w, g] = [case.x[q + c], case.weight[k], case.dy[p + o]].map(f64::from);
                y[p + o].add(x * w);
                dx[q + c].add(w * g);
                dw[k].add(x * g);
            }
        }
        for (i, g) in case.dy.iter().enumerate() {
            y[i].add(f64::from(case.bias[i % outputs]));
            db[i % outputs].add(f64::from(*g));
            ds[i / len * outputs + i % outputs].add(f64::from(*g));
        }
        let shifts: Vec<f32> = (0..y.len()).map(|i| case.shift[i / len * outputs + i % outputs]).collect();
        let all_y = with_terms(&with_terms(&y, &shifts), &case.dy);
        let (more_dx, more_ds) = (with_terms(&dx, &case.x), with_terms(&ds, &case.shift));

        for simd in simds() {
            let mut layer = layer(at, simd, 26);
            let what = format!("{:?} {simd:?} m {m}", LAYERS[at]);
            let mut found = vec![f32::NAN; y.len()];
            layer.forward(m, &case.x, &case.weight, &case.bias, None, None, &mut found);
            assert_close(&format!("y of {what}"), &found, &y);
            found.fill(f32::NAN);
            let (shift, add) = (Some(&case.shift[..]), Some(&case.dy[..]));
            layer.forward(m, &case.x, &case.weight, &case.bias, shift, add, &mut found);
            assert_close(&format!("y with all of {what}"), &found, &all_y);

            let mut found = vec![f32::NAN; dx.len()];
            layer.backward_input(m, &case.dy, &case.weight, &mut found, false);
            assert_close(&format!("dx of {what}"), &found, &dx);
            found.copy_from_slice(&case.x);
            layer.backward_input(m, &case.dy, &case.weight, &mut found, true);
            assert_close(&format!("dx added to {what}"), &found, &more_dx);

            let mut found = [dw.len(), outputs, ds.len()].map(|n| vec![f32::NAN; n]);
            let [w, b, s] = &mut found;
            layer.backward_weight(m, &case.x, &case.dy, w, b, Some((s, false)));
            assert_close(&format!("dw of {what}"), w, &dw);
            assert_close(&format!("db of {what}"), b, &db);
            assert_close(&format!("dshift of {what}"), s, &ds);
            let first = found.clone();
            let [w, b, s] = &mut found;
            s.copy_from_slice(&case.shift);
            layer.backward_weight(m, &case.x, &case.dy, w, b, Some((s, true)));
            assert_close(&format!("dshift added to {what}"), s, &more_ds);
            assert_eq!(first[..2], found[..2], "{what}: the sum was overwritten");
        }
    }
}

/// y, dx, dw and db of the first m rows.
fn bits(layer: &mut Linear, case: &Case, from: usize, m: usize) -> [Vec<u32>; 4] {
    let (x, to) = (layer.from.len(), layer.to.len());
    let (x, dy) = (&case.x[from * x..(from + m) * x], &case.dy[from * to..(from + m) * to]);
    let shift = &case.shift[from * layer.to.channels..];
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    let (mut dw, mut db) = (vec![0.0; case.weight.len()], vec![0.0; case.bias.len()]);
    layer.forward(m, x, &case.weight, &case.bias, Some(shift), Some(dy), &mut y);
    layer.backward_input(m, dy, &case.weight, &mut dx, false);
    layer.backward_weight(m, x, dy, &mut dw, &mut db, None);
    [y, dx, dw, db].map(|v| v.into_iter().map(f32::to_bits).collect())
}

#[test]
fn a_row_is_the_same_to_the_bit_wherever_it_stands() {
    for (at, what) in LAYERS.iter().enumerate() {
        let mut layer = layer(at, Arch::new(), 26);
        let case = Case::new(&layer, 26);
        let [y, dx, ..] = bits(&mut layer, &case, 0, 26);
        let (to, from) = (layer.to.len(), layer.from.len());
        for (row, m) in [(0, 1), (7, 1), (25, 1), (3, 5), (1, 25)] {
            let [own_y, own_dx, ..] = bits(&mut layer, &case, row, m);
            assert_eq!(own_y, y[row * to..(row + m) * to], "y of {what:?}");
            assert_eq!(own_dx, dx[row * from..(row + m) * from], "dx of {what:?}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (at, what) in LAYERS.iter().enumerate() {
        let gradients = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut layer = layer(at, Arch::new(), 26);
                let case = Case::new(&layer, 26);
                bits(&mut layer, &case, 0, 26)
            })
        };
        let one = gradients(1);
        for threads in [2, 3, 7] {
            assert!(gradients(threads) == one, "{what:?}");
        }
    }
}
