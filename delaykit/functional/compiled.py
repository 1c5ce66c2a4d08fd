"""Numba on first use: no import before a kernel runs, and work shared out over torch's number of threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

SMALLEST_SHARE = 1 << 18  # multiply-adds worth a thread


def compiled(fastmath: Iterable[str] = ("contract",)) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a kernel to be compiled by Numba when it is first called, without holding the interpreter lock.

    The compiled code is cached on disk where a place for it can be written, and in memory otherwise.

    Args:
        fastmath: LLVM's freedoms; ``reassoc`` is for dot products only, where no law asks for an order of summation.
    """

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def build() -> Callable[..., Any]:
            import numba

            options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy"}
            try:
                return numba.njit(cache=True, **options)(kernel)
            except RuntimeError:  # no writable place for a cache
                return numba.njit(**options)(kernel)

        @functools.wraps(kernel)
        def run(*arguments: Any) -> Any:
            return build()(*arguments)

        return run

    return decorate


def in_threads(work: Callable[[int, int], None], rows: int, multiply_adds: int) -> None:
    """Call ``work(first, last)`` on shares of ``range(rows)``, in as many threads as torch may use and pay off."""
    threads = max(1, min(torch.get_num_threads(), rows, multiply_adds // SMALLEST_SHARE))
    if threads == 1:
        work(0, rows)
        return
    edges = [rows * n // threads for n in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
