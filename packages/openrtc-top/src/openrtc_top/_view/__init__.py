"""The view as a pure function: `render(state, (width, height))` is what the terminal shows.

Nothing here touches a terminal. A rendering is a `Screen`: lines of rich segments, which rich prints,
and which `to_text` makes a string of.
"""

from openrtc_top._view.line import Line
from openrtc_top._view.screen import Screen, render, render_once
from openrtc_top._view.text import line_to_text, to_text

__all__ = ["Line", "Screen", "line_to_text", "render", "render_once", "to_text"]
