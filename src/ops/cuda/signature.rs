//! The parameter types of a kernel, read from its source.

use super::driver::Arg;
use super::sources::Module;

/// Type of a parameter. The driver is not told the number and sizes of the arguments and reads those of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pointer,
    Int,
    LongLong,
    Float,
    Double,
}

impl Kind {
    pub fn of_arg(arg: &Arg) -> Self {
        match arg {
            Arg::Buffer(..) | Arg::Null => Self::Pointer,
            Arg::I32(_) => Self::Int,
            Arg::I64(_) => Self::LongLong,
            Arg::F32(_) => Self::Float,
            Arg::F64(_) => Self::Double,
        }
    }
}

/// The parameters that the source of a kernel declares; `None` when they are not of these types.
pub(super) fn signature(module: &Module, kernel: &str) -> Option<Vec<Kind>> {
    let (_, after) = module
        .text
        .split("extern \"C\" __global__")
        .skip(1)
        .filter_map(|definition| definition.split_once('{')?.0.split_once(&format!(" {kernel}(")))
        .next()?;
    let list = after.split_once(')')?.0;
    list.split(',')
        .map(|parameter| {
            let mut words: Vec<&str> = parameter.split_whitespace().collect();
            words.pop();
            match words.as_slice() {
                _ if parameter.contains('*') => Some(Kind::Pointer),
                ["int"] => Some(Kind::Int),
                ["long", "long"] => Some(Kind::LongLong),
                ["float"] => Some(Kind::Float),
                ["double"] => Some(Kind::Double),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sources::{MODULES, module_of};
    use super::*;

    #[test]
    fn every_kernel_has_a_signature() {
        for module in MODULES {
            for kernel in module.kernels {
                assert!(signature(module, kernel).is_some(), "{kernel}");
            }
        }
        let half_norms = module_of("half_norms").and_then(|m| signature(m, "half_norms")).unwrap();
        use Kind::*;
        assert_eq!(half_norms, [Pointer, Pointer, Pointer, LongLong, Int, LongLong]);
    }
}
