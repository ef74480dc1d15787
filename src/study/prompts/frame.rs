//! Tables of prompts.

use polars::prelude::DataFrame;

use super::{Measured, PromptRow, RocRow, SpectrumRow};
use crate::frame::{Item, TableError, columns, frame};

columns!(PromptRow, "prompts",
    /// One row for each sample of each prompt, with the fields of [`PromptRow`].
    prompts_frame, prompts_rows, {
    "prompt": (prompt),
    "caption": (caption),
    "index": (index),
    "kind": (kind),
    "seed": (seed),
    "rows": (rows),
    "sigma": (sigma),
    "dim": (dim),
    "curvature": (curvature),
    "flat": (flat),
    "curvature_2": (curvature_2),
    "curvature_exact": (curvature_exact),
    "dimension": (dimension),
    "asymmetry": (asymmetry),
    "noise_first": (noise_first),
    "noise_mean": (noise_mean),
    "sharpness": (sharpness),
    "alignment": (alignment),
    "bright": (bright),
    "noise_bright": (noise_bright),
    "diversity": (diversity),
    "variation": (variation),
    "nearest": (nearest),
    "nearest_row": (nearest_row),
    "own": (own),
    "part": (part),
    "dose": (dose),
    "step": (step),
});

columns!(SpectrumRow, "mean spectra of prompts",
    /// One row for each group and singular value, with the fields of [`SpectrumRow`].
    spectrum_frame, spectrum_rows, {
    "part": (part),
    "dose": (dose),
    "samples": (samples),
    "rows": (rows),
    "dim": (dim),
    "sigma": (sigma),
    "index": (index),
    "mean": (mean),
    "std": (std),
});

columns!(RocRow, "measures of memorized prompts",
    /// One row for each measure and truth, with the fields of [`RocRow`].
    roc_frame, roc_rows, {
    "measure": (measure),
    "truth": (truth),
    "positives": (positives),
    "negatives": (negatives),
    "auc": (auc),
    "low": (interval[0]),
    "high": (interval[1]),
    "larger": (larger),
    "residual_auc": (residual_auc),
    "correlation": (correlation),
    "passes": (passes),
});

/// One row for each sample and singular value: `prompt`, `seed`, `matrix` (`rows` for S of Alg. 3, `exact` for the Jacobian
/// itself, where it was taken), `index` (from 1, values descending) and `value`.
///
/// # Errors
/// As [`frame`].
pub fn spectra_frame(measured: &[Measured]) -> Result<DataFrame, TableError> {
    let spectra = measured.iter().flat_map(|m| {
        let exact = m.exact.iter().map(|values| ("exact", values));
        std::iter::once(("rows", &m.values)).chain(exact).map(|(matrix, values)| (&m.row, matrix, values))
    });
    let all: Vec<(&PromptRow, &str, usize, f64)> = spectra
        .flat_map(|(row, matrix, values)| (1..).zip(values).map(move |(i, value)| (row, matrix, i, *value)))
        .collect();
    frame(
        "spectra of prompts",
        vec![
            Item::column("prompt", all.iter().map(|(row, ..)| row.prompt).collect()),
            Item::column("seed", all.iter().map(|(row, ..)| row.seed).collect()),
            Item::column(
                "matrix",
                all.iter().map(|(_, matrix, ..)| (*matrix).to_owned()).collect::<Vec<String>>(),
            ),
            Item::column("index", all.iter().map(|(_, _, index, _)| *index).collect::<Vec<usize>>()),
            Item::column("value", all.iter().map(|(.., value)| *value).collect()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_writing_and_reading() {
        let one = PromptRow {
            caption: "a".into(),
            index: Some("7".into()),
            dimension: Some(2),
            asymmetry: Some(0.25),
            bright: Some(0.125),
            diversity: Some(0.5),
            nearest_row: Some(3),
            part: Some("dosed".into()),
            ..PromptRow::default()
        };
        let rows =
            [one.clone(), PromptRow { prompt: 1, index: None, nearest_row: None, part: None, ..one.clone() }];
        assert_eq!(prompts_rows(&prompts_frame(&rows).unwrap()).unwrap(), rows);
        let measured = Measured {
            row: rows[1].clone(),
            values: vec![3.0, 1.0],
            exact: Some(vec![2.0]),
            sample: vec![],
            picture: vec![],
            shape: [0, 0, 0],
        };
        let row = RocRow {
            measure: "curvature".into(),
            auc: 0.9,
            interval: [0.8, 0.95],
            passes: 65,
            ..RocRow::default()
        };
        assert_eq!(roc_rows(&roc_frame(std::slice::from_ref(&row)).unwrap()).unwrap(), [row]);
        let plain = Measured { row: PromptRow { seed: 1, ..one }, exact: None, ..measured.clone() };
        let frame = spectra_frame(&[measured, plain]).unwrap();
        assert_eq!(usize::read(&frame, "prompt").unwrap(), [1, 1, 1, 0, 0]);
        assert_eq!(usize::read(&frame, "seed").unwrap(), [0, 0, 0, 1, 1]);
        assert_eq!(String::read(&frame, "matrix").unwrap(), ["rows", "rows", "exact", "rows", "rows"]);
        assert_eq!(usize::read(&frame, "index").unwrap(), [1, 2, 1, 1, 2]);
        assert_eq!(f64::read(&frame, "value").unwrap(), [3.0, 1.0, 2.0, 3.0, 1.0]);
    }
}
