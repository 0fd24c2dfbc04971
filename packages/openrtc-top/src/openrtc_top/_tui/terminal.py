"""The terminal of the live view: entered, drawn to, and left as it was found.

Only lines that changed are written, each from its first cell to the end, so that nothing flickers; terminals that
know synchronized output (mode 2026) show a frame at once. Nothing wraps (mode 7): if the terminal takes a character
for wider than the view does, the cells past the right edge are lost.
"""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from types import TracebackType
from typing import Any, TextIO

from openrtc_top._view.encoding import encodable, shows_unicode
from openrtc_top._view.screen import Screen
from openrtc_top._view.text import line_to_text

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_FRAME = "\x1b[?2026h"
_FRAME_END = "\x1b[?2026l"
_TO_END = "\x1b[K"


class Terminal:
    """A context manager around the live view.

    `keys` is the descriptor that keys are read from, or None.

    With `ascii` nothing beyond ASCII is written, whatever the encoding of `out` could hold.
    """

    def __init__(self, out: TextIO, keys: int | None, *, color: bool, ascii: bool = False) -> None:
        self.keys = keys
        self._encoding = "ascii" if ascii else out.encoding
        self._out = out
        self._color = color
        self._entered = False
        self._before: list[Any] | None = None
        self._lines: list[str] = []

    def __enter__(self) -> Terminal:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the alternate screen, and keys one by one without echo.

        Ctrl-C stays a signal.
        """
        if self.keys is not None:
            self._before = termios.tcgetattr(self.keys)
            tty.setcbreak(self.keys, termios.TCSADRAIN)
        self._lines = []
        self._entered = True
        self._write(_ENTER)

    def leave(self) -> None:
        """Put everything back as it was found, unless that was done."""
        if not self._entered:
            return
        self._entered = False
        with contextlib.suppress(OSError):  # the terminal is gone
            self._write(_LEAVE)
        before, self._before = self._before, None
        if before is not None and self.keys is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.keys, termios.TCSADRAIN, before)

    def size(self) -> tuple[int, int]:
        """Return the columns and lines; 80 and 24 if they are not known."""
        try:
            columns, lines = os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24
        return columns or 80, lines or 24

    @property
    def unicode(self) -> bool:
        """Whether it shows the marks of the view; if not, they are drawn in ASCII."""
        return shows_unicode(self._encoding)

    def draw(self, screen: Screen) -> None:
        """Draw the screen on the terminal."""
        columns, height = self.size()
        lines = []
        for line in screen.lines[:height]:
            text = encodable(line_to_text(line, columns, color=self._color, anchored=True), self._encoding)
            # Erasing after the last column would erase what stands in it.
            lines.append(text if line.width >= columns else text + _TO_END)
        lines += [_TO_END] * (height - len(lines))
        if len(lines) != len(self._lines):
            self._lines = [""] * len(lines)
        changed = [
            f"\x1b[{row}H{line}"
            for row, (line, old) in enumerate(zip(lines, self._lines, strict=True), start=1)
            if line != old
        ]
        self._lines = lines
        if changed:
            self._write(_FRAME + "".join(changed) + _FRAME_END)

    def forget(self) -> None:
        """Draw every line next time, since the terminal no longer shows what was drawn."""
        self._lines = []

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
