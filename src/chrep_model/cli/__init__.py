"""The command line, ``chrep``.

Every command starts fast: what is slow to import is imported by the command that needs it. A fault is one line
on stderr and exit code 1; wrong usage is exit code 2.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from chrep_model import __version__
from chrep_model.cli import console, demo, doctor, evaluate, info, predict, train
from chrep_model.errors import Cancelled


class _Group(TyperGroup):
    """Turns errors into one line and an exit code, for all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            sys.stderr.write("chrep: cancelled\n")
        except BrokenPipeError:  # `chrep info ... | head` is no fault
            raise
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):  # usage, exit: typer's own affair
                raise
            if "--debug" in sys.argv or "--debug" in ctx.obj:
                traceback.print_exc()
            console.complain(error)
        raise typer.Exit(1)


app = typer.Typer(
    name="chrep",
    cls=_Group,
    help="Gene expression predicted from H&E slides: train on measured sections, calibrate, predict, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
