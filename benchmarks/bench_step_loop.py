"""What a delay costs in a user's own time loop: 140-256-256-20 with snn.Leaky, 100 steps, 32 samples, one thread.

Rows: the bare loop; the bare loop with an autograd node that does nothing on every connection (the floor of anything
that hooks in with one node); the loop wrapped by ``dk.wrap_`` with learned axonal delays on every connection, as a user
runs it; the tape below it, called by hand; and what one would write oneself, stacking the newest ``depth`` inputs at
every step. Forward and backward, process CPU time, median of interleaved repetitions in one process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
import torch.nn.functional as F
from record import keep, options
from torch import Tensor, nn

import delaykit as dk
from delaykit.arrivals import Linear
from delaykit.functional.step_tape import LinearTape

SIZES, TIME, BATCH = (140, 256, 256, 20), 100, 32
Connection = Callable[[Tensor], Tensor]


class Identity(torch.autograd.Function):
    """An autograd node that does nothing but the product: the floor of a hand-written step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor | None, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply."""
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias), torch.empty(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply back."""
        x, weight = ctx.saved_tensors
        return grads[0] @ weight, None, grads[0].t() @ x, grads[0].sum(0)


class Loop(nn.Module):
    """Three connections, each with a snn.Leaky after it, in a time loop."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = nn.ModuleList(nn.Linear(i, j) for i, j in zip(SIZES, SIZES[1:], strict=False))
        self.neurons = nn.ModuleList(snn.Leaky(beta=0.9) for _ in self.connections)

    def forward(self, spikes: Tensor, connections: list[Connection] | None = None) -> Tensor:
        """Return the mean squared membrane of the last layer."""
        used = connections or list(self.connections)
        membranes: list[Tensor] = [neuron.reset_mem() for neuron in self.neurons]  # type: ignore[operator]
        loss = torch.zeros(())
        for x in spikes:
            for layer, connection in enumerate(used):
                x, membranes[layer] = self.neurons[layer](connection(x), membranes[layer])
            loss = loss + membranes[-1].square().mean()
        return loss


class Network:
    """The loop, bare and wrapped, with the same delays for every way to have them."""

    def __init__(self, max_delay: int) -> None:
        torch.manual_seed(0)
        self.loop = Loop()
        self.connections: list[nn.Linear] = list(self.loop.connections)  # type: ignore[arg-type]
        self.delays = [nn.Parameter(torch.rand(1, i) * max_delay) for i in SIZES[:-1]]
        self.depth = max_delay + 2
        rules = {
            f"connections.{k}": dk.FreeDelay("axonal", max_delay=max_delay, init=delay.detach()[0])
            for k, delay in enumerate(self.delays)
        }
        self.wrapped_loop = dk.wrap(self.loop, rules, example=torch.zeros(3, BATCH, SIZES[0]))

    def identity(self) -> list[Connection]:
        """Put a node without any work in place of every connection."""

        def make(linear: nn.Linear) -> Connection:
            token: list[Tensor | None] = [None]

            def step(x: Tensor) -> Tensor:
                y, token[0] = Identity.apply(x, token[0], linear.weight, linear.bias)
                return y

            return step

        return [make(linear) for linear in self.connections]

    def tape(self) -> list[Connection]:
        """Use a tape a connection."""
        pairs = zip(self.connections, self.delays, strict=True)
        return [LinearTape(Linear().taps(d), linear.weight, linear.bias).step for linear, d in pairs]

    def naive(self) -> list[Connection]:
        """Stack the newest inputs at every step and interpolate between two of them."""

        def make(linear: nn.Linear, delay: Tensor) -> Connection:
            past: list[Tensor] = []
            low = delay.detach().floor().long()
            fraction, channel = delay - low, torch.arange(delay.shape[1])

            def step(x: Tensor) -> Tensor:
                past[:] = (past or [torch.zeros_like(x)] * (self.depth - 1))[-self.depth + 1 :] + [x]
                stack = torch.stack(past)
                here = self.depth - 1 - low[0]
                z = (1 - fraction) * stack[here, :, channel].t() + fraction * stack[here - 1, :, channel].t()
                return linear(z)

            return step

        return [make(linear, delay) for linear, delay in zip(self.connections, self.delays, strict=True)]

    def run(self, kind: str, spikes: Tensor) -> float:
        """Run one sequence forward and backward; give its process CPU time in ms."""
        for p in (*self.delays, *self.loop.parameters(), *self.wrapped_loop.parameters()):
            p.grad = None
        begin = time.process_time()
        if kind == "wrapped":
            loss = self.wrapped_loop(spikes)
        else:
            loss = self.loop(spikes, None if kind == "bare" else getattr(self, kind)())
        loss.backward()
        return (time.process_time() - begin) * 1e3


def measure(max_delay: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of every kind, interleaved."""
    network = Network(max_delay)
    spikes = (torch.rand(TIME, BATCH, SIZES[0], generator=torch.Generator().manual_seed(1)) < 0.2).float()
    kinds = ("bare", "identity", "wrapped", "tape", "naive")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(repeats + 1):
        for kind in kinds:
            spent = network.run(kind, spikes)
            if repeat:
                times[kind].append(spent)
    return {kind: statistics.median(values) for kind, values in times.items()}


WAYS = {
    "bare": "bare loop, no delays", "identity": "a node that does nothing on every connection",
    "wrapped": "wrapped by `dk.wrap_`", "tape": "the tape, called by hand", "naive": "newest inputs stacked by hand",
}  # fmt: skip


def main() -> None:
    """Print the table, and keep it where asked."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {max_delay: measure(max_delay, given.repeats) for max_delay in (25, 100)}
    sys.stdout.write(f"{'max delay':>9} {'kind':>9} {'ms':>8} {'x bare':>7} {'x naive':>8}\n")
    for max_delay, row in results.items():
        for kind, ms in row.items():
            sys.stdout.write(f"{max_delay:9d} {kind:>9} {ms:8.1f} {ms / row['bare']:7.2f} {ms / row['naive']:8.2f}\n")
    tables = {
        f"delays to {max_delay}": [
            {"way": WAYS[kind], "CPU ms": ms, "x bare": ms / row["bare"], "x by hand": ms / row["naive"]}
            for kind, ms in row.items()
        ]
        for max_delay, row in results.items()
    }
    keep(given, tables, max_delays=list(results))


if __name__ == "__main__":
    main()
