"""What the pages name is there: files, modules, and the places that links lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import contract

ROOT = Path(contract.__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TO_WRITE = {"engine/attacks/mine.py", "cafe_tui/ui/screens/NAME.py"}
"""Files that a reader is told to write."""


def headings(page: str) -> set[str]:
    """The places of a page, as links name them."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, place = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not place or place in headings(other.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """By its path from the root, or from a package, as in `ui/screens/run.py`."""
    named = re.findall(r"(?<![\w/.-])[\w-]+(?:/[\w-]+)+\.(?:py|toml|md|json|svg)\b", page.read_text(encoding="utf-8"))
    homes = (ROOT, ROOT / "cafe_tui", ROOT / "engine", page.parent)
    assert {name for name in named if not any((home / name).exists() for home in homes)} <= TO_WRITE
