"""What a task is: labelled frames in three splits, where no choice is ever made on the third."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from delaykit import ConfigError, DataError, ShapeError, checks
from delaykit_lab.declared import Declared


@dataclasses.dataclass(frozen=True)
class Frames(Declared):
    """Binned spikes of many samples, kept in memory in one byte a bin.

    Args:
        spikes: spike counts, ``(time, sample, channel)``, uint8.
        labels: class of each sample, ``(sample,)``, int64.

    Raises:
        ConfigError: one of them is no tensor.
        ShapeError: the two do not belong together.
    """

    spikes: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spikes.dim() != 3 or self.labels.shape != self.spikes.shape[1:2]:
            raise ShapeError(
                "Frames",
                f"spikes {tuple(self.spikes.shape)} and labels {tuple(self.labels.shape)}",
                "(time, sample, channel) and (sample,)",
                "give one label a sample, time first",
            )

        if self.labels.is_floating_point() or self.labels.dtype == torch.bool:
            raise ShapeError("Frames labels", f"{self.labels.dtype}", "whole numbers, int64", "labels.long()")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def subset(self, index: Tensor) -> Frames:
        """Return the samples of ``index``, numbers or a mask, as frames of their own."""
        chosen = self._chosen(index)
        return Frames(self.spikes[:, chosen], self.labels[chosen])

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return float32 spikes ``(time, batch, channel)`` and labels ``(batch,)`` on ``device``."""
        chosen = self._chosen(index)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError, ValueError) as problem:
            raise ConfigError("Frames.batch device", repr(device), "a device of this machine", "use 'cpu'") from problem
        return self.spikes[:, chosen].to(device, torch.float32), self.labels[chosen].to(device)

    def _chosen(self, index: Any) -> Tensor:
        """Return the numbers of the samples that a tensor, array, list or slice chooses."""
        try:
            chosen = torch.arange(len(self))[index]
        except (IndexError, TypeError, ValueError, RuntimeError):
            chosen = torch.empty(())
        if chosen.dim() != 1:
            expected = f"one dimension of numbers below {len(self)}, or as many of True and False"
            raise ShapeError("Frames index", checks.shown(index), expected, "pass e.g. torch.arange(2)")
        return chosen


@dataclasses.dataclass(frozen=True)
class Splits(Declared):
    """Train to fit, validation for every choice, test once at the end."""

    train: Frames
    validation: Frames
    test: Frames


class Task(Declared, ABC):
    """A classification of spike trains. Subclasses are frozen dataclasses in ``delaykit_lab/tasks/<name>.py``."""

    name: ClassVar[str]
    classes: int
    channels: int

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "splits" in vars(cls):
            cls.splits = checks.annotated(cls.splits)  # type: ignore[method-assign]

    @abstractmethod
    def title(self) -> str:
        """One line for tables and pictures."""

    @abstractmethod
    def splits(self, seed: int) -> Splits:
        """Read the data; ``seed`` draws which training samples are held out for validation."""

    def step_ms(self) -> float | None:
        """Length of a time step in ms, None where a step is no fixed time."""
        return None

    def files(self) -> list[Path]:
        """Return files that are read and whose checksums belong into records; none where data are made or installed."""
        return []


def hold_out(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a stratified validation set: ``round(fraction * n_c)`` of the n_c samples of every class c.

    Args:
        labels: ``(sample,)``.
        fraction: share held out, in (0, 1).
        generator: source of the draw.

    Returns:
        Sorted indices of the samples kept, and of those held out.

    Raises:
        DataError: a class would be left without a training or without a validation sample.

    Example:
        >>> kept, held = hold_out(torch.arange(2).repeat(5), 0.2, torch.Generator().manual_seed(0))
        >>> len(kept), len(held)
        (8, 2)
    """
    kept, held = [], []
    for value in labels.unique():
        members = (labels == value).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        count = round(fraction * len(members))
        if not 0 < count < len(members):
            raise DataError(
                "hold_out",
                f"{len(members)} samples of class {int(value)}",
                f"enough to hold out {fraction:.0%} and to keep some",
                "use more samples or another fraction",
            )
        held.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values
