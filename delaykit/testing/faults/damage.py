"""Files with a changed byte: their reader refuses them, or reads what it may read, and never hangs."""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from delaykit.errors import DelaykitError
from delaykit.testing.faults import flipped
from delaykit.testing.messages import check_full

HANGS = 2.0  # seconds of CPU after which a reader of a small file will not come back


def check_changed_bytes(
    content: bytes, read: Callable[[bytes], Any], judge: Callable[[Any], Any], flips: int, seed: int = 0
) -> int:
    """Change one byte of a file at random, ``flips`` times, and read each.

    Args:
        content: the sound file.
        read: takes the bytes of a file, returns what is in it.
        judge: raises an AssertionError where something else was read than may be: of a file with a digest, anything
            but what was written; of one without, values out of the ranges that its reader declares.
        flips: how many files.
        seed: of the places and changes.

    Returns:
        How many were refused, by an error that tells of it in full.

    Raises:
        AssertionError: a file was read wrongly, or refused by another error.

    Example:
        >>> from delaykit import DataError
        >>> def read(content):
        ...     if not content.isdigit():
        ...         raise DataError("a", repr(content), "digits", "copy it again")
        ...     return int(content)
        >>> 0 < check_changed_bytes(b"12", read, lambda value: None, 50) < 50
        True
    """
    refused = 0
    for place, changed in flipped(content, flips, seed):
        try:
            found = read(changed)
        except DelaykitError as error:
            check_full(error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"byte {place}: a raw {type(error).__name__}: {error}") from error
        else:
            try:
                judge(found)
            except AssertionError as error:
                raise AssertionError(f"byte {place}: {error}") from error
    return refused


def run_in_a_copy(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python command as ``subprocess.run`` does, but in a copy of this process, which has imported all it needs.

    Args:
        command: ``python -m module ...`` or ``python -c code ...``.
        **options: ``timeout`` is not waited for: two seconds of CPU are enough.

    Returns:
        Return code, negative where a signal ended it, and what was written to ``stderr``.

    Raises:
        TimeoutExpired: it did not come back.

    Example:
        >>> run_in_a_copy([sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", "gone"]).stderr
        'gone\\n'
    """
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if not child:
            faulthandler.disable()  # its report of a crash belongs to the parent's terminal
            os.dup2(told.fileno(), 2)
            signal.setitimer(signal.ITIMER_PROF, HANGS)  # ends the process wherever it is
            os._exit(_finished(command[1:]))
        status = os.waitpid(child, 0)[1]
        told.seek(0)
        said = told.read().decode(errors="replace")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        raise subprocess.TimeoutExpired(list(command), options.get("timeout") or HANGS)
    return subprocess.CompletedProcess(list(command), os.waitstatus_to_exitcode(status), "", said)


def _finished(words: Sequence[str]) -> int:
    how, what, *sys.argv[1:] = words
    sys.stderr = open(2, "w", closefd=False)
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__")
        else:
            exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr, flush=True)
        return int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0
