"""Short names of runs that are told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ID = re.compile(r"\d{8}-\d{6}-(?P<name>.+)-(?P<end>[0-9a-z]{4})")


def short_names(ids: Sequence[str]) -> dict[str, str]:
    """For each run id the shortest of profile name, last four characters, both, and all of it that tells it apart."""
    matches = {run_id: _ID.fullmatch(run_id) for run_id in ids}
    choices = [
        {run_id: match["name"] if match else run_id for run_id, match in matches.items()},
        {run_id: match["end"] if match else run_id for run_id, match in matches.items()},
        {run_id: f"{match['name']}-{match['end']}" if match else run_id for run_id, match in matches.items()},
    ]
    one_name = len(set(choices[0].values())) == 1 < len(choices[0])
    for names in choices if one_name else (choices[0], choices[2]):
        if len(set(names.values())) == len(names):
            return names
    return {run_id: run_id for run_id in ids}
