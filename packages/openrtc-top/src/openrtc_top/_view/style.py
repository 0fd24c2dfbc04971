"""The few styles there are, of the sixteen colours in the terminal's own palette.

They are legible on light and dark grounds. A status always stands there in words as well.
"""

from __future__ import annotations

from rich.style import Style

PLAIN = Style()
BOLD = Style(bold=True)
DIM = Style(dim=True)
ACCENT = Style(color="cyan")
GOOD = Style(color="green")
WARN = Style(color="yellow")
BAD = Style(color="red", bold=True)
ALERT = Style(color="white", bgcolor="red", bold=True)
PAUSED = Style(reverse=True, bold=True)
HEADING = Style(bold=True)
SORTED = Style(bold=True, color="cyan")
SELECTED = Style(reverse=True)

STATUS = {
    "active": PLAIN,
    "slow": WARN,
    "blocked": BAD,
    "draining": ACCENT,
    "errored": Style(color="red"),
    "gone": DIM,
}


def load(percent: float) -> Style:
    """Return the colour of a share, percent."""
    if percent >= 80:
        return BAD
    return WARN if percent >= 40 else GOOD
