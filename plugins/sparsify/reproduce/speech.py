"""Accuracy against the fraction of synapses kept, dynamic against static, on files in SHD's layout.

    python plugins/sparsify/reproduce/speech.py --data FOLDER          # reduced: minutes to half an hour on one core
    python plugins/sparsify/reproduce/speech.py --data FOLDER --full   # 700 channels, 300 neurons, 100 epochs

A recurrent snnTorch layer with learned delays on both connections: one for each presynaptic neuron, one for each
synapse, or 3-D positions (needs ``delaykit-spatial``) drawn so that the mean delay is the same. *Dynamic*: zeros after
each epoch, free regrowth. *Static*: one dense training, its weakest synapses removed at the end, not trained again.
Test accuracy after the last pruning; no epoch and no setting is chosen by it. Finished runs are kept under
``--out`` and not run again.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

import delaykit as dk
from delaykit import plotting
from delaykit_lab import command_line, data_folder, locate, read_options, record_path, remembered
from delaykit_lab.task import Frames, Splits
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_sparsify import DynamicSparsity, masks, turnover

KEPT = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
DELAYS = ("axonal", "synaptic", "spatial")
KINDS = {"free": "dynamic", "cubic": "cubic", "none": "no regrowth", "random": "SET", "gradient": "RigL"}
REDUCED: dict[str, Any] = {
    "channels": 70, "dt_ms": 20.0, "hidden": 64, "samples": 800, "test": 600, "epochs": 15, "batch": 50,
}  # fmt: skip
FULL: dict[str, Any] = {
    "channels": 700, "dt_ms": 10.0, "hidden": 300, "samples": None, "test": None, "epochs": 100, "batch": 64,
}  # fmt: skip


class Net(nn.Module):
    """Linear, recurrent leaky neurons, Linear; class scores summed over time."""

    def __init__(self, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, hidden)
        self.lif = snn.RLeaky(beta=0.7, linear_features=hidden, spike_grad=surrogate.atan(alpha=5.0))
        self.readout = nn.Linear(hidden, classes)
        nn.init.orthogonal_(self.lif.recurrent.weight, gain=0.5)

    def forward(self, spikes: Tensor) -> Tensor:
        return self.readout(dk.rollout(self.lif, self.fc(spikes))[0]).sum(0)


def delays(kind: str, longest: float, post: str, pre: str) -> dk.ComponentConfig:
    """Describe the delays of one connection between two populations, on average half the longest free one, in steps."""
    if kind != "spatial":
        return dk.FreeDelay(kind, max_delay=longest)  # type: ignore[arg-type]
    from delaykit_spatial import Spatial

    mean_distance = 4 / math.sqrt(math.pi)  # of two points of a 3-D normal distribution with deviation 1
    start = {"init": "normal"} if pre != post else {}
    return Spatial(3, pre=pre, post=post, scale=0.5 * longest / mean_distance, **start)  # type: ignore[arg-type]


def build(setting: dict[str, Any], granularity: str, kept: float, classes: int, seed: int, regrow: str = "free") -> Net:
    """Make the network of one run; both connections have delays, and are pruned unless all is kept."""
    torch.manual_seed(seed)
    net = Net(setting["channels"], setting["hidden"], classes)
    longest = 500 / setting["dt_ms"]
    forward = delays(granularity, longest, post="hidden", pre="input")
    recurrent = delays(granularity, longest, post="hidden", pre="hidden")
    how = DynamicSparsity(1 - kept, regrow="free" if regrow == "cubic" else regrow)
    if regrow == "cubic":
        how = dataclasses.replace(how, schedule="cubic", ramp=0.75)
    prune = () if kept == 1 else (how,)
    rules = {
        "fc": dk.At(forward, *prune, reset="root", time_dim=0),
        "lif.recurrent": dk.At(recurrent, *prune, reset="root"),
    }
    return dk.wrap_(net, rules)


def batches(frames: Frames, size: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """Split the samples, in random order with a generator."""
    order = torch.arange(len(frames)) if generator is None else torch.randperm(len(frames), generator=generator)
    return list(order.split(size))


@torch.no_grad()
def accuracy(net: Net, frames: Frames) -> float:
    """Return the fraction of samples classified right."""
    right = 0
    for index in batches(frames, 200):
        spikes, labels = frames.batch(index)
        right += int((net(spikes).argmax(1) == labels).sum())
    return right / len(frames)


def train(net: Net, splits: Splits, setting: dict[str, Any], seed: int, pruned: bool) -> dict[str, Any]:
    """Train, prune after each epoch, and record validation accuracy and turnover."""
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=2e-3, delay_lr=5e-2))
    dk.attach(optimizer, net)
    generator = torch.Generator().manual_seed(seed)
    curve, first = [], None
    for epoch in range(setting["epochs"]):
        for index in batches(splits.train, setting["batch"], generator):
            spikes, labels = splits.train.batch(index)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(spikes), labels).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
        if pruned:
            dk.advance_(net, (epoch + 1) / setting["epochs"])
            first = first or masks(net)
        curve.append(accuracy(net, splits.validation))
    changes = turnover(first, masks(net)) if first else {}
    return {"curve": curve, "turnover": {name: vars(change) for name, change in changes.items()}}


def run(
    task: SpikeFiles, setting: dict[str, Any], granularity: str, kept: float, seed: int, regrow: str
) -> dict[str, dict[str, Any]]:
    """Train once; a dense training gives the static results of every kept fraction, too."""
    splits = task.splits(seed=0)
    test = splits.test
    if setting["test"] and setting["test"] < len(test):
        test = test.subset(torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: setting["test"]])
    net = build(setting, granularity, kept, task.classes, seed, regrow)
    start = time.process_time()
    record = train(net, splits, setting, seed, pruned=kept < 1)
    record["cpu_s"] = round(time.process_time() - start, 1)
    if kept < 1:
        return {f"{granularity}/{KINDS[regrow]}/{kept}/{seed}": {**record, "test": accuracy(net, test)}}
    out = {f"{granularity}/dense/1.0/{seed}": {**record, "test": accuracy(net, test)}}
    for fraction in KEPT[:-1]:
        pruned, trained = copy.deepcopy(net), build(setting, granularity, fraction, task.classes, seed)
        trained.load_state_dict(pruned.state_dict())
        dk.advance_(trained, 1.0)
        out[f"{granularity}/static/{fraction}/{seed}"] = {"test": accuracy(trained, test)}
    return out


def table(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Average over seeds."""
    rows = []
    for granularity in DELAYS:
        for kept in KEPT:
            for kind in (*KINDS.values(), "static", "dense"):
                prefix = f"{granularity}/{kind}/{kept}/"
                values = [r["test"] for key, r in sorted(results.items()) if key.startswith(prefix)]
                if values:
                    spread = stdev(values) if len(values) > 1 else 0.0
                    rows.append(
                        {
                            "delays": granularity,
                            "kept": kept,
                            "kind": kind,
                            "mean": mean(values),
                            "sd": spread,
                            "n": len(values),
                        }
                    )
    return rows


