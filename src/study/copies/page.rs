//! `report.html`: the answer on one page that needs no other file.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};

use super::answer::short;
use super::{Copies, CopiesError, Label, Report, Status};
use crate::class::Class;
use crate::data::ImageSet;
use crate::detect::Share;
use crate::display::{counted, escape};
use crate::plot::style::Colour;
use crate::plot::{Figure, FigureError};
use crate::shape::Shape;

/// Training images whose copies are shown, and groups of repeats.
const GROUPS: usize = 60;
/// Samples that are shown of each.
const OF_GROUP: usize = 6;
/// Samples that are shown although they are not called copies or repeats.
const NEXT: usize = 12;
/// Largest side of a picture, in pixels.
const SIDE: u32 = 112;

/// Figures of the page, each with its file name and what it shows.
pub(super) type Drawn = Vec<(&'static str, &'static str, Figure)>;

/// The page.
///
/// # Errors
/// [`CopiesError::Data`] for pictures that can't be read, [`CopiesError::Figure`] where they can't be encoded.
pub(super) fn page(copies: &Copies, report: &Report<'_>, figures: &Drawn) -> Result<String, CopiesError> {
    let page = Page { copies, report };
    let mut html = String::new();
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>Are the samples copies?</title>\n<link rel=\"icon\" \
         href=\"data:,\">\n<style>\n{}</style>\n</head>\n<body>\n<h1>Are the samples copies?</h1>\n",
        include_str!("page.css")
    );
    page.verdict(&mut html);
    page.inputs(&mut html);
    page.evidence(&mut html);
    for (_, caption, figure) in figures {
        let _ = writeln!(
            html,
            "<figure><img src=\"data:image/svg+xml;base64,{}\" alt=\"{}\" width=\"{}\" height=\"{}\"><figcaption \
             class=\"small\">{caption}</figcaption></figure>",
            STANDARD.encode(figure.svg()),
            escape(figure.alt()),
            figure.width(),
            figure.height()
        );
    }
    page.originals(&mut html)?;
    page.repeats(&mut html)?;
    page.next(&mut html)?;
    page.end(&mut html);
    html.push_str("</body>\n</html>\n");
    Ok(html)
}

struct Page<'a> {
    copies: &'a Copies,
    report: &'a Report<'a>,
}

