use ndarray::{Array2, ArrayView2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::rows::place;
use super::settle::{Certificate, Rule, certify, settle};
use super::{Attractor, CensusParams, CensusRow, FlowRow, NAME, Start, chao1};
use crate::Error;
use crate::class::{Class, Group};
use crate::detect::{Clusters, linked, quantile, wilson};
use crate::ops::Memories;
use crate::process::{Level, Process};
use crate::progress::{ProgressSink, Reporter, Silent};
use crate::random::Streams;
use crate::sample::start;
use crate::score::{Empirical, Score};
use crate::setting::SettingError;
use crate::store::sha256_hex;
use crate::study::context::{Cells, piece};
use crate::study::error::StudyError;
use crate::study::subject::{Choice, Subject};

/// Spectral radius at which a fixed point counts as neutral, as on the ring, and not as an attractor.
const NEUTRAL: f64 = 1.0 - 1e-6;
/// Number of times that starts which end at a fixed point that doesn't attract are pushed off it.
const PUSHES: usize = 1;

/// Starts in the units of clean data.
#[derive(Debug, Clone, PartialEq)]
pub struct Starts {
    /// The kind of each row, `[m]`; rows of one kind are consecutive.
    pub kinds: Vec<Start>,
    /// The starts, `[m, N]`.
    pub rows: Array2<f64>,
}

impl Starts {
    /// SHA-256 of kinds and values.
    pub fn sha256(&self) -> String {
        let kinds = self.kinds.iter().map(|kind| place(*kind) as u8);
        let values = self.rows.iter().flat_map(|v| v.to_le_bytes());
        sha256_hex(&kinds.chain(values).collect::<Vec<u8>>())
    }
}

/// The attractors at one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Time of the level.
    pub t: f64,
    /// The attractors, in the order of the first start that ends at each.
    pub attractors: Vec<Attractor>,
    /// Their positions in the units of clean data, `[attractors, N]`.
    #[serde(with = "rows")]
    pub positions: Array2<f64>,
    /// Index of the attractor of each start, `[m]`; `None` when it ends at none.
    pub end: Vec<Option<usize>>,
    /// Distance of each start from where it ends, `[m]`.
    pub moved: Vec<f64>,
    /// Number of fixed points that don't attract at which starts end.
    pub unstable: usize,
    /// Number of attractors if end states are merged within a quarter of the merging distance.
    pub fine: usize,
    /// Number of attractors if end states are merged within four times the merging distance.
    pub coarse: usize,
}

/// The starts of a subject: noise, at most `choice.max` samples of each class, training images, and at most `choice.max`
/// held-out images. Noise is N(0, I) at every level. The draw of noise i depends on seed and i alone.
///
/// # Errors
/// Those of [`Subject::images`] and [`Subject::held_out`].
pub fn starts(subject: &Subject, choice: &Choice, params: &CensusParams) -> Result<Starts, Error> {
    let (settings, dim) = (params.settings(), subject.shape().len());
    // The distances of all pairs of end states take 4 bytes for each start and start.
    let bytes = settings.starts.saturating_mul(4).saturating_add(64 * dim);
    SettingError::check_room(NAME, "starts", settings.starts, bytes).map_err(StudyError::from)?;
    let mut streams = Streams::new(settings.seed, NAME, 0..settings.starts);
    let mut parts = vec![(Start::Noise, start(subject.vp(), dim, &mut streams))];
    for group in Group::ALL {
        let choice = match group {
            Group::Training => Choice { max: settings.training, ..*choice },
            Group::Samples(_) if subject.samples().is_none() => continue,
            Group::Samples(_) => *choice,
        };
        parts.push((Start::Images(group), subject.images(group, &choice)?.rows.mapv(f64::from)));
    }
    if let Some(held_out) = subject.held_out(choice.max)? {
        parts.push((Start::HeldOut, held_out.mapv(f64::from)));
    }
    let kinds = parts.iter().flat_map(|(kind, rows)| vec![*kind; rows.nrows()]).collect();
    let views: Vec<ArrayView2<'_, f64>> = parts.iter().map(|(_, rows)| rows.view()).collect();
    let rows = concatenate(Axis(0), &views).expect("all parts have the length of an image");
    Ok(Starts { kinds, rows })
}

