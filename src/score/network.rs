use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2, ArrayView2, s};

use super::{Score, ScoreError, check, check_rows};
use crate::net::{Engine, NetError, Purpose, Weights};
use crate::ops::OpError;
use crate::process::{Level, Prediction};

const NAME: &str = "network score";

/// What a trained network says of the score: its output at x and the level's time, in the words that it was trained
/// on. Dropout is off.
///
/// The network computes in single precision, `batch` rows at a time. What it says of a row depends, to the last bit,
/// on nothing else.
pub struct Network {
    weights: Weights,
    prediction: Prediction,
    batch: usize,
    scores: Pool,
    products: Pool,
}

/// Engines that nobody uses at the moment.
///
/// They are taken out, and no lock is held while one computes: a thread that waits for the engine's own tasks may be
/// given another of the caller's, which asks for a score as well.
struct Pool {
    purpose: Purpose,
    idle: Mutex<Vec<Engine>>,
}

impl Pool {
    fn new(purpose: Purpose) -> Self {
        Self { purpose, idle: Mutex::new(Vec::new()) }
    }

    fn with<R>(
        &self,
        weights: &Weights,
        batch: usize,
        work: impl FnOnce(&mut Engine) -> Result<R, ScoreError>,
    ) -> Result<R, ScoreError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let free = idle().pop();
        let mut engine = match free {
            Some(engine) => engine,
            None => Engine::new(weights.graph().clone(), batch, self.purpose)?,
        };
        let done = work(&mut engine);
        idle().push(engine);
        done
    }
}

/// The score as a (x) + b (output).
#[derive(Clone, Copy)]
struct Words {
    a: f64,
    b: f64,
}

/// Rows that go through the network together, each as often as there is room for directions beside it.
struct Chunk<'a> {
    x: ArrayView2<'a, f64>,
    levels: &'a [Level],
    /// The first row.
    start: usize,
    copies: usize,
}

