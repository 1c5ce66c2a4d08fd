"""Delays from positions beside free delays: process-CPU time and parameters of one training step.

    python benchmarks/bench_spatial.py [--record] [--repeats 7] [--only wrapped|layers]

T = 100, B = 32, 140 -> 256. Cases take turns within one run; only ratios within one run mean anything.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from delaykit import FreeDelay
from delaykit.interfaces import ComponentConfig, Site
from delaykit.synapse import Product, Synapse
from delaykit_spatial import LIF, Spatial, parameter_accounting
from delaykit_spatial.exact import SuperSpike

sys.path.insert(0, str(Path(__file__).parent))
from bench_recurrent import kept_megabytes  # noqa: E402
from record import keep, options  # noqa: E402

TIME, BATCH, PRE, NEURONS = 100, 32, 140, 256
Case = Callable[[], tuple[Tensor, list[Tensor]]]


def wrapped() -> dict[str, tuple[Case, int]]:
    """A whole sequence through one connection with a delay for each synapse, up to about 40 steps."""
    spikes = (torch.rand(TIME, BATCH, PRE) < 0.1).float().requires_grad_()
    weight = torch.randn(NEURONS, PRE).requires_grad_()
    configs: dict[str, ComponentConfig] = {"free delays": FreeDelay("synaptic", max_delay=40)}
    configs |= {f"{dims}-D": Spatial(dims, scale=10.0) for dims in (0, 1, 2, 3, 8)}
    configs["inf-D"] = Spatial(math.inf, mean=20.0, scale=8.0)
    configs["2-D, tortuous"] = Spatial(2, scale=10.0, tortuosity=0.5)
    cases = {}
    for name, config in configs.items():
        synapse = Synapse(Site("fc", PRE, NEURONS), (config,), torch.Generator().manual_seed(0))
        product = Product(None, None, weight, None)  # type: ignore[arg-type]

        def run(synapse: Synapse = synapse, product: Product = product) -> tuple[Tensor, list[Tensor]]:
            return synapse.engine(product).sequence(spikes), [spikes, weight, *synapse.parameters()]

        cases[name] = (run, sum(p.numel() for p in synapse.parameters()))
    return cases


def layers() -> dict[str, tuple[Case, int]]:
    """A layer with input and recurrent connection in two dimensions, 5 % input spikes, by estimator."""
    spikes = (torch.rand(TIME, BATCH, PRE) < 0.05).float()
    cases = {}
    for name, dims, estimator in (
        ("interp, 2-D", 2, "interp"),
        ("interp, inf-D", math.inf, "interp"),
        ("exact, 2-D", 2, "exact"),
        ("exact, inf-D", math.inf, "exact"),
        ("none, 2-D", 2, "none"),
    ):
        layer = LIF(
            PRE, NEURONS, Spatial(dims, scale=None if dims == math.inf else 5.0), estimator=estimator,
            surrogate=SuperSpike(), generator=torch.Generator().manual_seed(0),
            factors=(900.0, 50.0),
        )  # fmt: skip

        def run(layer: LIF = layer) -> tuple[Tensor, list[Tensor]]:
            return layer(spikes).spikes, [p for p in layer.parameters() if p.requires_grad]

        cases[f"{name} ({float(run()[0].detach().mean()):.0%} fire)"] = (run, parameter_accounting(layer).delays)
    return cases


def measured(cases: dict[str, tuple[Case, int]], repeats: int) -> dict[str, dict[str, float]]:
    cotangent = torch.randn(TIME, BATCH, NEURONS)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, (run, _) in cases.items():
            start = time.process_time()
            out, leaves = run()
            torch.autograd.grad(out, leaves, cotangent, allow_unused=True)
            if turn:  # the first turn compiles
                times[name].append(time.process_time() - start)
    base = statistics.median(next(iter(times.values())))
    return {
        name: {
            "cpu_ms": 1e3 * statistics.median(times[name]),
            "ratio": statistics.median(times[name]) / base,
            "kept_mb": kept_megabytes(run),  # type: ignore[arg-type]
            "delay_parameters": count,
        }
        for name, (run, count) in cases.items()
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", choices=["", "wrapped", "layers"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for part in (wrapped, layers):
        if args.only in ("", part.__name__):
            print(f"== {part.__name__}: {part.__doc__}")
            rows = results[part.__name__] = measured(part(), args.repeats)
            for name, row in rows.items():
                print(f"{name:24}" + "".join(f"  {key} {value:8.4g}" for key, value in row.items()), flush=True)
    titles = {"wrapped": "one connection, whole sequence", "layers": "`LIF` layer, input and recurrent delays"}
    tables = {
        titles[part]: [
            {
                "case": name, "CPU ms": row["cpu_ms"], "x the first row": row["ratio"], "kept MB": row["kept_mb"],
                "delay parameters": row["delay_parameters"],
            }
            for name, row in rows.items()
        ]
        for part, rows in results.items()
    }  # fmt: skip
    keep(args, tables, time=TIME, batch=BATCH, pre=PRE, neurons=NEURONS)


if __name__ == "__main__":
    main()
