"""Two accounts on one runs folder: docs/reliability.md says what each may do, and each cell of its table is tried."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.contract.profile import files as profiles
from engine.contract.run.rundir import RunDir
from tests.faults.accounts import NO_OTHERS, ROOT, TINY, Account, Answer
from tests.faults.killing import end_all, runs_in

pytestmark = [pytest.mark.skipif(bool(NO_OTHERS), reason=NO_OTHERS), pytest.mark.slow]

OWNER, OTHER, COMMON = 20001, 20002, 20100


def stated() -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The table of the page: its columns, and its rows with a cell for each."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = page.split("## Two accounts on one runs folder")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return head[1:], [(row[0], row[1:]) for row in rows]


FOLDERS, ROWS = stated()
CELLS = [(folder, row, cell) for row, cells in ROWS for folder, cell in zip(FOLDERS, cells, strict=True)]


@dataclass
class Shared:
    """A runs folder of one account, in which another one tries something."""

    runs: Path
    owner: Account
    other: Account

    def made(self, state: str) -> RunDir:
        """A run of the owner's that is over, or seems to be at work in the owner's process."""
        self.owner.make(self.runs, state)
        (run,) = runs_in(self.runs)
        return run

    def try_it(self, *arguments: str) -> Answer:
        return self.other.cafe(*arguments, "--runs", str(self.runs))


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder that every account may enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory(prefix="cafe-accounts-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def accounts(public: Path) -> Iterator[tuple[Account, Account]]:
    """The owner of the runs folder and the other one."""
    owner, other = (Account(uid, COMMON, public / str(uid)) for uid in (OWNER, OTHER))
    (other.home / "tiny.toml").write_text(profiles.dumps(profiles.from_tables(TINY)), encoding="utf-8")
    yield owner, other
    owner.close()
    other.close()


@pytest.fixture
def place(folder: str, accounts: tuple[Account, Account], public: Path) -> Iterator[Shared]:
    """The folder that a column of the table names: its mode, the group, the umask of both accounts."""
    owner, other = accounts
    owner.umask = other.umask = 0o002 if "umask 002" in folder else 0o022
    runs = Path(tempfile.mkdtemp(dir=public))
    os.chown(runs, OWNER, COMMON if "group" in folder else OWNER)
    runs.chmod(int(re.findall(r"\d{4}", folder)[0], 8))
    yield Shared(runs, owner, other)
    end_all(runs)


# --- what a row of the table means: try it, and tell whether it was done ----------------------------------------------


def reads(place: Shared) -> bool:
    run = place.made("finished")
    for path in (place.runs, run.path, *run.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o004, f"others cannot read {path}"
    answers = [
        place.try_it("ls", "--json"),
        *(place.try_it(verb, run.id) for verb in ("show", "logs")),
        place.try_it("watch", run.id, "--plain"),
    ]
    assert all(run.id in answer.text for answer in answers[:2])
    return all(answer.code == 0 for answer in answers)


def tags(place: Shared) -> bool:
    run = place.made("finished")
    answers = place.try_it("tag", run.id, "mine"), place.try_it("note", run.id, "good")
    done = run.info().tags == ["mine"], run.info().note == "good"
    return agreed(*zip(answers, done, strict=True))


def stops(place: Shared) -> bool:
    run = place.made("running")
    return agreed((place.try_it("stop", run.id), run.stop_file.exists()))


def resumes(place: Shared) -> bool:
    run = place.made("stopped")
    answer = place.try_it("resume", run.id, "--plain")
    return agreed((answer, run.state().state == "finished"))


def removes(place: Shared) -> bool:
    run = place.made("finished")
    before = sorted(run.path.rglob("*"))
    answer = place.try_it("rm", run.id, "--yes")
    gone = not run.path.exists()
    assert gone or sorted(run.path.rglob("*")) == before, "half of it"
    assert list(place.runs.iterdir()) == ([] if gone else [run.path])
    return agreed((answer, gone))


def runs(place: Shared) -> bool:
    answer = place.try_it("run", "tiny", "--plain")
    made = runs_in(place.runs)
    assert all(run.path.stat().st_uid == OTHER for run in made)
    return agreed((answer, [run.state().state for run in made] == ["finished"]))


def agreed(*tried: tuple[Answer, bool]) -> bool:
    """Whether all was done; what was not, was refused by one message without a traceback."""
    for answer, done in tried:
        if not done:
            assert answer.code in (1, 2), answer.text
            assert answer.text.startswith("cafe: "), answer.text
            assert "Traceback" not in answer.text
            assert "internal error" not in answer.text
        else:
            assert answer.code == 0, answer.text
    done = {done for _, done in tried}
    assert len(done) == 1
    return done.pop()


MEANINGS: dict[str, Callable[[Shared], bool]] = {
    "cafe ls": reads,
    "cafe tag": tags,
    "cafe stop": stops,
    "cafe resume": resumes,
    "cafe rm": removes,
    "cafe run": runs,
}


@pytest.mark.parametrize(("folder", "row", "cell"), CELLS, ids=[f"{row} in {folder}" for folder, row, _ in CELLS])
def test_what_the_page_says_that_another_account_may_do(place: Shared, row: str, cell: str) -> None:
    (meaning,) = [trial for verb, trial in MEANINGS.items() if f"`{verb}`" in row]
    assert ("yes" if meaning(place) else "no") == cell


def test_each_row_is_tried() -> None:
    assert [next(verb for verb in MEANINGS if f"`{verb}`" in row) for row, _ in ROWS] == list(MEANINGS)
