"""The rules for a server with many clients, and all rules for a server."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack

from . import greeting, replies, requests, watches
from .dialer import Dialer, Line, brief
from .rules import Broken, Rules, Unchecked, require

rule: Rules[Dialer] = Rules()


# --- many clients -------------------------------------------------------------------------------------


@rule("own-connection")
def _(dial: Dialer) -> None:
    with dial.greeted() as garbage, dial.greeted() as unread, dial.greeted() as patient:
        with contextlib.suppress(Broken):  # another rule says what becomes of these two
            garbage.say(b"\xff\x00{" * 30_000)
        with contextlib.suppress(Broken, OSError):
            unread.socket.settimeout(0.2)
            unread.socket.sendall(b'{"type":"snapshot","id":1}\n' * 200)
        patient.ask("snapshot", "snapshot")
        with dial.greeted() as later:
            later.ask("blocks", "blocks")


@rule("client-limit")
def _(dial: Dialer) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(dial.greeted())
        first.ask("blocks", "blocks")
        for _ in range(first.hello["limits"]["clients"]):
            line: Line = stack.enter_context(dial())
            message = line.hear()
            if message is not None and message["type"] == "hello":
                line.ask("blocks", "blocks")  # a client that asks nothing may have to make room
                continue
            require(
                message is not None and (message["type"], message.get("code")) == ("error", "too-many-clients"),
                f"expected too-many-clients instead of a hello, got {message and brief(message)}",
            )
            line.expect_end("too-many-clients")
            return
    raise Broken(f"{first.hello['limits']['clients'] + 1} clients were accepted, limits.clients is one less")


@rule("idle-timeout")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        limit = line.hello["limits"]["idle_timeout_s"]
        if limit > dial.patience_s:
            raise Unchecked(f"it is {limit:g} s, and only {dial.patience_s:g} s are waited for")
        line.expect_end(f"{limit:g} s without a request")


server_rules: Rules[Dialer] = Rules(greeting.rule, requests.rule, watches.rule, replies.rule, rule)