impl Page<'_> {
    fn verdict(&self, html: &mut String) {
        let answer = &self.copies.answer;
        let _ = writeln!(html, "<p class=\"verdict\" id=\"verdict\">{}.</p>", sentence(&self.report.verdict));
        if answer.status != Status::Answered {
            let open: String =
                answer.open.iter().map(|open| format!("<li>{}.</li>", sentence(open))).collect();
            let _ = writeln!(html, "<div class=\"open\" id=\"open\">What is not known:<ul>{open}</ul></div>");
        }
        let shares = &answer.fractions;
        let rows: Vec<(&str, Colour, &str, Share)> = [
            ("memorized", Class::Memorized, "copies of training images", Some(shares.memorized)),
            ("spurious", Class::Spurious, "no copies, but near to another sample: repeats", shares.spurious),
            (
                "generalized",
                Class::Generalized,
                "neither near to a training image nor to another sample",
                shares.generalized,
            ),
            ("new", Class::Generalized, "no copies; whether they repeat is not known", shares.new),
            ("unknown", Class::Invalid, "not known whether they are copies", shares.unknown),
            (
                "invalid",
                Class::Invalid,
                "NaN, infinity or a value too large for a distance",
                Some(shares.invalid),
            ),
        ]
        .into_iter()
        .filter_map(|(name, class, means, share)| Some((name, class.colour(), means, share?)))
        .filter(|(name, .., share)| *name == "memorized" || share.count > 0)
        .collect();
        html.push_str("<div class=\"bar\" role=\"img\" aria-label=\"fractions of the labels\">");
        for (name, colour, _, share) in &rows {
            let _ = write!(
                html,
                "<span style=\"width:{:.3}%;background:{}\" title=\"{name}: {}\"></span>",
                100.0 * share.fraction,
                css(*colour),
                share.count
            );
        }
        html.push_str(
            "</div>\n<table id=\"fractions\"><tr><th>label</th><th class=\"n\">samples</th><th class=\"n\">fraction</th>\
             <th class=\"n\">95 % interval</th><th>meaning</th></tr>\n",
        );
        for (name, colour, means, share) in &rows {
            let few = if share.too_few { " (too few for a statement)" } else { "" };
            let _ = writeln!(
                html,
                "<tr><td><span class=\"key\" style=\"background:{}\"></span>{name}</td><td class=\"n\">{}</td><td \
                 class=\"n\">{:.4}</td><td class=\"n\">{:.4} to {:.4}</td><td>{means}{few}</td></tr>",
                css(*colour),
                share.count,
                share.fraction,
                share.wilson[0],
                share.wilson[1]
            );
        }
        html.push_str(
            "</table>\n<p class=\"small\">Intervals of this table are Wilson intervals of the counts. That of the \
             sentence above is of recognizable copies, and allows for samples that are called by chance. Its upper bound \
             does not hold for copies that lie as far from their originals as new images do, such as mirrored ones that are \
             compared without --flips.</p>\n",
        );
    }

    fn inputs(&self, html: &mut String) {
        html.push_str("<h2>What was compared</h2>\n<table id=\"inputs\"><tr><th>set</th><th>what was read, passed over and changed</th></tr>\n");
        let report = self.report;
        let sets = [
            ("training images", Some(&report.train)),
            ("samples", Some(&report.synthetic)),
            ("held-out images", report.held_out.as_ref()),
        ];
        for (name, input) in sets {
            let said = input.map_or_else(|| "none".to_owned(), |input| sentence(&input.said));
            let _ = writeln!(html, "<tr><td>{name}</td><td>{said}</td></tr>");
        }
        let moved = match report.transformations {
            1 => String::new(),
            n => format!(", the least over {n} mirrored or moved versions of each image"),
        };
        let _ = writeln!(
            html,
            "</table>\n<p>The distance is {}{moved}. {} samples are exact copies of training images, and {} lie further \
             from the training set than 10 times the distance between training images.</p>",
            report.metric, self.copies.answer.exact_copies, self.copies.answer.far
        );
    }

    fn evidence(&self, html: &mut String) {
        let answer = &self.copies.answer;
        html.push_str("<h2>What the labels come from</h2>\n");
        for (name, means, threshold) in [
            ("delta_m", "distance to a training image up to which a sample is a copy", &answer.delta_m),
            ("delta_s", "distance to another sample up to which a sample repeats", &answer.delta_s),
        ] {
            let value = match threshold.value {
                Some(value) => format!("{value:.6}"),
                None => "no value".to_owned(),
            };
            let _ = writeln!(
                html,
                "<p><code>{name}</code> ({means}): {value}; {}.</p>",
                escape(&threshold.because)
            );
        }
        if let Some(decision) = &answer.decision {
            let _ = writeln!(
                html,
                "<p>At a false discovery rate of {}, p-values call {} samples; {} would be called by chance.</p>",
                decision.fdr,
                decision.called,
                short(decision.expected_false)
            );
            if decision.not_called >= 1.0 {
                let _ = writeln!(
                    html,
                    "<p>About {:.0} more samples have smaller p-values than the null explains: copies that can't be called \
                     one by one, or samples unlike the null images.</p>",
                    decision.not_called
                );
            }
        }
        html.push_str(
            "<table id=\"evidence\"><tr><th>evidence</th><th class=\"n\">copies</th><th class=\"n\">also labelled so</th>\
             <th>agrees</th><th>what it is</th></tr>\n",
        );
        let number = |n: Option<usize>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        for rung in &answer.evidence {
            let agrees = rung.agrees.map_or("-", |agrees| if agrees { "yes" } else { "no" });
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{agrees}</td><td>{}</td></tr>",
                rung.evidence,
                number(rung.copies),
                number(rung.also_memorized),
                escape(&rung.because)
            );
        }
        html.push_str(
            "</table>\n<p class=\"small\">A rule agrees when at least 9 in 10 of the samples that it or the label \
             calls a copy are called so by both.</p>\n",
        );
    }

    /// Training images with the samples that are copies of them.
    fn originals(&self, html: &mut String) -> Result<(), CopiesError> {
        let answer = &self.copies.answer;
        let mut of: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, near) in self.copies.compared.samples.iter().enumerate() {
            if let Some(near) = near.filter(|_| answer.labels[i] == Label::Class(Class::Memorized)) {
                of.entry(near.index).or_default().push(i);
            }
        }
        let mut groups: Vec<(usize, Vec<usize>)> = of.into_iter().collect();
        for (_, samples) in &mut groups {
            samples.sort_by(|a, b| self.distance(*a).total_cmp(&self.distance(*b)));
        }
        groups.sort_by(|(a, x), (b, y)| {
            let order = y.len().cmp(&x.len());
            order.then(self.distance(x[0]).total_cmp(&self.distance(y[0]))).then(a.cmp(b))
        });
        html.push_str("<h2>Copies beside their originals</h2>\n");
        if groups.is_empty() {
            html.push_str("<p>No sample is called a copy.</p>\n");
            return Ok(());
        }
        let shown = groups.len().min(GROUPS);
        let _ = writeln!(
            html,
            "<p>Training images (olive frames), those with most copies first, and samples that are copies of them, with \
             their distance d.{}</p>",
            rest(shown, groups.len(), "training images")
        );
        for (original, samples) in groups.iter().take(GROUPS) {
            let count = match samples.len() {
                1 => String::new(),
                n => format!("<br>{n} copies"),
            };
            let train = self.tile("original", self.copies.images.train(), *original, &count)?;
            self.group(html, train, "memorized", samples)?;
        }
        Ok(())
    }

    /// Samples that repeat each other.
    fn repeats(&self, html: &mut String) -> Result<(), CopiesError> {
        let answer = &self.copies.answer;
        html.push_str("<h2>Repeats among the samples</h2>\n");
        if answer.fractions.spurious.is_none() {
            let _ = writeln!(
                html,
                "<p>Whether samples repeat could not be decided: {}.</p>",
                escape(&answer.delta_s.because)
            );
            return Ok(());
        }
        let near = &self.copies.compared.neighbours.synthetic;
        let mut parent: Vec<usize> = (0..near.len()).collect();
        for (i, other) in near.iter().enumerate() {
            if let Some(other) = other.filter(|_| answer.labels[i] == Label::Class(Class::Spurious)) {
                let (a, b) = (root(&mut parent, i), root(&mut parent, other.index));
                parent[a.max(b)] = a.min(b);
            }
        }
        let mut of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for i in 0..near.len() {
            of.entry(root(&mut parent, i)).or_default().push(i);
        }
        let mut groups: Vec<Vec<usize>> = of.into_values().filter(|group| group.len() > 1).collect();
        groups.sort_by(|a, b| b.len().cmp(&a.len()).then(a[0].cmp(&b[0])));
        if groups.is_empty() {
            html.push_str("<p>No sample is a repeat of another one, apart from copies.</p>\n");
            return Ok(());
        }
        let _ = writeln!(
            html,
            "<p>Samples that are no copies of training images, each in a group with its nearest other sample, at the distance d: {}, \
             the largest first. Samples that all repeat one image can be in several groups.{}</p>",
            counted(groups.len(), "group"),
            rest(groups.len().min(GROUPS), groups.len(), "groups")
        );
        for group in groups.iter().take(GROUPS) {
            let count = format!("<div><b>{}</b></div>", counted(group.len(), "sample"));
            self.group(html, count, "spurious", group)?;
        }
        Ok(())
    }

    /// The samples that are nearest to being called copies.
    fn next(&self, html: &mut String) -> Result<(), CopiesError> {
        let answer = &self.copies.answer;
        let p = |i: usize| {
            let decision = answer.decision.as_ref();
            decision.and_then(|decision| decision.p_values[i]).map_or(1.0, |p| p.used)
        };
        let mut left: Vec<usize> = (0..answer.samples)
            .filter(|&i| {
                self.copies.compared.samples[i].is_some()
                    && answer.labels[i] != Label::Class(Class::Memorized)
            })
            .collect();
        left.sort_by(|a, b| {
            p(*a).total_cmp(&p(*b)).then(self.distance(*a).total_cmp(&self.distance(*b))).then(a.cmp(b))
        });
        if left.is_empty() {
            return Ok(());
        }
        html.push_str(
            "<h2>The next in line</h2>\n<p>Samples that are not called copies, those with the smallest p-values first, beside \
             their nearest training image (olive frames). Look at them before you trust the line that was drawn.</p>\n<div \
             class=\"group\">\n",
        );
        for i in left.into_iter().take(NEXT) {
            html.push_str(&self.sample("", i)?);
            if let Some(near) = self.copies.compared.samples[i] {
                html.push_str(&self.tile("original", self.copies.images.train(), near.index, "")?);
            }
        }
        html.push_str("</div>\n");
        Ok(())
    }

    fn end(&self, html: &mut String) {
        html.push_str(
            "<h2>When not to believe it</h2>\n<ul>\n<li>Held-out images must be drawn as the training images were. Those of \
             another source, size or compression make every sample look like a copy, or none.</li>\n<li>Sets that were \
             resized or compressed in different ways lie apart from each other: then exact copies are missed.</li>\n\
             <li>Copies of a part, or mirrored, moved and recoloured ones, are far in pixels. Compare with flips, shifts, \
             LPIPS or features made for copies.</li>\n<li>A training set with images that are almost equal to held-out ones \
             has new images that look like copies.</li>\n</ul>\n<h2>How it was made</h2>\n",
        );
        if let Some(command) = &self.report.command {
            let _ = writeln!(html, "<pre id=\"command\">{}</pre>", escape(command));
        }
        for not_drawn in &self.report.not_drawn {
            let _ = writeln!(html, "<p>Not drawn: {}.</p>", escape(not_drawn));
        }
        let _ = writeln!(
            html,
            "<p class=\"small\">mem2gen {}, neighbours found on {}, seed {}. <code>labels.csv</code> beside this page has a \
             row for each sample, and <code>fractions.json</code> every number.</p>",
            self.report.version,
            escape(&self.report.device),
            self.copies.answer.seed
        );
    }

    fn group(
        &self,
        html: &mut String,
        head: String,
        class: &str,
        samples: &[usize],
    ) -> Result<(), CopiesError> {
        html.push_str("<div class=\"group\">\n");
        html.push_str(&head);
        for i in samples.iter().take(OF_GROUP) {
            html.push_str(&self.sample(class, *i)?);
        }
        if samples.len() > OF_GROUP {
            let _ = writeln!(html, "<div>and {} more</div>", samples.len() - OF_GROUP);
        }
        html.push_str("</div>\n");
        Ok(())
    }

    /// Distance of a sample to its nearest training image.
    fn distance(&self, sample: usize) -> f64 {
        self.copies.compared.samples[sample].map_or(f64::INFINITY, |near| near.distance)
    }

    /// A sample with its distance and what was done to it.
    fn sample(&self, class: &str, i: usize) -> Result<String, CopiesError> {
        let mut text = String::new();
        if class == "spurious" {
            if let Some(near) = self.copies.compared.neighbours.synthetic[i] {
                let _ = write!(text, "<br>d = {:.4}", near.distance);
            }
        } else if let Some(near) = self.copies.compared.samples[i] {
            let _ = write!(text, "<br>d = {:.4}", near.distance);
            if near.transformation > 0 {
                let _ = write!(text, "<br>{}", self.copies.transformations[near.transformation]);
            }
        }
        self.tile(class, self.copies.images.synthetic(), i, &text)
    }

    /// A picture with its name.
    fn tile(&self, class: &str, set: &ImageSet, row: usize, text: &str) -> Result<String, CopiesError> {
        let name = match set.files() {
            Some(files) => files[row].clone(),
            None => format!("row {row}"),
        };
        let name = escape(&name);
        let picture = match self.copies.shape {
            Some(shape) => format!("<img src=\"{}\" alt=\"{name}\">", picture(set, row, shape)?),
            None => String::new(),
        };
        Ok(format!("<div class=\"{class}\">{picture}<br>{name}{text}</div>\n"))
    }
}

