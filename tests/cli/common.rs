//! Shared by the tests of the program: a folder of arrays, calls of the program, and the exact sums for comparison, which
//! share no code with the crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mem2gen::frame::{floats, frame, integers, texts, write_parquet};
use mem2gen::store::{Matrix, read_matrix, rows_sha256, sha256_hex};
use ndarray::{Array, Array2, ArrayView1, Dimension};
use ndarray_npy::{WritableElement, read_npy, write_npy};

/// Status and output of one call of the program.
pub struct Said {
    pub ok: bool,
    /// Exit status.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A call of `mem2gen` without a terminal and with lines of 100 characters.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mem2gen"));
    command.args(arguments).env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// Runs a call to its end.
pub fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        ok: output.status.success(),
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Calls `mem2gen` and waits for its end.
pub fn mem2gen(arguments: &[&str]) -> Said {
    said(&mut program(arguments))
}

/// A process that ends with the test, however the test ends.
pub struct Running(pub Child);

impl Running {
    /// Starts `mem2gen` and discards its output.
    pub fn start(arguments: &[&str]) -> Self {
        Self(program(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    /// SIGKILL on Unix: nothing of the program runs after it.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder with the files of one test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as an argument.
    pub fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes an array and gives its path.
    pub fn array<T: WritableElement, D: Dimension>(&self, name: &str, array: &Array<T, D>) -> String {
        write_npy(self.path(name), array).unwrap();
        self.at(name)
    }

    /// Writes pictures of 64 x 64 pixels, whose pixels are a function of picture, x and y, and gives their folder.
    pub fn pictures(&self, count: u32, pixel: impl Fn(u32, u32, u32) -> [u8; 3]) -> String {
        let pictures = self.path("pictures");
        fs::create_dir(&pictures).unwrap();
        for i in 0..count {
            let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(pixel(i, x, y)));
            picture.save(pictures.join(format!("{i:02}.png"))).unwrap();
        }
        self.at("pictures")
    }

    /// Writes pictures, fetches them as LSUN Church into a cache of this folder, and gives the way to call the program
    /// with this cache.
    pub fn church(&self, count: u32, pixel: impl Fn(u32, u32, u32) -> [u8; 3]) -> impl Fn(&[&str]) -> String {
        let (cache, pictures) = (self.path("cache"), self.pictures(count, pixel));
        let call = move |arguments: &[&str]| {
            let said = said(program(arguments).env("MEM2GEN_DATA", &cache));
            assert!(said.ok, "{arguments:?}: {}", said.stderr);
            said.stdout
        };
        call(&["data", "fetch", "lsun-church", "--from", &pictures]);
        call
    }

    /// A run on `k` toy points in the folder `at`, with a few training steps.
    pub fn toy_run(&self, at: &str, k: &str, process: &str) -> String {
        let at = self.at(at);
        let call = ["train", "--dataset", "toy", "--k", k, "--process", process, "--profile", "smoke"];
        self.runs(&[&call[..], &["--steps", "20", "--run", &at]].concat());
        at
    }

    /// The first `k` toy points.
    pub fn toy_points(&self, k: &str) -> Array2<f64> {
        let out = self.at("P.npy");
        self.runs(&["toy", "--points", k, "--out", &out]);
        read_npy(out).unwrap()
    }

    /// The first `k` toy points in single precision, as networks and the exact score of a run have them.
    pub fn toy_memories(&self, k: &str) -> Array2<f64> {
        self.toy_points(k).mapv(|v| f64::from(v as f32))
    }

    /// Calls a command on memories and queries, with one option and its value.
    #[track_caller]
    pub fn evaluates(&self, call: [&str; 3], memories: &str, queries: &str, out: &str) {
        let [command, option, value] = call;
        self.runs(&[command, "--memories", memories, "--queries", queries, option, value, "--out", out]);
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Calls the program and expects success and no output on stderr.
    #[track_caller]
    pub fn runs(&self, arguments: &[&str]) -> String {
        let said = mem2gen(arguments);
        assert!(said.ok && said.stderr.is_empty(), "{arguments:?}: {}", said.stderr);
        said.stdout
    }

    /// Calls the program and expects an error: a status other than 0, nothing on stdout, one line on stderr that
    /// contains all of `words`, and no new file in the folder.
    #[track_caller]
    pub fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let before = self.names();
        let said = mem2gen(arguments);
        assert!(!said.ok, "{arguments:?} was accepted");
        assert_eq!(said.stdout, "", "{arguments:?}");
        assert!(said.stderr.ends_with('\n'), "{arguments:?}: {:?}", said.stderr);
        assert_eq!(said.stderr.lines().count(), 1, "{arguments:?}: {}", said.stderr);
        for word in words {
            assert!(said.stderr.contains(word), "{arguments:?}: no {word:?} in: {}", said.stderr);
        }
        assert_eq!(before, self.names(), "{arguments:?} left a file behind");
    }
}

/// Writes a cell's table of labels: the class of each sample, its distance to D and its distance to S.
pub fn write_labels(path: &Path, classes: &[&str], d_train: &[f64], d_synthetic: &[f64]) {
    let columns = vec![
        integers("sample", (0..classes.len() as i64).collect()),
        texts("label", classes),
        floats("d_train", d_train.to_vec()),
        floats("d_synthetic", d_synthetic.to_vec()),
    ];
    write_parquet(path, &frame("labels", columns).unwrap()).unwrap();
}

/// Writes the record of a cell with the samples and labels in its folder, which finishes it.
pub fn finish_cell(cell: &Path, delta_m: Option<f64>) {
    let Matrix::F32(samples) = read_matrix(&cell.join("samples.npy")).unwrap() else {
        panic!("samples are float32")
    };
    let found = serde_json::json!({
        "multiple": 4,
        "labels_sha256": sha256_hex(&fs::read(cell.join("labels-x4.parquet")).unwrap()),
        "classification": { "delta_m": { "value": delta_m } },
    });
    let record = serde_json::json!({ "samples_sha256": rows_sha256(samples.view()), "found": [found] });
    fs::write(cell.join("cell.json"), record.to_string()).unwrap();
}

/// SplitMix64: random numbers that share no code with the crate.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Gaussian of mean 0 and variance 1.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gaussian rows.
    pub fn cloud(&mut self, rows: usize, columns: usize, scale: f64, offset: f64) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |_| offset + scale * self.normal())
    }
}

