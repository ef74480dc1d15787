//! Train a small network on a few points, sample it, and label the samples.
//!
//! ```text
//! cargo run --release --example train_sample_label -- FOLDER   # an interrupted training resumes in FOLDER
//! ```

use std::error::Error;
use std::path::PathBuf;

use mem2gen::data::subset;
use mem2gen::detect::{ClassifySettings, Sets, classify, neighbours};
use mem2gen::device::{Device, DeviceChoice};
use mem2gen::net::{Arch, MlpSettings};
use mem2gen::process::{Prediction, Spacing, VpSettings};
use mem2gen::progress::Silent;
use mem2gen::random::{Stream, Streams};
use mem2gen::sample::{ddim, start};
use mem2gen::score::Network;
use mem2gen::shape::Shape;
use mem2gen::train::{
    AdamSettings, DataSettings, EmaSettings, Kind, ProcessSettings, TrainSettings, TrainingData, train,
};
use ndarray::Array2;

fn main() -> Result<(), Box<dyn Error>> {
    let folder =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("mem2gen-example"), PathBuf::from);

    // Replace these by your own rows: K = 16 random 4x4 images with values in [-1, 1].
    let mut stream = Stream::new(1, "example of training");
    let shape = Shape::image(4, 4, 1);
    let rows: Array2<f32> =
        Array2::from_shape_simple_fn((16, shape.len()), || (2.0 * stream.uniform() - 1.0) as f32);
    let data = TrainingData::new(rows.clone(), shape)?;

    let settings = TrainSettings {
        data: DataSettings::Images { dataset: "own".into(), size: 4, k: rows.nrows() },
        arch: Arch::Mlp(MlpSettings { width: 64, blocks: 2, time: 32, dropout: 0.0 }),
        process: ProcessSettings::Vp(VpSettings::default()),
        prediction: Prediction::X0,
        steps: 4000,
        batch: 64,
        repeat: true,
        caption_drop: 0.0,
        adam: AdamSettings { learning_rate: 2e-3, ..AdamSettings::default() },
        ema: EmaSettings { decay: 0.999, warm_up: true },
        seed: 1,
        checkpoint_every: 1000,
        log_every: 500,
    };
    let trained = train(&folder, &settings.check(shape)?, &data, Device::Cpu, &Silent)?;
    println!("trained from step {} in {}", trained.from, folder.display());

    // 64 samples by 50 DDIM steps from the moving average of the parameters.
    let (weights, _) = trained.run.weights(Kind::Ema)?;
    let network = Network::new(weights, trained.run.prediction(), 64)?;
    let vp = VpSettings::default().check()?;
    let steps = vp.steps(50, Spacing::Leading)?;
    let noise = start(&vp, shape.len(), &mut Streams::new(2, "example of sampling", 0..64));
    let samples = ddim(&network, &steps, noise, Some(1.0), &Silent)?.mapv(|v| v as f32);

    // Memorized within 0.2 of a training image, spurious within 0.2 of another sample (Eqs. 9 to 11).
    let sets =
        Sets { train: rows.into_shared(), synthetic: samples.into_shared(), held_out: None, squared: false };
    let near = neighbours(&sets, DeviceChoice::default(), &Silent)?;
    let deltas = ClassifySettings { delta_m: Some(0.2), delta_s: Some(0.2), ..ClassifySettings::default() };
    let found = classify(&near, &deltas)?;
    if let Some(fractions) = &found.fractions {
        println!(
            "memorized {:.2}, spurious {:.2}, generalized {:.2}",
            fractions.memorized.fraction, fractions.spurious.fraction, fractions.generalized.fraction
        );
    }
    // Nested subsets of a larger set of images: the first K indices of one seeded permutation.
    println!("the first 4 of 16: {:?}", subset::indices(16, 4)?);
    Ok(())
}
