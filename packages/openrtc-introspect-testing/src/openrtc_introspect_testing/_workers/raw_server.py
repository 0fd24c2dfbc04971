"""A server of the wire protocol that is easy to get wrong on purpose.

It has a thread for each connection, and a subclass of `Conversation` says what the connection does. So clients meet
misbehaving workers, and tests of the conformance checker have servers that break one rule each.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from openrtc_introspect_core.wire import Hello

from .conversation import Conversation
from .scripted_source import ScriptedSource

_POLL_S = 0.02
_SEND_WITHIN_S = 5.0


class RawServer:
    """A server on a listening socket while the `with` block lasts.

    The listener stays the caller's to close.
    """

    def __init__(
        self,
        listener: socket.socket,
        hello: Hello,
        source: ScriptedSource,
        conversation: type[Conversation] = Conversation,
    ) -> None:
        self.hello = hello
        self.source = source
        self.over = threading.Event()
        self.heard: list[list[bytes]] = []
        """The lines that each connection sent, in the order in which they connected."""
        self.clients = 0
        self._conversation = conversation
        self._listener = listener
        self._threads = [threading.Thread(target=self._accept, name="openrtc-raw-server", daemon=True)]

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in list(self._threads):
            thread.join()

    def settle(self) -> None:
        """Wait until everything that clients sent before they closed has been read."""
        deadline = time.monotonic() + _SEND_WITHIN_S
        while self.clients and time.monotonic() < deadline:
            time.sleep(_POLL_S / 4)

    def _accept(self) -> None:
        while not self.over.is_set():
            if not select.select([self._listener], [], [], _POLL_S)[0]:
                continue
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.clients += 1
                thread = threading.Thread(
                    target=self._serve, args=(connection,), name="openrtc-raw-client", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SEND_WITHIN_S)
            conversation = self._conversation(self, connection)
            self.heard.append(conversation.heard)
            try:
                conversation.run()
            finally:
                self.clients -= 1
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
