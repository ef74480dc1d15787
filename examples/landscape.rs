//! The landscape of a trained network at a few of its training images: basins, curvature and relative energy.
//!
//! ```text
//! cargo run --release --example landscape          # a published network of MNIST; needs `mem2gen data fetch`
//! cargo run --release --example landscape -- RUN   # the folder of a run of `mem2gen train` or of a cell of a sweep
//! ```

use std::error::Error;
use std::path::Path;

use mem2gen::class::Group;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::study::basin::{self, BasinSettings, Distance};
use mem2gen::study::context::{Context, Profile};
use mem2gen::study::curvature::{self, CurvatureSettings};
use mem2gen::study::subject::{Choice, ScoreOptions, Subject};

fn main() -> Result<(), Box<dyn Error>> {
    let layout = Layout::find();
    let subject = match std::env::args().nth(1) {
        Some(run) => Subject::open(Path::new(&run), &layout, &ScoreOptions::default())?,
        None => {
            let context = Context::new(layout, Profile::named("desk")?);
            Subject::published(&context, "mnist-mlp", "mnist-7-mlp128-k128-s3407")?
        }
    };
    let images = subject.images(Group::Training, &Choice { max: 4, ..Choice::default() })?;

    // Alg. 1: the last noise level from which nine of ten copies return to within delta.
    let settings = BasinSettings { delta: Some(0.2), ..BasinSettings::default() };
    let params = settings.check(subject.delta_m())?;
    for row in basin::measure(&subject, &images, &params, &Distance::l2(), None, &Silent)? {
        println!("image {}: t_c = {}, log V = {:.1} nats", row.id, row.t_c, row.log_volume);
    }

    // Alg. 2: singular values of the score's Jacobian.
    let params = CurvatureSettings::default().check()?;
    for spectrum in curvature::measure(&subject, &images, &params, None, &Silent)? {
        let (first, last) = (spectrum.values.first(), spectrum.values.last());
        println!("image {}: singular values from {first:.1?} to {last:.1?}", spectrum.sample);
    }
    Ok(())
}
