"""The calls that block, as they stand in agents: one function for each.

`until` is when to end, by `now()`.

The line that blocks is marked: a block is to be reported with this line. The odd-looking calls of some functions make
them end at a moment, see `within`.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import http.client
import importlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import zlib
from collections import deque
from itertools import repeat, starmap

from .deadline import now, within
from .resources import At, SlowServer, heavy_module

MARK = "# here"

_chooser = random.Random(0)
_NESTED = [[number] * 8 for number in range(50)]
_VALUES = [_chooser.random() for _ in range(500)]
_TEXT = ("a" * 30 + "c") * 4
_PATTERN = re.compile("a*a*b")
_DOCUMENT = json.dumps(_VALUES)
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined] # what `loads` calls, the part that is C
_RANGE = range(10_000)
_SECRET = ("sha256", b"password", b"salt", 200)
_NOISE = _chooser.randbytes(1 << 13)
_QUERY = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) select sum(i) from n"
_HEAP_PER_S = 20_000_000
"""References for each second of a block: they make some twenty collections in it, however small the process is."""
_HEAP = 300_000
"""References that one collection goes through: for some milliseconds."""
_REAP_S = 0.0008
"""Seconds that a program with nothing more to do takes to end, and its parent to notice."""

# --- computing -----------------------------------------------------------------------------------


def spin(until: float) -> None:
    while now() < until:  # here
        pass  # here


def clone(until: float) -> None:
    while now() < until:
        copy.deepcopy(_NESTED)  # here


def sort(until: float) -> None:
    deque(within(until, map(sorted, repeat(_VALUES))), maxlen=0)  # here


def match(until: float) -> None:
    deque(within(until, map(_PATTERN.search, repeat(_TEXT))), maxlen=0)  # here


def parse(until: float) -> None:
    deque(within(until, map(_scan, repeat(_DOCUMENT), repeat(0))), maxlen=0)  # here


def add(until: float) -> None:
    deque(within(until, map(sum, repeat(_RANGE))), maxlen=0)  # here


def digest(until: float) -> None:
    deque(within(until, starmap(hashlib.pbkdf2_hmac, repeat(_SECRET))), maxlen=0)  # here


def compress(until: float) -> None:
    deque(within(until, map(zlib.compress, repeat(_NOISE))), maxlen=0)  # here


def query(until: float) -> None:
    database = sqlite3.connect(":memory:")
    deque(within(until, map(database.execute, repeat(_QUERY))), maxlen=0)  # here
    database.close()


# --- waiting -------------------------------------------------------------------------------------


def sleep(until: float) -> None:
    time.sleep(max(0.0, until - now()))  # here


def receive(until: float) -> None:
    with SlowServer(until) as server, socket.create_connection(server.address) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.recv(1024)  # here


def request(until: float) -> None:
    with SlowServer(until) as server:
        connection = http.client.HTTPConnection(*server.address)
        connection.request("GET", "/")
        connection.getresponse().read()  # here
        connection.close()


def read_pipe(until: float) -> None:
    source, target = os.pipe()
    with At(until, lambda: os.write(target, b"x")):
        os.read(source, 1)  # here
    os.close(source)
    os.close(target)


def take_lock(until: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    with At(until, lock.release):
        lock.acquire()  # here


def sync(until: float) -> None:
    with tempfile.TemporaryFile() as file:
        while now() < until:
            os.pwrite(file.fileno(), _NOISE, 0)  # here
            os.fsync(file.fileno())  # here


def spawn(until: float) -> None:
    source, target = os.pipe()
    with At(until - _REAP_S, lambda: os.close(target)):
        subprocess.run(["cat"], stdin=source, check=True)  # here
    os.close(source)


# --- the interpreter's own -----------------------------------------------------------------------


def interrupt(until: float) -> None:
    def handle(number: int, frame: object) -> None:
        time.sleep(max(0.0, until - now()))  # here

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        signal.raise_signal(signal.SIGUSR1)  # Python calls the handler before this returns
    finally:
        signal.signal(signal.SIGUSR1, before if before is not None else signal.SIG_DFL)


def load(until: float) -> None:
    with heavy_module(until) as module:
        importlib.import_module(module)  # here


def collect(until: float) -> None:
    before = gc.get_threshold()
    gc.set_threshold(1, 1, before[2])  # the heap is gone through in the youngest generation, and in the next
    try:
        while now() < until:
            heap = [[]] * _HEAP  # type: ignore[var-annotated]  # noqa: F841 - the collector has to go through it
            _ = [set() for _ in range(16)]  # and begins by itself; lists are reused
    finally:
        gc.set_threshold(*before)


def call_collector(until: float) -> None:
    heap: list[list[int]] = [[]] * int(_HEAP_PER_S * (until - now()))  # noqa: F841 - the collector has to go through it
    took = 0.0  # at least one collection
    while until - now() > took:
        began = now()
        gc.collect()  # here
        took = now() - began
    while now() < until:
        gc.collect(0)  # here


def starve(until: float) -> None:
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        add(until)

    with At(now(), hold) as over:
        begun.wait()  # here
        over.wait()  # here
