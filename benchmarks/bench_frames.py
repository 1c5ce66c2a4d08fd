"""Frames of SHD's training set as the lab keeps them, against reading the bytes of their file: process-CPU seconds.

    python benchmarks/bench_frames.py [--record] [--samples 8156] [--steps 100] [--channels 700]

The operating system holds the file in memory after it was written, so that neither waits for a disk. The check of the
file's sums reads every byte before the clock is stopped.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import keep, options

from delaykit_lab.data.frame_cache import cached_frames
from delaykit_lab.task import Frames


def seconds(run: Callable[[], object]) -> float:
    """Median of seven."""
    spent = []
    for _ in range(7):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=8156)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--channels", type=int, default=700)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape = (given.steps, given.samples, given.channels)
    frames = Frames((torch.rand(shape) < 0.02).to(torch.uint8), torch.zeros(given.samples, dtype=torch.long))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def kept() -> Frames:
            return cached_frames(folder, {"of": "a benchmark"}, lambda: frames)

        kept()
        [file] = folder.iterdir()
        size, read, ours = file.stat().st_size, seconds(lambda: len(file.read_bytes())), seconds(kept)
    print(f"{size / 1e6:.0f} MB: bytes {read:.3f} s, frames {ours:.3f} s, {ours / read:.2f}x")
    rows = [{"way": "bytes of the file", "CPU s": read, "x bytes": 1.0}]
    rows += [{"way": "frames, checked", "CPU s": ours, "x bytes": ours / read}]
    keep(given, {"": rows}, MB=round(size / 1e6))


if __name__ == "__main__":
    main()
