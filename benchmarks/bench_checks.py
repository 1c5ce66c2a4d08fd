"""What the checks of a run cost: step loops of this tree against those of another commit, in pairs.

    python benchmarks/bench_checks.py --against ../older-worktree

Two processes, one a tree, take turns case by case, so that both meet the same machine; the figure is the median ratio
of process-CPU times of neighbours. ``bare`` is the loop without delays: how far two equal runs are apart. Each case is
one sequence forward and backward, 140-256-256-20, 100 steps, 32 samples.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES, TIME, BATCH = (140, 256, 256, 20), 100, 32
# Freed memory is kept in both trees alike: newer ones ask for it, from the first compiled kernel on, and so whichever
# case comes later would be faster there.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
CASES = ("axonal", "dendritic", "synaptic", "triangle", "hetsyn", "outside", "norse", "cell", "bare")


def configs(case: str) -> Any:
    """Make the component of a case."""
    import delaykit as dk

    if case == "hetsyn":
        from delaykit_hetsyn import HetSyn

        return HetSyn(tau=("uniform", 5.0, 40.0), dt_ms=1.0)
    if case == "triangle":
        from delaykit_delrec import DelRec

        return DelRec(max_delay=25, sigma=4.0, granularity="synaptic")
    return dk.FreeDelay(case if case in ("dendritic", "synaptic") else "axonal", max_delay=25, init="uniform")


def inside() -> Any:
    """Make a snnTorch net whose loop is inside, with explicit membranes."""
    import snntorch as snn
    from torch import nn

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.ModuleList(nn.Linear(i, j) for i, j in zip(SIZES, SIZES[1:], strict=False))
            self.lif = nn.ModuleList(snn.Leaky(beta=0.9) for _ in self.fc)

        def forward(self, spikes: Any) -> Any:
            membranes: list[Any] = [neuron.reset_mem() for neuron in self.lif]  # type: ignore[operator]
            loss = 0.0
            for x in spikes:
                for k, (fc, lif) in enumerate(zip(self.fc, self.lif, strict=True)):
                    x, membranes[k] = lif(fc(x), membranes[k])
                loss = loss + membranes[-1].square().mean()
            return loss

    return Loop()


def outside() -> Any:
    """Make a snnTorch net with hidden membranes that is called step by step."""
    import snntorch as snn
    from torch import nn

    layers: list[Any] = []
    for i, j in zip(SIZES, SIZES[1:], strict=False):
        layers += [nn.Linear(i, j), snn.Leaky(beta=0.9, init_hidden=True)]
    return nn.Sequential(*layers)


def norse() -> Any:
    """Make a Norse net, its loop outside."""
    import norse.torch as norse
    from torch import nn

    layers: list[Any] = []
    for i, j in zip(SIZES, SIZES[1:], strict=False):
        layers += [nn.Linear(i, j), norse.LIFCell()]
    return norse.SequentialState(*layers)


def cell() -> Any:
    """Make one Norse cell whose input and recurrent connections are its own."""
    import norse.torch as norse

    return norse.LIFRecurrentCell(SIZES[0], SIZES[1])


def case(name: str, spikes: Any) -> Callable[[], Any]:
    """Build a case: a function that runs one sequence and returns its loss."""
    import torch

    import delaykit as dk

    torch.manual_seed(0)
    if name == "outside":
        net = outside()
        neurons = [net[k] for k in (1, 3, 5)]
        dk.wrap_(net, {"*": configs(name)}, example=spikes[0])

        def step_by_step() -> Any:
            for neuron in neurons:
                neuron.reset_mem()
            return sum(net(x).mean() for x in spikes)

        return step_by_step
    if name in ("norse", "cell"):
        net = norse() if name == "norse" else cell()
        dk.wrap_(net, {"*": configs(name)}, example=lambda: net(spikes[0], None))

        def stated() -> Any:
            state, loss = None, 0.0
            for x in spikes:
                y, state = net(x, state)
                loss = loss + y.mean()
            return loss

        return stated
    net = inside()
    if name != "bare":
        dk.wrap_(net, {"fc.*": configs(name)}, example=spikes[:3])
    return lambda: net(spikes)


def worker() -> None:
    """Answer each name on the standard input with the milliseconds of one run."""
    import torch

    torch.set_num_threads(1)
    spikes = (torch.rand(TIME, BATCH, SIZES[0], generator=torch.Generator().manual_seed(1)) < 0.2).float()
    built: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        name = line.strip()
        run = built.get(name) or built.setdefault(name, case(name, spikes))
        begin = time.process_time()
        run().backward()
        sys.stdout.write(f"{(time.process_time() - begin) * 1e3}\n")
        sys.stdout.flush()


class Tree:
    """A process that runs the code of one tree."""

    def __init__(self, top: Path) -> None:
        paths = [top, *sorted((top / "plugins").glob("*/src"))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        environment |= KEPT
        environment["DELAYKIT_PLUGINS"] = "hetsyn,delrec"  # of this tree; others may be installed for another one
        command = [sys.executable, __file__, "--worker"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=top)

    def run(self, name: str) -> float:
        """Run a case once; return its milliseconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    """Print milliseconds and ratios of every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    here = Path(__file__).resolve().parent.parent
    new, old = Tree(here), Tree((options.against or here).resolve())
    for name in options.cases:
        pairs = []
        for turn in range(options.pairs + 2):
            order = (new, old) if turn % 2 else (old, new)
            times = {tree: tree.run(name) for tree in order}
            pairs.append((times[new], times[old]))
        mine, theirs = zip(*pairs[2:], strict=True)
        ratios = sorted(a / b for a, b in pairs[2:])
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        line = f"{name:>10} {statistics.median(mine):8.1f} ms {statistics.median(theirs):8.1f} ms"
        best = min(mine) / min(theirs)  # what others on the machine add can only be more
        sys.stdout.write(f"{line}   x {statistics.median(ratios):.3f} ({low:.3f} .. {high:.3f}), best {best:.3f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
