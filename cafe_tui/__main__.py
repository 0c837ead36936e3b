"""The `cafe` command: `python -m cafe_tui` is the same.

But not where the working directory has a cafe_tui/ of its own, or a module of the name of one that Python needs to
start: `python -m` takes these before a word of ours is read. `cafe` and `python -P -m cafe_tui` do not.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working directory: an engine/ or numpy.py that happens to lie there is not meant
    home = os.path.dirname(os.path.dirname(__file__))
    if home not in sys.path:  # the working directory was a checkout that is not installed
        sys.path.insert(0, home)

import errno
import gc
from contextlib import suppress
from io import FileIO, TextIOWrapper

READER_LEFT = 141
"""Exit code when nobody reads our output any more, as that of a program which SIGPIPE ends."""

PLAIN_VERBS = """These print plain lines here:
  cafe ls            all runs
  cafe run PROFILE   start a run; cafe profiles lists the profiles
  cafe watch RUN     follow a run; cafe show RUN and cafe logs RUN look back
  cafe table RUN     robust accuracies; cafe compare RUN RUN pairs two runs
  cafe stop RUN      stop with a checkpoint; cafe resume RUN continues
  cafe --help        every command"""


def main() -> None:
    """Run the command line; every failure is one message on stderr and the exit code of the contract."""
    _open_standard_files()
    try:
        try:
            _main()
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # typer has met it, and calls it a failure
                raise end.__context__ from None
            raise
        finally:
            sys.stdout.flush()  # what waits in the buffer meets the reader's absence here, not after our last word
    except BrokenPipeError:
        _silence()
        sys.exit(READER_LEFT)
    except OSError as error:  # of the output: all else has had its answer
        _silence()
        print(f"cafe: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _open_standard_files() -> None:
    """Let nothing be read from, and written to, standard files that are closed.

    Else the next file that is opened would get the number of one, and what a child process prints would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                continue
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            file = TextIOWrapper(FileIO(number, mode, closefd=False), "utf-8", "replace")
            setattr(sys, name, file)


def _of_output(error: OSError) -> bool:
    """Whether an error is one of writing to a standard file: those of other files bear a name."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _silence() -> None:
    """Say nothing any more, not even what waits in the buffers at the interpreter's exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(nowhere, file.fileno())


def _main() -> None:
    from engine.contract.errors import CafeError, UsageError
    from engine.contract.printing import guard

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the locale cannot write must not end the command
    guard()
    try:
        shown = sys.stdin.isatty() and sys.stdout.isatty()
        if sys.argv[1:] in ([], ["--slow"]) and (shown or "TEXTUAL_DRIVER" in os.environ):  # a browser is no terminal
            if shown and os.environ.get("TERM") in ("dumb", "unknown"):  # it would show a screenful of escapes
                raise UsageError(f"the terminal UI cannot be shown here (TERM={os.environ['TERM']})", PLAIN_VERBS)
            sys.exit(_home(slow="--slow" in sys.argv))
        from cafe_tui.cli import app

        app(prog_name="cafe")
    except CafeError as error:
        print(f"cafe: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a verb that has an answer to it
        print("cafe: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and _of_output(error)):
            raise
        if os.environ.get("CAFE_DEBUG"):
            raise
        print(f"cafe: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print("This is a defect. CAFE_DEBUG=1 shows where it happened.", file=sys.stderr)
        sys.exit(1)


def _home(slow: bool) -> int:
    """`cafe` alone: the terminal UI, without loading the commands, which would take a quarter of its start."""
    gc.disable()  # until the first paint: nothing that the start makes is garbage
    from cafe_tui.locations import runs_folder, slow_line

    slow = slow_line(slow)
    from cafe_tui.ui.app import open_ui

    return open_ui(runs_folder(), slow=slow)


if __name__ == "__main__":
    main()
