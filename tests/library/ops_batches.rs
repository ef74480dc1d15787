//! The result of the fused operations for a query does not depend, to the last bit, on the other queries of the batch,
//! on the number of threads or on strides.

use mem2gen::ops::{Element, Memories, Want};
use mem2gen::random::Stream;
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::ThreadPoolBuilder;

fn cloud(name: &str, rows: usize, columns: usize) -> Array2<f32> {
    let mut stream = Stream::new(1, name);
    Array2::from_shape_fn((rows, columns), |_| (0.3 + stream.normal()) as f32)
}

/// All results of the operations for each query, as bits.
fn bits<T: Element>(memories: &Memories<T>, queries: ArrayView2<'_, T>, beta: f64) -> Vec<Vec<u64>> {
    let read = memories.readout(queries, beta, Want::ALL).unwrap();
    let k = memories.len().min(5);
    let near = memories.knn(queries, k, false).unwrap();
    let mut all: Vec<Vec<u64>> = (0..queries.nrows())
        .map(|i| {
            let mut row: Vec<u64> = read.shift.row(i).iter().map(|v| v.f64().to_bits()).collect();
            row.extend([read.energy[i], read.entropy[i], read.top_weight[i]].map(f64::to_bits));
            row.push(read.heaviest[i] as u64);
            row.extend(near.index.row(i).iter().map(|j| *j as u64));
            row.extend(near.distance.row(i).iter().map(|d| d.to_bits()));
            row
        })
        .collect();
    memories
        .pairwise(queries, |tile| {
            for (i, row) in tile.queries.clone().zip(tile.squared.outer_iter()) {
                all[i].extend(row.iter().map(|d2| d2.f64().to_bits()));
            }
        })
        .unwrap();
    all
}

fn check<T: Element>(rows: &Array2<T>, queries: &Array2<T>, beta: f64) {
    let memories = Memories::new(rows.clone()).unwrap();
    let whole = bits(&memories, queries.view(), beta);
    for size in [1, 2, 7, 48, 49, 256] {
        let pieces: Vec<Vec<u64>> =
            queries.axis_chunks_iter(Axis(0), size).flat_map(|piece| bits(&memories, piece, beta)).collect();
        assert!(whole == pieces, "{:?} by {size}, beta {beta}", rows.dim());
    }
    for threads in [1, 3] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let other = pool.install(|| bits(&memories, queries.view(), beta));
        assert!(whole == other, "{:?} on {threads} threads, beta {beta}", rows.dim());
    }
    // Every second row of a wider array, and columns that are not contiguous.
    let turned = queries.t().as_standard_layout().into_owned();
    assert!(whole == bits(&memories, turned.t(), beta), "{:?} turned", rows.dim());
    let mut spread = Array2::from_elem((2 * queries.nrows(), queries.ncols() + 3), T::from_f64(9.0));
    spread.slice_mut(s![..;2, 3..]).assign(queries);
    assert!(whole == bits(&memories, spread.slice(s![..;2, 3..]), beta), "{:?} spread", rows.dim());
}

#[test]
fn a_query_does_not_depend_on_its_batch() {
    for (k, n, m) in
        [(1, 1, 5), (300, 2, 600), (9000, 3, 60), (700, 9, 300), (5000, 40, 101), (900, 401, 120)]
    {
        let rows = cloud("rows", k, n);
        let mut queries = cloud("queries", m, n);
        // Some near a memory, where distances are recomputed.
        for i in (0..m).step_by(4) {
            let near = rows.row(i % k).mapv(|v| v + 1e-4);
            queries.row_mut(i).assign(&near);
        }
        for beta in [0.5 / n as f64, 2.0, 300.0] {
            check(&rows, &queries, beta);
            if m < 200 {
                check(&rows.mapv(f64::from), &queries.mapv(f64::from), beta);
            }
        }
    }
}
