"""Follow the runs of a sweep to their end: a line for each on a terminal, what each says as plain or JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.text import Text

from cafe_tui import format as fmt
from cafe_tui.console import painter, views
from cafe_tui.console.follow import EXIT_CODES, POLL_SECONDS, Interrupts, Plain, farewell, whole_document
from cafe_tui.launch import local, queue
from cafe_tui.reading.run import RunFollower, RunView
from engine.contract.printing import say
from engine.contract.run.records import to_json
from engine.contract.run.rundir import RunDir

Followers = Sequence[RunFollower]


class Sink(Protocol):
    """Where a followed sweep is shown."""

    def show(self, changed: Followers) -> None:
        """These runs changed."""

    def stale(self) -> bool:
        """Whether what was shown must be shown again though no run has changed."""

    def note(self, text: str) -> None:
        """Say something about the following itself."""

    def end(self) -> None:
        """All runs have ended."""


class Live:
    """A line for each run, in place."""

    def __init__(self, tag: str, followers: Followers, painter: painter.Painter) -> None:
        self._tag, self._followers, self._painter, self._note = tag, followers, painter, ""
        self._signs = views.signs_for(sys.stdout)

    def show(self, changed: Followers) -> None:
        width, height = self._painter.size()
        views = [follower.view for follower in self._followers]
        self._painter.paint(frame(self._tag, views, width, height - 1, self._signs, self._note))

    def stale(self) -> bool:
        return self._painter.resized()

    def note(self, text: str) -> None:
        self._note = text

    def end(self) -> None:
        self._painter.paint([])
        painter.print_lines(_ending(self._tag, self._followers, self._signs))


class Lines:
    """What the runs say, each line with the name of its run, without any control code."""

    def __init__(self, tag: str, followers: Followers) -> None:
        self._tag, self._followers = tag, followers
        names = _short_names([follower.view for follower in followers])
        self._sinks = {f: Plain(f"{name}  ", brief=True) for f, name in zip(followers, names, strict=True)}
        self._earlier = {f for f in followers if f.run.status().final}  # what those say was said before

    def show(self, changed: Followers) -> None:
        for follower in changed:
            if follower not in self._earlier:
                self._sinks[follower].show(follower, follower.view)

    def stale(self) -> bool:
        return False

    def note(self, text: str) -> None:
        say(text, flush=True)

    def end(self) -> None:
        for line in _ending(self._tag, self._followers, views.signs_for(sys.stdout)):
            say(line.plain.rstrip(), flush=True)


class JsonLines:
    """Every record as a line, with the id of its run; then one document with the results of all."""

    def __init__(self, tag: str, followers: Followers) -> None:
        self._tag, self._followers = tag, followers

    def show(self, changed: Followers) -> None:
        for follower in changed:
            for record in follower.fresh:
                print(f'{{"run":{to_json(follower.run.id).decode()},{to_json(record).decode()[1:]}')
        sys.stdout.flush()

    def stale(self) -> bool:
        return False

    def note(self, text: str) -> None:
        say(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        runs = [whole_document(follower.view, follower.run) for follower in self._followers]
        print(to_json({"tag": self._tag, "runs": runs}).decode(), flush=True)


def follow(
    tag: str, start: Callable[[], Sequence[RunDir]], *, plain: bool = False, json: bool = False, stops: bool = True
) -> int:
    """Start a queue and show its runs until all have ended; returns the exit code of the contract.

    `tag` is what all these runs have. The first ctrl-C asks the queue and its engines to stop, the second kills the
    engines. Without `stops` ctrl-C only leaves the view.
    """
    with Interrupts().counted() as interrupts:
        followers = [RunFollower(run, keep=True) for run in start()]
        for follower in followers:
            follower.poll()
        try:
            with _sink(tag, followers, plain=plain, json=json) as sink:
                _serve(followers, sink, interrupts, stops=stops)
        except (SystemExit, BrokenPipeError):
            farewell([follower.run for follower in followers], tag)
            raise
    return _exit_code([follower.view for follower in followers])


@contextmanager
def _sink(tag: str, followers: Followers, *, plain: bool, json: bool) -> Iterator[Sink]:
    if json:
        yield JsonLines(tag, followers)
    elif plain or not painter.live_terminal(sys.stdout):
        yield Lines(tag, followers)
    else:
        with painter.Painter(sys.stdout) as canvas:
            yield Live(tag, followers, canvas)


def _serve(followers: Followers, sink: Sink, interrupts: Interrupts, *, stops: bool) -> None:
    runs, obeyed = [follower.run for follower in followers], 0
    sink.show(followers)  # what is known from the first poll
    while True:
        changed = [follower for follower in followers if follower.poll() is not None]
        if changed or sink.stale():
            sink.show(changed)
        if all(f.view.status.final and not f.fresh and not f.behind for f in followers):
            sink.end()
            return
        if interrupts.count > obeyed and not stops:
            return
        if interrupts.count > obeyed:
            obeyed = interrupts.count
            _end(runs, sink, kill=obeyed > 1)
        time.sleep(POLL_SECONDS)


def _end(runs: Sequence[RunDir], sink: Sink, *, kill: bool) -> None:
    """Ask the queue and its engines to stop, or kill the engines."""
    if not kill:
        for error in queue.stop([run for run in runs if not run.status().final]):
            sink.note(error.message)
        sink.note("stopping after this step, with a checkpoint; ctrl-C again kills the engines")
        return
    for run in runs:
        local.kill(run)


def _exit_code(views: Sequence[RunView]) -> int:
    """That of the worst run: failed before stopped before finished; of runs that go on, none."""
    codes = {EXIT_CODES.get(view.status.state, 0) for view in views}
    return next(code for code in (1, 130, 0) if code in codes)


def frame(
    tag: str, views: Sequence[RunView], width: int, height: int, signs: views.Signs, note: str = ""
) -> list[Text]:
    """The live view in at most `width` x `height` cells: those at work, and around them as many others as fit."""
    done = sum(view.status.state == "finished" for view in views)
    title = Text(tag, "bold").append(f"  {done} of {len(views)} runs finished", "dim")
    below = [Text(note, "dim")] if note else []
    room = max(height - 1 - len(below), 1)
    at_work = next((i for i, view in enumerate(views) if not view.status.final), len(views) - 1)
    first = max(min(at_work - room // 2, len(views) - room), 0)
    names = _short_names(views)
    cells = max(map(len, names))
    lines = [_line(view, name.ljust(cells), width, signs) for view, name in zip(views, names, strict=True)]
    return [title, *lines[first : first + room], *below][:height]


def _line(view: RunView, name: str, width: int, signs: views.Signs) -> Text:
    line = Text(f"{name}  ", no_wrap=True, overflow="crop")
    state = view.status.state
    line.append(signs.state(state).ljust(11), views.STATE_STYLES.get(state, "dim"))
    if state in ("running", "stopping") and view.current:
        line.append(fmt.bar(view.progress, 16, ascii_only=signs.ascii_only), "cyan")
        line.append(f" {100 * view.progress:3.0f}%  {view.current.id}")
        line.append(f"  {fmt.duration(view.eta)} to go" if view.eta is not None else "", "dim")
    elif view.error:
        line.append(view.error, "red")
    elif state == "finished":
        line.append(f"{fmt.duration(view.elapsed)}", "dim")
    line.truncate(width)
    return line


def _short_names(views: Sequence[RunView]) -> list[str]:
    """The names of the runs without the words with which all begin."""
    names = [view.info.name for view in views]
    return [name.removeprefix(fmt.shared_beginning(names)) for name in names]


def _ending(tag: str, followers: Followers, signs: views.Signs) -> list[Text]:
    """The state of each run, and what to type next."""
    views = [follower.view for follower in followers]
    lines = [_line(view, view.id, 200, signs) for view in views]
    lines += [
        Text(f"the log is {f.run.log_file}", "dim") for f in followers if f.view.status.state in ("failed", "lost")
    ]
    if all(view.status.state == "finished" for view in views):
        return [*lines, Text(f"`cafe table {tag}` shows their tables", "dim")]
    return [*lines, Text(f"`cafe resume {tag}` goes on with what is not finished", "dim")]
