//! The CUDA sources of `kernels/`, as a compiler gets them.

/// One source file with its kernels.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// File name without `.cu`.
    pub name: &'static str,
    /// Text of the file in `kernels/`. It includes at most `port.cuh` and `tile.cuh`.
    pub text: &'static str,
    /// PTX from NVIDIA's compiler for compute capability 8.0 and later, for machines without NVRTC.
    pub ptx: &'static str,
    /// Its `extern "C" __global__` functions.
    pub kernels: &'static [&'static str],
}

/// `kernels/port.cuh`: names that differ between NVRTC, nvcc and compilers for the CPU.
pub const PORT: &str = include_str!("../../../kernels/port.cuh");

const INCLUDE: &str = "#include \"port.cuh\"\n";

/// `kernels/tile.cuh`: the matrix product of the read-out and of the distances.
pub const TILE: &str = include_str!("../../../kernels/tile.cuh");

const INCLUDE_TILE: &str = "#include \"tile.cuh\"\n";

/// Every source.
pub const MODULES: &[Module] = &[
    Module {
        name: "prepare",
        text: include_str!("../../../kernels/prepare.cu"),
        ptx: include_str!("../../../kernels/ptx/prepare.ptx"),
        kernels: &["half_norms", "norms2", "column_sums", "column_means"],
    },
    Module {
        name: "readout",
        text: include_str!("../../../kernels/readout.cu"),
        ptx: include_str!("../../../kernels/ptx/readout.ptx"),
        kernels: &[
            "score_tiles",
            "energy_tiles",
            "readout_2",
            "readout_4",
            "readout_8",
            "readout_16",
            "readout_32",
            "readout_merge",
        ],
    },
    Module {
        name: "distance",
        text: include_str!("../../../kernels/distance.cu"),
        ptx: include_str!("../../../kernels/ptx/distance.ptx"),
        kernels: &["knn_sieve", "knn_sieve_few", "knn_refine", "pairwise", "distances"],
    },
    Module {
        name: "peak",
        text: include_str!("../../../kernels/peak.cu"),
        ptx: include_str!("../../../kernels/ptx/peak.ptx"),
        kernels: &["peak_copy", "peak_fma"],
    },
];

impl Module {
    /// The translation unit: the file with `port.cuh` and `tile.cuh` in place of their includes.
    pub fn unit(&self) -> String {
        self.text.replacen(INCLUDE, PORT, 1).replacen(INCLUDE_TILE, TILE, 1)
    }
}

/// The source of a kernel; `None` for an unknown name.
pub fn module_of(kernel: &str) -> Option<&'static Module> {
    MODULES.iter().find(|m| m.kernels.contains(&kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_is_listed_where_it_is_defined() {
        for module in MODULES {
            assert!(module.text.contains(INCLUDE), "{}", module.name);
            assert!(!module.unit().contains("#include \"tile"), "{}", module.name);
            let defined = module.text.matches("extern \"C\" __global__").count();
            assert_eq!(defined, module.kernels.len(), "{}", module.name);
            for kernel in module.kernels {
                assert!(module.text.contains(&format!(" {kernel}(")), "{kernel}");
                assert_eq!(module_of(kernel).map(|m| m.name), Some(module.name));
            }
        }
    }
}
