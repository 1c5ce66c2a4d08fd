"""A pruned recurrent layer of 300 neurons with synaptic delays, dense against compact, side by side in one run.

    python benchmarks/bench_sparsify.py [--record]

Process-CPU time of inference, one thread, the minimum of some rounds in which all cases take turns; ratios to the same
layer before pruning and to the pruned layer before ``compact_``. A compact layer with one synapse left says what no
sparsity can save. Memory: what the model's parameters and buffers hold.
Difference: mean over all currents or spikes; another order of summation may, rarely, turn a spike.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import snntorch as snn
import torch
from record import keep, options
from torch import nn

import delaykit as dk
from delaykit_sparsify import DynamicSparsity, compact_

NEURONS, BATCH, TIME, MAX_DELAY, RATE, ROUNDS = 300, 32, 100, 25, 0.05, 7
ALL_BUT_ONE = 1 - 1e-9  # as a sparsity


def connection(sparsity: float, step_mode: bool, generator: torch.Generator) -> nn.Module:
    """Make the recurrent matrix alone, as a wrapped Linear."""
    net = nn.Sequential(nn.Linear(NEURONS, NEURONS, bias=False))
    parts = (dk.FreeDelay("synaptic", max_delay=MAX_DELAY), DynamicSparsity(sparsity))
    when = {"reset": "manual"} if step_mode else {"reset": "root", "time_dim": 0}
    dk.wrap_(net, {"0": dk.At(*parts, **when)}, generator=generator)
    dk.advance_(net, 1.0)
    return net


def layer(sparsity: float, generator: torch.Generator) -> nn.Module:
    """Make the layer: matrix and neurons."""
    net = nn.Sequential(snn.RLeaky(beta=0.9, linear_features=NEURONS, init_hidden=True))
    parts = (dk.FreeDelay("synaptic", max_delay=MAX_DELAY), DynamicSparsity(sparsity))
    dk.wrap_(net, {"0.recurrent": dk.At(*parts, reset="follow")}, generator=generator)
    with torch.no_grad():
        net[0].recurrent.weight.mul_(2.0)
    dk.advance_(net, 1.0)
    return net


def steps(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Run step by step, as a user's own time loop does."""
    if isinstance(net[0], snn.SpikingNeuron):
        net[0].reset_mem()
    else:
        dk.reset(net)
    return torch.stack([net(x) for x in inputs])


def cases(sparsity: float) -> dict[str, tuple[Callable[[nn.Module], torch.Tensor], dict[str, nn.Module]]]:
    """Name what is measured: how it is run, and the models to run."""
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(TIME, BATCH, NEURONS, generator=generator) < RATE).float()
    drive = torch.rand(TIME, BATCH, NEURONS, generator=generator) * 0.25

    def variants(make: Callable[[float], nn.Module]) -> dict[str, nn.Module]:
        dense, pruned, compact, one = make(0.0), make(sparsity), make(sparsity), make(ALL_BUT_ONE)
        compact_(compact)
        compact_(one)
        return {"full": dense, "pruned": pruned, "compact": compact, "one": one}

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    def make(step_mode: bool) -> Callable[[float], nn.Module]:
        def build(s: float) -> nn.Module:
            torch.manual_seed(2)
            return connection(s, step_mode, seeded())

        return build

    def whole(s: float) -> nn.Module:
        torch.manual_seed(2)
        return layer(s, seeded())

    return {
        "connection, step by step": (lambda net: steps(net, spikes), variants(make(True))),
        "connection, whole sequence": (lambda net: net(spikes), variants(make(False))),
        "layer, step by step": (lambda net: steps(net, drive), variants(whole)),
        "layer, dk.rollout": (lambda net: dk.rollout(net[0], drive)[0], variants(whole)),
    }


def stored(net: nn.Module) -> int:
    """Count the bytes of all parameters and buffers, shared and expanded ones once."""
    tensors = [*net.parameters(), *net.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@torch.no_grad()
def measure(run: Callable[[nn.Module], torch.Tensor], nets: dict[str, nn.Module]) -> dict[str, float]:
    best, memory = dict.fromkeys(nets, float("inf")), stored(nets["compact"]) / stored(nets["pruned"])
    outputs = {name: run(net) for name, net in nets.items()}  # also compiles
    for _ in range(ROUNDS):
        for name, net in nets.items():
            start = time.process_time()
            run(net)
            best[name] = min(best[name], time.process_time() - start)
    difference = float((outputs["compact"] - outputs["pruned"]).abs().mean())
    row = {f"{name}_ms": 1e3 * seconds for name, seconds in best.items()}
    return row | {
        "to_full": best["compact"] / best["full"],
        "to_pruned": best["compact"] / best["pruned"],
        "memory": memory,
        "difference": difference,
    }


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'':32} {'full':>9} {'pruned':>9} {'compact':>9} {'one left':>9}   to full  to pruned  memory  difference")
    for sparsity in (0.9, 0.99):
        for name, (run, nets) in cases(sparsity).items():
            row = {"sparsity": sparsity, "case": name, **measure(run, nets)}
            rows.append(row)
            print(
                "{sparsity:.0%} {case:28} {full_ms:6.1f} ms {pruned_ms:6.1f} ms {compact_ms:6.1f} ms {one_ms:6.1f} ms"
                "   {to_full:7.2f}  {to_pruned:9.2f}  {memory:6.2f}  {difference:.1e}".format(**row)
            )
    tables = {
        f"{sparsity:.0%} pruned": [
            {
                "case": row["case"], "full, ms": row["full_ms"], "pruned, ms": row["pruned_ms"],
                "compact, ms": row["compact_ms"], "one left, ms": row["one_ms"], "x full": row["to_full"],
                "x pruned": row["to_pruned"], "x memory": row["memory"],
            }
            for row in rows
            if row["sparsity"] == sparsity
        ]
        for sparsity in (0.9, 0.99)
    }  # fmt: skip
    about = {"neurons": NEURONS, "batch": BATCH, "time": TIME, "max_delay": MAX_DELAY, "input_rate": RATE}
    keep(arguments, tables, **about, rounds=ROUNDS)


if __name__ == "__main__":
    main()
