"""Write the sample data: ``python -m chrep_model.synthetic FOLDER [--seed 0]``."""

from __future__ import annotations

import argparse
import sys

from chrep_model.progress import Progress

from .write import write_sample_data


def main(arguments: list[str] | None = None) -> int:
    """Run the command line that writes the sample data.

    Parameters
    ----------
    arguments
        Command line arguments; `sys.argv[1:]` if None.

    Returns
    -------
    Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chrep_model.synthetic",
        description="Write the SYNTHETIC sample data: four paired sections and a slide to explore.",
    )
    parser.add_argument("folder", help="where to write; made when it is missing")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default 0)")
    options = parser.parse_args(arguments)
    quiet = not sys.stderr.isatty()

    def advance(done: int, total: int, what: str) -> None:
        if not quiet:
            sys.stderr.write(f"{done / total:5.0%}  {what}\n")

    write_sample_data(options.folder, options.seed, Progress(advance=advance))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
