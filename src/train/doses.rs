//! Training sets in which it is known how often each caption was seen.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::data::emoji::{Picture, SkinTone, Vendor, bases};
use crate::random::Stream;
use crate::setting::SettingError;

/// How often pictures with captions are seen in training.
///
/// Captions without skin tones are drawn at random for each dose, and one picture of each, by a vendor that is drawn, is seen
/// that often. A template is a caption whose five pictures, one for each skin tone, are seen under one caption without a tone.
/// Other pictures without a tone, by all vendors, make the rest of the training set. No other picture of a caption with a dose
/// or of a template is seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoseSettings {
    /// Doses: relative numbers of times that a caption is seen.
    pub levels: Vec<f64>,
    /// Number of captions of each dose.
    pub captions: usize,
    /// Number of templates.
    pub templates: usize,
    /// Dose of each of the five pictures of a template.
    pub template_dose: f64,
    /// Dose of each other picture.
    pub other_dose: f64,
    /// Seed of the choice of captions and vendors.
    pub seed: u64,
}

/// A picture's part in a training set with doses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The only picture of a caption with a dose.
    Dosed,
    /// One of the five pictures of a template.
    Template,
    /// One of the other pictures.
    Other,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Dosed, Self::Template, Self::Other];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dosed => "dosed",
            Self::Template => "template",
            Self::Other => "other",
        }
    }
}

/// A row of a training set with doses.
#[derive(Debug, Clone, PartialEq)]
pub struct Dosed {
    /// Index of the picture in its data set.
    pub picture: usize,
    /// The caption under which it is seen.
    pub caption: String,
    /// Its part.
    pub part: Part,
    /// Relative number of times that it is seen.
    pub dose: f64,
}

impl DoseSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for no levels or more than 100, and doses that are not finite and above 0.
    pub fn check(&self) -> Result<(), TrainError> {
        let refused = |setting: &'static str, value: String, need: &'static str| {
            Err(SettingError::new("training", setting, value, need).into())
        };
        if !(1..=100).contains(&self.levels.len()) {
            return refused(
                "data.doses.levels",
                format!("{} numbers", self.levels.len()),
                "1 to 100 numbers",
            );
        }
        for (setting, dose) in self.levels.iter().map(|dose| ("data.doses.levels", *dose)).chain([
            ("data.doses.template_dose", self.template_dose),
            ("data.doses.other_dose", self.other_dose),
        ]) {
            if !(dose.is_finite() && dose > 0.0) {
                return refused(setting, dose.to_string(), "a finite number above 0");
            }
        }
        Ok(())
    }

    /// The rows of the training set, in the order: doses as they are listed, templates, others.
    ///
    /// # Errors
    /// As [`Self::check`]; [`TrainError::Setting`] for more captions or templates than the pictures have.
    pub fn allot(&self, pictures: &[Picture]) -> Result<Vec<Dosed>, TrainError> {
        self.check()?;
        let mut of_base: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, picture) in pictures.iter().enumerate() {
            of_base.entry(&picture.base).or_default().push(at);
        }
        let (mut plain, mut toned) = (Vec::new(), Vec::new());
        for base in bases(pictures) {
            let all = &of_base[base];
            match all.iter().all(|&at| pictures[at].tone.is_none()) {
                true => plain.push((base, all)),
                false => toned.extend(five(pictures, all).map(|five| (base, five))),
            }
        }
        let enough = |setting: &'static str, asked: usize, found: usize| match asked <= found {
            true => Ok(()),
            false => Err(TrainError::from(SettingError::new(
                "training",
                setting,
                asked,
                format!("at most {found}, the number that the pictures have"),
            ))),
        };
        let captions = self.captions.saturating_mul(self.levels.len());
        enough("data.doses.captions times the number of levels", captions, plain.len())?;
        enough("data.doses.templates", self.templates, toned.len())?;

        let mut stream = Stream::new(self.seed, "doses");
        let order = stream.permutation(plain.len());
        let mut rows = Vec::new();
        let mut used = HashSet::new();
        for (place, at) in order.into_iter().take(captions).enumerate() {
            let (base, all) = plain[at];
            used.insert(base);
            rows.push(Dosed {
                picture: all[stream.below(all.len() as u64) as usize],
                caption: base.to_owned(),
                part: Part::Dosed,
                dose: self.levels[place / self.captions],
            });
        }
        for at in
            Stream::new(self.seed, "templates").permutation(toned.len()).into_iter().take(self.templates)
        {
            let (base, five) = &toned[at];
            used.insert(base);
            rows.extend(five.map(|picture| Dosed {
                picture,
                caption: (*base).to_owned(),
                part: Part::Template,
                dose: self.template_dose,
            }));
        }
        let others =
            pictures.iter().enumerate().filter(|(_, p)| p.tone.is_none() && !used.contains(p.base.as_str()));
        rows.extend(others.map(|(picture, p)| Dosed {
            picture,
            caption: p.base.clone(),
            part: Part::Other,
            dose: self.other_dose,
        }));
        Ok(rows)
    }
}

