"""Motif tensors, side by side: process-CPU time of forward + backward, and memory kept in between.

    python benchmarks/bench_motifs.py [--record] [--sizes 256x21 512x41]

Spikes of 0.1 % and 1 % through a tensor of N x N x D taps over a whole sequence, in three ways: event by event
(`tapped_linear`), by one matrix product a delay (what dense input gets), and by torch's own Conv1d. Then recalls: event
by event against the oracle's way, a gather from the spikes of the last D steps. One thread; times on a busy machine
mean little, ratios within one run more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from record import keep, options
from torch import Tensor

import delaykit as dk
from delaykit_motifs import MotifDynamics, MotifMemory, bernoulli_patterns, ridge, tapped_linear

TIME, BATCH, REPEATS = 250, 4, 3
Case = Callable[[Tensor, Tensor], Tensor]


def dense_convolution(spikes: Tensor, taps: Tensor) -> Tensor:
    """What torch offers: a Conv1d over time."""
    depth = taps.shape[2]
    return F.conv1d(F.pad(spikes.permute(1, 2, 0), (depth - 1, 0)), taps.flip(2)).permute(2, 0, 1)


def products(spikes: Tensor, taps: Tensor) -> Tensor:
    """The portable backend: a product a delay, spikes or not."""
    with dk.backend("torch"):
        return tapped_linear(spikes, taps)


CASES: dict[str, tuple[Case, str | None]] = {
    "event by event": (tapped_linear, None),
    "one product a delay": (products, "torch"),
    "torch Conv1d": (dense_convolution, None),
}


def measure(case: Case, name: str | None, spikes: Tensor, taps: Tensor) -> dict[str, float]:
    """Time forward and the gradient of the taps, the best of some repeats, and count what autograd keeps besides."""
    cotangent, kept = torch.randn(*spikes.shape[:2], taps.shape[0]), {}
    own = {t.untyped_storage().data_ptr() for t in (spikes, taps)}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        case(spikes, taps)
    best = {"forward_ms": float("inf"), "total_ms": float("inf")}
    for _ in range(REPEATS):
        start = time.process_time()
        out = case(spikes, taps)
        forward = time.process_time() - start
        with dk.backend(name or "cpu"):
            torch.autograd.grad(out, taps, cotangent)
        total = time.process_time() - start
        best = {"forward_ms": min(best["forward_ms"], 1e3 * forward), "total_ms": min(best["total_ms"], 1e3 * total)}
    return {**best, "kept_mb": sum(kept.values()) / 1e6}


def gather_recall(taps: Tensor, patterns: Tensor, dynamics: MotifDynamics) -> Tensor:
    """Step by step in plain torch: collect the rows of all spikes of the last D steps."""
    (steps, count, neurons), depth = patterns.shape, taps.shape[2]
    rows = taps.permute(1, 2, 0).reshape(neurons * depth, neurons).contiguous()
    spikes = torch.zeros_like(patterns)
    spikes[:depth] = patterns[:depth]
    u, fired = torch.zeros(count, neurons), torch.zeros(count, neurons)
    for t in range(depth, steps):
        back, pattern, neuron = spikes[t - depth : t].nonzero(as_tuple=True)
        current = torch.zeros(count, neurons).index_add_(0, pattern, rows[neuron * depth + depth - 1 - back])
        u = dynamics.beta * u * (1 - fired) + current
        fired = (u >= dynamics.theta).float()
        spikes[t] = fired != 0
    return spikes


def recalls(neurons: int, depth: int) -> dict[str, float]:
    """CPU seconds of an exact recall of 4 patterns of 500 steps, with 16 spikes in a context."""
    patterns = bernoulli_patterns(500, 4, neurons, 16 / (neurons * depth), torch.Generator().manual_seed(0))
    memory = MotifMemory(ridge(patterns, depth, MotifDynamics(theta=0.65)), MotifDynamics(theta=0.65))
    ways: dict[str, Callable[[], Tensor]] = {
        "event by event": lambda: memory.recall(patterns[:depth], 500).spikes,
        "gather (plain torch)": lambda: gather_recall(memory.taps.detach(), patterns, memory.dynamics),
    }
    answers, seconds = [], {}
    for name, way in ways.items():
        way()
        start = time.process_time()
        answers.append(way())
        seconds[name] = time.process_time() - start
    if not torch.equal(*answers):
        raise SystemExit("the two recalls differ")
    return seconds


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["256x21", "512x41"], help="neurons x delays")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tables: dict[str, list[dict[str, object]]] = {}
    for size in given.sizes:
        neurons, depth = map(int, size.split("x"))
        for density in (0.001, 0.01):
            spikes = (torch.rand(TIME, BATCH, neurons, generator=torch.Generator().manual_seed(0)) < density).float()
            taps = torch.randn(neurons, depth, neurons).permute(2, 0, 1).requires_grad_()
            print(f"N {neurons}, D {depth}, T {TIME}, B {BATCH}, density {density}")
            for name, (case, backend) in CASES.items():
                found = measure(case, backend, spikes, taps)
                row = {"way": name, "CPU ms": found["total_ms"], "forward ms": found["forward_ms"]}
                title = f"N {neurons}, D {depth}, spikes {density:.1%}"
                tables.setdefault(title, []).append(row | {"kept MB": found["kept_mb"]})
                print(
                    "  {:22s} forward {forward_ms:8.1f} ms  total {total_ms:8.1f} ms  kept {kept_mb:6.1f} MB".format(
                        name, **found
                    )
                )
        for name, seconds in recalls(neurons, depth).items():
            row = {"way": name, "CPU s": seconds}
            tables.setdefault(f"N {neurons}, D {depth}, recall of 4 patterns of 500 steps", []).append(row)
            print(f"  recall of 4 x 500 steps, {name:22s} {seconds:6.2f} s")
    keep(given, tables, time=TIME, batch=BATCH, repeats=REPEATS)


if __name__ == "__main__":
    main()
