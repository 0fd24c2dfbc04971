"""docs/images/: the live view of a demo worker, at a moment when a session blocks it; that session's page; the blocks.

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

from openrtc_top._client.follow import follow
from openrtc_top._client.targets import worker_at
from openrtc_top._demo.process import CULPRIT, demo_worker
from openrtc_top._model.events import Event, Found, Inspected, Key, Tick
from openrtc_top._model.reducer import reduce
from openrtc_top._model.state import State
from openrtc_top._view.screen import render

SIZE = (120, 26)
FOLDER = Path(__file__).parent / "images"
PICTURES = {
    "session": (),
    "top": ("q", "escape", "escape"),
    "blocks": ("b", "down", "down", "t"),
}
"""The keys that lead from the culprit's page to each picture."""
PATIENCE_S = 30.0
"""How much longer to wait for a block to be under way."""


async def watched(socket: Path, seconds: float) -> State:
    """The view's state with the culprit's page open, once it has followed the worker for `seconds`
    and the culprit was seen holding the loop."""
    worker = worker_at(socket)
    key = str(worker.path)
    state = pressed(reduce(State(), Found(key, worker.name)), "/", *CULPRIT, "enter")
    began = time.monotonic()

    async with anyio.create_task_group() as tasks:

        def dispatch(event: Event) -> None:
            nonlocal state
            state = reduce(reduce(state, event), Tick(time.monotonic()))
            if state.page is None and state.rows:
                state = pressed(state, "enter")
            inspection = state.page.inspection if state.page is not None else None
            caught = isinstance(event, Inspected) and inspection is not None and inspection.stack
            watched_s = time.monotonic() - began
            held = caught and any(entry.lasted_ms > 100 for entry in state.entries()[:1] if entry.block.in_progress)
            if (held and watched_s > seconds) or watched_s > seconds + PATIENCE_S:
                tasks.cancel_scope.cancel()

        never = anyio.Event()
        tasks.start_soon(follow, worker, 0.25, dispatch, lambda: never, lambda: True, 0, lambda: state.inspects(key))
    return state


def pressed(state: State, *keys: str) -> State:
    """The state after these keys."""
    for key in keys:
        state = reduce(state, Key(key))
    return state


def picture(state: State) -> str:
    """The state as an SVG."""
    console = Console(file=StringIO(), record=True, width=SIZE[0], height=SIZE[1], force_terminal=True)
    console.print(render(state, SIZE), end="")
    return without_web_fonts(console.export_svg(title="openrtc top"))


def without_web_fonts(svg: str) -> str:
    """The picture with the reader's own monospace font: it loads nothing from the network."""
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
    with demo_worker(12) as socket:
        state = anyio.run(watched, socket, seconds)
    FOLDER.mkdir(exist_ok=True)
    for name, keys in PICTURES.items():
        file = FOLDER / f"{name}.svg"
        file.write_text(picture(pressed(state, *keys)), encoding="utf-8")
        print(f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file.name} written")


if __name__ == "__main__":
    main()
