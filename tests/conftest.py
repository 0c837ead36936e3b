"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A busy machine may take any time for an example; what hangs ends by the timeout of its test.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")
