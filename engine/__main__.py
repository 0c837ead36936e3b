"""`python -m engine run RUN_DIR`: the process that does the work of one run directory."""

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
    arguments = parser.parse_args()
    directory = RunDir(arguments.directory.resolve())
    if not directory.profile_file.is_file():
        print(f"not a run directory (no profile.toml): {directory.path}", file=sys.stderr)
        return 2
    try:
        return run(directory)
    except CafeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
