//! Figures of basins of attraction against K: volumes (Figs. 4B, 16 and 17) and critical times (Figs. 18 and 19).

use std::collections::BTreeSet;

use crate::class::Group;
use crate::plot::style::GRAY;
use crate::plot::{Curve, CurvePanel, Figure, FigureError, Marker, Scale, curve_panels, unbroken};
use crate::study::basin::{BasinSummary, Basins, Mean, ReturnRow, Returns};
use crate::study::subject::NetworkRows;

impl Basins {
    /// Mean log-volume of the basins against K, one panel for each network, with 95 percent bootstrap intervals. Classes
    /// with too few images are crosses without a line.
    ///
    /// # Errors
    /// As [`curve_panels`]: nothing to draw, or a value that is not finite.
    pub fn log_volumes(&self) -> Result<Figure, FigureError> {
        panels("Basins against K", "mean log V\u{2099}(R), nats", &self.classes, |row| row.log_volume)
    }

    /// Mean critical time against K, as [`Self::log_volumes`].
    ///
    /// # Errors
    /// As [`Self::log_volumes`].
    pub fn critical_times(&self) -> Result<Figure, FigureError> {
        panels("Critical times against K", "mean critical time t_c", &self.classes, |row| row.critical_time)
    }
}

impl Returns {
    /// Median distance at which noised training images and held-out images return from level t, against K, with quartiles as a
    /// band: one panel for each network.
    ///
    /// # Errors
    /// As [`curve_panels`]: nothing to draw, or a value that is not finite.
    pub fn figure(&self, t: usize) -> Result<Figure, FigureError> {
        let panel = |network: &NetworkRows<ReturnRow>| {
            let empty = CurvePanel::new(&network.title(), "training images K", "distance of return");
            let kinds =
                [(false, "training images", Marker::Diamond), (true, "held-out images", Marker::Cross)];
            kinds.into_iter().fold(empty.x_scale(Scale::Log2), |panel, (held_out, name, marker)| {
                let mut rows: Vec<&ReturnRow> =
                    network.rows.iter().filter(|row| row.t == t && row.held_out == held_out).collect();
                rows.sort_by_key(|row| row.k);
                let (x, y) = rows.iter().map(|row| (row.k as f64, row.median)).unzip();
                let band = rows.iter().map(|row| (row.low, row.high)).collect();
                let colour = if held_out { GRAY } else { Group::Training.colour() };
                panel.curve(Curve::new(name, x, y).colour(colour).marker(marker).band(band))
            })
        };
        let panels: Vec<CurvePanel> = self.networks.iter().map(panel).collect();
        curve_panels(&format!("Where noised images return to, from t = {t}"), &panels, 2)
    }
}

fn panels(
    title: &str,
    y: &str,
    networks: &[NetworkRows<BasinSummary>],
    mean: fn(&BasinSummary) -> Mean,
) -> Result<Figure, FigureError> {
    let panel = |network: &NetworkRows<BasinSummary>| {
        let empty = CurvePanel::new(&network.title(), "training images K", y).x_scale(Scale::Log2);
        let sizes: BTreeSet<usize> = network.rows.iter().map(|row| row.k).collect();
        Group::ALL.into_iter().fold(empty, |panel, group| {
            let select = |too_few: bool| -> Vec<&BasinSummary> {
                network.rows.iter().filter(|row| row.group == group && row.too_few == too_few).collect()
            };
            let curve = |label: &str, too_few: bool, rows: Vec<&BasinSummary>| {
                let x: Vec<f64> = rows.iter().map(|row| row.k as f64).collect();
                let band = rows.iter().map(|row| (mean(row).low, mean(row).high)).collect();
                let curve = Curve::new(label, x, rows.iter().map(|row| mean(row).mean).collect())
                    .colour(group.colour());
                if too_few {
                    curve.marker(Marker::Cross).without_line()
                } else {
                    curve.marker(group.marker()).band(band)
                }
            };
            let (enough, few) = (unbroken(select(false), &sizes, |row| row.k), select(true));
            let enough = enough.into_iter().map(|run| curve(group.name(), false, run));
            let few = (!few.is_empty()).then(|| curve(&format!("{group}, too few"), true, few));
            enough.chain(few).fold(panel, CurvePanel::curve)
        })
    };
    curve_panels(title, &networks.iter().map(panel).collect::<Vec<_>>(), networks.len().clamp(1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basins() -> Basins {
        let mean = |v: f64| Mean { mean: v, median: v, error: Some(1.0), low: v - 2.0, high: v + 1.0 };
        let row = |k, group, images, v| BasinSummary {
            k,
            group,
            images,
            too_few: images < 10,
            floor: 0,
            ceiling: 0,
            log_volume: mean(v),
            critical_time: mean(100.0 + v),
            radius: mean(1.0),
        };
        let network =
            |network: &str, rows| NetworkRows { dataset: "mnist".into(), network: network.into(), rows };
        let wide = vec![
            row(64, Group::MEMORIZED, 100, -10.0),
            row(8, Group::MEMORIZED, 100, 20.0),
            row(64, Group::SPURIOUS, 3, -20.0),
            row(64, Group::Training, 64, -11.0),
        ];
        let narrow = vec![row(64, Group::GENERALIZED, 100, -30.0)];
        Basins { classes: vec![network("wide", wide), network("narrow", narrow)], attractors: vec![] }
    }

    #[test]
    fn classes_have_their_names_and_small_ones_are_marked() {
        let basins = basins();
        let drawn = [basins.log_volumes(), basins.critical_times()];
        for figure in drawn.map(Result::unwrap) {
            let svg = figure.svg();
            for text in ["memorized", "spurious, too few", "generalized", "training", "mnist, wide", "narrow"]
            {
                assert!(svg.contains(text), "{text}");
            }
            assert!(!svg.contains("memorized, too few"));
        }
    }

    #[test]
    fn a_line_does_not_cross_a_size_that_has_no_images() {
        let sizes = BTreeSet::from([8, 16, 32, 64, 128]);
        let runs = |rows: &[usize]| -> Vec<Vec<usize>> {
            let runs = unbroken(rows.iter().collect(), &sizes, |k| *k);
            runs.into_iter().map(|run| run.into_iter().copied().collect()).collect()
        };
        assert_eq!(runs(&[64, 8, 16]), [vec![8, 16], vec![64]]);
        assert_eq!(runs(&[16, 32, 64, 128]), [[16, 32, 64, 128]]);
        assert_eq!(runs(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn no_rows_and_infinite_values_are_refused() {
        assert!(Basins::default().log_volumes().is_err());
        let mut bad = basins();
        bad.classes[0].rows[0].log_volume.mean = f64::NEG_INFINITY;
        assert!(matches!(bad.log_volumes(), Err(FigureError::NotFinite { .. })));
        assert!(bad.critical_times().is_ok());
    }
}
