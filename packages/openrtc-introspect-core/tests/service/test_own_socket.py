from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from openrtc_introspect_core import (
    Introspector,
)
from openrtc_introspect_testing._loops.backends import Backend
from openrtc_introspect_testing._loops.introspection_threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_another_worker_s_socket_of_the_same_name_is_left_alone(on_timed_loops: Backend, runtime_dir: Path) -> None:
    """A file that someone put in the place of our socket is not removed."""

    async def main() -> Path:
        async with Introspector() as introspector:
            path = introspector.socket_path
            assert path is not None
            path.unlink()
            path.write_text("someone else's")
        return path

    path = on_timed_loops(main())
    assert path.read_text() == "someone else's"
    path.unlink()
    assert list(runtime_dir.iterdir()) == []
    assert ours_end()
