"""Follow one run to its end on a terminal, a pipe or as JSON lines, and pass on the user's wish to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Protocol

from rich.text import Text

from cafe_tui import format as fmt
from cafe_tui.console import painter, views
from cafe_tui.launch import local
from cafe_tui.reading.log import LogFollower
from cafe_tui.reading.run import RunFollower, RunView
from engine.contract.printing import say
from engine.contract.run.records import Cell, ErrorNote, Message, Scalars, StageChange, WarningNote, to_json
from engine.contract.run.results import document
from engine.contract.run.rundir import FINAL, RunDir, Status

POLL_SECONDS = 0.25
ANSWER_SECONDS = 5.0
"""For how long, in a job of a scheduler that ends us, we wait to see whether it ends the engine too."""
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""One of them is set in every job of Slurm, PBS, LSF and Grid Engine: its number."""
PLAIN_SECONDS = 2.0
"""Least time between two plain lines of curves."""
EXIT_CODES = {"finished": 0, "stopped": 130, "failed": 1, "lost": 1}


class Sink(Protocol):
    """Where a followed run is shown."""

    def show(self, follower: RunFollower, view: RunView) -> None:
        """Something changed."""

    def stale(self) -> bool:
        """Whether what was shown must be shown again though the run has not changed."""

    def note(self, text: str) -> None:
        """Say something about the following itself."""

    def end(self, view: RunView, run: RunDir) -> None:
        """The run has ended."""


class Live:
    """The live view: frames in place, the summary in their stead at the end."""

    def __init__(self, painter: painter.Painter, signs: views.Signs) -> None:
        self._painter, self._signs, self._note = painter, signs, ""
        self._axes: views.Axes = {}

    def show(self, follower: RunFollower, view: RunView) -> None:
        width, height = self._painter.size()
        self._painter.paint(views.frame(view, width, height - 1, self._signs, self._note, self._axes))

    def stale(self) -> bool:
        return self._painter.resized()

    def note(self, text: str) -> None:
        self._note = text

    def end(self, view: RunView, run: RunDir) -> None:
        width, height = self._painter.size()
        lines = [*views.summary(view, width, self._signs), *_tail(view, run), *_ending(view, run, self._signs)]
        closing = painter.broken(lines, width)
        self._painter.paint(_last_frame(view, width, max(height - 1 - len(closing), 0), self._signs))
        painter.print_lines(closing)


class Plain:
    """Append-only lines without any control code, each after `prefix`; no curves if they are to be `brief`."""

    def __init__(self, prefix: str = "", *, brief: bool = False) -> None:
        self._printed, self._signs = 0.0, views.signs_for(sys.stdout)
        self._prefix, self._brief = prefix, brief

    def show(self, follower: RunFollower, view: RunView) -> None:
        for record in follower.fresh:
            if isinstance(record, Scalars):
                if self._brief:
                    continue
                held_out = any(name.startswith(("val_", "final_")) for name in record.values)
                if held_out or time.monotonic() - self._printed > PLAIN_SECONDS:
                    self._printed = time.monotonic()
                    self._say(_scalars(record))
            elif isinstance(record, StageChange):
                steps = f", {record.total_steps} steps" if record.state == "started" else ""
                self._say(f"{record.stage}: {record.state}{steps}")
            elif isinstance(record, Cell):
                interval = fmt.interval(record.low, record.high)
                self._say(f"{record.model} under {record.attack}: {fmt.percent(record.accuracy)}% {interval}")
            elif isinstance(record, WarningNote):
                self._say(f"warning: {record.text}")
            elif isinstance(record, ErrorNote):
                self._say(f"error: {record.text}")
            elif isinstance(record, Message):
                self._say(record.text)

    def stale(self) -> bool:
        return False

    def note(self, text: str) -> None:
        self._say(text)

    def end(self, view: RunView, run: RunDir) -> None:
        lines = [*views.summary(view, 200, self._signs), *_tail(view, run), *_ending(view, run, self._signs)]
        for line in lines:
            self._say(line.plain.rstrip())

    def _say(self, text: str) -> None:
        say(*(f"{self._prefix}{line}" for line in text.split("\n")), flush=True)


