"""The command that runs the benchmarks.

python -m benchmarks [NAME ...] [--before TREE] [--json FILE] [--docs FILE] [--quick] [--list]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _machine, _table
from ._case import SEED, Details, Row, title
from ._runner import BEFORE_VARIABLE, run_all

NAMES = (
    "attribution", "mixed", "reaction", "blocks", "mixed_steps", "delays", "wall_time", "accounting", "threads",
    "memory", "cost", "steps", "idle", "fifty", "snapshot", "waits", "blocked", "frame", "view", "fleet",
    "footprint", "attach", "diagnosis", "adversaries", "scale", "peers",
)  # fmt: skip
SLOW = ("instructions",)
"""These run only if they are named."""
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main() -> int:
    """Run the command and return its exit code.

    The code is 1 if a measurement failed. A missed target is a figure, not a failure.
    """
    options = _options()
    if options.list:
        for name in (*NAMES, *SLOW):
            print(f"{name:12} {title(_load(name))}")
        return 0
    if options.before:
        os.environ[BEFORE_VARIABLE] = str(options.before)
    began = time.monotonic()
    load = _machine.load_1m()
    record: dict[str, Any] = {"machine": _machine.describe(), "load_1m": load, "seed": SEED}
    record |= {"quick": options.quick, "benchmarks": {}}
    print(f"seed {SEED}, load {load}, {_line(record['machine'])}", file=sys.stderr)
    tables: list[tuple[str, list[Row], list[Details]]] = []
    for name in options.names or NAMES:
        module = _load(name)
        print(f"{name}: {title(module)}", file=sys.stderr, flush=True)
        results, failures = run_all(module.cases(options.quick), lambda line: print(line, file=sys.stderr, flush=True))
        rows: list[Row] = module.rows(results)
        details: list[Details] = module.details(results) if hasattr(module, "details") else []
        tables.append((name, rows, details))
        record["benchmarks"][name] = {
            "rows": [_table.as_json(row) for row in rows], "results": results, "failures": failures,
        }  # fmt: skip
    record["seconds"] = round(time.monotonic() - began, 1)
    print(_text(tables))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.docs:
        _rewrite(options.docs, _markdown(record, tables))
    return int(any(benchmark["failures"] for benchmark in record["benchmarks"].values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks to run; all but the slow ones if none is named"
    )
    parser.add_argument("--before", type=Path, metavar="TREE", help="measure the build of this other checkout as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables between the marks of this page")
    parser.add_argument("--quick", action="store_true", help="short runs: they show that it works, not the figures")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    options = parser.parse_args()
    if options.before and not (options.before / "packages").is_dir():
        parser.error(f"--before {options.before}: it has no folder 'packages'; name a checkout of this repository")
    unknown = [name for name in options.names if name not in (*NAMES, *SLOW)]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join((*NAMES, *SLOW))}")
    return options


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


def _line(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {machine[name]}" for name in _machine.PACKAGES)
    return f"{machine['cores']} cores of {machine['cpu']}, {machine['os']}, {machine['python']}, {packages}"


def _text(tables: list[tuple[str, list[Row], list[Details]]]) -> str:
    lines = []
    for name, rows, _ in tables:
        lines += [(f"[{name}]", "", "", "", ""), *(_table.cells(row) for row in rows)]
    more = [_table.details_text(one) for _, _, details in tables for one in details]
    return "\n\n".join([_table.text(_table.HEADING, lines), *more])


def _markdown(record: dict[str, Any], tables: list[tuple[str, list[Row], list[Details]]]) -> str:
    kind = "A short run (`--quick`): these figures only show that it works. " if record["quick"] else ""
    parts = [
        f"{kind}{_line(record['machine'])}. Seed {record['seed']}; load average at the start "
        f"{record['load_1m']}; {record['seconds']:.0f} s in all."
    ]
    lines = []
    for name, rows, _ in tables:
        lines += [(f"**{name}**", "", "", "", ""), *(_table.cells(row) for row in rows)]
    parts.append(_table.markdown(_table.HEADING, lines))
    parts += [_table.details_markdown(one) for _, _, details in tables for one in details]
    return "\n\n".join(parts)


def _rewrite(page: Path, figures: str) -> None:
    before = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    after, count = pattern.subn(lambda _: f"{BEGIN}\n\n{figures}\n\n{END}", before)
    if count != 1:
        sys.exit(f"{page} has no place for the figures: {BEGIN} … {END}, once")
    page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
