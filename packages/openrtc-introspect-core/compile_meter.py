"""Compile the meter in C. The build hook, hatch_build.py, calls this for whoever installs core.

    python compile_meter.py       compiles it into the source tree, for an editable install, unless it is there

It needs a C compiler (CC, or the first of cc, gcc and clang on PATH) and the headers of the Python that runs it.
CFLAGS, LDFLAGS and, on macOS, ARCHFLAGS are added to the command. What is compiled uses the stable ABI, and serves
Python 3.11 and later. With a CC that compiles for another processor, _PYTHON_HOST_PLATFORM names the platform of the
wheel, such as linux-aarch64.
"""

from __future__ import annotations

import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "src/openrtc_introspect_core/_native"
NAME = "_meter.abi3.so"
COMPILERS = ("cc", "gcc", "clang")
LIMIT_S = 300.0

# Another process loads the module: one that a broken compiler has made may crash its process.
LOADING = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_meter", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.VERSION, module.SOURCES)
"""


class CannotCompile(Exception):
    """The meter in C cannot be compiled here; the text says why, in one line."""


class CompilerFailed(CannotCompile):
    """The C compiler or what it needs is missing or broken: to install it may help."""


def install() -> None:
    """Compile the module into the source tree, unless one of the same sources is there that this Python can load.

    Raise CannotCompile or OSError; then the tree is as it was.
    """
    target = FOLDER / NAME
    check_platform()
    if target.exists() and found_in(target) == expected():
        return
    with tempfile.TemporaryDirectory() as temporary:
        built = compile_into(Path(temporary))
        beside = FOLDER / f"{NAME}.{os.getpid()}"
        try:
            shutil.copy(built, beside)
            beside.replace(target)  # a process that has loaded the old one keeps it
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CannotCompile(f"the meter in C cannot be written into the source tree ({error.strerror})") from None


def remove() -> None:
    """Remove what `install` has compiled."""
    (FOLDER / NAME).unlink(missing_ok=True)


def compile_into(folder: Path) -> Path:
    """Compile the module into a folder, and return its path. Raise CannotCompile or OSError."""
    check_platform()
    built = folder / NAME
    run(command(built))
    if is_for_this_processor() and found_in(built) != expected():
        raise CompilerFailed("the meter in C was compiled, but this Python cannot load it")
    return built


def is_for_this_processor() -> bool:
    """Return whether what is compiled can be loaded here.

    ARCHFLAGS names another processor on macOS, _PYTHON_HOST_PLATFORM wherever a compiler for another one is used.
    """
    named = os.environ.get("ARCHFLAGS") or os.environ.get("_PYTHON_HOST_PLATFORM")
    return named is None or platform.machine() in named


def check_platform() -> None:
    """Raise CannotCompile where the module cannot run."""
    if os.name == "nt":
        raise CannotCompile("there is no meter in C for Windows")
    if sys.implementation.name != "cpython":
        raise CannotCompile(f"there is no meter in C for {platform.python_implementation()}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise CannotCompile("there is no meter in C for a free-threaded Python")


def command(built: Path) -> list[str]:
    """Return the command that compiles and links the module. No path gets into it: sources are named relatively."""
    version, sources = expected().split()
    includes = dict.fromkeys(sysconfig.get_path(name) for name in ("include", "platinclude"))
    mac = sys.platform == "darwin"
    return [
        *compiler(),
        *("-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden"),
        "-fno-omit-frame-pointer",  # as Python 3.15 has it: profilers unwind the stack through a task's step
        *(("-bundle", "-undefined", "dynamic_lookup") if mac else ("-shared",)),
        *(f'-DCORE_VERSION="{version}"', f'-DMETER_SOURCES="{sources}"'),
        *(f"-I{include}" for include in includes),
        *arguments("ARCHFLAGS" if mac else "", "CFLAGS"),
        *("-o", str(built)),
        *sorted(source.name for source in FOLDER.glob("*.c")),
        *arguments("LDFLAGS"),
        *(("-ldl",) if sys.platform == "linux" else ()),
    ]


def arguments(*names: str) -> list[str]:
    """Return the arguments in variables of the environment. Raise CannotCompile if a quotation has no end."""
    try:
        return [argument for name in names for argument in shlex.split(os.environ.get(name, ""))]
    except ValueError as error:
        raise CannotCompile(f"{', '.join(filter(None, names))} cannot be read ({error})") from None


def compiler() -> list[str]:
    """Return CC, or the first of the usual names that is on PATH."""
    chosen = arguments("CC") or [name for name in COMPILERS if shutil.which(name)][:1]
    if not chosen:
        raise CompilerFailed(f"there is no C compiler, {', '.join(COMPILERS)} are not on PATH")
    return chosen


def run(command: Sequence[str]) -> None:
    """Run the compiler among the sources. Raise CompilerFailed if it fails."""
    environment = {**os.environ, "LC_ALL": "C"}  # the word "error" is looked for
    try:
        done = subprocess.run(
            command, cwd=FOLDER, env=environment, capture_output=True, text=True, errors="replace", timeout=LIMIT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerFailed(f"the C compiler {command[0]} does not run ({error})") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else f"exit {done.returncode}")
        raise CompilerFailed(f"the C compiler {command[0]} failed ({reason})")


def expected() -> str:
    """Return the version and the sources' checksum that a module compiled from this tree has."""
    version = runpy.run_path(str(FOLDER.parent / "_version.py"))["__version__"]
    return f"{version} {runpy.run_path(str(FOLDER / 'sources.py'))['checksum'](FOLDER)}"


def found_in(module: Path) -> str | None:
    """Return the version and the sources' checksum of a compiled module. None: this Python cannot load it."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", LOADING, str(module)], capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    try:
        install()
    except (CannotCompile, OSError) as error:
        sys.exit(str(error))
