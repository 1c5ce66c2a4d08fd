"""Files of tensors that are whole or not there, and that notice a changed byte.

A file is written under a name that nobody else uses, and then renamed: a reader sees the earlier file or the new one,
however many write at once and whenever they are stopped. Its header holds a digest of all that is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from delaykit.errors import CheckpointError

DIGEST = "sha256"  # a key of the header
DAMAGED = "use an earlier checkpoint, or copy the file again"


def seal(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Make the bytes of a safetensors file with a digest in its header.

    Args:
        tensors: dense, of any device and layout in memory; they are copied.
        about: words of the header.

    Returns:
        What :func:`commit` writes.

    Example:
        >>> about, tensors = unseal(seal({"delay": torch.ones(2)}, {"format": "mine-1"}), "mine.safetensors")
        >>> about, tensors["delay"].tolist()
        ({'format': 'mine-1'}, [1.0, 1.0])
    """
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    return save_tensors(own, {**about, DIGEST: digest_of(own, about)})


def unseal(payload: bytes, where: str, *, former: str | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read what :func:`seal` made.

    Args:
        payload: the file's bytes.
        where: its name, for messages.
        former: ``about["format"]`` of files that earlier versions wrote without a digest, "" where they had none.

    Returns:
        The words of the header, and the tensors.

    Raises:
        CheckpointError: a truncated, changed or foreign file.
    """
    try:
        tensors = load_tensors(payload)
        size = int.from_bytes(payload[:8], "little")
        about = dict(json.loads(payload[8 : 8 + size]).get("__metadata__") or {})
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(where, f"damaged tensors ({error})", "a safetensors file", DAMAGED) from None
    digest = about.pop(DIGEST, None)
    unsealed = digest is None and about.get("format", "") == former
    if not unsealed and digest != digest_of(tensors, about):
        raise CheckpointError(where, "a changed file", "the content that its digest tells", DAMAGED)
    return about, tensors


def commit(path: Path, payload: bytes) -> None:
    """Put ``payload`` under ``path``, all of it or nothing.

    Args:
        path: the file; folders are made.
        payload: its content.

    Raises:
        CheckpointError: it cannot be written; what was there before still is.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.json"
        >>> commit(path, b"{}")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('{}', 1)
    """
    part = path.with_name(f".{path.name[:32]}.{os.getpid()}-{uuid.uuid4().hex}.part")  # a name has at most 255 bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        fix = "free some space or name another folder; an earlier file is as it was"
        raise CheckpointError(str(path), f"no way to write there ({error})", "a folder with space", fix) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def digest_of(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> str:
    """Digest names, dtypes, shapes and values, and the words that go with them."""
    kinds = [[key, str(tensors[key].dtype), tensors[key].shape] for key in sorted(tensors)]
    digest = hashlib.sha256(json.dumps(kinds).encode())
    for key in sorted(tensors):
        if tensors[key].numel():
            digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy().data)
    if about:
        digest.update(json.dumps(dict(about), sort_keys=True).encode())
    return digest.hexdigest()
