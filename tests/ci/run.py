"""Run CI: the sessions of plan.toml, then tables of what was tested and what is wrong.

python3 tests/ci/run.py           runs the sessions that are this commit's turn
python3 tests/ci/run.py --list    prints which these are
python3 tests/ci/run.py 3         runs those of the run with the number 3
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ci.plan import Plan, number_of_commits, python_of, read_plan
from ci.queues import Result, run_queues
from ci.tables import details, faults, table_of_sessions, table_of_skips, table_of_slowest, table_of_tests

ROOT = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    """Return 0 if all that must pass has passed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored, by tests too
    plan = read_plan()
    given = [int(argument) for argument in arguments if argument.isdigit()]
    number = given[0] if given else number_of_commits(ROOT)
    missing = {python: why for python, why in plan.may_be_missing.items() if shutil.which(f"python{python}") is None}
    queues = [
        [name for name in queue.chosen(number) if python_of(name) not in missing] for queue in plan.queues.values()
    ]
    print(f"run {number}: {', '.join(name for queue in queues for name in queue)}", flush=True)
    for python, why in missing.items():
        print(f"Python {python} is NOT TESTED: {why}", flush=True)
    if "--list" in arguments:
        return 0
    with tempfile.TemporaryDirectory(prefix="ci") as folder:
        checkouts = [ROOT, *(Path(folder, name) for name in list(plan.queues)[1:])]
        for checkout in checkouts[1:]:
            copy(ROOT, checkout)
        results = run_queues(plan, dict(zip(checkouts, queues, strict=True)))
    return report(plan, missing, results)


def copy(root: Path, folder: Path) -> None:
    """Copy a checkout. Git makes no clone of another user's."""
    if subprocess.run(["git", "clone", "--quiet", root, folder], check=False).returncode:
        shutil.copytree(root, folder, symlinks=True, ignore=shutil.ignore_patterns(".nox", ".venv"))


def report(plan: Plan, missing: dict[str, str], results: list[Result]) -> int:
    """Print the tables and, last, what is wrong: the end of a long log is what is read first."""
    reports = [result.report for result in results if result.report is not None]
    for title, lines in {
        "Skipped tests": table_of_skips(reports),
        "The slowest tests": table_of_slowest(reports),
        "Details of what failed": list(details(results)),
        "Sessions": table_of_sessions(results),
        "Tests that passed": table_of_tests(plan, [result.session for result in results], missing, reports),
    }.items():
        print(f"\n=== {title}", *(lines or ["none"]), sep="\n", flush=True)
    for line in faults([result for result in results if result.session in plan.not_blocking]):
        print(f"\n=== Does not fail CI: {line}", flush=True)
    wrong = list(faults([result for result in results if result.session not in plan.not_blocking]))
    print("\n=== Failed" if wrong else "\n=== All passed", *wrong, sep="\n", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
