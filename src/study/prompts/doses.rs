//! Captions whose dose is known: measures against how often a network saw them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::frame::{prompts_frame, prompts_rows, spectrum_frame, spectrum_rows};
use super::{
    Measured, NAME, Prompt, PromptRow, PromptSettings, RocRow, RocSettings, TrainedPrompts, VERSION,
    measure_each, roc,
};
use crate::Error;
use crate::device::{Device, DeviceChoice};
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::setting::SettingError;
use crate::store::{StoreError, sha256_hex};
use crate::study::context::{Cells, Context, once};
use crate::study::error::StudyError;
use crate::train::{Kind, Part, RunDir, TrainParams, TrainSettings, TrainingData, train_until};

/// Batch size of the network, on which no result depends.
const BATCH: usize = 64;

/// Table `prompts` of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DosesSettings {
    /// Name of the training: `data/training/NAME.toml`.
    pub plan: String,
    /// Steps of training at which the network is measured, ascending. The spectra are those of the last, at which alone the
    /// exact Jacobian is taken.
    pub steps: Vec<u64>,
    /// How each caption is measured.
    pub measure: PromptSettings,
    /// How measures are compared with the doses.
    pub roc: RocSettings,
    /// Doses whose spectra and pictures are shown.
    pub shown: Vec<f64>,
    /// Texts to be drawn that may be no captions of the data set.
    pub new: Vec<String>,
}

impl DosesSettings {
    /// Checks the steps.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for no steps, and for steps that do not ascend from 1.
    pub fn check(&self) -> Result<(), StudyError> {
        let ascend = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        match self.steps.first() {
            Some(1..) if ascend => Ok(()),
            _ => {
                let need = "one step or more, ascending, from 1";
                Err(SettingError::new(NAME, "steps", format!("{:?}", self.steps), need).into())
            }
        }
    }
}

/// Captions that were seen equally often, or the templates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DoseGroup {
    /// Part in the training set.
    pub part: Part,
    /// Relative number of times that each picture was seen.
    pub dose: f64,
}

impl DoseGroup {
    /// The group in words, such as `dose 64` or `template`.
    pub fn name(&self) -> String {
        match self.part {
            Part::Template => Part::Template.name().to_owned(),
            Part::Dosed | Part::Other => format!("dose {}", self.dose),
        }
    }

    /// The group of a row; `None` for a caption of which nothing is known.
    pub fn of(row: &PromptRow) -> Option<Self> {
        let part = Part::ALL.into_iter().find(|part| row.part.as_deref() == Some(part.name()))?;
        Some(Self { part, dose: row.dose? })
    }
}

/// One singular value of the spectra of a group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SpectrumRow {
    /// Part in the training set.
    pub part: String,
    /// Relative number of times that each picture was seen.
    pub dose: f64,
    /// Number of samples.
    pub samples: usize,
    /// Number of rows of S.
    pub rows: usize,
    /// Number of values of a sample, D.
    pub dim: usize,
    /// sigma_t.
    pub sigma: f64,
    /// Place of the singular value, from 1, descending.
    pub index: usize,
    /// Mean over the samples of this singular value of S.
    pub mean: f64,
    /// Standard deviation over the samples.
    pub std: f64,
}

/// A group at one step of training.
#[derive(Debug, Clone, PartialEq)]
pub struct DoseRow {
    /// Step of training.
    pub step: u64,
    /// The group.
    pub group: DoseGroup,
    /// Number of captions.
    pub captions: usize,
    /// Share of the samples that are a training image of their caption, up to the delta of the settings.
    pub returned: f64,
    /// Share of the captions of which the settings' share of samples, or more, are one.
    pub captions_returned: f64,
    /// Lower quartile, median and upper quartile of the captions' mean curvature.
    pub curvature: [f64; 3],
    /// Median over the captions of the mean distance between seeds.
    pub diversity: f64,
    /// Median over the captions of the mean distance to the nearest training image.
    pub nearest: f64,
}