/// The pictures of the five skin tones by the first vendor that has them all.
fn five(pictures: &[Picture], all: &[usize]) -> Option<[usize; 5]> {
    Vendor::ALL.into_iter().find_map(|vendor| {
        let of = |tone: SkinTone| {
            all.iter().copied().find(|&at| pictures[at].vendor == vendor && pictures[at].tone == Some(tone))
        };
        let found: Vec<usize> = SkinTone::FIVE.into_iter().filter_map(of).collect();
        found.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::emoji::Group;

    /// 12 captions by two vendors, and 4 with skin tones, of which one lacks a tone.
    fn pictures() -> Vec<Picture> {
        let picture = |base: String, vendor, tone: Option<SkinTone>| Picture {
            caption: base.clone(),
            base,
            group: Group::Objects,
            vendor,
            tone,
            code: String::new(),
        };
        let mut all = Vec::new();
        for i in 0..12 {
            for vendor in [Vendor::Noto, Vendor::Fluent] {
                all.push(picture(format!("thing {i}"), vendor, None));
            }
        }
        for i in 0..4 {
            all.push(picture(format!("person {i}"), Vendor::Twemoji, None));
            for tone in SkinTone::FIVE.into_iter().skip(usize::from(i == 2)) {
                all.push(picture(format!("person {i}"), Vendor::Twemoji, Some(tone)));
            }
        }
        all
    }

    fn settings() -> DoseSettings {
        DoseSettings {
            levels: vec![1.0, 8.0],
            captions: 3,
            templates: 2,
            template_dose: 4.0,
            other_dose: 0.5,
            seed: 5,
        }
    }

    #[test]
    fn each_caption_has_one_part_and_its_dose() {
        let pictures = pictures();
        let rows = settings().allot(&pictures).unwrap();
        let count = |part| rows.iter().filter(|row| row.part == part).count();
        // Six captions, two templates, and the rest: 6 things by two vendors and 2 people without a tone.
        assert_eq!([count(Part::Dosed), count(Part::Template), count(Part::Other)], [6, 10, 14]);
        assert!(rows[..3].iter().all(|r| r.dose == 1.0) && rows[3..6].iter().all(|r| r.dose == 8.0));
        let mut parts: HashMap<&str, HashSet<Part>> = HashMap::new();
        for row in &rows {
            let picture = &pictures[row.picture];
            assert_eq!(picture.base, row.caption);
            assert_eq!(picture.tone.is_some(), row.part == Part::Template);
            parts.entry(&row.caption).or_default().insert(row.part);
        }
        assert!(parts.values().all(|parts| parts.len() == 1));
        let mut seen: Vec<usize> = rows.iter().map(|row| row.picture).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), rows.len());
        for five in rows[6..16].chunks(5) {
            assert!(
                five.iter().zip(SkinTone::FIVE).all(|(row, tone)| pictures[row.picture].tone == Some(tone))
            );
            assert!(five.iter().all(|row| row.caption == five[0].caption && row.dose == 4.0));
        }
        // The caption that lacks a tone is never a template.
        for seed in 0..20 {
            let rows = DoseSettings { seed, ..settings() }.allot(&pictures).unwrap();
            assert!(rows.iter().all(|row| row.part != Part::Template || row.caption != "person 2"));
        }
        assert_eq!(settings().allot(&pictures).unwrap(), rows);
        assert_ne!(DoseSettings { seed: 6, ..settings() }.allot(&pictures).unwrap(), rows);
    }

    #[test]
    fn more_than_there_is_and_bad_doses_are_refused() {
        let refused = |settings: DoseSettings, words: &str| {
            let error = settings.allot(&pictures()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(DoseSettings { captions: 7, ..settings() }, "14, expected at most 12");
        refused(DoseSettings { captions: usize::MAX, ..settings() }, "expected at most 12");
        refused(DoseSettings { templates: 4, ..settings() }, "data.doses.templates is 4, expected at most 3");
        refused(DoseSettings { levels: vec![], ..settings() }, "data.doses.levels");
        refused(DoseSettings { levels: vec![1.0, -1.0], ..settings() }, "data.doses.levels is -1");
        refused(DoseSettings { other_dose: f64::NAN, ..settings() }, "data.doses.other_dose");
        refused(DoseSettings { template_dose: f64::INFINITY, ..settings() }, "data.doses.template_dose");
    }
}
