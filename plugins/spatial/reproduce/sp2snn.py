"""Sp2SNN: accuracy against the share of synapses kept, pruned after every epoch (dynamic) against once (static).

    python plugins/spatial/reproduce/sp2snn.py --data FOLDER           # a labelled reduction, minutes a run
    python plugins/spatial/reproduce/sp2snn.py --data FOLDER --full    # 700 channels, 300 neurons, steps of 0.5 ms

The networks and the recipe (Table 2) are those of ``speech.py``, with positions in 3-D and with free delays. *Dynamic*:
after each epoch, the last included, all but the strongest share of each weight matrix is set to zero, the readout
excepted; what is zero may grow again. *Static*: the dense network, trained once, loses its weakest synapses at the end
and is not trained further.

``kept.png``: the paper's figures 4B (share kept), 4C (parameters, counted as the paper does) and 4A (validation over
the epochs, dense and sparse). ``structure.png``, of the network of which a tenth or the next share is kept: 4D
(communities and degrees), 4E (kept by delay), 4F (kept by input channel), S2 (created and removed between the first
epoch and the one that is scored). Needs ``delaykit-sparsify``, and ``networkx`` for communities.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import torch
from common.records import dims_name
from common.sparse_pictures import accuracies, points
from common.sparse_pictures import structure as draw_structure
from common.speech_net import Net, Setting
from common.speech_training import pruner, read, run
from speech import setting_of

from delaykit_lab import command_line, data_folder, read_options
from delaykit_lab.records.tables import markdown
from delaykit_lab.task import Splits
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import accuracy, predict
from delaykit_spatial import communities, kept_by_latency

KEPT = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
DIMS = (3.0, math.inf)
COLUMNS = [(f"{dims_name(dims)}-D", way) for dims in DIMS for way in ("dynamic", "static")]
DELAY_BIN_MS = 30.0  # of figure 4E


def static(net: Net, data: Splits, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Prune a trained network once to each share and score it: ``{"static": {share: test accuracy}}``."""
    scores = {}
    for kept in KEPT:
        pruned = copy.deepcopy(net)
        pruner(pruned, kept)(1.0)
        scores[f"{kept:g}"] = accuracy(predict(pruned, data.test, 100), data.test)
    return {"static": scores}


@torch.no_grad()
def structure(net: Net, data: Splits, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe which synapses are left: by delay, by channel, between whom, and which came and went."""
    delay, (into, within) = net.delay.delays_ms().expand_as(net.into), net.matrices()
    shares = kept_by_latency(delay, into != 0, DELAY_BIN_MS)[1].tolist()
    left = within != 0
    groups = communities(within)
    member = {neuron: k for k, group in enumerate(groups) for neuron in group}
    places = getattr(net.recurrent_delay, "post_positions", None)
    return {
        "kept_by_delay": [None if share != share else round(share, 4) for share in shares],
        "kept_by_channel": [round(float(x), 4) for x in (into != 0).double().mean(0)],
        "degree": (left.sum(0) + left.sum(1)).tolist(), "community": [member[k] for k in range(len(within))],
        "positions": None if places is None else [[round(x, 2) for x in row] for row in places.tolist()],
        "turnover": turnover(read(history[0]["left"], net), [into != 0, left]),
    }  # fmt: skip


def turnover(before: list[torch.Tensor], after: list[torch.Tensor]) -> dict[str, list[int]]:
    """Count connections created and removed, for each presynaptic channel and neuron (figure S2)."""
    found = {}
    for end, then, now in zip(("", "_within"), before, after, strict=True):
        found |= {f"created{end}": (now & ~then).sum(0).tolist(), f"removed{end}": (then & ~now).sum(0).tolist()}
    return found


def parameters(setting: Setting) -> int:
    """Count as the paper does: the synapses that are left, and positions or delays; the readout apart."""
    from delaykit_sparsify import published_count

    dims = None if math.isinf(setting.dims) else int(setting.dims)
    return published_count(setting.channels, setting.hidden, dims, setting.kept)


def results(base: Setting, kept: list[float], seeds: int, task: SpikeFiles, folder: Any) -> list[dict[str, Any]]:
    """Run what is missing; return one row a network, share and way."""
    rows = []
    for dims in DIMS:
        for seed in range(seeds):
            setting = dataclasses.replace(base, dims=dims, seed=seed)
            network = {"network": f"{dims_name(dims)}-D", "seed": seed}

            def row(way: str, one: Setting, network=network, **more: Any) -> dict[str, Any]:
                return {**network, "way": way, "kept": one.kept, "parameters": parameters(one), **more}

            dense = run(setting, task, folder, judge=True, further=static)
            rows.append(row("dense", setting, test=dense["test"], curve=dense["curve"]))
            for share in kept:
                sparse = dataclasses.replace(setting, kept=share)
                one = run(sparse, task, folder, judge=True, further=structure)
                rows.append(row("dynamic", sparse, test=one["test"], curve=one["curve"], structure=one))
                rows.append(row("static", sparse, test=dense["static"][f"{share:g}"]))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Write a Markdown table: shares down, networks and ways across, means over seeds."""
    columns = {(net, way): points(rows, net, way) for net, way in COLUMNS}
    shares = sorted({row["kept"] for row in rows})
    lines = ([f"{kept:g}", *(f"{found[kept]:.1f}" for found in columns.values())] for kept in shares)
    return markdown(["kept", *(f"{net}, {way}" for net, way in columns)], lines)


def main() -> None:
    """Run what is missing, then write the table and the pictures."""
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
    title = f"{task.title()}, {base.epochs} epochs, seeds: {given.seeds} ({kind})"
    text = f"Sp2SNN, {title}\n\nTest accuracy (%)\n\n{table(rows)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    accuracies(rows, [f"{dims_name(dims)}-D" for dims in DIMS], title, given.out / "kept.png")
    sparse = [row for row in rows if "degree" in row.get("structure", {})]  # records of before had less
    sparse.sort(key=lambda row: (row["network"] != "3-D", abs(row["kept"] - 0.1), row["seed"]))
    for shown in sparse[:1]:
        one = shown["structure"]
        what = f"{shown['network']}, {shown['kept']:g} kept: test accuracy {100 * one['test']:.1f} % (chance 5 %)"
        what += f", {one['hertz']:.1f} Hz; {title}"
        draw_structure(one, DELAY_BIN_MS, what, given.out / "structure.png")


if __name__ == "__main__":
    main()
