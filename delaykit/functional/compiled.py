"""Numba on first use: no import before a kernel runs, and work shared out over torch's number of threads."""

from __future__ import annotations

import functools
import inspect
import types
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST_SHARE = 1 << 18  # multiply-adds worth a thread
LARGEST_KEPT = (1 << 25) - (1 << 12)  # bytes
DOT_PRODUCTS = ("contract", "reassoc", "nsz")


def compiled(
    fastmath: Iterable[str] = ("contract",), parts: Iterable[Callable[..., Any]] = (),
    intrinsics: Callable[[Any], dict[str, Any]] | None = None, calls: Iterable[Callable[..., Any]] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Decorate a kernel to be compiled by Numba when it is first called, without holding the interpreter lock.

    The compiled code is cached on disk. Where that cannot be read or written (no place for it, a full disk), it is
    kept in memory, after one warning.

    A kernel writes numbers, ``row[n] = other[n]`` in a loop, and no arrays into a slice, ``row[:] = other``: the
    message for shapes that do not fit is compiled along, which takes longer than a large kernel.

    Args:
        fastmath: LLVM's freedoms; ``reassoc`` is for dot products only, where no law asks for an order of summation.
        parts: plain functions, perhaps of other files, that the kernel calls by their names; they are written out in
            it where they are called, which costs no call, and one source serves several kernels.
        intrinsics: takes Numba, and makes what the kernel and its parts call by these names: operations that are no
            plain functions.
            Of the kernel's own file, whose changes the cache on disk sees.
        calls: kernels of a module, each under this decorator and compiled by its own ``fastmath``, that this one calls
            by their names.
    """

    parts, calls = tuple(parts), tuple(calls)

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def build(cache: bool) -> Callable[..., Any]:
            import numba

            made = {} if intrinsics is None else intrinsics(numba)
            made |= {call.__name__: call.build(cache) for call in calls}  # type: ignore[attr-defined]
            whole = _joined(kernel, parts, made, calls) if parts or made else kernel
            return numba.njit(nogil=True, fastmath=set(fastmath), error_model="numpy", cache=cache)(whole)

        @functools.cache
        def cached() -> Callable[..., Any]:
            keep_freed_memory()
            try:
                return build(True)
            except RuntimeError as error:  # Numba finds no place for a cache
                _warn_of_cache(str(error))
                return build(False)

        @functools.wraps(kernel)
        def run(*arguments: Any) -> Any:
            try:
                return cached()(*arguments)
            except OSError as error:  # kernels touch no files: their code could not be read or written
                _warn_of_cache(f"{type(error).__name__}: {error}")
                return build(False)(*arguments)

        run.build = build  # type: ignore[attr-defined]
        return run

    return decorate


def compiled_for(
    fastmath: Iterable[str] = ("contract",), parts: Iterable[Callable[..., Any]] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function that writes a kernel around constants, each of which is compiled when it is first asked for.

    Branches that the constants rule out are left out, which takes most of the time of compiling kernels of many cases.

    Args:
        fastmath: see :func:`compiled`.
        parts: see :func:`compiled`.
    """
    parts = tuple(parts)

    def decorate(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def kernel(*constants: Any) -> Callable[..., Any]:
            return compiled(fastmath, parts)(write(*constants))

        return functools.wraps(write)(kernel)

    return decorate


def _joined(
    kernel: Callable[..., Any],
    parts: tuple[Callable[..., Any], ...],
    made: dict[str, Any],
    calls: tuple[Callable[..., Any], ...] = (),
) -> Callable[..., Any]:
    """Let the kernel find its parts inlined, and all of them what was made for it.

    It is named after the code of its parts and of what it calls, since Numba's cache watches the kernel's own file
    only. What was made is found among its globals: in a closure its identity, new in each process, would be part of
    the name.
    """
    import numba

    inline = numba.njit(inline="always")
    codes = [inspect.unwrap(part).__code__ for part in (*parts, *calls)]
    digest = zlib.crc32(repr([(code.co_code, code.co_consts, code.co_names) for code in codes]).encode())
    scope = kernel.__globals__ | made | {part.__name__: inline(_seeing(part, made)) for part in parts}
    whole = types.FunctionType(kernel.__code__, scope, kernel.__name__, None, kernel.__closure__)
    whole.__module__ = kernel.__module__
    whole.__qualname__ = f"{kernel.__qualname__}_{digest:08x}" if codes else kernel.__qualname__
    return whole


def _seeing(part: Callable[..., Any], made: dict[str, Any]) -> Callable[..., Any]:
    scope = part.__globals__ | made
    return types.FunctionType(part.__code__, scope, part.__name__, part.__defaults__, part.__closure__)


@functools.cache
def _warn_of_cache(error: str) -> None:
    warnings.warn(
        f"compiled kernels: found a cache on disk that cannot be used ({error}), expected one. They are compiled anew "
        "in each process. To go on faster: make room, or point NUMBA_CACHE_DIR at a folder that can be written",
        RuntimeWarning,
        stacklevel=3,
    )


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what large tensors leave behind, in place of giving it back to the system each time.

    Every page of a new tensor costs a fault, and for the sequences of a small network all of them a sixth of the time.
    GNU's library keeps blocks as large as have been freed before, up to 32 MB: one is taken and freed, untouched.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


def in_threads(work: Callable[[int, int], None], rows: int, multiply_adds: int) -> None:
    """Call ``work(first, last)`` on shares of ``range(rows)``, in as many threads as torch may use and pay off.

    Args:
        work: runs the rows from ``first`` to ``last - 1``.
        rows: how many there are.
        multiply_adds: of all rows together, by which it is told whether threads pay off.
    """
    threads = max(1, min(torch.get_num_threads(), rows, multiply_adds // SMALLEST_SHARE))
    if threads == 1:
        work(0, rows)
        return
    edges = [rows * n // threads for n in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


def arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """View tensors as contiguous arrays, without their graphs."""
    return tuple(array(t.detach().contiguous()) for t in tensors)


def array(tensor: Tensor) -> np.ndarray:
    """View a tensor as an array, and leave its storage as it was.

    ``Tensor.numpy`` marks a storage as one that never changes its size, and ``fully_shard``, which lets parameters go
    between two uses, fails on it.
    """
    return np.from_dlpack(tensor) if tensor.is_floating_point() else tensor.numpy()


def least_normal(x: Tensor) -> Any:
    """Return the size below which a number of this dtype counts as nothing, far above the subnormal ones."""
    return _least(x.dtype)


@functools.cache
def _least(dtype: torch.dtype) -> Any:
    return torch.tensor(torch.finfo(dtype).tiny * 2**20, dtype=dtype).numpy()[()]
