"""The `openrtc` command; also `openrtc-top` and `python -m openrtc_top`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command with the process's arguments."""
    from openrtc_top._cli.app import app

    name = Path(sys.argv[0]).name
    app(prog_name="python -m openrtc_top" if name == "__main__.py" else name)


if __name__ == "__main__":
    main()
