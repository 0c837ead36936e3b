"""A run is a directory: paths, creation, state, tags, removal. Folders of runs are in `listing`.

One process writes it (the engine's rank 0), any number read it, also over NFS: state is replaced by rename, records
are appended, readers leave nothing behind. While a run is `queued`, and then only, its queue writes state.json. Whether
a run is still alive is the reader's judgement, see `RunDir.status` and `liveness`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Literal, TypeVar

import msgspec

from engine.contract.errors import DiskError, UsageError
from engine.contract.run import liveness, space
from engine.contract.run.opening import regular
from engine.contract.run.records import to_json
from engine.contract.run.results import Results

StateName = Literal["queued", "starting", "running", "stopping", "stopped", "finished", "failed", "lost"]
FINAL: frozenset[str] = frozenset({"stopped", "finished", "failed", "lost"})

BEATS_SECONDS = 4 * liveness.HEARTBEAT_SECONDS
"""For how long an engine that cannot be seen otherwise is given time for a sign of life."""

T = TypeVar("T")

PARTLY_REMOVED = ".partly-removed"
"""What the folder of a run is called, after its id, from the moment its removal begins."""
INFO_PATIENCE = 30.0
"""Seconds to wait for another process that is changing run.json, which takes it milliseconds."""
SMALL = 1 << 16
"""Bytes that hold a small file, mostly."""
LARGEST = 1 << 26
"""No file that is read as a whole has more."""
BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a small file raises if its content is not what it should be."""

ID = re.compile(r"(\d{8}-\d{6})-(.+)-[0-9a-z]{4}")
_REST = re.compile(rf"\.gone-{ID.pattern}|{ID.pattern}{re.escape(PARTLY_REMOVED)}")  # the former: of earlier versions
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class State(liveness.Process, kw_only=True):
    """state.json, and the process that writes it: the engine, or its queue while the run is `queued`.

    `step` of `total_steps` counts within `stage`; `progress` (0-1) is that of the whole run. `lock` is whether that
    process holds control/engine.lock for as long as it lives.
    """

    state: StateName = "queued"
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    progress: float = 0.0
    lock: bool = False
    heartbeat: float = 0.0
    error: str = ""
    hint: str = ""


class Info(msgspec.Struct, kw_only=True):
    """run.json: what does not change while the run goes on. `folder` is where the command was given."""

    id: str
    name: str
    created: float
    tags: list[str] = []
    note: str = ""
    description: str = ""
    command: list[str] = []
    folder: str = ""
    host: str = ""
    devices: list[str] = []
    versions: dict[str, str] = {}
    parent: str | None = None


@dataclass(frozen=True)
class Status:
    """What a reader may say of a run: its state, or `lost`, and why."""

    state: StateName
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINAL


