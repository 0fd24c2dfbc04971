"""The one entry for developers and CI.

    python3 noxfile.py                 lists what there is
    python3 noxfile.py tests           the tests, on the Python that runs this
    python3 noxfile.py tests-3.13      the tests on another one
    python3 noxfile.py demo -- --once  what follows -- goes to the session's command

Run so, this file needs Python 3.11 or newer with pip and nothing else: it puts nox and uv into .venv and runs
itself again there. Where nox is installed, `nox -s NAME` does the same; `nox -s tests` then means every
supported Python.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("noxfile.py needs Python 3.11 or newer, this is {}.{}".format(*sys.version_info))

ROOT = Path(__file__).resolve().parent


def main(arguments: list[str]) -> None:
    """Hand leading session names, and the options after them, to the nox in .venv."""
    names = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(names) :] or ([] if names else ["--list"])
    if names:  # a session asked for by name is not skipped in silence
        here = "tests-{}.{}".format(*sys.version_info)
        named = [here if name == "tests" else name for name in names]
        options = ["--error-on-missing-interpreters", "--session", *named, *options]
    # This Python may not be on PATH, and .venv may have been made by another one.
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).resolve().parent)
    command = [str(tools_python()), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *options]
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def tools_python() -> Path:
    """The Python of .venv, with nox and uv installed."""
    home = ROOT / ".venv"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if succeeds(python, "-c", "import nox, uv"):
        return python
    print("first run: putting nox and uv into .venv", file=sys.stderr, flush=True)
    if not succeeds(python, "-c", ""):
        try:
            venv.create(home, clear=True, symlinks=os.name != "nt", with_pip=True)
        except subprocess.CalledProcessError:  # no ensurepip: Debian has it in a package of its own
            venv.create(home, clear=True, symlinks=os.name != "nt")
    pip: list[str | Path] = [python, "-m", "pip"]
    if not succeeds(*pip):
        pip = [sys.executable, "-m", "pip", "--python", python]
    if subprocess.run([*pip, "install", "--quiet", "nox[uv]"], check=False).returncode:
        sys.exit("noxfile.py could not install nox into .venv with pip (on Debian: apt install python3-pip)")
    return python


def succeeds(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])


# From here on nox reads the file.

import nox
from packaging.version import InvalidVersion, Version

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.sessions = ["lint", "tests", "coverage", "wheels"]
# Sessions start hundreds of processes: without it, each of them would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
FREE_THREADED = ["3.14t"] if shutil.which("python3.14t") else []
"""Few have one: it is tested where it is there, and not missed elsewhere."""
NEXT = ["3.15"] if shutil.which("python3.15") else []
"""The same for the Python that comes after those supported."""
CORE, TOP, TESTING = "openrtc-introspect-core", "openrtc-top", "openrtc-introspect-testing"
PACKAGES = {name: ROOT / "packages" / name for name in (CORE, TOP, TESTING)}
VERSION_FILE = PACKAGES[CORE] / "src/openrtc_introspect_core/_version.py"
SETTINGS = nox.project.load_toml(ROOT / "pyproject.toml")
TRIES = {
    CORE: [["tests/smoke/core_alone.py"]],
    TOP: [["-m", "openrtc_top", "--version"], ["-m", "openrtc_top", "demo", "--once", "--seconds", "2"]],
    TESTING: [["-c", "import openrtc_introspect_testing"]],
}
"""How an installed package is tried: arguments of its Python."""
SUITES = nox.project.load_toml(ROOT / "tests/suites/suites.toml")
COMPILES = shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
"""Whether the step meter in C can be built here."""
PARALLEL = ["-n2", "--dist=loadfile"]
"""pytest's, for all tests: they wait more than they compute. A file's tests stay together, in their order."""


def show_pyenv_pythons() -> None:
    """pyenv puts only its default Python on PATH: name them all, the default first."""
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


def install(session: nox.Session, *packages: str, group: str | None = None) -> None:
    """The packages from source, editable, and a dependency group of the root pyproject.toml."""
    editable = [argument for name in packages for argument in ("--editable", str(PACKAGES[name]))]
    session.install(*editable, *(nox.project.dependency_groups(SETTINGS, group) if group else ()))


@nox.session(python=[*PYTHONS, *FREE_THREADED])
def tests(session: nox.Session) -> None:
    """The tests of all packages, on a free-threaded Python core's (-- pytest's arguments; -n0: one by one)."""
    install(session, *PACKAGES, group="test")
    lines_unknown = [f"packages/{CORE}/tests"] if session.python in FREE_THREADED else []
    session.run("pytest", *PARALLEL, *(session.posargs or lines_unknown))


@nox.session
def coverage(session: nox.Session) -> None:
    """Core's tests again, measured: they must cover it to 95 % (-- pytest's arguments)."""
    install(session, *PACKAGES, group="coverage")
    session.env["COVERAGE_FILE"] = str(Path(session.create_tmp()) / "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or [f"packages/{CORE}/tests"]))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def mutations(session: nox.Session) -> None:
    """Faults put into a copy of the sources, one at a time: tests must turn red (-- names of some)."""
    install(session, *PACKAGES, group="test")
    session.run("python", "tests/mutations.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, the arrows between packages, and the names of change fragments."""
    install(session, *PACKAGES, group="lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")
    session.run("towncrier", "build", "--draft", "--version=next", silent=True)


