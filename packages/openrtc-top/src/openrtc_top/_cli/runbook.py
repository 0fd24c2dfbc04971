"""`openrtc runbook`: what to do when a worker misbehaves."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.outcome import USAGE, fail, is_terminal, put, wants_color, width

_WIDE = 100


def runbook(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Which one; without it they are listed.",
            show_default=False,
            autocompletion=complete.runbook,
        ),
    ] = None,
) -> None:
    """Print a runbook, or list them: from what you see to what to do about it, and how to know that it helped.

    If stdout is no terminal, or NO_COLOR is set, the runbook is printed as Markdown.
    """
    from openrtc_top._cli import runbook_files

    if name is None:
        known = runbook_files.names()
        longest = max(map(len, known))
        for each in known:
            put(f"{each:<{longest}}  {runbook_files.summary(each)}")
        return
    try:
        text = runbook_files.text(name)
    except KeyError:
        near = runbook_files.like(name)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(runbook_files.names())}"
        raise fail(f"no runbook {name!r}; {hint}", USAGE) from None
    if wants_color():
        _render(text)
    else:
        put(text.rstrip("\n"))


def _render(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout, width=min(width(), _WIDE), force_terminal=is_terminal())
    with console.capture() as captured:
        console.print(Markdown(text))
    put(captured.get().rstrip("\n"))
