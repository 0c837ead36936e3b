"""`python -m engine run RUN_DIR`: the process that does the work of one run directory.

`python -m engine data NAME` fetches and converts a data set, `python -m engine import FILE` a foreign checkpoint;
`python -m engine speed` measures this host.

What happens to lie in the working directory, such as a torch.py, is not imported. An engine/ there is, in the place of
all that stands here, unless Python was started with its safe path (-P or PYTHONSAFEPATH=1), as `cafe` does.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends the preparation of a data set, in the same way."""
HUB_KEYS = ("config", "image", "label", "test")
INTERRUPTED = "cafe: interrupted; what was fetched is kept, nothing half made is; the same command goes on"


def main() -> int:
    """Parse the arguments, run, return the exit code of the contract."""
    from engine.contract.printing import guard

    guard()
    parser = argparse.ArgumentParser(prog="python -m engine", description="Work on a run directory.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="run its profile, or go on where an earlier engine stopped")
    verb.add_argument("directory", type=Path, metavar="RUN_DIR")
    prepare = verbs.add_parser("data", help="fetch a data set and make its cache")
    prepare.add_argument("name", metavar="NAME")
    prepare.add_argument("--path", help="the folder of folder and imagenet")
    prepare.add_argument("--size", type=int, help="the side of the images of folder, imagenet and hf:NAME")
    for key in HUB_KEYS:
        prepare.add_argument(f"--{key}", help="of hf:NAME: what to take of it")
    speed = verbs.add_parser("speed", help="image passes a second for each profile of a JSON list on stdin, as another")
    speed.add_argument("folder", metavar="FOLDER", help="where a network of the user is looked for")
    foreign = verbs.add_parser("import", help="write a foreign checkpoint in our format")
    for name in ("path", "out"):
        foreign.add_argument(name, type=Path)
    for option in ("--model", "--data", "--kind"):
        foreign.add_argument(option, required=option != "--kind")
    for option in ("--mean", "--std"):
        foreign.add_argument(option, type=float, nargs="+")
    arguments = parser.parse_args()
    if arguments.verb == "speed":
        return _speed(arguments.folder)
    if arguments.verb == "data":
        return _prepare(
            arguments.name, arguments.path, arguments.size, **{key: getattr(arguments, key) for key in HUB_KEYS}
        )
    if arguments.verb == "import":
        return _import(arguments)
    return _run(arguments.directory)


def _run(path: Path) -> int:
    from engine import distributed
    from engine.contract.errors import CafeError
    from engine.contract.run.rundir import RunDir
    from engine.process import run

    directory = RunDir(path.resolve())
    if not directory.profile_file.is_file():
        print(f"not a run directory (no profile.toml): {directory.path}", file=sys.stderr)
        return 2
    distributed.sweep()
    try:
        return run(directory)
    except CafeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _speed(folder: str) -> int:
    from engine.contract.profile import files as profiles
    from engine.throughput import passes_per_second

    print(json.dumps([passes_per_second(profiles.from_tables(tables), folder) for tables in json.load(sys.stdin)]))
    return 0


def _prepare(name: str, path: str | None, size: int | None, **choice: Any) -> int:
    with _listening(_leave):
        from engine.contract.datasets import complete, fitting
        from engine.contract.errors import CafeError, UsageError
        from engine.contract.profile.catalogue import is_any_folder
        from engine.contract.profile.schema import Data

    wanted = Data(name=name, path=path, size=size, **choice)
    try:
        if problems := complete(wanted) if is_any_folder(name) else fitting(wanted):
            raise UsageError("\n".join(problem.replace("data.", "--", 1) for problem in problems))
        with _listening(_leave):
            from engine import data
        with _listening(signal.default_int_handler):
            data.prepare(wanted, _say)
    except CafeError as error:
        print(f"cafe: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    return 0


@contextmanager
def _listening(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context the handler answers ENDINGS, but for those that are ignored, as under nohup."""
    heard = [number for number in ENDINGS if signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing is begun, and libraries that are interrupted while they are imported say many things."""
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has left; the data set is wanted all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _import(arguments: argparse.Namespace) -> int:
    from engine.contract.errors import CafeError, CheckpointError, UsageError
    from engine.convert import convert

    mean, std = arguments.mean, arguments.std
    try:
        if (mean is None) != (std is None):
            raise UsageError("--mean and --std go together", "Give one value a channel for both.")
        lines = convert(
            arguments.path,
            arguments.out,
            model=arguments.model,
            data_name=arguments.data,
            kind=arguments.kind,
            constants=mean and (tuple(mean), tuple(std)),
        )
    except CafeError as error:
        print(f"cafe: {error}", file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else error.exit_code  # the file is what the user named
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
