//! What an answer of the CUDA driver means for the calls that follow it.

use cudarc::driver::sys::CUresult;

use super::driver::{DriverError, Launch, LaunchShape};

/// Whether a context takes work, and which launches its next error may belong to.
#[derive(Debug)]
pub(super) struct Standing {
    device: String,
    /// Kernels started since the device was last waited for: the last shape of each, and how often.
    unfinished: Vec<(&'static str, LaunchShape, u64)>,
    stopped: Option<String>,
    /// An error of a call that could not return it.
    late: Option<DriverError>,
}

impl Standing {
    pub fn new(device: String) -> Self {
        Self { device, unfinished: Vec::new(), stopped: None, late: None }
    }

    /// Asked before every call.
    pub fn check(&mut self) -> Result<(), DriverError> {
        if let Some(late) = self.late.take() {
            return Err(late);
        }
        match &self.stopped {
            Some(why) => Err(DriverError::Stopped { device: self.device.clone(), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Whether an error ended the context.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// A kernel was started.
    pub fn launched(&mut self, launch: &Launch<'_>) {
        // Moved to the end: the last is the one that was started last.
        let before = self.unfinished.iter().position(|(kernel, ..)| *kernel == launch.kernel);
        let times = before.map_or(0, |at| self.unfinished.remove(at).2);
        self.unfinished.push((launch.kernel, launch.into(), times + 1));
    }

    /// Everything started before has ended well.
    pub fn finished(&mut self) {
        self.unfinished.clear();
    }

    /// A call other than a launch was answered with `code`.
    pub fn failed(&mut self, call: &'static str, code: CUresult) -> DriverError {
        if !ends_context(code) {
            return DriverError::Call { call, why: format!("{code:?}") };
        }
        let error = match self.unfinished.last() {
            None => DriverError::Call { call, why: format!("{code:?}") },
            Some(&(kernel, shape, _)) => {
                let all: Vec<String> =
                    self.unfinished.iter().map(|(kernel, _, times)| format!("{kernel} x{times}")).collect();
                let why = format!("{code:?}, found at {call}; not waited for until then: {}", all.join(", "));
                DriverError::Launch { kernel, shape, why }
            }
        };
        self.stopped = Some(error.to_string());
        error
    }

    /// The start of a kernel was answered with `code`. It may be told of the end of an earlier one.
    pub fn failed_launch(&mut self, launch: &Launch<'_>, code: CUresult) -> DriverError {
        if ends_context(code) {
            self.launched(launch);
            return self.failed("cuLaunchKernel", code);
        }
        DriverError::Launch { kernel: launch.kernel, shape: launch.into(), why: format!("{code:?}") }
    }

    /// An error that the next call is to return.
    pub fn later(&mut self, error: DriverError) {
        self.late.get_or_insert(error);
    }
}

/// Whether a context survives no such error: whatever is called after it gets the same answer.
pub(super) fn ends_context(code: CUresult) -> bool {
    use CUresult::*;
    matches!(
        code,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn launch(kernel: &'static str, blocks: u32) -> Launch<'static> {
        Launch { kernel, grid: [blocks, 1, 1], block: [128, 1, 1], shared: 0, args: &[] }
    }

    #[test]
    fn an_error_found_later_names_what_was_launched_and_stops_the_device() {
        let mut standing = Standing::new("cuda:0".to_owned());
        standing.launched(&launch("before", 1));
        standing.finished();
        for blocks in [7, 8] {
            standing.launched(&launch("score", blocks));
        }
        standing.launched(&launch("merge", 2));
        standing.launched(&launch("score", 9));
        assert_eq!(standing.check(), Ok(()));

        let first = standing.failed("cuStreamSynchronize", CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        let text = first.to_string();
        assert!(matches!(first, DriverError::Launch { kernel: "score", shape, .. } if shape.grid[0] == 9));
        for part in ["grid 9x1x1", "ILLEGAL_ADDRESS", "cuStreamSynchronize", "merge x1, score x3"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("before"), "{text}");
        for _ in 0..2 {
            assert_eq!(
                standing.check(),
                Err(DriverError::Stopped { device: "cuda:0".to_owned(), why: text.clone() })
            );
        }
    }

    #[test]
    fn a_launch_that_is_refused_stops_nothing() {
        let mut standing = Standing::new("cuda:0".to_owned());
        standing.launched(&launch("merge", 1));
        let error = standing.failed_launch(&launch("score", 3), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(
            matches!(error, DriverError::Launch { kernel: "score", ref why, .. } if !why.contains("merge"))
        );
        assert_eq!(standing.check(), Ok(()));
        // The same call may be told of the end of an earlier kernel.
        let error = standing.failed_launch(&launch("score", 3), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert!(error.to_string().contains("merge x1, score x1"), "{error}");
        assert!(matches!(standing.check(), Err(DriverError::Stopped { .. })));
    }

    #[test]
    fn other_calls_say_what_was_called_and_a_late_error_is_said_once() {
        let mut standing = Standing::new("cuda:0".to_owned());
        let error = standing.failed("cuMemAlloc", CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(error.to_string(), "cuMemAlloc: CUDA_ERROR_INVALID_VALUE");
        standing.later(error.clone());
        assert_eq!(standing.check(), Err(error));
        assert_eq!(standing.check(), Ok(()));
        // Nothing was launched, so no kernel is blamed.
        let error = standing.failed("cuMemFree", CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
        assert!(matches!(error, DriverError::Call { call: "cuMemFree", .. }));
        standing.later(error.clone());
        assert_eq!(standing.check(), Err(error));
        assert!(matches!(standing.check(), Err(DriverError::Stopped { .. })));
    }
}
