from __future__ import annotations

import os
import socket
import sys

import pytest

from openrtc_introspect_core.wire import _peer
from openrtc_introspect_core.wire._peer import may_connect, may_serve, peer_uid, unread_bytes

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports what a peer has not read")


def test_the_kernel_says_whose_the_peer_is() -> None:
    """The kernel reports the peer's user; nothing that the peer sends counts."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid()


@pytest.mark.parametrize(("us", "connect", "serve"), [(1000, {0, 1000}, {0, 1000}), (0, {0}, {0, 1000, 1001})])
def test_who_may_read_and_who_is_believed(
    monkeypatch: pytest.MonkeyPatch, us: int, connect: set[int], serve: set[int]
) -> None:
    """A worker admits its own user and root; a client trusts those two, and root trusts everyone."""
    monkeypatch.setattr(_peer, "own_uid", lambda: us)
    assert {uid for uid in (0, 1000, 1001) if may_connect(uid)} == connect
    assert {uid for uid in (0, 1000, 1001) if may_serve(uid)} == serve


@linux_only
def test_what_a_peer_has_not_read_is_known() -> None:
    """The count is above 0 until the peer has read the last byte."""
    one, other = socket.socketpair()
    with one, other:
        assert unread_bytes(one) == 0
        one.send(b"ab")
        assert unread_bytes(one) > 0
        other.recv(1)
        assert unread_bytes(one) > 0
        other.recv(1)
        assert unread_bytes(one) == 0