/// Measures of all captions with a dose and all templates.
#[derive(Debug, Clone, PartialEq)]
pub struct Doses {
    /// The settings.
    pub settings: DosesSettings,
    /// A row for each step of training, caption and seed.
    pub rows: Vec<PromptRow>,
    /// The mean spectra of the groups at the last step.
    pub spectra: Vec<SpectrumRow>,
}

/// Measures the captions with a dose and the templates of the profile's network at several steps of its training; stored as
/// `prompts_doses` and `prompts_spectra`. The end of training is read from the published weights, where there are some.
///
/// # Errors
/// Those of the data, of training, of [`measure_each`] and of the stored tables.
pub fn doses(context: &Context) -> Result<Doses, Error> {
    let settings: DosesSettings = context.settings(NAME)?;
    settings.check()?;
    let training = TrainSettings::named(context.layout(), &settings.plan)?;
    let DosesSettings { plan, steps, measure, .. } = settings.clone();
    let asked = json!({
        "measure": settings_value(&measure)?,
        "training": settings_value(&training)?,
        "steps": steps,
        "numbers of training": crate::train::VERSION,
    });
    let mut fingerprint = Fingerprint::new(NAME, VERSION, asked, context.profile().name());
    let weights = published(context, &plan);
    if weights.is_file() {
        fingerprint = fingerprint.data(&format!("weights of {plan}"), &file_sha256(&weights)?);
    }
    let mut make = once(|| {
        context.line(&format!("prompts of {plan}:"));
        each_step(context, &settings, &fingerprint)
    });
    let rows =
        context.recall("prompts_doses", &fingerprint, Device::Cpu, || Ok(prompts_frame(&make()?.0)?))?;
    let spectra =
        context.recall("prompts_spectra", &fingerprint, Device::Cpu, || Ok(spectrum_frame(&make()?.1)?))?;
    drop(make);
    Ok(Doses { rows: prompts_rows(&rows)?, spectra: spectrum_rows(&spectra)?, settings })
}

/// The network of the profile at the end of its training: from the published weights, where there are some.
///
/// # Errors
/// Those of the data and of training.
pub fn trained(context: &Context) -> Result<TrainedPrompts, Error> {
    let settings: DosesSettings = context.settings(NAME)?;
    let last = TrainSettings::named(context.layout(), &settings.plan)?.steps;
    network(context, &settings.plan, last)
}

fn published(context: &Context, plan: &str) -> PathBuf {
    context.layout().results().join("networks").join(format!("{plan}.safetensors"))
}

fn file_sha256(path: &Path) -> Result<String, StoreError> {
    Ok(sha256_hex(&std::fs::read(path).map_err(StoreError::io("open", path))?))
}

/// The network after `step` steps of training.
fn network(context: &Context, plan: &str, step: u64) -> Result<TrainedPrompts, Error> {
    let settings = TrainSettings::named(context.layout(), plan)?;
    let data = TrainingData::load(context.layout(), &settings.data)?;
    let params = settings.check(data.shape())?;
    let (weights, runs) = (published(context, plan), context.output().join("runs"));
    let run = if step == params.settings().steps && weights.is_file() {
        let folder = runs.join(format!("{plan}-{}", &file_sha256(&weights)?[..16]));
        RunDir::restore(&folder, &params, &data, Device::Cpu, &weights)?
    } else {
        trained_until(context, &runs, &params, &data, step)?
    };
    TrainedPrompts::open_after(run.path(), step, context.layout(), DeviceChoice::Only(Device::Cpu), BATCH)
}

/// Trains up to a step. A run that is beyond it and has no checkpoint of it is repeated from its start, with a line that says so.
fn trained_until(
    context: &Context,
    runs: &Path,
    params: &TrainParams,
    data: &TrainingData,
    step: u64,
) -> Result<RunDir, Error> {
    let path = RunDir::place(runs, params);
    let train = || {
        let progress = context.progress("training", step);
        train_until(&path, params, data, Device::Cpu, step, &*progress)
    };
    let trained = train()?;
    if trained.to == step || trained.run.weights_after(Kind::Ema, step)?.is_some() {
        return Ok(trained.run);
    }
    context.line(&format!(
        "training: the run in {} is at step {} and has no checkpoint of step {step}; it is removed and trained again",
        path.display(),
        trained.to
    ));
    std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
    Ok(train()?.run)
}

