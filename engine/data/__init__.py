"""Data sets: one loader each; images resident on the device as uint8, or streamed to it, and augmented there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engine import distributed, keyed_random
from engine.contract.errors import UsageError
from engine.contract.profile.catalogue import DATA_SETS, HUB, DataFacts
from engine.contract.profile.schema import Data
from engine.data import archives, folders, hub
from engine.data.archives import Recipe
from engine.data.source import Source
from engine.data.streaming import OnHost, streams
from engine.data.subset import in_turn
from engine.device import Compute
from engine.registry import resolve

DATA: dict[str, Callable[[Data], Source]] = {name: resolve(row.loader) for name, row in DATA_SETS.items()}
RECIPES: dict[str, Recipe] = {name: resolve(row.recipe) for name, row in DATA_SETS.items() if row.recipe is not None}
"""Those of DATA that must be fetched."""


@dataclass(frozen=True)
class Batch:
    """Images (N,C,H,W) fp32 in [0,1], labels (N,) int64, and the index of each example in its data set (N,) int64."""

    x: Tensor
    y: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def padded(self, size: int) -> Batch:
        """At least `size` examples: the first one again and again after the last."""
        extra = size - len(self)
        if extra <= 0:
            return self
        rows = torch.cat([torch.arange(len(self)), torch.zeros(extra, dtype=torch.long)]).to(self.y.device)
        return Batch(self.x[rows], self.y[rows], self.index[rows])


@dataclass(frozen=True)
class Images:
    """Examples: images (N,C,H,W) uint8, or fp32 in [0,1]; labels and data indices (N,) int64.

    Images are on the device, or on the host: no batch differs by that. Labels and indices are on the device.
    """

    images: Tensor | OnHost
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor, compute: Compute) -> Batch:
        """The examples at `rows` (N,) int64, as a batch."""
        if isinstance(self.images, OnHost):
            return self._batch(self.images.read(rows.cpu().numpy(), compute.device), rows, compute)
        return self._batch(self.images[rows], rows, compute)

    def stream(self, parts: Sequence[Tensor], compute: Compute) -> Iterator[Batch]:
        """`take` for each of these rows (N,) int64 in turn; images on the host are read ahead of it."""
        if not isinstance(self.images, OnHost) or not parts:
            yield from (self.take(rows, compute) for rows in parts)
            return
        ends = np.cumsum([len(rows) for rows in parts])[:-1]
        on_host = np.split(torch.cat(list(parts)).cpu().numpy(), ends)
        for rows, pixels in zip(parts, self.images.ahead(on_host, compute.device), strict=True):
            yield self._batch(pixels, rows, compute)

    def _batch(self, pixels: Tensor, rows: Tensor, compute: Compute) -> Batch:
        x = pixels.to(compute.device, non_blocking=True)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        return Batch(compute.layout(x), self.labels[rows], self.index[rows])

    def first(self, count: int | None) -> Images:
        """The first `count` examples; all of them for None. They may be of one class: see `subset`."""
        return Images(self.images[:count], self.labels[:count], self.index[:count])

    def subset(self, count: int | None) -> Images:
        """`count` examples of all classes in turn, always the same ones; all of them, as they stand, for None."""
        return self if count is None or count >= len(self) else self.at(self.in_turn()[:count])

    def in_turn(self) -> Tensor:
        """The order (N,) of which `subset` takes the beginning, see `subset.in_turn`."""
        order = in_turn(self.labels.cpu().numpy(), self.index.cpu().numpy())
        return torch.from_numpy(order).to(self.labels.device)

    def at(self, rows: Tensor) -> Images:
        """The examples at `rows` (N,) int64."""
        images = self.images[rows.cpu().numpy()] if isinstance(self.images, OnHost) else self.images[rows]
        return Images(images, self.labels[rows], self.index[rows])

    def share(self) -> Images:
        """This rank's part of the examples; all of them where there is one rank."""
        own = slice(distributed.rank(), None, distributed.world())
        return Images(self.images[own], self.labels[own], self.index[own])

    def batches(self, size: int, compute: Compute) -> Iterator[Batch]:
        """All examples in order."""
        yield from self.stream(torch.arange(len(self), device=self.labels.device).split(size), compute)


