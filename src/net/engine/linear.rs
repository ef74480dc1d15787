//! Linear maps of windows of pixels: dense layers and convolutions.

use crate::net::Shape;

/// A linear map y = W x + b of each window of pixels; see [`crate::net::Op::Conv`].
pub(super) struct Linear {
    from: Shape,
    to: Shape,
    /// Output pixel, input pixel and place in the window of each pair that meets.
    pairs: Vec<(usize, usize, usize)>,
}

impl Linear {
    /// For at most so many rows a call.
    pub(super) fn new(
        from: Shape,
        outputs: usize,
        side: usize,
        stride: usize,
        upsample: bool,
        _rows: usize,
    ) -> Self {
        let scale = if upsample { 2 } else { 1 };
        let (high, wide) = (scale * from.height, scale * from.width);
        let to = Shape::image(high / stride, wide / stride, outputs);
        // A window with stride 2 begins at its own pixel, others are centred.
        let before = if stride == 1 { side / 2 } else { 0 };
        let mut pairs = vec![];
        for (i, j) in (0..to.height).flat_map(|i| (0..to.width).map(move |j| (i, j))) {
            for (a, b) in (0..side).flat_map(|a| (0..side).map(move |b| (a, b))) {
                let (row, column) = (i * stride + a, j * stride + b);
                if (before..before + high).contains(&row) && (before..before + wide).contains(&column) {
                    let (row, column) = ((row - before) / scale, (column - before) / scale);
                    pairs.push((i * to.width + j, row * from.width + column, a * side + b));
                }
            }
        }
        Self { from, to, pairs }
    }

    /// y = W x + b, plus `shift[m, outputs]` for each sample, plus `add`, which has the shape of y.
    pub(super) fn forward(
        &mut self,
        m: usize,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        shift: Option<&[f32]>,
        add: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (c, o) = (self.from.channels, self.to.channels);
        for s in 0..m {
            let x = &x[s * self.from.len()..][..self.from.len()];
            let y = &mut y[s * self.to.len()..][..self.to.len()];
            for (i, y) in y.iter_mut().enumerate() {
                *y = bias[i % o];
                *y += shift.map_or(0.0, |v| v[s * o + i % o]);
                *y += add.map_or(0.0, |v| v[s * self.to.len() + i]);
            }
            for &(p, q, t) in &self.pairs {
                for k in 0..c {
                    let w = &weight[(t * c + k) * o..][..o];
                    y[p * o..][..o].iter_mut().zip(w).for_each(|(y, w)| *y += w * x[q * c + k]);
                }
            }
        }
    }

    /// dx = W^T dy, added to what `dx` holds with `accumulate`.
    pub(super) fn backward_input(
        &mut self,
        m: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        accumulate: bool,
    ) {
        let (c, o) = (self.from.channels, self.to.channels);
        if !accumulate {
            dx[..m * self.from.len()].fill(0.0);
        }
        for s in 0..m {
            let dx = &mut dx[s * self.from.len()..][..self.from.len()];
            let dy = &dy[s * self.to.len()..][..self.to.len()];
            for &(p, q, t) in &self.pairs {
                for k in 0..c {
                    let w = &weight[(t * c + k) * o..][..o];
                    dx[q * c + k] += w.iter().zip(&dy[p * o..][..o]).map(|(w, dy)| w * dy).sum::<f32>();
                }
            }
        }
    }

    /// The gradients of the weights and the bias, and of the shift with whether it is added to what is there.
    pub(super) fn backward_weight(
        &mut self,
        m: usize,
        x: &[f32],
        dy: &[f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
        dshift: Option<(&mut [f32], bool)>,
    ) {
        let (c, o) = (self.from.channels, self.to.channels);
        dweight.fill(0.0);
        dbias.fill(0.0);
        for s in 0..m {
            let x = &x[s * self.from.len()..][..self.from.len()];
            let dy = &dy[s * self.to.len()..][..self.to.len()];
            dy.iter().enumerate().for_each(|(i, dy)| dbias[i % o] += dy);
            for &(p, q, t) in &self.pairs {
                for k in 0..c {
                    let dw = &mut dweight[(t * c + k) * o..][..o];
                    dw.iter_mut().zip(&dy[p * o..][..o]).for_each(|(dw, dy)| *dw += dy * x[q * c + k]);
                }
            }
        }
        if let Some((dshift, accumulate)) = dshift {
            if !accumulate {
                dshift[..m * o].fill(0.0);
            }
            dy[..m * self.to.len()]
                .iter()
                .enumerate()
                .for_each(|(i, dy)| dshift[i / self.to.len() * o + i % o] += dy);
        }
    }
}