@nox.session
def build(session: nox.Session) -> None:
    """Three sdists in dist/, and three wheels made from them that equal those made from the source."""
    session.install(*nox.project.dependency_groups(SETTINGS, "build"))
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    direct = Path(session.create_tmp()) / "direct"
    shutil.rmtree(direct, ignore_errors=True)
    for folder in PACKAGES.values():
        # Without --wheel, uv makes the sdist, unpacks it elsewhere and makes the wheel from that.
        session.run("uv", "build", "--quiet", f"--out-dir={dist}", str(folder))
        session.run("uv", "build", "--quiet", f"--out-dir={direct}", "--wheel", str(folder))
    sdists, built = sorted(dist.glob("*.tar.gz")), sorted(dist.glob("*.whl"))
    if not len(sdists) == len(built) == len(PACKAGES):
        session.error(f"expected {len(PACKAGES)} sdists and wheels, found {sdists} {built}")
    for wheel in built:
        if not filecmp.cmp(wheel, direct / wheel.name, shallow=False):
            session.error(f"{wheel.name} from the sdist differs from the one from the source tree")
    session.run("twine", "check", "--strict", *map(str, [*sdists, *built]))


@nox.session(requires=["build"])
@nox.parametrize("package", list(PACKAGES), ids=["core", "top", "testing"])
def wheels(session: nox.Session, package: str) -> None:
    """The built wheels in a clean environment: core alone, with top, with testing."""
    built = {name: str(next((ROOT / "dist").glob(f"{name.replace('-', '_')}-*.whl"))) for name in PACKAGES}
    session.install(*dict.fromkeys([built[CORE], built[package]]))
    if package == CORE:
        session.run("python", "-I", "tests/smoke/core_alone.py")
    elif package == TOP:
        session.run("openrtc", "--version")
        session.run("openrtc-top", "--version")
        session.run("openrtc", "runbook", "debugging-density", silent=True)
        session.run("python", "-I", "-m", "openrtc_top", "--help")
    else:
        session.run("python", "-I", "-c", "from openrtc_introspect_testing import *")


@nox.session(python=["3.11", "3.14"])
def compiled(session: nox.Session) -> None:
    """The wheel with the step meter in C, for this platform, in dist/compiled; core's tests with it (-- pytest's)."""
    if not COMPILES:
        session.skip("no C compiler, or no Python.h: the step meter in C is NOT TESTED here")
    install_compiled(session)
    session.install("--editable", str(PACKAGES[TESTING]), *nox.project.dependency_groups(SETTINGS, "test"))
    session.run("python", "-c", "from openrtc_introspect_core import _step_meter")
    session.run("pytest", *(session.posargs or [f"packages/{CORE}/tests"]))


def install_compiled(session: nox.Session) -> None:
    """Core's wheel with the step meter in C: the stable ABI kept, and as many Linux systems served as can be."""
    session.install(*nox.project.dependency_groups(SETTINGS, "compiled"))
    temporary, compiled = Path(session.create_tmp()) / "wheel", ROOT / "dist" / "compiled"
    for folder in (temporary, compiled):
        shutil.rmtree(folder, ignore_errors=True)
    environment = {"OPENRTC_INTROSPECT_COMPILED": "1"}
    # With this Python, whichever the session's is: the wheel is for all of them.
    build = ["uv", "build", "--quiet", "--wheel", f"--python={sys.executable}", f"--out-dir={temporary}"]
    session.run(*build, str(PACKAGES[CORE]), env=environment)
    wheel = next(temporary.glob("*.whl"))
    session.run("abi3audit", "--strict", str(wheel), silent=True)
    if sys.platform == "linux":
        session.run("auditwheel", "repair", f"--wheel-dir={compiled}", str(wheel), silent=True)
    else:
        shutil.move(wheel, compiled / wheel.name)
    session.install(str(next(compiled.glob("*.whl"))))