/// An image as the address of a PNG, with sides of at most [`SIDE`] pixels.
fn picture(set: &ImageSet, row: usize, shape: Shape) -> Result<String, CopiesError> {
    let pixels = set.picture(row, shape)?;
    let last = shape.channels - 1;
    let mut picture = RgbImage::from_fn(shape.width as u32, shape.height as u32, |x, y| {
        image::Rgb([0, 1, 2].map(|c: usize| {
            // NaN becomes 0.
            (255.0 * pixels[[y as usize, x as usize, c.min(last)]].clamp(0.0, 1.0)).round() as u8
        }))
    });
    let largest = picture.width().max(picture.height());
    if largest > SIDE {
        let scaled = |side: u32| (side * SIDE / largest).max(1);
        picture = resize(&picture, scaled(picture.width()), scaled(picture.height()), FilterType::CatmullRom);
    }
    let mut png = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| FigureError::Encode { reason: e.to_string() })?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner())))
}

/// The first of the group of `i`.
fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

/// How many are not shown.
fn rest(shown: usize, all: usize, what: &str) -> String {
    if shown == all {
        return String::new();
    }
    format!(" {shown} of {all} {what} are shown; <code>labels.csv</code> has all.")
}

/// Text with a capital at the start.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    escape(&(first + letters.as_str()))
}

fn css(colour: Colour) -> String {
    let [r, g, b] = colour.rgb();
    format!("#{r:02x}{g:02x}{b:02x}")
}
