//! The cells of a plan, one after the other, beside other processes that do the same.

use std::collections::HashMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::Error;
use crate::device::DeviceChoice;
use crate::progress::{ProgressSink, Silent};
use crate::project::Layout;
use crate::study::sweep::SweepError;
use crate::study::sweep::cell::{SweepCell, CellRecord};
use crate::study::sweep::data::Bench;
use crate::study::sweep::plan::{Plan, Task};

/// How often cells that others hold are looked at.
const POLL: Duration = Duration::from_millis(500);

/// How a sweep is run. None of it moves a number, but that restored networks have half the precision.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Where networks and operations run.
    pub device: DeviceChoice,
    /// A folder of published weights, which are taken instead of training.
    pub networks: Option<&'a Path>,
    /// Whether to wait for cells that other processes hold, and to take over those that they leave unfinished.
    pub wait: bool,
}

/// Who is told how a sweep goes.
pub trait Watch: Sync {
    /// Where the steps of the present step of a cell go.
    fn sink(&self) -> &dyn ProgressSink;

    /// A cell begins, or goes on with, a step of so many steps of progress.
    fn step(&self, task: &Task, step: &'static str, total: u64);

    /// How the whole stands: when a cell begins, and at the end.
    fn stands(&self, _tally: &Tally) {}

    /// A cell is over.
    fn over(&self, _task: &Task, _outcome: &Outcome) {}
}

/// What came of a cell.
#[derive(Debug)]
pub enum Outcome {
    /// It is complete, by this process.
    Done(Box<CellRecord>),
    /// It was found complete after another process had it.
    Elsewhere,
    /// It failed.
    Failed(Error),
}

/// How a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Complete.
    Done,
    /// A process works on it.
    Running,
    /// Neither.
    Left,
}

impl State {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Left => "left",
        }
    }
}

/// How a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Complete cells.
    pub done: usize,
    /// Cells that a process works on.
    pub running: usize,
    /// Cells that are neither, those that failed here among them.
    pub left: usize,
    /// Cells that failed in this process.
    pub failed: usize,
    /// Time that is left for all cells not done, if all that run go on; none before a cell of each network is done.
    pub to_go: Option<Duration>,
}

/// What a call of [`run`] did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Cells asked for.
    pub tasks: usize,
    /// Those that were complete before.
    pub already: usize,
    /// Those that were completed here.
    pub done: usize,
    /// Those that failed, and why.
    pub failed: Vec<(String, Error)>,
    /// Those that other processes hold, if they are not waited for.
    pub elsewhere: Vec<String>,
}

/// State and, if it is done, record of each cell.
pub fn states(plan: &Plan, runs: &Path) -> Vec<(State, Option<CellRecord>)> {
    let one = |task: &Task| {
        let cell = SweepCell::of(runs, task);
        match cell.record(task) {
            Some(record) => (State::Done, Some(record)),
            None if cell.is_busy() => (State::Running, None),
            None => (State::Left, None),
        }
    };
    plan.tasks().iter().map(one).collect()
}

impl Tally {
    /// Of the cells as they are in a folder.
    pub fn of(plan: &Plan, states: &[(State, Option<CellRecord>)]) -> Self {
        let count = |state| states.iter().filter(|(s, _)| *s == state).count();
        let running = count(State::Running);
        Self {
            done: count(State::Done),
            running,
            left: count(State::Left),
            failed: 0,
            to_go: to_go(plan, states).map(|seconds| seconds.div_f64(running.max(1) as f64)),
        }
    }
}

