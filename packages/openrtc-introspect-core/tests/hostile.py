"""An object of the host's that ends the process of whoever calls its code."""

from __future__ import annotations

from typing import Any


class Hostile:
    """Refers to an object. None of its methods may be called."""

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "inner", inner)

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)

    def __eq__(self, other: object) -> bool:
        raise SystemExit("eq")

    def __hash__(self) -> int:
        raise SystemExit("hash")

    def __len__(self) -> int:
        raise SystemExit("len")