class Json:
    """Every record as a line, as it stands in the file, unless they are not wanted; then the results document."""

    def __init__(self, records: bool) -> None:
        self._records = records

    def show(self, follower: RunFollower, view: RunView) -> None:
        for record in follower.fresh if self._records else ():
            print(to_json(record).decode())
        sys.stdout.flush()

    def stale(self) -> bool:
        return False

    def note(self, text: str) -> None:
        say(text, file=sys.stderr, flush=True)

    def end(self, view: RunView, run: RunDir) -> None:
        print(to_json(whole_document(view, run)).decode(), flush=True)


def whole_document(view: RunView, run: RunDir) -> dict[str, object]:
    """What `--json` says of a run that has ended."""
    import msgspec

    results = run.results()
    cells = list(view.table.cells.values()) if results is None else results.cells
    return document(cells) | {
        "id": run.id,
        "state": view.status.state,
        "reason": view.error,
        "differences": msgspec.to_builtins(results.differences) if results else [],
        "headline": dict(results.headline) if results else {},
    }


def _scalars(record: Scalars) -> str:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in record.numbers().items())
    return f"{record.stage} step {record.step} epoch {record.epoch:.2f}  {numbers}"


def _last_frame(view: RunView, width: int, height: int, signs: views.Signs) -> list[Text]:
    """The curves stay on the screen above the summary, where there is room for both."""
    top = [views.header(view, signs, width), views.stage_bar(view, width, signs)]
    room = min(height - len(top) - 1, 24)
    if room < views.LEAST_PICTURE:
        return []
    return [*top, *views.curve_lines(view, width, room, signs), Text("")]


def _ending(view: RunView, run: RunDir, signs: views.Signs) -> list[Text]:
    following = {
        "finished": "`cafe` opens the terminal UI, `cafe plot last` the curves",
        "stopped": f"`cafe resume {run.id}` goes on from here",
        "failed": f"the log is {run.log_file}",
        "lost": f"the log is {run.log_file}",
    }.get(view.status.state, "")
    lines = views.ending(view, signs, str(run.path))
    return [*lines, Text(following, "dim")] if following else lines


def _tail(view: RunView, run: RunDir) -> list[Text]:
    """The engine's last words, when it did not live to say why."""
    if view.status.state != "lost":
        return []
    return [Text(line, "dim") for line in LogFollower(run, lines=8).poll()]


@contextmanager
def _sink(plain: bool, json: bool, records: bool) -> Iterator[Sink]:
    if json:
        yield Json(records)
    elif plain or not painter.live_terminal(sys.stdout):
        yield Plain()
    else:
        with painter.Painter(sys.stdout) as canvas:
            yield Live(canvas, views.signs_for(sys.stdout))


class Interrupts:
    """Counts ctrl-C; ends the program, through every `finally`, on SIGTERM and SIGHUP."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counted(self) -> Iterator[Interrupts]:
        old = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._count),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._leave),
            signal.SIGHUP: signal.signal(signal.SIGHUP, self._leave),
        }
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def _leave(self, number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)


def farewell(runs: Sequence[RunDir], name: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Say what becomes of runs that are followed no longer. `name` is what commands call them by.

    A scheduler that ends its job ends the engines too. They hear of it in the same moment as we, so in a job they get
    a while to answer before anything is claimed. `process` is the engine of the only run, if it is our child.
    """
    job = next((os.environ[key] for key in JOB_VARIABLES if key in os.environ), "")
    deadline = time.monotonic() + (ANSWER_SECONDS if job else 0.0)
    while True:
        states = [_state_now(run, process) for run in runs]
        if all(state in (*FINAL, "stopping") for state in states) or time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    with suppress(OSError):  # the terminal may be gone
        say(_becomes(name, states, job), file=sys.stderr, flush=True)


def _state_now(run: RunDir, process: subprocess.Popen[bytes] | None) -> str:
    """The state of a run: of this engine, if it is our child, which may not have come to its first word yet."""
    if process is None or run.state().pid == process.pid:
        return run.status().state
    return "starting" if process.poll() is None else "lost"


