//! Energy and attractors of your own patterns in a Dense Associative Memory.
//!
//! ```text
//! cargo run --release --example energy                    # four patterns in the plane
//! cargo run --release --example energy -- PATTERNS.npy 20 # your own, [K, N], and an inverse temperature
//! ```

use std::error::Error;
use std::path::Path;

use mem2gen::memory::{AttractorSettings, DenseAm, attractors};
use mem2gen::store::read_matrix;
use ndarray::{Array2, array};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let patterns: Array2<f64> = match arguments.next() {
        Some(path) => read_matrix(Path::new(&path))?.into_f64(),
        None => array![[1.0, 0.0], [0.9, 0.3], [-0.6, 0.8], [-0.6, -0.8]],
    };
    let beta: f64 = arguments.next().map_or(Ok(5.0), |text| text.parse())?;

    // E(x) = -(1/beta) log sum exp(-beta ||x - xi||^2) at the first pattern (Eq. 6), and the end of x <- m(x).
    let memory = DenseAm::new(patterns.clone(), beta)?;
    let mut x = patterns.row(0).to_owned();
    for step in 0..4 {
        println!("step {step}: E = {:.5}, x = {x:.4}", memory.energy(x.view())?);
        x += &memory.shift(x.view())?;
    }

    let settings = AttractorSettings { random_starts: 200, ..AttractorSettings::default() };
    // Every stable fixed point. Patterns that are close together share one: a spurious state.
    let found = attractors(patterns, beta, &settings)?;
    for attractor in &found.found {
        println!(
            "{}: E = {:.5}, {:.4} from pattern {}",
            attractor.kind.name(),
            attractor.energy,
            attractor.distance,
            attractor.nearest_memory
        );
    }
    Ok(())
}
