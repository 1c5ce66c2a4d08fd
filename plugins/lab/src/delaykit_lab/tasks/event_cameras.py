"""Recordings of event cameras, as tonic reads them: N-MNIST's saccades and DVS gestures.

Channels are numbered ``(polarity * height + y) * width + x``, and ``image`` says how a convolution may fold them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from delaykit import ConfigError, checks
from delaykit_lab.data.tonic_cache import open_offline
from delaykit_lab.tasks.sequential_mnist import TEST_DIGITS, TRAIN_DIGITS
from delaykit_lab.tasks.tonic_task import TonicTask


@dataclasses.dataclass(frozen=True)
class _Camera(TonicTask):
    RECORDED: ClassVar[tuple[int, int, int]]

    shrink: int = 1
    _: dataclasses.KW_ONLY

    def __post_init__(self) -> None:
        super().__post_init__()
        width, height, _ = self.RECORDED
        checks.whole(f"{type(self).__name__}.shrink", self.shrink)
        if self.shrink < 1 or width % self.shrink or height % self.shrink:
            expected = f"a divisor of {width} and {height}"
            raise ConfigError(f"{type(self).__name__}.shrink", f"{self.shrink}", expected, "e.g. 2")

    @property
    def sensor(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Width, height and polarities of a frame."""
        width, height, polarities = self.RECORDED
        return width // self.shrink, height // self.shrink, polarities

    @property
    def image(self) -> tuple[int, int, int]:
        """Polarities, height and width of a frame."""
        width, height, polarities = self.sensor
        return polarities, height, width

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of pixels of both polarities."""
        width, height, polarities = self.sensor
        return width * height * polarities

    def before_framing(self) -> list[Any]:
        from tonic.transforms import Downsample

        return [Downsample(spatial_factor=1 / self.shrink)] if self.shrink > 1 else []

    def _recorded(self) -> tuple[int, int, int]:
        return self.RECORDED

    def targets(self, dataset: Any) -> NDArray[np.int64]:
        return np.asarray(dataset.targets, dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class NMNIST(_Camera):
    """MNIST's digits before a moving camera, 34 x 34 pixels, three saccades in 300 ms.

    Args:
        shrink: pixels a side that are summed into one.
        first_saccade: only the first 100 ms.
        stabilize: take the camera's movement back.

    Example:
        >>> NMNIST("data").splits(seed=0)  # doctest: +SKIP

    Reference: Orchard, Jayawant, Cohen, Thakor 2015, Frontiers in Neuroscience 9, 437.
    """

    name: ClassVar[str] = "nmnist"
    classes: ClassVar[int] = 10  # type: ignore[misc]
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 60000, "test": 10000}
    RECORDED: ClassVar[tuple[int, int, int]] = (34, 34, 2)

    _: dataclasses.KW_ONLY
    first_saccade: bool = False
    stabilize: bool = False
    duration_ms: float = 310.0

    def open(self, split: str) -> Any:
        from tonic import datasets

        options = {"first_saccade_only": self.first_saccade, "stabilize": self.stabilize}
        return open_offline(datasets.NMNIST, self.path, self.download, train=split == "train", **options)

    def histogram(self, split: str) -> list[int] | None:
        return {"train": TRAIN_DIGITS, "test": TEST_DIGITS}[split]


@dataclasses.dataclass(frozen=True)
class DVSGesture(_Camera):
    """Eleven gestures of hands and arms before a camera of 128 x 128 pixels.

    Args:
        shrink: pixels a side that are summed into one.

    Example:
        >>> DVSGesture("data").splits(seed=0)  # doctest: +SKIP

    Reference: Amir et al. 2017, "A low power, fully event-based gesture recognition system", CVPR.
    """

    name: ClassVar[str] = "dvsgesture"
    classes: ClassVar[int] = 11  # type: ignore[misc]
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 1077, "test": 264}
    RECORDED: ClassVar[tuple[int, int, int]] = (128, 128, 2)

    shrink: int = 4
    _: dataclasses.KW_ONLY
    dt_ms: float = 20.0
    duration_ms: float = 2000.0

    def open(self, split: str) -> Any:
        from tonic import datasets

        return open_offline(datasets.DVSGesture, self.path, self.download, train=split == "train")
