from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from descriptors import open_in

from openrtc_introspect_core.black_box import LoopState, read_box
from openrtc_introspect_core.black_box._layout import MAX_LOOPS, SECTIONS, unpack_slot_head
from openrtc_introspect_core.black_box._writer import MAX_WORKER_RECORD, BoxWriter, died_of_memory
from openrtc_introspect_core.wire import Location

MakeBox = Callable[..., BoxWriter]
RunScript = Callable[..., Any]


def test_slots_are_written_in_turn(make_box: MakeBox, record: Callable[..., bytes]) -> None:
    """Each record has the next number, and the one before it stays."""
    box = make_box()
    for number in range(1, 6):
        box.write_worker(record(f"job-{number}"))
        heads = [
            unpack_slot_head(os.pread(box.fd, 16, SECTIONS.worker.offset + slot * SECTIONS.worker.size))
            for slot in (0, 1)
        ]
        assert sorted(head.number for head in heads) == [number - 1, number]
        snapshot = read_box(box.path).snapshot
        assert snapshot is not None
        assert snapshot.sessions[0].session_id == f"job-{number}"


def test_a_record_is_one_write(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, record: Callable[..., bytes]
) -> None:
    """So a writer that is killed spoils one slot at most."""
    box = make_box()
    written: list[int] = []
    pwrite = os.pwrite

    def noted(descriptor: int, data: bytes, offset: int) -> int:
        written.append(offset)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", noted)
    box.write_worker(record("job-1"))
    box.write_loop(0, LoopState(state="free"))
    assert written == [SECTIONS.worker.offset + SECTIONS.worker.size, SECTIONS.loops[0].offset + SECTIONS.loops[0].size]


def test_the_longest_record_fits(make_box: MakeBox) -> None:
    """It does not reach the next slot."""
    box = make_box()
    longest = b'{"names":["' + b"x" * (MAX_WORKER_RECORD - 14) + b'"]}'
    assert len(longest) == MAX_WORKER_RECORD
    box.write_worker(longest)
    box.write_worker(longest)
    box.write_loop(0, LoopState(at=1e9))
    assert read_box(box.path).at == 1e9


def test_the_file_takes_little_space_at_first(make_box: MakeBox) -> None:
    """Nearly all of it is a hole."""
    assert os.stat(make_box().path).st_blocks * 512 <= 64 * 1024


# --- the loops' sections -------------------------------------------------------------------------


def test_sixteen_loops_have_a_section(make_box: MakeBox) -> None:
    """Each has its own; a further loop has none."""
    box = make_box()
    taken = [box.take_loop() for _ in range(MAX_LOOPS + 1)]
    assert taken == [*range(MAX_LOOPS), None]
    assert [box.loop_section(index) for index in range(MAX_LOOPS)] == [tuple(each) for each in SECTIONS.loops]


def test_a_section_is_erased_before_another_loop_has_it(make_box: MakeBox) -> None:
    """Else that loop would show what the one before it did, and its records would have lower numbers."""
    box = make_box()
    indices = [box.take_loop() for _ in range(MAX_LOOPS)]
    for _ in range(3):
        box.write_loop(5, LoopState(state="held", at=2e9))
    box.give_loop_back(5)
    assert (indices[5], box.take_loop()) == (5, None)
    box.erase_used()
    assert read_box(box.path).loops == []
    assert box.take_loop() == 5
    box.write_loop(5, LoopState(state="free", at=1e9))
    assert [state.state for state in read_box(box.path).loops] == ["free"]


def test_a_stack_that_does_not_fit_is_shortened(make_box: MakeBox) -> None:
    """To its innermost calls, and if these are too long as well, it is left out."""
    box = make_box()
    calls = [Location(file="/srv/" + "x" * 400, line=line, function="f") for line in range(64)]
    box.write_loop(0, LoopState(stack=calls))
    box.write_loop(1, LoopState(stack=[msgspec.structs.replace(call, file="x" * 4000) for call in calls]))
    shortened, left_out = (state.stack for state in read_box(box.path).loops)
    assert shortened == calls[-16:]
    assert left_out == []


def test_a_descriptor_that_the_host_has_closed_is_not_used(make_box: MakeBox, tmp_path: Path) -> None:
    """It may be that of the host's own file by now, which gets no byte, and stays open."""
    box = make_box()
    with open(tmp_path / "of the host", "wb") as file:
        descriptor = box.fd
        os.dup2(file.fileno(), descriptor)
        with pytest.raises(OSError, match="its descriptor was closed by other code"):
            box.write_worker(b"{}")
        box.close()
        assert os.fstat(descriptor).st_size == 0
        os.close(descriptor)