/// The attractors of a score at one level, from these starts, compared with the training set `[K, N]`.
///
/// Each start follows the retrieval map until a step is shorter than `tolerance`. End states within `merge` of each
/// other, directly or through others, are one fixed point. It attracts if the spectral radius of the map's Jacobian, which
/// N vector-Jacobian products give exactly, is below 1. Starts at other fixed points are pushed off along the leading
/// eigenvector, by twice `merge`, and followed again.
///
/// # Errors
/// [`StudyError`] for a score that fails or LAPACK.
pub fn find(
    score: &dyn Score,
    level: Level,
    starts: &Starts,
    training: &Memories<f64>,
    params: &CensusParams,
    progress: &dyn ProgressSink,
) -> Result<Found, StudyError> {
    let settings = params.settings();
    let merge = settings.merge;
    let rule = Rule {
        tolerance: settings.tolerance,
        plain: settings.plain,
        most: settings.most_steps,
        reach: merge,
    };
    let mut ends = settle(score, level, starts.rows.clone(), &rule, progress)?;
    let mut pushes = 0;
    let (rows, clusters, heads, certificates) = loop {
        let rows: Vec<usize> = (0..ends.settled.len()).filter(|&i| ends.settled[i]).collect();
        if rows.is_empty() {
            break (rows, None, Vec::new(), Vec::new());
        }
        let settled = ends.y.select(Axis(0), &rows);
        let clusters = linked(settled.view(), merge)?;
        // The member that is nearest to standing still represents its cluster.
        let mut heads = vec![usize::MAX; clusters.size.len()];
        for (&row, &label) in rows.iter().zip(&clusters.label) {
            let head = &mut heads[label];
            if *head == usize::MAX || ends.residual[row] < ends.residual[*head] {
                *head = row;
            }
        }
        let certificates = certify(score, level, ends.y.select(Axis(0), &heads).view())?;
        let pushed: Vec<(usize, usize)> = rows
            .iter()
            .zip(&clusters.label)
            .filter(|(_, label)| !attracts(&certificates[**label]))
            .map(|(row, label)| (*row, *label))
            .collect();
        if pushed.is_empty() || pushes == PUSHES {
            break (rows, Some(clusters), heads, certificates);
        }
        pushes += 1;
        let mut again = Array2::zeros((pushed.len(), ends.y.ncols()));
        for ((row, label), mut to) in pushed.iter().zip(again.outer_iter_mut()) {
            let leading = &certificates[*label].leading;
            // Towards the side from which the start came.
            let side = (&starts.rows.row(*row) - &ends.y.row(heads[*label])).dot(leading);
            to.assign(&ends.y.row(heads[*label]));
            to.scaled_add(if side < 0.0 { -2.0 * merge } else { 2.0 * merge }, leading);
        }
        let then = settle(score, level, again, &rule, &Silent)?;
        for (i, (row, _)) in pushed.iter().enumerate() {
            ends.y.row_mut(*row).assign(&then.y.row(i));
            (ends.residual[*row], ends.settled[*row]) = (then.residual[i], then.settled[i]);
        }
    };
    let label_of = |clusters: &Clusters| {
        let mut label = vec![None; ends.settled.len()];
        rows.iter().zip(&clusters.label).for_each(|(&row, &of)| label[row] = Some(of));
        label
    };
    let label = clusters.as_ref().map_or_else(|| vec![None; ends.settled.len()], label_of);
    let stable: Vec<usize> = (0..heads.len()).filter(|&c| attracts(&certificates[c])).collect();
    let positions = ends.y.select(Axis(0), &stable.iter().map(|&c| heads[c]).collect::<Vec<_>>());
    let nearest = training.knn(positions.view(), 1, false)?;
    let end: Vec<Option<usize>> =
        label.iter().map(|of| of.and_then(|of| stable.iter().position(|&c| c == of))).collect();
    let mut attractors: Vec<Attractor> = Vec::with_capacity(stable.len());
    for (id, &c) in stable.iter().enumerate() {
        let distance = nearest.distance[[id, 0]];
        let memorized = distance <= params.delta();
        attractors.push(Attractor {
            t: level.t(),
            id,
            class: if memorized { Class::Memorized } else { Class::Spurious },
            nearest: nearest.index[[id, 0]],
            distance,
            contraction: certificates[c].contraction,
            residual: ends.residual[heads[c]],
            error: certificates[c].error,
            starts: [0; 6],
        });
    }
    for (kind, end) in starts.kinds.iter().zip(&end) {
        if let Some(end) = end {
            attractors[*end].starts[place(*kind)] += 1;
        }
    }
    let ended: Vec<usize> = (0..end.len()).filter(|&i| end[i].is_some()).collect();
    let count = |distance: f64| -> Result<usize, StudyError> {
        if ended.is_empty() {
            return Ok(0);
        }
        Ok(linked(ends.y.select(Axis(0), &ended).view(), distance)?.size.len())
    };
    let moved = starts
        .rows
        .outer_iter()
        .zip(ends.y.outer_iter())
        .map(|(from, to)| from.iter().zip(to).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt());
    Ok(Found {
        t: level.t(),
        unstable: heads.len() - stable.len(),
        fine: count(0.25 * merge)?,
        coarse: count(4.0 * merge)?,
        moved: moved.collect(),
        attractors,
        positions,
        end,
    })
}