/// The sums of Eq. 6 at one point, each term by itself.
pub struct Exact {
    /// E^AM.
    pub energy: f64,
    /// Squared distance to the nearest memory plus the absolute value of the logarithmic term, whose difference the
    /// energy is.
    pub energy_parts: f64,
    /// m(x) - x.
    pub shift: Vec<f64>,
    /// sum w ||xi - x||: the scale of the terms of the shift.
    pub shift_parts: f64,
    /// The nearest memory and its distance.
    pub nearest: (usize, f64),
}

impl Exact {
    /// Differences of squared distances are computed as products of differences, which keeps their digits for far points.
    pub fn at(memories: &Array2<f64>, x: ArrayView1<'_, f64>, beta: f64) -> Self {
        let d2: Vec<f64> = memories
            .outer_iter()
            .map(|row| row.iter().zip(x).map(|(y, x)| (y - x) * (y - x)).sum())
            .collect();
        let best = (0..d2.len()).fold(0, |best, i| if d2[i] < d2[best] { i } else { best });
        let near = memories.row(best);
        let weights: Vec<f64> = memories
            .outer_iter()
            .map(|row| {
                let gap: f64 =
                    row.iter().zip(near).zip(x).map(|((y, b), x)| (b - y) * ((x - y) + (x - b))).sum();
                (-beta * gap).exp()
            })
            .collect();
        let others: f64 = weights.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, w)| w).sum();
        let total = 1.0 + others;
        let mut shift = vec![0.0; x.len()];
        let mut shift_parts = 0.0;
        for ((row, weight), d2) in memories.outer_iter().zip(&weights).zip(&d2) {
            for ((s, y), x) in shift.iter_mut().zip(row).zip(x) {
                *s += weight / total * (y - x);
            }
            shift_parts += weight / total * d2.sqrt();
        }
        let entropic = others.ln_1p() / beta;
        Self {
            energy: d2[best] - entropic,
            energy_parts: d2[best] + entropic,
            shift,
            shift_parts,
            nearest: (best, d2[best].sqrt()),
        }
    }
}

/// Memories and queries of one case, under a name.
pub struct Case {
    pub name: &'static str,
    pub memories: Array2<f64>,
    pub queries: Array2<f64>,
}