def picture(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw accuracy against the fraction kept."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plotting.style():
        figure, ax = plt.subplots(figsize=(6.4, 4))
        for colour, granularity in zip(plotting.CATEGORIES, DELAYS, strict=False):
            for kind, line in (("dynamic", "o-"), ("static", "s--")):
                points = [r for r in rows if r["delays"] == granularity and r["kind"] in (kind, "dense")]
                x, y = [r["kept"] for r in points], [100 * r["mean"] for r in points]
                error = [100 * r["sd"] for r in points]
                ax.errorbar(x, y, yerr=error, fmt=line, color=colour, label=f"{granularity} delays, {kind}", capsize=2)
        ax.set(xscale="log", xlabel="fraction of synapses kept", ylabel="test accuracy (%)", title=title)
        ax.set_xticks(KEPT, [f"{k:g}" for k in KEPT])
        ax.axhline(5, color=plotting.GREY, linestyle=":", linewidth=1.4)
        ax.legend(fontsize=9)
        figure.savefig(path)


def main() -> None:
    """Run what is not there yet, and show the table."""
    data = "folder with *train*.h5 and *test*.h5 in SHD's layout"
    full = "700 channels, 300 neurons, 100 epochs"
    parser = command_line(__doc__, out="runs/sparsify_speech", full=full, data=data)
    parser.add_argument("--hidden", type=int, help="number of recurrent neurons")
    parser.add_argument("--delays", nargs="+", default=list(DELAYS), choices=DELAYS)
    parser.add_argument("--kept", nargs="+", type=float, default=KEPT, choices=KEPT)
    arguments = read_options(parser)
    recordings = data_folder(arguments)
    from tqdm import tqdm

    setting = dict(FULL if arguments.full else REDUCED)
    setting["hidden"] = arguments.hidden or setting["hidden"]
    name = ("full" if arguments.full else "reduced") + (f"_{arguments.hidden}" if arguments.hidden else "")
    results: dict[str, Any] = {}
    task = SpikeFiles(
        recordings, dt_ms=setting["dt_ms"], channels=setting["channels"], limit=setting["samples"], validation=0.15
    )
    seeds = range(arguments.seeds)
    todo = [(s, g, k, "free") for s in seeds for g in arguments.delays for k in reversed(KEPT) if k in arguments.kept]
    if 0.1 in arguments.kept and "axonal" in arguments.delays:
        todo += [(s, "axonal", 0.1, regrow) for s in seeds for regrow in ("cubic", "none", "random", "gradient")]
    for seed, granularity, kept, regrow in tqdm(todo):
        kind = "dense" if kept == 1 else KINDS[regrow]
        what = (granularity, kept, seed, regrow)
        settings = {"setting": setting, "task": task.title(), "run": what, "seed": seed}
        file = record_path(arguments.out, settings, f"{granularity}_{kept:g}_{kind.replace(' ', '_')}_{seed}")
        files = [locate(recordings, part) for part in ("train", "test")]
        results |= remembered(file, settings, lambda what=what: run(task, setting, *what), files)
    rows = table(results)
    picture(rows, f"{task.title()} ({name})", arguments.out / f"speech_{name}.png")
    for row in rows:
        print("{delays:9} kept {kept:5} {kind:11} {mean:.3f} +- {sd:.3f} (n = {n})".format(**row))


if __name__ == "__main__":
    main()
