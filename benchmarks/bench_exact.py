"""Exact spike-time gradients against interpolation with a surrogate: process-CPU time of one training step.

    python benchmarks/bench_exact.py [--record] [--only yin] [--repeats 9]

A recurrent layer with a delay of its own for every synapse, input and recurrent; and nets of the size that the Yin-Yang
task is learned with, 4 -> 30 -> 3, one spike per neuron. Cases take turns within one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from record import keep, options
from torch import Tensor

from delaykit.arrivals import Linear
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit_spatial.exact import (
    ExactAdEx,
    ExactLIF,
    SuperSpike,
    exact_arrivals,
    exact_rollout,
    first_spike_times,
)

Case = Callable[[], tuple[Tensor, Tensor]]


def recurrent_cases(steps: int, batch: int, pre: int, post: int) -> dict[str, Case]:
    """The same net and data: spikes in 5 % of the input's steps, 5-10 % in the layer's."""
    spikes = (torch.rand(steps, batch, pre) < 0.05).float()
    delay, lag = ((40 * torch.rand(post, n)).requires_grad_() for n in (pre, post))
    neurons = {"LIF": ExactLIF(20.0, 4.0), "AdEx": ExactAdEx(20.0, 4.0, tau_adapt=400.0, dt=0.5)}
    weight = (0.012 * torch.rand(post, pre)).requires_grad_()
    inner = (0.02 * torch.randn(post, post)).requires_grad_()
    readout = torch.randn(post)
    keep_v, keep_i, gain = neurons["LIF"].constants()[:3]
    dynamics = LIFDynamics(keep_v, 1.0, SuperSpike(), keep_i, gain, reset="zero", reset_when="same")

    def exact(neuron: ExactLIF | ExactAdEx, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        jumps = exact_arrivals(spikes, None, scale * weight, delay, neuron.tau_syn, neuron.dt)
        run = exact_rollout(*jumps, neuron, inner, lag, SuperSpike(), self_connections=False)
        return (run.spikes * readout).sum(), run.spikes

    def interp() -> tuple[Tensor, Tensor]:
        drive = delayed_linear(spikes, weight, Linear().taps(delay))
        out = rollout(drive, inner, None, Linear().taps(lag), dynamics)[0]
        return (out * readout).sum(), out

    return {
        "interp LIF": interp,
        "exact LIF": lambda: exact(neurons["LIF"]),
        "exact AdEx": lambda: exact(neurons["AdEx"], 2.0),
    }


def yin_yang_case(dt: float, batch: int = 150, hidden: int = 30, trial: float = 12.0) -> Case:
    """Time to first spike, 2-D positions' worth of delays; the gradient of a hinge between output times."""
    neuron, steps = ExactLIF(4.0, 2.0, dt=dt), round(trial / dt)
    point = torch.rand(batch, 2)
    times = ((0.1 + 4 * torch.cat([point, 1 - point], 1)) / dt).round().long()
    spikes = torch.zeros(steps, batch, 4).scatter_(0, times.unsqueeze(0), 1.0)
    shapes = [(hidden, 4), (3, hidden)]
    weights = [
        ((torch.rand(shape) - 0.2) * scale).requires_grad_()
        for shape, scale in zip(shapes, (400 / (4 * hidden), 35 / (3 * 3)), strict=True)
    ]
    delays = [(torch.rand(shape) / dt).requires_grad_() for shape in shapes]

    def step() -> tuple[Tensor, Tensor]:
        jumps = exact_arrivals(spikes, None, weights[0], delays[0], neuron.tau_syn, dt)
        first = exact_rollout(*jumps, neuron, once=True)
        jumps = exact_arrivals(first.spikes, first.clock, weights[1], delays[1], neuron.tau_syn, dt)
        second = exact_rollout(*jumps, neuron, once=True)
        out = dt * first_spike_times(second.spikes, second.clock, silent=steps + 1.0)
        return torch.nn.functional.softplus(out[:, :1] - out[:, 1:] + 0.2).sum(), first.spikes

    return step


def measure(cases: dict[str, Case], repeats: int) -> dict[str, dict[str, float]]:
    """Medians over rounds in which the cases take turns, so that a busy machine is as busy for all of them."""

    def train(case: Case) -> tuple[float, float]:
        start = time.process_time()
        loss, _ = case()
        middle = time.process_time()
        loss.backward()
        return 1e3 * (middle - start), 1e3 * (time.process_time() - start)

    for case in cases.values():
        train(case)
    rounds = [{name: train(case) for name, case in cases.items()} for _ in range(repeats)]
    return {
        name: {
            "forward_ms": statistics.median(times[name][0] for times in rounds),
            "cpu_ms": statistics.median(times[name][1] for times in rounds),
            "rate": case()[1].mean().item(),
        }
        for name, case in cases.items()
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="run the groups whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    groups: dict[str, dict[str, Case]] = {
        f"recurrent 140 -> 256, T {steps}, B 32": recurrent_cases(steps, 32, 140, 256) for steps in (100, 200)
    }
    groups["yin-yang 4 -> 30 -> 3, B 150"] = {f"exact, dt {dt}": yin_yang_case(dt) for dt in (0.05, 0.01)}
    results = {}
    for title, cases in groups.items():
        if args.only not in title:
            continue
        results[title] = measure(cases, args.repeats)
        base = next(iter(results[title].values()))["cpu_ms"]
        print(f"\n{title:34}{'CPU ms':>9}{'forward':>9}{'ratio':>7}{'spike rate':>12}")
        for name, r in results[title].items():
            print(f"{name:34}{r['cpu_ms']:9.1f}{r['forward_ms']:9.1f}{r['cpu_ms'] / base:7.2f}{r['rate']:12.4f}")
    tables = {}
    for title, found in results.items():
        base = next(iter(found.values()))["cpu_ms"]
        tables[title] = [
            {"case": name, "CPU ms": r["cpu_ms"], "x the first row": r["cpu_ms"] / base, "spike rate": r["rate"]}
            for name, r in found.items()
        ]
    keep(args, tables)


if __name__ == "__main__":
    main()
