//! `mem2gen sweep`: trains, samples and labels the cells of a plan, and collects tables.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use mem2gen::Error;
use mem2gen::device::DeviceChoice;
use mem2gen::frame::fingerprint::Stored;
use mem2gen::frame::{Table, integers, strings};
use mem2gen::progress::ProgressSink;
use mem2gen::project::Layout;
use mem2gen::store::{StoreError, stems, write_atomic};
use mem2gen::study::context::Profile;
use mem2gen::study::sweep::{
    self, Options, Outcome, Plan, Slurm, State, SweepError, Tally, Task, Watch, collect, fingerprint,
    publish, slurm, states, store,
};

use super::source::Failure;

/// Least time between two lines about one step without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Train networks on K images for many K, sample them, and label the samples (Figs. 1B, 3, 4A, 7 to 15)
///
/// A plan has data sets, networks, sizes K, and the settings of training, sampling and labels. Each cell has a folder
/// with a training run, samples and labels. A finished step is not repeated, even after a call was killed, and several
/// calls may work on one plan.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    go: Option<Go>,
}

/// The plan and the folder of its cells.
#[derive(Debug, clap::Args)]
struct At {
    /// The plan: a .toml file, or the name of one in data/plans
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Folder of the cells [default: out/sweep/PLAN of the project]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Go {
    // `At` and `On` are not flattened here: clap can't tell whether an optional group that flattens another is present.
    /// The plan: a .toml file, or the name of one in data/plans
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Folder of the cells [default: out/sweep/PLAN of the project]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Folder of published weights, which replace training with the same settings
    #[arg(long, value_name = "DIR")]
    networks: Option<PathBuf>,
    /// List of the cells; nothing is computed
    #[arg(long)]
    dry_run: bool,
    /// Index of the only cell to compute, as --dry-run lists it
    #[arg(long, value_name = "i")]
    task: Option<usize>,
    /// Text in the names of the cells to compute
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "n")]
    threads: Option<usize>,
    /// Device: cpu, cuda:N, or auto for cuda:0 when it is usable and else cpu
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// No waiting for cells that other calls work on; without it, this call waits and takes over unfinished cells
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the number of cells that are done, running and left
    Status {
        #[command(flatten)]
        at: At,
    },
    /// Make tables from finished cells: transition_PLAN, transition_PLAN_samples and transition_PLAN_examples
    Collect {
        #[command(flatten)]
        at: At,
        /// Folder of the tables [default: data/results, in other profiles than desk out/PROFILE/tables]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Tables without the missing cells
        #[arg(long)]
        partial: bool,
    },
    /// Write the average weights of finished networks in half precision, for --networks
    Publish {
        #[command(flatten)]
        at: At,
        /// Folder of the weights
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write the plan as a script for a cluster
    Plan {
        #[command(flatten)]
        at: At,
        /// Array job of SLURM for sbatch, one task for each cell
        #[arg(long, required = true)]
        slurm: bool,
        /// Number of tasks that run at the same time, at most
        #[arg(long, value_name = "n")]
        array_limit: Option<usize>,
        /// File of the script [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl At {
    fn open(&self, layout: &Layout) -> Result<(Plan, PathBuf, PathBuf), Failure> {
        let file = if self.plan.extension().is_none() && !self.plan.exists() {
            let file = Plan::place(layout, &self.plan.to_string_lossy());
            if !file.is_file() {
                let known = file.parent().map_or_else(Vec::new, |folder| stems(folder, "toml")).join(", ");
                let reason = format!("{} does not exist, expected a file or one of {known}", file.display());
                return Err(Failure::Option { option: "--plan", reason });
            }
            file
        } else {
            self.plan.clone()
        };
        let plan = Plan::read(&file)?;
        let runs = self.runs.clone().unwrap_or_else(|| plan.runs(layout));
        Ok((plan, file, runs))
    }
}

/// Runs `mem2gen sweep`.
pub fn run(args: Args) -> Result<(), Failure> {
    let layout = Layout::find();
    match (args.command, args.go) {
        (Some(command), _) => aside(command, &layout),
        (None, Some(go)) => go.run(&layout),
        (None, None) => Err(Failure::Option { option: "--plan", reason: "is required".into() }),
    }
}

impl Args {
    /// The number of threads that was asked for.
    pub fn threads(&self) -> Option<usize> {
        self.go.as_ref().and_then(|go| go.threads)
    }
}

impl Go {
    fn run(&self, layout: &Layout) -> Result<(), Failure> {
        let at = At { plan: self.plan.clone(), runs: self.runs.clone() };
        let (plan, _, runs) = at.open(layout)?;
        let name = plan.name();
        if let Some(task) = self.task.filter(|t| *t >= plan.tasks().len()) {
            let tasks = plan.tasks().len();
            return Err(Error::from(SweepError::Task { name: name.into(), task, tasks }).into());
        }
        let wanted = |task: &&Task| {
            self.task.is_none_or(|i| i == task.index)
                && self.only.as_ref().is_none_or(|text| task.id.contains(text))
        };
        let tasks: Vec<usize> = plan.tasks().iter().filter(wanted).map(|task| task.index).collect();
        if tasks.is_empty() {
            let reason = "is in the name of no cell of the plan".into();
            return Err(Failure::Option { option: "--only", reason });
        }
        if self.dry_run {
            return Ok(list(&plan, &runs, &tasks)?);
        }
        let options =
            Options { device: self.device, networks: self.networks.as_deref(), wait: !self.no_wait };
        let live = Live::new();
        let summary = sweep::run(&plan, &tasks, &runs, layout, &options, &live)?;
        drop(live);
        let held = match summary.elsewhere.len() {
            0 => String::new(),
            n => format!(", {n} left to others"),
        };
        put_line!(
            "sweep: {} cells, {} done before or elsewhere, {} done now, {} failed{held} -> {}",
            summary.tasks,
            summary.already,
            summary.done,
            summary.failed.len(),
            runs.display()
        );
        match summary.failed.first() {
            None => Ok(()),
            Some((id, e)) => Err(Error::from(SweepError::Failed {
                name: name.into(),
                failed: summary.failed.len(),
                tasks: summary.tasks,
                first: format!("{id}: {e}"),
            })
            .into()),
        }
    }
}

/// The table of cells.
fn list(plan: &Plan, runs: &std::path::Path, tasks: &[usize]) -> Result<(), Error> {
    let all = states(plan, runs)?;
    let column =
        |value: &dyn Fn(&Task) -> i64| tasks.iter().map(|&i| value(&plan.tasks()[i])).collect::<Vec<i64>>();
    let columns = vec![
        integers("task", column(&|t| t.index as i64)),
        strings("cell", tasks.iter().map(|&i| plan.tasks()[i].id.clone()).collect()),
        integers("parameters", column(&|t| t.parameters() as i64)),
        integers("steps", column(&|t| t.train_steps() as i64)),
        integers("samples", column(&|t| t.samples as i64)),
        strings("state", tasks.iter().map(|&i| all[i].0.name().to_owned()).collect()),
    ];
    let caption = format!("Plan {}: {} cells", plan.name(), tasks.len());
    put!("{}", Table::new(&caption, columns)?.rows(tasks.len()).to_text());
    Ok(())
}

fn aside(command: Command, layout: &Layout) -> Result<(), Failure> {
    match command {
        Command::Status { at } => {
            let (plan, _, runs) = at.open(layout)?;
            let all = states(&plan, &runs)?;
            put_line!("sweep: {}", line(&Tally::from_states(&plan, &all)));
            for (task, (state, _)) in plan.tasks().iter().zip(&all) {
                if *state == State::Running {
                    put_line!("running: {}", task.id);
                }
            }
        }
        Command::Collect { at, out, partial } => {
            let (plan, _, runs) = at.open(layout)?;
            let found = collect(&plan, &runs, partial)?;
            let profile = Profile::name_from_env();
            let fingerprint = fingerprint(&plan, layout, &profile, &found.missing)?;
            let folder = match out {
                Some(out) => out,
                None if profile == "desk" => layout.results(),
                None => layout.output(&profile).join("tables"),
            };
            let place = |name: &str| Stored::new(&folder, name);
            let names = store(&plan, &found.tables, &fingerprint, &place).map_err(Error::from)?;
            if !found.missing.is_empty() {
                let (n, all, first) = (found.missing.len(), plan.tasks().len(), &found.missing[0]);
                put_line!("sweep: {n} of {all} cells are missing, the first is {first}");
            }
            put_line!(
                "sweep: {} rows, {} samples, {} pictures -> {} in {}",
                found.tables.cells.len(),
                found.tables.samples.len(),
                found.tables.examples.len(),
                names.join(", "),
                folder.display()
            );
        }
        Command::Publish { at, out } => {
            let (plan, _, runs) = at.open(layout)?;
            let (written, missing) = publish(&plan, &runs, &out)?;
            put_line!("sweep: {written} networks, {} not finished -> {}", missing.len(), out.display());
        }
        Command::Plan { at, slurm: _, array_limit, out } => {
            if array_limit == Some(0) {
                return Err(Failure::Option { option: "--array-limit", reason: "is 0".into() });
            }
            let (plan, file, runs) = at.open(layout)?;
            let absolute = |path: PathBuf| {
                std::path::absolute(&path).map_err(|e| Error::from(StoreError::io("locate", &path)(e)))
            };
            // A program that can't be located is found by the shell.
            let program = std::env::current_exe().unwrap_or_else(|_| "mem2gen".into());
            let (root, file, runs) = (absolute(layout.root().into())?, absolute(file)?, absolute(runs)?);
            let job = Slurm { program: &program, root: &root, plan: &file, runs: &runs, limit: array_limit };
            let script = slurm(&plan, &job);
            match out {
                None => put!("{script}"),
                Some(out) => {
                    write_atomic(&out, |w| w.write_all(script.as_bytes())).map_err(Error::from)?;
                    put_line!("sweep: {} tasks -> {}", plan.tasks().len(), out.display());
                }
            }
        }
    }
    Ok(())
}

/// The state of the sweep in one line.
fn line(tally: &Tally) -> String {
    let to_go = match tally.to_go {
        _ if tally.left + tally.running == 0 => String::new(),
        Some(time) => format!(", about {} to go", words(time)),
        None => ", time to go unknown".to_owned(),
    };
    let Tally { done, running, left, failed, .. } = tally;
    format!("{done} done, {running} running, {left} left, {failed} failed{to_go}")
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..100 => format!("{s} s"),
        s @ 100..6000 => format!("{} min", s / 60),
        s => format!("{:.1} h", s as f64 / 3600.0),
    }
}

