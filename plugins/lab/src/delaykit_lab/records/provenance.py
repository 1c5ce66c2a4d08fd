"""What made a record: versions of packages, commit of the source, checksums of the data."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from delaykit import DataError

LIBRARIES = ("torch", "numpy", "numba", "snntorch", "norse", "tonic", "scikit-learn")


def provenance(data: Iterable[Path] = ()) -> dict[str, Any]:
    """Return JSON values that say by what and from what a result was made.

    Args:
        data: files that were read.

    Returns:
        ``versions`` of Python and packages (those installed), ``commit`` of the checkout this package runs from (with
        ``-changed`` where tracked files other than records differ from it; None outside a checkout), ``data``: SHA-256
        by file name.

    Example:
        >>> sorted(provenance())
        ['commit', 'data', 'versions']
    """
    return {"versions": _versions(), "commit": _commit(), "data": {path.name: checksum(path) for path in data}}


@functools.lru_cache(maxsize=32)
def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; a file is read once a process.

    Raises:
        DataError: it is not there, or it is a folder.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        found = f"no readable file ({error})"
        raise DataError(str(path), found, "a file that the run reads", "check the path") from None
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    ours = {dist.name for dist in metadata.distributions() if dist.name and dist.name.startswith("delaykit")}
    found = {"python": platform.python_version()}
    for name in (*sorted(ours), *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.lru_cache(maxsize=1)
def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD").strip()
        everything = (":(top)", ":(top,exclude)results")  # records that other runs wrote make no other figures
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", *everything).strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-changed" if changed else commit


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout
