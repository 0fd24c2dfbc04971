"""The terminal while the live view is on it: entered, drawn to, and left as it was found.

Only lines that changed are written, each from its first cell to the end, so that nothing flickers;
terminals that know synchronized output (mode 2026) show a frame at once. Nothing wraps: what goes past
the right edge, because the terminal takes a character for wider than we do, is lost there (mode 7).
"""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from types import TracebackType
from typing import Any, TextIO

from openrtc_top._encoding import encodable
from openrtc_top._view import Screen, line_to_text

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_FRAME = "\x1b[?2026h"
_FRAME_END = "\x1b[?2026l"
_TO_END = "\x1b[K"


class Terminal:
    """A context manager around the live view. `keys` is the descriptor keys are read from, or None.

    With `ascii` nothing beyond ASCII is written, whatever the encoding of `out` could hold.
    """

    def __init__(self, out: TextIO, keys: int | None, *, color: bool, ascii: bool = False) -> None:
        self.keys = keys
        self._encoding = "ascii" if ascii else out.encoding
        self._out = out
        self._color = color
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
        """Take the alternate screen, and keys one by one without echo; Ctrl-C stays a signal."""
        if self.keys is not None:
            self._before = termios.tcgetattr(self.keys)
            tty.setcbreak(self.keys, termios.TCSADRAIN)
        self._lines = []
        self._write(_ENTER)

    def leave(self) -> None:
        """Put everything back."""
        with contextlib.suppress(OSError):  # the terminal is gone
            self._write(_LEAVE)
        before, self._before = self._before, None
        if before is not None and self.keys is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.keys, termios.TCSADRAIN, before)

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24
        return columns or 80, lines or 24

    def draw(self, screen: Screen) -> None:
        """Bring the screen on the terminal."""
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
        """What is on the terminal is not what was drawn: draw every line next time."""
        self._lines = []

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
