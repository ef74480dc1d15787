use super::cuda::driver::DriverError;
use crate::device::Device;
use crate::setting::digits;

/// An operation that failed: its arguments or the device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// NaN or infinity in an input.
    #[error("{operation}: {argument} has {value} at row {row}, column {column}, expected finite values")]
    NotFinite {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        column: usize,
        /// The value.
        value: f64,
    },
    /// Shapes that don't match.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The expected shape.
        expected: String,
    },
    /// An array without elements.
    #[error(
        "{operation}: {argument} is empty, its shape is {found:?}; expected at least one row and one column"
    )]
    Empty {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A query so far from the memories that its squared distance overflows.
    #[error(
        "{operation}: query {row} is too far from the memories, at {norm:e} from their mean: its squared distance \
         overflows; scale the data or use double precision"
    )]
    TooFar {
        /// The operation.
        operation: &'static str,
        /// Row of the query.
        row: usize,
        /// Its distance from the mean of the memories.
        norm: f64,
    },
    /// A result that the precision can't hold, at a beta far from the inverse of the squared distances.
    #[error(
        "{operation}: the result of query {query} at beta {beta:e} is not finite; use double precision, or a beta nearer to \
         the inverse of the squared distances"
    )]
    Overflow {
        /// The operation.
        operation: &'static str,
        /// Row of the first such query.
        query: usize,
        /// Its beta.
        beta: f64,
    },
    /// A number outside its range.
    #[error("{operation}: {argument} is {}, expected {need}", digits(*value))]
    Parameter {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// The accepted values.
        need: &'static str,
    },
    /// A device that is missing or fails.
    #[error("{operation}: {source}")]
    Device {
        /// The operation.
        operation: &'static str,
        /// The error of its driver.
        source: DriverError,
    },
    /// A precision for which the device has no kernels.
    #[error("{operation}: {device} has no kernels for f64; use f32 or the CPU")]
    Precision {
        /// The operation.
        operation: &'static str,
        /// The device.
        device: Device,
    },
}

impl OpError {
    /// Err unless `value` is finite and above 0.
    pub(crate) fn positive(
        operation: &'static str,
        argument: &'static str,
        value: f64,
    ) -> Result<(), OpError> {
        if value > 0.0 && value.is_finite() {
            return Ok(());
        }
        Err(Self::Parameter { operation, argument, value, need: "a finite number above 0" })
    }
}