fn attracts(certificate: &Certificate) -> bool {
    certificate.contraction < NEUTRAL
}

impl Found {
    /// The row of the census.
    pub fn row(&self, k: usize, exact: bool, starts: &Starts) -> CensusRow {
        let n = starts.kinds.iter().filter(|kind| **kind == Start::Noise).count();
        let of = |class: Class| self.attractors.iter().filter(move |a| a.class == class);
        let met = |a: &Attractor| a.from(Start::Noise);
        let middle = |class| quantile(&of(class).map(|a| a.contraction).collect::<Vec<f64>>(), 0.5);
        CensusRow {
            k,
            t: self.t,
            exact,
            starts: n,
            memorized: of(Class::Memorized).count(),
            spurious: of(Class::Spurious).count(),
            unstable: self.unstable,
            fine: self.fine,
            coarse: self.coarse,
            reached_memorized: of(Class::Memorized).filter(|a| met(a) > 0).count(),
            reached_spurious: of(Class::Spurious).filter(|a| met(a) > 0).count(),
            estimate: chao1(self.attractors.iter().map(met)),
            coverage: 1.0 - self.attractors.iter().filter(|a| met(a) == 1).count() as f64 / n as f64,
            contraction_memorized: middle(Class::Memorized),
            contraction_spurious: middle(Class::Spurious),
            error: self.attractors.iter().map(|a| a.error).max_by(f64::total_cmp),
        }
    }

    /// Where each kind of starts flows, in the order of [`Start::ALL`]; kinds without a start have no row.
    pub fn flows(&self, k: usize, exact: bool, starts: &Starts, params: &CensusParams) -> Vec<FlowRow> {
        let flow = |start: Start| {
            let of: Vec<usize> = (0..self.end.len()).filter(|&i| starts.kinds[i] == start).collect();
            let n = of.len();
            let moved: Vec<f64> = of.iter().map(|&i| self.moved[i]).collect();
            let share = |count: usize| count as f64 / n as f64;
            let ends = |class: Class| {
                let at = |i: &&usize| self.end[**i].is_some_and(|end| self.attractors[end].class == class);
                share(of.iter().filter(at).count())
            };
            let (memorized, spurious) = (ends(Class::Memorized), ends(Class::Spurious));
            let ((memorized_low, memorized_high), (spurious_low, spurious_high)) =
                (wilson(memorized, n), wilson(spurious, n));
            Some(FlowRow {
                k,
                t: self.t,
                exact,
                start,
                starts: n,
                memorized,
                memorized_low,
                memorized_high,
                spurious,
                spurious_low,
                spurious_high,
                stays: share(moved.iter().filter(|d| **d <= params.delta()).count()),
                moved: quantile(&moved, 0.5)?,
                moved_low: quantile(&moved, 0.25)?,
                moved_high: quantile(&moved, 0.75)?,
            })
        };
        Start::ALL.into_iter().filter_map(flow).collect()
    }
}

/// The attractors of a subject at every time of the settings. With `exact` the score is that of the training set instead of
/// the network's. With `cells`, finished levels are read from there and new ones are kept there; all calls with these pieces
/// must have the same subject, starts and settings.
///
/// # Errors
/// Those of [`find`], of [`Subject::training`] and of the pieces.
pub fn measure(
    subject: &Subject,
    starts: &Starts,
    params: &CensusParams,
    exact: bool,
    cells: Option<&Cells>,
    reporter: &dyn Reporter,
) -> Result<Vec<Found>, Error> {
    let training = subject.training()?.mapv(f64::from).into_shared();
    let memories = Memories::new(training.clone())?;
    let empirical = Empirical::new(Memories::new(training)?);
    let score = if exact { &empirical } else { subject.score() };
    let count = starts.kinds.len() as u64;
    let progress = reporter.progress("starts", count * params.settings().t.len() as u64);
    let each = |&t: &f64| {
        let level = subject.vp().level(t)?;
        let id = format!("{}-{t}", if exact { "exact" } else { "score" });
        let make = || Ok::<_, Error>(find(score, level, starts, &memories, params, &*progress)?);
        piece(cells, &id, count, &*progress, make)
    };
    params.settings().t.iter().map(each).collect()
}

