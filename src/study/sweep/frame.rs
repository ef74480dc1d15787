//! Frames of a sweep and of its cells.

use polars::prelude::DataFrame;

use crate::class::Class;
use crate::detect::Neighbours;
use crate::frame::{Item, TableError, columns, frame, named_item};
use crate::study::sweep::{DistanceRow, ExampleRow, Role, SweepRow};

named_item!(Role, Role::ALL, "roles");

columns!(SweepRow, "sweep",
    /// One row for each cell and size of S.
    cells_frame, cells_rows, {
    "dataset": (dataset),
    "size": (size),
    "network": (network),
    "score": (score),
    "arch": (arch),
    "parameters": (parameters),
    "prediction": (prediction),
    "steps": (steps),
    "k": (k),
    "seed": (seed),
    "sample_seed": (sample_seed),
    "metric": (metric),
    "multiple": (multiple),
    "sets": (sets),
    "samples": (samples),
    "memorized": (memorized.count),
    "memorized_fraction": (memorized.fraction),
    "memorized_low": (memorized.low),
    "memorized_high": (memorized.high),
    "memorized_few": (memorized.few),
    "spurious": (spurious.count),
    "spurious_fraction": (spurious.fraction),
    "spurious_low": (spurious.low),
    "spurious_high": (spurious.high),
    "spurious_few": (spurious.few),
    "generalized": (generalized.count),
    "generalized_fraction": (generalized.fraction),
    "generalized_low": (generalized.low),
    "generalized_high": (generalized.high),
    "generalized_few": (generalized.few),
    "invalid": (invalid),
    "delta_m": (delta_m.value),
    "delta_m_origin": (delta_m.origin),
    "delta_m_valley": (delta_m.valley),
    "delta_m_dip_p": (delta_m.dip_p),
    "delta_m_valley_p": (delta_m.valley_p),
    "delta_s": (delta_s.value),
    "delta_s_origin": (delta_s.origin),
    "delta_s_valley": (delta_s.valley),
    "delta_s_dip_p": (delta_s.dip_p),
    "delta_s_valley_p": (delta_s.valley_p),
    "memorized_narrow": (narrow[0]),
    "spurious_narrow": (narrow[1]),
    "generalized_narrow": (narrow[2]),
    "memorized_wide": (wide[0]),
    "spurious_wide": (wide[1]),
    "generalized_wide": (wide[2]),
    "ratio_copies": (ratio_copies),
    "held_out": (held_out),
    "held_out_q01": (held_out_quantiles[0]),
    "held_out_q05": (held_out_quantiles[1]),
    "held_out_median": (held_out_quantiles[2]),
    "scale": (scale),
    "d_train_median": (d_train),
    "d_synthetic_median": (d_synthetic),
    "loss": (loss),
    "train_seconds": (train_seconds),
    "sample_seconds": (sample_seconds),
    "label_seconds": (label_seconds),
    "restored": (restored),
    "train_key": (train_key),
    "data_sha256": (data_sha256),
    "weights_sha256": (weights_sha256),
    "samples_sha256": (samples_sha256),
    "device": (device),
    "program": (program),
    "version_sweep": (versions[0]),
    "version_train": (versions[1]),
    "version_sample": (versions[2]),
});

columns!(DistanceRow, "distances",
    /// One row for each sample; a missing distance is null.
    samples_frame, samples_rows, {
    "dataset": (dataset),
    "network": (network),
    "k": (k),
    "seed": (seed),
    "multiple": (multiple),
    "sample": (sample),
    "d_train": (d_train),
    "d_synthetic": (d_synthetic),
    "label": (label),
});

columns!(ExampleRow, "examples",
    /// One row for each image; its values are bytes in hexadecimal.
    examples_frame, examples_rows, {
    "dataset": (dataset),
    "network": (network),
    "k": (k),
    "seed": (seed),
    "multiple": (multiple),
    "class": (class),
    "example": (example),
    "role": (role),
    "rank": (rank),
    "index": (index),
    "distance": (distance),
    "height": (shape[0]),
    "width": (shape[1]),
    "channels": (shape[2]),
    "pixels": (pixels),
});

