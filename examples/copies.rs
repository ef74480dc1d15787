//! Are these samples copies of the training set?
//!
//! ```text
//! cargo run --release --example copies                       # a synthetic set with planted copies
//! cargo run --release --example copies -- TRAIN SAMPLES TEST # .npy, .safetensors, IDX files or folders of images
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};

use mem2gen::data::Input;
use mem2gen::device::DeviceChoice;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::random::Stream;
use mem2gen::store::write_array;
use mem2gen::study::copies::{CopiesSettings, Images};
use ndarray::{Array2, s};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let scratch = tempfile::tempdir()?;
    let [train, samples, test] = match <[PathBuf; 3]>::try_from(arguments) {
        Ok(given) => given,
        Err(_) => planted(scratch.path())?,
    };

    let params = CopiesSettings::default().check(&Layout::find())?;
    let images =
        Images::read(&Input::from_path(&train), &Input::from_path(&samples), Some(&Input::from_path(&test)))?;
    let copies = params.compare(images, DeviceChoice::default(), &Silent)?;

    let found = &copies.answer;
    println!("{}", found.verdict(&copies.compared));
    println!("delta_m = {:?} ({:?})", found.delta_m.value, found.delta_m.origin);
    println!("delta_s = {:?} ({:?})", found.delta_s.value, found.delta_s.origin);
    for name in ["memorized", "spurious", "generalized", "new", "unknown", "invalid"] {
        let count = found.labels.iter().filter(|label| label.name() == name).count();
        println!("{name}: {count} samples");
    }
    Ok(())
}

/// 200 training images, 200 held-out images and 100 samples. The first 30 samples are training images with a little noise,
/// the next 30 are at three new points, and the rest are new.
fn planted(folder: &Path) -> Result<[PathBuf; 3], Box<dyn Error>> {
    let mut stream = Stream::new(1, "example of copies");
    let mut normals =
        |rows: usize, scale: f64| Array2::from_shape_simple_fn((rows, 64), || scale * stream.normal());
    let (train, test, mut samples) = (normals(200, 1.0), normals(200, 1.0), normals(100, 1.0));
    let (noise, points) = (normals(60, 0.01), normals(3, 1.0));
    for row in 0..30 {
        samples.row_mut(row).assign(&(&train.row(row) + &noise.row(row)));
        samples.row_mut(30 + row).assign(&(&points.row(row % 3) + &noise.row(30 + row)));
    }
    let paths = ["train.npy", "samples.npy", "test.npy"].map(|name| folder.join(name));
    for (path, rows) in paths.iter().zip([train, samples, test]) {
        write_array(path, &rows.slice(s![.., ..]).mapv(|v| v as f32))?;
    }
    Ok(paths)
}