/// Rows of values as JSON.
mod rows {
    use ndarray::Array2;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(rows: &Array2<f64>, to: S) -> Result<S::Ok, S::Error> {
        (rows.dim(), rows.iter().copied().collect::<Vec<f64>>()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Array2<f64>, D::Error> {
        let (dim, values) = <((usize, usize), Vec<f64>)>::deserialize(from)?;
        Array2::from_shape_vec(dim, values).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CensusSettings;
    use super::*;
    use crate::memory::{AttractorSettings, attractors, toy};
    use crate::process::{Ve, Vp};
    use crate::score::ScoreError;
    use ndarray::array;

    fn params(merge: f64) -> CensusParams {
        let settings = CensusSettings { merge, tolerance: 1e-9, ..CensusSettings::default() };
        settings.check(Some(0.05)).unwrap()
    }

    fn noise(rows: Array2<f64>) -> Starts {
        Starts { kinds: vec![Start::Noise; rows.nrows()], rows }
    }

    fn found(score: &dyn Score, level: Level, starts: &Starts, training: Array2<f64>, merge: f64) -> Found {
        let training = Memories::new(training).unwrap();
        find(score, level, starts, &training, &params(merge), &Silent).unwrap()
    }

    /// Newton's method on the energy finds the same attractors, with the same contraction, for several temperatures and for a
    /// process with alpha < 1, in two and in six dimensions.
    #[test]
    fn the_exact_score_has_the_attractors_of_its_energy() {
        let vp = Vp::default();
        let mut streams = Streams::new(5, "cloud", 0..30);
        let cloud = streams.normal(6);
        for (points, wide) in [(toy::points(9).unwrap(), 1.0), (cloud, 1.5)] {
            let score = Empirical::new(Memories::new(points.clone()).unwrap());
            for level in
                [Ve::default().level(0.15).unwrap(), vp.level(120.0).unwrap(), vp.level(400.0).unwrap()]
            {
                let search = AttractorSettings { random_starts: 200, ..AttractorSettings::default() };
                let wanted = attractors(points.clone(), level.beta(), &search).unwrap().found;
                let mut streams = Streams::new(1, "starts", 0..300);
                let starts = concatenate![Axis(0), streams.normal(points.ncols()) * wide, points];
                let got = found(&score, level, &noise(starts), points.clone(), 1e-3);
                assert!(got.end.iter().all(Option::is_some), "{level:?}");
                assert!(got.attractors.len() <= wanted.len());
                for (a, x) in got.attractors.iter().zip(got.positions.outer_iter()) {
                    let apart = |of: &crate::memory::Attractor| (&of.x - &x).mapv(|v| v * v).sum().sqrt();
                    let best = wanted.iter().min_by(|a, b| apart(a).total_cmp(&apart(b))).unwrap();
                    assert!(apart(best) < 1e-6, "{level:?}: {a:?}");
                    assert!((a.contraction - best.certificate.contraction).abs() < 1e-5, "{a:?}");
                    assert!((a.distance - best.distance).abs() < 1e-6 && a.error < 1e-6, "{a:?}");
                }
                // Every memory that is an attractor is found, because it is a start.
                let kept = wanted.iter().filter(|a| a.distance < 0.05).count();
                assert_eq!(got.attractors.iter().filter(|a| a.class == Class::Memorized).count(), kept);
            }
        }
    }

    /// The midpoint of a pair is a saddle above the critical beta. A start on it, which no step of the map moves, is pushed
    /// off.
    #[test]
    fn a_start_on_a_saddle_flows_to_an_attractor() {
        let pair = array![[1.0, 0.0], [-1.0, 0.0]];
        let score = Empirical::new(Memories::new(pair.clone()).unwrap());
        let level = Level::new(1.0, 1.0, 0.5).unwrap();
        let got =
            found(&score, level, &noise(array![[0.0, 0.0], [0.0, 0.5], [1.2, 0.1]]), pair.clone(), 1e-3);
        assert_eq!((got.attractors.len(), got.unstable), (1, 0));
        assert!(got.end.iter().all(|end| *end == Some(0)), "{:?}", got.end);
        // Below the critical beta it attracts, and it is spurious.
        let level = Level::new(1.0, 1.0, 1.5).unwrap();
        let got = found(&score, level, &noise(array![[0.3, 0.2], [-1.0, 0.0]]), pair, 1e-3);
        assert_eq!((got.attractors.len(), got.attractors[0].class), (1, Class::Spurious));
        assert!((got.attractors[0].distance - 1.0).abs() < 1e-6);
        assert_eq!((got.fine, got.coarse), (1, 1));
    }

    /// y is rotated by an angle and scaled by a factor about the origin: a score that is not a gradient.
    struct Swirl(f64, f64);

    impl Score for Swirl {
        fn dim(&self) -> usize {
            2
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let (c, s) = (self.0 * self.1.cos(), self.0 * self.1.sin());
            let map = array![[c - 1.0, s], [-s, c - 1.0]];
            Ok(x.dot(&map) / levels[0].sigma().powi(2))
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            levels: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            // The transpose is the inverse rotation.
            Swirl(self.0, -self.1).score(v, levels)
        }
    }

    #[test]
    fn a_swirl_has_an_attractor_where_it_contracts_and_none_where_it_grows() {
        let level = Ve::default().level(0.2).unwrap();
        let starts = noise(array![[1.0, 0.0], [0.3, -0.8], [0.0, 0.0]]);
        let inwards = found(&Swirl(0.9, 0.7), level, &starts, array![[0.0, 0.01]], 1e-3);
        assert_eq!((inwards.attractors.len(), inwards.unstable), (1, 0));
        let only = inwards.attractors[0];
        assert!((only.contraction - 0.9).abs() < 1e-9 && only.class == Class::Memorized, "{only:?}");
        let outwards = found(&Swirl(1.1, 0.7), level, &starts, array![[0.0, 0.0]], 1e-3);
        assert!(outwards.attractors.is_empty() && outwards.end.iter().all(Option::is_none));
    }

    #[test]
    fn rows_count_each_kind_of_starts() {
        let attractor = |id, class, noise, held_out, contraction| {
            let starts = [noise, 0, 0, 0, 0, held_out];
            Attractor { id, class, contraction, error: 1e-3 * id as f64, starts, ..Attractor::default() }
        };
        let (m, s) = (Class::Memorized, Class::Spurious);
        let found = Found {
            t: 15.0,
            attractors: vec![
                attractor(0, m, 2, 0, 0.5),
                attractor(1, s, 1, 1, 0.75),
                attractor(2, s, 0, 1, 0.25),
            ],
            positions: Array2::zeros((3, 1)),
            end: vec![Some(0), Some(0), Some(1), None, Some(1), Some(2)],
            moved: vec![1.0, 2.0, 3.0, 0.5, 0.01, 4.0],
            unstable: 1,
            fine: 4,
            coarse: 2,
        };
        let kinds = [vec![Start::Noise; 4], vec![Start::HeldOut; 2]].concat();
        let starts = Starts { kinds, rows: Array2::zeros((6, 1)) };
        let row = found.row(64, true, &starts);
        assert_eq!((row.k, row.t, row.exact, row.starts), (64, 15.0, true, 4));
        assert_eq!((row.memorized, row.spurious, row.unstable, row.fine, row.coarse), (1, 2, 1, 4, 2));
        assert_eq!((row.reached_memorized, row.reached_spurious), (1, 1));
        // One kind met once and one twice: 2 + 1 * 0 / (2 * 2).
        assert_eq!((row.estimate, row.coverage), (2.0, 0.75));
        assert_eq!((row.contraction_memorized, row.contraction_spurious), (Some(0.5), Some(0.25)));
        assert_eq!(row.error, Some(2e-3));
        let flows = found.flows(64, false, &starts, &params(1e-3));
        let [noise, held_out] = flows[..] else { panic!("{flows:?}") };
        assert_eq!(
            (noise.start, noise.starts, noise.memorized, noise.spurious),
            (Start::Noise, 4, 0.5, 0.25)
        );
        assert_eq!((noise.stays, noise.moved, noise.moved_low, noise.moved_high), (0.0, 1.0, 0.5, 2.0));
        assert_eq!((held_out.spurious, held_out.memorized, held_out.stays), (1.0, 0.0, 0.5));
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Found>(&text).unwrap(), found);
    }
}
