"""What delays cost: a training step of your own loop, of the same loop wrapped, and of the wrapped net fused."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from delaykit_lab.demo.parts import DemoConfig, fused_
from delaykit_lab.demo.variants import VARIANTS, add_delays_, builder

BATCH, ROUNDS = 64, 5


@dataclasses.dataclass(frozen=True)
class Cost:
    """Process-CPU seconds of a forward and a backward pass; medians of cases that took turns.

    Args:
        loop: the network without delays by its own time loop.
        wrapped: the same network with learned delays, by the same loop.
        fused: that network by ``dk.fused``.
    """

    loop: float
    wrapped: float
    fused: float

    def text(self) -> str:
        """One line.

        Example:
            >>> Cost(0.02, 0.04, 0.018).text()
            'cost of a training step: your loop 20 ms; with delays 40 ms (2.0x); with delays and dk.fused 18 ms (0.9x)'
        """
        told = [
            f"{name} {1e3 * value:.0f} ms ({value / self.loop:.1f}x)"
            for name, value in (("with delays", self.wrapped), ("with delays and dk.fused", self.fused))
        ]
        return f"cost of a training step: your loop {1e3 * self.loop:.0f} ms; {'; '.join(told)}"


def measure(config: DemoConfig, rounds: int = ROUNDS) -> Cost:
    """Time the speech network, as many hidden neurons in all three cases, on one thread of the CPU.

    Args:
        config: of the speech part.
        rounds: passes of each case, >= 1.
    """
    task, learned = config.task(), VARIANTS[2]
    train = task.splits(seed=0).train
    spikes, labels = train.batch(torch.arange(min(BATCH, len(train))))
    build = builder(config.library, task, 0)
    bare = build(config.hidden)
    wrapped = add_delays_(build(config.hidden), config.library, learned, config.max_delay, spikes[:, :2], 0)
    fast = fused_(wrapped, spikes[:, :2])
    cases: dict[str, tuple[nn.Module, Callable[..., Any]]]
    cases = {"loop": (bare, bare), "wrapped": (wrapped, wrapped), "fused": (wrapped, fast)}
    times: dict[str, list[float]] = {name: [] for name in cases}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(rounds + 1):
            for name, (net, run) in cases.items():
                spent = _step(net, run, spikes, labels)
                if turn:  # the first compiles
                    times[name].append(spent)
    finally:
        torch.set_num_threads(threads)
    return Cost(**{name: statistics.median(values) for name, values in times.items()})


def _step(net: nn.Module, run: Callable[..., Any], spikes: Tensor, labels: Tensor) -> float:
    net.zero_grad(set_to_none=True)
    start = time.process_time()
    functional.cross_entropy(run(spikes), labels).backward()
    return time.process_time() - start
