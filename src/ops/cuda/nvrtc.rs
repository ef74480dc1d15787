//! NVIDIA's run-time compiler, if the machine has it.
//!
//! Not bound through cudarc, which panics when the library is missing or too old and always takes the first one of the
//! system.

use std::env;
use std::error::Error;
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use crate::project::Layout;

/// Output format of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Machine code for devices of this compute capability (90 for 9.0).
    Cubin(u32),
    /// PTX, which the driver translates for devices of this compute capability or a later one.
    Ptx(u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cubin(capability) => write!(f, "sm_{capability}"),
            Self::Ptx(capability) => write!(f, "compute_{capability}"),
        }
    }
}

/// An opened libnvrtc.
#[derive(Debug)]
pub struct Nvrtc {
    api: Api,
    path: PathBuf,
    version: (c_int, c_int),
    architectures: Vec<u32>,
    // `api` points into it.
    _library: Library,
}

type Program = *mut c_void;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// `NVRTC_SUCCESS`.
const SUCCESS: c_int = 0;

#[derive(Debug)]
struct Api {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log: (GetSize, GetBytes),
    ptx: (GetSize, GetBytes),
    cubin: (GetSize, GetBytes),
}

/// Output of a compilation.
pub(super) struct Compiled {
    /// ELF, or PTX that ends in a null byte.
    pub image: Vec<u8>,
    /// Warnings; empty when there are none.
    pub log: String,
}

impl Nvrtc {
    /// The library that `MEM2GEN_NVRTC` names, else the one below the project's `.mem2gen/cuda`, else the system's. The
    /// search runs once in a process.
    ///
    /// # Errors
    /// The reason why no library can be opened.
    pub fn find() -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        let find = || {
            if let Some(path) = env::var_os("MEM2GEN_NVRTC") {
                return Self::open(Path::new(&path));
            }
            let system =
                [libloading::library_filename("nvrtc"), "libnvrtc.so.13".into(), "libnvrtc.so.12".into()];
            let mut why = String::new();
            for path in wheel().into_iter().chain(system.map(PathBuf::from)) {
                match Self::open(&path) {
                    Ok(library) => return Ok(library),
                    Err(e) if why.is_empty() => why = e,
                    Err(_) => {}
                }
            }
            Err(why)
        };
        FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
    }

    /// Opens the library at a path or of a name that the system knows.
    ///
    /// # Errors
    /// The reason why it can't be opened, or the missing function.
    pub fn open(path: &Path) -> Result<Self, String> {
        // The message of the loader is the source of the error.
        let failed = |e: libloading::Error| {
            let why = e.source().map_or_else(|| e.to_string(), ToString::to_string);
            format!("{}: {why}", path.display())
        };
        // It looks for its builtins by name, and finds those in its own folder only when they are already open.
        for builtins in beside(path) {
            // SAFETY: NVIDIA's library, whose initialisers only set up its own state.
            let opened = unsafe { Library::new(&builtins) }.map_err(failed)?;
            // They stay open to the end of the process.
            std::mem::forget(opened);
        }
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        macro_rules! symbol {
            // SAFETY: each type is that of the function in nvrtc.h.
            ($name:literal) => {
                *unsafe { library.get($name) }.map_err(failed)?
            };
        }
        let api = Api {
            create: symbol!(c"nvrtcCreateProgram"),
            compile: symbol!(c"nvrtcCompileProgram"),
            destroy: symbol!(c"nvrtcDestroyProgram"),
            log: (symbol!(c"nvrtcGetProgramLogSize"), symbol!(c"nvrtcGetProgramLog")),
            ptx: (symbol!(c"nvrtcGetPTXSize"), symbol!(c"nvrtcGetPTX")),
            cubin: (symbol!(c"nvrtcGetCUBINSize"), symbol!(c"nvrtcGetCUBIN")),
        };
        let get_version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = symbol!(c"nvrtcVersion");
        let get_count: unsafe extern "C" fn(*mut c_int) -> c_int = symbol!(c"nvrtcGetNumSupportedArchs");
        let get_all: unsafe extern "C" fn(*mut c_int) -> c_int = symbol!(c"nvrtcGetSupportedArchs");
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: each writes to the given integers.
        let answers = unsafe { [get_version(&mut major, &mut minor), get_count(&mut count)] };
        let silent = || format!("{}: does not list the architectures that it compiles for", path.display());
        let mut all = vec![0; usize::try_from(count).map_err(|_| silent())?];
        // SAFETY: writes `count` integers.
        if answers != [SUCCESS; 2] || unsafe { get_all(all.as_mut_ptr()) } != SUCCESS {
            return Err(silent());
        }
        let architectures = all.into_iter().filter_map(|a| u32::try_from(a).ok()).collect();
        Ok(Self { api, path: path.to_path_buf(), version: (major, minor), architectures, _library: library })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor number of its CUDA version.
    pub fn numbers(&self) -> (i32, i32) {
        self.version
    }

    /// Its CUDA version.
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Best output format for devices of a compute capability: machine code, or PTX of the latest earlier capability.
    /// `None` when it knows later capabilities only.
    pub fn target(&self, capability: u32) -> Option<Target> {
        best_target(capability, &self.architectures)
    }

    /// Compiles one translation unit. The error is the log of the compiler.
    pub(super) fn compile(
        &self,
        name: &str,
        unit: &str,
        target: Target,
        options: &[&str],
    ) -> Result<Compiled, String> {
        let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
        let (unit, name) = (text(unit)?, text(&format!("{name}.cu"))?);
        let architecture = format!("--gpu-architecture={target}");
        let options = options
            .iter()
            .copied()
            .chain([architecture.as_str()])
            .map(text)
            .collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|e| e.to_string())?;

        let mut program = ptr::null_mut();
        // SAFETY: both texts end in a null byte; there are no headers.
        let code = unsafe {
            (self.api.create)(&mut program, unit.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null())
        };
        if code != SUCCESS {
            return Err(format!("nvrtcCreateProgram answers {code}"));
        }
        // SAFETY: the program exists, and the options outlive the call.
        let code = unsafe { (self.api.compile)(program, count, pointers.as_ptr()) };
        let log = self.bytes(program, self.api.log);
        let image = self
            .bytes(program, if matches!(target, Target::Cubin(_)) { self.api.cubin } else { self.api.ptx });
        // SAFETY: the program exists and is not used again.
        unsafe { (self.api.destroy)(&mut program) };

        let unread =
            |why| format!("nvrtcCompileProgram answers {code} for {target}, and its log is lost: {why}");
        let log = String::from_utf8_lossy(&log.map_err(unread)?).trim_matches(['\0', '\n', ' ']).to_owned();
        match image {
            Ok(image) if code == SUCCESS && !image.is_empty() => Ok(Compiled { image, log }),
            Err(why) if code == SUCCESS => Err(why),
            _ if log.is_empty() => Err(format!("nvrtcCompileProgram answers {code} for {target}")),
            _ => Err(log),
        }
    }

    fn bytes(&self, program: Program, (size, get): (GetSize, GetBytes)) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: the program exists.
        let code = unsafe { size(program, &mut length) };
        let mut bytes = vec![0u8; length];
        // SAFETY: the library writes the number of bytes that it reported.
        if code != SUCCESS || unsafe { get(program, bytes.as_mut_ptr().cast()) } != SUCCESS {
            return Err("NVRTC returns no data".to_owned());
        }
        Ok(bytes)
    }
}

