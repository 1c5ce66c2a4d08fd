"""What the estimator costs in a user's own loop: 140-256-256-20 with snnTorch's ``Synaptic``, 100 steps, 32 samples.

The middle layer is an ``RSynaptic``. Learned delays on all four connections, the same in every row: ``interp``,
``none`` and ``exact``; beside them the bare loop. Forward and backward, process CPU time, median of interleaved
repetitions, one thread.
"""

from __future__ import annotations

import statistics
import sys
import time

import snntorch as snn
import torch
from record import keep, options
from torch import Tensor, nn

import delaykit as dk

SIZES, TIME, BATCH = (140, 256, 256, 20), 100, 32
ESTIMATORS = ("interp", "none", "exact")


class Loop(nn.Module):
    """Three feed-forward connections and a recurrent one, in a time loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(i, j) for i, j in zip(SIZES, SIZES[1:], strict=False))
        self.lif1, self.lif3 = snn.Synaptic(0.8, 0.95), snn.Synaptic(0.8, 0.95)
        self.lif2 = snn.RSynaptic(0.8, 0.95, linear_features=SIZES[2])
        self.rate = 0.0

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the mean squared membrane of the last layer."""
        first, second, third = (list(n.reset_mem()) for n in (self.lif1, self.lif2, self.lif3))
        loss, fired = torch.zeros(()), 0.0
        for x in spikes:
            x, *first = self.lif1(self.fc1(x), *first)
            second = list(self.lif2(self.fc2(x), *second))
            _, *third = self.lif3(self.fc3(second[0]), *third)
            fired = fired + second[0].detach().mean()
            loss = loss + third[-1].square().mean()
        self.rate = float(fired) / len(spikes)
        return loss


def measure(granularity: str, repeats: int, max_delay: int = 25) -> tuple[dict[str, float], float]:
    """Median milliseconds of every kind, interleaved, and the firing rate of the middle layer."""
    torch.manual_seed(0)
    bare = Loop()
    spikes = (torch.rand(TIME, BATCH, SIZES[0]) < 0.05).float()
    kinds: dict[str, nn.Module] = {"bare": bare}
    for estimator in ESTIMATORS:
        config = dk.FreeDelay(granularity, max_delay=max_delay, init="integers", estimator=estimator)  # type: ignore[arg-type]
        rules = {"fc*": config, "lif2.recurrent": config}
        generator = torch.Generator().manual_seed(1)
        kinds[estimator] = dk.wrap(bare, rules, example=spikes[:3], generator=generator)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(repeats + 1):
        for kind, net in kinds.items():
            net.zero_grad()
            begin = time.process_time()
            net(spikes).backward()
            if repeat:
                times[kind].append((time.process_time() - begin) * 1e3)
    return {kind: statistics.median(values) for kind, values in times.items()}, bare.rate


def main() -> None:
    """Print the table, and keep it where asked."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {granularity: measure(granularity, given.repeats) for granularity in ("axonal", "synaptic")}
    sys.stdout.write(f"{'delays':>9} {'kind':>7} {'ms':>8} {'x bare':>7} {'x interp':>9}\n")
    for granularity, (row, _) in results.items():
        for kind, ms in row.items():
            sys.stdout.write(
                f"{granularity:>9} {kind:>7} {ms:8.1f} {ms / row['bare']:7.2f} {ms / row['interp']:9.2f}\n"
            )
    tables = {
        f"{granularity} delays": [
            {"case": kind, "CPU ms": ms, "x bare": ms / row["bare"], "x interp": ms / row["interp"]}
            for kind, ms in row.items()
        ]
        for granularity, (row, _) in results.items()
    }
    keep(given, tables, time=TIME, batch=BATCH)


if __name__ == "__main__":
    main()
