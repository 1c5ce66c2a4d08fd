"""Recurrent delays, side by side in one process: process-CPU time and kept memory of one training step, and the time
of an evaluation at whole delays.

    python benchmarks/bench_recurrent.py [--record] [--time 100 --batch 32 --neurons 256]

Kept memory is the storage of every tensor alive after the forward and not before: what autograd saved and what Python
holds, spikes and membrane included.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from record import keep, options
from torch import Tensor

from delaykit.adapters.snntorch.dynamics import dynamics_of as dynamics_of_snntorch
from delaykit.arrivals import Triangle
from delaykit.functional.recurrence import rollout
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents


def rleaky_loop(neuron: snn.RLeaky, drive: Tensor) -> tuple[Tensor, Tensor]:
    spikes, membrane = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
    record = []
    for x in drive:
        spikes, membrane = neuron(x, spikes, membrane)
        record.append((spikes, membrane))
    return torch.stack([s for s, _ in record]), torch.stack([v for _, v in record])


def ring_loop(neuron: snn.RLeaky, drive: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
    """Delay as one would write it: a ring of the last ``depth`` spikes, filtered anew each step, by autograd."""
    depth = taps.depth()
    kernel = taps.response(depth)[0].T.to(drive).flip(0).unsqueeze(1)  # (depth, 1, pre), oldest first
    ring = drive.new_zeros(depth, *drive.shape[1:])
    membrane, record = torch.zeros_like(drive[0]), []
    beta, threshold = neuron.beta.clamp(0, 1), neuron.threshold
    for x in drive:
        recurrent = neuron.recurrent((ring * kernel).sum(0))
        reset = neuron.spike_grad(membrane - threshold).detach()
        membrane = beta * membrane + x + recurrent - reset * threshold
        spikes = neuron.spike_grad(membrane - threshold)
        ring = torch.cat([ring[1:], spikes.unsqueeze(0)])
        record.append((spikes, membrane))
    return torch.stack([s for s, _ in record]), torch.stack([v for _, v in record])


def sparsest(delays: Tensor, sigma: float) -> Taps | Tents:
    """Describe the triangle as ``dk.rollout`` does."""
    return Triangle(sigma).tents(delays) or Triangle(sigma).taps(delays)


def fused(neuron: snn.RLeaky, drive: Tensor, taps: Taps | Tents | None) -> tuple[Tensor, Tensor]:
    weight, bias = neuron.recurrent.weight, neuron.recurrent.bias
    return rollout(drive, weight, bias, taps, dynamics_of_snntorch(neuron))[:2]


def evaluate(neuron: snn.RLeaky, drive: Tensor, delays: Tensor) -> tuple[Tensor, Tensor]:
    """Run at whole delays without a spread and without gradients, as inside ``dk.discretized``."""
    with torch.no_grad():
        return fused(neuron, drive, sparsest(delays.round(), 0.0))


def live_storages() -> dict[int, int]:
    gc.collect()
    tensors = [x for x in gc.get_objects() if isinstance(x, Tensor)]
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}


def kept_megabytes(forward: Callable[[], tuple[Tensor, Tensor]]) -> float:
    before, saved = live_storages(), {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    after = live_storages() | saved
    del result
    return sum(size for pointer, size in after.items() if pointer not in before) / 1e6


def train(forward: Callable[[], tuple[Tensor, Tensor]], cotangent: Tensor) -> tuple[float, float]:
    """Process-CPU seconds of a forward, and of the whole training step."""
    start = time.process_time()
    spikes, _ = forward()
    middle = time.process_time()
    if spikes.requires_grad:
        (spikes * cotangent).sum().backward()
    return middle - start, time.process_time() - start


def measure(
    cases: dict[str, Callable[[], tuple[Tensor, Tensor]]], cotangent: Tensor, repeats: int
) -> dict[str, dict[str, float]]:
    """Medians over rounds in which the cases take turns, so that a busy machine is as busy for all of them."""
    for forward in cases.values():
        train(forward, cotangent)
    rounds = [{name: train(forward, cotangent) for name, forward in cases.items()} for _ in range(repeats)]
    return {
        name: {
            "forward_ms": 1e3 * statistics.median(times[name][0] for times in rounds),
            "cpu_ms": 1e3 * statistics.median(times[name][1] for times in rounds),
            "kept_mb": kept_megabytes(forward),
            "rate": forward()[0].mean().item(),
        }
        for name, forward in cases.items()
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--time", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--max-delay", type=float, default=25.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--loud", type=float, default=1.0, help="factor on the drive; 2.2: 11.5 %% firing in training")
    parser.add_argument("--busy", type=float, default=1.33, help="louder drive of the evaluation, for 5 %% firing")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = args.neurons
    neuron = snn.RLeaky(beta=0.9, linear_features=n, learn_beta=True)
    drive = (args.loud * (0.25 * torch.randn(args.time, args.batch, n) + 0.05)).requires_grad_()
    axonal = (torch.rand(1, n) * args.max_delay).requires_grad_()
    synaptic = (torch.rand(n, n) * args.max_delay).requires_grad_()
    cotangent = torch.randn(args.time, args.batch, n)
    cases: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "snnTorch RLeaky loop, no delay": lambda: rleaky_loop(neuron, drive),
        "rollout, no delay": lambda: fused(neuron, drive, None),
        "naive ring axonal, sigma 0": lambda: ring_loop(neuron, drive, Triangle(0.0).taps(axonal)),
        "naive ring axonal, sigma 10": lambda: ring_loop(neuron, drive, Triangle(10.0).taps(axonal)),
    }
    for sigma in (0.0, 10.0, 9.3):  # 10 is where annealing starts; all that follows is no whole number
        for kind, delays in (("axonal", axonal), ("synaptic", synaptic)):
            case = functools.partial(lambda d, s: fused(neuron, drive, sparsest(d, s)), delays, sigma)
            cases[f"rollout {kind}, sigma {sigma:g}"] = case
    busy = drive.detach() * args.busy
    cases |= {
        "evaluation axonal, whole delays": lambda: evaluate(neuron, busy, axonal),
        "evaluation synaptic, whole delays": lambda: evaluate(neuron, busy, synaptic),
    }
    results = measure({k: v for k, v in cases.items() if args.only in k}, cotangent, args.repeats)
    base = next(iter(results.values()))["cpu_ms"]
    print(f"{'case':34}{'CPU ms':>9}{'forward':>9}{'ratio':>7}{'kept MB':>9}{'spike rate':>12}")
    for name, r in results.items():
        ratio = r["cpu_ms"] / base
        print(f"{name:34}{r['cpu_ms']:9.1f}{r['forward_ms']:9.1f}{ratio:7.2f}{r['kept_mb']:9.1f}{r['rate']:12.3f}")
    ours = {name: r["cpu_ms"] / results[name.replace("synaptic", "axonal")]["cpu_ms"] for name, r in results.items()}
    rows = [
        {
            "case": name, "CPU ms": r["cpu_ms"], "x RLeaky loop": r["cpu_ms"] / base,
            "x axonal": ours[name] if "synaptic" in name else None, "kept MB": r["kept_mb"], "spike rate": r["rate"],
        }
        for name, r in results.items()
    ]  # fmt: skip
    keep(args, {"": rows})


if __name__ == "__main__":
    main()
