"""Yin, yang or dot? Points of a figure that no straight line divides; inputs tell the place by when they spike.

A point (x, y) of the unit square spikes once on each of four inputs, ``t = (x, y, 1 - x, 1 - y) * 4 ms + 0.1 ms``. The
output neuron that spikes first names the class; training pushes the right one ahead of the others.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from delaykit import ConfigError, ShapeError, checks
from delaykit_lab.declared import Declared
from delaykit_lab.task import Frames, Splits, Task

NAMES = ("yin", "yang", "dot")
RADIUS, DOT_RADIUS = 0.5, 0.1
FIRST_MS, SPAN_MS = 0.1, 4.0


def class_of(points: Tensor) -> Tensor:
    """Return which part of the figure each point lies in.

    The figure is a disc of radius 0.5 around (0.5, 0.5); around (0.25, 0.5) and (0.75, 0.5) lie the dots, of radius
    0.1, and the half discs, of radius 0.25, with which yang reaches below the middle line and yin above it.

    Args:
        points: ``(sample, 2)``, in the disc.

    Returns:
        ``(sample,)``, int64: 0 yin, 1 yang, 2 dot.

    Example:
        >>> class_of(torch.tensor([[0.75, 0.3], [0.25, 0.7], [0.75, 0.45]])).tolist()
        [0, 1, 2]
    """
    x, y = points.unbind(1)
    left, right = torch.hypot(x - RADIUS / 2, y - RADIUS), torch.hypot(x - 1.5 * RADIUS, y - RADIUS)
    yang = (left <= RADIUS / 2) | ((y > RADIUS) & (right > RADIUS / 2))
    return torch.where((left < DOT_RADIUS) | (right < DOT_RADIUS), 2, yang.long())


@dataclasses.dataclass(frozen=True)
class Points(Declared):
    """Points of the figure.

    Args:
        places: ``(sample, 2)`` in [0, 1].
        labels: ``(sample,)``, int64.

    Raises:
        ShapeError: the two do not belong together.
    """

    places: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.places.shape != (*self.labels.shape, 2) or self.labels.dim() != 1:
            found = f"places {tuple(self.places.shape)} and labels {tuple(self.labels.shape)}"
            fix = "give a row of coordinates and a label for each sample"
            raise ShapeError("Points", found, "(sample, 2) and (sample,)", fix)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def times_ms(self) -> Tensor:
        """Encode: ``(sample, 4)``, the spike of each input in ms, from 0.1 to 4.1."""
        return FIRST_MS + SPAN_MS * torch.cat([self.places, 1.0 - self.places], dim=1)

    def frames(self, dt_ms: float, steps: int) -> Frames:
        """Bin the spike times to the nearest step, ``(time, sample, 4)``; one beyond the last step is left out."""
        step = (self.times_ms().double() / dt_ms).round().long()
        sample, channel = (step < steps).nonzero(as_tuple=True)
        spikes = torch.zeros(steps, len(self), 4, dtype=torch.uint8)
        spikes[step[sample, channel], sample, channel] = 1
        return Frames(spikes, self.labels)


def draw(count: int, generator: torch.Generator) -> Points:
    """Draw points by rejection: uniform within each part of the figure, equally many of each (to within one), shuffled.

    Example:
        >>> draw(9, torch.Generator().manual_seed(0)).labels.bincount().tolist()
        [3, 3, 3]
    """
    missing = [count // 3 + (k < count % 3) for k in range(3)]
    found: list[Tensor] = []
    while any(missing):
        points = torch.rand(4 * count, 2, generator=generator)
        points = points[torch.hypot(points[:, 0] - RADIUS, points[:, 1] - RADIUS) <= RADIUS]
        labels = class_of(points)
        for k in range(3):
            found.append(points[labels == k][: missing[k]])
            missing[k] -= len(found[-1])
    points = torch.cat(found)[torch.randperm(count, generator=generator)]
    return Points(points, class_of(points))


@dataclasses.dataclass(frozen=True)
class PointSplits(Declared):
    """Train to fit, validation for every choice, test once at the end."""

    train: Points
    validation: Points
    test: Points


@dataclasses.dataclass(frozen=True)
class YinYang(Task):
    """The Yin-Yang figure, one spike an input.

    Args:
        samples: number of training points, >= 3.
        held: number of validation points, and of test points, >= 3.
        dt_ms: length of a step that :meth:`splits` bins into, > 0; :meth:`points` keeps exact places.
        duration_ms: length of a sample, > 0.

    Example:
        >>> splits = YinYang(samples=30, held=9).splits(seed=0)
        >>> tuple(splits.train.spikes.shape), int(splits.train.spikes.sum())
        ((240, 30, 4), 120)

    Reference:
        Kriener, Göltz, Petrovici 2022, NICE, "The Yin-Yang dataset"; times as in Landsmeer et al. 2025 (SpSNN).
    """

    name: ClassVar[str] = "yin-yang"
    classes: ClassVar[int] = 3  # type: ignore[misc]
    channels: ClassVar[int] = 4  # type: ignore[misc]

    samples: int = 5000
    held: int = 1000
    dt_ms: float = 0.05
    duration_ms: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("samples", 3), ("held", 3)):
            checks.whole(f"YinYang.{name}", getattr(self, name), least=least)
        for name in ("dt_ms", "duration_ms"):
            checks.number(f"YinYang.{name}", getattr(self, name), above=0, what="number of ms")

    def title(self) -> str:
        """One line for tables and pictures."""
        return f"Yin-Yang: 3 classes, 4 inputs that spike once, steps of {self.dt_ms:g} ms"

    def step_ms(self) -> float:
        """Length of a time step in ms."""
        return self.dt_ms

    def points(self, seed: int) -> PointSplits:
        """Draw; the seed draws training and validation points, the test points are always the same."""
        generator = torch.Generator().manual_seed(seed)
        train, validation = draw(self.samples, generator), draw(self.held, generator)
        return PointSplits(train, validation, draw(self.held, torch.Generator().manual_seed(2022)))

    def splits(self, seed: int) -> Splits:
        """Draw and bin."""
        parts, steps = self.points(seed), round(self.duration_ms / self.dt_ms)
        return Splits(*(part.frames(self.dt_ms, steps) for part in (parts.train, parts.validation, parts.test)))


@checks.annotated
def first_spike_loss(
    times: Tensor, labels: Tensor, sharpness: float = 10.0, margin: float = 0.2, silent: float | None = None
) -> Tensor:
    """Push the right output's first spike ahead of the others, by a margin.

    ``L = mean_b sum_{k != y_b} softplus(sharpness (t_y - t_k + margin))``

    Args:
        times: first spike of each output, ``(batch, class)``, in ms; a silent one has a time after the last step.
        labels: ``(batch,)``.
        sharpness: beta, per ms, > 0.
        margin: m in ms; larger than a step, or a step decides.
        silent: samples whose right output fires at this time or later have no gradient. Where it does not fire at all
            it cannot be drawn forward, and to push the others back, which lasts, ends with no output firing at all.

    Returns:
        A scalar.

    Raises:
        ConfigError: the sharpness is not positive.

    Example:
        >>> times = torch.tensor([[1.0, 5.0, 5.0], [3.0, 2.9, 5.0]])
        >>> [round(float(first_spike_loss(times[k : k + 1], torch.tensor([0]))), 2) for k in (0, 1)]
        [0.0, 3.05]

    Reference:
        Landsmeer et al. 2025 (SpSNN), the hinge loss of the Yin-Yang task; the paper gives neither beta nor m.
    """
    if not sharpness > 0:
        fix = "pass e.g. sharpness=1.0"
        raise ConfigError("first_spike_loss(sharpness)", f"{sharpness}", "a positive number per ms", fix)
    _check_times("first_spike_loss", times)
    fits = labels.shape == times.shape[:1] and labels.dtype == torch.int64
    if not fits or bool(((labels < 0) | (labels >= times.shape[1])).any()):
        found = f"labels {tuple(labels.shape)} of {labels.dtype} for times {tuple(times.shape)}"
        raise ShapeError("first_spike_loss labels", found, "(sample,), int64, each an output's number", "correct them")
    right = times.gather(1, labels.unsqueeze(1))
    behind = torch.nn.functional.softplus(sharpness * (right - times + margin))
    if silent is not None:
        behind = torch.where(right >= silent, behind.detach(), behind)
    wrong = torch.ones_like(behind).scatter(1, labels.unsqueeze(1), 0.0)
    return (behind * wrong).sum(1).mean()


@checks.annotated
def first_to_spike(times: Tensor) -> Tensor:
    """Return which output is first, ``(batch,)``; -1, which is never right, where two are first together or none is.

    Args:
        times: of the first spikes, ``(batch, output)``.

    Example:
        >>> first_to_spike(torch.tensor([[2.0, 1.0, 3.0], [1.0, 1.0, 3.0]])).tolist()
        [1, -1]
    """
    _check_times("first_to_spike", times)
    first, which = times.min(dim=1)
    return torch.where((times == first.unsqueeze(1)).sum(1) == 1, which, -1)


def _check_times(where: str, times: Tensor) -> None:
    if times.dim() != 2 or not times.shape[1] or not times.is_floating_point():
        found = f"{tuple(times.shape)} of {times.dtype}"
        raise ShapeError(f"{where} times", found, "(sample, output), real numbers", "one row a sample")
