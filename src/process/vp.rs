use serde::{Deserialize, Serialize};

use super::{Coefficients, Level, Process, ProcessError, Steps};
use crate::setting::SettingError;

/// Settings of [`Vp`]; the defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpSettings {
    /// Number of noise levels, T.
    pub levels: usize,
    /// beta of the first level.
    pub beta_start: f64,
    /// beta of the last level.
    pub beta_end: f64,
    /// The way from the first beta to the last. The paper's is not stored, so that settings without this field are the same.
    #[serde(default, skip_serializing_if = "Curve::is_linear")]
    pub curve: Curve,
}

impl Default for VpSettings {
    fn default() -> Self {
        Self { levels: 1000, beta_start: 1e-4, beta_end: 0.02, curve: Curve::Linear }
    }
}

/// How beta depends on the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// beta is linear in the level, as in the paper.
    #[default]
    Linear,
    /// sqrt(beta) is linear in the level, as in Stable Diffusion.
    ScaledLinear,
}

impl Curve {
    fn is_linear(&self) -> bool {
        *self == Self::Linear
    }
}

impl VpSettings {
    /// Those of Stable Diffusion 1 and 2: 1000 levels, beta from 0.00085 to 0.012, whose square root is linear.
    pub fn stable_diffusion() -> Self {
        Self { levels: 1000, beta_start: 0.00085, beta_end: 0.012, curve: Curve::ScaledLinear }
    }

    /// Checks the settings and computes the tables.
    ///
    /// # Errors
    /// [`ProcessError::Setting`] with the first setting out of its range.
    pub fn check(self) -> Result<Vp, ProcessError> {
        let refused =
            |setting, value: f64, need| Err(SettingError::new(Vp::NAME, setting, value, need).into());
        if !(2..=Vp::MOST).contains(&self.levels) {
            return refused("levels", self.levels as f64, "2 to 1000000");
        }
        if !(self.beta_start > 0.0 && self.beta_start < 1.0) {
            return refused("beta_start", self.beta_start, "a number between 0 and 1");
        }
        if !(self.beta_end >= self.beta_start && self.beta_end < 1.0) {
            return refused("beta_end", self.beta_end, "a number from beta_start to below 1");
        }
        let vp = Vp::new(self);
        let last = vp.alpha_bar(self.levels - 1);
        // Squares of alpha and their inverses have to be normal floating-point numbers.
        if last < 1e-150 {
            return refused(
                "levels",
                self.levels as f64,
                "few enough for alpha_bar of the last level to be above 1e-150",
            );
        }
        Ok(vp)
    }
}

/// Choice of times for a sampler with fewer steps than levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// 0, r, 2r, ... with r = T / n rounded down, the default of the diffusers package. Sampling starts from pure noise at
    /// time (n - 1) r, which is below T - 1.
    Leading,
    /// Evenly spaced from T - 1 to 0, rounded to the nearest level; a single step is at T - 1.
    Linspace,
    /// 1, 1 + r, 1 + 2r, ... with r as in `Leading`, and t = 0 as the end: Stable Diffusion's schedulers in diffusers
    /// (`steps_offset` 1, `set_alpha_to_one` false). Samples keep the noise of the first level, sigma = 0.029.
    Offset,
}

/// The variance-preserving process of DDPM, with alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar).
///
/// Time is the index of DDPM: the first noise level is t = 0, the last t = T - 1, and clean data is at t = -1.
///
/// Between levels log alpha_bar is a monotone cubic (Hermite, with slopes from both neighbours). It agrees with the table
/// at every integer, and beta(t) = -d log alpha_bar / dt is continuous. With linear interpolation beta would be a step
/// function, which costs adaptive integrators a step at each level; the usual closed form with linear beta(t) would not
/// agree with the table.
///
/// ```
/// use mem2gen::process::{Process, Vp};
///
/// let vp = Vp::default();
/// let level = vp.level(0.0)?;
/// assert!((level.sigma().powi(2) - 1e-4).abs() < 1e-12);
/// assert_eq!((vp.clean(), vp.horizon()), (-1.0, 999.0));
/// assert_eq!(vp.level(vp.clean())?.sigma(), 0.0);
/// # Ok::<(), mem2gen::process::ProcessError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Vp {
    settings: VpSettings,
    betas: Vec<f64>,
    /// -log alpha_bar at t = -1, 0, ..., T - 1.
    depth: Vec<f64>,
    /// d depth / dt at the same times.
    rate: Vec<f64>,
}

