"""The child process of the runner: one case, its result written to a file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main(module: str, function: str, arguments: str, result: str) -> None:
    measured = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(result).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
