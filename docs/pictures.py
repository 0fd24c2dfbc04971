"""docs/images/top.svg: the live view of a demo worker, at a moment when a session blocks it.

python docs/pictures.py [SECONDS]      how long the worker is watched at the least; 40 by default
"""

from __future__ import annotations

import re
import sys
import time
from io import StringIO
from pathlib import Path

import anyio
from rich.console import Console

from openrtc_introspect_core import connect
from openrtc_top._demo import demo_worker
from openrtc_top._state import Found, Frame, State, Tick, reduce
from openrtc_top._view import render

SIZE = (120, 26)
TARGET = Path(__file__).parent / "images" / "top.svg"
PATIENCE_S = 30.0
"""How much longer to wait for a block to be under way."""


async def watched(socket: Path, seconds: float) -> State:
    """The view's state once it has followed the worker for `seconds` and a block is in progress."""
    state = State()
    key, name = str(socket), "demo"
    began = time.monotonic()
    async with connect(socket) as client:
        state = reduce(state, Found(key, name))
        async for snapshot in client.watch(0.2):
            state = reduce(state, Frame(key, snapshot))
            state = reduce(state, Tick(time.monotonic()))
            held = any(block.duration_ms > 100 for block in snapshot.blocks_in_progress)
            watched_s = time.monotonic() - began
            if (held and watched_s > seconds) or watched_s > seconds + PATIENCE_S:
                break
    return state


def without_web_fonts(svg: str) -> str:
    """The picture with the reader's own monospace font: it loads nothing from the network."""
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
    with demo_worker(12) as socket:
        state = anyio.run(watched, socket, seconds)
    console = Console(file=StringIO(), record=True, width=SIZE[0], height=SIZE[1], force_terminal=True)
    console.print(render(state, SIZE), end="")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(without_web_fonts(console.export_svg(title="openrtc top")), encoding="utf-8")
    print(f"{TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET.name} written")


if __name__ == "__main__":
    main()
