"""Which examples stand for a data set where not all are taken: some of every class, the same ones each time."""

from __future__ import annotations

import numpy as np
import torch

from engine import keyed_random


def in_turn(labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The order (N,) in which examples of these labels and data indices (N,) are taken: the classes take turns.

    First comes one example of every class, then a second one of every class, and so on; a class that has no more is
    passed over. Which of its examples a class sends is drawn, and so is the order within a turn: the draw depends on
    the data index alone, never on the seed of a run. So a larger subset begins with the smaller one.
    """
    draw = keyed_random.keys(0, torch.from_numpy(np.ascontiguousarray(index)), "subset").numpy()
    by_class = np.lexsort((draw, labels))
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.lexsort((draw, turn))
