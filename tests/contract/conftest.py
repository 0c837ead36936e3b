"""Property tests here touch files: a slow disk is not a failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("files", deadline=None)
settings.load_profile("files")
