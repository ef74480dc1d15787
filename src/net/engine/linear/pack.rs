//! Panels of weights: the columns that a block computes together, packed contiguously.

use std::ops::Range;

use pulp::Arch;

/// Rows and columns of a tile that is transposed in registers.
const SIDE: usize = 16;

/// Packs columns of `[positions, rows, stride]` as a panel `[matrices, rows, width]`, padded with zeros. A matrix is the
/// sum of the weights at its positions.
pub(super) fn straight(
    places: &[Vec<usize>],
    weight: &[f32],
    rows: usize,
    stride: usize,
    columns: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    for (places, panel) in places.iter().zip(panel.chunks_exact_mut(rows * width)) {
        for (i, &place) in places.iter().enumerate() {
            let rows = weight[place * rows * stride..].chunks_exact(stride);
            for (row, packed) in rows.zip(panel.chunks_exact_mut(width)) {
                let (packed, padding) = packed.split_at_mut(columns.len());
                match i {
                    0 => packed.copy_from_slice(&row[columns.clone()]),
                    _ => packed.iter_mut().zip(&row[columns.clone()]).for_each(|(p, w)| *p += w),
                }
                padding.fill(0.0);
            }
        }
    }
}

/// As [`straight`], from `[positions, columns of all panels, rows]`, with `len` elements per position.
#[expect(clippy::too_many_arguments, reason = "those of `straight`, and the instruction set")]
pub(super) fn transposed(
    simd: Arch,
    places: &[Vec<usize>],
    weight: &[f32],
    rows: usize,
    len: usize,
    columns: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    for (places, panel) in places.iter().zip(panel.chunks_exact_mut(rows * width)) {
        for (i, &place) in places.iter().enumerate() {
            let weight = &weight[place * len..][..len];
            for row in (0..rows).step_by(SIDE) {
                for column in (0..columns.len()).step_by(SIDE) {
                    let from = &weight[(columns.start + column) * rows + row..];
                    let to = &mut panel[row * width + column..];
                    let size = (SIDE.min(columns.len() - column), SIDE.min(rows - row));
                    transpose(simd, from, rows, to, width, size, i > 0);
                }
            }
        }
        for row in panel.chunks_exact_mut(width) {
            row[columns.len()..].fill(0.0);
        }
    }
}

/// to_(j, i) <- from_(i, j), or added to it, for a tile of `rows` and `columns` of `from`.
fn transpose(
    simd: Arch,
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
    (rows, columns): (usize, usize),
    add: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if let (Arch::V4(_), SIDE, SIDE) = (simd, rows, columns) {
        assert!(from.len() >= (SIDE - 1) * from_stride + SIDE && to.len() >= (SIDE - 1) * to_stride + SIDE);
        // SAFETY: the CPU has AVX-512, and the tile lies in both slices.
        unsafe { transpose_tile(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride, add) };
        return;
    }
    let _ = simd;
    for j in 0..columns {
        for i in 0..rows {
            let to = &mut to[j * to_stride + i];
            *to = from[i * from_stride + j] + if add { *to } else { 0.0 };
        }
    }
}

/// A whole tile in the registers of AVX-512.
///
/// # Safety
/// The CPU has AVX-512, and both pointers have `SIDE` rows of `SIDE` elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_tile(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize, add: bool) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's.
    let r: [__m512; SIDE] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(from.add(i * from_stride)) });
    // Pairs of rows, then groups of four: element k of a group holds the tile's column 4 l + k in lane l.
    let pairs: [__m512; SIDE] = std::array::from_fn(|i| {
        let (a, b) = (r[i / 2 * 2], r[i / 2 * 2 + 1]);
        if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
    });
    let fours: [__m512; SIDE] = std::array::from_fn(|i| {
        let (four, k) = (i / 4 * 4, i % 4);
        let (a, b) = (_mm512_castps_pd(pairs[four + k / 2]), _mm512_castps_pd(pairs[four + 2 + k / 2]));
        _mm512_castpd_ps(if k % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
    });
    for k in 0..4 {
        let (a, b, c, d) = (fours[k], fours[4 + k], fours[8 + k], fours[12 + k]);
        let (ab_even, ab_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        let (cd_even, cd_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
        let columns = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, cd_even),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, cd_odd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, cd_even),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, cd_odd),
        ];
        for (l, &column) in columns.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let to = to.add((4 * l + k) * to_stride);
                let sum = if add { _mm512_add_ps(column, _mm512_loadu_ps(to)) } else { column };
                _mm512_storeu_ps(to, sum);
            }
        }
    }
}