/// Sets that are difficult for a sum of exponentials. Values are rounded to f32, so that both precisions have the same
/// input.
pub fn cases() -> Vec<Case> {
    let mut dice = Dice::new(20_250_521);
    let mut list = Vec::new();
    let mut add = |name, memories: Array2<f64>, queries: Array2<f64>| {
        let round = |a: Array2<f64>| a.mapv(|v| f64::from(v as f32));
        list.push(Case { name, memories: round(memories), queries: round(queries) });
    };
    add("one memory", dice.cloud(1, 3, 1.0, 0.5), dice.cloud(7, 3, 2.0, 0.0));
    add("one number", dice.cloud(1, 1, 1.0, 0.0), dice.cloud(5, 1, 1.0, 0.0));
    add("plane", dice.cloud(12, 2, 1.0, 0.0), dice.cloud(40, 2, 1.5, 0.0));
    add("more than a tile", dice.cloud(700, 9, 1.0, 0.0), dice.cloud(300, 9, 1.0, 0.0));
    add("many dimensions", dice.cloud(200, 150, 0.4, 0.5), dice.cloud(30, 150, 0.4, 0.5));
    add("large offset", dice.cloud(80, 20, 1.0, 3000.0), dice.cloud(25, 20, 1.2, 3000.0));
    add("far queries", dice.cloud(60, 6, 1.0, 0.0), dice.cloud(20, 6, 3e4, 0.0));
    let rows = dice.cloud(30, 5, 1.0, 0.0);
    let copies = Array2::from_shape_fn((90, 5), |(i, k)| rows[[i / 3, k]]);
    add("copies", copies, dice.cloud(20, 5, 1.0, 0.0));
    let rows = dice.cloud(50, 8, 1.0, 2.0);
    let beside = Array2::from_shape_fn((50, 8), |(i, k)| rows[[i, k]] + 1e-3 * dice.normal());
    add("beside memories", rows.clone(), beside);
    add("on memories", rows.clone(), rows);
    let axis = Array2::from_shape_fn((6, 4), |(i, k)| if i % 3 == k { [1e3, -1e3][i / 3] } else { 0.0 });
    add("wide apart", axis, dice.cloud(12, 4, 500.0, 0.0));
    list
}

/// Both files in both precisions, and which of them the program computes in single.
pub const PRECISIONS: [(bool, bool); 4] = [(false, false), (true, true), (true, false), (false, true)];

/// The parameters to try at these precisions: all for files of one precision, every fourth for files of two. Files of two
/// precisions are computed in double precision.
pub fn tried<T>(parameters: &[T], (memories, queries): (bool, bool)) -> impl Iterator<Item = &T> {
    parameters.iter().step_by(if memories == queries { 1 } else { 4 })
}

impl Folder {
    /// Writes the two arrays of a case, each in single (true) or double precision.
    pub fn case(&self, case: &Case, (memories, queries): (bool, bool)) -> (String, String) {
        let write = |name: &str, array: &Array2<f64>, single: bool| {
            if single { self.array(name, &array.mapv(|v| v as f32)) } else { self.array(name, array) }
        };
        (write("M.npy", &case.memories, memories), write("X.npy", &case.queries, queries))
    }
}

/// The errors that `energy`, `score` and `knn` share; `rows` is the option of their memories and `option` that of their
/// parameter.
pub fn common_refusals(command: &str, rows: &str, option: &str) {
    use ndarray::{Array1, array};

    let folder = Folder::new();
    let good = folder.array("good.npy", &array![[0.0, 1.0], [2.0, 3.0]]);
    let out = folder.at("out.npy");
    let try_with = |memories: &str, queries: &str, value: &str, words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain([command]).collect();
        folder
            .refuses(&[command, rows, memories, "--queries", queries, option, value, "--out", &out], &words);
    };

    for (name, bad) in [("nan", f64::NAN), ("inf", f64::INFINITY), ("minus", f64::NEG_INFINITY)] {
        let double = folder.array(&format!("{name}64.npy"), &array![[0.0, 1.0], [2.0, bad]]);
        let single = folder.array(&format!("{name}32.npy"), &array![[0.0f32, 1.0], [2.0, bad as f32]]);
        for file in [&double, &single] {
            try_with(file, &good, "1", &["memories", "row 1", "column 1"]);
            try_with(&good, file, "1", &["queries", "row 1", "column 1"]);
        }
    }

    let three = folder.array("three.npy", &array![[0.0, 1.0, 2.0]]);
    try_with(&good, &three, "1", &["queries", "[1, 3]", "[m, 2]"]);
    try_with(&three, &good, "1", &["queries", "[2, 2]", "[m, 3]"]);

    let name = option.trim_start_matches('-');
    for value in ["0", "-0.0", "-1", "-2.5", "NaN", "inf"] {
        try_with(&good, &good, value, &[name]);
    }

    let empty = folder.array("empty.npy", &Array2::<f64>::zeros((0, 2)));
    try_with(&empty, &good, "1", &["memories", "empty", "[0, 2]"]);
    let narrow = folder.array("narrow.npy", &Array2::<f32>::zeros((2, 0)));
    try_with(&narrow, &narrow, "1", &["memories", "empty", "[2, 0]"]);

    try_with(&folder.at("none.npy"), &good, "1", &["none.npy"]);
    try_with(&good, &folder.at("none.npy"), "1", &["none.npy"]);

    let integers = folder.array("integers.npy", &array![[1i32, 2]]);
    let line = folder.array("line.npy", &Array1::from(vec![1.0, 2.0]));
    let cube = folder.array("cube.npy", &ndarray::Array3::<f32>::zeros((2, 2, 2)));
    let bytes = fs::read(&good).unwrap();
    let damaged = |name: &str, bytes: &[u8]| {
        fs::write(folder.path(name), bytes).unwrap();
        folder.at(name)
    };
    let short = damaged("short.npy", &bytes[..bytes.len() - 1]);
    let header = damaged("header.npy", &bytes[..20]);
    let nothing = damaged("nothing.npy", &[]);
    let long = damaged("long.npy", &[&bytes[..], &[0]].concat());
    let text = damaged("text.npy", b"x0,x1\n1,2\n");
    for (file, name) in [
        (&integers, "integers.npy"),
        (&line, "line.npy"),
        (&cube, "cube.npy"),
        (&short, "short.npy"),
        (&header, "header.npy"),
        (&nothing, "nothing.npy"),
        (&long, "long.npy"),
        (&text, "text.npy"),
    ] {
        try_with(file, &good, "1", &[name]);
        try_with(&good, file, "1", &[name]);
    }

    // So far away that a squared distance overflows.
    let far = folder.array("far.npy", &array![[0.0f32, 1e25]]);
    let near = folder.array("near.npy", &array![[0.0f32, 1.0]]);
    try_with(&near, &far, "1", &["query 0", "too far"]);

    // An output that can't be written.
    let folder_as_file = damaged("file", b"");
    let below = format!("{folder_as_file}/out.npy");
    folder.refuses(
        &[command, rows, &good, "--queries", &good, option, "1", "--out", &below],
        &[command, "file"],
    );

    // A device that no machine has, and invalid names.
    let call = [command, rows, &good, "--queries", &good, option, "1", "--out", &out, "--device"];
    folder.refuses(&[&call[..], &["cuda:4096"]].concat(), &[command, "cuda"]);
    for device in ["gpu", "cuda", "cuda:-1", "CPU", ""] {
        folder.refuses(&[&call[..], &[device]].concat(), &[command, "--device"]);
    }
}

