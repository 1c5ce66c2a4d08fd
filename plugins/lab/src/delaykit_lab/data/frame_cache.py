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

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from delaykit import CheckpointError
from delaykit.sealed import commit, seal
from delaykit_lab.task import Frames

FORMAT = "delaykit-frames-2"
BLOCK = 512  # words of eight bytes


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
        tensors = {"spikes": frames.spikes.contiguous(), "labels": frames.labels.contiguous()}
        about = {"format": FORMAT, "identity": text, "sums": _sums(tensors)}
        commit(path, seal(tensors, about))
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
    """Map a file into memory, so that what is not used is not read; None where it is not the one, or damaged."""
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT or about.get("identity") != text:
                return None
            tensors = {key: file.get_tensor(key) for key in ("spikes", "labels")}
        return Frames(**tensors) if about.get("sums") == _sums(tensors) else None
    except (CheckpointError, SafetensorError, OSError, KeyError, ValueError, RuntimeError):
        return None


def _sums(tensors: Mapping[str, Tensor]) -> str:
    """Digest the sums of blocks of 4 KiB: made at the speed of memory, against damage and not against forgery."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.reshape(-1).view(torch.uint8)
        data = data.clone() if data.storage_offset() % 8 else data  # words begin at multiples of eight
        whole = data.numel() // (8 * BLOCK) * 8 * BLOCK
        if whole:
            digest.update(data[:whole].view(torch.int64).view(-1, BLOCK).sum(1).numpy().data)
        digest.update(data[whole:].numpy().tobytes())
    return digest.hexdigest()
