//! DenseAM retrieval under load: end states of noisy starts on K real images at inverse temperature beta.
//!
//! The dynamics x <- m(x) runs from every start to its fixed point. End states are labelled like the samples of a
//! diffusion model (Eqs. 9 to 11): memorized when near a stored pattern, spurious when near another end state only, and
//! generalized otherwise.

use ndarray::{ArcArray2, Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::detect::label;
use crate::device::DeviceChoice;
use crate::memory::{Retrieval, RetrievalSettings, retrieve};
use crate::ops::{Memories, Nearest};
use crate::progress::ProgressSink;
use crate::random::Stream;
use crate::setting::SettingError;
use crate::study::context::Cells;
use crate::study::error::StudyError;

/// Version of the numbers of this study. Raise it with every change that moves them.
pub const VERSION: u32 = 1;

/// The noise that makes a start from a stored pattern.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Noise {
    /// Gaussian of variance 1/(2 beta): the start is a sample of p(x_t) at the time t of this beta.
    Thermal,
    /// Gaussian of a fixed standard deviation, independent of beta, as in classical tests of a memory.
    Fixed {
        /// Standard deviation, in the units of the images.
        std: f64,
    },
}

impl Noise {
    /// Standard deviation at beta.
    ///
    /// ```
    /// use mem2gen::study::load::Noise;
    ///
    /// assert_eq!(Noise::Thermal.std(0.5), 1.0);
    /// assert_eq!(Noise::Fixed { std: 0.25 }.std(0.5), 0.25);
    /// ```
    pub fn std(self, beta: f64) -> f64 {
        match self {
            Self::Thermal => (0.5 / beta).sqrt(),
            Self::Fixed { std } => std,
        }
    }

    /// The name in tables.
    pub fn name(self) -> String {
        match self {
            Self::Thermal => "thermal".into(),
            Self::Fixed { std } => format!("fixed {std}"),
        }
    }
}

/// Settings of the memory load study, a table of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// Data sets by name.
    pub datasets: Vec<String>,
    /// Sizes K of the stored set, ascending.
    pub sizes: Vec<usize>,
    /// Inverse temperatures, for images with values in [0, 1].
    pub betas: Vec<f64>,
    /// Noise rules of the starts; the grid is run for each.
    pub noise: Vec<Noise>,
    /// Number of starts for each stored pattern (4 in the paper's synthetic sets), up to `starts` in all.
    pub starts_per_memory: usize,
    /// Largest number of starts.
    pub starts: usize,
    /// Estimated distance to the fixed point at which a state has converged.
    pub tolerance: f64,
    /// Number of steps after which a state counts as unconverged.
    pub max_steps: usize,
    /// Thresholds delta_m = delta_s as a fraction of the median distance from a held-out image to the
    /// whole training set.
    pub delta_fraction: f64,
    /// Number of held-out images of this median.
    pub held_out: usize,
    /// Seed of patterns and noise.
    pub seed: u64,
}

/// Checked [`LoadSettings`], and the device, which does not affect the results.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadParams {
    settings: LoadSettings,
    device: DeviceChoice,
}

impl LoadSettings {
    /// Checks every setting once.
    ///
    /// # Errors
    /// [`StudyError::Setting`] that names the first one out of its range.
    pub fn check(self) -> Result<LoadParams, StudyError> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let list = |ok: bool, setting: &'static str, value: String, need: &str| {
            if ok {
                return Ok(());
            }
            Err(StudyError::from(SettingError::new("memory load", setting, value, need.to_owned())))
        };
        list(!self.datasets.is_empty(), "datasets", "empty".into(), "at least one")?;
        list(
            !self.sizes.is_empty() && self.sizes[0] > 0 && self.sizes.is_sorted_by(|a, b| a < b),
            "sizes",
            format!("{:?}", self.sizes),
            "an ascending list of sizes above 0",
        )?;
        list(
            !self.betas.is_empty() && self.betas.iter().all(|&b| positive(b)),
            "betas",
            format!("{:?}", self.betas),
            "a list of finite numbers above 0",
        )?;
        let noise = self.noise.iter().all(|n| match n {
            Noise::Thermal => true,
            Noise::Fixed { std } => *std >= 0.0 && std.is_finite(),
        });
        list(
            !self.noise.is_empty() && noise,
            "noise",
            format!("{:?}", self.noise),
            "rules with a standard deviation of at least 0",
        )?;
        for (setting, value) in [
            ("starts_per_memory", self.starts_per_memory),
            ("starts", self.starts),
            ("max_steps", self.max_steps),
            ("held_out", self.held_out),
        ] {
            list(value > 0, setting, value.to_string(), "a number above 0")?;
        }
        for (setting, value) in [("tolerance", self.tolerance), ("delta_fraction", self.delta_fraction)] {
            list(positive(value), setting, value.to_string(), "a finite number above 0")?;
        }
        Ok(LoadParams { settings: self, device: DeviceChoice::default() })
    }
}

