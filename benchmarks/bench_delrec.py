"""DelRec and DCLS side by side with what they replace: process-CPU time and kept memory of one training step.

    python benchmarks/bench_delrec.py [--record] [--repeats 5] [--only recurrent|evaluation|dcls]

The DCLS part needs the published package in the benchmark's environment: ``pip install --no-deps dcls==0.1.1``.
Only ratios within one run mean anything. Kept memory: see bench_recurrent.py.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import snntorch as snn
import torch
from torch import Tensor

from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents
from delaykit.interfaces import Site
from delaykit.synapse import Product, Synapse
from delaykit_delrec import DCLS, DelRec
from delaykit_delrec.delay import DelRecDelay

sys.path.insert(0, str(Path(__file__).parent))
from bench_recurrent import fused, kept_megabytes, ring_loop, rleaky_loop  # noqa: E402
from record import keep, options  # noqa: E402

TIME, BATCH, NEURONS, PRE, MAX_DELAY = 100, 32, 256, 140, 25


def built(config: DelRec) -> DelRecDelay:
    return config.build(Site("recurrent", NEURONS, NEURONS, recurrent=True), torch.Generator().manual_seed(0))


def taps_of(config: DelRec) -> Callable[[], Taps]:
    delay = built(config)
    return lambda: delay.kernel().taps(delay.delays())


def sparsest_of(config: DelRec) -> Callable[[], Taps | Tents]:
    """Describe the delays as ``dk.rollout`` does."""
    delay = built(config)
    return lambda: delay.kernel().tents(delay.delays()) or delay.kernel().taps(delay.delays())


def timed(case: Callable[[], object], repeats: int) -> float:
    case()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        case()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def recurrent(repeats: int) -> dict[str, dict[str, float]]:
    """One training step of a recurrent layer; naive: a ring of past spikes, filtered anew each step, by autograd."""
    neuron = snn.RLeaky(beta=0.9, linear_features=NEURONS, learn_beta=True)
    drive = (0.25 * torch.randn(TIME, BATCH, NEURONS) + 0.05).requires_grad_()
    cotangent = torch.randn(TIME, BATCH, NEURONS)
    uniform = {"max_delay": MAX_DELAY, "init": "uniform"}
    runs: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"RLeaky loop, no delay": lambda: rleaky_loop(neuron, drive)}
    for sigma in (0.0, 10.0, 9.3):  # 10 is where annealing starts; all that follows is no whole number
        for kind in ("axonal", "synaptic"):
            taps = sparsest_of(DelRec(kind, sigma=sigma, **uniform))
            runs[f"DelRec {kind}, sigma {sigma:g}"] = lambda taps=taps: fused(neuron, drive, taps())
        taps = taps_of(DelRec(sigma=sigma, **uniform))
        runs[f"naive ring, axonal, sigma {sigma:g}"] = lambda taps=taps: ring_loop(neuron, drive, taps())

    def train(forward: Callable[[], tuple[Tensor, Tensor]]) -> None:
        (forward()[0] * cotangent).sum().backward()

    return {
        name: {"cpu_ms": timed(lambda run=run: train(run), repeats), "kept_mb": kept_megabytes(run)}
        for name, run in runs.items()
    }


@torch.no_grad()
def evaluation(repeats: int) -> dict[str, dict[str, float]]:
    """Forward pass with whole delays, spread 0, about 5 % firing."""
    neuron = snn.RLeaky(beta=0.9, linear_features=NEURONS)
    drive = 0.28 * torch.randn(TIME, BATCH, NEURONS) + 0.07
    rows = {}
    for kind in ("axonal", "synaptic"):
        taps = sparsest_of(DelRec(kind, max_delay=MAX_DELAY, init="uniform", control="frozen"))
        run = lambda taps=taps: fused(neuron, drive, taps())  # noqa: E731
        rows[f"DelRec {kind}, whole delays"] = {"cpu_ms": timed(run, repeats), "rate": float(run()[0].mean())}
    return rows


def dcls(repeats: int, sizes: tuple[int, ...] = (25, 101, 401)) -> dict[str, dict[str, float]]:
    """One training step of a feed-forward layer, and how far the two implementations are apart."""
    from DCLS.construct.modules import Dcls1d

    spikes = (torch.rand(TIME, BATCH, PRE) < 0.1).float().requires_grad_()
    cotangent = torch.randn(TIME, BATCH, NEURONS)
    rows = {}
    for size in sizes:
        for version, sigma in (("gauss", size // 2), ("gauss", 0.23), ("max", 1.0), ("v1", 0.0)):
            # eighths off the whole steps: exact in float32 both as P and as K//2 - P, and away from the kinks
            shape = (1, NEURONS, PRE, 1)
            position = torch.randint(-(size // 2), size // 2, shape) + torch.randint(1, 8, shape) / 8
            theirs = Dcls1d(PRE, NEURONS, 1, dilated_kernel_size=size, bias=False, version=version)
            with torch.no_grad():
                theirs.P.copy_(position)
                if version != "v1":
                    theirs.SIG.fill_(sigma)
            theirs.SIG.requires_grad_(False) if version != "v1" else None
            config = DCLS(size, version=version, sigma=sigma or None)
            synapse = Synapse(Site("fc", PRE, NEURONS), (config,))
            weight = theirs.weight.detach()[..., 0].clone().requires_grad_()
            synapse.delay.delay.data = size // 2 - position[0, ..., 0]

            def published(theirs=theirs, size=size) -> Tensor:
                padded = torch.nn.functional.pad(spikes.permute(1, 2, 0), (size - 1, 0))
                return theirs(padded).permute(2, 0, 1)

            def ours(synapse=synapse, weight=weight) -> Tensor:
                return synapse.engine(Product(None, None, weight, None)).sequence(spikes)

            def gradients(run, leaves):
                return torch.autograd.grad(run(), leaves, cotangent)

            one, two = (spikes, theirs.weight, theirs.P), (spikes, weight, synapse.delay.delay)
            found, wanted = gradients(ours, two), gradients(published, one)
            pairs = [(ours(), published()), (found[0], wanted[0]), (found[1], wanted[1][..., 0])]
            pairs.append((found[2], -wanted[2][0, ..., 0]))
            row = rows[f"K={size} {version} sigma {sigma:g}"] = {
                "dcls_ms": timed(lambda one=one: gradients(published, one), repeats),
                "cpu_ms": timed(lambda two=two: gradients(ours, two), repeats),
                "error": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
            }
            show({f"K={size} {version} sigma {sigma:g}": row}, None)
    return rows


def show(rows: dict[str, dict[str, float]], base: float | None) -> None:
    for name, row in rows.items():  # printed as they come: the published kernels of 401 steps take minutes
        reference = row.get("dcls_ms", base) or 1.0
        row["ratio"] = row["cpu_ms"] / reference
        print(f"{name:34}" + "".join(f"  {key} {value:9.3g}" for key, value in row.items()), flush=True)


TITLES = {
    "recurrent": "a recurrent layer",
    "evaluation": "evaluation at whole delays",
    "dcls": "feed-forward, against `dcls`",
}
COLUMNS = {
    "dcls_ms": "dcls, ms", "cpu_ms": "CPU ms", "ratio": "x dcls, else the first row", "kept_mb": "kept MB",
    "rate": "spike rate", "error": "apart",
}  # fmt: skip


def _row(name: str, row: dict[str, float]) -> dict[str, object]:
    return {"case": name} | {words: row[key] for key, words in COLUMNS.items() if key in row}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", choices=["", "recurrent", "evaluation", "dcls"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 101, 401], help="windows of the DCLS part")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for part in (recurrent, evaluation, dcls):
        if args.only not in ("", part.__name__):
            continue
        if part is dcls and importlib.util.find_spec("DCLS") is None:
            print("dcls: skipped, dcls==0.1.1 is not in this environment")
            continue
        print(f"== {part.__name__}: {part.__doc__}")
        if part is dcls:
            results["dcls"] = dcls(args.repeats, tuple(args.sizes))
            continue
        rows = results[part.__name__] = part(args.repeats)
        show(rows, next(iter(rows.values()))["cpu_ms"])
    tables = {TITLES[part]: [_row(name, row) for name, row in rows.items()] for part, rows in results.items()}
    dcls_of = {"dcls": metadata.version("dcls")} if "dcls" in results else {}
    keep(args, tables, time=TIME, batch=BATCH, neurons=NEURONS, pre=PRE, **dcls_of)


if __name__ == "__main__":
    main()
