"""A healthy worker with its sockets in another folder than the operator's environment names.

With the fix, both have the same $OPENRTC_RUNTIME_DIR.
"""

from __future__ import annotations

import os
from pathlib import Path

from _worker import FIXED, serve

if __name__ == "__main__":
    if not FIXED:
        elsewhere = Path(os.environ["OPENRTC_RUNTIME_DIR"], "service")
        elsewhere.mkdir(mode=0o700)
        os.environ["OPENRTC_RUNTIME_DIR"] = str(elsewhere)
    serve()
