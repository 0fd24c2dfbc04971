"""Compile and link the meter in C for platforms that this machine is not: musl, an old glibc, macOS.

ziglang's compiler brings the headers of each platform's C library, and Debian's musl-gcc those of musl: without it, one
line says NOT TESTED. Python's headers are those of this machine. abi3audit looks at what is compiled for Linux, and
musl's own dynamic linker at what musl-gcc has made. Nothing is run.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

CORE = Path(__file__).resolve().parents[2] / "packages/openrtc-introspect-core"
ZIG = f"{sys.executable} -m ziglang cc -target "
PLATFORMS = {
    "musl on x86-64": "musl-gcc",
    "musl on arm64": f"{ZIG}aarch64-linux-musl",
    "glibc 2.17 on x86-64": f"{ZIG}x86_64-linux-gnu.2.17",
    "macOS on x86-64": f"{ZIG}x86_64-macos",
    "macOS on arm64": f"{ZIG}aarch64-macos",
}
"""The compiler for each platform."""
MUSL_LINKER = Path("/lib/ld-musl-x86_64.so.1")


def main() -> None:
    script = runpy.run_path(str(CORE / "compile_meter.py"))
    for platform, compiler in PLATFORMS.items():
        if not shutil.which(compiler.split()[0]):
            print(f"{platform}: NOT TESTED, {compiler} is missing (on Debian: apt install musl-tools)")
            continue
        system = "darwin" if "macOS" in platform else "linux"
        # Some compilers accept functions that no header declares. zig makes a dynamic library in place of a bundle.
        flags = "-Werror=implicit-function-declaration" + " -dynamiclib" * (system == "darwin")
        settings = {"CC": compiler, "CFLAGS": flags, "ARCHFLAGS": ""}
        with TemporaryDirectory() as folder, patch.dict(os.environ, settings), patch.object(sys, "platform", system):
            built = Path(folder, script["NAME"])
            script["run"](script["command"](built))
            if system == "linux":
                audit = ["abi3audit", "--strict", "--assume-minimum-abi3=3.11", str(built)]
                subprocess.run([sys.executable, "-m", *audit], check=True, stderr=subprocess.DEVNULL)
            if compiler == "musl-gcc":
                check_symbols(built)
            print(f"{platform}: compiled and linked, {built.stat().st_size // 1024} KB")


def check_symbols(module: Path) -> None:
    """Exit if musl lacks a function that the module needs. Python's functions are in no library here."""
    listed = subprocess.run([str(MUSL_LINKER), "--list", str(module)], capture_output=True, text=True)
    absent = re.findall(r": (\S+): symbol not found", listed.stdout + listed.stderr)
    unknown = [name for name in absent if not name.startswith(("Py", "_Py"))]
    if not absent or unknown:
        sys.exit(f"musl lacks {unknown}" if unknown else f"musl's linker says: {listed.stderr or listed.stdout}")


main()
