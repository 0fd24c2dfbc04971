"""The rules for watches, for the end of a connection, and for blocks."""

from __future__ import annotations

import time
from typing import Any

from .dialer import Dialer, brief
from .rules import Rules, Unchecked, require

rule: Rules[Dialer] = Rules()

_MIN_INTERVAL_S = 0.1


@rule("watch")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        began = time.monotonic()
        line.say({"type": "watch", "id": "w", "interval_s": _MIN_INTERVAL_S})
        seqs = [line.expect("snapshot", id="w")["seq"] for _ in range(4)]
        took = time.monotonic() - began
        require(
            took >= 2.9 * _MIN_INTERVAL_S, f"four frames of a watch of {_MIN_INTERVAL_S:g} s came within {took:.3f} s"
        )
        require(seqs == sorted(seqs), f"the frames' seq go back: {seqs}")
        line.say({"type": "blocks", "id": 2})
        while (message := line.hear()) is not None and message["type"] == "snapshot":
            pass
        require(message is not None and message["type"] == "blocks", "a request during a watch was not answered")


@rule("watch-ids")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.ask("watch", "snapshot", 1, interval_s=60)
        reply = line.ask("watch", "error", 1, interval_s=60)
        require(reply["code"] == "bad-request", f"a second watch of one id: expected bad-request, got {brief(reply)}")


@rule("watch-limit")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        for number in range(line.hello["limits"]["watches"]):
            line.ask("watch", "snapshot", number, interval_s=60)
        reply = line.ask("watch", "error", "more", interval_s=60)
        require(
            reply["code"] == "too-many-watches", f"one watch too many: expected too-many-watches, got {brief(reply)}"
        )


@rule("deltas")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        if "deltas" not in line.hello.get("capabilities", []):
            raise Unchecked("it does not list deltas")
        rows: set[str] = set()
        seq = None
        line.say({"type": "watch", "id": "w", "interval_s": _MIN_INTERVAL_S, "deltas": True})
        for _ in range(4):
            seq = _read_changes(line.expect("frame", id="w"), rows, seq)
        line.say({"type": "cancel", "id": "w"})
        while (message := line.hear()) is not None and message["type"] == "frame":
            seq = _read_changes(message, rows, seq)
        everything = line.ask("snapshot", "frame", 2, base=0)
        seq = _read_changes(everything, rows, None)
        _read_changes(line.ask("snapshot", "frame", 3, base=seq), rows, seq)
        line.ask("snapshot", "snapshot", 4)


def _read_changes(frame: dict[str, Any], rows: set[str], seq: int | None) -> int:
    """Bring the ids of rows from the frame `seq` to this one, and return its `seq`. None: no frame was read."""
    base = frame.get("base")
    require(base is None or base == seq, f"a frame builds on {base}, the client has {seq}: {brief(frame)}")
    if base is None:
        rows.clear()
    rows.difference_update(frame.get("gone", []))
    for counts in frame.get("counts", []):
        require(len(counts) >= 4 and counts[0] in rows, f"counts of a row that the client does not have: {counts}")
    rows.update(row["session_id"] for row in frame.get("rows", []))
    found: int = frame["seq"]
    require(seq is None or found >= seq, f"the frames' seq go back: {seq}, {found}")
    return found


@rule("cancel")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        reply = line.ask("cancel", "error", "none")
        require(reply["code"] == "bad-request", f"a watch that is not: expected bad-request, got {brief(reply)}")
        line.ask("watch", "snapshot", "w", interval_s=_MIN_INTERVAL_S)
        line.say({"type": "cancel", "id": "w"})
        while (message := line.hear()) is not None and message["type"] == "snapshot":
            pass
        require(message == {"type": "done", "id": "w"}, f"expected done, got {message and brief(message)}")
        time.sleep(2.5 * _MIN_INTERVAL_S)
        line.say({"type": "bye", "id": "b"})
        message = line.hear()
        require(message is not None and message["type"] == "done", "a frame came after its watch was done")


@rule("bye")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.say({"type": "bye", "id": "b"}, {"type": "snapshot", "id": 2})
        line.expect("done", id="b")
        line.expect_end("bye")


@rule("blocks-since")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        everything = line.ask("blocks", "blocks", 1)
        seqs = [block["seq"] for block in everything["blocks"]]
        require(all(a < b for a, b in zip([0, *seqs], seqs, strict=False)), f"blocks are not in order: {seqs}")
        last = everything["last_seq"]
        require(not seqs or last == seqs[-1], f"last_seq is {last}, the newest block's seq {seqs[-1:]}")
        middle = seqs[len(seqs) // 2] if seqs else 0
        newer = line.ask("blocks", "blocks", 2, since=middle)["blocks"]
        require(all(block["seq"] > middle for block in newer), f"blocks up to {middle} came after since={middle}")
        wanted = {seq for seq in seqs if seq > middle}
        require(wanted <= {block["seq"] for block in newer}, f"blocks after {middle} are missing")
        latest = line.ask("blocks", "blocks", 3, since=last + 10**6)
        require(not latest["blocks"], "blocks came that are older than since")
        require(latest["last_seq"] >= last, f"last_seq went from {last} to {latest['last_seq']}")
