"""Attacks by name. Each makes a search for a ball out of an evaluate stage; none of them measures.

To add one: write a function of a `Setting` that returns a `Search`, add a row to the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.attacks.search import Search
from engine.attacks.setting import Setting
from engine.contract.plan import budget
from engine.contract.profile import catalogue
from engine.contract.profile.catalogue import ATTACK_NAMES, plain
from engine.registry import resolve


@dataclass(frozen=True)
class Attack:
    """One column of the table: its code, and its row in the catalogue."""

    name: str
    search: Callable[[Setting], Search]

    def note(self, setting: Setting) -> str:
        """What a reader of the number must know."""
        values = budget(setting.stage, self.name, setting.classes)
        return catalogue.ATTACKS[plain(self.name)].note(setting.classes, *values)

    @property
    def uses_gradients(self) -> bool:
        """False for attacks that see answers only."""
        return catalogue.ATTACKS[plain(self.name)].gradients


ATTACKS: dict[str, Attack] = {
    name: Attack(name, resolve(catalogue.ATTACKS[plain(name)].search))
    for name in ATTACK_NAMES
    if plain(name) in catalogue.ATTACKS
}
"""Every attack that is one search. `clean` needs none, and ENSEMBLES in the catalogue are several of these."""
