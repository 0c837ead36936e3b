"""Property tests here touch files: a slow disk is not a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("files", deadline=None)
settings.load_profile("files")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, without any profile."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