impl LoadParams {
    /// The same parameters on another device.
    #[must_use]
    pub fn on(self, device: DeviceChoice) -> Self {
        Self { device, ..self }
    }

    /// The settings.
    pub fn settings(&self) -> &LoadSettings {
        &self.settings
    }

    /// The noise rule with this name in tables.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a name that is not in the settings.
    pub fn noise(&self, name: &str) -> Result<Noise, StudyError> {
        self.settings.noise.iter().copied().find(|n| n.name() == name).ok_or_else(|| {
            let known: Vec<String> = self.settings.noise.iter().map(|n| n.name()).collect();
            SettingError::new("memory load", "noise", name, format!("one of {known:?}")).into()
        })
    }

    /// Number of cells of the grid for `data`. Sizes larger than the training set are left out.
    pub fn cells(&self, data: &[LoadData]) -> usize {
        let sizes: usize =
            data.iter().map(|d| self.settings.sizes.iter().filter(|&&k| k <= d.train.nrows()).count()).sum();
        sizes * self.settings.betas.len() * self.settings.noise.len()
    }
}

/// One data set: images as rows, values in [0, 1].
#[derive(Debug, Clone)]
pub struct LoadData {
    /// Its name.
    pub name: String,
    /// Training images in the order of the nested subsets.
    pub train: ArcArray2<f32>,
    /// Held-out images.
    pub held_out: Array2<f32>,
}

/// Fractions of the three classes, of unconverged and of invalid end states. They sum to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Fractions {
    /// Memorized.
    pub memorized: f64,
    /// Spurious.
    pub spurious: f64,
    /// Generalized.
    pub generalized: f64,
    /// Not converged within the largest number of steps; no class.
    pub unconverged: f64,
    /// NaN or infinite; no class.
    pub invalid: f64,
}

impl Fractions {
    /// The largest absolute change of the fractions of the three classes.
    pub fn change(&self, other: &Self) -> f64 {
        [
            self.memorized - other.memorized,
            self.spurious - other.spurious,
            self.generalized - other.generalized,
        ]
        .into_iter()
        .fold(0.0, |a: f64, d| a.max(d.abs()))
    }
}

/// One cell of the phase diagram.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadCell {
    /// Data set.
    pub dataset: String,
    /// Noise rule of the starts.
    pub noise: String,
    /// Standard deviation of that noise.
    pub noise_std: f64,
    /// Number of stored patterns.
    pub k: usize,
    /// Inverse temperature.
    pub beta: f64,
    /// Number of starts.
    pub starts: usize,
    /// Fractions of the starts by the class of their end state.
    pub fractions: Fractions,
    /// The same with both thresholds multiplied by 3/4.
    pub strict: Fractions,
    /// The same with both thresholds multiplied by 5/4.
    pub loose: Fractions,
    /// Fraction of starts that end within delta_m of the pattern that they were made from.
    pub recall: f64,
    /// Number of distinct converged end states, at a resolution of delta_s.
    pub distinct: usize,
    /// Mean of exp(entropy of the weights) at the end states: the effective number of patterns in an end state.
    pub blended: f64,
    /// Median distance from an end state to its nearest stored pattern; `None` when no start converged.
    pub d_train: Option<f64>,
    /// Median number of steps.
    pub steps: usize,
    /// delta_m = delta_s.
    pub delta: f64,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Median distance from a row of `held_out` to the nearest row of `train`, computed on `device`.
///
/// # Errors
/// [`StudyError::Op`] for shapes that do not match or an empty set.
pub fn null_distance(
    held_out: ArrayView2<'_, f32>,
    train: impl Into<ArcArray2<f32>>,
    device: DeviceChoice,
) -> Result<f64, StudyError> {
    let mut d = Memories::on(train, device)?.nearest(held_out, false)?.distance;
    if d.is_empty() {
        return Err(SettingError::new("memory load", "held_out", "0 images", "at least one").into());
    }
    Ok(median(&mut d))
}

