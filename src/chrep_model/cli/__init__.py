"""The command line, ``chrep``.

Every command starts fast, because slow imports are inside the commands that need them. An error is one line
on stderr and exit code 1; wrong usage is exit code 2.
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
    """Group of all commands, which turns every error into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and print its error, if there is one, as one line."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            sys.stderr.write("chrep: cancelled\n")
        except BrokenPipeError:  # as of `chrep info ... | head`: no error
            raise
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("typer", "click"):  # wrong usage, or a normal exit
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
    """Run a command, and end the process with its exit code.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments to use instead of those of the process.
    """
    leave_out_current_folder()
    _quiet()
    # Read when torch is imported. Otherwise its threads keep cores busy while they wait for each other, which
    # makes training several times slower on a machine that runs other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share_one_arena()
    signal.signal(
        signal.SIGTERM, _interrupt
    )  # sent by schedulers to end a job; no file may stay half-written
    app(args=None if args is None else list(args), prog_name="chrep")


def _quiet() -> None:
    """Hide warnings of libraries for programmers; ``python -W`` shows them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
