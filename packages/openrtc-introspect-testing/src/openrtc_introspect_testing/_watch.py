"""Watching every event loop that runs during a test.

Two classes have all the ways in which an asyncio loop comes to run: `asyncio.Runner` (behind
asyncio.run, anyio and pytest-asyncio) and the loops' own base. While a test is watched, their methods
see to it that an introspector is attached first, so that even the loop's first task is metered. No
event loop policy is touched. Trio's runs are seen in `_trio_runs`, as soon as someone imports Trio.
When the test is over, everything is as it was.

The code under test may have introspectors of its own. Those know the sessions: as long as a test
is watched, a session's scope that is opened on a watched loop is opened with the watch as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import linecache
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from openrtc_introspect_core import Block, Introspector, Location, StateError
from openrtc_introspect_core._running_loop import Loop, running_loop
from openrtc_introspect_core._scope import SessionScope
from openrtc_introspect_core._service_thread import SERVICE_THREAD
from openrtc_introspect_core._watchdog import WATCHDOG_THREAD

from ._findings import Finding, fix_of
from ._imports import WhenImported

_OUR_THREADS = "openrtc-introspect"


class Watch(Introspector):
    """An introspector that serves nothing and looks at the loop with or without sessions.

    It measures in real time on any loop: time that a FakeLoop only pretends to spend blocks nobody.
    """

    def __init__(self, threshold_ms: float) -> None:
        super().__init__(name="pytest", socket_path=False, slow_session_threshold_ms=threshold_ms)
        self.folder = Path.cwd()
        """What the blocks' files are told from."""
        self.loop: Loop | None = None
        self._read = 0
        # What is found is told once, by the test's failure.
        self._blocks.logged = False

    def begin(self, loop: Loop) -> None:
        """Attaches to the one loop that it watches."""
        self.attach(loop)
        self.loop = loop
        self._sessions_live(True)

    def session(self, session_id: str, **kwargs: Any) -> SessionScope:
        running = running_loop()
        if self.loop is not None and running is not None and running is not self.loop:
            raise StateError(
                "the fixture `introspector` measures the first loop that ran after it was set up, and this is another "
                "one: make an Introspector of your own here"
            )
        return super().session(session_id, **kwargs)

    def _sessions_live(self, some: bool) -> None:
        super()._sessions_live(True)  # the watchdog looks for blocks of no session, too

    def over(self) -> bool:
        """Whether its loop will never run again."""
        return all(each.hook.ended() for each in tuple(self._loops))

    def new_blocks(self) -> list[Block]:
        """Those since it was last asked."""
        blocks = self.blocks(since=self._read)
        self._read = blocks[-1].seq if blocks else self._read
        return blocks


