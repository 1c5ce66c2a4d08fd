"""What the tasks that read tonic's data sets share: cropping, framing, checked splits, frames that are kept."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from delaykit import DataError, checks
from delaykit_lab.data.frame_cache import cached_frames, checked_once
from delaykit_lab.data.tonic_cache import FRAMES
from delaykit_lab.task import Frames, Splits, Task, hold_out

LARGEST = 16e9  # bytes of frames in memory


@dataclasses.dataclass(frozen=True)
class TonicTask(Task):
    """A data set of tonic, binned by tonic's ``CropTime`` and ``ToFrame`` into counts.

    Args:
        path: the folder that tonic calls ``save_to``.
        dt_ms: width of a bin in ms, > 0.
        duration_ms: length of a sample in ms; later events are left out.
        validation: share of the training samples held out, in (0, 1), where there is no validation set.
        limit: use at most that many training samples (drawn by the seed, every class alike); None: all.
        subset: accept files with other numbers of samples than published; the title then says so.
        download: let tonic fetch what is missing.
        keep_frames: keep the binned frames in ``path/delaykit-frames``.
    """

    path: str | Path = ""
    _: dataclasses.KW_ONLY
    dt_ms: float = 10.0
    duration_ms: float = 1000.0
    validation: float = 0.1
    limit: int | None = None
    subset: bool = False
    download: bool = False
    keep_frames: bool = True

    PUBLISHED: ClassVar[dict[str, int]]
    sensor: ClassVar[tuple[int, int, int]]

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        for field in ("dt_ms", "duration_ms"):
            checks.number(f"{name}.{field}", getattr(self, field), above=0, what="number of ms")
        checks.number(f"{name}.validation", self.validation, above=0, below=1, what="share", fix="pass e.g. 0.1")
        if self.limit is not None:
            checks.whole(f"{name}.limit", self.limit, least=1, what="number of samples", fix="or None for all")

    @abstractmethod
    def open(self, split: str) -> Any:
        """Return tonic's data set of ``train``, ``valid`` or ``test``, without transforms."""

    @abstractmethod
    def targets(self, dataset: Any) -> NDArray[np.int64]:
        """Label of each sample, without reading its events."""

    def group(self, frames: NDArray[np.int16]) -> NDArray[np.int64]:
        """Turn tonic's frames ``(time, polarity, ...)`` into ``(time, channel)``."""
        return frames.reshape(len(frames), -1).astype(np.int64)

    def before_framing(self) -> list[Any]:
        """Return tonic's transforms of events that come first, e.g. ``Downsample``."""
        return []

    @property
    def steps(self) -> int:
        """Length of a sample in steps; the last bin may be cut short."""
        return math.ceil(self.duration_ms / self.dt_ms - 1e-6)

    def step_ms(self) -> float:
        return self.dt_ms

    def title(self) -> str:
        part = " (part of it)" if self.subset else ""
        return f"{type(self).__name__}{part}: {self.channels} channels, bins of {self.dt_ms:g} ms"

    def splits(self, seed: int) -> Splits:
        """Read; the seed draws validation samples where none are published, and training samples under a limit."""
        sets = {split: self.open(split) for split in self.PUBLISHED}
        labels = {split: self._checked_targets(split, dataset) for split, dataset in sets.items()}
        generator, known = torch.Generator().manual_seed(seed), torch.from_numpy(labels["train"])
        index = torch.arange(len(known))
        if self.limit is not None and self.limit < len(known):
            _, index = hold_out(known, self.limit / len(known), generator)
        if "valid" in sets:
            kept, held = index, None
        else:
            kept, held = (index[part] for part in hold_out(known[index], self.validation, generator))
        train = self._frames("train", sets["train"], labels["train"], index if self.limit else None)
        position = torch.full((len(known),), -1).index_put((index,), torch.arange(len(index)))
        if held is None:
            validation = self._frames("valid", sets["valid"], labels["valid"], None)
        else:
            validation = train.subset(position[held])
        splits = Splits(train.subset(position[kept]) if held is not None else train, validation,
                        self._frames("test", sets["test"], labels["test"], None))  # fmt: skip
        files = {split: _files(dataset) for split, dataset in sets.items()}
        identity = {"apart": type(self).__name__, "files": files, "seed": seed, "binned": self._binned_by()}
        checked_once(self._folder(), identity, lambda: check_apart(str(self.path), splits))
        return splits

    def _checked_targets(self, split: str, dataset: Any) -> NDArray[np.int64]:
        labels = np.asarray(self.targets(dataset), dtype=np.int64)
        where, published = f"{self.path}, {type(self).__name__} {split}", self.PUBLISHED[split]
        if len(labels) != published and not self.subset:
            fix = "fetch the file again, or pass subset=True, and do not report the result under the published name"
            raise DataError(where, f"{len(labels)} samples", f"{published} as published", fix)
        counts = np.bincount(labels, minlength=self.classes) if len(labels) and labels.min() >= 0 else np.zeros(0)
        if len(counts) != self.classes or not (self.subset or counts.all()):
            found = f"labels {labels.min() if len(labels) else 'none'} .. {labels.max() if len(labels) else ''}, "
            found += f"{int((counts > 0).sum())} of {self.classes} classes"
            raise DataError(where, found, f"every class of 0 .. {self.classes - 1}", "fetch the file again")
        expected = self.histogram(split)
        if expected is not None and not self.subset and counts.tolist() != expected:
            raise DataError(where, f"{counts.tolist()} samples a class", f"{expected} as published", "fetch it again")
        return labels

    def histogram(self, split: str) -> list[int] | None:
        """Return the published number of samples of each class, None where we know of none."""
        return None

    def _frames(self, split: str, dataset: Any, labels: NDArray[np.int64], index: Tensor | None) -> Frames:
        chosen = np.arange(len(labels)) if index is None else index.numpy()
        size = self.steps * len(chosen) * self.channels
        if size > LARGEST:
            found, fix = f"{size / 1e9:.0f} GB of frames", "use limit=, a larger dt_ms or fewer channels"
            raise DataError(f"{type(self).__name__} {split}", found, f"at most {LARGEST / 1e9:.0f} GB", fix)
        binned = {name: value for name, value in self._binned_by().items() if name not in ("limit", "validation")}
        identity = {"task": type(self).__name__, "split": split, "index": None if index is None else chosen.tolist(),
                    "tonic": metadata.version("tonic"), "files": _files(dataset), "fields": binned}  # fmt: skip
        return cached_frames(self._folder(), identity, lambda: self._bin(split, dataset, labels, chosen))

    def _binned_by(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {n: v for n, v in fields.items() if n not in ("path", "subset", "download", "keep_frames")}

    def _folder(self) -> Path | None:
        return Path(self.path).expanduser() / FRAMES if self.keep_frames else None

    def _bin(self, split: str, dataset: Any, labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> Frames:
        from tonic import transforms

        end, window = self.steps * self.dt_ms * 1e3, self.dt_ms * 1e3
        first = [transforms.CropTime(max=self.duration_ms * 1e3 - 1), *self.before_framing()]  # tonic keeps max itself
        binning = transforms.ToFrame(
            self.sensor, time_window=window, include_incomplete=True, start_time=0, end_time=end
        )
        out = np.zeros((self.steps, len(chosen), self.channels), dtype=np.uint8)
        for place, sample in enumerate(chosen):
            where = f"{type(self).__name__} {split}, sample {sample}"
            events = _read(where, dataset, int(sample))
            self._check_events(where, events)
            for transform in first:
                events = transform(events)
            if not len(events):
                continue
            counts = self.group(binning(events))[: self.steps]
            if counts.max(initial=0) > 255:
                found = f"{counts.max()} events in one bin"
                raise DataError(where, found, "at most 255", "use a smaller dt_ms or more channels")
            out[: len(counts), place] = counts
        return Frames(torch.from_numpy(out), torch.from_numpy(labels[chosen]))

    def _check_events(self, where: str, events: Any) -> None:
        for field, size in zip("xyp", self._recorded(), strict=True):
            if field in events.dtype.names and len(events):
                low, high = int(events[field].min()), int(events[field].max())
                if not 0 <= low <= high < max(size, 2 if field == "p" else 1):
                    raise DataError(where, f"{field} = {low} .. {high}", f"0 .. {size - 1}", "the file is damaged")
        if len(events) and int(events["t"].min()) < 0:
            raise DataError(where, f"a time of {int(events['t'].min())} us", "times >= 0", "the file is damaged")

    def _recorded(self) -> tuple[int, int, int]:
        """Size of the sensor that recorded, before any downsampling."""
        return self.sensor


def _read(where: str, dataset: Any, sample: int) -> Any:
    try:
        return dataset[sample][0]
    except Exception as error:  # whatever a damaged file makes of tonic and numpy
        found = f"a file that tonic cannot read ({type(error).__name__}: {error!s:.200})"
        raise DataError(where, found, f"a sample of tonic's {type(dataset).__name__}", "fetch it again") from error


def check_apart(where: str, splits: Splits) -> None:
    """Refuse splits of which one is, for the most part, a copy of another.

    Raises:
        DataError: more than half of the samples of one split are in another one, to the spike.
    """
    parts = {name: _fingerprints(getattr(splits, name)) for name in ("train", "validation", "test")}
    for one, other in (("validation", "test"), ("train", "test"), ("train", "validation")):
        small = min(len(parts[one]), len(parts[other]))
        shared = len(parts[one] & parts[other])
        if shared > small / 2:
            found = f"{shared} of {small} samples that are both in {one} and in {other}"
            raise DataError(where, found, "splits apart", "a file was copied over another: fetch both again")


def _fingerprints(frames: Frames) -> set[bytes]:
    import hashlib

    samples = frames.spikes.transpose(0, 1).numpy()  # one sample at a time is made contiguous, never all
    return {
        hashlib.blake2b(np.ascontiguousarray(sample).tobytes(), digest_size=12).digest()
        for sample in samples
        if sample.any()
    }


def _files(dataset: Any) -> list[Any]:
    """Sizes and times of what the data set reads, so that other files make other frames."""
    folder = Path(dataset.location_on_system)
    names = [getattr(dataset, name, None) for name in ("data_filename", "images_file", "labels_file")]
    found = [folder / name for name in names if name] or [Path(name) for name in dataset.data]
    stats = [file.stat() for file in found]
    return [len(found), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]
