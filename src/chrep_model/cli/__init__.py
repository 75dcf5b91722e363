"""The command line, ``chrep``.

Every command starts fast: what is slow to import is imported inside the command that needs it. A fault is one
line on stderr and exit code 1; wrong usage is exit code 2.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from chrep_model import __version__
from chrep_model.cli import console, demo, doctor, evaluate, export, importing, info, predict, train, tune
from chrep_model.cli.options import Debug, wants_debug
from chrep_model.device import share_one_arena
from chrep_model.errors import Cancelled, printable
from chrep_model.processes import leave_out_current_folder


class _Group(TyperGroup):
    """Turns every error into one line and an exit code, for all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            sys.stderr.write("chrep: cancelled\n")
        except BrokenPipeError:  # `chrep info ... | head` is no fault
            raise
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("typer", "click"):  # usage and exit
                raise
            if wants_debug(ctx):
                for line in traceback.format_exc().splitlines():
                    sys.stderr.write(f"{printable(line)}\n")
            console.complain(error)
        raise typer.Exit(1)


app = typer.Typer(
    name="chrep",
    cls=_Group,
    help="Gene expression predicted from H&E slides: train, calibrate, predict, compare.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=demo.EXAMPLE)(demo.demo)
app.command(epilog=info.EXAMPLE)(info.info)
app.command("import", epilog=importing.EXAMPLE)(importing.import_counts)
app.command(epilog=train.TRAIN_EXAMPLE)(train.train)
app.command(epilog=train.CALIBRATE_EXAMPLE)(train.calibrate)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command(epilog=export.EXAMPLE)(export.export)
app.command(epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command(epilog=tune.EXAMPLE)(tune.tune)
app.command(epilog=doctor.EXAMPLE)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"chrep {__version__}")
        raise typer.Exit


@app.callback()
def _chrep(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    pass


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code.

    Parameters
    ----------
    args : sequence of str, optional
        Instead of the process's own.
    """
    leave_out_current_folder()
    _quiet()
    # Read when torch is imported. Its threads would else wait for each other at full speed: on a machine that
    # has other things to do, training takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share_one_arena()
    signal.signal(signal.SIGTERM, _interrupt)  # schedulers end a job with it: nothing is left half-written
    app(args=None if args is None else list(args), prog_name="chrep")


def _quiet() -> None:
    """Keep what libraries say to programmers off stderr; ``python -W`` brings it back."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
