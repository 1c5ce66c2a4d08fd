"""Classify spike trains from files in SHD's HDF5 layout.

Spikes are counted in bins of ``dt_ms`` and summed over neighbouring units (700 -> 140: sums of 5). What is reported
carries the name of the file, never that of a published benchmark: only the published files are that benchmark.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import torch

from delaykit import ConfigError, DataError
from delaykit_lab.data.events import bin_events
from delaykit_lab.data.spike_hdf5 import UNITS, locate, read_events
from delaykit_lab.task import Frames, Splits, Task, hold_out


@dataclasses.dataclass(frozen=True)
class SpikeFiles(Task):
    """A train and a test file of one folder.

    Args:
        path: folder (tonic's cache folder or one with ``*train*.h5`` and ``*test*.h5``), or one of the two files.
        dt_ms: width of a bin in ms, > 0.
        channels: number of input channels; must divide 700.
        duration_ms: length of a sample in ms; later spikes are left out.
        validation: share of the training samples held out, in (0, 1).
        limit: use at most that many training samples (drawn by the seed, every class alike); None: all.

    Example:
        >>> SpikeFiles("data").splits(seed=0)  # doctest: +SKIP
    """

    name: ClassVar[str] = "spike-files"

    path: str | Path
    dt_ms: float = 10.0
    channels: int = 140
    duration_ms: float = 1000.0
    validation: float = 0.2
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise ConfigError("SpikeFiles.limit", f"{self.limit}", "a positive number of samples", "or None for all")

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Number of classes: the largest label, plus one."""
        return 1 + max(int(frames.labels.max()) for frames in self._frames)

    def title(self) -> str:
        """One line for tables and pictures."""
        return f"{locate(self.path, 'train').stem}: {self.channels} channels, bins of {self.dt_ms:g} ms"

    def step_ms(self) -> float:
        """Length of a time step in ms."""
        return self.dt_ms

    def splits(self, seed: int) -> Splits:
        """Hold out a stratified part of the training file; the files are read and binned once."""
        learnable, test = self._frames
        generator = torch.Generator().manual_seed(seed)
        if self.limit is not None and self.limit < len(learnable):
            _, drawn = hold_out(learnable.labels, self.limit / len(learnable), generator)
            learnable = learnable.subset(drawn)
        kept, held = hold_out(learnable.labels, self.validation, generator)
        return Splits(learnable.subset(kept), learnable.subset(held), test)

    def files(self) -> list[Path]:
        """Return the train and the test file."""
        paths = [locate(self.path, "train"), locate(self.path, "test")]
        if paths[0] == paths[1]:
            raise DataError(str(paths[0]), "one file for both splits", "a train and a test file", "name them apart")
        return paths

    @functools.cached_property
    def _frames(self) -> tuple[Frames, Frames]:
        paths = self.files()
        train, test = (_bin(*_stamp(path), self.dt_ms, self.channels, self.duration_ms) for path in paths)
        unseen = set(test.labels.tolist()) - set(train.labels.tolist())
        if unseen:
            found, fix = f"labels {sorted(unseen)} that no training sample has", "take both files from one data set"
            raise DataError(str(paths[1]), found, "the same classes", fix)
        return train, test


def _stamp(path: Path) -> tuple[Path, int, int]:
    """Return a file with its size and time, so that another file under its name is read anew."""
    found = path.resolve().stat()
    return path, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=2)  # both files of one task: a comparison has many runs in one process
def _bin(path: Path, size: int, time_ns: int, dt_ms: float, channels: int, duration_ms: float) -> Frames:
    del size, time_ns
    events = read_events(path, UNITS)
    binned = bin_events(events, dt_ms, channels, duration_ms)
    return Frames(torch.from_numpy(binned.frames), torch.from_numpy(events.labels))