/// The last line of `energy`, `score` and `knn`: queries, memories, the device and the file.
pub fn says_the_device(command: &str, rows: &str, option: &str) {
    let folder = Folder::new();
    let memories = folder.array("M.npy", &ndarray::array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 4.0]]);
    let queries = folder.array("X.npy", &ndarray::array![[1.0f32, 1.0], [3.0, 3.0]]);
    let out = folder.at("out");
    let call = [command, rows, &memories, "--queries", &queries, option, "1", "--out", &out];
    let line = |device: &str| format!("{command}: 2 queries, 3 memories, {device} -> {out}\n");
    assert_eq!(folder.runs(&call), line("cpu"));
    assert_eq!(folder.runs(&[&call[..], &["--device", "cpu"]].concat()), line("cpu"));
    // With `auto` the line names the device that was used.
    let auto = folder.runs(&[&call[..], &["--device", "auto"]].concat());
    assert!(auto == line("cpu") || auto == line("cuda:0"), "{auto}");
}

/// A header that states more values than the file has is refused before memory is allocated.
pub fn lying_headers(command: &str, rows: &str, option: &str) {
    let folder = Folder::new();
    let good = folder.array("good.npy", &ndarray::array![[0.0, 1.0], [2.0, 3.0]]);
    let out = folder.at("out.npy");
    for shape in [
        "(2, 3)",
        "(4294967296, 4294967296)",
        "(1000000000, 4000)",
        "(0, 4294967296)",
        "(0, 4294967296, 4294967296)",
    ] {
        let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
        while !(header.len() + 11).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        let file = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &[0; 32]].concat();
        fs::write(folder.path("lying.npy"), file).unwrap();
        let lying = folder.at("lying.npy");
        for (memories, queries) in [(&lying, &good), (&good, &lying)] {
            folder.refuses(
                &[command, rows, memories, "--queries", queries, option, "1", "--out", &out],
                &[command, "lying.npy"],
            );
        }
    }
}

/// Wrong options of `energy`, `score` and `knn`: these errors also name the operation and the argument.
pub fn common_usage_mistakes(command: &str, rows: &str, option: &str) {
    let folder = Folder::new();
    let good = folder.array("good.npy", &ndarray::array![[0.0, 1.0], [2.0, 3.0]]);
    let out = folder.at("out.npy");
    let all = [command, rows, &good, "--queries", &good, option, "1", "--out", &out];
    folder.refuses(&[&all[..], &["--bogus"]].concat(), &[command, "--bogus"]);
    folder.refuses(&[&all[..], &["left over"]].concat(), &[command, "left over"]);
    for missing in [1, 3, 5, 7] {
        let rest = [&all[..missing], &all[missing + 2..]].concat();
        folder.refuses(&rest, &[command, all[missing]]);
    }
    for value in ["one", "", "-1e-300", "-inf"] {
        let mut call = all;
        call[6] = value;
        folder.refuses(&call, &[command, option.trim_start_matches('-')]);
    }
}