/// Time of all cells that are not done, from the finished ones of the same network: training by steps and rows, sampling
/// by samples (and memories, for the exact score), labelling by samples and memories.
fn to_go(plan: &Plan, states: &[(State, Option<CellRecord>)]) -> Option<Duration> {
    let work = |task: &Task| {
        let samples = task.samples as f64;
        let pairs = samples * task.k as f64;
        let rows = task.training.as_ref().map_or(0, |p| p.rows(task.k)) as f64;
        let sampling = if task.training.is_some() { samples } else { pairs };
        [task.train_steps() as f64 * rows, sampling, samples + pairs]
    };
    let key = |task: &Task| (task.dataset.clone(), task.network.clone());
    // Work and seconds of training, sampling and labelling.
    let mut names: HashMap<_, [[f64; 2]; 3]> = HashMap::new();
    for (task, (_, record)) in plan.tasks().iter().zip(states) {
        let Some(record) = record else { continue };
        let train = record.network.as_ref().filter(|n| !n.restored).map_or(0.0, |n| n.seconds);
        let seconds = [train, record.sample_seconds, record.label_seconds];
        let sums = names.entry(key(task)).or_default();
        for ((sum, work), seconds) in sums.iter_mut().zip(work(task)).zip(seconds) {
            // Weights that were restored say nothing of training.
            if seconds > 0.0 {
                sum[0] += work;
                sum[1] += seconds;
            }
        }
    }
    let mut total = 0.0;
    for (task, (state, _)) in plan.tasks().iter().zip(states) {
        if *state != State::Done {
            for (work, [known, seconds]) in work(task).into_iter().zip(names.get(&key(task))?) {
                if work > 0.0 && *known == 0.0 {
                    return None;
                }
                total += if work > 0.0 { work * seconds / known } else { 0.0 };
            }
        }
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Does the cells of a plan that are left: those with these numbers, or all. A cell that fails is told, and the others
/// go on.
///
/// # Errors
/// A data set that can't be read, and [`StoreError`](crate::store::StoreError) where a folder can't be locked. What a
/// cell refuses is in the summary.
pub fn run(
    plan: &Plan,
    tasks: &[usize],
    runs: &Path,
    layout: &Layout,
    options: &Options<'_>,
    watch: &dyn Watch,
) -> Result<Summary, Error> {
    let mut bench = Bench::new(layout);
    let mut summary = Summary { tasks: tasks.len(), ..Summary::default() };
    let tell = |failed: usize| watch.stands(&Tally { failed, ..Tally::of(plan, &states(plan, runs)) });
    let mut held: Vec<&Task> = vec![];
    for task in tasks.iter().filter_map(|&i| plan.tasks().get(i)) {
        let cell = SweepCell::of(runs, task);
        if cell.record(task).is_some() {
            summary.already += 1;
            continue;
        }
        // Every cell of the data set would fail for it.
        bench.open(&task.dataset)?;
        let begins = || tell(summary.failed.len());
        match one(plan, task, &cell, &mut bench, options, watch, &begins)? {
            Some(outcome) => note(&mut summary, task, outcome, watch),
            None => held.push(task),
        }
    }
    while options.wait && !held.is_empty() {
        sleep(POLL);
        let mut still = vec![];
        for task in held {
            let cell = SweepCell::of(runs, task);
            let outcome = match cell.record(task) {
                Some(_) => Some(Outcome::Elsewhere),
                None => {
                    let begins = || tell(summary.failed.len());
                    one(plan, task, &cell, &mut bench, options, watch, &begins)?
                }
            };
            match outcome {
                Some(outcome) => note(&mut summary, task, outcome, watch),
                None => still.push(task),
            }
        }
        held = still;
    }
    tell(summary.failed.len());
    summary.elsewhere = held.iter().map(|task| task.id.clone()).collect();
    Ok(summary)
}

/// What came of one cell; none where another process has it.
fn one(
    plan: &Plan,
    task: &Task,
    cell: &SweepCell,
    bench: &mut Bench,
    options: &Options<'_>,
    watch: &dyn Watch,
    begins: &dyn Fn(),
) -> Result<Option<Outcome>, Error> {
    let Some(_lock) = cell.lock()? else { return Ok(None) };
    if cell.record(task).is_some() {
        return Ok(Some(Outcome::Elsewhere));
    }
    begins();
    Ok(Some(match cell.work(plan, task, bench, options, watch) {
        Ok(record) => Outcome::Done(Box::new(record)),
        Err(e) => Outcome::Failed(e),
    }))
}

fn note(summary: &mut Summary, task: &Task, outcome: Outcome, watch: &dyn Watch) {
    watch.over(task, &outcome);
    match outcome {
        Outcome::Done(_) => summary.done += 1,
        Outcome::Elsewhere => summary.already += 1,
        Outcome::Failed(e) => summary.failed.push((task.id.clone(), e)),
    }
}

/// As [`run`], reporting one step of progress for each cell.
///
/// # Errors
/// As [`run`]; [`SweepError::Failed`] with the first cell that failed.
pub fn complete(
    plan: &Plan,
    tasks: &[usize],
    runs: &Path,
    layout: &Layout,
    options: &Options<'_>,
    progress: &dyn ProgressSink,
) -> Result<(), Error> {
    stopped(plan, run(plan, tasks, runs, layout, options, &Counted(progress))?)
}

/// Err with the first cell that failed.
fn stopped(plan: &Plan, summary: Summary) -> Result<(), Error> {
    match summary.failed.first() {
        None => Ok(()),
        Some((id, e)) => Err(SweepError::Failed {
            name: plan.name().into(),
            failed: summary.failed.len(),
            tasks: summary.tasks,
            first: format!("{id}: {e}"),
        }
        .into()),
    }
}

/// Counts the cells of a sweep.
struct Counted<'a>(&'a dyn ProgressSink);

impl Watch for Counted<'_> {
    fn sink(&self) -> &dyn ProgressSink {
        &Silent
    }

    fn step(&self, task: &Task, step: &'static str, _: u64) {
        self.0.stage(&format!("{} {step}", task.id));
    }

    fn over(&self, _: &Task, _: &Outcome) {
        self.0.advance(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sweep::NetworkRecord;

    #[test]
    fn the_time_to_go_follows_from_finished_cells_of_the_same_network() {
        let text = r#"
            datasets = ["mnist"]
            size = 7
            sizes = [2, 64]
            network = [
                { name = "a", arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 } },
                { name = "b", arch = { kind = "mlp", width = 16, blocks = 1, time = 8, dropout = 0.0 }, sizes = [64] },
            ]
            training = { steps = 100, batch = 16 }
            sampling = { sampler = "ddim", steps = 10 }
        "#;
        let plan = Plan::check("p", toml::from_str(text).unwrap()).unwrap();
        let record = |restored| CellRecord {
            key: String::new(),
            id: String::new(),
            program: String::new(),
            versions: [1; 3],
            device: String::new(),
            data_sha256: String::new(),
            network: Some(NetworkRecord {
                key: String::new(),
                weights_sha256: String::new(),
                restored,
                loss: 0.0,
                seconds: 10.0,
            }),
            sample_seconds: 4.0,
            samples_sha256: String::new(),
            label_seconds: 1.0,
            found: vec![],
            examples_sha256: String::new(),
        };
        let done = |restored| (State::Done, Some(record(restored)));
        let (left, running) = ((State::Left, None), (State::Running, None));
        let to_go =
            |states: [&(State, Option<CellRecord>); 3]| Tally::of(&plan, &states.map(Clone::clone)).to_go;
        // Batches are min(16, K) rows. K = 64 has 8 times the rows of K = 2, 32 times the samples, and for labelling
        // 256 (1 + 64) instead of 8 (1 + 2).
        let expected = 8.0 * 10.0 + 32.0 * 4.0 + 256.0 * 65.0 / 24.0;
        let found = to_go([&done(false), &left, &done(false)]).unwrap().as_secs_f64();
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // Nothing is known of the second network, nor of training where weights were restored.
        assert_eq!(to_go([&done(false), &left, &left]), None);
        assert_eq!(to_go([&done(true), &left, &done(true)]), None);
        assert_eq!(to_go([&done(false), &done(false), &done(false)]), Some(Duration::ZERO));
        let tally = Tally::of(&plan, &[done(false), running.clone(), left.clone()]);
        assert_eq!((tally.done, tally.running, tally.left), (1, 1, 1));
    }
}
