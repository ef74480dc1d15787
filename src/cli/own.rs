//! Options of commands that take a data set of the registry or the user's own images.

use std::path::PathBuf;

use mem2gen::data::image_folder::Background;
use mem2gen::data::image_set::{Layout, Nominal};
use mem2gen::data::input::{Options, is_present};
use mem2gen::data::registry::REGISTRY;
use mem2gen::data::{DataError, Entry, Input, find};

use super::source::Failure;

/// How own images are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
#[group(id = "Reading", multiple = true)]
pub struct Reading {
    /// Name of the array, tensor or column of own images, in files that hold several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Range of the values of own images [default: found]
    #[arg(long, value_enum, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<Nominal>,
    /// Order of the axes of own arrays [default: found]
    #[arg(long, value_enum, value_name = "LAYOUT")]
    layout: Option<Layout>,
    /// What transparent pixels of own images are laid on
    #[arg(long, value_enum, value_name = "COLOUR", default_value_t)]
    background: Background,
    /// Leave out what looks like an own image and can't be read; without it such files are an error
    #[arg(long)]
    allow_skipped: bool,
}

/// What the names of a data set stand for.
pub enum Named {
    /// The toy model's points.
    Toy,
    /// A data set of the registry.
    Registered(&'static Entry),
    /// The user's own images, with absolute paths.
    Own(Input),
}

impl Reading {
    /// What `names` stand for: `toy` or a name of the registry, before a file of that name. `option` is what takes the
    /// names.
    pub fn named(
        &self,
        names: &[PathBuf],
        size: Option<usize>,
        option: &'static str,
    ) -> Result<Named, Failure> {
        let refused = |reason: String| Err(Failure::Option { option, reason });
        let known = |name: &PathBuf| {
            let name = name.to_str()?;
            if name == "toy" { Some(Named::Toy) } else { find(name).ok().map(Named::Registered) }
        };
        if let Some((name, known)) = names.iter().find_map(|name| Some((name, known(name)?))) {
            if names.len() > 1 {
                let name = name.display();
                return refused(format!(
                    "{name} is the name of a data set, expected it alone; write ./{name} for a file"
                ));
            }
            if *self != Self::default() {
                return refused(format!(
                    "{} is the name of a data set, but --tensor, --range, --layout, --background and --allow-skipped \
                     are for files; leave them out",
                    name.display()
                ));
            }
            return Ok(known);
        }
        if let Some(name) = names.iter().find(|name| !is_present(name)) {
            let known = format!("{}, toy", REGISTRY.map(|entry| entry.name).join(", "));
            let name = name.display().to_string();
            return Err(mem2gen::Error::from(DataError::NoSuch { name, known }).into());
        }
        if size == Some(0) {
            return Err(Failure::Option { option: "--size", reason: "is 0, expected at least 1".into() });
        }
        let options = Options {
            layout: self.layout,
            background: self.background,
            size,
            allow_skipped: self.allow_skipped,
        };
        let input = Input {
            paths: names.to_vec(),
            tensor: self.tensor.clone(),
            strict: self.tensor.is_some(),
            range: self.range,
            options,
        };
        Ok(Named::Own(input.absolute().map_err(mem2gen::Error::from)?))
    }
}
