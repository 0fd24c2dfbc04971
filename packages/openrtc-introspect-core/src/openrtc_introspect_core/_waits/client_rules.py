"""The rules of common clients and servers of networks, which resolve their futures themselves."""

from __future__ import annotations

from .rules import TRANSPARENT, Rule, Table

_READ = Rule("socket", "stream, read")
_DRAIN = Rule("socket", "stream, drain")

CLIENTS: Table = {
    "aiohttp/streams.py": {
        "StreamReader._wait": _READ,
        "DataQueue.read": _READ,
        "FlowControlDataQueue.read": _READ,
    },
    "aiohttp/base_protocol.py": {"BaseProtocol._drain_helper": _DRAIN},
    "aiohttp/web_protocol.py": {"RequestHandler.start": Rule("socket", "connection, next request")},
    "aiohttp/connector.py": {
        "BaseConnector._wait_for_available_connection": Rule("semaphore", "connection of a {}", owner="BaseConnector"),
    },
    "httpcore/_synchronization.py": {"AsyncEvent.wait": TRANSPARENT},
    "httpcore/_async/connection_pool.py": {
        "AsyncPoolRequest.wait_for_connection": TRANSPARENT,
        "AsyncConnectionPool.handle_async_request": Rule(
            "semaphore", "connection of an {}", owner="AsyncConnectionPool", refines=("event",)
        ),
    },
    "redis/asyncio/connection.py": {
        "BlockingConnectionPool.get_connection": Rule(
            "semaphore", "connection of a {}", owner="BlockingConnectionPool", refines=("condition",)
        ),
    },
    "greenback/_impl.py": {
        "await_": TRANSPARENT,
        "adapt_awaitable": TRANSPARENT,
        "trampoline": TRANSPARENT,
        "_greenback_shim": TRANSPARENT,
    },
    "sqlalchemy/util/concurrency.py": {"await_": TRANSPARENT, "greenlet_spawn": TRANSPARENT},
    "websockets/asyncio/messages.py": {"SimpleQueue.get": _READ},
    "websockets/asyncio/connection.py": {"Connection.drain": _DRAIN},
}
