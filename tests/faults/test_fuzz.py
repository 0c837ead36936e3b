"""Every file that is read, damaged in thousands of ways: one of our own messages or a right answer, soon, and small.

`make test-long` reads twenty thousand inputs. A failure names the number of its input, which makes it again:
`bench.read(*chosen(SEED, number))`.
"""

from __future__ import annotations

import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

import pytest
import torch

from tests.faults.fuzzed import KINDS, OWN, Kind, spoil

SEED = 19
SECONDS = 2.0
"""Of the processor, that reading one input may take: on a busy machine the clock says nothing."""
MEGABYTES = 200
"""By which the process may grow over all inputs."""


class TooLong(BaseException):
    """Reading took longer than it may. No `except Exception` of a reader swallows it."""


@contextmanager
def _limited() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Bench:
    """Good files of each kind, in memory and on disk; `read` spoils one of them, reads it, and puts it right again."""

    def __init__(self, folder: Path) -> None:
        self._good: dict[str, tuple[Path, dict[Path, bytes], list[Path]]] = {}
        for kind in KINDS:
            home = folder / kind.name.replace(" ", "-")
            home.mkdir()
            targets = list(kind.sample(home))
            files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
            self._good[kind.name] = (home, files, targets)
            kind.read(home, targets[0])  # as it is, it is read; and what is loaded once is loaded

    def read(self, kind: Kind, random: Random) -> str:
        """What went wrong with one input; nothing if all is well."""
        home, files, targets = self._good[kind.name]
        target = random.choice(targets)
        try:
            self._spoil(target, files[target], random, odd=kind.name == "whole run")
            with _limited():
                kind.read(home, target)
        except OWN:
            pass
        except TooLong:
            return f"{target.name}: longer than {SECONDS} s\n{_last_calls()}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{target.name}: {type(error).__name__}: {error}"[:300] + f"\n{_last_calls()}"
        finally:
            self._mend(home, files)
        return ""

    def _spoil(self, target: Path, good: bytes, random: Random, *, odd: bool) -> None:
        what = random.randrange(12) if odd else 0
        if what <= 8:
            target.write_bytes(spoil(good, random))
            return
        target.unlink()
        if what == 9:
            target.mkdir()
        elif what == 10:
            target.symlink_to(target)

    def _mend(self, home: Path, files: dict[Path, bytes]) -> None:
        there = {path for path in home.rglob("*") if path.is_symlink() or path.is_file()}
        for path in there - files.keys():
            path.unlink()
        for path, good in files.items():
            if path.is_symlink():
                path.unlink()
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != good:
                path.write_bytes(good)


def _last_calls() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-9:])


def chosen(seed: int, number: int) -> tuple[Kind, Random]:
    """The kind of an input and the source of its damage."""
    random = Random(f"{seed} {number}")
    return random.choices(KINDS, [kind.weight for kind in KINDS])[0], random


def _grown() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read_all(numbers: range, folder: Path) -> None:
    bench, failures, counts = Bench(folder), [], Counter[str]()
    for number in range(-60, 0):  # what is made once, for good, is no growth
        bench.read(*chosen(SEED, number))
    began, start = _grown(), time.process_time()
    slowest, largest = (0.0, ""), (0.0, "")
    for number in numbers:
        kind, random = chosen(SEED, number)
        counts[kind.name] += 1
        before, clock = _grown(), time.process_time()
        if said := bench.read(kind, random):
            failures.append(f"input {number} ({kind.name}): {said}")
        slowest = max(slowest, (time.process_time() - clock, f"input {number} ({kind.name})"))
        largest = max(largest, (_grown() - before, f"input {number} ({kind.name})"))
    print(f"\n{len(numbers)} inputs in {time.process_time() - start:.0f} s of the processor: {dict(counts)}")
    print(f"slowest {slowest[0]:.2f} s, {slowest[1]}; grown {_grown() - began:.0f} MB, most by {largest}")
    assert not failures, f"{len(failures)} of {len(numbers)}:\n" + "\n".join(failures[:12])
    assert _grown() - began < MEGABYTES, largest
    assert counts["records"] >= len(numbers) / 4


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What libraries say of odd files is none of ours; torch computes in this thread, whose time is measured."""
    monkeypatch.setenv("CAFE_DATA", "/nowhere")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings(action="ignore"):
        yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    _read_all(range(1000), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(10))
def test_twenty_thousand_damaged_files(share: int, tmp_path: Path) -> None:
    _read_all(range(2000 * share + 1000, 2000 * share + 3000), tmp_path)
