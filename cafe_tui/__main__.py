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

import gc
from io import TextIOWrapper


def main() -> None:
    """Run the command line; every failure is one message on stderr and the exit code of the contract."""
    from engine.contract.errors import CafeError
    from engine.contract.printing import guard

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the locale cannot write must not end the command
    guard()
    try:
        shown = sys.stdin.isatty() and sys.stdout.isatty()
        if sys.argv[1:] in ([], ["--slow"]) and (shown or "TEXTUAL_DRIVER" in os.environ):  # a browser is no terminal
            sys.exit(_home(slow="--slow" in sys.argv))
        from cafe_tui.cli import app

        app(prog_name="cafe")
    except CafeError as error:
        print(f"cafe: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a verb that has an answer to it
        print("cafe: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output left; nothing more can be said, not even by the interpreter at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
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
