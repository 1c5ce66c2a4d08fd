"""Feed-forward connections, side by side: process-CPU time of forward + backward, and memory kept in between.

    python benchmarks/bench_feedforward.py [--record] [--sizes 140x256 256x256]

One thread; times on a busy machine mean little, ratios within one run more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from record import keep, options
from torch import Tensor

from delaykit.arrivals import Kernel, Linear, Triangle
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.delayed_linear.tented_sequences import tented_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.filtered_linear import filtered_linear

TIME, BATCH, MAX_DELAY, DENSITY, REPEATS = 100, 32, 24, 0.1, 7
Case = Callable[[Tensor, Tensor, Tensor], Tensor]


def dense_convolution(spikes: Tensor, weight: Tensor, taps) -> Tensor:  # type: ignore[no-untyped-def]
    """What a delay of 0 .. MAX_DELAY costs if it is written as a dense Conv1d."""
    kernel = (weight.unsqueeze(-1) * taps.response(MAX_DELAY + 1)).flip(-1)
    return F.conv1d(F.pad(spikes.permute(1, 2, 0), (MAX_DELAY, 0)), kernel).permute(2, 0, 1)


def cases(pre: int, post: int, device: str) -> list[tuple[str, Case, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def delays(*shape: int) -> Tensor:
        return (1 + torch.rand(shape, generator=generator) * (MAX_DELAY - 3)).to(device).requires_grad_()

    def delayed(kernel: Kernel) -> Case:
        return lambda spikes, weight, d: delayed_linear(spikes, weight, kernel.taps(d))

    def tented(spikes: Tensor, weight: Tensor, d: Tensor) -> Tensor:
        tents = Triangle(10.0).tents(d)
        assert tents is not None
        return tented_linear(spikes, weight, tents)

    axonal, dendritic, synaptic, decay = delays(1, pre), delays(post, 1), delays(post, pre), None
    decay = torch.rand(post, pre, generator=generator).to(device).requires_grad_()
    return [
        ("plain Linear", lambda spikes, weight, _: F.linear(spikes, weight), axonal),
        ("axonal linear", delayed(Linear()), axonal),
        ("axonal triangle 10", delayed(Triangle(10.0)), axonal),
        ("dendritic linear", delayed(Linear()), dendritic),
        ("synaptic linear", delayed(Linear()), synaptic),
        ("synaptic triangle 10", tented, synaptic),  # what components run
        ("synaptic triangle 10, as taps", delayed(Triangle(10.0)), synaptic),
        ("per-synapse decay", filtered_linear, decay),
        ("dense Conv1d K=25", lambda s, w, d: dense_convolution(s, w, Linear().taps(d)), synaptic),
    ]


def measure(case: Case, spikes: Tensor, weight: Tensor, delay: Tensor) -> dict[str, float]:
    """Time forward + backward, the median of some repeats, and count the megabytes that autograd keeps."""
    cotangent = torch.randn(*spikes.shape[:2], weight.shape[0], device=spikes.device)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        case(spikes, weight, delay)
    clock = time.process_time if spikes.device.type == "cpu" else time.perf_counter
    forward, total = [], []
    for _ in range(REPEATS):
        start = clock()
        out = case(spikes, weight, delay)
        _wait(spikes)
        forward.append(clock() - start)
        torch.autograd.grad(out, (spikes, weight, delay), cotangent, allow_unused=True)
        _wait(spikes)
        total.append(clock() - start)
    return {
        "forward_ms": 1e3 * statistics.median(forward),
        "total_ms": 1e3 * statistics.median(total),
        "saved_mb": sum(kept.values()) / 1e6,
    }


def _wait(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["140x256", "256x256"], help="PRExPOST")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", choices=["torch", "cpu", "gpu"], help="default: what the device prefers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in arguments.sizes:
        pre, post = map(int, size.split("x"))
        spikes = (torch.rand(TIME, BATCH, pre) < DENSITY).float().to(arguments.device).requires_grad_()
        plain = 0.0  # the first case sets it
        weight = torch.randn(post, pre, device=arguments.device, requires_grad=True)
        for name, case, delay in cases(pre, post, arguments.device):
            if arguments.backend:
                with backend(arguments.backend):
                    row = measure(case, spikes, weight, delay)
            else:
                row = measure(case, spikes, weight, delay)
            plain = row["total_ms"] if name == "plain Linear" else plain
            rows.append({"size": size, "case": name, **row, "ratio": row["total_ms"] / plain})
            print(
                "{size:8} {case:30} {forward_ms:8.1f} ms {total_ms:8.1f} ms {saved_mb:7.1f} MB {ratio:6.2f}x".format(
                    **rows[-1]
                )
            )
    tables = {
        size.replace("x", " -> "): [
            {"case": row["case"], "CPU ms": row["total_ms"], "x plain": row["ratio"], "kept MB": row["saved_mb"]}
            for row in rows
            if row["size"] == size
        ]
        for size in arguments.sizes
    }
    keep(arguments, tables, time=TIME, batch=BATCH, max_delay=MAX_DELAY, density=DENSITY, repeats=REPEATS)


if __name__ == "__main__":
    main()
