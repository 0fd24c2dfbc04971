"""The modules that an introspector imports when it attaches, so that importing the package alone stays cheap."""

from __future__ import annotations

import importlib

LATE = (
    "anyio._backends._asyncio",
    "openrtc_introspect_core._os.host_vitals",
    "openrtc_introspect_core._service.box_record",
    "openrtc_introspect_core._service.rss_shares",
    "openrtc_introspect_core.black_box._writer",
    "openrtc_introspect_core.wire._server",
)


def load_late_imports() -> None:
    """Import them now. They take some 50 ms, in which an event loop that attaches in the middle of its work stands."""
    for name in LATE:
        importlib.import_module(name)
