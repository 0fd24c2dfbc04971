"""The one command for developers and CI.

    python3 noxfile.py                 lists the sessions
    python3 noxfile.py tests           runs the tests on the Python that runs this file
    python3 noxfile.py tests-3.13      runs the tests on another Python
    python3 noxfile.py demo -- --once  passes the arguments after -- to the session's command

Run as a script, this file needs Python 3.11 or newer with pip and nothing else: it installs nox and uv into .venv and
runs itself again there. If nox is installed, `nox -s NAME` does the same, and `nox -s tests` means every supported
Python.
"""

from __future__ import annotations

import filecmp
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("noxfile.py needs Python 3.11 or newer, this is {}.{}".format(*sys.version_info))

ROOT = Path(__file__).resolve().parent


def main(arguments: list[str]) -> None:
    """Run nox from .venv with the leading session names and the options after them."""
    names = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(names) :] or ([] if names else ["--list"])
    if names:  # a session requested by name is never skipped silently
        here = "-{}.{}".format(*sys.version_info)
        named = [name + here if name in ("tests", "programs") else name for name in names]
        options = ["--error-on-missing-interpreters", "--session", *named, *options]
    # This Python may not be on PATH, and another one may have made .venv.
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).resolve().parent)
    command = [str(tools_python()), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *options]
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def tools_python() -> Path:
    """Return the Python of .venv after nox and uv are installed there."""
    home = ROOT / ".venv"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if succeeds(python, "-c", "import nox, uv"):
        return python
    print("first run: installing nox and uv into .venv", file=sys.stderr, flush=True)
    if not succeeds(python, "-c", ""):
        try:
            venv.create(home, clear=True, symlinks=os.name != "nt", with_pip=True)
        except subprocess.CalledProcessError:  # Debian ships ensurepip in a separate package
            venv.create(home, clear=True, symlinks=os.name != "nt")
    pip: list[str | Path] = [python, "-m", "pip"]
    if not succeeds(*pip):
        pip = [sys.executable, "-m", "pip", "--python", python]
    if subprocess.run([*pip, "install", "--quiet", "nox[uv]"], check=False).returncode:
        sys.exit("noxfile.py could not install nox into .venv with pip (on Debian: apt install python3-pip)")
    return python


def succeeds(*command: str | Path) -> bool:
    """Return whether the command can be started and exits with 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])


# The rest is read by nox.

import nox
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.sessions = ["lint", "tests", "programs-3.13", "coverage", "release"]
# Sessions start hundreds of processes. With this variable set, each would compile every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

CORE, TOP, TESTING = "openrtc-introspect-core", "openrtc-top", "openrtc-introspect-testing"
PACKAGES = {name: ROOT / "packages" / name for name in (CORE, TOP, TESTING)}
PYTHONS = nox.project.python_versions(nox.project.load_toml(PACKAGES[CORE] / "pyproject.toml"))
"""The supported Pythons, by core's classifiers. docs/tested-versions.md lists which session runs on which Python."""
FREE_THREADED = [python for python in ("3.13t", "3.14t", "3.15t") if shutil.which(f"python{python}")]
"""The free-threaded builds on PATH: tests/smoke/free-threaded-python.sh makes one."""
MSGSPEC_ON_313T = {
    '#error "Py_GIL_DISABLED is only supported in Python 3.14+"': "#define _Py_STATICALLY_ALLOCATED_FLAG 0",
    "#if PY314_PLUS\n#ifdef Py_GIL_DISABLED": "#if PY314_PLUS || defined(Py_GIL_DISABLED)\n#ifdef Py_GIL_DISABLED",
}
"""What is changed in msgspec's sources for 3.13t: its objects' heads are then laid out as on 3.14t."""
OLDER_ON_313T = ("hypothesis", "rpds-py", "watchfiles")
"""What has wheels for 3.13t in older releases only."""
DIST = ROOT / "dist"
VERSION_FILE = PACKAGES[CORE] / "src/openrtc_introspect_core/_version.py"
SETTINGS = nox.project.load_toml(ROOT / "pyproject.toml")
TRIALS = {
    CORE: [["python", "-I", "tests/smoke/core_alone.py"], ["python", "-I", "tests/smoke/one_block.py"]],
    TOP: [
        ["openrtc", "--version"],
        ["openrtc-top", "--version"],
        ["openrtc", "runbook", "debugging-density"],
        ["python", "-I", "-m", "openrtc_top", "--help"],
        ["python", "-I", "-m", "openrtc_top", "demo", "--once", "--seconds", "2"],
    ],
    TESTING: [["python", "-I", "-c", "from openrtc_introspect_testing import *"]],
}
"""The commands that try each installed package, from its environment's folder of programs."""
SUITES = nox.project.load_toml(ROOT / "tests/suites/suites.toml")
COMPILED, METER = "OPENRTC_INTROSPECT_COMPILED", "OPENRTC_INTROSPECT_METER"
"""Variables of the environment: whether the meter in C is compiled, and which meter is used."""
WHEELS = "OPENRTC_TEST_WHEELS"
"""The variable that names the folder of wheels from which the tests of containers make images."""
REHEARSED = [PYTHONS[0], PYTHONS[-1]]
"""The oldest and the newest Python: what is to be published is installed on both."""
COMPILER = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
COMPILES = (
    os.name == "posix"
    and os.environ.get(COMPILED) != "0"
    and COMPILER is not None
    and Path(sysconfig.get_path("include"), "Python.h").exists()
)
"""Whether the meter in C is compiled on this machine, by the Python that runs nox."""
METER_IN_C = PACKAGES[CORE] / "src/openrtc_introspect_core/_native/_meter.abi3.so"
"""The meter in C that editable installs share, whatever their Python."""
PARALLEL = ["-n4", "--dist=loadfile", "--no-loadscope-reorder"]
"""Options of pytest. Tests wait more than they compute, so four files run at a time, those that take longest first."""