/// The phase diagram: every data set, noise rule, size and beta of the settings. Finished cells are read from `cells`,
/// and new ones are written there.
///
/// # Errors
/// [`StudyError`] of the operations, and [`StudyError::Store`] for a cell that cannot be written.
pub fn phase_diagram(
    data: &[LoadData],
    params: &LoadParams,
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<LoadCell>, StudyError> {
    let settings = &params.settings;
    let mut out = Vec::with_capacity(params.cells(data));
    for set in data {
        let held_out = set.held_out.slice(s![..settings.held_out.min(set.held_out.nrows()), ..]);
        let id = format!("{}-null", set.name);
        let null = match cells.and_then(|c| c.get(&id)) {
            Some(null) => null,
            None => {
                progress.stage(&format!("{}: distances of unseen images", set.name));
                let null = null_distance(held_out, set.train.clone(), params.device)?;
                cells.map_or(Ok(()), |c| c.put(&id, &null))?;
                null
            }
        };
        for &k in settings.sizes.iter().filter(|&&k| k <= set.train.nrows()) {
            for (n, &noise) in settings.noise.iter().enumerate() {
                for (b, &beta) in settings.betas.iter().enumerate() {
                    let id = format!("{}-noise{n}-k{k}-beta{b}", set.name);
                    let cell = match cells.and_then(|c| c.get(&id)) {
                        Some(cell) => cell,
                        None => {
                            progress.stage(&format!("{}, K = {k}, beta = {beta}", set.name));
                            let stored = set.train.clone().slice_move(s![..k, ..]);
                            let delta = settings.delta_fraction * null;
                            let cell = load_cell(&set.name, &stored, noise, beta, delta, params)?;
                            cells.map_or(Ok(()), |c| c.put(&id, &cell))?;
                            cell
                        }
                    };
                    out.push(cell);
                    progress.advance(1);
                }
            }
        }
    }
    Ok(out)
}

/// The end states of one cell, with the distances for their labels.
struct EndStates {
    starts: Array2<f32>,
    /// Index of the stored pattern of each start.
    origin: Vec<usize>,
    retrieval: Retrieval<f32>,
    /// Indices of the converged starts. The others have no class and are not neighbours.
    settled: Vec<usize>,
    /// Their end states.
    states: ArcArray2<f32>,
    /// The nearest stored pattern of each converged end state, with its distance.
    train: Nearest,
    /// Distance to the nearest other end state.
    d_synthetic: Vec<Option<f64>>,
}

/// Patterns and noise directions depend on data set, seed and K only, so that cells of one K have the same starts up to
/// the scale of the noise.
fn end_states(
    dataset: &str,
    stored: &ArcArray2<f32>,
    noise: Noise,
    beta: f64,
    params: &LoadParams,
) -> Result<EndStates, StudyError> {
    let settings = &params.settings;
    let (k, n) = stored.dim();
    let count = settings.starts.min(settings.starts_per_memory * k);
    let mut stream = Stream::new(settings.seed, &format!("memory load: {dataset}, K = {k}"));
    let order = stream.permutation(k);
    let std = noise.std(beta);
    let origin: Vec<usize> = (0..count).map(|i| order[i % k]).collect();
    let mut starts = Array2::<f32>::zeros((count, n));
    for (mut row, &pattern) in starts.outer_iter_mut().zip(&origin) {
        for (v, p) in row.iter_mut().zip(stored.row(pattern)) {
            *v = (f64::from(*p) + std * stream.normal()) as f32;
        }
    }
    let memories = Memories::on(stored.clone(), params.device)?;
    let run = RetrievalSettings { tolerance: settings.tolerance, max_steps: settings.max_steps };
    let retrieval = retrieve(&memories, starts.view(), beta, run)?;
    let settled: Vec<usize> = (0..count).filter(|&i| retrieval.converged[i]).collect();
    let states = retrieval.states.select(Axis(0), &settled).into_shared();
    let train = memories.nearest(states.view(), false)?;
    let d_synthetic = if settled.len() < 2 {
        vec![None; settled.len()]
    } else {
        let others = Memories::on(states.clone(), params.device)?;
        others.nearest(states.view(), true)?.distance.into_iter().map(Some).collect()
    };
    Ok(EndStates { starts, origin, retrieval, settled, states, train, d_synthetic })
}

/// One cell of the phase diagram.
///
/// # Errors
/// As the phase diagram.
pub fn load_cell(
    dataset: &str,
    stored: &ArcArray2<f32>,
    noise: Noise,
    beta: f64,
    delta: f64,
    params: &LoadParams,
) -> Result<LoadCell, StudyError> {
    let clock = std::time::Instant::now();
    let mut end = end_states(dataset, stored, noise, beta, params)?;
    let starts = end.origin.len();
    let fractions = |scale: f64| fractions(&end.train.distance, &end.d_synthetic, scale * delta, starts);
    let (plain, strict, loose) = (fractions(1.0), fractions(0.75), fractions(1.25));
    let recalled = end
        .settled
        .iter()
        .zip(end.states.outer_iter())
        .filter(|(i, x)| distance(*x, stored.row(end.origin[**i])) <= delta)
        .count();
    let blended = end.settled.iter().map(|&i| end.retrieval.entropy[i].exp()).sum::<f64>();
    end.retrieval.steps.sort_unstable();
    Ok(LoadCell {
        dataset: dataset.into(),
        noise: noise.name(),
        noise_std: noise.std(beta),
        k: stored.nrows(),
        beta,
        starts,
        fractions: plain,
        strict,
        loose,
        recall: recalled as f64 / starts as f64,
        distinct: distinct(end.states.view(), delta),
        blended: blended / end.settled.len().max(1) as f64,
        d_train: (!end.settled.is_empty()).then(|| median(&mut end.train.distance)),
        steps: end.retrieval.steps[starts / 2],
        delta,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// The phase diagrams of DenseAM retrieval.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryLoad {
    /// One cell for each data set, noise rule, K and beta.
    pub cells: Vec<LoadCell>,
}

impl MemoryLoad {
    /// The cell of a data set, noise rule, K and beta.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a cell that is not in the grid.
    pub fn cell(&self, dataset: &str, noise: &str, k: usize, beta: f64) -> Result<&LoadCell, StudyError> {
        let wanted = |c: &&LoadCell| c.dataset == dataset && c.noise == noise && c.k == k && c.beta == beta;
        self.cells.iter().find(wanted).ok_or_else(|| {
            let value = format!("{dataset}, {noise} noise, K = {k}, beta = {beta}");
            SettingError::new("memory load", "cell", value, "a cell of the grid").into()
        })
    }

    /// The cells of a data set and noise rule at one K, in the order of beta.
    pub fn at_size(&self, dataset: &str, noise: &str, k: usize) -> Vec<LoadCell> {
        let wanted = |c: &&LoadCell| c.dataset == dataset && c.noise == noise && c.k == k;
        let mut cells: Vec<LoadCell> = self.cells.iter().filter(wanted).cloned().collect();
        cells.sort_by(|a, b| a.beta.total_cmp(&b.beta));
        cells
    }

    /// Largest K of the grid; 0 without cells.
    pub fn largest(&self) -> usize {
        self.cells.iter().map(|c| c.k).max().unwrap_or(0)
    }
}

/// One start, its end state, and the nearest stored pattern.
#[derive(Debug, Clone)]
pub struct Example {
    /// The start, `[N]`.
    pub start: Array1<f32>,
    /// The end state, `[N]`.
    pub end: Array1<f32>,
    /// The stored pattern nearest to the end state, `[N]`.
    pub nearest: Array1<f32>,
    /// l2 distance from the end state to the nearest stored pattern.
    pub distance: f64,
    /// Class of the end state.
    pub label: Class,
}

/// The first `most` converged starts of one cell, with their classes.
///
/// # Errors
/// As the phase diagram.
pub fn load_examples(
    dataset: &str,
    stored: &ArcArray2<f32>,
    noise: Noise,
    beta: f64,
    delta: f64,
    params: &LoadParams,
    most: usize,
) -> Result<Vec<Example>, StudyError> {
    let end = end_states(dataset, stored, noise, beta, params)?;
    Ok((0..end.settled.len().min(most))
        .map(|i| Example {
            start: end.starts.row(end.settled[i]).to_owned(),
            end: end.states.row(i).to_owned(),
            nearest: stored.row(end.train.index[i]).to_owned(),
            distance: end.train.distance[i],
            label: label(end.train.distance[i], end.d_synthetic[i], delta, delta),
        })
        .collect())
}

fn fractions(d_train: &[f64], d_synthetic: &[Option<f64>], delta: f64, starts: usize) -> Fractions {
    let mut counts = [0usize; 4];
    for (t, s) in d_train.iter().zip(d_synthetic) {
        counts[match label(*t, *s, delta, delta) {
            Class::Memorized => 0,
            Class::Spurious => 1,
            Class::Generalized => 2,
            Class::Invalid => 3,
        }] += 1;
    }
    let share = |c: usize| c as f64 / starts as f64;
    Fractions {
        memorized: share(counts[0]),
        spurious: share(counts[1]),
        generalized: share(counts[2]),
        unconverged: share(starts - d_train.len()),
        invalid: share(counts[3]),
    }
}

fn distance(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Number of states after dropping each that lies within `delta` of a kept one.
fn distinct(states: ArrayView2<'_, f32>, delta: f64) -> usize {
    let mut kept: Vec<ArrayView1<'_, f32>> = Vec::new();
    for x in states.outer_iter() {
        if kept.iter().all(|y| distance(x, *y) > delta) {
            kept.push(x);
        }
    }
    kept.len()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn settings() -> LoadSettings {
        LoadSettings {
            datasets: vec!["clusters".into()],
            sizes: vec![2, 40, 4000],
            betas: vec![0.001, 0.6, 400.0],
            noise: vec![Noise::Fixed { std: 0.05 }],
            starts_per_memory: 4,
            starts: 60,
            tolerance: 1e-4,
            max_steps: 400,
            delta_fraction: 0.2,
            held_out: 100,
            seed: 7,
        }
    }

    /// Five well separated clusters of images of 16 values.
    fn clusters() -> LoadData {
        let mut s = Stream::new(3, "clusters");
        let centres = Array2::from_shape_fn((5, 16), |_| 3.0 * s.normal());
        let mut draw = |rows| {
            Array2::from_shape_fn((rows, 16), |(i, j)| (centres[[i % 5, j]] + 0.3 * s.normal()) as f32)
        };
        LoadData { name: "clusters".into(), train: draw(200).into_shared(), held_out: draw(100) }
    }

    #[test]
    fn clusters_change_from_one_mean_through_their_own_means_to_the_memories() {
        let data = [clusters()];
        let params = settings().check().unwrap();
        let rows = phase_diagram(&data, &params, None, &Silent).unwrap();
        assert_eq!(rows.len(), params.cells(&data));
        assert_eq!(rows.len(), 6, "K = 4000 is more than there is");
        let cell = |k: usize, beta: f64| rows.iter().find(|r| r.k == k && r.beta == beta).unwrap();
        // Small beta: every start ends at the mean of all images, which is not an image and therefore spurious.
        assert_eq!((cell(40, 0.001).fractions.spurious, cell(40, 0.001).distinct), (1.0, 1));
        assert!(cell(40, 0.001).blended > 39.0);
        // Warm: each cluster is one attractor.
        assert_eq!((cell(40, 0.6).fractions.spurious, cell(40, 0.6).distinct), (1.0, 5));
        // Cold: every stored pattern is recalled.
        assert_eq!((cell(40, 400.0).fractions.memorized, cell(40, 400.0).recall), (1.0, 1.0));
        assert_eq!(cell(40, 400.0).distinct, 40);
        for row in &rows {
            let f = row.fractions;
            let sum = f.memorized + f.spurious + f.generalized + f.unconverged + f.invalid;
            assert!((sum - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn cells_resume_and_unconverged_states_have_no_class() {
        let dir = tempfile::tempdir().unwrap();
        let cells = Cells::at(dir.path());
        let data = [clusters()];
        let params = settings().check().unwrap();
        let first = phase_diagram(&data, &params, Some(&cells), &Silent).unwrap();
        let again = phase_diagram(&data, &params, Some(&cells), &Silent).unwrap();
        // The seconds are also equal, so the cell was read and not computed again.
        assert_eq!(first, again);
        let cut = LoadSettings { max_steps: 1, tolerance: 1e-9, ..settings() }.check().unwrap();
        let rows = phase_diagram(&data, &cut, None, &Silent).unwrap();
        assert!(rows.iter().any(|r| r.fractions.unconverged > 0.9 && r.fractions.memorized == 0.0));
    }

    #[test]
    fn every_setting_is_checked() {
        let bad = [
            LoadSettings { datasets: vec![], ..settings() },
            LoadSettings { sizes: vec![4, 2], ..settings() },
            LoadSettings { sizes: vec![0], ..settings() },
            LoadSettings { betas: vec![1.0, -1.0], ..settings() },
            LoadSettings { noise: vec![Noise::Fixed { std: f64::NAN }], ..settings() },
            LoadSettings { starts: 0, ..settings() },
            LoadSettings { tolerance: 0.0, ..settings() },
            LoadSettings { delta_fraction: f64::INFINITY, ..settings() },
        ];
        for settings in bad {
            assert!(matches!(settings.clone().check(), Err(StudyError::Setting(_))), "{settings:?}");
        }
    }
}
