from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from descriptors import open_in

from openrtc_introspect_core import AgentPool, Introspector, StateError, __version__
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._native import meter
from openrtc_introspect_core._service import attached_loops, own_box
from openrtc_introspect_core.black_box import box_path, read_box
from openrtc_introspect_testing._loops.backends import Backend

if sys.platform == "win32":
    pytest.skip("has no boxes", allow_module_level=True)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def boxes_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.box"))


def test_it_is_there_from_the_start_to_the_end(on_any_loop: Backend, runtime_dir: Path) -> None:
    """Beside the socket; its header says who writes it."""

    async def main() -> Any:
        async with Introspector(name="voice-a") as introspector:
            assert introspector.socket_path is not None
            return read_box(box_path(introspector.socket_path)), introspector.snapshot().worker

    box, worker = on_any_loop(main())
    assert (box.worker, box.pid, box.epoch, box.alive) == ("voice-a", os.getpid(), worker.epoch, True)
    assert (box.version, box.python, box.meter) == (__version__, worker.python, meter)
    assert box.started_at == pytest.approx(worker.started_at, abs=60)
    assert box.folders.cwd == os.path.join(os.getcwd(), "")
    assert __file__.startswith(os.path.dirname(box.folders.cwd)) or box.folders.own
    assert list(runtime_dir.iterdir()) == []