class _Inside:
    """A path inside a run directory, made when asked for: a list of a thousand runs needs three of the eleven."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __get__(self, run: RunDir, _: type[RunDir]) -> Path:
        return run.path.joinpath(*self.parts)


class RunDir:
    """The paths of one run directory, and its small files read with tolerance."""

    profile_file = _Inside("profile.toml")
    info_file = _Inside("run.json")
    state_file = _Inside("state.json")
    records_file = _Inside("records.jsonl")
    results_file = _Inside("results.json")
    log_file = _Inside("engine.log")
    checkpoints = _Inside("checkpoints")
    outcomes = _Inside("outcomes")
    samples = _Inside("samples")
    control = _Inside("control")
    stop_file = _Inside("control", "stop")
    lock_file = _Inside("control", "engine.lock")
    rank_lock_file = _Inside("control", "rank.lock")
    reserve_file = _Inside("control", "reserve")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self._root = str(path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @property
    def partly_removed(self) -> bool:
        """Whether this is what a removal that did not come to its end has left of a run."""
        suspect = self.id.endswith(PARTLY_REMOVED) or self.id.startswith(".gone-")
        return suspect and _REST.fullmatch(self.id) is not None

    def info(self) -> Info:
        """run.json; a missing or broken file gives what the name of the directory tells."""
        return self._small("run.json", Info) or _info_from_id(self.id)

    def look(self) -> tuple[Info, str]:
        """The same, and what is wrong with the file, if it is there. Raises OSError for an unreadable directory."""
        try:
            return self._read("run.json", Info), ""
        except OSError as error:
            os.stat(f"{self._root}/.")
            trouble = f"run.json: {error.strerror}" if error.errno != errno.ENOENT else ""
        except BROKEN:
            trouble = "run.json is damaged: no tags and no note are known"
        return _info_from_id(self.id), trouble

    def state(self) -> State:
        """state.json; a missing or broken file gives a state without heartbeat."""
        if self.partly_removed:
            return State(state="lost", error=f"partly removed; `cafe rm {self.id}` removes the rest")
        return self._small("state.json", State) or State(state="starting")

    def results(self) -> Results | None:
        """results.json, or None while there is none."""
        return self._small("results.json", Results)

    def _small(self, name: str, kind: type[T]) -> T | None:
        try:
            return self._read(name, kind)
        except (OSError, *BROKEN):
            return None

    def _read(self, name: str, kind: type[T]) -> T:
        # Paths joined as text, no file object: half the time, and a list of runs does this thousands of times.
        file = regular(f"{self._root}/{name}")
        try:
            content = os.read(file, SMALL)
            while len(content) % SMALL == 0 and (more := os.read(file, SMALL)):
                content += more
                if len(content) > LARGEST:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        finally:
            os.close(file)
        return msgspec.json.decode(content, type=kind)

    def signature(self) -> tuple[object, ...]:
        """Changes when state.json, results.json or run.json does."""
        return tuple(_signature(f"{self._root}/{name}") for name in ("state.json", "results.json", "run.json"))

    def records_signature(self) -> object:
        """Changes when records.jsonl does."""
        return _signature(f"{self._root}/records.jsonl")

    def write_state(self, state: State) -> None:
        """Replace state.json; raises DiskError when the disk refuses."""
        write_atomically(self.state_file, to_json(state), lasting=False)  # a heartbeat soon renews it

    def status(self, state: State | None = None, now: float | None = None, *, held: bool | None = None) -> Status:
        """The state as written, unless the engine is gone: then `lost`, with the reason.

        Whoever holds control/engine.lock lives. Where nobody does, the process itself is looked at if it can be seen
        from here, and else its heartbeat. `held` is for the engine alone, which must not ask about its own lock.
        """
        state = state or self.state()
        if state.state in FINAL:
            return Status(state.state, state.error)
        if held is None:
            held = liveness.held(f"{self._root}/control/engine.lock")
        alive = True if held else liveness.alive(state)
        if alive is None and held is False and state.lock and liveness.same_kernel(state):
            alive = False  # it counts its processes elsewhere, as in a container, but its lock would be seen
        if alive:
            return Status(state.state)
        why_lost = self._gone(state) if alive is False else self._silent(state, time.time() if now is None else now)
        if why_lost is None:
            return Status(state.state)
        latest = self.state()
        if latest.state in FINAL:  # it ended between our two looks
            return Status(latest.state, latest.error)
        if alive is None and held is None and not old_by_any_clock(state, now):
            return Status(state.state, why_lost)  # no lock can be looked at, and clocks of two hosts may differ
        return Status("lost", why_lost)

    def _gone(self, state: State) -> str:
        """Why a run is lost whose process is known to have ended."""
        if state.state == "queued":
            return f"its queue (process {state.pid}) is gone; `cafe resume` continues the run"
        end = space.full(self.path) or liveness.how_it_ended(state)
        return f"the engine process {state.pid} is gone: {end}; see {self.log_file}"

    def _silent(self, state: State, now: float) -> str | None:
        """Why a run is lost whose process cannot be seen; None if there are signs of life."""
        if not liveness.silent(os.path.abspath(self._root), state.heartbeat, now):
            return None
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.heartbeat))
        clock = f" by the clock of host {state.host}" if state.host else ""
        full = space.full(self.path)
        silence = f"no sign of life since {since}{clock}" if state.heartbeat else "no sign of life"
        return f"{silence}{f'; {full}' if full else ''}; see {self.log_file}"

    def settled(self) -> Status:
        """The status, after a moment's wait where a process has ended and has not yet let go of the lock."""
        state = self.state()
        if state.state not in FINAL and liveness.alive(state) is False:
            liveness.released(self.lock_file)
        return self.status()

    @property
    def occupied(self) -> bool:
        """Whether an engine or a rank of one holds this run in this moment."""
        return any(liveness.held(file) for file in (self.lock_file, self.rank_lock_file))

    def holder(self) -> str:
        """Why this run must be left alone, whatever its state says; empty if nobody is working on it.

        Waits a moment for an engine that is ending, and longer for a sign of life of one that only a clock calls lost.
        """
        if not all(liveness.released(file) for file in (self.lock_file, self.rank_lock_file)):
            return f"an engine still holds {self.lock_file}"
        state = self.state()
        if state.state not in FINAL and not old_by_any_clock(state) and liveness.alive(state) is None:
            far = state.host != socket.gethostname()  # where an engine may be about to say its first word
            unclear = far or (state.pid is not None and not (state.lock and liveness.same_kernel(state)))
            if unclear and self._beats(state.heartbeat):
                return f"its engine on host {state.host} gives signs of life"
        return ""

    def _beats(self, heartbeat: float) -> bool:
        deadline = time.monotonic() + BEATS_SECONDS
        while self.state().heartbeat == heartbeat:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def request_stop(self) -> None:
        """Ask the engine to stop after its current step; works from another host."""
        try:
            self.control.mkdir(exist_ok=True)
            self.stop_file.touch()
        except OSError as error:
            raise space.disk_error(f"cannot ask {self.id} to stop", self.stop_file, error) from None


