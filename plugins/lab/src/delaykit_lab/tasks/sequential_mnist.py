"""MNIST read pixel by pixel, one a step; spikes say which grey levels are crossed, as tonic's ``SMNIST`` encodes them.

tonic numbers its neurons from 0 (a white pixel) to ``levels``, one more than its ``sensor_size`` says; number 1 never
fires.

Reference: Bellec et al. 2018, "Long short-term memory and learning-to-learn in networks of spiking neurons" (encoding);
Le, Jaitly, Hinton 2015, arXiv 1504.00941 (the permuted task).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from delaykit import ConfigError
from delaykit_lab.data.tonic_cache import open_offline
from delaykit_lab.tasks.tonic_task import TonicTask

PIXELS = 784
TRAIN_DIGITS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_DIGITS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@dataclasses.dataclass(frozen=True)
class SMNIST(TonicTask):
    """Digits as 784 pixels in reading order.

    Args:
        levels: tonic's ``num_neurons``, odd: half of them for rising grey levels, half for falling ones.

    Example:
        >>> SMNIST("data", limit=1000).splits(seed=0)  # doctest: +SKIP
    """

    name: ClassVar[str] = "smnist"
    classes: ClassVar[int] = 10  # type: ignore[misc]
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 60000, "test": 10000}

    levels: int = 99
    _: dataclasses.KW_ONLY
    dt_ms: float = 1.0
    duration_ms: float = float(PIXELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 3 or self.levels % 2 == 0:
            raise ConfigError(f"{type(self).__name__}.levels", f"{self.levels}", "an odd number >= 3", "e.g. 99")

    @property
    def sensor(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Size of a frame."""
        return self.levels + 1, 1, 1

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of channels."""
        return self.levels + 1

    def open(self, split: str) -> Any:
        from tonic import datasets

        options = {"duplicate": False, "num_neurons": self.levels, "dt": 1000.0}
        return open_offline(datasets.SMNIST, self.path, self.download, train=split == "train", **options)

    def targets(self, dataset: Any) -> NDArray[np.int64]:
        return dataset.label_data.astype(np.int64)

    def histogram(self, split: str) -> list[int] | None:
        return {"train": TRAIN_DIGITS, "test": TEST_DIGITS}[split]


@dataclasses.dataclass(frozen=True)
class PSMNIST(SMNIST):
    """The same with the pixels in one random order, which has no neighbours left.

    Args:
        order: seed of the order.

    Example:
        >>> PSMNIST("data", limit=1000).splits(seed=0)  # doctest: +SKIP
    """

    name: ClassVar[str] = "psmnist"

    _: dataclasses.KW_ONLY
    order: int = 0

    def open(self, split: str) -> Any:
        dataset = super().open(split)
        dataset.image_data = dataset.image_data[:, np.random.default_rng(self.order).permutation(PIXELS)]
        return dataset
