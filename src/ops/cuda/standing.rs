//! The state of a CUDA context after each answer of the driver.

use cudarc::driver::sys::CUresult;

use super::driver::{DriverError, Launch, LaunchShape};

/// Whether a context accepts work, and the launches that may have caused its next error.
#[derive(Debug)]
pub(super) struct Standing {
    device: String,
    /// Kernels started since the last wait, each with its last shape and its number of launches.
    unfinished: Vec<(&'static str, LaunchShape, u64)>,
    stopped: Option<String>,
    /// An error of a call that can't return it.
    late: Option<DriverError>,
}

impl Standing {
    pub fn new(device: String) -> Self {
        Self { device, unfinished: Vec::new(), stopped: None, late: None }
    }

    /// Err before a call when the context does not accept it.
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

    /// Records the start of a kernel.
    pub fn launched(&mut self, launch: &Launch<'_>) {
        // Moved to the end, so that the last entry is the kernel started last.
        let before = self.unfinished.iter().position(|(kernel, ..)| *kernel == launch.kernel);
        let times = before.map_or(0, |at| self.unfinished.remove(at).2);
        self.unfinished.push((launch.kernel, launch.into(), times + 1));
    }

    /// Records that all kernels have ended without an error.
    pub fn finished(&mut self) {
        self.unfinished.clear();
    }

    /// The error of a call other than a launch that was answered with `code`.
    pub fn failed(&mut self, call: &'static str, code: CUresult) -> DriverError {
        if !ends_context(code) {
            return DriverError::Call { call, why: format!("{code:?}") };
        }
        let error = match self.unfinished.last() {
            None => DriverError::Call { call, why: format!("{code:?}") },
            Some(&(kernel, shape, _)) => {
                let all: Vec<String> =
                    self.unfinished.iter().map(|(kernel, _, times)| format!("{kernel} x{times}")).collect();
                let why = format!("{code:?}, reported by {call}; kernels not waited for: {}", all.join(", "));
                DriverError::Launch { kernel, shape, why }
            }
        };
        self.stopped = Some(error.to_string());
        error
    }

    /// The error of a launch that was answered with `code`. The code may be that of an earlier kernel.
    pub fn failed_launch(&mut self, launch: &Launch<'_>, code: CUresult) -> DriverError {
        if ends_context(code) {
            self.launched(launch);
            return self.failed("cuLaunchKernel", code);
        }
        DriverError::Launch { kernel: launch.kernel, shape: launch.into(), why: format!("{code:?}") }
    }

    /// Stores an error for the next call to return.
    pub fn later(&mut self, error: DriverError) {
        self.late.get_or_insert(error);
    }
}

/// Whether an error ends the context: every later call gets the same answer.
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
    fn a_late_error_names_the_launches_and_stops_the_device() {
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
    fn a_refused_launch_does_not_stop_the_device() {
        let mut standing = Standing::new("cuda:0".to_owned());
        standing.launched(&launch("merge", 1));
        let error = standing.failed_launch(&launch("score", 3), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(
            matches!(error, DriverError::Launch { kernel: "score", ref why, .. } if !why.contains("merge"))
        );
        assert_eq!(standing.check(), Ok(()));
        // The same call may return the error of an earlier kernel.
        let error = standing.failed_launch(&launch("score", 3), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert!(error.to_string().contains("merge x1, score x1"), "{error}");
        assert!(matches!(standing.check(), Err(DriverError::Stopped { .. })));
    }

    #[test]
    fn other_errors_name_the_call_and_a_late_error_is_returned_once() {
        let mut standing = Standing::new("cuda:0".to_owned());
        let error = standing.failed("cuMemAlloc", CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(error.to_string(), "cuMemAlloc: CUDA_ERROR_INVALID_VALUE");
        standing.later(error.clone());
        assert_eq!(standing.check(), Err(error));
        assert_eq!(standing.check(), Ok(()));
        // Without a launch no kernel is named.
        let error = standing.failed("cuMemFree", CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
        assert!(matches!(error, DriverError::Call { call: "cuMemFree", .. }));
        standing.later(error.clone());
        assert_eq!(standing.check(), Err(error));
        assert!(matches!(standing.check(), Err(DriverError::Stopped { .. })));
    }
}
