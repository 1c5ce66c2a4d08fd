"""One file for a checkpoint: tensors, one of which is the plan as JSON text, and in the header a digest of them all."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from delaykit.errors import CheckpointError
from delaykit.sealed import DAMAGED, DIGEST, digest_of

FORMAT = 2
PLAN = "#plan"  # a tensor, for a header holds at most 100 MB
WRITTEN = "a checkpoint written by dk.save"


def pack(tensors: dict[str, Tensor], meta: dict[str, Any], where: str) -> bytes:
    """Make the bytes of a checkpoint.

    Args:
        tensors: any device and layout in memory; they are copied.
        meta: JSON values.
        where: name for messages.

    Raises:
        CheckpointError: a tensor or a value that the file cannot hold.
    """
    try:
        text = bytearray(json.dumps(meta, allow_nan=False).encode())
        own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        own[PLAN] = torch.frombuffer(text, dtype=torch.uint8)
        return save_tensors(own, {DIGEST: digest_of(own)})
    except (TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        found, fix = f"what a safetensors file cannot hold ({error})", "keep dense tensors and JSON values in the model"
        raise CheckpointError(where, found, "dense tensors, and configs of JSON values", fix) from error


def unpack(payload: bytes, where: str) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Read what :func:`pack` made: the plan, None where there is none, and the other tensors.

    Raises:
        CheckpointError: a truncated, changed or foreign file.
    """
    try:
        tensors = load_tensors(payload)
        size = int.from_bytes(payload[:8], "little")
        header = json.loads(payload[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:  # a KeyError: a dtype that torch lacks
        raise CheckpointError(where, f"damaged tensors ({error})", "a safetensors file", DAMAGED) from None
    if PLAN not in tensors:
        return None, tensors
    digest, plan = digest_of(tensors), tensors.pop(PLAN)
    meta = parse(bytes(plan.reshape(-1).view(torch.uint8).numpy().data), where)
    if digest != header.get(DIGEST):
        raise CheckpointError(where, "a changed file", "the content that its digest tells", DAMAGED)
    return meta, tensors


def parse(text: str | bytes, where: str) -> dict[str, Any]:
    """Read the plan of a checkpoint as far as its version.

    Raises:
        CheckpointError: no JSON, or not delaykit's, or of a newer version.
    """
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(where, f"a file that is not JSON ({error})", WRITTEN, "use an earlier one") from None
    version = meta.get("format") if isinstance(meta, dict) and meta.get("writer") == "delaykit" else None
    if type(version) is not int or version < 1:
        raise CheckpointError(where, "JSON that delaykit did not write", WRITTEN, "name a file that dk.save wrote")
    if version > FORMAT:
        raise CheckpointError(where, f"format {version}", f"format {FORMAT} or older", "install a newer delaykit")
    return meta
