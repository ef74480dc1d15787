//! Nested training sets, and the arrays from which they are taken.

use mem2gen::data::registry::{CriticalPoints, REGISTRY};
use mem2gen::data::subset::{indices, order};
use mem2gen::data::{DataError, Dataset, Range, find};
use mem2gen::metric::Metric;
use mem2gen::shape::Shape;
use mem2gen::store::sha256_hex;
use ndarray::{Array1, Array2, array};

/// Golden values from tests/fixtures/data/subset_order.py, which shares no code with the crate.
#[test]
fn the_permutation_never_changes() {
    for (n, first, sum) in [
        (
            60_000,
            [11102, 30130, 59300, 46502, 12731, 55245, 22967, 16504, 5876, 56067],
            "a4599f20fa933014d4ec3b8f6d2dbe411ec0c2ad4f3ae609fb1866bc1f510f35",
        ),
        (
            50_000,
            [22512, 353, 4743, 3300, 29890, 31647, 30073, 189, 10260, 1344],
            "b4240545de707af27c2fcb3ad06272adb17097ab31842726ab4e3279027eea68",
        ),
    ] {
        let order = order(n);
        assert_eq!(order[..10], first);
        let bytes: Vec<u8> = order.iter().flat_map(|&i| (i as u32).to_le_bytes()).collect();
        assert_eq!(sha256_hex(&bytes), sum);
    }
}

#[test]
fn each_set_contains_every_smaller_one() {
    let all = order(1000);
    for k in [1, 2, 9, 500, 999, 1000] {
        assert_eq!(indices(1000, k).unwrap(), all[..k]);
    }
    let mut sorted = all;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..1000));
}

#[test]
fn sizes_of_zero_and_above_the_data_set_are_refused() {
    assert!(matches!(indices(10, 0), Err(DataError::SubsetSize { k: 0, n: 10 })));
    assert!(matches!(indices(10, 11), Err(DataError::SubsetSize { k: 11, n: 10 })));
    assert!(matches!(indices(0, 0), Err(DataError::SubsetSize { k: 0, n: 0 })));
    let message = small().subset(21).unwrap_err().to_string();
    assert_eq!(message, "training set: size K is 21, expected 1 to 20");
}

const SHAPE: Shape = Shape { height: 1, width: 2, channels: 1 };

/// Twenty images whose values tell their index.
fn small() -> Dataset {
    let images = Array2::from_shape_fn((20, 2), |(i, j)| (10 * i + j) as u8);
    Dataset::new(SHAPE, images, Array1::from_iter(0..20)).unwrap()
}

#[test]
fn a_subset_takes_images_and_labels_together() {
    let set = small().subset(7).unwrap();
    for ((image, &label), index) in set.images().rows().into_iter().zip(set.labels()).zip(order(20)) {
        assert_eq!(usize::from(label), index);
        assert_eq!(image.to_vec(), [10 * label, 10 * label + 1]);
    }
    assert_eq!(set.len(), 7);
    assert!(matches!(small().select(&[3, 20]), Err(DataError::Index { index: 20, n: 20 })));
}

#[test]
fn arrays_of_different_lengths_are_refused() {
    let make =
        |rows, columns, labels| Dataset::new(SHAPE, Array2::zeros((rows, columns)), Array1::zeros(labels));
    assert!(make(3, 2, 3).is_ok());
    for (rows, columns, labels) in [(3, 2, 2), (3, 3, 3), (0, 2, 0)] {
        assert!(matches!(make(rows, columns, labels), Err(DataError::Mismatch { .. })));
    }
}

#[test]
fn ranges_reach_their_ends() {
    let images = array![[0u8, 255], [51, 128]];
    let set = Dataset::new(SHAPE, images, array![0, 1]).unwrap();
    assert_eq!(set.to_f64(Range::Unit), array![[0.0, 1.0], [0.2, 128.0 / 255.0]]);
    assert_eq!(set.to_f64(Range::Symmetric), array![[-1.0, 1.0], [-0.6, 1.0 / 255.0]]);
    assert_eq!(set.to_f32(Range::Unit), array![[0.0f32, 1.0], [0.2, 128.0 / 255.0]]);
    assert_eq!(set.to_f32(Range::Symmetric), array![[-1.0f32, 1.0], [-0.6, 1.0 / 255.0]]);
}

#[test]
fn a_checksum_covers_images_and_then_labels() {
    let set = Dataset::new(SHAPE, array![[1, 2], [3, 4]], array![5, 6]).unwrap();
    assert_eq!(set.sha256(), sha256_hex(&[1, 2, 3, 4, 5, 6]));
    // The same set from an array of another memory order.
    let turned = array![[1, 3], [2, 4]].reversed_axes();
    assert_eq!(Dataset::new(SHAPE, turned, array![5, 6]).unwrap().sha256(), set.sha256());
    assert_ne!(small().subset(3).unwrap().sha256(), small().subset(4).unwrap().sha256());
}

#[test]
fn the_registry_matches_the_papers_table() {
    let row = |name| {
        let entry = find(name).unwrap();
        let critical = entry.critical.unwrap();
        (critical.a, critical.b, entry.train.images, entry.metric, entry.shape.len())
    };
    assert_eq!(row("mnist"), (4_000, 32_000, 60_000, Metric::L2, 784));
    assert_eq!(row("fashion-mnist"), (4_000, 16_000, 60_000, Metric::L2, 784));
    assert_eq!(row("cifar10"), (2_000, 16_000, 50_000, Metric::LpipsAlex, 3072));
    assert_eq!(row("lsun-church"), (2_000, 16_000, 126_227, Metric::LpipsAlex, 12288));
    for entry in &REGISTRY {
        let ordered = |points: CriticalPoints| points.a < points.b && points.b < entry.train.images;
        assert!(entry.critical.is_none_or(ordered), "{}", entry.name);
        let sums = [entry.train.sha256, entry.test.and_then(|t| t.sha256)];
        assert!(sums.into_iter().flatten().all(|sum| sum.len() == 64));
    }
    let message = find("minst").unwrap_err().to_string();
    assert!(message.contains("'minst'") && message.contains("mnist, fashion-mnist, cifar10, lsun-church"));
    assert_eq!(find("emoji").unwrap().critical, None);
}
