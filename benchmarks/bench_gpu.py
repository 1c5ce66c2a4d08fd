"""Triton kernels beside plain torch on a GPU: first the same numbers, then times and the memory they move a second.

    python benchmarks/bench_gpu.py                 # on a machine with a CUDA device; at most six minutes
    python benchmarks/bench_gpu.py --dry           # on any machine: small shapes in Triton's interpreter, no times

Each case runs forward and backward by both backends on the same inputs; where values or gradients differ by more than
rounding, it is not timed and the script ends with status 1. Numbers are few binary digits long, so that no sum before a
threshold is rounded. Times are medians of device events after a warm-up. ``GB/s`` counts what a case has to read and
write at least once, inputs, outputs and their gradients. The recurrent layer without delays also runs as Norse's eager
``LIFRecurrentCell``, where Norse is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 360.0  # seconds
Case = tuple[Callable[[], Any], list[Any]]


def cases(torch: Any, size: tuple[int, int, int, int], device: str) -> dict[str, Case]:
    """Make every case: a run that returns a tensor, and the leaves that it has gradients of."""
    from delaykit.arrivals import Linear, Triangle
    from delaykit.functional.delay_line import delay_line
    from delaykit.functional.delayed_linear import delayed_linear
    from delaykit.functional.dynamics import LIFDynamics
    from delaykit.functional.filtered_linear import filtered_linear
    from delaykit.functional.recurrence import rollout
    from delaykit.functional.surrogates import FAST_SIGMOID, Slope

    steps, batch, neurons, longest = size
    generator = torch.Generator().manual_seed(0)

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * Slope(FAST_SIGMOID, 1.0, 25.0)(ctx.saved_tensors[0])

    def leaf(low: int, high: int, grain: int, *shape: int) -> Any:
        return (torch.randint(low, high, shape, generator=generator) / grain).to(device).requires_grad_()

    spikes = (torch.rand(steps, batch, neurons, generator=generator) < 0.05).float().to(device).requires_grad_()
    weight, drive = leaf(-8, 9, 256, neurons, neurons), leaf(0, 64, 64, steps, batch, neurons)
    shapes = {"axonal": (1, neurons), "synaptic": (neurons, neurons)}
    delays = {kind: leaf(0, 2 * longest, 2, *shape) for kind, shape in shapes.items()}
    decay = leaf(0, 65, 64, neurons, neurons)
    neuron = LIFDynamics(decay=0.5, surrogate=Fire.apply, heaviside=True, slope=Slope(FAST_SIGMOID, 1.0, 25.0))
    made: dict[str, Case] = {}
    for arrival in (Linear(), Triangle(10.0)):
        name = type(arrival).__name__.lower()

        def lines(arrival: Any = arrival) -> Any:
            return torch.nn.functional.linear(delay_line(spikes, arrival.taps(delays["axonal"])), weight)

        def synapses(arrival: Any = arrival) -> Any:
            return delayed_linear(spikes, weight, arrival.taps(delays["synaptic"]))

        made[f"whole sequence, axonal, {name}"] = lines, [spikes, weight, delays["axonal"]]
        made[f"whole sequence, synaptic, {name}"] = synapses, [spikes, weight, delays["synaptic"]]
    made["whole sequence, a decay a synapse"] = (lambda: filtered_linear(spikes, weight, decay)), [spikes, decay]
    made["recurrent, no delays"] = (lambda: rollout(drive, weight, None, None, neuron)[1]), [drive, weight]
    for kind, own in delays.items():

        def layer(own: Any = own) -> Any:
            return rollout(drive, weight, None, Linear().taps(own), neuron)[1]

        made[f"recurrent, {kind}"] = layer, [drive, weight, own]
    return made


def run(torch: Any, case: Case, name: str) -> list[Any]:
    """Run forward and backward in one backend; return the output and all gradients."""
    from delaykit.functional.dispatch import backend

    with backend(name):
        out = case[0]()
        return [out.detach(), *torch.autograd.grad(out.square().sum(), case[1])]


def apart(one: list[Any], other: list[Any]) -> float:
    """Return the largest difference, relative to the largest number of its tensor."""
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(one, other, strict=True))


def timed(torch: Any, work: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds between two device events, after a warm-up."""
    for _ in range(3):
        work()
    values = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        values.append(start.elapsed_time(end))
    return statistics.median(values)


def norse_layer(torch: Any, size: tuple[int, int, int, int], device: str) -> Callable[[], Any] | None:
    """Norse's recurrent layer without delays, or None where it is not installed."""
    try:
        import norse.torch as norse
    except ImportError:
        return None
    steps, batch, neurons, _ = size
    cell, drive = norse.LIFRecurrentCell(neurons, neurons).to(device), torch.rand(steps, batch, neurons, device=device)

    def work() -> None:
        state, total = None, 0.0
        for x in drive:
            spikes, state = cell(x, state)
            total = total + spikes
        total.sum().backward()

    return work


def main() -> int:
    """Check, measure, print the table and write ``runs/bench_gpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="check only, on the CPU, in Triton's interpreter")
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    if given.dry:
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    if not given.dry and not torch.cuda.is_available():
        sys.stdout.write("bench_gpu: no CUDA device here, nothing measured; --dry checks the kernels without one\n")
        return 0
    device, size = ("cpu", (11, 3, 18, 6)) if given.dry else ("cuda", (250, 256, 512, 25))
    begin, rows, wrong = time.monotonic(), {}, 0
    where = "Triton's interpreter" if given.dry else torch.cuda.get_device_name()
    sys.stdout.write(f"{where}, steps {size[0]}, batch {size[1]}, {size[2]} neurons, forward + backward\n")
    for name, case in cases(torch, size, device).items():
        if time.monotonic() - begin > LIMIT:
            sys.stdout.write(f"{name:40} left out: six minutes are over\n")
            continue
        found = [run(torch, case, backend) for backend in ("gpu", "torch")]
        row = rows[name] = {"apart": apart(*found)}
        if not row["apart"] < 1e-3:  # also where it is NaN
            wrong += 1
            sys.stdout.write(f"{name:40} WRONG: differs by {row['apart']:.2g}\n")
            continue
        text = f"{name:40} equal to {row['apart']:.0e}"
        if not given.dry:
            moved = 2 * 4 * sum(x.numel() for x in (*case[1], found[0][0]))
            for backend in ("gpu", "torch"):
                row[backend] = timed(torch, lambda b=backend, c=case: run(torch, c, b), given.repeats)
            row["GB/s"] = moved / row["gpu"] / 1e6
            text += f"  triton {row['gpu']:9.2f} ms  torch {row['torch']:9.2f} ms  {row['GB/s']:7.1f} GB/s"
        sys.stdout.write(text + "\n")
    rival = None if given.dry else norse_layer(torch, size, device)
    if rival is not None and time.monotonic() - begin < LIMIT:
        rows["norse, recurrent, no delays"] = {"torch": timed(torch, rival, 3)}
        sys.stdout.write(f"{'norse, recurrent, no delays':40} {rows['norse, recurrent, no delays']['torch']:9.2f} ms\n")
    Path("runs").mkdir(exist_ok=True)
    Path("runs/bench_gpu.json").write_text(json.dumps(rows, indent=1))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
