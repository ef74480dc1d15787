use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::{Element, OpError};

/// Err with the position of the first NaN or infinity.
pub(crate) fn finite_rows<T: Element>(
    operation: &'static str,
    argument: &'static str,
    rows: &ArrayView2<'_, T>,
) -> Result<(), OpError> {
    // A sum of values times 0 is NaN when one value is not finite: one fast pass in the common case.
    let clean = rows.axis_iter(Axis(0)).into_par_iter().with_min_len(64).all(|row| {
        let probe = match row.as_slice() {
            Some(s) => s.iter().fold(0.0, |a: f64, &v| a + v.f64() * 0.0),
            None => row.iter().fold(0.0, |a: f64, &v| a + v.f64() * 0.0),
        };
        probe == 0.0
    });
    if clean {
        return Ok(());
    }
    for (row, values) in rows.outer_iter().enumerate() {
        if let Some(column) = values.iter().position(|v| !v.f64().is_finite()) {
            return Err(OpError::NotFinite { operation, argument, row, column, value: values[column].f64() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn the_position_of_the_first_bad_value_is_named() {
        let mut a = Array2::<f32>::zeros((3, 4));
        assert!(finite_rows("energy", "queries", &a.view()).is_ok());
        a[[1, 2]] = f32::NEG_INFINITY;
        a[[2, 0]] = f32::NAN;
        let e = finite_rows("energy", "queries", &a.view()).unwrap_err();
        assert!(matches!(e, OpError::NotFinite { row: 1, column: 2, .. }), "{e}");
    }

    #[test]
    fn the_largest_values_are_finite() {
        let a = array![[f64::MAX, f64::MIN], [f64::MAX, 1.0]];
        assert!(finite_rows("energy", "queries", &a.view()).is_ok());
    }
}