impl Default for Vp {
    fn default() -> Self {
        Self::new(VpSettings::default())
    }
}

impl Vp {
    const NAME: &str = "VP";
    const MOST: usize = 1_000_000;

    fn new(settings: VpSettings) -> Self {
        let n = settings.levels;
        let line = |from: f64, to: f64, i: usize| from + (to - from) * i as f64 / (n - 1) as f64;
        let (first, last) = (settings.beta_start, settings.beta_end);
        let betas: Vec<f64> = match settings.curve {
            Curve::Linear => (0..n).map(|i| line(first, last, i)).collect(),
            Curve::ScaledLinear => (0..n).map(|i| line(first.sqrt(), last.sqrt(), i).powi(2)).collect(),
        };
        let fall: Vec<f64> = betas.iter().map(|b| -(-b).ln_1p()).collect();
        let mut depth = vec![0.0; n + 1];
        for (i, fall) in fall.iter().enumerate() {
            depth[i + 1] = depth[i] + fall;
        }
        // Slopes of at most three times either neighbour's difference keep the cubic monotone (Fritsch and Carlson).
        let end = |near: f64, next: f64| (1.5 * near - 0.5 * next).clamp(0.0, 3.0 * near);
        let mut rate = vec![end(fall[0], fall[1])];
        rate.extend(fall.windows(2).map(|f| (0.5 * (f[0] + f[1])).min(3.0 * f[0].min(f[1]))));
        rate.push(end(fall[n - 1], fall[n - 2]));
        Self { settings, betas, depth, rate }
    }

    /// The settings.
    pub fn settings(&self) -> VpSettings {
        self.settings
    }

    /// beta of each level, `[T]`.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// alpha_bar of level t = 0, ..., T - 1: the product of 1 - beta up to t. Above T - 1, that of the last level.
    pub fn alpha_bar(&self, t: usize) -> f64 {
        (-self.depth[t.min(self.settings.levels - 1) + 1]).exp()
    }

    /// The levels of a sampler with `steps` steps that ends at clean data (alpha_bar = 1), or at the first level with
    /// [`Spacing::Offset`]. For `steps` = T these are all levels of DDPM.
    ///
    /// # Errors
    /// [`ProcessError::Count`] for 0 steps or more than T; more than T - 1 with [`Spacing::Offset`].
    pub fn steps(&self, steps: usize, spacing: Spacing) -> Result<Steps, ProcessError> {
        let n = self.settings.levels;
        let most = if spacing == Spacing::Offset { n - 1 } else { n };
        if !(1..=most).contains(&steps) {
            return Err(ProcessError::Count { process: Self::NAME, steps, most });
        }
        let last = (n - 1) as f64;
        let leading = |first: usize| (0..steps).rev().map(move |i| (first + i * (n / steps)) as f64);
        let mut times: Vec<f64> = match spacing {
            Spacing::Leading => leading(0).collect(),
            Spacing::Offset => leading(1).collect(),
            Spacing::Linspace if steps == 1 => vec![last],
            Spacing::Linspace => {
                (0..steps).rev().map(|i| (last * i as f64 / (steps - 1) as f64).round()).collect()
            }
        };
        times.push(if spacing == Spacing::Offset { 0.0 } else { self.clean() });
        Steps::at(self, &times)
    }

    /// Depth and rate at a time.
    fn at(&self, t: f64) -> Result<(f64, f64), ProcessError> {
        if !(self.clean()..=self.horizon()).contains(&t) {
            return Err(ProcessError::Time {
                process: Self::NAME,
                t,
                clean: self.clean(),
                horizon: self.horizon(),
            });
        }
        let i = (t + 1.0).floor();
        let f = t + 1.0 - i;
        let i = i as usize;
        if f == 0.0 {
            return Ok((self.depth[i], self.rate[i]));
        }
        let (left, right, step) = (self.rate[i], self.rate[i + 1], self.depth[i + 1] - self.depth[i]);
        let (square, cube) = (3.0 * step - 2.0 * left - right, left + right - 2.0 * step);
        let depth = self.depth[i] + f * (left + f * (square + f * cube));
        Ok((depth, left + f * (2.0 * square + f * 3.0 * cube)))
    }
}

