"""Files of tensors that are whole or not there, and that notice a changed byte.

A file is written under a name that nobody else uses, and then renamed: a reader sees the earlier file or the new one,
however many write at once and whenever they are stopped. Its header holds a digest of all that is in it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
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
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:  # a KeyError: a dtype that torch lacks
        raise CheckpointError(where, f"damaged tensors ({error})", "a safetensors file", DAMAGED) from None
    digest = about.pop(DIGEST, None)
    unsealed = digest is None and about.get("format", "") == former
    if not unsealed and digest != digest_of(tensors, about):
        raise CheckpointError(where, "a changed file", "the content that its digest tells", DAMAGED)
    return about, tensors


def commit(path: Path, payload: bytes) -> None:
    """Put ``payload`` under ``path``, all of it or nothing.

    Args:
        path: the file; folders are made. Where it is a link, the file that it leads to.
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
    path = _place(path)
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a file whole; whatever else stands under its name raises an OSError, as a missing one does.

    A pipe that nobody writes to would be waited for, and a device without end fills the memory.

    Args:
        path: the file, or a link to it.

    Raises:
        OSError: missing, a folder, no plain file, larger than memory, or no name for a file.

    Example:
        >>> read_file("/dev/zero")
        Traceback (most recent call last):
        OSError: [Errno 22] not a plain file: '/dev/zero'
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", os.fspath(path))
        with open(path, "rb") as file:
            return file.read()
    except MemoryError:
        raise OSError(errno.ENOMEM, f"{status.st_size} bytes, more than memory holds", os.fspath(path)) from None
    except ValueError as error:  # a name with a null byte, or half a character
        raise OSError(errno.EINVAL, str(error)) from None


def check_writable(path: Path) -> None:
    """Raise where a file could not be written later, before the work that it will hold is done.

    Args:
        path: the file, which is not touched; folders are made.

    Raises:
        CheckpointError: no file can be made there, or a folder is in its place.

    Example:
        >>> check_writable(Path("/dev/null/run"))
        Traceback (most recent call last):
        delaykit.errors.CheckpointError: /dev/null/run: found no way to write there ...
    """
    path = _place(path)
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        os.close(os.open(path if path.exists() else part, os.O_WRONLY | (0 if path.exists() else os.O_CREAT)))
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _place(path: Path) -> Path:
    """Follow links: what they lead to is written, and they stay."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a null byte, or half a character
        raise _unwritable(path, OSError(errno.EINVAL, str(error))) from None


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name[:32]}.{os.getpid()}-{uuid.uuid4().hex}.part")  # a name has at most 255 bytes


def _unwritable(path: Path, error: OSError) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    expected = "a folder with space" if full else "a name in a folder that takes files"
    fix = "free some space or name another folder" if full else "name another file or folder"
    found = f"no way to write there ({error.strerror or error})"
    return CheckpointError(str(path), found, expected, f"{fix}; an earlier file is as it was")


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