def _becomes(name: str, states: Sequence[str], job: str) -> str:
    """What farewell says of runs in these states."""
    one = len(states) == 1
    the_runs, them = ("the run", "it") if one else ("the runs", "them")
    again = f"`cafe resume {name}` continues {them}"
    if all(state == "finished" for state in states):
        return f"{the_runs} {'is' if one else 'are'} finished; `cafe table {name}` shows the results"
    if all(state in FINAL for state in states):
        return f"{the_runs} ended too: {', '.join(dict.fromkeys(states))}; {again}"
    if all(state in (*FINAL, "stopping") for state in states):
        return f"{the_runs} {'is' if one else 'are'} stopping too, with a checkpoint; {again}"
    watch = f"`cafe watch {name}` follows {them}"
    goes = "goes" if one else "go"
    return (
        f"{the_runs} {goes} on until job {job} ends; {watch}, then {again}" if job else f"{the_runs} {goes} on; {watch}"
    )


def follow(
    start: Callable[[], tuple[RunDir, subprocess.Popen[bytes]]],
    *,
    plain: bool = False,
    json: bool = False,
    records: bool = True,
) -> int:
    """Start a run and show it until its engine ends; returns the exit code of the contract.

    With `json` a results document comes at the end, after every record as a line if `records` are wanted.

    The first ctrl-C asks the engine to stop, the second kills it. From the very start: an engine that nobody knows of
    would go on.
    """
    with Interrupts().counted() as interrupts:
        run, process = start()
        try:
            return _serve(run, process, interrupts, plain=plain, json=json, records=records)
        except (SystemExit, BrokenPipeError):
            farewell([run], run.id, process)
            raise


def _serve(
    run: RunDir,
    process: subprocess.Popen[bytes],
    interrupts: Interrupts,
    *,
    plain: bool,
    json: bool,
    records: bool,
) -> int:
    obeyed = 0

    def obey(count: int, sink: Sink) -> bool:
        nonlocal obeyed
        if count > obeyed:
            obeyed = count
            if count == 1:
                local.stop(run)
                sink.note("stopping after this step, with a checkpoint; ctrl-C again kills the engine")
            else:
                process.kill()
        return False

    while run.state().pid != process.pid and process.poll() is None:  # until then state.json is an earlier engine's
        time.sleep(0.02)
    view = _follow(run, interrupts, obey, process, plain=plain, json=json, records=records)
    return EXIT_CODES.get(view.status.state, 1)


def watch(run: RunDir, *, plain: bool = False) -> None:
    """Show a run that somebody else started until it ends or ctrl-C; the engine is left alone."""
    with Interrupts().counted() as interrupts:
        _follow(run, interrupts, lambda count, sink: count > 0, plain=plain)


def _follow(
    run: RunDir,
    interrupts: Interrupts,
    obey: Callable[[int, Sink], bool],
    process: subprocess.Popen[bytes] | None = None,
    *,
    plain: bool,
    json: bool = False,
    records: bool = True,
) -> RunView:
    """Poll until the run has ended. `obey` (interrupts so far) may leave earlier; `process` is the engine, if ours."""
    follower = RunFollower(run, keep=True)
    with _sink(plain, json, records) as sink:
        while True:
            code = process.poll() if process else None  # asked before the poll, which then reads its last words
            view = follower.poll()
            if view is not None or sink.stale():
                sink.show(follower, follower.view)
            view = follower.view
            ended = view.status.final and (process is None or view.state.pid == process.pid)
            if code is not None and not ended and not follower.fresh:
                view, ended = _unexplained(view, run, code), True
            if ended and not follower.fresh:
                sink.end(view, run)
                return view
            if obey(interrupts.count, sink):
                return view
            if code is None and not ended:
                time.sleep(POLL_SECONDS)


def _unexplained(view: RunView, run: RunDir, code: int) -> RunView:
    """The last view of a run whose engine ended with this code and left no word about its end."""
    reason = f"the engine ended with code {code} without saying why; see {run.log_file}"
    if not view.status.final:
        reason = f"another engine was at work on it already; `cafe watch {run.id}` follows it"
    return replace(view, status=Status("lost", reason), error=reason)
