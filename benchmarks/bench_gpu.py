"""Triton kernels beside the plain-torch operators on a GPU, side by side in one run; says so where there is no GPU."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from delaykit.arrivals import Kernel, Linear, Triangle
from delaykit.functional.delay_line import delay_line
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend

TIME, BATCH, PRE, POST, MAX_DELAY = 100, 32, 256, 256, 25
Case = tuple[str, Kernel, tuple[int, int]]
CASES: tuple[Case, ...] = (
    ("axonal linear", Linear(), (1, PRE)),
    ("axonal triangle, spread 10", Triangle(10.0), (1, PRE)),
    ("synaptic linear", Linear(), (POST, PRE)),
    ("synaptic triangle, spread 10", Triangle(10.0), (POST, PRE)),
)


def timed(run: Callable[[], None], repeats: int = 15) -> float:
    """Median milliseconds between two device events, after a warm-up."""
    for _ in range(4):
        run()
    values = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        values.append(start.elapsed_time(end))
    return statistics.median(values)


def measure(case: Case, name: str) -> float:
    """Forward and backward of one case with one backend, in ms."""
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(TIME, BATCH, PRE, generator=generator) < 0.05).float().cuda().requires_grad_()
    weight = torch.randn(POST, PRE, generator=generator).cuda().requires_grad_()
    delays = (torch.rand(case[2], generator=generator) * MAX_DELAY).cuda().requires_grad_()

    def run() -> None:
        with backend(name):
            taps = case[1].taps(delays)
            if case[2][0] == 1:
                y = torch.nn.functional.linear(delay_line(spikes, taps), weight)
            else:
                y = delayed_linear(spikes, weight, taps)
            torch.autograd.grad(y.square().sum(), (spikes, weight, delays))

    return timed(run)


def main() -> None:
    """Print the table and write ``runs/bench_gpu.json``."""
    if not torch.cuda.is_available():
        sys.stdout.write("bench_gpu: no CUDA GPU here, nothing measured\n")
        return
    rows = {case[0]: {name: measure(case, name) for name in ("torch", "gpu")} for case in CASES}
    sys.stdout.write(f"{torch.cuda.get_device_name()}, T={TIME} B={BATCH} {PRE}->{POST}, forward+backward, ms\n")
    for label, row in rows.items():
        line = (
            f"{label:30s} torch {row['torch']:9.2f}  triton {row['gpu']:9.2f}  ratio {row['gpu'] / row['torch']:.2f}\n"
        )
        sys.stdout.write(line)
    Path("runs").mkdir(exist_ok=True)
    Path("runs/bench_gpu.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
