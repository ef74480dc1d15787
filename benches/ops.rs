//! Times of the operations: `cargo bench` compares each with its last run on this machine. `make bench-peers` has the
//! times of other libraries.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mem2gen::ops::Memories;
use mem2gen::random::{SEED, Stream};
use ndarray::Array2;

/// Names and sizes (m, K, N): the batch of a sampler, a few images against a whole training set, and points of the toy
/// model.
const SIZES: [(&str, usize, usize, usize); 3] =
    [("images", 256, 10_000, 784), ("few-images", 8, 60_000, 784), ("plane", 20_000, 1000, 2)];

fn draw(name: &str, rows: usize, columns: usize) -> Array2<f32> {
    let mut stream = Stream::new(SEED, name);
    Array2::from_shape_fn((rows, columns), |_| stream.normal() as f32)
}

fn operations(criterion: &mut Criterion) {
    for (name, m, k, n) in SIZES {
        let (rows, queries) = (draw("bench: memories", k, n).into_shared(), draw("bench: queries", m, n));
        let queries = queries.view();
        let memories = Memories::new(rows.clone()).unwrap();
        let sigma = (n as f64).sqrt();
        let mut group = criterion.benchmark_group(name);
        group.bench_function("prepare", |b| b.iter(|| Memories::new(rows.clone()).unwrap().len()));
        // Pairs of a query and a memory.
        group.throughput(Throughput::Elements((m * k) as u64));
        group.bench_function("energy", |b| {
            b.iter(|| memories.energy(queries, 0.5 / (sigma * sigma)).unwrap());
        });
        group.bench_function("score", |b| b.iter(|| memories.score(queries, sigma).unwrap()));
        group.bench_function("knn", |b| b.iter(|| memories.knn(queries, 6, false).unwrap()));
        group.bench_function("nearest", |b| b.iter(|| memories.nearest(queries, false).unwrap()));
        group.bench_function("pairwise", |b| {
            b.iter(|| memories.pairwise(queries, |tile| _ = black_box(tile)).unwrap());
        });
        group.finish();
    }
}

criterion_group! {
    name = ops;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = operations
}
criterion_main!(ops);
