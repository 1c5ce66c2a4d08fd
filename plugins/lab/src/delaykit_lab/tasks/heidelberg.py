"""The Heidelberg spiking data sets, spoken digits and commands, as tonic reads them; 700 channels in groups.

Reference: Cramer, Stradmann, Schemmel, Zenke 2020, "The Heidelberg spiking data sets", arXiv 1910.07407.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from delaykit import ConfigError, checks
from delaykit_lab.data.tonic_cache import open_offline
from delaykit_lab.tasks.tonic_task import TonicTask


@dataclasses.dataclass(frozen=True)
class _Heidelberg(TonicTask):
    sensor: ClassVar[tuple[int, int, int]] = (700, 1, 1)

    channels: int = 140
    _: dataclasses.KW_ONLY

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(f"{type(self).__name__}.channels", self.channels)
        if self.channels < 1 or 700 % self.channels:
            name = f"{type(self).__name__}.channels"
            raise ConfigError(name, f"{self.channels}", "a divisor of 700", "choose e.g. 140")

    def group(self, frames: NDArray[np.int16]) -> NDArray[np.int64]:
        return frames.reshape(len(frames), self.channels, -1).sum(2, dtype=np.int64)

    def targets(self, dataset: Any) -> NDArray[np.int64]:
        import h5py

        with h5py.File(Path(dataset.location_on_system) / dataset.data_filename, "r") as file:
            return file["labels"][()].astype(np.int64)


@dataclasses.dataclass(frozen=True)
class SHD(_Heidelberg):
    """Spoken digits, English and German: 8156 samples to train on, 2264 to test on; no validation set is published.

    Example:
        >>> SHD("data").splits(seed=0)  # doctest: +SKIP
    """

    name: ClassVar[str] = "shd"
    classes: ClassVar[int] = 20  # type: ignore[misc]
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 8156, "test": 2264}

    def open(self, split: str) -> Any:
        from tonic import datasets

        return open_offline(datasets.SHD, self.path, self.download, train=split == "train")


@dataclasses.dataclass(frozen=True)
class SSC(_Heidelberg):
    """Spoken commands: 75466 samples to train on, 9981 for choices (the published validation set), 20382 to test on.

    Example:
        >>> SSC("data").splits(seed=0)  # doctest: +SKIP
    """

    name: ClassVar[str] = "ssc"
    classes: ClassVar[int] = 35  # type: ignore[misc]
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 75466, "valid": 9981, "test": 20382}

    def open(self, split: str) -> Any:
        from tonic import datasets

        return open_offline(datasets.SSC, self.path, self.download, split=split)
