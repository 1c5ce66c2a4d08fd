"""Wide, learned and many delays a synapse beside two taps: CPU time of forward + backward, and memory kept in between.

    python benchmarks/bench_wide.py [--record] [--repeats 3] [--size 256] [--only steps|sequence|rollout]

`steps`: one connection in a time loop, beside synaptic linear arrivals in it. `sequence`: a whole sequence at once,
beside a plain Linear. `rollout`: a recurrent layer whose spread is learned, beside a fixed one. 100 steps, 32
samples, one in ten inputs a spike, gradients for inputs, weights and delays. One thread; the cases take turns, and only
ratios within one run mean anything. Kept: bytes a synapse that are alive between the two passes and were not before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from bench_recurrent import fused, live_storages
from record import keep, options
from torch import Tensor, nn

import delaykit as dk
from delaykit.interfaces import ComponentConfig, Site
from delaykit.synapse import Product, Synapse
from delaykit_delrec import DCLS, DelRec
from delaykit_motifs import Motif

TIME, BATCH, DENSITY = 100, 32, 0.1
Forward = Callable[[Tensor], Tensor]
STEPS: dict[str, ComponentConfig] = {
    "synaptic linear": dk.FreeDelay("synaptic", max_delay=24),
    "axonal linear": dk.FreeDelay("axonal", max_delay=24),
    "triangle, spread 10": dk.FreeDelay("synaptic", max_delay=24, kernel="triangle", spread=10.0),
    "triangle, spread 9.3": dk.FreeDelay("synaptic", max_delay=24, kernel="triangle", spread=9.3),
    "gaussian, spread 5": dk.FreeDelay("synaptic", max_delay=24, kernel="gaussian", spread=5.0),
    "DCLS(25), spread 12": DCLS(25),
    "DCLS(25), spread 0.23": DCLS(25, sigma=0.23),
    "motif, 25 delays": Motif(25),
    "learned spread, 10": DelRec("synaptic", max_delay=24, sigma=10.0, learn_spread=True, init="uniform"),
}
TITLES = {"steps": "in a time loop", "sequence": "a whole sequence", "rollout": "a recurrent layer, `dk.rollout`"}
SEQUENCE = {name: STEPS[name] for name in ("synaptic linear", "triangle, spread 10", "triangle, spread 9.3")}


def connection(config: ComponentConfig, size: int) -> tuple[Synapse, nn.Linear]:
    torch.manual_seed(0)
    return Synapse(Site("fc", size, size), (config,), torch.Generator().manual_seed(0)), nn.Linear(size, size)


def engine_of(synapse: Synapse, linear: nn.Linear):  # type: ignore[no-untyped-def]
    return synapse.engine(Product(linear, linear, linear.weight, linear.bias))


def steps(config: ComponentConfig, size: int) -> Forward:
    """Run a connection in a time loop, as a wrapped model does."""
    synapse, linear = connection(config, size)

    def run(spikes: Tensor) -> Tensor:
        engine = engine_of(synapse, linear)
        tape = engine.tape()
        return torch.stack([engine.step(tape, x) for x in spikes])

    return run


def sequence(config: ComponentConfig | None, size: int) -> Forward:
    """Run a connection over a whole sequence."""
    if config is None:
        return nn.Linear(size, size)
    synapse, linear = connection(config, size)
    return lambda spikes: engine_of(synapse, linear).sequence(spikes)


def rollout(learned: bool, size: int) -> Forward:
    """Run a recurrent layer of synaptic delays."""
    neuron = snn.RLeaky(beta=0.9, linear_features=size)
    config = DelRec("synaptic", max_delay=24, sigma=10.0, learn_spread=learned, init="uniform")
    delay = config.build(Site("recurrent", size, size, recurrent=True), torch.Generator().manual_seed(0))
    return lambda drive: fused(neuron, 2 * drive, delay.recurrence())[0]


def cases(only: str, size: int) -> dict[str, dict[str, Forward]]:
    """All rows; the first of each part is what the others are compared with."""
    parts: dict[str, Callable[[], dict[str, Forward]]] = {
        "steps": lambda: {name: steps(config, size) for name, config in STEPS.items()},
        "sequence": lambda: (
            {"plain Linear": sequence(None, size)} | {name: sequence(config, size) for name, config in SEQUENCE.items()}
        ),
        "rollout": lambda: {"fixed spread, 10": rollout(False, size), "learned spread, 10": rollout(True, size)},
    }
    return {name: make() for name, make in parts.items() if only in ("", name)}


def train(forward: Forward, spikes: Tensor) -> float:
    """Milliseconds of process-CPU time of one forward and backward pass."""
    start = time.process_time()
    forward(spikes).sum().backward()
    return 1e3 * (time.process_time() - start)


def kept(forward: Forward, spikes: Tensor) -> int:
    """Bytes alive after a forward pass that were not before it."""
    before, saved = live_storages(), {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward(spikes)
    after = live_storages() | saved
    del out
    return sum(size for pointer, size in after.items() if pointer not in before)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", default="", choices=["", "steps", "sequence", "rollout"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    spikes = (torch.rand(TIME, BATCH, given.size) < DENSITY).float().requires_grad_()
    tables: dict[str, list[dict[str, object]]] = {}
    for part, rows in cases(given.only, given.size).items():
        for forward in rows.values():
            train(forward, spikes)
        taken = [{name: train(forward, spikes) for name, forward in rows.items()} for _ in range(given.repeats)]
        base = 0.0
        for name, forward in rows.items():
            ms = statistics.median(times[name] for times in taken)
            base = base or ms
            held = kept(forward, spikes) / given.size**2
            row = {"case": name, "CPU ms": ms, "x the first row": ms / base, "kept, bytes a synapse": held}
            tables.setdefault(TITLES[part], []).append(row)
            print(f"{part:9}{name:24}{ms:9.1f} ms {ms / base:7.2f}x {held:9.0f} B", flush=True)
    keep(given, tables, time=TIME, batch=BATCH, density=DENSITY)


if __name__ == "__main__":
    main()
