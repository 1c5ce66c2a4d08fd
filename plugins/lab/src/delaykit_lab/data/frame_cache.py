"""Frames of a split in one file, read back as fast as its bytes.

tonic's ``DiskCachedDataset`` keeps one HDF5 file a sample, which suits transforms that are drawn anew; frames that are
always the same are read an order of magnitude faster from one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from delaykit import CheckpointError
from delaykit.sealed import commit, seal, unseal
from delaykit_lab.task import Frames

FORMAT = "delaykit-frames-1"


def cached_frames(folder: Path | None, identity: Mapping[str, Any], make: Callable[[], Frames]) -> Frames:
    """Return the frames that were kept under ``identity``, or make and keep them.

    Args:
        folder: where files are kept; None: nowhere.
        identity: JSON values of everything that the frames depend on.
        make: makes them.

    Returns:
        The frames. A file that cannot be read is made again; one that cannot be written is done without, with a
        warning.

    Example:
        >>> import tempfile, torch
        >>> folder, frames = Path(tempfile.mkdtemp()), Frames(torch.ones(2, 3, 1, dtype=torch.uint8), torch.zeros(3).long())
        >>> made = [cached_frames(folder, {"dt": 1}, lambda: frames) for _ in range(2)]
        >>> torch.equal(made[1].spikes, frames.spikes), len(list(folder.iterdir()))
        (True, 1)
    """  # noqa: E501
    if folder is None:
        return make()
    text = json.dumps(dict(identity), sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"
    if path.is_file() and (kept := _read(path, text)) is not None:
        return kept
    frames = make()
    try:
        commit(path, seal({"spikes": frames.spikes, "labels": frames.labels}, {"format": FORMAT, "identity": text}))
    except CheckpointError as problem:
        warnings.warn(f"{folder}: frames could not be kept ({problem}); they are made again each time", stacklevel=2)
    return frames


def checked_once(folder: Path | None, identity: Mapping[str, Any], check: Callable[[], None]) -> None:
    """Run a check of files, unless it was passed before: a marker in ``folder`` says so.

    Args:
        folder: where markers are kept; None: the check is run each time.
        identity: JSON values of everything that the check depends on.
        check: raises where something is wrong; then no marker is written.

    Example:
        >>> import tempfile
        >>> folder, ran = Path(tempfile.mkdtemp()), []
        >>> for _ in range(2):
        ...     checked_once(folder, {"file": "a", "bytes": 7}, lambda: ran.append(1))
        >>> len(ran)
        1
    """
    text = json.dumps(dict(identity), sort_keys=True)
    marker = None if folder is None else folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.checked"
    if marker is not None and marker.is_file():
        return
    check()
    if marker is not None:
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(text, encoding="utf-8")


def _read(path: Path, text: str) -> Frames | None:
    try:
        header, tensors = unseal(path.read_bytes(), str(path))
        if header.get("format") != FORMAT or header.get("identity") != text:
            return None
        return Frames(tensors["spikes"], tensors["labels"])
    except (CheckpointError, OSError, KeyError):
        return None
