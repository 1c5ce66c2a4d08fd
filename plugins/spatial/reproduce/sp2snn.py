"""Sp2SNN: accuracy against the share of synapses kept, pruned after every epoch (dynamic) against once (static).

    python plugins/spatial/reproduce/sp2snn.py --data FOLDER           # a labelled reduction, minutes a run
    python plugins/spatial/reproduce/sp2snn.py --data FOLDER --full    # 700 channels, 300 neurons, steps of 0.5 ms

The networks and the recipe (Table 2) are those of ``speech.py``, with positions in 3-D and with free delays. *Dynamic*:
after each epoch, the last included, all but the strongest share of each weight matrix is set to zero, the readout
excepted; what is zero may grow again. *Static*: the dense network, trained once, loses its weakest synapses at the end
and is not trained further. The picture is the paper's figure 4B, and 4A: validation over the epochs, dense and sparse;
records hold the shares kept by delay (4D) and by input channel (4E). Needs ``delaykit-sparsify``.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from common.records import dims_name
from speech import Net, Setting, pruner, run, setting_of

from delaykit_lab import command_line, data_folder, read_options
from delaykit_lab.records.tables import markdown
from delaykit_lab.task import Splits
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import accuracy, predict

KEPT = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
DIMS = (3.0, math.inf)
COLUMNS = [(f"{dims_name(dims)}-D", way) for dims in DIMS for way in ("dynamic", "static")]
DELAY_BIN_MS = 30.0  # of figure 4D


def static(net: Net, data: Splits) -> dict[str, Any]:
    """Prune a trained network once to each share and score it: ``{"static": {share: test accuracy}}``."""
    scores = {}
    for kept in KEPT:
        pruned = copy.deepcopy(net)
        pruner(pruned, kept)(1.0)
        scores[f"{kept:g}"] = accuracy(predict(pruned, data.test, 100), data.test)
    return {"static": scores}


@torch.no_grad()
def structure(net: Net, data: Splits) -> dict[str, Any]:
    """Describe which synapses are left: by delay, in bins, and for each input channel."""
    delay, weight = net.delay.delays_ms().expand_as(net.into), net.into
    bins = (delay / DELAY_BIN_MS).long()
    left = (weight != 0).double()
    count = int(bins.max()) + 1
    total = torch.bincount(bins.flatten(), minlength=count)
    kept = torch.bincount(bins.flatten(), left.flatten(), minlength=count)
    shares = [round(float(k / n), 4) if n else None for k, n in zip(kept, total, strict=True)]
    return {"kept_by_delay": shares, "kept_by_channel": [round(float(x), 4) for x in left.mean(0)]}


def results(base: Setting, kept: list[float], seeds: int, task: SpikeFiles, folder: Path) -> list[dict[str, Any]]:
    """Run what is missing; return one row a network, share and way."""
    rows = []
    for dims in DIMS:
        for seed in range(seeds):
            setting = dataclasses.replace(base, dims=dims, seed=seed)
            network = {"network": f"{dims_name(dims)}-D", "seed": seed}
            dense = run(setting, task, folder, judge=True, further=static)
            rows.append({**network, "way": "dense", "kept": 1.0, "test": dense["test"], "curve": dense["curve"]})
            for share in kept:
                one = run(dataclasses.replace(setting, kept=share), task, folder, judge=True, further=structure)
                rows.append({**network, "way": "dynamic", "kept": share, "test": one["test"], "curve": one["curve"]})
                rows.append({**network, "way": "static", "kept": share, "test": dense["static"][f"{share:g}"]})
    return rows


def points(rows: list[dict[str, Any]], network: str, way: str) -> dict[float, float]:
    """Return the mean test accuracy (%) by share kept; the dense network ends both ways."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["network"] == network and row["way"] in (way, "dense"):
            found.setdefault(row["kept"], []).append(100 * row["test"])
    return {kept: sum(values) / len(values) for kept, values in sorted(found.items())}


def table(rows: list[dict[str, Any]]) -> str:
    """Write a Markdown table: shares down, networks and ways across, means over seeds."""
    columns = {(net, way): points(rows, net, way) for net, way in COLUMNS}
    shares = sorted({row["kept"] for row in rows})
    lines = ([f"{kept:g}", *(f"{found[kept]:.1f}" for found in columns.values())] for kept in shares)
    return markdown(["kept", *(f"{net}, {way}" for net, way in columns)], lines)


def picture(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw accuracy against the share kept, and validation over the epochs of a dense and a sparse network."""
    from matplotlib import pyplot

    from delaykit.plotting import CATEGORIES, style

    with style():
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
        colors = dict(zip((f"{dims_name(dims)}-D" for dims in DIMS), CATEGORIES, strict=False))
        for net, way in COLUMNS:
            found = points(rows, net, way)
            line = "o-" if way == "dynamic" else "s--"
            left.plot(list(found), list(found.values()), line, color=colors[net], label=f"{net}, {way}")
        left.set(xscale="log", xlabel="share of synapses kept", ylabel="test accuracy (%)")
        left.legend(fontsize=9)
        sparse = min((row["kept"] for row in rows if row["way"] == "dynamic"), key=lambda kept: abs(kept - 0.1))
        for row in rows:
            if row["seed"] == 0 and "curve" in row and row["kept"] in (1.0, sparse):
                epochs = range(1, len(row["curve"]) + 1)
                line, kept = ("-", "all") if row["way"] == "dense" else (":", f"{row['kept']:g}")
                curve = [100 * value for value in row["curve"]]
                right.plot(epochs, curve, line, color=colors[row["network"]], label=f"{row['network']}, {kept} kept")
        right.set(xlabel="epoch", ylabel="validation accuracy (%)")
        right.legend(fontsize=9)
        figure.suptitle(title, fontsize=10)
        figure.savefig(path)
        pyplot.close(figure)


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with a train and a test file in SHD's layout"
    full = "the paper's size and steps (days)"
    parser = command_line(__doc__, out="runs/spatial_sp2snn", full=full, seeds=(1, 5), epochs=True, data=data)
    parser.add_argument("--kept", type=float, nargs="+", default=list(KEPT), choices=KEPT)
    parser.add_argument("--limit", type=int, help="training samples other than all")
    given = read_options(parser)
    folder = data_folder(given)
    base = setting_of(given.full, not given.full, given.epochs, given.limit)
    task = SpikeFiles(folder, dt_ms=base.dt, channels=base.channels, duration_ms=base.duration, limit=base.limit)
    rows = results(base, given.kept, given.seeds, task, given.out)
    kind = "the paper's size" if given.full else f"a reduction: {base.hidden} neurons, steps of {base.dt:g} ms"
    title = f"{task.title()}, {base.epochs} epochs, {given.seeds} seed(s) ({kind})"
    text = f"Sp2SNN, {title}\n\nTest accuracy (%)\n\n{table(rows)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    picture(rows, title, given.out / "kept.png")


if __name__ == "__main__":
    main()
