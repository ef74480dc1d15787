//! The fetched data sets, compared with published facts about them.

use std::collections::HashSet;
use std::io::Write;

use mem2gen::data::emoji::{Picture, SkinTone, Vendor, bases, pictures};
use mem2gen::data::{Dataset, Range, Split, State, find, load, state};
use mem2gen::net::text::Embeddings;
use mem2gen::project::Layout;
use mem2gen::study::context::{Context, Profile};
use mem2gen::study::sweep::{SweepRow, ThresholdRow, Transition};
use mem2gen::study::transition::near_duplicates;
use mem2gen::train::{TrainingData, TrainingSource};

/// Runs `test` if the data set is in the cache, else prints a line that the test harness does not hide.
fn if_fetched(name: &str, test: impl FnOnce(&Layout)) {
    let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
    if let State::Absent = state(&layout, find(name).unwrap()) {
        let line = format!("SKIPPED: {name} is not in {}\n", layout.data_cache().display());
        // The harness hides the output of a passing test, except this line.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    test(&layout);
}

/// Runs `test` on both splits.
fn with_data(name: &str, test: impl FnOnce(Dataset, Dataset)) {
    // Damage fails here.
    if_fetched(name, |layout| {
        test(load(layout, name, Split::Train).unwrap(), load(layout, name, Split::Test).unwrap());
    });
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

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn emoji_are_near_duplicates_by_vendor_and_skin_tone() {
    if_fetched("emoji", |layout| {
        let data = load(layout, "emoji", Split::Train).unwrap();
        let known = pictures(layout, find("emoji").unwrap()).unwrap();
        assert_eq!((data.len(), known.len(), bases(&known).len()), (10_770, 10_770, 1914));
        let of = |keep: &dyn Fn(&Picture) -> bool| known.iter().filter(|picture| keep(picture)).count();
        assert_eq!(Vendor::ALL.map(|vendor| of(&|picture| picture.vendor == vendor)), [3682, 3949, 3139]);
        assert_eq!(of(&|picture| picture.tone.is_none()), 5160);
        assert_eq!(of(&|picture| picture.tone == Some(SkinTone::Mixed)), 760);
        // Each emoji of a vendor has one picture of each caption.
        let captions: HashSet<_> = known.iter().map(|picture| (&picture.caption, picture.vendor)).collect();
        assert_eq!(captions.len(), known.len());

        // Root mean square differences of values from 0 to 1 between vendors, and between two tones of one vendor.
        let values = data.to_f64(Range::Unit);
        let differ = |i: usize, j: usize| {
            let (a, b) = (values.row(i), values.row(j));
            (a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / values.ncols() as f64).sqrt()
        };
        let (mut vendors, mut tones) = (vec![], vec![]);
        for (i, one) in known.iter().enumerate() {
            for (j, two) in known.iter().enumerate().skip(i + 1).take_while(|(_, two)| two.base == one.base) {
                match (one.tone == two.tone, one.vendor == two.vendor) {
                    (true, false) => vendors.push(differ(i, j)),
                    (false, true) if one.tone.is_some() => tones.push(differ(i, j)),
                    _ => {}
                }
            }
        }
        let (vendors, tones) = (median(vendors), median(tones));
        assert!((0.25..0.3).contains(&vendors) && (0.09..0.13).contains(&tones), "{vendors} {tones}");

        let mut seen = HashSet::new();
        let repeats = data.images().rows().into_iter().filter(|row| !seen.insert(row.to_vec())).count();
        assert_eq!(repeats, 61);
        // Two flags of Twemoji.
        let at = |code: &str| known.iter().position(|picture| picture.code == code).unwrap();
        assert_eq!(data.images().row(at("1f1e6-1f1fa")), data.images().row(at("1f1ed-1f1f2")));
    });
}

#[test]
fn all_emoji_have_committed_vectors() {
    if_fetched("emoji", |layout| {
        let known = pictures(layout, find("emoji").unwrap()).unwrap();
        assert_eq!(Embeddings::of_emoji(layout).unwrap().captions(), bases(&known));
    });
}

/// 16384 images of MNIST at 7x7 pixels: one in sixty has another one within the delta_s of the sweeps.
#[test]
fn real_images_have_near_duplicates() {
    if_fetched("mnist", |layout| {
        let cell = |samples: usize, delta: Option<f64>| SweepRow {
            dataset: "mnist".into(),
            network: "mlp".into(),
            score: "network".into(),
            size: 7,
            k: samples / 4,
            multiple: 4,
            samples,
            delta_s: ThresholdRow { value: delta, ..ThresholdRow::default() },
            ..SweepRow::default()
        };
        let cells = vec![cell(16384, Some(0.2)), cell(512, Some(0.2)), cell(2048, None)];
        let all = Transition { cells, ..Transition::default() };
        let context = Context::new(layout.clone(), Profile::named("desk").unwrap());
        let rows = near_duplicates(&context, &all).unwrap();
        assert_eq!(
            rows.iter().map(|row| (row.k, row.images)).collect::<Vec<_>>(),
            [(128, 512), (4096, 16384)]
        );
        assert!((0.016..0.018).contains(&rows[1].share) && rows[0].share < 0.01, "{rows:?}");
    });
}