def show_pyenv_pythons() -> None:
    """Put all of pyenv's Pythons on PATH, the default first: pyenv shows only the default."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return
    default, installed = (
        subprocess.run([pyenv, *question], capture_output=True, text=True, check=False).stdout.strip()
        for question in (["version-name"], ["versions", "--bare"])
    )
    others = [name for name in reversed(installed.split()) if re.fullmatch(r"3\.1[1-5]\.\d+", name)]
    os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys([*default.split(":"), *others]))


show_pyenv_pythons()


def install(session: nox.Session, *packages: str, group: str | None = None, options: tuple[str, ...] = ()) -> str:
    """Install packages from source, editable, and a dependency group of the root pyproject.toml; return the meter.

    The session fails if it is not the expected one. The meter in C is compiled first, by the Python that runs nox: it
    serves every Python, and not each has headers.
    """
    if COMPILES:
        session.run(sys.executable, str(PACKAGES[CORE] / "compile_meter.py"), external=True)
    else:
        session.warn(f"no C compiler, no Python.h, or {COMPILED}=0: the meter in C is NOT TESTED here")
    required = dependencies(group)
    if session.python == "3.13t":
        install_msgspec(session)
        options = (*options, *(f"--only-binary={name}" for name in OLDER_ON_313T))
        required = tuple(line for line in required if not line.startswith("greenback"))  # it switches the GIL on
    session.install(*options, *editable(*packages), *required)
    in_c = METER_IN_C.exists() and session.python not in FREE_THREADED and session.env.get(METER) != "python"
    meter = "C" if in_c else "Python"
    check_meter(session, "python", meter)
    return meter


def install_msgspec(session: nox.Session) -> None:
    """Install msgspec on 3.13t from its sources, two lines of which are changed: they refuse to compile there.

    It has wheels for free-threaded builds from 3.14 on. On 3.13t it works as far as our tests need it.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack_sdist(session, "msgspec", Path(folder))
        source = unpacked / "src/msgspec/_core.c"
        text = source.read_text(encoding="utf-8")
        for theirs, ours in MSGSPEC_ON_313T.items():
            if text.count(theirs) != 1:
                session.error(f"{unpacked.name} is written otherwise than those that compile on 3.13t: no {theirs!r}")
            text = text.replace(theirs, ours)
        source.write_text(text, encoding="utf-8")
        session.install(str(unpacked))


