"""A whole network by its own time loop and fused, side by side in one process: process-CPU time of a training step.

    python benchmarks/bench_fused.py [--record] [--time 100 --batch 32 --rounds 7]

Linear layers 140-256-256-20 with ``snn.Leaky`` behind each, the loop in ``forward``; bare, and wrapped with axonal and
synaptic delays of whole connections. Outputs and gradients are compared before anything is timed; cases take turns,
so that a busy machine is as busy for all of them, and the figures to read are the ratios. ``products`` are the three
dense products alone, forward and backward, over the whole sequence: less takes only who skips silent inputs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from record import keep, options
from torch import Tensor, nn

import delaykit as dk

SIZES = (140, 256, 256, 20)


class Net(nn.Module):
    """Three layers; spikes of the last one, and its membrane, at every step."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(SIZES, SIZES[1:], strict=False)
        self.connections = nn.ModuleList(nn.Linear(pre, post) for pre, post in pairs)
        self.neurons = nn.ModuleList(snn.Leaky(beta=0.9) for _ in SIZES[1:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        membranes = [neuron.reset_mem() for neuron in self.neurons]
        spikes, record = [], []
        for t in range(x.size(0)):
            passed = x[t]
            for k, (connection, neuron) in enumerate(zip(self.connections, self.neurons, strict=True)):
                passed, membranes[k] = neuron(connection(passed), membranes[k])
            spikes.append(passed)
            record.append(membranes[-1])
        return torch.stack(spikes), torch.stack(record)


def products(net: Net, steps: int, batch: int) -> Callable[[], Tensor]:
    """The dense products of the network over the whole sequence, on inputs that are there already."""
    inputs = [torch.rand(steps, batch, size, requires_grad=size != SIZES[0]) for size in SIZES[:-1]]

    def forward() -> Tensor:
        outputs = [c(x) for c, x in zip(net.connections, inputs, strict=True)]
        return torch.stack([output.sum() for output in outputs]).sum()

    return forward


def train(net: nn.Module, forward: Callable[[], Tensor]) -> float:
    """Process-CPU seconds of a forward and a backward pass."""
    net.zero_grad(set_to_none=True)
    start = time.process_time()
    forward().backward()
    return time.process_time() - start


def agree(one: nn.Module, step: Callable[[], Tensor], ahead: Callable[[], Tensor]) -> float:
    """Return the largest difference between the gradients of two ways, relative to the largest gradient."""
    both = []
    for forward in (step, ahead):
        one.zero_grad(set_to_none=True)
        forward().backward()
        both.append([p.grad.clone() for p in one.parameters() if p.grad is not None])
    scale = max(float(g.abs().max()) for g in both[0])
    return max(float((a - b).abs().max()) for a, b in zip(*both, strict=True)) / scale


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--time", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bare = Net()
    with torch.no_grad():
        for connection in bare.connections:
            connection.weight.mul_(2.0)
    x = (torch.rand(given.time, given.batch, SIZES[0]) < 0.1).float()
    weights = torch.randn(given.time, given.batch, SIZES[-1])
    nets = {"bare": bare}
    for granularity in ("axonal", "synaptic"):
        rule = {"connections.*": dk.FreeDelay(granularity, max_delay=25)}
        nets[granularity] = dk.wrap(bare, rule, x[:3], generator=torch.Generator().manual_seed(1))
    cases: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    for name, net in nets.items():

        def loss(run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
            def forward() -> Tensor:
                spikes, membrane = run(x)
                return (spikes * weights).sum() + (membrane * weights).mean()

            return forward

        fast = dk.fused(net, example=x[:5])
        assert all(reason == "ahead" for reason in fast.report().values()), str(fast)
        cases[f"{name} loop"], cases[f"{name} fused"] = (net, loss(net)), (net, loss(fast))
        print(f"{name}: gradients differ by {agree(net, loss(net), loss(fast)):.1e}")
    cases["products"] = (bare, products(bare, given.time, given.batch))
    for net, forward in cases.values():
        train(net, forward)
    rounds = [{name: train(*case) for name, case in cases.items()} for _ in range(given.rounds)]
    result = {name: 1e3 * statistics.median(times[name] for times in rounds) for name in cases}
    for name, milliseconds in result.items():
        print(f"{name:16} {milliseconds:8.1f} ms   {milliseconds / result['bare loop']:5.2f} x the bare loop")
    rows = [{"case": name, "CPU ms": ms, "x bare loop": ms / result["bare loop"]} for name, ms in result.items()]
    keep(given, {"": rows})


if __name__ == "__main__":
    main()