def old_by_any_clock(state: State, now: float | None = None) -> bool:
    """Whether a heartbeat is older than clocks of two hosts are apart."""
    return (time.time() if now is None else now) - state.heartbeat > liveness.CLOCKS_APART_SECONDS


def write_atomically(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write beside, flush to disk, rename: a reader sees the old file or the new one. Raises DiskError.

    What is `lasting` is still the new one after a power cut.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        if lasting:
            settle(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise space.disk_error(f"cannot write {path}", path, error) from error


def settle(folder: Path) -> None:
    """Flush to disk which files a folder has. Where a file system cannot, a power cut may bring old names back."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def create(
    runs: Path,
    name: str,
    profile_toml: str,
    *,
    description: str = "",
    tags: Sequence[str] = (),
    command: Sequence[str] = (),
    parent: str | None = None,
    state: Literal["starting", "queued"] = "starting",
) -> RunDir:
    """Make a new run directory under `runs`, complete or not at all. `queued` are runs whose engine comes later.

    Raises UsageError when the folder cannot be made or written, or when `name` cannot be part of a folder's name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"a run cannot be called {name!r}", "Letters, digits, dot, dash and underscore, at most 60.")
    now = time.time()
    info = Info(
        id="",
        name=name,
        created=now,
        tags=list(tags),
        description=description,
        command=list(command),
        folder=os.getcwd(),
        host=socket.gethostname(),
        parent=parent,
    )
    try:
        runs.mkdir(parents=True, exist_ok=True)
        info.id, hidden = _reserve(runs, name, now)
        try:
            _fill(hidden, info, profile_toml, state)
            hidden.rename(runs / info.id)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
    except OSError as error:
        why, hint = space.refusal(error, runs / info.id)
        raise UsageError(
            f"cannot create a run in {runs}: {why}",
            hint
            if error.errno in space.FULL
            else "Choose a folder you can write with --runs DIR or the variable CAFE_RUNS.",
        ) from None
    return RunDir(runs / info.id)


def _reserve(runs: Path, name: str, now: float) -> tuple[str, Path]:
    """A new id and the hidden folder, made by us alone, in which its run is put together."""
    while True:
        run_id = f"{_stamp(now)}-{name}-{''.join(SystemRandom().choices(_ALPHABET, k=4))}"
        hidden = runs / f".new-{run_id}"
        with suppress(FileExistsError):
            hidden.mkdir()
            if not (runs / run_id).exists():
                return run_id, hidden
            hidden.rmdir()


def _fill(folder: Path, info: Info, profile_toml: str, first: StateName) -> None:
    for name in ("checkpoints", "outcomes", "samples", "control"):
        (folder / name).mkdir()
    state = State(state=first, host=info.host, heartbeat=info.created)
    (folder / "profile.toml").write_text(profile_toml, encoding="utf-8")
    (folder / "run.json").write_bytes(msgspec.json.format(to_json(info)))
    (folder / "state.json").write_bytes(to_json(state))
    (folder / "records.jsonl").touch()
    (folder / "engine.log").touch()
    space.reserve(folder / "control" / "reserve")


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(moment))


def annotate(run: RunDir, *, add: Sequence[str] = (), drop: Sequence[str] = (), note: str | None = None) -> Info:
    """Change the tags of a run, or its note, and return what run.json then says.

    Raises UsageError for a tag that is empty, longer than 40 characters, or has spaces, commas or control characters,
    and for a directory without a readable run.json; DiskError when it cannot be written.
    """
    for tag in add:
        if not re.fullmatch(r"[^\s,]{1,40}", tag) or not tag.isprintable():
            raise UsageError(f"not a tag: {tag!r}", "A tag has 1 to 40 characters, without spaces or commas.")
    with changed_info(run) as info:
        info.tags = [tag for tag in dict.fromkeys([*info.tags, *add]) if tag not in drop]
        info.note = info.note if note is None else note
    return info


@contextmanager
def changed_info(run: RunDir) -> Iterator[Info]:
    """run.json, to be changed within this context and then replaced; other processes that want to do so wait.

    Raises UsageError, and leaves the file alone, where it cannot be read or others take too long; DiskError when it
    cannot be written.
    """
    with _info_lock(run):
        try:
            info = run._read("run.json", Info)
        except (OSError, *BROKEN) as error:
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise UsageError(
                f"cannot read {run.info_file}: {why}; it was left as it is",
                "Mend it by hand, or put a copy of it back: it holds tags, note, command and time of the run.",
            ) from None
        yield info
        write_atomically(run.info_file, msgspec.json.format(to_json(info)))


@contextmanager
def _info_lock(run: RunDir) -> Iterator[None]:
    """Within this context no other process changes run.json. The kernel lets go for a process that dies."""
    from filelock import FileLock, Timeout  # 80 ms, which those who only read the run need not pay

    with suppress(OSError):
        run.control.mkdir(exist_ok=True)
    lock = FileLock(run.control / "info.lock", timeout=INFO_PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another process has been changing {run.info_file} for {INFO_PATIENCE:.0f} s", "Try again later."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # on a file system without locks changes are as rare as people are quick
            raise DiskError(f"cannot write {lock.lock_file}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def remove(run: RunDir) -> None:
    """Delete a run that has ended; of a linked run, only the link.

    Its folder gets another name first, see PARTLY_REMOVED. What a removal leaves that fails or is killed is listed
    under that name and can be removed like a run. Raises UsageError while its engine may be alive, DiskError when the
    folder refuses.
    """
    status = run.settled()
    if not status.final:
        raise UsageError(f"{run.id} is {status.state}", "Stop it first: `cafe stop`.")
    if holder := run.holder():
        raise UsageError(f"{run.id} is {status.state}, but {holder}", "Stop it first: `cafe stop`.")
    rest = run.path
    try:
        if run.path.is_symlink():
            run.path.unlink()
            return
        _check_removable(run.path)
        if not run.partly_removed:
            rest = run.path.with_name(run.id + PARTLY_REMOVED)
            run.path.rename(rest)
        shutil.rmtree(rest)
    except OSError as error:
        if not os.path.lexists(rest) and not os.path.lexists(run.path):
            return  # somebody else was quicker
        if os.path.lexists(run.path) and not run.partly_removed:
            raise DiskError(f"cannot delete {run.path}: {error.strerror}; it was left as it is") from None
        raise DiskError(
            f"cannot delete all of {run.path}: {error.strerror}: {error.filename}",
            f"The rest is listed as {rest.name}. Mend the cause, then: cafe rm {rest.name}",
        ) from None


def _check_removable(path: Path) -> None:
    """Raises OSError where a folder of a run will not let its files go: before it is touched, not half way."""
    for folder, _, _ in os.walk(path):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


def _info_from_id(run_id: str) -> Info:
    """What the name of a directory says of a run: its name, and when it was made in the local time of that host."""
    parts = ID.fullmatch(run_id.removeprefix(".gone-").removesuffix(PARTLY_REMOVED))
    info = Info(id=run_id, name=parts[2] if parts else run_id, created=0.0)
    with suppress(ValueError, OverflowError):
        info.created = time.mktime(time.strptime(parts[1] if parts else run_id[:15], "%Y%m%d-%H%M%S"))
    return info


def _signature(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