def unpack_sdist(session: nox.Session, requirement: str, folder: Path) -> Path:
    """Download an sdist, and return the folder in `folder` into which it is unpacked."""
    session.install("pip")
    source_only = f"--no-binary={Requirement(requirement).name}"
    download = ["python", "-m", "pip", "download", "--quiet", "--no-deps", source_only, f"--dest={folder}", requirement]
    session.run_install(*download)
    sdist = next(folder.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return sdist.with_name(sdist.name.removesuffix(".tar.gz"))


def check_meter(session: nox.Session, python: str, expected: str) -> None:
    """Print which meter a Python uses. The session fails if it is not the expected one, C or Python."""
    session.run(python, "-I", str(ROOT / "tests/smoke/meter.py"), expected, external=True)


def run_tests(
    session: nox.Session, meter: str, *arguments: str, runner: str = "pytest", env: dict[str, str] | None = None
) -> None:
    """Run pytest with arguments. Its report, in which the suite is called after the meter, is for tests/ci/run.py."""
    report = [f"--junitxml={ROOT / '.nox/reports' / session.name}.xml", "-o", f"junit_suite_name={meter}"]
    report += ["-o", "junit_logging=log", "-o", "junit_log_passing_tests=false"]
    session.run(*runner.split(), *report, *arguments, env=env)


def pytest_arguments(session: nox.Session, *folders: str) -> list[str]:
    """Return the arguments behind --, and the folders of tests unless a path is among them."""
    given = list(session.posargs)
    return given if any((ROOT / argument.partition("::")[0]).exists() for argument in given) else [*given, *folders]


def dependencies(group: str | None) -> tuple[str, ...]:
    """Return the requirements of a dependency group of the root pyproject.toml; None: nothing."""
    return nox.project.dependency_groups(SETTINGS, group) if group else ()


def editable(*packages: str) -> list[str]:
    """Return the installer's arguments for packages from source."""
    return [argument for name in packages for argument in ("--editable", str(PACKAGES[name]))]


@nox.session(python=[*PYTHONS, *FREE_THREADED])
def tests(session: nox.Session) -> None:
    """Run the tests of all packages but those of whole programs (-- pytest's arguments; -n0: one file at a time).

    A free-threaded Python runs core's tests only: the others need the line of a block, which is unknown there.
    """
    free_threaded = session.python in FREE_THREADED
    meter = install(session, *((CORE, TESTING) if free_threaded else PACKAGES), group="test")
    folders, patience = [], []
    if free_threaded:
        folders = [f"packages/{CORE}/tests"]
        patience = ["-o", "faulthandler_timeout=600"]  # the hypothesis that there is for 3.13t is in Python
    run_tests(session, meter, *PARALLEL, *patience, "-m", "not program", *pytest_arguments(session, *folders))


@nox.session(python=PYTHONS)
def programs(session: nox.Session) -> None:
    """Run the tests of whole programs, which are the same on every Python (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, group="test")
    run_tests(session, meter, *PARALLEL, "-n2", "-m", "program", *pytest_arguments(session, "tests"))


@nox.session(python=PYTHONS)
def pure(session: nox.Session) -> None:
    """Run core's tests with the meter in Python, from the wheel for all platforms (-- pytest's arguments)."""
    session.install(str(PACKAGES[CORE]), *dependencies("test"), env={COMPILED: "0"})
    session.install(*editable(TESTING))
    check_meter(session, "python", "Python")
    run_tests(session, "Python", *PARALLEL, *pytest_arguments(session, f"packages/{CORE}/tests"))


@nox.session
def sanitized(session: nox.Session) -> None:
    """Run core's tests of the meter in C under two sanitizers: of memory and of behaviour (-- pytest's arguments)."""
    library = session.run("cc", "-print-file-name=libasan.so", silent=True, external=True)
    copied = Path(session.create_tmp()) / CORE
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(PACKAGES[CORE], copied, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    session.install(*dependencies("test"), *editable(CORE, TESTING))
    environment = {
        "LD_PRELOAD": str(library).strip(),
        # Python leaves objects behind at its end. What is found goes to a file: pytest captures standard error.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={copied / 'found'}",
        "CFLAGS": "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1",
        "PYTHONPATH": str(copied / "src"),
    }
    session.run("python", str(copied / "compile_meter.py"), env=environment)
    session.run("python", "tests/smoke/meter.py", "C", env=environment)
    rooms = (f"packages/{CORE}/tests/{room}" for room in ("native", "accounting", "loops", "blocks"))
    # The sanitizer takes the place of glibc's allocator, and does not let greenlets copy stacks.
    chosen = pytest_arguments(session, *rooms)
    selected = ("-k", "not (heap or greenlet or test_portals or mallinfo)", *chosen)
    run_tests(session, "C", "-n0", *selected, env=environment)


@nox.session(python=["3.13"])
def coverage(session: nox.Session) -> None:
    """Require that core's tests cover 95 % of core, with the meter in Python (-- pytest's arguments).

    Up to Python 3.12 nobody may read the variables of a frame that is traced, so what reads them could not be tested.
    """
    session.env[METER] = "python"
    meter = install(session, *PACKAGES, group="coverage")
    session.env["COVERAGE_FILE"] = str(Path(session.create_tmp()) / "coverage")
    session.run("coverage", "erase")
    tested = pytest_arguments(session, f"packages/{CORE}/tests")
    run_tests(session, meter, *tested, runner="coverage run -m pytest")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def mutations(session: nox.Session) -> None:
    """Check that tests notice faults put into a copy of the sources (-- names, --list).

    The meter is the one in Python, into which faults are put.
    """
    session.env[METER] = "python"
    install(session, *PACKAGES, group="test")
    session.run("python", "tests/mutations.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, imports between modules, and the names of change fragments."""
    install(session, *PACKAGES, group="lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")  # its cache takes what other settings have read for current
    session.run("towncrier", "build", "--draft", "--version=next", silent=True)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build core's wheels in dist/ and check them: the one for all platforms and, with the meter in C, this platform's.

    Without a C compiler or Python's headers there is only the first.
    """
    session.install(*dependencies("release"))
    sources = Path(session.create_tmp()) / "sdist"
    for folder in (DIST, sources):
        clear(folder)
    built = build_wheels(session, CORE, build_sdist(session, CORE, sources))
    check_artifacts(session, built.values())


@nox.session
def release(session: nox.Session) -> None:
    """Build, check, install and try all artifacts in dist/, with dist/sbom.json.

    Each kind of wheel and each sdist is installed into a clean environment of its own, with core's of the same kind, on
    the oldest and the newest Python, and without an index: what they require is collected first.
    """
    session.install("pip", *dependencies("release"))
    check_sources(session)
    clear(DIST)
    sdists = {name: build_sdist(session, name, DIST) for name in PACKAGES}
    check_reproducible(session, sdists)
    built = {name: build_wheels(session, name, sdist) for name, sdist in sdists.items()}
    check_artifacts(session, [*sdists.values(), *(wheel for wheels in built.values() for wheel in wheels.values())])
    pure = {name: wheels["Python"] for name, wheels in built.items()}
    kinds = {"wheel": pure, "sdist": sdists}
    if COMPILES:
        kinds["wheel-in-C"] = {**pure, CORE: built[CORE]["C"]}
    collected = Path(session.create_tmp()) / "collected"
    clear(collected)
    for version in REHEARSED:
        python = find_python(version)
        if python is None:
            session.warn(f"Python {version} is not here: the artifacts are NOT TESTED on it")
            continue
        collect_requirements(session, version, collected)
        for kind, artifacts in kinds.items():
            try_artifacts(session, python, kind, artifacts, collected)
    for artifact in sorted([*DIST.glob("*.whl"), *DIST.glob("*.tar.gz"), *DIST.glob("*.json")]):
        session.log(f"{artifact.stat().st_size / 1024:5.0f} KB  {artifact.name}")


def find_python(version: str) -> str | None:
    """Return the path of an installed Python, on PATH or from the Debian tool beside the repository. None: not here."""
    beside = Path(tempfile.gettempdir()) / f"openrtc-python{version}/usr/bin"
    return shutil.which(f"python{version}", path=os.pathsep.join([os.environ["PATH"], str(beside)]))


def collect_requirements(session: nox.Session, version: str, folder: Path) -> None:
    """Download the wheels of all that our packages require on a Python, and of what builds their sdists."""
    settings = [nox.project.load_toml(package / "pyproject.toml") for package in PACKAGES.values()]
    lines = [line for each in settings for line in each["project"]["dependencies"] + each["build-system"]["requires"]]
    listed, pinned = folder / "requirements.in", folder / f"requirements-{version}.txt"
    listed.write_text("\n".join(line for line in lines if not line.startswith(CORE)), encoding="utf-8")
    session.run(
        "uv", "pip", "compile", "--quiet", f"--python-version={version}", f"--output-file={pinned}", str(listed)
    )
    download = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={version}", f"--dest={folder}"]
    session.run("python", "-m", "pip", "download", *download, f"--requirement={pinned}", silent=True)


def try_artifacts(session: nox.Session, python: str, kind: str, artifacts: dict[str, Path], collected: Path) -> None:
    """Install one artifact of each package into an environment of its own, without an index, and try it.

    An sdist has the meter in C if that Python has headers; otherwise its build says that it has the one in Python.
    """
    from_folder = ["--no-cache", "--no-index", f"--find-links={collected}"]
    headers = "import pathlib, sysconfig; print(pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
    has_headers = "True" in str(session.run(python, "-c", headers, silent=True, log=False, external=True))
    meter = "C" if kind == "wheel-in-C" or (kind == "sdist" and COMPILES and has_headers) else "Python"
    if (kind, meter) == ("sdist", "Python"):
        folder = Path(session.create_tmp()) / "notice"
        build = ["uv", "build", "--wheel", f"--python={python}", f"--out-dir={folder}", str(artifacts[CORE])]
        if "the meter in Python is installed" not in str(session.run(*build, *from_folder, silent=True)):
            session.error(f"the build of the sdist on {python} does not say that the meter is the one in Python")
    for name, trials in TRIALS.items():
        home = Path(session.create_tmp()) / f"{Path(python).name}-{kind}-{name}"
        session.run("uv", "venv", "--quiet", "--clear", f"--python={python}", str(home))
        programs = home / ("Scripts" if os.name == "nt" else "bin")
        installed = str(programs / "python")
        files = [str(file) for file in dict.fromkeys([artifacts[CORE], artifacts[name]])]
        session.run("uv", "pip", "install", "--quiet", *from_folder, f"--python={installed}", *files)
        check_meter(session, installed, meter)
        for program, *arguments in trials:
            session.run(str(programs / program), *arguments, external=True, silent=True)
        if (kind, name) == ("wheel", TOP) and python == find_python(
            REHEARSED[0]
        ):  # all that a worker and an operator install
            sbom = str(DIST / "sbom.json")
            session.run("cyclonedx-py", "environment", "--output-reproducible", "--output-file", sbom, installed)


def check_sources(session: nox.Session) -> None:
    """Fail if git knows nothing of a file among the sources: it would get into the artifacts."""
    if (ROOT / ".git").exists():
        untracked = ["git", "ls-files", "--others", "--exclude-standard", "packages", "runbooks"]
        stray = str(session.run(*untracked, silent=True, external=True)).split()
        if stray:
            session.error(f"git does not track {', '.join(stray)}: add or remove it, or it would be published")


def check_reproducible(session: nox.Session, sdists: dict[str, Path]) -> None:
    """Build the sdists again from a copy of the sources, with another path, times and modes: the bytes are the same."""
    copied = Path(session.create_tmp()) / "copied"
    shutil.rmtree(copied, ignore_errors=True)
    skipped = shutil.ignore_patterns("*.so", "__pycache__", "tests")
    for folder in ("packages", "runbooks"):
        shutil.copytree(ROOT / folder, copied / folder, symlinks=True, ignore=skipped, copy_function=shutil.copyfile)
    shutil.copy(ROOT / ".gitignore", copied)
    for name, sdist in sdists.items():
        session.run("uv", "build", "--quiet", "--sdist", f"--out-dir={copied}", str(copied / "packages" / name))
        if not filecmp.cmp(sdist, copied / sdist.name, shallow=False):
            session.error(f"{sdist.name} from a copy of the sources differs")


def clear(folder: Path) -> None:
    """Make the folder, and remove the artifacts of an earlier build."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]:
        old.unlink()


