"""The few styles there are. Only the sixteen colours of the terminal's own palette, so that they hold
on light and dark grounds; a status is always told in words as well."""

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
    """The colour of a share of the loop."""
    if percent >= 80:
        return BAD
    return WARN if percent >= 40 else GOOD
