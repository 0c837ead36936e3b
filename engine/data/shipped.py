"""Real images inside the wheels of other libraries, read as they lie there: importing those takes seconds."""

from __future__ import annotations

import zlib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.contract.errors import UsageError


def table(library: str, path: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """The numbers of a compressed table (rows,columns) of a library that is installed, each 0 to 255.

    Raises UsageError where it is not what was expected.
    """
    spec = find_spec(library)
    assert spec is not None, "it is required, or was asked for before"
    file = Path(str(spec.origin)).parent / path
    try:
        numbers = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        if numbers.shape != (rows, columns):
            raise ValueError(f"{numbers.shape} numbers for {(rows, columns)}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        package = packages_distributions()[library][0]
        raise UsageError(f"{file}: not the digits that were expected ({error})", f"Install {package} again.") from None
    return numbers