@dataclass(frozen=True)
class Splits:
    """A data set ready for a run: `train` and held-out `validation` (both from the training images), and `test`."""

    facts: DataFacts
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Images
    validation: Images
    test: Images
    streamed: bool
    """Whether the images are on the host."""
    class_names: tuple[str, ...] = ()
    """Empty where they are not known."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """By part, train and test: a checksum of its images, labels and their order."""
    shared: int = 0
    """Test images that are in train too."""


def load(data: Data, *, seed: int, compute: Compute) -> Splits:
    """Load the data set of a resolved profile onto the device; a share of the training images is held out by `seed`.

    Raises UsageError where it is not there or not what the profile says, and DiskError.
    """
    source, facts = read(data), data.facts
    shapes = [(count, facts.channels, facts.size, facts.size) for count in (facts.pool, facts.test)]
    if [source.train_images.shape, source.test_images.shape] != shapes:
        raise UsageError(
            f"{data.name}: images of shape {source.train_images.shape} to train and {source.test_images.shape} to "
            f"test on; the profile says {shapes[0]} and {shapes[1]}",
            "It has been changed since the profile was resolved.",
        )
    held_out = max(1, round(data.validation * len(source.train_labels)))
    order = np.random.default_rng([seed, 0xCAFE]).permutation(len(source.train_labels))

    size = source.train_images.nbytes + source.test_images.nbytes
    streamed = streams(data.residency, size, compute.device)

    def part(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Images:
        return Images(
            OnHost(images, rows) if streamed else torch.from_numpy(images[rows]).to(compute.device),
            torch.from_numpy(labels[rows]).to(compute.device),
            torch.from_numpy(rows).to(compute.device),
        )

    return Splits(
        facts=facts,
        mean=source.mean,
        std=source.std,
        train=part(source.train_images, source.train_labels, np.sort(order[held_out:])),
        validation=part(source.train_images, source.train_labels, np.sort(order[:held_out])),
        test=part(source.test_images, source.test_labels, np.arange(len(source.test_labels))),
        streamed=streamed,
        class_names=source.class_names,
        sums=source.sums,
        shared=source.shared,
    )


def read(data: Data) -> Source:
    """The images of a data set, mapped where there is a cache. Raises UsageError, DiskError."""
    return DATA.get(data.name, hub.load)(data)


def prepare(data: Data, say: Callable[[str], None]) -> None:
    """Have a data set here, ready to be mapped, and verify it. Raises UsageError, DiskError."""
    had = DATA_SETS.get(data.name, HUB).had
    if had == "archives":
        archives.prepare(data.name, RECIPES[data.name], say)
    elif had == "library":
        DATA[data.name](data)
        say(f"{data.name} comes with a library that is installed; nothing to prepare")
    elif had == "folder":
        folders.prepare(data, say)
    else:
        hub.prepare(data, say)


def epoch_order(count: int, seed: int, epoch: int, purpose: str, device: torch.device) -> Tensor:
    """The order (count,) in which epoch `epoch` visits the examples: a function of its arguments alone."""
    generator = np.random.default_rng([seed, epoch, sum(purpose.encode())])
    return torch.from_numpy(generator.permutation(count)).to(device)


def augment(batch: Batch, *, flip: bool, seed: int, epoch: int, border: Sequence[float] | None = None) -> Batch:
    """Shift each image by up to size/8 pixels and, with `flip`, mirror half of them.

    `border` is the colour that comes in, a value in [0,1] for each channel, rounded down to a whole 1/255; black for
    None. The draw depends on (seed, data index, epoch) alone.
    """
    n, channels, height, width = batch.x.shape
    reach = height // 8
    chance = keyed_random.uniform(keyed_random.keys(seed, batch.index, "augment", epoch), (3,))
    shift = (chance[:, :2] * (2 * reach + 1)).long()
    padded = torch.nn.functional.pad(batch.x, (reach,) * 4)
    if border is not None:
        colour = torch.tensor([int(255 * value) / 255 for value in border], device=batch.x.device).view(1, -1, 1, 1)
        inside = torch.nn.functional.pad(torch.ones_like(batch.x[:1, :1]), (reach,) * 4) > 0
        padded = torch.where(inside, padded, colour)
    rows = shift[:, :1] + torch.arange(height, device=batch.x.device)
    columns = shift[:, 1:] + torch.arange(width, device=batch.x.device)
    if flip:
        columns = torch.where(chance[:, 2:] < 0.5, columns.flip(1), columns)
    which = torch.arange(n, device=batch.x.device)[:, None, None, None]
    channel = torch.arange(channels, device=batch.x.device)[None, :, None, None]
    return Batch(padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]], batch.y, batch.index)
