"""The child process that retrains, started as ``python -m napari_chrep.retrain.process FOLDER``.

It writes its progress as JSON lines to stdout (see `messages`), and reads two words from stdin: ``cancel``,
and ``enough`` to stop fine-tuning with the best weights so far. When stdin is closed, the viewer has ended:
the process then ends as well, and its files are kept so that the job can be resumed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from pathlib import Path

from chrep_model.errors import Cancelled, ChrepError
from chrep_model.progress import Progress
from napari_chrep.retrain.messages import Ended, Message
from napari_chrep.retrain.request import Workspace


class ViewerInput:
    """Reader of the words that the viewer writes to stdin; any thread may call the methods."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cancel, self._enough, self._closed = (threading.Event() for _ in range(3))
        threading.Thread(target=self._listen, daemon=True).start()

    def cancelled(self) -> bool:
        """Return whether the user cancelled; raise KeyboardInterrupt if the viewer has ended."""
        if self._closed.is_set() and not self._cancel.is_set():
            raise KeyboardInterrupt
        return self._cancel.is_set()

    def enough(self) -> bool:
        """Return whether the user asked to stop training the current network; True once per request."""
        if not self._enough.is_set():  # clear only when set, or a request in between could be lost
            return False
        self._enough.clear()
        return True

    def _listen(self) -> None:
        """Read stdin until it is closed, and set the event of each word."""
        # sys.stdin would not do: a thread that waits in it holds its lock when the interpreter ends.
        heard = b""
        with contextlib.suppress(OSError):
            while block := os.read(self._descriptor, 1024):
                *lines, heard = (heard + block).split(b"\n")
                for line in lines:
                    event = {b"cancel": self._cancel, b"enough": self._enough}.get(line.strip())
                    if event is not None:
                        event.set()
        self._closed.set()


def main(folder: Path) -> int:
    """Run the job in a workspace folder; return the exit status."""
    # Redirect what libraries print to stderr, because stdout is only for messages.
    out = os.dup(1)
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(5)  # the viewer has priority

    def tell(message: Message) -> None:
        line = message.model_dump_json().encode() + b"\n"
        while line:
            line = line[os.write(out, line) :]

    viewer_input = ViewerInput(0)
    try:
        from napari_chrep.retrain.work import Work

        Work(
            Workspace(folder), tell, Progress(cancelled=viewer_input.cancelled, enough=viewer_input.enough)
        ).run()
        tell(Ended(how="done"))
    except Cancelled:
        tell(Ended(how="cancelled"))
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the viewer may not read it any more
            tell(Ended(how="interrupted"))
        return 3
    except ChrepError as error:
        tell(Ended(how="failed", why=str(error)))
        return 1
    except Exception as error:
        traceback.print_exc()
        tell(Ended(how="failed", why=f"The retraining failed: {type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