/// Prints the progress of a sweep: a bar on a terminal, lines elsewhere.
struct Live {
    bar: Option<ProgressBar>,
    now: Mutex<Now>,
}

struct Now {
    tally: String,
    what: String,
    stage: String,
    done: u64,
    total: u64,
    said: Instant,
}

impl Live {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{prefix}\n{msg} {wide_bar} {pos}/{len} {eta}") {
                bar.set_style(style);
            }
            bar
        });
        let (tally, what, stage) = (String::new(), String::new(), String::new());
        Self { bar, now: Mutex::new(Now { tally, what, stage, done: 0, total: 0, said: Instant::now() }) }
    }

    fn with(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap_or_else(|e| e.into_inner()));
    }

    /// Prints a line above the bar, or without one to standard output.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                put_line!("{text}");
                let _ = io::stdout().flush();
            }
        }
    }
}

impl ProgressSink for Live {
    fn advance(&self, steps: u64) {
        self.with(|now| {
            now.done += steps;
            match &self.bar {
                Some(bar) => bar.inc(steps),
                None if now.said.elapsed() >= LINE_EVERY => {
                    now.said = Instant::now();
                    self.say(&format!("{}: {} of {} {}", now.what, now.done, now.total, now.stage));
                }
                None => {}
            }
        });
    }