/// The rows of all steps, and the spectra of the last.
fn each_step(
    context: &Context,
    settings: &DosesSettings,
    fingerprint: &Fingerprint,
) -> Result<(Vec<PromptRow>, Vec<SpectrumRow>), Error> {
    let cells = context.cells(fingerprint)?;
    let (mut rows, mut spectra) = (Vec::new(), Vec::new());
    for &step in &settings.steps {
        let id = format!("step-{step}");
        let captions = cells.within(&id);
        let (found, last) = cells.get_or_make(&id, || one_step(context, settings, step, &captions))?;
        captions.clear()?;
        rows.extend(found);
        spectra = last;
    }
    Ok((rows, spectra))
}

/// The rows and mean spectra of the network after `step` steps of training.
fn one_step(
    context: &Context,
    settings: &DosesSettings,
    step: u64,
    cells: &Cells,
) -> Result<(Vec<PromptRow>, Vec<SpectrumRow>), Error> {
    let exact = if Some(&step) == settings.steps.last() { settings.measure.exact } else { 0 };
    let params = PromptSettings { exact, ..settings.measure.clone() }.check()?;
    let model = network(context, &settings.plan, step)?;
    let captions: Vec<Prompt> = model.captions().into_iter().map(Prompt::new).collect();
    context.line(&format!("step {step}:"));
    let all = measure_each(&model, &captions, &params, Some(cells), context.reporter())?;
    Ok((all.iter().map(|one| one.row.clone()).collect(), mean_spectra(&all)))
}

/// The groups of rows, in the order of their first row.
fn groups<'a>(rows: impl Iterator<Item = &'a PromptRow>) -> Vec<DoseGroup> {
    let mut found = Vec::new();
    for group in rows.filter_map(DoseGroup::of) {
        if !found.contains(&group) {
            found.push(group);
        }
    }
    found
}

fn mean_spectra(measured: &[Measured]) -> Vec<SpectrumRow> {
    let mut out = Vec::new();
    for group in groups(measured.iter().map(|one| &one.row)) {
        let of: Vec<&Measured> =
            measured.iter().filter(|one| DoseGroup::of(&one.row) == Some(group)).collect();
        let n = of.len() as f64;
        let PromptRow { rows, dim, sigma, .. } = of[0].row;
        out.extend((0..of[0].values.len()).map(|at| {
            let mean = of.iter().map(|one| one.values[at]).sum::<f64>() / n;
            let square = of.iter().map(|one| (one.values[at] - mean).powi(2)).sum::<f64>();
            SpectrumRow {
                part: group.part.name().to_owned(),
                dose: group.dose,
                samples: of.len(),
                rows,
                dim,
                sigma,
                index: at + 1,
                mean,
                std: (square / n).sqrt(),
            }
        }));
    }
    out
}

impl Doses {
    /// The rows at the last step of training.
    pub fn last(&self) -> Vec<&PromptRow> {
        let last = self.rows.iter().filter_map(|row| row.step).max();
        self.rows.iter().filter(|row| row.step == last).collect()
    }

    /// Each group at each step.
    pub fn groups(&self) -> Vec<DoseRow> {
        let mut out = Vec::new();
        for &step in &self.settings.steps {
            let rows: Vec<&PromptRow> = self.rows.iter().filter(|row| row.step == Some(step)).collect();
            out.extend(groups(rows.iter().copied()).into_iter().map(|group| self.group(step, group, &rows)));
        }
        out
    }

