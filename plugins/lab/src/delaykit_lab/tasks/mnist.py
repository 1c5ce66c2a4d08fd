"""Which digit? Handwritten digits as spike times, ``t = 1 - x``: a bright pixel fires early, the background never.

With a folder of the four idx files this is MNIST, 28 x 28. Without one it is scikit-learn's digits, 1797 real
handwritten digits of 8 x 8 pixels that ship with it; results on them carry that name, never MNIST's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from delaykit import DataError, ShapeError, checks
from delaykit_lab.data.idx import read_idx
from delaykit_lab.declared import Declared
from delaykit_lab.task import Frames, Splits, Task, hold_out

SAMPLES = {"train": 60000, "t10k": 10000}
DIGITS_TEST = 0.2  # share of scikit-learn's digits that is the test set, drawn once with seed 0


@dataclasses.dataclass(frozen=True)
class Images(Declared):
    """Grey images, flattened.

    Args:
        values: ``(sample, pixel)`` in [0, 1], float32.
        labels: ``(sample,)``, int64.

    Raises:
        ShapeError: the two do not belong together.
    """

    values: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values.dim() != 2 or self.labels.shape != self.values.shape[:1]:
            found = f"values {tuple(self.values.shape)} and labels {tuple(self.labels.shape)}"
            fix = "give a row of pixels and a label for each sample"
            raise ShapeError("Images", found, "(sample, pixel) and (sample,)", fix)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def subset(self, index: Tensor) -> Images:
        """Some samples, in the order of ``index``."""
        return Images(self.values[index], self.labels[index])

    def frames(self, steps: int) -> Frames:
        """Bin the spike times ``t = 1 - x``: step ``floor(t steps)``, ``(time, sample, pixel)``; nothing for x = 0."""
        step = ((1.0 - self.values.double()) * steps).floor().long()
        sample, pixel = (step < steps).nonzero(as_tuple=True)
        spikes = torch.zeros(steps, *self.values.shape, dtype=torch.uint8)
        spikes[step[sample, pixel], sample, pixel] = 1
        return Frames(spikes, self.labels)


@dataclasses.dataclass(frozen=True)
class ImageSplits(Declared):
    """Train to fit, validation for every choice, test once at the end."""

    train: Images
    validation: Images
    test: Images


@dataclasses.dataclass(frozen=True)
class MNIST(Task):
    """Handwritten digits, one spike a pixel.

    Args:
        path: folder with MNIST's four idx files, gzipped or not; None: scikit-learn's digits.
        steps: steps of the window that :meth:`splits` bins into, >= 1; :meth:`images` keeps exact values.
        validation: share of the training samples held out, in (0, 1).
        limit: use at most that many training samples (drawn by the seed, every class alike); None: all.

    Example:
        >>> images = MNIST().images(seed=0)
        >>> len(images.train), len(images.validation), len(images.test), images.train.values.shape[1]
        (1295, 143, 359, 64)
    """

    name: ClassVar[str] = "mnist"
    classes: ClassVar[int] = 10  # type: ignore[misc]

    path: str | Path | None = None
    steps: int = 20
    validation: float = 0.1
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("MNIST.steps", self.steps, least=1, what="number", fix="pass e.g. steps=25")
        if self.limit is not None:
            checks.whole("MNIST.limit", self.limit, least=1, what="number of samples", fix="or None for all")

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of pixels."""
        return 64 if self.path is None else 784

    def title(self) -> str:
        """One line for tables and pictures."""
        return "scikit-learn's handwritten digits, 8 x 8" if self.path is None else "MNIST, 28 x 28"

    def published(self) -> tuple[Images, Images]:
        """All training and test images, nothing held out, in the order of the files."""
        return _digits() if self.path is None else _mnist(Path(self.path))

    def images(self, seed: int) -> ImageSplits:
        """Read; the seed draws the validation images, and the training images where there is a limit."""
        learnable, test = self.published()
        generator = torch.Generator().manual_seed(seed)
        if self.limit is not None and self.limit < len(learnable):
            _, drawn = hold_out(learnable.labels, self.limit / len(learnable), generator)
            learnable = learnable.subset(drawn)
        kept, held = hold_out(learnable.labels, self.validation, generator)
        return ImageSplits(learnable.subset(kept), learnable.subset(held), test)

    def splits(self, seed: int) -> Splits:
        """Read and bin into ``steps`` steps."""
        images = self.images(seed)
        return Splits(*(part.frames(self.steps) for part in (images.train, images.validation, images.test)))


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = Images(torch.from_numpy(data.data / 16.0).float(), torch.from_numpy(data.target).long())
    kept, held = hold_out(images.labels, DIGITS_TEST, torch.Generator().manual_seed(0))
    return images.subset(kept), images.subset(held)


def _mnist(folder: Path) -> tuple[Images, Images]:
    return _part(folder, "train"), _part(folder, "t10k")


def _part(folder: Path, part: str) -> Images:
    samples = SAMPLES[part]
    pixels, labels = (_find(folder, part, kind) for kind in ("images-idx3", "labels-idx1"))
    values, classes = read_idx(pixels), read_idx(labels)
    if values.shape != (samples, 28, 28) or classes.shape != (samples,):
        found = f"images {values.shape!s:.200} and labels {classes.shape!s:.200}"
        raise DataError(str(folder), found, f"({samples}, 28, 28) and ({samples},)", "use MNIST's published files")
    if values.dtype != np.uint8 or classes.dtype != np.uint8 or classes.max() > 9:
        found = f"images of {values.dtype}, labels of {classes.dtype}, {classes.min()} .. {classes.max()}"
        raise DataError(str(folder), found, "bytes, and labels 0 .. 9", "a file is damaged: fetch it again")
    flat = torch.from_numpy(values.reshape(samples, -1).astype(np.float32) / 255.0)
    return Images(flat, torch.from_numpy(classes.astype(np.int64)))


def _find(folder: Path, part: str, kind: str) -> Path:
    for name in (f"{part}-{kind}-ubyte", f"{part}-{kind.replace('-', '.')}-ubyte"):
        for path in (folder / f"{name}.gz", folder / name):
            if path.exists():
                return path
    raise DataError(str(folder), f"no file {part}-{kind}-ubyte", "MNIST's four idx files", "give their folder as path=")