# --- ending --------------------------------------------------------------------------------------


def test_once_it_is_removed_and_closed_nothing_is_left(runtime_dir: Path, make_box: MakeBox) -> None:
    """Neither a file nor a descriptor, and writing does nothing."""
    box = make_box()
    assert len(open_in(runtime_dir)) == (sys.platform == "linux")
    box.remove()
    box.close()
    box.close()
    box.write_worker(b"{}")
    box.give_loop_back(0)
    box.erase_used()
    assert (list(runtime_dir.iterdir()), box.fd) == ([], -1)
    assert open_in(runtime_dir) == []


def test_another_worker_s_box_is_not_removed(runtime_dir: Path, make_box: MakeBox) -> None:
    """That of a worker that has taken its place."""
    box = make_box("w", runtime_dir / "w.sock")
    box.close()
    make_box("other", runtime_dir / "w.sock")
    box.remove()
    assert read_box(box.path).worker == "other"


def test_closing_does_not_wait_for_a_write(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system may be slow; the write closes the file when it has ended."""
    box = make_box()
    writing, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        writing.set()
        assert go_on.wait(60)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    writer = threading.Thread(target=box.write_worker, args=[b"{}"])
    writer.start()
    assert writing.wait(60)
    descriptor = box.fd
    box.close()
    assert os.fstat(descriptor)
    go_on.set()
    writer.join()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(descriptor)
    assert box.fd == -1


def test_a_write_that_falls_short_is_an_error(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full; the record before is still there."""
    box = make_box()
    box.write_worker(b'{"at":5}')
    pwrite = os.pwrite
    given: list[int] = []

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if given:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        given.append(offset)
        return pwrite(descriptor, data[:20], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        box.write_worker(b'{"at":66666666}')
    assert read_box(box.path).recorded_at == 5


def test_an_exception_for_want_of_memory_is_recognised() -> None:
    """Alone or in a group."""
    assert died_of_memory(MemoryError())
    assert died_of_memory(BaseExceptionGroup("", [ValueError(), ExceptionGroup("", [MemoryError()])]))
    assert not died_of_memory(ExceptionGroup("", [ValueError()]))
    assert not died_of_memory(KeyboardInterrupt())
    assert not died_of_memory(None)


# --- dying ---------------------------------------------------------------------------------------

KILLED_WHILE_WRITING = """
    import os, random, signal, sys, time
    import msgspec
    from openrtc_introspect_core.black_box import LoopState, read_box
    from openrtc_introspect_core.black_box._layout import Header
    from openrtc_introspect_core.black_box._records import WorkerRecord
    from openrtc_introspect_core.black_box._writer import BoxWriter

    def write_for_ever(ready):
        box = BoxWriter(Header(worker="w", pid=os.getpid()))
        for number in range(1, 2**30):
            size = random.choice((0, 100, 200_000))
            names = ["x" * size, str(number)]
            box.write_worker(msgspec.json.encode(WorkerRecord(at=number, names=names, rows_left_out=number)))
            box.write_loop(0, LoopState(at=number, session_id=str(number), agent_name="y" * random.choice((0, 9000))))
            if number == 1:
                os.write(ready, b"\\0")

    random.seed(14)
    seen, until = 0, time.monotonic() + 1.0
    while time.monotonic() < until:
        heard, ready = os.pipe()
        child = os.fork()
        if not child:
            write_for_ever(ready)
        assert os.read(heard, 1) == b"\\0"
        os.close(heard), os.close(ready)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        box = read_box(os.path.join(os.environ["OPENRTC_RUNTIME_DIR"], f"w-{child}.box"))
        assert not box.alive and box.pid == child
        assert box.rows_left_out == box.recorded_at
        assert [state.session_id for state in box.loops] == [str(int(box.loops[0].at))]
        seen += 1
        os.unlink(box.path)
    print(seen)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_writer_that_is_killed_at_any_moment_leaves_a_readable_box(run_script: RunScript) -> None:
    """The latest record of each section, or the one before."""
    done = run_script(KILLED_WHILE_WRITING)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 1


def test_a_box_is_read_while_it_is_written(make_box: MakeBox, record: Callable[..., bytes]) -> None:
    """Each reader sees a whole record."""
    box = make_box()
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            box.write_worker(record(f"job-{number}", rows_left_out=number))
            time.sleep(0.001)  # a reader that the machine holds up finds both slots written over, again and again

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            seen = read_box(box.path)
            if seen.snapshot is not None:
                assert seen.snapshot.sessions[0].session_id == f"job-{seen.rows_left_out}"
    finally:
        over.set()
        writer.join()
