"""What an attack of an evaluation is made from."""

from __future__ import annotations

from dataclasses import dataclass

from engine.attacks.balls import Ball
from engine.contract.profile.schema import Evaluate


@dataclass(frozen=True)
class Setting:
    """What an attack in an evaluation may use: the ball, the profile's evaluate stage, the seed, how many classes."""

    ball: Ball
    stage: Evaluate
    seed: int
    classes: int

    @property
    def stops(self) -> bool:
        """Whether the network that is asked is the one that is tested."""
        return self.stage.source is None

    @property
    def targets(self) -> int:
        """Classes that a targeted attack aims at."""
        return min(self.stage.targets, self.classes - 1)
