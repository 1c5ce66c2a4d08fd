"""idx files, the layout of MNIST: a magic number, one size a dimension, then the numbers; gzipped or not."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delaykit import DataError, checks
from delaykit.sealed import read_file
from delaykit_lab.declared import path_of

# The third byte of the magic number names the type; all numbers are big-endian.
MOST_DIMENSIONS = 64  # of a numpy array
PIECE = 2**20
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@checks.annotated
def read_idx(path: str | Path) -> NDArray[np.generic]:
    """Read one idx file.

    Args:
        path: the file, ``.gz`` or plain.

    Returns:
        The array, in the machine's byte order.

    Raises:
        DataError: the file is missing, truncated, too long, no idx file, or holds NaN.

    Example:
        >>> read_idx("mnist/t10k-labels-idx1-ubyte.gz").shape  # doctest: +SKIP
        (10000,)

    Reference:
        LeCun, Cortes, Burges, the MNIST database of handwritten digits.
    """
    path = path_of("read_idx path", path)
    try:
        raw = read_file(path)
        content = _unpacked(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(
            str(path), f"a file that cannot be read ({problem})", "an idx file", "copy it again"
        ) from problem
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise DataError(str(path), f"the first bytes {content[:4].hex()}", "0000, a type and a rank", "use an idx file")
    dtype, rank = np.dtype(TYPES[content[2]]), content[3]
    if len(content) < 4 + 4 * rank:
        raise DataError(str(path), f"{len(content)} bytes", f"{rank} sizes of 4 bytes", "the file is truncated")
    if rank > MOST_DIMENSIONS:
        most, fix = f"at most {MOST_DIMENSIONS}", "the file is damaged: copy it again"
        raise DataError(str(path), f"{rank} dimensions", most, fix)
    shape, expected = _shape(content), _length(content)
    if len(content) != expected:
        wanted = f"{expected} for shape {shape!s:.200}" if expected < 2**63 else f"far more for {rank} sizes"
        raise DataError(str(path), f"{len(content)} bytes", wanted, "copy the file again")
    values = np.frombuffer(content, dtype, offset=4 + 4 * rank)
    try:
        found = values.reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as problem:  # sizes of which one is 0 and the others are too large for numpy
        raise DataError(str(path), f"shape {shape!s:.200} ({problem})", "an array", "copy the file again") from problem
    if not np.isfinite(found).all():
        raise DataError(str(path), "NaN or infinite numbers", "finite ones", "the file is damaged: copy it again")
    return found


def _shape(content: bytes) -> tuple[int, ...]:
    return tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], 4))


def _length(content: bytes) -> int:
    """Return how many bytes the header asks for, in Python's integers, which cannot overflow."""
    return 4 + 4 * content[3] + math.prod(_shape(content)) * np.dtype(TYPES[content[2]]).itemsize


def _unpacked(raw: bytes) -> bytes:
    """Unpack what the header asks for and a byte more, whatever a small file may blow up to."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        head = stream.read(4 + 4 * MOST_DIMENSIONS)
        if len(head) < 4 or head[2] not in TYPES or len(head) < 4 + 4 * head[3]:
            return head
        pieces, missing = [head], _length(head) + 1 - len(head)
        while missing > 0 and (piece := stream.read(min(missing, PIECE))):  # a buffer is as large as what is asked for
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)
