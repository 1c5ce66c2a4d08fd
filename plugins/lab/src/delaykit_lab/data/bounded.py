"""Run something that may never end, or end the process, in a process of its own, for a limited time.

The HDF5 library trusts its files: a flipped bit can send it round a cycle for ever, or end the process. Nothing in the
same process can stop it. What is read goes through a file, never through a pickle.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from delaykit import DataError

SECONDS, BYTES_A_SECOND = 120.0, 2e6


def seconds_for(path: Path) -> float:
    """Return how long reading a file may take: two minutes, and a second for every two megabytes."""
    return SECONDS + path.stat().st_size / BYTES_A_SECOND


def run_bounded(module: str, path: Path, *arguments: str) -> None:
    """Run ``python -m module path arguments`` and wait for it.

    Args:
        module: of the child process.
        path: the file that it reads, for the time allowed and for messages.
        *arguments: more words for the child.

    Raises:
        DataError: it took too long, or the process ended by itself.
    """
    allowed = seconds_for(path)
    command = [sys.executable, "-m", module, str(path), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=allowed, check=False)
    except subprocess.TimeoutExpired:
        found = f"a file on which the reader did not come back within {allowed:.0f} s"
        raise DataError(str(path), found, "a complete file", "it is probably damaged: fetch it again") from None
    if done.returncode < 0:
        found = f"a file on which the HDF5 library crashed (signal {-done.returncode})"
        raise DataError(str(path), found, "a complete file", "it is damaged: fetch it again")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        fix = "the file is probably truncated: fetch or unpack it again"
        raise DataError(str(path), f"an HDF5 file that cannot be read ({last})", "a complete file in SHD layout", fix)