def test_without_a_socket_it_is_in_the_user_s_directory(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """Under the worker's own name; `close` removes it as well."""

    async def main() -> list[str]:
        introspector = Introspector(name="voice-a", socket_path=False)
        introspector.attach()
        found = boxes_in(runtime_dir)
        introspector.close()
        return [path.name for path in found]

    assert run_on_asyncio(main()) == [f"voice-a-{os.getpid()}.box"]
    assert boxes_in(runtime_dir) == []


@pytest.mark.parametrize("socket_path", [None, False])
def test_none_is_made_if_none_is_wanted(run_on_asyncio: Run, runtime_dir: Path, socket_path: Any) -> None:
    """Nothing is written to the disk but the socket."""

    async def main() -> Any:
        async with Introspector(socket_path=socket_path, black_box=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                parts_of(introspector).tick(parts_of(introspector).shared.clock())
            names = [path.suffix for path in runtime_dir.iterdir()]
            return names, parts_of(introspector).shared.box, introspector.snapshot().worker.notes

    assert run_on_asyncio(main()) == ([] if socket_path is False else [".sock"], None, [])


def test_a_pool_passes_the_arguments_on(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """As its own."""
    settings = parts_of(AgentPool(black_box=False, stall_log=None).introspector).shared.settings  # type: ignore[arg-type]
    assert (settings.black_box, settings.stall_log) == (False, None)
    settings = parts_of(AgentPool().introspector).shared.settings  # type: ignore[arg-type]
    assert (settings.black_box, settings.stall_log) == (True, "stderr")


def test_what_keeps_it_from_being_made_is_noted(
    run_on_asyncio: Run, runtime_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions are measured all the same."""
    runtime_dir.chmod(0o755)

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                await asyncio.sleep(0)
                parts_of(introspector).tick(parts_of(introspector).shared.clock())
            return introspector.snapshot().worker

    worker = run_on_asyncio(main())
    (note,) = worker.notes
    assert note.startswith("there is no black box, a death of this worker will leave no trace: socket directory ")
    assert "has mode 0755, open to others" in note
    assert worker.started == 1
    logged = [each.getMessage() for each in caplog.records if not each.getMessage().startswith("[slow-")]
    assert logged == [f"introspection of worker: {note}"]


def test_a_box_in_use_at_the_socket_s_path_is_noted(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """It is another worker's, which may have the same name and process id in a container of its own."""

    async def main() -> Any:
        async with Introspector(socket_path=runtime_dir / "w.sock") as first:
            (runtime_dir / "w.sock").unlink()
            async with Introspector(socket_path=runtime_dir / "w.sock") as second:
                return [each.snapshot().worker.notes for each in (first, second)]

    first, second = run_on_asyncio(main())
    assert first == []
    assert second[0].endswith("w.box' is there already, and is no dead worker's")


def test_a_platform_without_sockets_has_no_box(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note on the socket says enough."""
    monkeypatch.setattr(own_box, "sockets_available", lambda: False)

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            return parts_of(introspector).shared.box, introspector.snapshot().worker.notes

    assert run_on_asyncio(main()) == (None, [])


def test_a_start_that_failed_leaves_no_box(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a descriptor, and the next start has one."""

    async def main() -> Any:
        introspector = Introspector()
        with monkeypatch.context() as patched:

            def fails(*_: object) -> None:
                raise StateError("no")

            patched.setattr(attached_loops.AttachedLoops, "attach", fails)
            with pytest.raises(StateError):
                introspector.attach()
        after = open_in(runtime_dir)
        left = boxes_in(runtime_dir)
        introspector.attach()
        found = boxes_in(runtime_dir)
        await introspector.aclose()
        return after, left, len(found)

    assert run_on_asyncio(main()) == ([], [], 1)


@pytest.mark.parametrize("grouped", [False, True])
def test_for_want_of_memory_it_is_kept(run_on_asyncio: Run, runtime_dir: Path, grouped: bool) -> None:
    """Although the worker ends in order: it shows what the worker died of."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                parts_of(introspector).tick(parts_of(introspector).shared.clock())
                raise BaseExceptionGroup("", [MemoryError()]) if grouped else MemoryError

    with pytest.raises(BaseExceptionGroup if grouped else MemoryError):
        run_on_asyncio(main())
    (path,) = boxes_in(runtime_dir)
    box = read_box(path)
    assert box.snapshot is not None
    assert (box.alive, [row.session_id for row in box.snapshot.sessions]) == (False, ["job-1"])


def test_after_any_other_exception_it_is_removed(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """The exception is the host's, and the worker has ended in order."""

    async def main() -> None:
        async with Introspector():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_on_asyncio(main())
    assert boxes_in(runtime_dir) == []


# --- the stall log -------------------------------------------------------------------------------


def same_file(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


def test_the_stall_log_is_a_duplicate_until_the_end(run_on_asyncio: Run, runtime_dir: Path, tmp_path: Path) -> None:
    """Closed in programs that the host starts; the host may close its own descriptor."""

    async def main(target: Any) -> Any:
        async with Introspector(stall_log=target) as introspector:
            shared = parts_of(introspector).shared
            descriptor = shared.stall_log_fd
            assert descriptor is not None
            seen = same_file(descriptor, file.fileno()), descriptor == file.fileno(), os.get_inheritable(descriptor)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)
        return seen, shared.stall_log_fd

    with (tmp_path / "log").open("w") as file:
        for target in (file, file.fileno()):
            assert run_on_asyncio(main(target)) == ((True, False, False), None)


@pytest.mark.parametrize("stderr", ["a file", "no descriptor", "a closed descriptor", "closed", "none"])
def test_stderr_is_the_one_of_the_start(
    run_on_asyncio: Run, runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str
) -> None:
    """If it has no descriptor then, as in some test runners, the log goes nowhere."""

    class NoDescriptor:
        def fileno(self) -> int:
            if stderr == "no descriptor":
                raise io.UnsupportedOperation("fileno")
            return 2**20

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None: ...

    async def main() -> Any:
        introspector = Introspector()
        with (tmp_path / "log").open("w") as file, monkeypatch.context() as patched:
            if stderr == "closed":
                file.close()
            given = {"a file": file, "closed": file, "none": None}.get(stderr, NoDescriptor())
            patched.setattr(sys, "stderr", given)
            async with introspector:
                descriptor = parts_of(introspector).shared.stall_log_fd
                notes = introspector.snapshot().worker.notes
                return descriptor is not None and same_file(descriptor, file.fileno()), notes

    assert run_on_asyncio(main()) == (stderr == "a file", [])


def test_none_goes_nowhere(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """There is no descriptor."""

    async def main() -> Any:
        async with Introspector(stall_log=None) as introspector:
            return parts_of(introspector).shared.stall_log_fd

    assert run_on_asyncio(main()) is None


@pytest.mark.parametrize(("descriptor", "reason"), [(2**20, "Bad file descriptor"), (2**70, ".* too large .*")])
def test_a_descriptor_that_is_none_at_the_start_is_noted(
    run_on_asyncio: Run, runtime_dir: Path, descriptor: int, reason: str
) -> None:
    """The worker starts all the same."""

    async def main() -> Any:
        async with Introspector(stall_log=descriptor) as introspector:
            return parts_of(introspector).shared.stall_log_fd, introspector.snapshot().worker.notes

    found, (note,) = run_on_asyncio(main())
    assert found is None
    assert re.fullmatch(f"the stall log cannot be written, it goes nowhere: {reason}", note)
