"""Exact spike times: one training step of a 784-400 layer, 100 samples of 150 events, p = 2 and p = 3, with delays.

    python benchmarks/bench_timing.py [--record] [--threads 1] [--torch]

Process-CPU and wall milliseconds of forward and backward, best of interleaved repetitions in one process; ``kept`` is
the memory of the way back: the record of the spikes. ``epoch`` is 600 such steps on the wall, MNIST's training set.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import keep, options
from torch import Tensor

from delaykit import backend
from delaykit_timing import TimingDynamics, spike_times

BATCH, EVENTS, PRE, POST = 100, 150, 784, 400


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    times = torch.rand(BATCH, EVENTS, generator=g).double().sort(1).values
    neurons = torch.rand(BATCH, PRE, generator=g).argsort(1)[:, :EVENTS].contiguous()
    return times, neurons, (0.03 + 0.3 * torch.randn(POST, PRE, generator=g)).requires_grad_()


def cases() -> dict[str, Callable[[], tuple[float, float, float, float, float, float]]]:
    times, neurons, weight = inputs()
    g = torch.Generator().manual_seed(1)

    def case(dynamics: TimingDynamics, shape: tuple[int, int] | None, scale: float = 1.0):
        delays = None if shape is None else (0.2 * torch.rand(shape, generator=g).double()).requires_grad_()
        loud = (weight.detach() * scale).requires_grad_()

        def run() -> tuple[float, float, float, float, float, float]:
            marks = [(time.process_time(), time.perf_counter())]
            out = spike_times(times, neurons, loud, dynamics, delays)
            marks.append((time.process_time(), time.perf_counter()))
            (out.when.sum() + out.potential.sum()).backward()
            marks.append((time.process_time(), time.perf_counter()))
            record = out.when.grad_fn.record
            kept = sum(getattr(record, name).nbytes for name in ("sample", "interval", "neuron", "when", "strength"))
            (c0, w0), (c1, w1), (c2, w2) = marks
            return c1 - c0, c2 - c1, w1 - w0, w2 - w1, len(out.when) / (BATCH * POST), kept / 1e6

        return run

    two, three = TimingDynamics(0.8), TimingDynamics(0.8, 0.8 / 3)
    return {
        "no delay": case(two, None),
        "no delay, loud": case(two, None, 4.0),
        "no delay, p = 3": case(three, None),
        "at most one spike": case(TimingDynamics(0.8, max_spikes=1), None),
        "axonal delays": case(two, (1, PRE)),
        "dendritic delays": case(two, (POST, 1)),
        "synaptic delays": case(two, (POST, PRE)),
    }


def measure(names: str, repetitions: int) -> list[dict[str, float | str]]:
    rows: dict[str, list[tuple[float, ...]]] = {}
    with backend(names):
        for _ in range(repetitions + 1):  # the first compiles
            for name, run in cases().items():
                rows.setdefault(name, []).append(run())
    table = []
    for name, runs in rows.items():
        runs = runs[1:]
        forward, backward, wall_f, wall_b = (1000 * min(run[k] for run in runs) for k in range(4))
        wall = wall_f + wall_b
        table.append({
            "case": name, "backend": names, "spikes_per_neuron": runs[0][4], "forward_cpu_ms": forward,
            "backward_cpu_ms": backward, "wall_ms": wall, "kept_mb": runs[0][5], "epoch_s": 0.6 * wall,
        })  # fmt: skip
    return table


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="plain torch as well")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = measure("cpu", given.repetitions)
    if given.torch:
        table += measure("torch", 1)
    print(f"{PRE}-{POST}, {BATCH} samples of {EVENTS} events, {given.threads} thread(s)")
    print("| case | backend | spikes per neuron | forward CPU ms | backward CPU ms | wall ms | kept MB | epoch s |")
    print("|---|---|---|---|---|---|---|---|")
    for row in table:
        cells = [row["case"], row["backend"], f"{row['spikes_per_neuron']:.2f}"]
        cells += [f"{row[key]:.0f}" for key in ("forward_cpu_ms", "backward_cpu_ms", "wall_ms")]
        print("| " + " | ".join([*map(str, cells), f"{row['kept_mb']:.1f}", f"{row['epoch_s']:.0f}"]) + " |")
    tables: dict[str, list[dict[str, object]]] = {}
    for row in table:
        cells = {"case": row["case"], "spikes per neuron": row["spikes_per_neuron"]}
        cells |= {"forward, CPU ms": row["forward_cpu_ms"], "backward, CPU ms": row["backward_cpu_ms"]}
        title = "" if row["backend"] == "cpu" else "plain torch"
        tables.setdefault(title, []).append(cells | {"kept MB": row["kept_mb"]})
    keep(given, tables, batch=BATCH, events=EVENTS, pre=PRE, post=POST)


if __name__ == "__main__":
    main()
