"""What the first call costs where no kernel has been compiled yet: a fresh process and an empty cache for each case.

    python benchmarks/bench_first_call.py [--cases 'none, fused' ...] [--record]

A network of a demo's size, 14-24-5 with ``snn.Leaky``, 20 steps: its wrapped time loop, and ``dk.fused`` with its
proof, forward and backward. ``compiled`` is the process-CPU time within Numba, ``in all`` that of making and running
the model; the kernels are listed with what they took. Later processes read the compiled code from the cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from record import keep, options

CASES = ("none, fused", "axonal, loop", "axonal, fused", "synaptic, loop", "synaptic, fused")


def listen(spent: dict[str, float]) -> None:
    """Add up the time of the outermost compilations, by the name of the kernel."""
    from numba.core import event

    class Compilations(event.Listener):  # type: ignore[misc]
        begun: list[float] = []

        def on_start(self, happened: Any) -> None:
            self.begun.append(time.process_time())

        def on_end(self, happened: Any) -> None:
            took, name = time.process_time() - self.begun.pop(), happened.data["dispatcher"].py_func.__qualname__
            if not self.begun:
                spent[name] = spent.get(name, 0.0) + took

    event.register("numba:compile", Compilations())


def measure(case: str) -> dict[str, Any]:
    """Make and run the network once, in this process."""
    import snntorch as snn
    import torch
    from torch import Tensor, nn

    import delaykit as dk

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(14, 24), nn.Linear(24, 5)
            self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            first, second, record = self.lif1.reset_mem(), self.lif2.reset_mem(), []
            for step in x:
                spikes, first = self.lif1(self.fc1(step), first)
                _, second = self.lif2(self.fc2(spikes), second)
                record.append(second)
            return torch.stack(record)

    torch.set_num_threads(1)
    spent: dict[str, float] = {}
    listen(spent)
    x = (torch.rand(20, 4, 14) < 0.3).float()
    granularity, way = case.split(", ")
    begin, net = time.process_time(), Net()
    if granularity != "none":
        dk.wrap_(net, {"fc*": dk.FreeDelay(granularity, max_delay=8)}, example=x)  # type: ignore[arg-type]
    run = dk.fused(net, example=x) if way == "fused" else net
    run(x).sum().backward()
    return {"compiled": sum(spent.values()), "in all": time.process_time() - begin, "kernels": spent}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--one", choices=CASES, help="measure one case in this process")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    results = {}
    for case in given.cases:
        with tempfile.TemporaryDirectory() as empty:
            command = [sys.executable, __file__, "--one", case]
            told = subprocess.check_output(command, env=os.environ | {"NUMBA_CACHE_DIR": empty}, text=True)
        results[case] = found = json.loads(told.splitlines()[-1])
        print(f"{case:16} compiled {found['compiled']:5.2f} s, in all {found['in all']:5.2f} s")
        for name, seconds in sorted(found["kernels"].items(), key=lambda pair: -pair[1]):
            print(f"    {seconds:5.2f} s {name}")
    rows = [
        {"case": case, "compiled, CPU s": found["compiled"], "in all, CPU s": found["in all"]}
        for case, found in results.items()
    ]
    keep(given, {"": rows})


if __name__ == "__main__":
    main()
