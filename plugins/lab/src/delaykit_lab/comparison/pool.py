"""Processes that work for this one and end with it, however it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes; at the end of the block they end at once, also in the middle of a task.

    They end as well when this process is killed, which no code of its own can notice: all of them watch a line whose
    other end it alone holds, and which the system cuts.

    Args:
        workers: how many, >= 1.

    Example:
        >>> with worker_pool(2) as pool:  # doctest: +SKIP
        ...     results = list(pool.map(train_one, jobs))
    """
    context = multiprocessing.get_context("spawn")
    line, own_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _end_with, (line,))
    try:
        yield pool
    finally:
        own_end.close()
        pool.shutdown(wait=True, cancel_futures=True)
        line.close()


def _end_with(line: Connection) -> None:
    """Let a worker end quietly at Ctrl-C, of which its parent speaks, and when the line to the parent is cut."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch() -> None:
        wait([line])  # nothing is ever sent
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ends with its parent").start()
