"""A machine that fails: a process that is killed at any call, a disk that is full from any call on, a changed byte.

For tests of whatever writes files: of the core, of plugins, of your own training.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FULL = os.environ.get("DELAYKIT_FAULTS") == "full"


def how_many(few: int, all_of_them: int) -> int:
    """Return how many faults to try: ``few``, or with ``DELAYKIT_FAULTS=full`` in the environment all of them."""
    return all_of_them if FULL else few


def in_a_copy(act: Callable[[], Any]) -> int:
    """Run ``act`` in a copy of this process; return its wait status: 0 where it came to its end."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def count_calls(act: Callable[[], Any], folder: Path, within: str | None = None) -> int:
    """Count the calls and returns of Python and C functions while ``act`` runs, in a copy of this process.

    Args:
        act: what is run.
        folder: where the copy writes its count down.
        within: count only what happens inside functions of this name.
    """
    seen = _Calls(None, within)

    def counted() -> None:
        seen.run(act)
        folder.joinpath("calls").write_text(str(seen.count))

    assert in_a_copy(counted) == 0
    found = int(folder.joinpath("calls").read_text())
    folder.joinpath("calls").unlink()
    return found


def killed_at(act: Callable[[], Any], call: int, within: str | None = None) -> bool:
    """Run ``act`` in a copy of this process, which is killed (SIGKILL) at one of the calls that :func:`count_calls` counts.

    Returns:
        Whether it was killed, and had not come to its end before.
    """  # noqa: E501
    status = in_a_copy(lambda: _Calls(call, within).run(act))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0
    return False


class _Calls:
    def __init__(self, last: int | None, within: str | None) -> None:
        self.count, self.last, self.within, self.depth = 0, last, within, 0

    def run(self, act: Callable[[], Any]) -> None:
        sys.setprofile(self._seen)
        try:
            act()
        finally:
            sys.setprofile(None)

    def _seen(self, frame: Any, event: str, argument: Any) -> None:
        if self.within is not None:
            if frame.f_code.co_name == self.within and event in ("call", "return"):
                self.depth += 1 if event == "call" else -1
            if not self.depth:
                return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class FullDisk:
    """A disk that is full from one call on: files that are opened, written, flushed, synced or renamed, folders made.

    Args:
        monkeypatch: pytest's.
        stop: number of the first call that fails, from 0; None: none does, and they are counted.
    """

    def __init__(self, monkeypatch: Any, stop: int | None = None) -> None:
        self.calls, self.stop = 0, stop
        self._open = builtins.open
        for module in (builtins, io):
            monkeypatch.setattr(module, "open", self.open)
        for name in ("fsync", "replace", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """Open a file as Python does; one for writing goes on being watched."""
        if not set(mode) & set("wxa+") or isinstance(file, int) or str(file).startswith(("/dev", "/proc", "/sys")):
            return self._open(file, mode, *arguments, **options)
        self.count()
        return _File(self._open(file, mode, *arguments, **options), self.count)

    def count(self) -> None:
        """Count one call, and fail."""
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            self.count()
            return real(*arguments, **options)

        return act


class _File:
    """A file whose second half of a write may fail: something is written, not all."""

    def __init__(self, file: Any, count: Callable[[], None]) -> None:
        self._file, self._count = file, count

    def write(self, content: Any) -> int:
        middle = len(content) // 2
        for part in (content[:middle], content[middle:]):
            self._count()
            self._file.write(part)
        return len(content)

    def flush(self) -> None:
        self._count()
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()


def flipped(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield copies of ``content`` with one byte changed, at random, and the place of it.

    Example:
        >>> [sum(a != b for a, b in zip(one, b"abcd")) for _, one in flipped(b"abcd", 3)]
        [1, 1, 1]
    """
    source = random.Random(seed)
    for _ in range(count):
        changed, place = bytearray(content), source.randrange(len(content))
        changed[place] ^= source.randrange(1, 256)
        yield place, bytes(changed)