fn best_target(capability: u32, known: &[u32]) -> Option<Target> {
    if known.contains(&capability) {
        return Some(Target::Cubin(capability));
    }
    known.iter().copied().filter(|a| *a < capability).max().map(Target::Ptx)
}

/// The library of the pinned toolchain, if it is installed.
fn wheel() -> Option<PathBuf> {
    let python = fs::read_dir(Layout::find().root().join(".mem2gen/cuda/lib")).ok()?;
    let library = "site-packages/nvidia/cu13/lib/libnvrtc.so.13";
    python.filter_map(|entry| Some(entry.ok()?.path().join(library))).find(|path| path.is_file())
}

/// The builtins in the folder of a library that is given by its path.
fn beside(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let named = |name: OsString| name.to_string_lossy().starts_with("libnvrtc-builtins.so");
    let entries = folder.and_then(|f| fs::read_dir(f).ok()).into_iter().flatten();
    entries.filter_map(Result::ok).filter(|e| named(e.file_name())).map(|e| e.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_for_known_capabilities_and_earlier_ptx_for_others() {
        let known = [75, 80, 86, 90, 100];
        assert_eq!(best_target(90, &known), Some(Target::Cubin(90)));
        assert_eq!(best_target(89, &known), Some(Target::Ptx(86)));
        assert_eq!(best_target(121, &known), Some(Target::Ptx(100)));
        assert_eq!(best_target(70, &known), None);
        assert_eq!([Target::Cubin(90), Target::Ptx(86)].map(|t| t.to_string()), ["sm_90", "compute_86"]);
    }

    #[test]
    fn a_file_that_is_not_nvrtc_is_refused_by_its_path() {
        let error = Nvrtc::open(Path::new("/nonexistent/libnvrtc.so")).unwrap_err();
        assert!(error.contains("/nonexistent/libnvrtc.so"), "{error}");
        // Another library.
        let error = Nvrtc::open(Path::new("libc.so.6")).unwrap_err();
        assert!(error.contains("nvrtcCreateProgram"), "{error}");
    }
}