    fn stage(&self, what: &str) {
        self.with(|now| {
            now.stage = format!("({what})");
            if let Some(bar) = &self.bar {
                bar.set_message(format!("{}, {what}", now.what));
            }
        });
    }
}

impl Watch for Live {
    fn sink(&self) -> &dyn ProgressSink {
        self
    }

    fn step(&self, task: &Task, step: &'static str, total: u64) {
        self.with(|now| {
            now.what = format!("{} {step}", task.id);
            now.stage.clear();
            (now.done, now.total) = (0, total);
            if let Some(bar) = &self.bar {
                bar.reset();
                bar.set_length(total);
                bar.set_message(now.what.clone());
            }
        });
    }

    fn stands(&self, tally: &Tally) {
        self.with(|now| {
            now.tally = line(tally);
            match &self.bar {
                Some(bar) => bar.set_prefix(now.tally.clone()),
                None => self.say(&format!("sweep: {}", now.tally)),
            }
        });
    }

    fn healed(&self, task: &Task, part: &str) {
        self.say(&format!("{}: {part} was not what the record of the cell says; it is kept as {part}.damaged and made again", task.id));
    }

    fn over(&self, task: &Task, outcome: &Outcome) {
        match outcome {
            Outcome::Done(record) => {
                let parts = record.found.iter().filter_map(|found| {
                    let f = found.classification.fractions?;
                    Some(format!(
                        "x{}: memorized {:.3}, spurious {:.3}, generalized {:.3}",
                        found.multiple, f.memorized.fraction, f.spurious.fraction, f.generalized.fraction
                    ))
                });
                self.say(&format!("{}: {}", task.id, parts.collect::<Vec<_>>().join("; ")));
            }
            Outcome::Elsewhere => self.say(&format!("{}: done elsewhere", task.id)),
            Outcome::Failed(e) => {
                let text = format!("mem2gen sweep: {}: {}", task.id, super::output::one_line(&e.to_string()));
                match &self.bar {
                    Some(bar) => bar.println(text),
                    None => put_error!("{text}"),
                }
            }
        }
    }
}
