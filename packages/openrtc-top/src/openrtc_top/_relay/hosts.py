"""The hosts of `--via-each`: the lines that a command prints, each of which is put into the command of `--via`.

The command is run again and again. A host that is not listed any more is kept while its connection stands and only one
list lacks it: one bad answer of a registry must not empty the view. When a connection is lost, the hosts are listed
anew at once, since a pod that was deleted loses its connection first.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Sequence
from subprocess import DEVNULL

import anyio

from openrtc_top._relay.child import StderrTail, end_process, start_process
from openrtc_top._relay.command import NAMED, PLACE, BadCommand, label, parse
from openrtc_top._relay.near_side import RelayClient

INTERVAL_S = 15.0
"""Seconds from one list to the next."""
SOON_S = 2.0
"""The fewest, after a connection was lost or a list has failed."""
TIMEOUT_S = 10.0
"""A command that takes longer is ended."""
MAX_HOSTS = 256
"""Each is a process with three pipes."""
MAX_OUTPUT_BYTES = 256 * 1024
_ACCEPTED = "a line is one word, without quotes or signs of a shell"
MAX_LABEL_LENGTH = 63
"""The names of the pods of a deployment begin alike, and may not be cut off where they differ."""
_HOST = re.compile(r"""[A-Za-z0-9_\[/][^\s\x00-\x1f\x7f;&|<>()$`\\"'*?!{}#]{0,252}""")
"""A line that begins with a dash would be an option. No shell runs here, but one may at the other end of ssh, and lists
often hold what others have named."""


class HostList:
    """The hosts that a command lists, each with a relay.

    words: the command that lists them. template: the words of a relay's command, with PLACE in them.
    wanted: names or process ids of the only workers to show; empty for all.
    """

    def __init__(self, words: Sequence[str], template: Sequence[str], wanted: Sequence[str] = ()) -> None:
        self.words = list(words)
        self.template = list(template)
        self.problem: str | None = None
        """The reason why the hosts are those of an earlier list, or not all, in one line. None: they are all."""
        self._wanted = list(wanted)
        self._relays: dict[str, RelayClient] = {}
        """By host, in the order in which they were listed first."""
        self._missing: set[str] = set()
        """The hosts that the last list lacked."""
        self._asked = anyio.Event()

    @property
    def relays(self) -> list[RelayClient]:
        """The relays of the hosts there are now."""
        return list(self._relays.values())

    async def run(self, changed: Callable[[], None]) -> None:
        """List the hosts again and again until cancelled.

        Calls `changed` when `relays` or `problem` may have changed.
        """
        while True:
            began = anyio.current_time()
            await self.list_once()
            changed()
            await anyio.sleep_until(began + SOON_S)
            if not self.problem or self._relays:
                with anyio.move_on_after(max(0.0, began + INTERVAL_S - anyio.current_time())):
                    await self._asked.wait()
            self._asked = anyio.Event()

    def ask_soon(self) -> None:
        """List the hosts as soon as may be: a connection was lost."""
        self._asked.set()

    async def list_once(self) -> None:
        """List the hosts now, and take them in. If that fails, those that are known stay."""
        try:
            listed = _hosts_in(await self._output())
        except _Failed as failure:
            kept = len(self._relays)
            self.problem = f"{self.words[0]}: {failure}"
            if kept:
                self.problem += f"; {'the host' if kept == 1 else f'the {kept} hosts'} known before stay"
            return
        hosts, self.problem = listed
        self._take(hosts)

    def _take(self, hosts: Sequence[str]) -> None:
        missing = {host for host in self._relays if host not in hosts}
        for host in missing:
            if host in self._missing or self._relays[host].problem is not None:
                del self._relays[host]
        self._missing = missing & set(self._relays)
        for host in hosts:
            if host not in self._relays:
                words = [word.replace(PLACE, host) for word in self.template]
                self._relays[host] = RelayClient(self._free_label(host), words, self._wanted)

    def _free_label(self, host: str) -> str:
        """Return the host's own name, with a number behind it if another one has that name."""
        taken = {relay.label for relay in self._relays.values()}
        number, name = 1, (plain := label([host], MAX_LABEL_LENGTH))
        while name in taken:
            number += 1
            name = f"{plain}#{number}"
        return name

    async def _output(self) -> str:
        """Return what the command prints. Raises _Failed."""
        try:
            process = await start_process(self.words, DEVNULL)
        except OSError as error:
            raise _Failed(error.strerror or str(error)) from None
        tail, output = StderrTail(), b""
        try:
            with anyio.move_on_after(TIMEOUT_S) as waited:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(tail.listen, process)
                    assert process.stdout is not None
                    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                        while len(output) <= MAX_OUTPUT_BYTES:
                            output += await process.stdout.receive()
                    if len(output) <= MAX_OUTPUT_BYTES:
                        await process.wait()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await end_process(process)
        if waited.cancelled_caught:
            raise _Failed(f"it has not ended within {TIMEOUT_S:g} s")
        if len(output) > MAX_OUTPUT_BYTES:
            raise _Failed(f"it prints more than {MAX_OUTPUT_BYTES // 1024} KiB")
        if process.returncode:
            ended = f"it ended with exit code {process.returncode}"
            if process.returncode < 0:
                ended = f"it was ended by signal {-process.returncode}"
            raise _Failed(f"{ended}: {tail.last}" if tail.last else ended)
        return output.decode(errors="replace")


class _Failed(Exception):
    """The command did not list the hosts; the message says why."""


def _hosts_in(output: str) -> tuple[list[str], str | None]:
    """Return the hosts, none twice, and what was wrong with other lines. Raises _Failed if there is no host."""
    lines = [line.strip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    hosts = list(dict.fromkeys(line for line in lines if _HOST.fullmatch(line)))
    wrong = next((line for line in lines if not _HOST.fullmatch(line)), None)
    problem = None if wrong is None else f"it prints {wrong[:60]!r}, which is no host: {_ACCEPTED}"
    if not hosts:
        raise _Failed(problem or "it lists no host")
    if len(hosts) > MAX_HOSTS:
        return hosts[:MAX_HOSTS], f"it lists {len(hosts)} hosts; the first {MAX_HOSTS} are shown"
    return hosts, problem


def parse_template(text: str) -> list[str]:
    """Return the words of a `--via` with PLACE in it. Raises BadCommand."""
    if NAMED.fullmatch(text.strip()):
        raise BadCommand(f"{text!r}: each host of --via-each has its own name; leave out NAME=")
    return parse(text)[1]


def parse_list(text: str) -> list[str]:
    """Return the words of a `--via-each`. Raises BadCommand."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadCommand(f"{text!r}: {str(error).lower()}") from None
    if not words:
        raise BadCommand(f"{text!r} has no command in it")
    return words
