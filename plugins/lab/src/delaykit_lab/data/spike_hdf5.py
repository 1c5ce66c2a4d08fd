"""Spike trains in the HDF5 layout of the Heidelberg digits (SHD, SSC), from any path or from tonic's cache folder.

Layout: ``spikes/times`` (sample,) vlen float16, seconds, sorted; ``spikes/units`` (sample,) vlen uint16;
``labels`` (sample,); optional ``extra/speaker`` (sample,) and ``extra/keys`` (class,) UTF-8 bytes.

Reference: Cramer, Stradmann, Schemmel, Zenke 2020, "The Heidelberg spiking data sets", arXiv 1910.07407.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delaykit import DataError, checks
from delaykit_lab.data.bounded import run_bounded
from delaykit_lab.data.events import EventSet
from delaykit_lab.declared import path_of

UNITS = 700
CLASSES = 2**16  # the layout's labels are uint16
CHILD = "delaykit_lab.data.hdf5_child"
_PACKED = {b"\xfd7zXZ": ("xz", "xz -dk"), b"\x1f\x8b": ("gzip", "gunzip -k"), b"PK\x03\x04": ("zip", "unzip")}
_ENDINGS = {".xz", ".gz", ".zip"}
_FIRST_BYTES = b"\x89HDF\r\n\x1a\n"


@checks.annotated
def read_events(path: str | Path, n_units: int = UNITS) -> EventSet:
    """Read one file of spike trains.

    Args:
        path: an HDF5 file in the layout above.
        n_units: number of units; a unit beyond it is an error.

    Returns:
        All samples; times stay as stored (float16), :func:`~delaykit_lab.data.events.bin_events` widens them.

    Raises:
        DataError: the file is missing, packed, truncated, of another layout, or its values make no sense.

    Example:
        >>> events = read_events("shd_train.h5")  # doctest: +SKIP
        >>> len(events), events.n_units  # doctest: +SKIP
        (8156, 700)
    """
    path = path_of("read_events path", path).expanduser()
    _check_readable(path)
    with tempfile.TemporaryDirectory() as folder:
        run_bounded(CHILD, path, folder)
        return _assemble(path, Path(folder), n_units)


@checks.annotated
def locate(path: str | Path, split: str) -> Path:
    """Find the file of one split.

    Looks for, in this order: ``path/SHD/shd_{split}.h5`` (tonic's cache), ``path/shd_{split}.h5``, the only
    ``*{split}*.h5`` in ``path``, if no recordings lie packed beside it; or, where ``path`` is a file whose name holds
    the name of a split (``digits_train.h5``), its sibling of the split asked for.

    Args:
        path: folder or file.
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: nothing or several files fit, or packed ones that nobody has unpacked lie beside the only one.
    """
    path = path_of("locate path", path).expanduser()
    if path.is_file():
        return _sibling(path, split)
    if not path.is_dir():
        raise DataError(str(path), "nothing there", "a folder or an HDF5 file", "check the path")
    for candidate in (path / "SHD" / f"shd_{split}.h5", path / f"shd_{split}.h5"):
        if candidate.is_file():
            return candidate
    found = sorted(path.glob(f"*{split}*.h5"))
    packed = [file for file in sorted(path.glob(f"*{split}*.h5.*")) if _is_packed(file)]
    if len(found) == 1 and packed:
        raise DataError(
            str(path),
            f"{found[0].name}, and {packed[0].name} that is still packed",
            f"one set of recordings for the {split} split",
            f"unpack {packed[0].name} into a folder of its own, or name {found[0].name}",
        )
    if len(found) == 1:
        return found[0]
    listing = ", ".join(file.name for file in found) or "none"
    raise DataError(
        str(path),
        f"{len(found)} files named *{split}*.h5 ({listing})",
        f"one, or SHD/shd_{split}.h5",
        f"name one file, or unpack shd_{split}.h5.zip there",
    )


@checks.annotated
def mark_for_tonic(folder: str | Path) -> list[Path]:
    """Let tonic's own ``SHD`` read ``folder/SHD/shd_*.h5`` without going to the network.

    tonic looks for the archive it would have downloaded, even an empty one; this creates those empty markers.

    Args:
        folder: what is later passed to ``tonic.datasets.SHD(save_to=folder)``.

    Returns:
        The markers, one beside each data file.

    Raises:
        DataError: the folder holds no ``SHD/shd_*.h5``.
    """
    folder = path_of("mark_for_tonic folder", folder).expanduser()
    files = sorted((folder / "SHD").glob("shd_*.h5"))
    if not files:
        raise DataError(
            str(folder), "no SHD/shd_*.h5", "at least one such file", "put shd_train.h5 into its SHD folder"
        )
    markers = [file.with_name(file.name + ".zip") for file in files]
    for marker in markers:
        marker.touch()
    return markers


def _is_packed(file: Path) -> bool:
    """Whether ``file`` is an archive (tonic's markers are empty) whose contents do not lie beside it."""
    return file.suffix in _ENDINGS and file.stat().st_size > 0 and not file.with_suffix("").exists()


def _sibling(path: Path, split: str) -> Path:
    """Return ``path``, or the file beside it whose name has ``split`` where that of ``path`` last names its own."""
    at, own = max((path.stem.rfind(name), name) for name in ("train", "test", "valid"))
    if at < 0:
        raise DataError(
            str(path),
            "a file name without 'train' or 'test'",
            f"a way to find the {split} split",
            "name the files like digits_train.h5 and digits_test.h5, or pass their folder",
        )
    wanted = path.with_name(path.stem[:at] + split + path.stem[at + len(own) :] + path.suffix)
    if not wanted.is_file():
        expected = f"a file for the {split} split"
        raise DataError(str(path), f"no {wanted.name} beside it", expected, "add it, or pass a folder")
    return wanted


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise DataError(str(path), "no such file", "an HDF5 file in SHD layout", "check the path")
    with path.open("rb") as stream:
        head = stream.read(8)
    if head == _FIRST_BYTES:
        return
    for magic, (kind, command) in _PACKED.items():
        if head.startswith(magic):
            raise DataError(str(path), f"a {kind} archive", "an HDF5 file", f"unpack it first: {command} {path.name}")
    raise DataError(
        str(path),
        f"a file that begins with {head!r}",
        "an HDF5 file in SHD layout",
        "this is another format, or a download that failed",
    )


def _assemble(path: Path, folder: Path, n_units: int) -> EventSet:
    """Cut what the child process wrote into samples, and judge the values."""
    if (complaint := folder / "complaint.json").exists():
        found, expected = json.loads(complaint.read_text(encoding="utf-8"))
        raise DataError(str(path), found, expected, "this is an HDF5 file of another layout")

    def load(name: str) -> NDArray[Any]:
        return np.load(folder / f"{name}.npy", allow_pickle=False)

    def cut(name: str) -> list[NDArray[Any]]:
        lengths = load(f"{name}_lengths")
        return np.split(load(name), np.cumsum(lengths)[:-1]) if len(lengths) else []

    times, units, labels = cut("times"), cut("units"), load("labels")
    speakers = load("speaker") if (folder / "speaker.npy").exists() else None
    file = folder / "keys.json"
    keys = tuple(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else ()
    _check_values(path, times, units, labels, speakers, keys, n_units)
    own = None if speakers is None else speakers.astype(np.int64)
    return EventSet(times, units, labels.astype(np.int64), n_units, keys, own, source=str(path))


def _check_values(
    path: Path,
    times: list[Any],
    units: list[Any],
    labels: NDArray[Any],
    speakers: NDArray[Any] | None,
    keys: tuple[str, ...],
    n_units: int,
) -> None:
    where = str(path)
    counts = {"times": len(times), "units": len(units), "labels": len(labels)}
    if speakers is not None:
        counts["speaker"] = len(speakers)
    if len(set(counts.values())) > 1:
        raise DataError(where, f"different numbers of samples {counts}", "as many of each", "fetch the file again")
    if not len(labels):
        raise DataError(where, "no samples", "at least one", "check that it is the right file")
    most = len(keys) if keys else CLASSES
    if labels.min() < 0 or labels.max() >= most:
        expected = f"0 .. {most - 1}{', one a key' if keys else ''}"
        raise DataError(where, f"labels {labels.min()} .. {labels.max()}", expected, "the file is damaged")
    for sample, (when, which) in enumerate(zip(times, units, strict=True)):
        if len(when) != len(which):
            fix = "take the file from its source again"
            found = f"{len(when)} times but {len(which)} units in sample {sample}"
            raise DataError(where, found, "as many of each", fix)
        if len(which) and not 0 <= int(which.min()) <= int(which.max()) < n_units:
            found = f"units {which.min()} .. {which.max()} in sample {sample}"
            raise DataError(where, found, f"0 .. {n_units - 1}", "pass n_units=, or fetch the file again")
        if not np.isfinite(when).all() or (len(when) and when[0] < 0) or (np.diff(when) < 0).any():
            fix = "take the file from its source again"
            raise DataError(
                where, f"times of sample {sample} that are not finite, sorted and >= 0", "seconds, ascending", fix
            )
