"""Numbers as an operator reads them.

An unknown number is `n/a`, never 0. 1 MB is 1024 × 1024 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "n/a"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


def clock(seconds: float) -> str:
    """Return an age in at most 7 characters: 0:09, 12:04, 1:02:11, 10h02m, 2d03h."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if hours == 0:
        return f"{minute}:{second:02}"
    if hours < 10:
        return f"{hours}:{minute:02}:{second:02}"
    if days == 0:
        return f"{hours}h{minute:02}m"
    return f"{days}d{hour:02}h" if days < 100 else f"{days}d"


def uptime(seconds: float) -> str:
    """Return a worker's age: 42s, 14m05s, 2h14m, 3d04h."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def ago(seconds: float) -> str:
    """Return an age in words: 4 s, 12 min, 3 h, 2 d."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 86400 else f"{whole // 86400} d"


def lasted(seconds: float) -> str:
    """Return for how long a wait has lasted: <1 s, 4 s, 12 min, 3 h, 2 d."""
    return ago(seconds) if seconds >= 1.0 else "<1 s"


def span(milliseconds: float | None) -> str:
    """Return how long something took: 71 ms, 3.2 s."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds:.0f} s"


def lag(milliseconds: float | None) -> str:
    """Return a lag: <0.5 ms, which is its resolution, 3.1 ms, 14 ms, 1.2 s."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 0.5:
        return "<0.5 ms"
    return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else span(milliseconds)


def size(megabytes: float) -> str:
    """Return a size: 412 MB, 1.9 GB."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def trend(mb_per_min: float) -> str:
    """Return how fast memory grows: +1.2 MB/min, -30 MB/min."""
    return f"{mb_per_min:+.{0 if abs(mb_per_min) >= 9.95 else 1}f} MB/min"


def number(value: float | None, digits: int = 1) -> str:
    """Return a plain number, or n/a; a large one without its fraction."""
    return UNKNOWN if value is None else f"{value:.{digits if abs(value) < 999.95 else 0}f}"


def count(value: int) -> str:
    """Return a count in at most six characters: 950, 18,204, 1.2M."""
    if value < 100_000:
        return f"{value:,}"
    if value < 999_500:
        return f"{value / 1e3:.0f}k"
    return f"{value / 1e6:.1f}M" if value < 999_950_000 else f"{value / 1e9:.1f}G"


def percent(value: float | None, digits: int = 0) -> str:
    """Return a percentage with its sign, or n/a."""
    return UNKNOWN if value is None else f"{value:.{digits}f} %"


def bar(share: float, width: int, empty: str = " ") -> str:
    """Return a share of 0 to 1 as a bar in eighths of a cell.

    Any share above 0 shows.
    """
    eighths = min(width * 8, max(0, math.ceil(share * width * 8 - 0.5)))
    if share > 0 and not eighths:
        eighths = 1
    whole, part = divmod(eighths, 8)
    drawn = "█" * whole + (_EIGHTHS[part] if part else "")
    return drawn + empty * (width - len(drawn))


def sparkline(points: Sequence[tuple[int, float]], now: int, width: int) -> str:
    """Return the last seconds up to now, percent, one cell each.

    An unknown second stays blank.
    """
    levels = dict(points)
    drawn = ""
    for second in range(now - width + 1, now + 1):
        level = levels.get(second)
        drawn += " " if level is None else _LEVELS[min(7, max(0, int(level / 12.5)))]
    return drawn
