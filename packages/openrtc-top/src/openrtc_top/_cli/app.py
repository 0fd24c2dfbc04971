"""The `openrtc` command itself: its words, its version, and its usage errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from openrtc_top._cli.blocks import blocks
from openrtc_top._cli.demo import demo
from openrtc_top._cli.dev import dev
from openrtc_top._cli.diagnose import EPILOG as DIAGNOSE_EPILOG
from openrtc_top._cli.diagnose import diagnose
from openrtc_top._cli.outcome import OK, USAGE, fail
from openrtc_top._cli.postmortem import EPILOG as POSTMORTEM_EPILOG
from openrtc_top._cli.postmortem import postmortem
from openrtc_top._cli.ps import ps
from openrtc_top._cli.record import record
from openrtc_top._cli.relay import relay
from openrtc_top._cli.run import run
from openrtc_top._cli.runbook import runbook
from openrtc_top._cli.tasks import tasks
from openrtc_top._cli.top import top
from openrtc_top._cli.wait import EPILOG as WAIT_EPILOG
from openrtc_top._cli.wait import wait
from openrtc_top._cli.waits import waits

# typer exports only this one of its usage errors; they all have its base class.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

_COMPLETION = ("--install-completion", "--show-completion")
EPILOG = "Exit codes: 0 ok, 1 no worker (or it does not answer), 2 wrong usage."

RUN_EPILOG = "Exit codes: the program's; 2 wrong usage, or nothing was run."
RECORD_EPILOG = "Exit codes: 0 ok, 1 no worker, nothing or not all was recorded, 2 wrong usage."


class OneLineErrors(TyperGroup):
    """A command group whose usage errors are one line, as all errors are."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command, and exit with its code."""
        given = sys.argv[1:] if args is None else args
        try:
            if prog_name and " " in prog_name and any(option in given for option in _COMPLETION):
                raise fail("a shell completes the commands openrtc and openrtc-top, not a module of python", USAGE)
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Exit as error:
            code = error.exit_code
        except _USAGE_ERROR as error:
            code = _usage(error)
        except typer.Abort:
            code = 128 + 2
        if standalone_mode:
            sys.exit(code)
        return code


def _usage(error: Exception) -> int:
    message: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        if message:  # else it is printed already
            print(message, file=sys.stderr)
        return USAGE
    help_at = f" (see `{context.command_path} --help`)" if context else ""
    message = " ".join(message.split()).rstrip(".")
    return fail(f"{message[:1].lower()}{message[1:]}{help_at}", USAGE).exit_code


def _version(wanted: bool) -> None:
    if wanted:
        from openrtc_introspect_core import __version__

        print(f"openrtc {__version__}")
        raise typer.Exit(OK)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def openrtc(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", help="Print the version and exit.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Look inside running workers: which session holds the event loop, which one blocks it.

    Of those that died: what they died of. It only reads: nothing it does changes a worker.
    """


_LOOK = "Look at running workers"
app.command("top", rich_help_panel=_LOOK, epilog=EPILOG)(top)
app.command("blocks", rich_help_panel=_LOOK, epilog=EPILOG)(blocks)
app.command("tasks", rich_help_panel=_LOOK, epilog=EPILOG)(tasks)
app.command("waits", rich_help_panel=_LOOK, epilog=EPILOG)(waits)
app.command("diagnose", rich_help_panel=_LOOK, epilog=DIAGNOSE_EPILOG)(diagnose)
app.command("ps", rich_help_panel=_LOOK, epilog=EPILOG)(ps)
app.command("postmortem", rich_help_panel=_LOOK, epilog=POSTMORTEM_EPILOG)(postmortem)
app.command("wait", rich_help_panel="Elsewhere, and later", epilog=WAIT_EPILOG)(wait)
app.command("record", rich_help_panel="Elsewhere, and later", epilog=RECORD_EPILOG)(record)
app.command("relay", rich_help_panel="Elsewhere, and later", epilog=EPILOG)(relay)
app.command(
    "run",
    rich_help_panel="Run programs and agents",
    epilog=RUN_EPILOG,
    # All that follows the program's name is the program's.
    context_settings={"allow_interspersed_args": False},
)(run)
app.command("dev", rich_help_panel="Run programs and agents", epilog=EPILOG)(dev)
app.command("runbook", rich_help_panel="Know what to do", epilog=EPILOG)(runbook)
app.command("demo", rich_help_panel="Try it", epilog=EPILOG)(demo)
