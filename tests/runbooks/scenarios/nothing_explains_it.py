"""Nothing is wrong with this worker."""

from __future__ import annotations

from _worker import serve

if __name__ == "__main__":
    serve()