    fn group(&self, step: u64, group: DoseGroup, rows: &[&PromptRow]) -> DoseRow {
        let RocSettings { delta, share, .. } = self.settings.roc;
        let of: Vec<&PromptRow> =
            rows.iter().copied().filter(|row| DoseGroup::of(row) == Some(group)).collect();
        let captions: Vec<&[&PromptRow]> = of.chunk_by(|a, b| a.prompt == b.prompt).collect();
        let returned = |rows: &[&PromptRow]| {
            let found = rows.iter().filter(|row| row.own.is_some_and(|own| own <= delta)).count();
            found as f64 / rows.len() as f64
        };
        let means = |of: &dyn Fn(&PromptRow) -> Option<f64>| -> Vec<f64> {
            let mean = |rows: &&[&PromptRow]| {
                let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
                values.iter().sum::<f64>() / values.len() as f64
            };
            let mut means: Vec<f64> = captions.iter().map(mean).collect();
            means.sort_unstable_by(f64::total_cmp);
            means
        };
        let curvature = means(&|row| Some(row.curvature));
        let all = captions.iter().filter(|rows| returned(rows) >= share).count();
        DoseRow {
            step,
            group,
            captions: captions.len(),
            returned: returned(&of),
            captions_returned: all as f64 / captions.len() as f64,
            curvature: [0.25, 0.5, 0.75].map(|p| quantile(&curvature, p)),
            diversity: quantile(&means(&|row| row.diversity), 0.5),
            nearest: quantile(&means(&|row| row.nearest), 0.5),
        }
    }

    /// The measures against the doses, and against what is returned, at the last step of training.
    ///
    /// # Errors
    /// As [`roc`].
    pub fn roc(&self) -> Result<Vec<RocRow>, StudyError> {
        let rows: Vec<PromptRow> = self.last().into_iter().cloned().collect();
        roc(&rows, &self.settings.roc)
    }
}

