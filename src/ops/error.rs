use super::cuda::driver::DriverError;
use crate::device::Device;

/// What can be wrong with an operation: its arguments, or the device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// NaN or infinity in an input.
    #[error("{operation}: {argument} holds {value} at row {row}, column {column}")]
    NotFinite {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Row of the first such number.
        row: usize,
        /// Column of the first such number.
        column: usize,
        /// The number.
        value: f64,
    },
    /// Shapes that don't fit each other.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// A set without members.
    #[error("{operation}: {argument} is empty, its shape is {found:?}")]
    Empty {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A query so far off that its squared distance overflows.
    #[error(
        "{operation}: query {row} lies {norm:e} from the memories' mean, too far for a squared distance in their precision"
    )]
    TooFar {
        /// The operation.
        operation: &'static str,
        /// Row of the query.
        row: usize,
        /// Its distance from the memories' mean.
        norm: f64,
    },
    /// A number outside its range.
    #[error("{operation}: {argument} is {value}, expected {need}")]
    Parameter {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// What would do.
        need: &'static str,
    },
    /// A device that is missing or fails.
    #[error("{operation}: {source}")]
    Device {
        /// The operation.
        operation: &'static str,
        /// What its driver said.
        source: DriverError,
    },
    /// Numbers of a precision that the device has no kernels for.
    #[error("{operation}: {device} has kernels for f32 alone, not for f64")]
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
