"""Calls that block, one function each. The line that blocks is marked, to be compared with the line that is told."""

from __future__ import annotations

import copy
import gc
import hashlib
import http.client
import importlib
import inspect
import json
import os
import random
import re
import socket
import sqlite3
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ._work import now

Blocker = Callable[[Any], None]
MARK = "# here"
LONGEST_S = 0.4


class Data:
    """What the sized kinds work on, made once; a block takes as much of it as it needs."""

    values: list[float]
    text: str
    noise: bytes
    nested: list[list[int]]
    database: sqlite3.Connection
    file: Any
    server: tuple[str, int]


# --- C code; the argument is how much of it ----------------------------------------------------------


def sort(size: int) -> None:
    sorted(Data.values[:size])  # here


def match(size: int) -> None:
    re.search("a*a*b", Data.text[:size])  # here


def dump(size: int) -> None:
    json.dumps(Data.values[:size])  # here


def add(size: int) -> None:
    sum(range(size))  # here


def digest(size: int) -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", size)  # here


def compress(size: int) -> None:
    zlib.compress(Data.noise[:size], 6)  # here


def query(size: int) -> None:
    rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) select sum(i) from n"
    Data.database.execute(rows, (size,)).fetchone()  # here


def clone(size: int) -> None:
    copy.deepcopy(Data.nested[:size])  # here


# --- time; the argument is seconds -------------------------------------------------------------------


def sleep(seconds: float) -> None:
    time.sleep(seconds)  # here


def spin(seconds: float) -> None:
    until = now() + seconds
    while now() < until:  # here
        pass  # here


def receive(seconds: float) -> None:
    with socket.create_connection(Data.server) as connection:
        connection.sendall(f"GET /{seconds} HTTP/1.0\r\n\r\n".encode())
        connection.recv(1024)  # here


def request(seconds: float) -> None:
    connection = http.client.HTTPConnection(*Data.server)
    connection.request("GET", f"/{seconds}")
    connection.getresponse().read()  # here
    connection.close()


def read_pipe(seconds: float) -> None:
    source, target = os.pipe()
    writer = threading.Timer(seconds, os.write, (target, b"x"))
    writer.start()
    os.read(source, 1)  # here
    writer.join()
    os.close(source)
    os.close(target)


def take_lock(seconds: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(seconds, lock.release).start()
    lock.acquire()  # here


def sync(seconds: float) -> None:
    until = now() + seconds
    while now() < until:  # here
        Data.file.write(b"x" * 4096)  # here
        os.fsync(Data.file.fileno())  # here


def spawn(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)  # here


def load(module: str) -> None:
    importlib.import_module(module)  # here


def collect(_garbage: int) -> None:
    gc.collect()  # here


def starve(hog: Callable[[], threading.Event]) -> None:
    hog().wait()  # here  (gives the GIL away, and gets it back when the other thread is done)


# --- how they are used -------------------------------------------------------------------------------

SIZED: dict[Blocker, int] = {
    sort: 20_000, match: 2_000, dump: 10_000, add: 200_000, digest: 5_000, compress: 200_000, query: 20_000, clone: 500,
}  # fmt: skip
"""The size to start calibrating with."""
_seconds_each: dict[Blocker, float] = {}


def prepare(server: tuple[str, int], file: Any) -> None:
    """Calibrates the sized kinds, and makes data that is large enough for the longest block here."""
    Data.server, Data.file = server, file
    Data.database = sqlite3.connect(":memory:")
    Data.values, Data.text, Data.noise, Data.nested = [], "", b"", []
    for blocker, size in SIZED.items():
        least = 0.0
        while least < 0.06:
            size *= 2
            _grow(blocker, size)
            least = min(_timed(blocker, size) for _ in range(2))
        _seconds_each[blocker] = least / size
        _grow(blocker, size_for(blocker, 1.1 * LONGEST_S))


def _grow(blocker: Blocker, size: int) -> None:
    chooser = random.Random(size)
    if blocker in (sort, dump):
        Data.values += [chooser.random() for _ in range(size - len(Data.values))]
    elif blocker is match:
        Data.text = ("a" * 100 + "c") * (size // 101 + 1)
    elif blocker is compress:
        Data.noise = chooser.randbytes(1 << 16) * (size // (1 << 16) + 1)
    elif blocker is clone:
        Data.nested += [[number] * 8 for number in range(size - len(Data.nested))]


def size_for(blocker: Blocker, seconds: float) -> int:
    """How much of this work takes about so long."""
    return max(1, int(seconds / _seconds_each[blocker]))


def _timed(blocker: Blocker, size: int) -> float:
    began = now()
    blocker(size)
    return now() - began


@lru_cache
def lines(blocker: Blocker) -> tuple[int, ...]:
    """The marked lines of its source."""
    source, first = inspect.getsourcelines(blocker)
    return tuple(first + index for index, line in enumerate(source) if MARK in line)
