"""What every peer computes: weights and inputs from one file, and the results they are compared with, in plain torch.

v_t = beta v_{t-1} + i_t - theta s_{t-1}            reset "next": a spike resets the next step (snnTorch)
u_t = beta v_{t-1} + i_t, v_t = u_t - theta s_t     reset "same": it resets its own step (Norse, SpikingJelly)
s_t = [v_t > theta] or [u_t > theta],  i_t = W x_t  or  W x_t + R s_{t-1}
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BETA, THRESHOLD = 0.9, 1.0
NET, HIDDEN = (140, 256, 256, 20), 256


@dataclasses.dataclass(frozen=True)
class Work:
    """One work item.

    Args:
        name: what the tables call it.
        kind: ``net``, linear layers and neurons by turns, or ``recurrent``, one recurrent layer of neurons.
        sizes: neurons of each layer.
        time: steps.
        batch: samples.
        depth: the largest delay, where there are delays.
        rate: spikes a step and input, of a network's inputs.
        sweep: whether it is measured on demand only.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    time: int = 100
    batch: int = 32
    depth: int = 25
    rate: float = 0.1
    sweep: bool = False


SWEEPS = [
    *(Work(f"neurons {size}", "recurrent", (size,), sweep=True) for size in (64, 512, 1024, 2048)),
    *(Work(f"steps {time}", "net", NET, time, sweep=True) for time in (50, 500, 2000)),
    *(Work(f"batch {batch}", "net", NET, batch=batch, sweep=True) for batch in (1, 8, 256)),
    *(Work(f"firing {rate:.0%}", "net", (HIDDEN, HIDDEN), rate=rate, sweep=True) for rate in (0.01, 0.05, 0.2)),
    Work("long", "net", NET, 1127, 8, 300, sweep=True),  # as long as speech at 1127 steps, delays to a quarter of it
]
WORKS = {
    work.name: work
    for work in [
        Work("net", "net", NET),
        Work("recurrent", "recurrent", (HIDDEN,)),
        *(Work(f"depth {depth}", "net", (HIDDEN, HIDDEN), 600, 4, depth) for depth in (8, 64, 512)),
        *SWEEPS,
    ]
}


def write(work: Work, path: Path) -> None:
    """Draw weights and inputs once, and keep them."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for k, (pre, post) in enumerate(zip(work.sizes, work.sizes[1:], strict=False)):
        tensors[f"weight{k}"] = torch.randn(post, pre, generator=generator) * 2 / pre**0.5
    shape = (work.time, work.batch, work.sizes[0])
    if work.kind == "recurrent":
        (size,) = work.sizes
        tensors["recurrent"] = torch.randn(size, size, generator=generator) * 0.3 / size**0.5
        tensors["x"] = 0.6 * torch.rand(shape, generator=generator) - 0.1
    else:
        tensors["weight0"] *= (0.1 / work.rate) ** 0.5  # currents as large as those of a tenth
        tensors["x"] = (torch.rand(shape, generator=generator) < work.rate).float()
    tensors["cotangent"] = torch.randn(work.time, work.batch, work.sizes[-1], generator=generator)
    save_file(tensors, str(path))


def read(path: Path) -> dict[str, Tensor]:
    """Read them back."""
    tensors: dict[str, Tensor] = load_file(str(path))
    return tensors


def judged(work: Work, tensors: dict[str, Tensor], reset: str) -> Tensor:
    """Give the spikes of the last layer without delays, as the equations stand, in float64."""
    x = tensors["x"].double()
    weights = [tensors[f"weight{k}"].double() for k in range(len(work.sizes) - 1)]
    if work.kind == "recurrent":
        return _neurons(x, reset, tensors["recurrent"].double())
    for weight in weights:
        x = _neurons(x @ weight.t(), reset, None)
    return x


def _neurons(drive: Tensor, reset: str, recurrent: Tensor | None) -> Tensor:
    v, s, spikes = torch.zeros_like(drive[0]), torch.zeros_like(drive[0]), []
    for i in drive:
        if recurrent is not None:
            i = i + s @ recurrent.t()
        v = BETA * v + i - (THRESHOLD * s if reset == "next" else 0)
        s = (v > THRESHOLD).double()
        if reset == "same":
            v = v - THRESHOLD * s
        spikes.append(s)
    return torch.stack(spikes)