/// The labels of one cell, one row for each sample: `sample`, `set`, `label`, `d_train`, `nearest_train`, `second_train`,
/// `d_synthetic` and `nearest_synthetic`, the latter a row of the sample file. A sample that is invalid or alone has
/// missing values.
///
/// # Errors
/// As [`frame`].
pub fn labels_frame(found: &Neighbours, labels: &[Class]) -> Result<DataFrame, TableError> {
    let count = found.train.len();
    let some = |of: &[Option<crate::detect::Neighbour>]| {
        let far: Vec<Option<f64>> = of.iter().map(|n| n.map(|n| n.distance)).collect();
        let place: Vec<Option<u64>> = of.iter().map(|n| n.map(|n| n.index as u64)).collect();
        (far, place)
    };
    let ((d_train, nearest_train), (d_synthetic, nearest_synthetic)) =
        (some(&found.train), some(&found.synthetic));
    frame(
        "labels",
        vec![
            Item::column("sample", (0..count).collect()),
            Item::column("set", (0..count).map(|i| i / found.each.max(1)).collect()),
            Item::column("label", labels.to_vec()),
            Item::column("d_train", d_train),
            Item::column("nearest_train", nearest_train),
            Item::column("second_train", found.second.clone()),
            Item::column("d_synthetic", d_synthetic),
            Item::column("nearest_synthetic", nearest_synthetic),
        ],
    )
}

/// The label and both distances of each row of [`labels_frame`].
///
/// # Errors
/// [`TableError`] for a missing column or another type.
#[expect(clippy::type_complexity, reason = "three columns")]
pub fn labels_rows(frame: &DataFrame) -> Result<Vec<(Class, Option<f64>, Option<f64>)>, TableError> {
    let (train, synthetic) = (Item::read(frame, "d_train")?, Item::read(frame, "d_synthetic")?);
    let labels: Vec<Class> = Item::read(frame, "label")?;
    Ok(labels.into_iter().zip(train).zip(synthetic).map(|((label, t), s)| (label, t, s)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::strings;
    use crate::study::sweep::{ClassRow, ThresholdRow};

    #[test]
    fn rows_survive_writing_and_reading() {
        let class = |v: f64| ClassRow { count: 3, fraction: v, low: v - 0.1, high: v + 0.1, few: v < 0.3 };
        let threshold = ThresholdRow {
            value: Some(0.3),
            origin: "valley".into(),
            valley: Some(0.3),
            dip_p: Some(0.01),
            valley_p: Some(1e-9),
        };
        let cell = SweepRow {
            dataset: "mnist".into(),
            size: 7,
            network: "mlp".into(),
            score: "network".into(),
            arch: Some("{}".into()),
            parameters: 1234,
            prediction: Some("x0".into()),
            steps: 1 << 40,
            k: 64,
            seed: Some(3407),
            sample_seed: 1,
            metric: "l2".into(),
            multiple: 4,
            sets: 2,
            samples: 512,
            memorized: class(0.2),
            spurious: class(0.5),
            generalized: class(0.3),
            invalid: 1,
            delta_m: threshold.clone(),
            delta_s: ThresholdRow { value: None, dip_p: None, valley_p: None, ..threshold },
            narrow: [0.1, 0.2, 0.7],
            wide: [0.3, 0.3, 0.4],
            ratio_copies: Some(0.25),
            held_out: 100,
            held_out_quantiles: [Some(0.5), None, Some(0.7)],
            scale: 3.0,
            d_train: Some(0.8),
            d_synthetic: None,
            loss: Some(1e-3),
            train_seconds: 1.5,
            sample_seconds: 2.5,
            label_seconds: 3.5,
            restored: true,
            train_key: Some("key".into()),
            data_sha256: "a".into(),
            weights_sha256: Some("b".into()),
            samples_sha256: "c".into(),
            device: "cpu".into(),
            program: "0.1.0".into(),
            versions: [1, 2, 3],
        };
        let exact = SweepRow {
            arch: None,
            prediction: None,
            seed: None,
            ratio_copies: None,
            loss: None,
            train_key: None,
            weights_sha256: None,
            ..cell.clone()
        };
        let cells = [cell, exact];
        assert_eq!(cells_rows(&cells_frame(&cells).unwrap()).unwrap(), cells);
        let sample = DistanceRow {
            dataset: "mnist".into(),
            network: "exact".into(),
            k: 2,
            seed: None,
            multiple: 8,
            sample: 3,
            d_train: Some(0.1),
            d_synthetic: None,
            label: Class::Spurious,
        };
        let samples = [sample.clone(), DistanceRow { seed: Some(1), d_train: None, ..sample }];
        assert_eq!(samples_rows(&samples_frame(&samples).unwrap()).unwrap(), samples);
        let examples = [ExampleRow {
            dataset: "mnist".into(),
            network: "mlp".into(),
            k: 2,
            seed: Some(7),
            multiple: 4,
            class: Class::Memorized,
            example: 1,
            role: Role::Train,
            rank: 2,
            index: 9,
            distance: 0.5,
            shape: [1, 2, 1],
            pixels: vec![0, 0xaf],
        }];
        let frame = examples_frame(&examples).unwrap();
        assert_eq!(examples_rows(&frame).unwrap(), examples);
        let damaged = crate::frame::frame("x", vec![strings("pixels", vec!["0g".into()])]).unwrap();
        assert!(<Vec<u8> as Item>::read(&damaged, "pixels").is_err());
    }
}
