#!/usr/bin/env python3
"""Writes the kernelspec `mem2gen` and the kernel's own configuration, with this machine's paths.

The kernel compiles every cell against the release library `libmem2gen.so`, so it builds no dependency a second time, and
a notebook runs the versions of Cargo.lock.

Only the standard library is used. A file that is up to date is not written again.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

# The kernel reads these settings before its first cell, so all cells have the same.
CONFIG = """\
[evcxr]
opt_level = "0"
offline_mode = true
"""

PRELUDE = """\
use mem2gen::notebook::eprintln;
use mem2gen::prelude::*;
mem2gen::notebook::install();
"""


def write(path: Path, text: str) -> None:
    """Writes `path` atomically, unless it already has this text."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".mem2gen-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    home = root / ".mem2gen"
    release = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")).resolve() / "release"
    library = release / "libmem2gen.so"
    if not library.is_file():
        print(f"kernelspec: {library} is missing; run `make build`", file=sys.stderr)
        return 1
    flags = [
        "-Cprefer-dynamic",
        "--extern",
        f"mem2gen={library}",
        f"-Ldependency={release / 'deps'}",
        f"-Clink-arg=-Wl,-rpath,{release}",
    ]
    (home / "evcxr" / "init.evcxr").unlink(missing_ok=True)
    write(home / "evcxr" / "evcxr.toml", CONFIG)
    write(home / "evcxr" / "prelude.rs", PRELUDE)
    spec = {
        "argv": [str(home / "tools" / "bin" / "evcxr_jupyter"), "--control_file", "{connection_file}"],
        "display_name": "Rust (mem2gen)",
        "language": "rust",
        "interrupt_mode": "message",
        "env": {
            "EVCXR_CONFIG_DIR": str(home / "evcxr"),
            # Overrides the RUSTFLAGS that the kernel sets, and allows paths with spaces.
            "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
            "CARGO_PROFILE_DEV_DEBUG_ASSERTIONS": "false",
            "CARGO_PROFILE_DEV_OVERFLOW_CHECKS": "true",
            "CARGO_NET_OFFLINE": "true",
        },
    }
    write(home / "jupyter" / "kernels" / "mem2gen" / "kernel.json", json.dumps(spec, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
