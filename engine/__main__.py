"""`python -m engine run RUN_DIR`: the process that does the work of one run directory.

`python -m engine data NAME` fetches and converts a data set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.contract.errors import CafeError
from engine.contract.rundir import RunDir
from engine.process import run


def main() -> int:
    """Parse the arguments, run, return the exit code of the contract."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Work on a run directory.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="run its profile, or go on where an earlier engine stopped")
    verb.add_argument("directory", type=Path, metavar="RUN_DIR")
    prepare = verbs.add_parser("data", help="fetch a data set and make its cache")
    prepare.add_argument("name", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.verb == "data":
        return _prepare(arguments.name)
    directory = RunDir(arguments.directory.resolve())
    if not directory.profile_file.is_file():
        print(f"not a run directory (no profile.toml): {directory.path}", file=sys.stderr)
        return 2
    try:
        return run(directory)
    except CafeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _prepare(name: str) -> int:
    from engine import data
    from engine.data.archives import prepare

    try:
        if name in data.RECIPES:
            prepare(name, data.RECIPES[name], lambda text: print(text, flush=True))
        else:
            data.DATA[name]()
            print(f"{name} comes with a library that is installed; nothing to prepare")
    except CafeError as error:
        print(f"cafe: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cafe: interrupted; nothing half made is left, the same command begins again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