/// A quantile of ascending values, linear between them.
fn quantile(values: &[f64], p: f64) -> f64 {
    let place = p * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Heard;
    use crate::project::Layout;
    use crate::study::context::Profile;
    use std::sync::Arc;

    fn row(step: u64, prompt: usize, seed: usize, (part, dose): (Part, f64)) -> PromptRow {
        let often = dose > 10.0;
        PromptRow {
            prompt,
            seed,
            caption: format!("caption {prompt}"),
            part: Some(part.name().to_owned()),
            dose: Some(dose),
            step: Some(step),
            curvature: if often { 0.8 } else { 0.1 * prompt as f64 + 0.02 * seed as f64 },
            own: Some(if often && seed > 0 { 0.01 } else { 0.4 }),
            nearest: Some(0.01),
            diversity: Some(0.2),
            rows: 4,
            dim: 6,
            sigma: 0.1,
            ..PromptRow::default()
        }
    }

    fn doses() -> Doses {
        let parts = [(Part::Dosed, 1.0), (Part::Dosed, 1.0), (Part::Dosed, 64.0), (Part::Template, 16.0)];
        let each = |step| {
            let captions = parts.into_iter().enumerate();
            captions.flat_map(move |(at, group)| (0..4).map(move |seed| row(step, at, seed, group)))
        };
        let settings = DosesSettings {
            plan: "none".into(),
            steps: vec![10, 20],
            measure: PromptSettings::default(),
            roc: RocSettings::default(),
            shown: vec![64.0],
            new: vec![],
        };
        let rows: Vec<PromptRow> = [10, 20].into_iter().flat_map(each).collect();
        let measured = |row: &PromptRow| Measured {
            row: row.clone(),
            exact: None,
            values: (0..4).map(|i| (10 - i) as f64 + row.seed as f64).collect(),
            sample: vec![],
            picture: vec![],
            shape: [0; 3],
        };
        let spectra = mean_spectra(&rows[16..].iter().map(measured).collect::<Vec<_>>());
        Doses { settings, rows, spectra }
    }

    #[test]
    fn captions_are_summarised_by_dose_and_step() {
        let doses = doses();
        let groups = doses.groups();
        let names: Vec<(u64, String)> = groups.iter().map(|row| (row.step, row.group.name())).collect();
        let of = |step| ["dose 1", "dose 64", "template"].map(|name| (step, name.to_owned()));
        assert_eq!(names, [of(10), of(20)].concat());
        let often = &groups[1];
        assert_eq!((often.captions, often.returned, often.captions_returned), (1, 0.75, 1.0));
        // Captions 0 and 1 with means 0.03 and 0.13.
        let rarely = &groups[0];
        assert_eq!((rarely.captions, rarely.returned, rarely.captions_returned), (2, 0.0, 0.0));
        for (found, due) in rarely.curvature.iter().zip([0.055, 0.08, 0.105]) {
            assert!((found - due).abs() < 1e-12, "{rarely:?}");
        }
        assert_eq!(doses.last().len(), 16);
        assert_eq!(doses.roc().unwrap().iter().find(|row| row.measure == "curvature").unwrap().auc, 1.0);
    }

    #[test]
    fn spectra_are_means_over_the_samples_of_a_group() {
        let spectra = doses().spectra;
        assert_eq!(spectra.len(), 3 * 4);
        let row = &spectra[1];
        assert_eq!((row.part.as_str(), row.dose, row.samples, row.index), ("dosed", 1.0, 8, 2));
        // 9 + seed, seeds 0 to 3 of two captions.
        assert!((row.mean - 10.5).abs() < 1e-12 && (row.std - 1.25f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn figures_show_the_doses_of_the_settings() {
        let doses = doses();
        let spectra = doses.spectra().unwrap();
        assert!(spectra.svg().contains("dose 64") && spectra.svg().contains("template"));
        assert!(!spectra.svg().contains("dose 1<"));
        let response = doses.response().unwrap();
        assert!(response.svg().contains("step 10") && response.svg().contains("step 20"));
        assert!(doses.roc_curves().unwrap().svg().contains("diversity"));
        assert!(doses.confound().unwrap().svg().contains("dose 64 and more"));
        assert_eq!(doses.table().unwrap().frame().height(), 6);
    }

    #[test]
    fn a_run_beyond_a_step_is_repeated_only_where_it_has_no_checkpoint_of_it() {
        let (dir, heard) = (tempfile::tempdir().unwrap(), Arc::new(Heard::default()));
        let profile = Profile::named("smoke").unwrap();
        let context = Context::new(Layout::at("nowhere"), profile).reporting(heard.clone());
        // A checkpoint every 5 steps, of which two are kept.
        let settings = crate::train::tiny(9, 20);
        let data = TrainingData::load(context.layout(), &settings.data).unwrap();
        let params = settings.check(data.shape()).unwrap();
        let at = |step| {
            let run = trained_until(&context, dir.path(), &params, &data, step).unwrap();
            let weights = run.weights_after(Kind::Ema, step).unwrap().unwrap();
            (weights, run.weights(Kind::Ema).unwrap().1)
        };
        let (seven, newest) = at(7);
        assert_eq!(newest, 7);
        let (twelve, newest) = at(12);
        assert!(newest == 12 && seven != twelve);
        let (ten, newest) = at(10);
        assert!(newest == 12 && ten != twelve && heard.0.lock().unwrap().is_empty());
        let (again, newest) = at(7);
        assert_eq!((again, newest), (seven, 7));
        let lines = heard.0.lock().unwrap();
        let due = "is at step 12 and has no checkpoint of step 7; it is removed and trained again";
        assert!(lines.len() == 1 && lines[0].ends_with(due), "{lines:?}");
    }

    #[test]
    fn steps_that_do_not_ascend_are_refused() {
        let with = |steps: &[u64]| DosesSettings { steps: steps.to_vec(), ..doses().settings }.check();
        assert!(with(&[1, 5]).is_ok());
        for steps in [&[][..], &[0, 3], &[5, 5], &[6, 5]] {
            assert!(with(steps).unwrap_err().to_string().contains("ascending"));
        }
    }
}