impl Network {
    /// Weights, what the output was trained to be, and how many rows the network takes at a time.
    ///
    /// # Errors
    /// [`ScoreError::Net`] where the output has another shape than the input, no rows are taken, or the engine
    /// refuses the network.
    pub fn new(weights: Weights, prediction: Prediction, batch: usize) -> Result<Self, ScoreError> {
        let (input, output) = (weights.graph().input(), weights.graph().output());
        if input != output {
            return Err(NetError::Graph {
                layer: "output".into(),
                reason: format!("{output:?} can't be a score of {input:?}"),
            }
            .into());
        }
        let scores = Pool::new(Purpose::Evaluate);
        scores.with(&weights, batch, |_| Ok(()))?;
        Ok(Self { weights, prediction, batch, scores, products: Pool::new(Purpose::Train) })
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What the output was trained to be.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    fn words(&self, level: Level) -> Words {
        // Every form is linear in x and in the output.
        let of = |x, output| level.convert(x, output, self.prediction, Prediction::Score);
        Words { a: of(1.0, 0.0), b: of(0.0, 1.0) }
    }

    /// The network's output for every row of the chunk and every copy.
    fn forward<'e>(&self, engine: &'e mut Engine, chunk: &Chunk<'_>) -> Result<&'e [f32], ScoreError> {
        let (rows, n) = chunk.x.dim();
        let mut x = Vec::with_capacity(chunk.copies * rows * n);
        for ((row, column), &value) in chunk.x.indexed_iter() {
            let single = value as f32;
            if !single.is_finite() {
                let row = chunk.start + row;
                return Err(OpError::NotFinite { operation: NAME, argument: "x", row, column, value }.into());
            }
            x.push(single);
        }
        let mut t: Vec<f32> = chunk.levels.iter().map(|level| level.t() as f32).collect();
        for _ in 1..chunk.copies {
            x.extend_from_within(..rows * n);
            t.extend_from_within(..rows);
        }
        Ok(engine.forward(self.weights.values(), &x, &t, None)?)
    }

    /// The score of a row from the output.
    fn read(
        &self,
        chunk: &Chunk<'_>,
        row: usize,
        output: &[f32],
        mut take: impl FnMut(usize, f64),
    ) -> Result<(), ScoreError> {
        let level = chunk.levels[row];
        let Words { a, b } = self.words(level);
        for (k, (x, y)) in chunk.x.row(row).iter().zip(output).enumerate() {
            let value = a * x + b * f64::from(*y);
            if !value.is_finite() {
                return Err(bad_output(chunk.start + row, level, value));
            }
            take(k, value);
        }
        Ok(())
    }

    /// J^T v of each row for `count` directions, a forward for each row and as many backwards as there are
    /// directions, with full batches.
    ///
    /// `direction(d, row, v)` writes a direction over noughts, `product(d, row, J^T v)` takes what came of it.
    /// Gives the scores.
    fn products(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        count: usize,
        mut direction: impl FnMut(usize, usize, &mut [f64]),
        mut product: impl FnMut(usize, usize, &[f64]),
    ) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut scores = Array2::zeros((m, n));
        let (mut v, mut dy, mut dx) = (vec![0.0; n], Vec::new(), Vec::new());
        for start in (0..m).step_by(self.batch) {
            let rows = (m - start).min(self.batch);
            let room = (self.batch / rows).min(count).max(1);
            let passes = count.div_ceil(room);
            let chunk = Chunk {
                x: x.slice(s![start..start + rows, ..]),
                levels: &levels[start..start + rows],
                start,
                copies: count.div_ceil(passes.max(1)).max(1),
            };
            self.products.with(&self.weights, self.batch, |engine| {
                let output = self.forward(engine, &chunk)?;
                for (row, output) in output.chunks_exact(n).take(rows).enumerate() {
                    self.read(&chunk, row, output, |k, value| scores[[start + row, k]] = value)?;
                }
                dx.resize(chunk.copies * rows * n, 0.0);
                for pass in 0..passes {
                    let first = pass * chunk.copies;
                    let directions = first..count.min(first + chunk.copies);
                    dy.clear();
                    for d in directions.clone() {
                        for row in 0..rows {
                            v.fill(0.0);
                            direction(d, start + row, &mut v);
                            dy.extend(v.iter().map(|v| *v as f32));
                        }
                    }
                    dy.resize(dx.len(), 0.0);
                    engine.backward(self.weights.values(), &dy, None, Some(&mut dx))?;
                    for (place, dx) in dx.chunks_exact(n).take(directions.len() * rows).enumerate() {
                        let (d, row) = (first + place / rows, place % rows);
                        let level = chunk.levels[row];
                        let Words { a, b } = self.words(level);
                        v.fill(0.0);
                        direction(d, start + row, &mut v);
                        for (v, dx) in v.iter_mut().zip(dx) {
                            *v = a * *v + b * f64::from(*dx);
                        }
                        match v.iter().find(|v| !v.is_finite()) {
                            Some(&value) => return Err(bad_output(start + row, level, value)),
                            None => product(d, start + row, &v),
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(scores)
    }
}

fn bad_output(row: usize, level: Level, value: f64) -> ScoreError {
    ScoreError::NotFinite { operation: NAME, row, t: level.t(), value }
}

impl Score for Network {
    fn dim(&self) -> usize {
        self.weights.graph().input().len()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut out = Array2::zeros((m, n));
        for start in (0..m).step_by(self.batch) {
            let rows = start..m.min(start + self.batch);
            let chunk = Chunk { x: x.slice(s![rows.clone(), ..]), levels: &levels[rows], start, copies: 1 };
            self.scores.with(&self.weights, self.batch, |engine| {
                let output = self.forward(engine, &chunk)?;
                for (row, output) in output.chunks_exact(n).enumerate() {
                    let mut out = out.row_mut(start + row);
                    self.read(&chunk, row, output, |k, value| out[k] = value)?;
                }
                Ok(())
            })?;
        }
        Ok(out)
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check_rows(NAME, "v", &v, x.dim())?;
        let mut out = Array2::zeros(x.dim());
        self.products(
            x,
            levels,
            1,
            |_, row, to| to.iter_mut().zip(v.row(row)).for_each(|(to, v)| *to = *v),
            |_, row, product| out.row_mut(row).iter_mut().zip(product).for_each(|(out, p)| *out = *p),
        )?;
        Ok(out)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        Ok(self.score_and_divergence(x, levels)?.1)
    }

    fn score_and_divergence(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
    ) -> Result<(Array2<f64>, Array1<f64>), ScoreError> {
        let mut trace = Array1::zeros(x.nrows());
        let scores = self.products(
            x,
            levels,
            self.dim(),
            |d, _, v| v[d] = 1.0,
            |d, row, product| trace[row] += product[d],
        )?;
        Ok((scores, trace))
    }

    fn score_and_terms(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        directions: &[Array2<f64>],
    ) -> Result<(Array2<f64>, Array2<f64>), ScoreError> {
        for v in directions {
            check_rows(NAME, "v", &v.view(), x.dim())?;
        }
        let mut terms = Array2::zeros((x.nrows(), directions.len()));
        let scores = self.products(
            x,
            levels,
            directions.len(),
            |d, row, to| to.iter_mut().zip(directions[d].row(row)).for_each(|(to, v)| *to = *v),
            |d, row, product| {
                terms[[row, d]] = directions[d].row(row).iter().zip(product).map(|(v, p)| v * p).sum();
            },
        )?;
        Ok((scores, terms))
    }
}