impl Process for Vp {
    fn level(&self, t: f64) -> Result<Level, ProcessError> {
        let (depth, _) = self.at(t)?;
        // 1 - alpha_bar without the cancellation at small t.
        Ok(Level::unchecked(t, (-0.5 * depth).exp(), (-(-depth).exp_m1()).sqrt()))
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients, ProcessError> {
        let (_, beta) = self.at(t)?;
        // Rounding may leave a slope of 0 just below it.
        Ok(Coefficients { drift: -0.5 * beta, diffusion: beta.max(0.0).sqrt() })
    }

    fn clean(&self) -> f64 {
        -1.0
    }

    fn horizon(&self) -> f64 {
        (self.settings.levels - 1) as f64
    }

    fn prior_scale(&self) -> f64 {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_that_of_the_paper() {
        let vp = Vp::default();
        for (t, alpha_bar, sigma) in [
            (0, 0.999900, 0.0100),
            (2, 0.999640, 0.01897),
            (5, 0.999102, 0.02997),
            (10, 0.997807, 0.04683),
            (15, 0.996017, 0.06311),
            (25, 0.990965, 0.09505),
            (50, 0.969951, 0.17335),
            (100, 0.895142, 0.32382),
        ] {
            assert!((vp.alpha_bar(t) - alpha_bar).abs() < 6e-7, "{t}");
            assert!((vp.level(t as f64).unwrap().sigma() - sigma).abs() < 6e-6, "{t}");
        }
        for (t, alpha_bar) in
            [(200, 0.656347), (300, 0.394011), (400, 0.193572), (500, 0.077797), (700, 0.006868)]
        {
            assert!((vp.alpha_bar(t) - alpha_bar).abs() < 6e-7, "{t}");
        }
        assert!((vp.alpha_bar(999) - 4.0358e-5).abs() < 6e-10);
    }

    #[test]
    fn the_schedule_of_stable_diffusion_is_that_of_diffusers() {
        // alphas_cumprod of diffusers' DDIMScheduler in f32, `scaled_linear`.
        let vp = VpSettings::stable_diffusion().check().unwrap();
        for (t, alpha_bar) in [
            (0, 0.99914998),
            (1, 0.99829602),
            (2, 0.99743807),
            (15, 0.98592263),
            (50, 0.95157665),
            (101, 0.89298022),
            (250, 0.67379230),
            (500, 0.27633247),
            (750, 0.05616980),
            (901, 0.014004889),
            (999, 0.004660095),
        ] {
            assert!((vp.alpha_bar(t) / alpha_bar - 1.0).abs() < 2e-5, "{t} {}", vp.alpha_bar(t));
        }
        // Its timesteps, and the level that it ends at.
        let times: Vec<f64> = vp.steps(10, Spacing::Offset).unwrap().levels().iter().map(|l| l.t()).collect();
        assert_eq!(times, [901.0, 801.0, 701.0, 601.0, 501.0, 401.0, 301.0, 201.0, 101.0, 1.0, 0.0]);
        assert!(vp.steps(999, Spacing::Offset).is_ok());
        let error = vp.steps(1000, Spacing::Offset).unwrap_err();
        assert!(matches!(error, ProcessError::Count { most: 999, .. }));
    }

    #[test]
    fn settings_without_a_curve_are_the_papers_and_are_stored_as_before() {
        let text = r#"{"levels":1000,"beta_start":0.0001,"beta_end":0.02}"#;
        assert_eq!(serde_json::from_str::<VpSettings>(text).unwrap(), VpSettings::default());
        assert_eq!(serde_json::to_string(&VpSettings::default()).unwrap(), text);
        let stored = serde_json::to_string(&VpSettings::stable_diffusion()).unwrap();
        assert!(stored.ends_with(r#","curve":"scaled_linear"}"#), "{stored}");
        assert_eq!(serde_json::from_str::<VpSettings>(&stored).unwrap(), VpSettings::stable_diffusion());
    }

    #[test]
    fn levels_are_the_products_of_one_less_beta() {
        let vp = VpSettings { levels: 57, beta_start: 0.003, beta_end: 0.3, curve: Curve::Linear }
            .check()
            .unwrap();
        let mut product = 1.0;
        for (t, beta) in vp.betas().iter().enumerate() {
            let before = product;
            product *= 1.0 - beta;
            let level = vp.level(t as f64).unwrap();
            assert!((vp.alpha_bar(t) / product - 1.0).abs() < 1e-13);
            assert!((level.alpha().powi(2) / product - 1.0).abs() < 1e-13);
            assert!((level.sigma().powi(2) / (1.0 - product) - 1.0).abs() < 1e-12);
            // DDPM's own formula for the posterior: "fixed_small".
            let got = level.posterior(vp.level(t as f64 - 1.0).unwrap());
            assert!((got.variance - beta * (1.0 - before) / (1.0 - product)).abs() < 1e-13);
            assert!((got.x0 - before.sqrt() * beta / (1.0 - product)).abs() < 1e-12);
            assert!((got.x - (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - product)).abs() < 1e-13);
        }
        assert_eq!(vp.level(-1.0).unwrap(), Level::unchecked(-1.0, 1.0, 0.0));
    }

    #[test]
    fn between_levels_beta_is_the_slope_continuous_and_not_negative() {
        // The second schedule starts with betas that grow by a factor above 3.
        let few = VpSettings { levels: 9, beta_end: 0.6, ..VpSettings::default() };
        for settings in [VpSettings::default(), few, VpSettings::stable_diffusion()] {
            let vp = settings.check().unwrap();
            let depth = |t: f64| -2.0 * vp.level(t).unwrap().alpha().ln();
            let rate = |t: f64| vp.coefficients(t).unwrap().diffusion.powi(2);
            for i in 0..settings.levels.min(40) {
                for f in [0.0, 0.13, 0.5, 0.91] {
                    let (t, h) = (i as f64 - 0.95 + f * 0.9, 1e-5);
                    let slope = (depth(t + h) - depth(t - h)) / (2.0 * h);
                    assert!((slope - rate(t)).abs() < 1e-9 + 1e-6 * rate(t), "{t}: {slope} {}", rate(t));
                    assert!(slope >= 0.0 && vp.coefficients(t).unwrap().drift == -0.5 * vp.at(t).unwrap().1);
                }
                let (t, h) = (i as f64, 1e-9);
                assert!((rate(t - h) - rate(t)).abs() < 1e-7 * settings.beta_end * settings.levels as f64);
                assert!((depth(t - h) - depth(t)).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn spacings_are_as_documented() {
        let vp = Vp::default();
        let times = |n, spacing| -> Vec<f64> {
            vp.steps(n, spacing).unwrap().levels().iter().map(|l| l.t()).collect()
        };
        assert_eq!(times(4, Spacing::Leading), [750.0, 500.0, 250.0, 0.0, -1.0]);
        assert_eq!(times(4, Spacing::Linspace), [999.0, 666.0, 333.0, 0.0, -1.0]);
        assert_eq!(times(1, Spacing::Linspace), [999.0, -1.0]);
        let all: Vec<f64> = (0..=1000).rev().map(|i| f64::from(i) - 1.0).collect();
        assert_eq!(times(1000, Spacing::Leading), all);
        assert_eq!(times(1000, Spacing::Linspace), all);
        // Leading steps of a count that doesn't divide T stay on the grid of T / n rounded down.
        assert_eq!(times(300, Spacing::Leading)[0], 897.0);
        for n in 2..=1000 {
            assert_eq!(times(n, Spacing::Linspace).len(), n + 1);
        }
        assert!(matches!(vp.steps(0, Spacing::Leading), Err(ProcessError::Count { .. })));
        assert!(matches!(vp.steps(1001, Spacing::Linspace), Err(ProcessError::Count { .. })));
    }

    #[test]
    fn bad_settings_and_times_are_refused() {
        let d = VpSettings::default();
        for bad in [
            VpSettings { levels: 1, ..d },
            VpSettings { levels: usize::MAX, ..d },
            VpSettings { beta_start: 0.0, ..d },
            VpSettings { beta_start: f64::NAN, ..d },
            VpSettings { beta_start: 0.03, ..d },
            VpSettings { beta_end: 1.0, ..d },
            VpSettings { levels: 100_000, ..d },
        ] {
            assert!(matches!(bad.check(), Err(ProcessError::Setting(_))), "{bad:?}");
        }
        for t in [-1.1, 999.1, f64::NAN] {
            assert!(matches!(Vp::default().level(t), Err(ProcessError::Time { .. })));
        }
    }
}
