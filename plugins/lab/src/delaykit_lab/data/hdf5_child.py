"""Read one file in SHD's layout in a process of its own, see ``bounded.py``; ``python -m`` runs it.

Arguments: the file, and a folder to write to (none: the file is only read through). Written are ``times.npy`` and
``units.npy`` (all samples one after the other), their lengths, ``labels.npy``, ``speaker.npy`` and ``keys.json`` where
the file has them; or, where the layout is another one, ``complaint.json`` with what was found and what was expected.
Whether the values make sense is judged by the parent.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from delaykit_lab.data.bounded import seconds_for

MEMORY, PACKED = 4 * 2**30, 1032  # bytes that any file may take, and the most that deflate makes of one


class Layout(Exception):
    """Another layout: what was found, what was expected."""


def limit_itself(path: str) -> None:
    """Take no more memory than the file can fill, and no more time than the parent waits, which may be killed before.

    A changed size must not take the memory of the whole machine; a changed address can send the reader round for ever.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # there is no such limit everywhere
        import resource

        most, hardest = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = MEMORY + PACKED * os.path.getsize(path)
        if most == resource.RLIM_INFINITY or most > allowed:
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, hardest))
        hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds_for(Path(path))), hardest))


def copy(path: str, out: Path | None) -> None:
    """Copy the arrays of ``path`` into the folder ``out``."""
    with h5py.File(path, "r") as file:
        for name, kinds in (("times", "f"), ("units", "ui")):
            rows, base = _rows(file, f"spikes/{name}", kinds)
            _save(out, f"{name}_lengths", np.array([len(row) for row in rows], dtype=np.int64))
            _save(out, name, np.concatenate(rows) if rows else np.zeros(0, base))
        _save(out, "labels", _integers(file, "labels"))
        if "extra/speaker" in file:
            _save(out, "speaker", _integers(file, "extra/speaker"))
        if "extra/keys" in file:
            raw = _dataset(file, "extra/keys")[()]
            keys = [key.decode("utf-8") if isinstance(key, bytes) else str(key) for key in np.ravel(raw)]
            if out is not None:
                (out / "keys.json").write_text(json.dumps(keys), encoding="utf-8")


def _save(out: Path | None, name: str, values: Any) -> None:
    if out is not None:
        np.save(out / f"{name}.npy", values, allow_pickle=False)


def _dataset(file: h5py.File, name: str) -> Any:
    node = file.get(name)
    if not isinstance(node, h5py.Dataset):
        listing: list[str] = []
        file.visit(listing.append)
        found = f"no data set {name!r} (the file holds: {', '.join(sorted(listing)[:8]) or 'nothing'})"
        raise Layout(found, "spikes/times, spikes/units, labels")
    return node


def _rows(file: h5py.File, name: str, kinds: str) -> tuple[list[Any], Any]:
    node = _dataset(file, name)
    base = h5py.check_vlen_dtype(node.dtype)
    if base is None or np.dtype(base).kind not in kinds or node.ndim != 1:
        kind = "float" if kinds == "f" else "integer"
        found = f"{name} of type {node.dtype}, {node.ndim}-dimensional"
        raise Layout(found, f"one variable-length array a sample, of kind {kind}")
    return list(node[()]), base


def _integers(file: h5py.File, name: str) -> Any:
    node = _dataset(file, name)
    if node.ndim != 1 or node.dtype.kind not in "ui":
        raise Layout(f"{name} of type {node.dtype}, {node.ndim}-dimensional", "one integer a sample")
    return node[()]


def main(path: str, folder: str | None = None) -> None:
    """Copy, or write the complaint."""
    limit_itself(path)
    out = None if folder is None else Path(folder)
    try:
        copy(path, out)
    except Layout as complaint:
        if out is None:
            raise
        (out / "complaint.json").write_text(json.dumps(complaint.args), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
