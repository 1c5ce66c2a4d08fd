"""A decay for each synapse: time and memory of one layer, 700 -> 128, spike density 0.03, one thread.

Rows: naive autograd, with a state (batch, post, pre) for every step; the bare product without decays; the sequence
operator and the tape, in a loop of single steps, with and without gradients for the input; a loop with ``snn.Leaky`` as
a user runs it, bare and wrapped by ``dk.wrap_`` with ``HetSyn``. Forward and backward, process CPU time, in rounds that
run every row once, all in one process; the first two rounds, in which kernels are compiled and the allocator gets its
memory, do not count. Given are the median, and, against naive autograd with the same gradients, the median ratio and
the worst within a round. Memory: what the process's resident peak grows by during forward and backward, each case in a
process of its own, after kernels were compiled; the worse of two.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import snntorch as snn
import torch
import torch.nn.functional as F
from record import keep, options
from torch import Tensor, nn

import delaykit as dk
from delaykit.functional.decay_tape import SynapseTape
from delaykit.functional.filtered_linear import filtered_linear
from delaykit_hetsyn import HetSyn

PRE, POST, DENSITY = 700, 128, 0.03
SMALL, SPEECH = (8, 100), (32, 250)  # (batch, time)
INTO = ", into input"
NAIVE = ("naive", "naive" + INTO)
KINDS = ("product", "operator", "operator" + INTO, "tape", "tape" + INTO, "leaky", "leaky HetSyn")
WARM = 2  # rounds that do not count
MEGABYTE = 2**20


class Loop(nn.Module):
    """One connection and one neuron, stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(PRE, POST), snn.Leaky(beta=0.9)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return membranes."""
        membrane, out = self.lif.reset_mem(), []
        for x in spikes:
            _, membrane = self.lif(self.fc(x), membrane)
            out.append(membrane)
        return torch.stack(out)


def naive(spikes: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    """Keep a number for each synapse and step."""
    state, out = spikes.new_zeros(spikes.shape[1], POST, PRE), []
    for x in spikes:
        state = decay * state + weight * x.unsqueeze(1)
        out.append(state.sum(-1))
    return torch.stack(out)


def by_tape(spikes: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    """Step a tape."""
    tape = SynapseTape(decay, weight)
    return torch.stack([tape.step(x) for x in spikes])


class Case:
    """All ways to run one size."""

    def __init__(self, batch: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.spikes = (torch.rand(steps, batch, PRE, generator=generator) < DENSITY).float()
        self.weight = (torch.randn(POST, PRE, generator=generator) / PRE**0.5).requires_grad_()
        self.decay = torch.exp(-1 / (5 + 15 * torch.rand(POST, PRE, generator=generator))).requires_grad_()
        self.graded = self.spikes.clone().requires_grad_()
        self.target = torch.randn(steps, batch, POST, generator=generator)
        self.bare = Loop()
        self.wrapped = dk.wrap(self.bare, {"fc": HetSyn()}, example=self.spikes[:3, :1])
        with torch.no_grad():
            self.wrapped.fc.dk.heterogeneity.r.copy_(self.decay)

    def run(self, kind: str) -> float:
        """Run forward and backward; give the process CPU time in ms."""
        spikes = self.graded if kind.endswith(INTO) else self.spikes
        for p in (self.graded, self.weight, self.decay, *self.bare.parameters(), *self.wrapped.parameters()):
            p.grad = None
        ways: dict[str, Callable[[], Tensor]] = {
            "naive": lambda: naive(spikes, self.weight, self.decay),
            "product": lambda: F.linear(spikes, self.weight),
            "operator": lambda: filtered_linear(spikes, self.weight, self.decay),
            "tape": lambda: by_tape(spikes, self.weight, self.decay),
            "leaky": lambda: self.bare(spikes),
            "leaky HetSyn": lambda: self.wrapped(spikes),
        }
        begin = time.process_time()
        ways[kind.removesuffix(INTO)]().backward(self.target)
        return (time.process_time() - begin) * 1e3


def peak_growth(kind: str, batch: int, steps: int, out: multiprocessing.queues.Queue[float]) -> None:
    """Put the MB that one run adds to the resident peak; Linux."""
    torch.set_num_threads(1)
    Case(2, 3).run(kind)
    case = Case(batch, steps)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    case.run(kind)
    out.put((_resident("VmHWM") - before) / 1024)


def _resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def memory(kind: str, batch: int, steps: int) -> float:
    """Measure one case in a process of its own."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.queues.Queue[float] = context.Queue()
    process = context.Process(target=peak_growth, args=(kind, batch, steps, out))
    process.start()
    found = out.get()
    process.join()
    return found


def measure(batch: int, steps: int, kinds: tuple[str, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Time all kinds, interleaved, and then measure the memory of each."""
    case = Case(batch, steps)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for count in range(WARM + rounds):
        for kind in kinds:
            spent = case.run(kind)
            if count >= WARM:
                times[kind].append(spent)
    found = {}
    for kind in kinds:
        found[kind] = {"ms": statistics.median(times[kind]), "MB": max(memory(kind, batch, steps) for _ in range(2))}
        same = NAIVE[kind.endswith(INTO)]
        if same in times:
            ratios = [slow / fast for slow, fast in zip(times[same], times[kind], strict=True)]
            found[kind] |= {"naive / it": statistics.median(ratios), "worst": min(ratios)}
    return found


def main() -> None:
    """Print the table, and keep it where asked. The larger size has no naive row: it would need about 5.5 GB."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of the smaller size")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {"8 x 100": measure(*SMALL, NAIVE + KINDS, given.rounds), "32 x 250": measure(*SPEECH, KINDS, 1)}
    head = f"{'batch x time':>12} {'kind':>21} {'ms':>9} {'naive / it':>10} {'worst':>7} {'MB':>8}"
    sys.stdout.write(head + "\n")
    for size, rows in results.items():
        for kind, row in rows.items():
            ratios = f"{row['naive / it']:10.1f} {row['worst']:7.1f}" if "worst" in row else f"{'':18}"
            sys.stdout.write(f"{size:>12} {kind:>21} {row['ms']:9.1f} {ratios} {row['MB']:8.1f}\n")
    names = {"ms": "CPU ms", "naive / it": "x faster than naive", "worst": "x in the worst round", "MB": "peak MB"}
    tables = {
        f"batch x steps: {size}": [
            {"way": kind} | {words: row[key] for key, words in names.items() if key in row}
            for kind, row in rows.items()
        ]
        for size, rows in results.items()
    }
    keep(given, tables, pre=PRE, post=POST, density=DENSITY)


if __name__ == "__main__":
    main()