class Watcher:
    """A context manager: all loops that run inside are watched.

    threshold_ms: what counts as a block. root: folder that files are told from.
    """

    def __init__(self, threshold_ms: float, root: Path) -> None:
        self.threshold_ms = threshold_ms
        self.loops = 0
        """How many loops have been watched."""
        self.faults: list[str] = []
        """What kept loops from being watched."""
        self._root = root
        self._watches: list[Watch] = []
        self._found: list[Finding] = []
        """In loops that are closed."""
        self._by_loop: dict[Loop, Watch] = {}
        self._handed_out: Watch | None = None
        self._mirrored: dict[SessionScope, SessionScope] = {}
        self._lock = threading.Lock()
        self._over = False
        self._patch = pytest.MonkeyPatch()
        self._when_imported = (WhenImported("uvloop", self._see_uvloop), WhenImported("trio", self._see_trio))

    def __enter__(self) -> Watcher:
        with contextlib.ExitStack() as undo:
            undo.push(self.__exit__)
            self._through(asyncio.Runner, "get_loop", after=True)
            self._through(asyncio.Runner, "run")
            self._see_loops(asyncio.BaseEventLoop)
            for each in self._when_imported:
                each.__enter__()
            self._mirror_scopes()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        with self._lock:
            watches, self._watches = self._watches, []
            self._by_loop.clear()
        with contextlib.ExitStack() as parts:  # each ends, whatever the others raise
            for watch in watches:
                parts.callback(_end, watch)
            parts.callback(self._patch.undo)
            for each in self._when_imported:
                parts.callback(each.__exit__)

    def introspector(self) -> Watch:
        """One that is attached to the running loop, or else to the first loop that runs from now on."""
        if self._handed_out is None:
            watch = self._handed_out = Watch(self.threshold_ms)
            running = running_loop()
            if running is not None:
                self._attach(watch, running)
        return self._handed_out

    def found(self) -> list[Finding]:
        """The blocks since it was last asked."""
        with self._lock:
            watches = list(self._watches)
            found, self._found = self._found, []
        return found + [self._finding(block, watch) for watch in watches for block in watch.new_blocks()]

    # --- loops -----------------------------------------------------------------------------------

    def _see_loops(self, kind: Any) -> None:
        self._through(kind, "run_until_complete")
        self._through(kind, "run_forever")
        # asyncio's base closes only the last part of a loop.
        owner = asyncio.SelectorEventLoop if kind is asyncio.BaseEventLoop else kind
        close = owner.close

        def let_go_first(loop: Any) -> None:
            if not loop.is_running():
                with self._told("a loop that is closed"):
                    self._let_go(loop)
            close(loop)

        self._patch.setattr(owner, "close", let_go_first)

    def _see_uvloop(self) -> None:
        import uvloop

        self._see_loops(uvloop.Loop)

    def _see_trio(self) -> None:
        with self._told("Trio"):  # a version of Trio may have them elsewhere
            from ._trio_runs import see_runs

            see_runs(self._patch, self._watch)

    def _through(self, owner: Any, name: str, *, after: bool = False) -> None:
        """Calls of `owner.name` watch the loop first, or where it is only made by them, afterwards."""
        original = getattr(owner, name)

        def watched(this: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if after:
                loop = original(this, *args, **kwargs)
                self._watch(loop)
                return loop
            begins = False
            if asyncio._get_running_loop() is None:
                with contextlib.suppress(RuntimeError):  # closed: the call itself says so
                    begins = self._watch(this.get_loop() if isinstance(this, asyncio.Runner) else this)
            if begins and name in vars(this):  # the introspector times this method on the loop itself
                return getattr(this, name)(*args, **kwargs)
            return original(this, *args, **kwargs)

        self._patch.setattr(owner, name, watched)

    def _watch(self, loop: Loop) -> bool:
        """Whether it is watched since now."""
        try:
            waits = self._handed_out if self._handed_out is not None and self._handed_out.loop is None else None
            if loop in self._by_loop and waits is None:
                return False
            # What was to be called before the test was over may be called only now: a guest run's next turn is.
            if self._over or threading.current_thread().name.startswith(_OUR_THREADS):
                return False
            if isinstance(loop, asyncio.AbstractEventLoop) and (loop.is_closed() or loop.is_running()):
                return False
            self._attach(waits or Watch(self.threshold_ms), loop)
        except Exception as error:  # the test is not to suffer from it
            self.faults.append(f"{type(loop).__module__}.{type(loop).__qualname__}: {error!r}")
            return False
        return True

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What fails inside is no error of the code under test."""
        try:
            yield
        except Exception as error:
            self.faults.append(f"{what}: {error!r}")

    def _attach(self, watch: Watch, loop: Loop) -> None:
        before = self._by_loop.get(loop)
        if before is not None:
            _end(before)
        watch.begin(loop)
        with self._lock:
            self.loops += before is None
            ended = [each for each, its in self._by_loop.items() if its.over()]
            over = [self._by_loop.pop(each) for each in ended]
            self._by_loop[loop] = watch
            self._watches.append(watch)
        for each in over:  # a test may run a thousand loops, one after the other
            _end(each)

    def _let_go(self, loop: Loop) -> None:
        """The loop ends, and is not kept alive by what was found in it."""
        with self._lock:
            watch = self._by_loop.pop(loop, None)
        if watch is not None:
            _end(watch)
            if watch is not self._handed_out:  # whoever has that may read it on
                with self._lock:
                    self._watches.remove(watch)
                self._found += [self._finding(block, watch) for block in watch.new_blocks()]

    # --- sessions --------------------------------------------------------------------------------

    def _mirror_scopes(self) -> None:
        enter, leave = SessionScope.__enter__, SessionScope.__exit__

        def entered(scope: SessionScope) -> Any:
            mirrored = None
            with self._told("a session's scope"):
                mirrored = self._mirror_of(scope)
                if mirrored is not None:
                    mirrored.__enter__()
            try:
                session = enter(scope)
            except BaseException:
                if mirrored is not None:
                    mirrored.__exit__(None, None, None)
                raise
            if mirrored is not None:
                self._mirrored[scope] = mirrored
            return session

        def left(scope: SessionScope, *error: Any) -> None:
            leave(scope, *error)
            mirrored = self._mirrored.pop(scope, None)
            if mirrored is not None:
                with self._told("a session's scope"):
                    mirrored.__exit__(*error)

        self._patch.setattr(SessionScope, "__enter__", entered)
        self._patch.setattr(SessionScope, "__exit__", left)

    def _mirror_of(self, scope: SessionScope) -> SessionScope | None:
        """The same session, of the watch on the loop that runs here; None where there is none."""
        running = running_loop()
        loops = [running] if running is not None else list(self._by_loop)
        watch = self._by_loop.get(loops[0]) if len(loops) == 1 else None
        if watch is None or isinstance(scope._introspector, Watch) or scope._session is not None:
            return None
        try:
            return Introspector.session(
                watch, scope._session_id, agent_name=scope._agent_name, metadata=scope._metadata
            )
        except StateError:  # two introspectors with a session of one name: whose it is cannot be told
            return None

    # --- findings --------------------------------------------------------------------------------

    def _finding(self, block: Block, watch: Watch) -> Finding:
        place = block.location
        on_trio = not isinstance(watch.loop, asyncio.AbstractEventLoop)
        file, source = None, ""
        if place is not None:
            path = watch.folder / place.file
            source = linecache.getline(str(path), place.line).strip()
            file = path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else place.file
            if not path.exists():
                file = place.file
        return Finding(
            session_id=block.session_id,
            agent_name=block.agent_name,
            task_name=block.task_name,
            duration_ms=block.duration_ms,
            cause=block.cause,
            detail=block.detail,
            file=file,
            line=place.line if place is not None else None,
            function=place.function if place is not None else None,
            source=source,
            fix=fix_of(block.cause, _called_from(place, block.stack), source, on_trio=on_trio),
        )


def _called_from(place: Location | None, stack: Sequence[Location]) -> list[str]:
    """The files of the calls further in than `place`; `stack` has the innermost last."""
    inner = itertools.takewhile(lambda each: each != place, reversed(stack))
    return [each.file for each in inner]


def _end(watch: Watch) -> None:
    loop = watch.loop
    here = asyncio._get_running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_running() and here is not loop:
        # It runs on in another thread, and is that thread's to touch.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(watch.close)
            return
    watch.close()


def end_threads() -> None:
    """Waits until no thread is left that only watches needed. They end by themselves, but a run may be over sooner."""
    for thread in (WATCHDOG_THREAD, SERVICE_THREAD):
        thread.end_if_idle(2.0)
