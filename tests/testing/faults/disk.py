"""A disk that fails at a chosen call: full, taken away, or the process stopped."""

from __future__ import annotations

import builtins
import errno
import os

from delaykit import sealed


class FailingDisk:
    """Count the calls that a save makes to the system, and fail at one of them.

    Args:
        monkeypatch: pytest's.
        stop: number of the call that fails, from 0; None: none does.
        error: what is raised there.
    """

    def __init__(self, monkeypatch, stop=None, error=None):
        self.before = lambda number: None  # called with the number of each call
        self.calls, self.stop, self.error = 0, stop, error or OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(sealed, "open", self._open, raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real):
        def act(*arguments, **options):
            self._count()
            return real(*arguments, **options)

        return act

    def _count(self):
        self.before(self.calls)
        self.calls += 1
        if self.calls - 1 == self.stop:
            raise self.error

    def _open(self, *arguments):
        self._count()
        return _File(builtins.open(*arguments), self._count)


class _File:
    """A file whose second half of a write may fail: something is written, not all."""

    def __init__(self, file, count):
        self.file, self.count = file, count

    def write(self, content):
        middle = len(content) // 2
        for part in (content[:middle], content[middle:]):
            self.count()
            self.file.write(part)

    def flush(self):
        self.count()
        self.file.flush()

    def fileno(self):
        return self.file.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.file.close()
