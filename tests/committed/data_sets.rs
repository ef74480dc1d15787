//! The fetched data sets, compared with published facts about them.

use std::io::Write;

use mem2gen::data::{Dataset, Range, Split, State, find, load, state};
use mem2gen::project::Layout;
use mem2gen::train::{TrainingData, TrainingSource};

/// Runs `test` on both splits if the data set is in the cache, else prints a line that the test harness does not hide.
fn with_data(name: &str, test: impl FnOnce(Dataset, Dataset)) {
    let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
    if let State::Absent = state(&layout, find(name).unwrap()) {
        let line = format!("SKIPPED: {name} is not in {}\n", layout.data_cache().display());
        // The harness hides the output of a passing test, except this line.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    // Damage fails here.
    test(load(&layout, name, Split::Train).unwrap(), load(&layout, name, Split::Test).unwrap());
}

fn classes(data: &Dataset) -> [usize; 10] {
    let mut counts = [0; 10];
    data.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts
}

#[track_caller]
fn assert_mean_and_deviation(data: &Dataset, mean: f64, deviation: f64) {
    let values = data.to_f64(Range::Unit);
    let found = (values.mean().unwrap(), values.std(0.0));
    assert!((found.0 - mean).abs() < 5e-5 && (found.1 - deviation).abs() < 5e-5, "{found:?}");
}

#[test]
fn mnist_is_mnist() {
    with_data("mnist", |train, test| {
        assert_eq!((train.len(), test.len()), (60_000, 10_000));
        assert_eq!(train.labels().to_vec()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        assert_eq!(test.labels().to_vec()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        assert_eq!(classes(&train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
        assert_eq!(classes(&test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
        assert_mean_and_deviation(&train, 0.1307, 0.3081);
    });
}

#[test]
fn fashion_mnist_is_fashion_mnist() {
    with_data("fashion-mnist", |train, test| {
        assert_eq!((train.len(), test.len()), (60_000, 10_000));
        assert_eq!(train.labels().to_vec()[..10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
        assert_eq!(classes(&train), [6000; 10]);
        assert_eq!(classes(&test), [1000; 10]);
        assert_mean_and_deviation(&train, 0.2860, 0.3530);
    });
}

#[test]
fn held_out_images_of_mnist_are_those_of_the_test_split() {
    with_data("mnist", |train, test| {
        let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
        let source = TrainingSource::from_dataset(&layout, "mnist", 14, Some(3)).unwrap();
        let reduced = |images: &Dataset| TrainingData::of_images(images, 14).unwrap();
        assert_eq!(source.training().unwrap(), reduced(&train.subset(3).unwrap()));
        assert_eq!(source.held_out(5).unwrap(), reduced(&test.select(&[0, 1, 2, 3, 4]).unwrap()));
        assert_eq!(source.held_out(usize::MAX).unwrap().len(), 10_000);
    });
}

#[test]
fn training_sets_of_mnist_are_nested() {
    with_data("mnist", |train, _| {
        let (small, large) = (train.subset(500).unwrap(), train.subset(4_000).unwrap());
        assert_eq!(small.images(), large.images().slice(ndarray::s![..500, ..]));
        assert_eq!(train.subset(60_000).unwrap().len(), 60_000);
    });
}