def build_sdist(session: nox.Session, name: str, folder: Path) -> Path:
    """Build the sdist of a package into a folder, and return its path."""
    session.run("uv", "build", "--quiet", "--sdist", f"--out-dir={folder}", str(PACKAGES[name]))
    return next(folder.glob(f"{name.replace('-', '_')}-*.tar.gz"))


def build_wheels(session: nox.Session, name: str, sdist: Path) -> dict[str, Path]:
    """Build the wheels of a package into dist/; return them by the language of their meter.

    Each is built from the sdist, and must equal the wheel built from the source tree.
    """
    built = {}
    for meter in ["Python", "C"] if name == CORE and COMPILES else ["Python"]:
        wheel, direct = (build_wheel(session, source, meter) for source in (sdist, PACKAGES[name]))
        if not filecmp.cmp(wheel, direct, shallow=False):
            session.error(f"{wheel.name} from the sdist differs from the one from the source tree")
        built[meter] = Path(shutil.copy(repaired(session, wheel) if meter == "C" else wheel, DIST))
    return built


def build_wheel(session: nox.Session, source: Path, meter: str, **variables: str) -> Path:
    """Build the wheel of an sdist or a source tree, with the meter in C or not, and variables in the environment."""
    folder = Path(session.create_tmp()) / f"{source.name}-{meter}"
    clear(folder)
    build = ["uv", "build", "--quiet", "--wheel", f"--python={sys.executable}", f"--out-dir={folder}", str(source)]
    session.run(*build, env={COMPILED: str(int(meter == "C")), **variables})
    return next(folder.glob("*.whl"))


