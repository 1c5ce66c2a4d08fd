"""Format 1 of a checkpoint, two files: ``path.safetensors`` and, with its digest, ``path.json``. It is only read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from delaykit.errors import CheckpointError
from delaykit.sealed import read_file
from delaykit.wrapping.checkpoint.container import WRITTEN, parse


def plan_of_pair(base: Path, payload: bytes) -> dict[str, Any]:
    """Read the plan beside the tensors ``payload``; where a save was interrupted, the part that belongs to them.

    Raises:
        CheckpointError: there is none, or it is damaged, or it belongs to other tensors.
    """
    whole, part = second_files(base)
    meta = _plan(whole if whole.exists() or not part.exists() else part)
    digest = hashlib.sha256(payload).hexdigest()
    if meta["sha256"] != digest and part.exists():
        meta = _plan(part)
    if meta["sha256"] != digest:
        where, fix = f"{base}.safetensors", "copy both files again"
        raise CheckpointError(where, "a truncated or changed file", "the tensors that belong to the .json", fix)
    return meta


def former_plans(base: Path, tensors: Path) -> list[Path]:
    """List the plans that belong to the tensors of a checkpoint of format 1; a user's own files are none.

    Args:
        base: the checkpoint's name without ending.
        tensors: its file of tensors as it is now.
    """
    found = []
    for path in second_files(base):
        try:
            if _plan(path)["sha256"] == hashlib.sha256(read_file(tensors)).hexdigest():
                found.append(path)
        except (OSError, CheckpointError):  # no file, or none of ours
            continue
    return found


def second_files(base: Path) -> tuple[Path, Path]:
    """Name the files that format 1 had besides the tensors."""
    return base.with_name(base.name + ".json"), base.with_name(base.name + ".json.part")


def _plan(path: Path) -> dict[str, Any]:
    try:
        meta = parse(read_file(path), str(path))
    except OSError as error:
        fix = "name a checkpoint without its ending; one of format 1 is a .safetensors and a .json"
        raise CheckpointError(str(path), f"no readable file ({error})", WRITTEN, fix) from None
    if not isinstance(meta.get("sha256"), str):
        raise CheckpointError(str(path), "damaged entries", WRITTEN, "use an earlier checkpoint")
    return meta
