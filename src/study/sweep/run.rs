//! The cells of a plan, one after the other; other processes may do the same.

use std::collections::HashMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::Error;
use crate::device::DeviceChoice;
use crate::progress::{ProgressSink, Silent};
use crate::project::Layout;
use crate::study::sweep::SweepError;
use crate::study::sweep::cell::SweepCell;
use crate::study::sweep::data::Bench;
use crate::study::sweep::plan::{Plan, Task};
use crate::study::sweep::record::CellRecord;

/// Interval between looks at cells that other processes work on.
const POLL: Duration = Duration::from_millis(500);

/// How a sweep is run. No result depends on it, except that published weights are rounded to half precision.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Device of networks and operations.
    pub device: DeviceChoice,
    /// Folder of published weights, which replace training.
    pub networks: Option<&'a Path>,
    /// Whether to wait for cells that other processes work on, and to take over cells that they leave unfinished.
    pub wait: bool,
}

/// Receives the progress of a sweep.
pub trait Watch: Sync {
    /// The sink for progress within the current step of a cell.
    fn sink(&self) -> &dyn ProgressSink;

    /// A cell starts or resumes a step, with `total` steps of progress.
    fn step(&self, task: &Task, step: &'static str, total: u64);

    /// The state of the whole sweep, when a cell starts and at the end.
    fn stands(&self, _tally: &Tally) {}

    /// A part of a finished cell was not what its record says. It was set aside and is made again.
    fn healed(&self, _task: &Task, _part: &str) {}

    /// A cell has an outcome.
    fn over(&self, _task: &Task, _outcome: &Outcome) {}
}

/// The outcome of a cell.
#[derive(Debug)]
pub enum Outcome {
    /// This process finished it.
    Done(Box<CellRecord>),
    /// Another process finished it.
    Elsewhere,
    /// It failed.
    Failed(Error),
}

/// The state of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Finished.
    Done,
    /// A process works on it.
    Running,
    /// Neither finished nor running.
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

/// The state of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Number of finished cells.
    pub done: usize,
    /// Number of cells that a process works on.
    pub running: usize,
    /// Number of other cells, including those that failed in this process.
    pub left: usize,
    /// Number of cells that failed in this process.
    pub failed: usize,
    /// Remaining time of all unfinished cells, if all running processes continue; `None` until one cell of each network
    /// is finished.
    pub to_go: Option<Duration>,
}

/// The result of a call of [`run`].
#[derive(Debug, Default)]
pub struct Summary {
    /// Number of cells asked for.
    pub tasks: usize,
    /// Number of cells that were finished before, or by other processes.
    pub already: usize,
    /// Number of cells that this call finished.
    pub done: usize,
    /// Names and errors of the cells that failed.
    pub failed: Vec<(String, Error)>,
    /// Names of the cells that other processes work on, when they are not waited for.
    pub elsewhere: Vec<String>,
}

/// The state of each cell, with the record of a finished cell.
///
/// # Errors
/// As [`SweepCell::record`].
pub fn states(plan: &Plan, runs: &Path) -> Result<Vec<(State, Option<CellRecord>)>, Error> {
    let one = |task: &Task| -> Result<_, Error> {
        let cell = SweepCell::from_task(runs, task);
        Ok(match cell.record(task)? {
            Some(record) => (State::Done, Some(record)),
            None if cell.is_busy() => (State::Running, None),
            None => (State::Left, None),
        })
    };
    plan.tasks().iter().map(one).collect()
}

impl Tally {
    /// The tally of the states of a plan's cells.
    pub fn from_states(plan: &Plan, states: &[(State, Option<CellRecord>)]) -> Self {
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

/// Time of all unfinished cells, estimated from finished cells of the same network: training by steps and rows, sampling
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
            // Restored weights give no time of training.
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

/// Does the unfinished cells with these indices in the plan. The sweep continues after a cell that fails.
///
/// # Errors
/// Those of a data set that can't be read; [`StoreError`](crate::store::StoreError) for a folder that can't be locked;
/// as [`SweepCell::record`]. Errors of a cell are in the summary.
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
    let tell = |failed: usize| -> Result<(), Error> {
        watch.stands(&Tally { failed, ..Tally::from_states(plan, &states(plan, runs)?) });
        Ok(())
    };
    let mut held: Vec<&Task> = vec![];
    for task in tasks.iter().filter_map(|&i| plan.tasks().get(i)) {
        let cell = SweepCell::from_task(runs, task);
        if cell.damage(task)?.is_none() && cell.record(task)?.is_some() {
            summary.already += 1;
            continue;
        }
        // A data set that can't be read would fail every cell.
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
            let cell = SweepCell::from_task(runs, task);
            let outcome = match cell.record(task)? {
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
    tell(summary.failed.len())?;
    summary.elsewhere = held.iter().map(|task| task.id.clone()).collect();
    Ok(summary)
}

/// The outcome of one cell; `None` when another process works on it.
fn one(
    plan: &Plan,
    task: &Task,
    cell: &SweepCell,
    bench: &mut Bench,
    options: &Options<'_>,
    watch: &dyn Watch,
    begins: &dyn Fn() -> Result<(), Error>,
) -> Result<Option<Outcome>, Error> {
    let Some(_lock) = cell.lock()? else { return Ok(None) };
    if let Some(part) = cell.heal(task)? {
        watch.healed(task, &part);
    }
    if cell.record(task)?.is_some() {
        return Ok(Some(Outcome::Elsewhere));
    }
    begins()?;
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

/// The error of the first cell that failed.
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
        let to_go = |states: [&(State, Option<CellRecord>); 3]| {
            Tally::from_states(&plan, &states.map(Clone::clone)).to_go
        };
        // Batches are min(16, K) rows. K = 64 has 8 times the rows of K = 2, 32 times the samples, and for labelling
        // 256 (1 + 64) instead of 8 (1 + 2).
        let expected = 8.0 * 10.0 + 32.0 * 4.0 + 256.0 * 65.0 / 24.0;
        let found = to_go([&done(false), &left, &done(false)]).unwrap().as_secs_f64();
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // The second network has no finished cell, and restored weights give no time of training.
        assert_eq!(to_go([&done(false), &left, &left]), None);
        assert_eq!(to_go([&done(true), &left, &done(true)]), None);
        assert_eq!(to_go([&done(false), &done(false), &done(false)]), Some(Duration::ZERO));
        let tally = Tally::from_states(&plan, &[done(false), running.clone(), left.clone()]);
        assert_eq!((tally.done, tally.running, tally.left), (1, 1, 1));
    }
}