def repaired(session: nox.Session, wheel: Path) -> Path:
    """Check that a wheel uses the stable ABI only; on Linux let it run on as many distributions as possible."""
    session.run("abi3audit", "--strict", str(wheel), silent=True)
    if sys.platform != "linux":
        return wheel
    folder = Path(session.create_tmp()) / "repaired"
    clear(folder)
    moment = {"SOURCE_DATE_EPOCH": "1580601600"}  # of the files in the wheel, as Hatch sets it: the bytes stay the same
    session.run("auditwheel", "repair", f"--wheel-dir={folder}", str(wheel), silent=True, env=moment)
    return next(folder.glob("*.whl"))


def check_artifacts(session: nox.Session, artifacts: Iterable[Path]) -> None:
    """Check what the artifacts contain."""
    files = [str(file) for file in artifacts]
    session.run("twine", "check", "--strict", *files)
    session.run("check-wheel-contents", *(file for file in files if file.endswith(".whl")))


@nox.session
def portable(session: nox.Session) -> None:
    """Compile and link the meter in C for musl, an old glibc and macOS, on x86-64 and arm64. Nothing is run."""
    session.install("ziglang ~= 0.17.0", *dependencies("release"))
    cache = str(Path(session.create_tmp()).resolve() / "zig")
    session.run("python", "tests/smoke/portable.py", env={"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache})


@nox.session
def musl(session: nox.Session) -> None:
    """Compile a Python with musl, install core there with the meter in C, and try it (-- a script and arguments)."""
    require(session, "musl", "musl-gcc", "apt-get")
    system, home = (Path(session.create_tmp()).resolve() / name for name in ("system", "environment"))
    session.run("tests/smoke/python-elsewhere.sh", "musl", str(system), external=True)
    session.run("uv", "venv", "--quiet", "--clear", f"--python={system / 'bin/python3'}", str(home))
    python = str(home / "bin/python")
    install = ["uv", "pip", "install", "--quiet", "--no-cache", f"--python={python}", str(PACKAGES[CORE])]
    session.run(*install, env={"CC": "musl-gcc", COMPILED: "1"})
    try_elsewhere(session, [python, "-I"])


@nox.session
def arm64(session: nox.Session) -> None:
    """Compile core's wheel for arm64, and try it on Debian's Python for arm64, emulated (-- a script and arguments)."""
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64"
    require(session, "arm64", compiler, emulator, "apt-get")
    session.install(*dependencies("release"))
    system, packages = (Path(session.create_tmp()).resolve() / name for name in ("system", "packages"))
    session.run("tests/smoke/python-elsewhere.sh", "arm64", str(system), external=True)
    python = [emulator, "-L", str(system), str(system / "usr/bin/python3")]
    ask = "import sys; print('{}.{}'.format(*sys.version_info))"
    version = str(session.run(*python, "-c", ask, silent=True, external=True)).strip()
    platform = {"CC": compiler, "_PYTHON_HOST_PLATFORM": "linux-aarch64", "ARCHFLAGS": ""}
    wheel = repaired(session, build_wheel(session, PACKAGES[CORE], "C", **platform))
    shutil.rmtree(packages, ignore_errors=True)
    target = [f"--target={packages}", "--python-platform=aarch64-manylinux_2_36", f"--python-version={version}"]
    session.run("uv", "pip", "install", "--quiet", "--only-binary=:all:", *target, str(wheel))
    session.env["PYTHONPATH"] = str(packages)
    try_elsewhere(session, python)


def require(session: nox.Session, platform: str, *programs: str) -> None:
    """Skip the session of a platform if a program is missing."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        session.skip(f"{platform} is NOT TESTED, for lack of {', '.join(missing)} (CONTRIBUTING.md names the packages)")


def try_elsewhere(session: nox.Session, python: list[str]) -> None:
    """Try core on a Python of another platform, or run there what is given behind --."""
    trials = [["tests/smoke/meter.py", "C"], ["tests/smoke/core_alone.py"], ["tests/smoke/one_block.py"]]
    for trial in [session.posargs] if session.posargs else trials:
        session.run(*python, *trial, external=True)


@nox.session
def runtimes(session: nox.Session) -> None:
    """Run the tests with real livekit-agents, openrtc and servers, of ASGI too (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, group="runtimes")
    run_tests(session, meter, *pytest_arguments(session, "tests/runtimes"))


@nox.session(python=PYTHONS[:-1])
def pipecat(session: nox.Session) -> None:
    """Run the tests with real pipecat pipelines, on the Pythons that pipecat has wheels for (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, group="pipecat")
    audio = "ignore:'audioop' is deprecated:DeprecationWarning"  # up to 3.12, where pipecat imports it
    run_tests(session, meter, *PARALLEL, "-n2", "-W", audio, *pytest_arguments(session, "tests/pipelines"))


@nox.session
def containers(session: nox.Session) -> None:
    """Run the tests in real containers, by podman and runc from Debian; they need root (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, group="test")
    session.install("pip")
    folder = Path(session.create_tmp()).resolve() / "wheels"
    clear(folder)
    wheels = [build_wheel(session, PACKAGES[name], meter) for name in (CORE, TOP)]
    session.run("python", "-m", "pip", "download", "--quiet", f"--dest={folder}", *map(str, wheels))
    patience = ["-o", "faulthandler_timeout=600"]  # the first test makes the images
    tested = pytest_arguments(session, "tests/containers")
    run_tests(session, meter, "-n0", *patience, *tested, env={WHEELS: str(folder)})


@nox.session(python=PYTHONS[1:])
def ground(session: nox.Session) -> None:
    """Run the tests with pinned event loops, compilers, instruments and allocators (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, group="ground")
    run_tests(session, meter, *PARALLEL, "-n2", *pytest_arguments(session, "tests/ground"))


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, also of other tools (-- the arguments of python -m benchmarks)."""
    install(session, *PACKAGES, group="bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=["3.11", "3.13"])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest accepted dependencies (-- pytest's arguments)."""
    meter = install(session, *PACKAGES, options=("--resolution", "lowest-direct"))
    session.install(*dependencies("test"))  # the newest of what is not installed
    run_tests(session, meter, *PARALLEL, *session.posargs)


@nox.session(python=["3.13"])
def newest(session: nox.Session) -> None:
    """Run the tests with pre-releases of the dependencies, if there are any, and print which (-- pytest's arguments).

    A failure is the news of what the next releases break. CI prints it and stays green.
    """
    meter = install(session, *PACKAGES, group="test", options=("--upgrade", "--prerelease=allow"))
    listed = json.loads(str(session.run("uv", "pip", "list", "--quiet", "--format=json", silent=True, stderr=None)))
    versions = {each["name"]: each["version"] for each in listed if "editable_project_location" not in each}
    early = [name for name, version in versions.items() if Version(version).is_prerelease]
    session.log("versions: %s", ", ".join(f"{name} {version}" for name, version in versions.items()))
    session.log("pre-releases: %s", ", ".join(early) or "none, so `tests` runs with the same versions")
    if early or session.posargs:
        run_tests(session, meter, *PARALLEL, *pytest_arguments(session))


@nox.session(python=PYTHONS)
def cpython(session: nox.Session) -> None:
    """Compare CPython's own asyncio tests metered and plain (-- modules such as test_tasks).

    Debian ships these tests in separate packages, such as libpython3.13-testsuite.
    """
    install(session, CORE)
    session.run("python", "tests/cpython/asyncio_suite.py", *session.posargs)


@nox.session(python=PYTHONS[1:])
@nox.parametrize("suite", list(SUITES), ids=list(SUITES))
def suites(session: nox.Session, suite: str) -> None:
    """Compare other projects' own tests metered and plain (-- a suite, pytest's arguments)."""
    chosen, *selection = session.posargs or [suite]
    if not any(each.startswith(chosen) for each in SUITES):
        session.error(f"no suite is called {chosen}: there are {', '.join(SUITES)}")
    if not suite.startswith(chosen):
        session.skip(f"{chosen} was requested")
    project = SUITES[suite]
    install(session, CORE, TESTING)
    # Outside of this repository, whose pytest settings would apply. The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ort", dir="/tmp") as folder:
        session.env["TMPDIR"] = folder
        unpacked = unpack_sdist(session, project["package"].replace(" ", ""), Path(folder))
        groups = nox.project.load_toml(unpacked / "pyproject.toml") if "group" in project else {}
        grouped = nox.project.dependency_groups(groups, project["group"]) if groups else ()
        session.install(project["package"], *project["requires"], *grouped)
        session.run("python", "tests/suites/compare.py", suite, str(unpacked), *selection)


@nox.session
def soak(session: nox.Session) -> None:
    """Run a million sessions with watchers in one worker (-- arguments of tests/soak.py), and ten thousand freezes."""
    install(session, CORE)
    session.install("uvloop; sys_platform != 'win32'")
    session.run("python", "tests/soak.py", *session.posargs)
    if not session.posargs:
        session.run("python", "tests/soak_of_freezes.py")


@nox.session(python=["3.11", "3.12", "3.13"])
def fuzz(session: nox.Session) -> None:
    """Fuzz the wire and the black box, guided by coverage (-- seconds for each target).

    Inputs that fail are kept in tests/fuzz/corpus, and `tests` replays them.
    """
    install(session, CORE)
    session.install("--only-binary", ":all:", "atheris >= 3.1")
    session.run("python", "tests/fuzz/targets.py", *(session.posargs or ["60"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the docs into site/; check every link, and that nothing is loaded remotely."""
    session.install(*dependencies("docs"))
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "site").rglob("*.html")]
    loaded = re.compile(
        r"""<(?:script|img|iframe)[^>]* src="https?:|<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="https?:"""
    )
    if any(loaded.search(page) for page in pages):
        session.error("a page of the site loads something from the network")


@nox.session
def demo(session: nox.Session) -> None:
    """Show the live view of a worker with one culprit (-- openrtc demo's arguments)."""
    install(session, CORE, TOP)
    session.run("openrtc", "demo", *session.posargs, interrupt_timeout=5.0)


@nox.session
def picture(session: nox.Session) -> None:
    """Draw the pictures in docs/images from a real run."""
    install(session, CORE, TOP)
    session.run("python", "docs/pictures.py", *session.posargs)


@nox.session
def schema(session: nox.Session) -> None:
    """Write the protocol's schema, and the tables of fields on its page and the black box's, from the code."""
    install(session, CORE)
    session.run("python", "-m", "openrtc_introspect_core.wire.fields", str(ROOT / "docs/wire-protocol.md"))
    session.run("python", "-m", "openrtc_introspect_core.black_box.fields", str(ROOT / "docs/black-box.md"))
    text = session.run("python", "-m", "openrtc_introspect_core.wire.schema", silent=True, stderr=None)
    (ROOT / "docs/wire-protocol.schema.json").write_text(str(text), encoding="utf-8")


@nox.session(venv_backend="none")
def bump(session: nox.Session) -> None:
    """Set the version of all three packages and their pins (-- X.Y.Z)."""
    if len(session.posargs) != 1:
        session.error("bump takes one version: bump -- 1.2.3")
    version = session.posargs[0]
    try:
        normal = str(Version(version))
    except InvalidVersion:
        session.error(f"{version!r} is not a version by PEP 440; accepted: 1.2.3, 1.2.3rc1, 1.2.3.dev4")
    if version != normal:
        session.error(f"write {version!r} the way PEP 440 does: {normal!r}")
    places = {VERSION_FILE: r'(__version__ = ")[^"]+'}
    places |= {PACKAGES[name] / "pyproject.toml": rf'("{CORE} == )[^"]+' for name in (TOP, TESTING)}
    texts = {}
    for file, pattern in places.items():
        texts[file], found = re.subn(pattern, rf"\g<1>{version}", file.read_text(encoding="utf-8"))
        if found != 1:
            session.error(f"{file.relative_to(ROOT)}: one version expected, {found} found")
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