@nox.session
def runtimes(session: nox.Session) -> None:
    """The tests with the real livekit-agents, openrtc, aiohttp and websockets (-- pytest's arguments)."""
    install(session, *PACKAGES, group="runtimes")
    session.run("pytest", *(session.posargs or ["tests/runtimes"]))


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, and the public peer beside them (-- the arguments of python -m benchmarks)."""
    install(session, *PACKAGES, group="bench")
    if COMPILES:
        install_compiled(session)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=["3.11", "3.13"])
def lowest(session: nox.Session) -> None:
    """The tests with the oldest dependencies that the packages accept (-- pytest's arguments)."""
    editable = [argument for folder in PACKAGES.values() for argument in ("--editable", str(folder))]
    session.install("--resolution", "lowest-direct", *editable)
    session.install(*nox.project.dependency_groups(SETTINGS, "test"))  # the newest, of what is not there yet
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
def cpython(session: nox.Session) -> None:
    """CPython's own asyncio tests, with metering and without (-- their modules, such as test_tasks; all if none).

    On Debian's Pythons they are in packages of their own, such as libpython3.13-testsuite.
    """
    install(session, CORE)
    session.run("python", "tests/cpython/asyncio_suite.py", *session.posargs)


@nox.session(python=[*PYTHONS[1:], *NEXT])
@nox.parametrize("suite", list(SUITES), ids=list(SUITES))
def suites(session: nox.Session, suite: str) -> None:
    """Other projects' own tests, with metering and without (-- a suite's name, and pytest's arguments for it)."""
    chosen, *selection = session.posargs or [suite]
    if not any(each.startswith(chosen) for each in SUITES):
        session.error(f"no suite is called {chosen}: there are {', '.join(SUITES)}")
    if not suite.startswith(chosen):
        session.skip(f"{chosen} was asked for")
    project = SUITES[suite]
    name = project["package"].split()[0]
    install(session, CORE, TESTING)
    if COMPILES:
        install_compiled(session)
    # Not below this folder, whose pytest settings would be theirs; and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="ort", dir="/tmp") as folder:
        session.env["TMPDIR"] = folder
        session.install("pip")
        download = ["-m", "pip", "download", "--quiet", "--no-deps", f"--no-binary={name}", f"--dest={folder}"]
        session.run("python", *download, project["package"].replace(" ", ""))
        sdist = next(Path(folder).glob("*.tar.gz"))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        unpacked = sdist.with_name(sdist.name.removesuffix(".tar.gz"))
        groups = nox.project.load_toml(unpacked / "pyproject.toml") if "group" in project else {}
        grouped = nox.project.dependency_groups(groups, project["group"]) if groups else ()
        session.install(project["package"], *project["requires"], *grouped)
        session.run("python", "tests/suites/compare.py", suite, str(unpacked), *selection)


@nox.session
def soak(session: nox.Session) -> None:
    """A million sessions with watchers in one worker (-- the arguments of tests/soak.py)."""
    install(session, CORE)
    session.install("uvloop; sys_platform != 'win32'")
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def fuzz(session: nox.Session) -> None:
    """The wire, coverage-guided; what is found stays in tests/fuzz/corpus (-- seconds for each target)."""
    install(session, CORE)
    session.install("--only-binary", ":all:", "atheris >= 3.1")
    session.run("python", "tests/fuzz/targets.py", *(session.posargs or ["60"]))


@nox.session(requires=["build"])
def release(session: nox.Session) -> None:
    """The six artifacts: contents checked, each installed by itself and tried; and dist/sbom.json beside them."""
    session.install(*nox.project.dependency_groups(SETTINGS, "release"))
    dist = ROOT / "dist"
    built, sdists = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    session.run("check-wheel-contents", *map(str, built))
    for artifacts in (built, sdists):
        found = {
            name: next(a for a in artifacts if a.name.startswith(f"{name.replace('-', '_')}-")) for name in PACKAGES
        }
        for name, tries in TRIES.items():
            home = Path(session.create_tmp()) / f"{name}-{'sdist' if artifacts is sdists else 'wheel'}"
            session.run("uv", "venv", "--quiet", "--clear", f"--python={session.python or sys.executable}", str(home))
            python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
            files = [str(file) for file in dict.fromkeys([found[CORE], found[name]])]
            session.run("uv", "pip", "install", "--quiet", f"--python={python}", *files)
            for arguments in tries:
                session.run(python, "-I", *arguments, external=True, silent=True)
            if artifacts is built and name == TOP:  # which has all that a worker and an operator install
                sbom = str(dist / "sbom.json")
                session.run("cyclonedx-py", "environment", "--output-reproducible", "--output-file", sbom, python)
    session.log(f"{len(built) + len(sdists)} artifacts installed and tried")


@nox.session
def docs(session: nox.Session) -> None:
    """The docs as a site in site/, with every link checked; nothing in it comes from the network."""
    session.install(*nox.project.dependency_groups(SETTINGS, "docs"))
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "site").rglob("*.html")]
    loaded = re.compile(
        r"""<(?:script|img|iframe)[^>]* src="https?:|<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="https?:"""
    )
    if any(loaded.search(page) for page in pages):
        session.error("a page of the site loads something from the network")


@nox.session
def demo(session: nox.Session) -> None:
    """A worker with one culprit, and the live view on it (-- openrtc demo's arguments)."""
    install(session, CORE, TOP)
    session.run("openrtc", "demo", *session.posargs, interrupt_timeout=5.0)


@nox.session
def picture(session: nox.Session) -> None:
    """The pictures in docs/images, from a real run."""
    install(session, CORE, TOP)
    session.run("python", "docs/pictures.py", *session.posargs)


@nox.session
def schema(session: nox.Session) -> None:
    """docs/wire-protocol.schema.json, from the messages in the code."""
    install(session, CORE)
    text = session.run("python", "-m", "openrtc_introspect_core.wire.schema", silent=True, stderr=None)
    (ROOT / "docs/wire-protocol.schema.json").write_text(str(text), encoding="utf-8")


@nox.session(venv_backend="none")
def bump(session: nox.Session) -> None:
    """-- X.Y.Z makes it the version of all three packages."""
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
