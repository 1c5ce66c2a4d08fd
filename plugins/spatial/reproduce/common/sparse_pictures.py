"""Pictures of pruned spatial networks: figures 4A to 4F and S2 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.ticker import LogLocator

from common.plotting import headed
from delaykit.plotting import CATEGORIES, GREY, style

Rows = Sequence[Mapping[str, Any]]


def points(rows: Rows, network: str, way: str, key: str = "kept") -> dict[float, float]:
    """Return the mean test accuracy (%) by share kept, or by another ``key``; the dense network ends both ways."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["network"] == network and row["way"] in (way, "dense"):
            found.setdefault(row[key], []).append(100 * row["test"])
    return {at: sum(values) / len(values) for at, values in sorted(found.items())}


def accuracies(rows: Rows, networks: Sequence[str], title: str, path: Path) -> None:
    """Draw accuracy against the share kept (4B), against parameters (4C), and validation over the epochs (4A)."""
    with style():
        figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 3.8))
        colors = dict(zip(networks, CATEGORIES, strict=False))
        for net in networks:
            for way, line in (("dynamic", "o-"), ("static", "s--")):
                found = points(rows, net, way)
                left.plot(list(found), list(found.values()), line, color=colors[net], label=f"{net}, {way}")
            found = points(rows, net, "dynamic", "parameters")
            middle.plot(list(found), list(found.values()), "o-", color=colors[net], label=net)
        left.set(xscale="log", xlabel="share of synapses kept", ylabel="test accuracy (%)")
        middle.set(xscale="log", xlabel="parameters, as the paper counts", ylabel="test accuracy (%)")
        for ax in (left, middle):
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
        sparse = min((row["kept"] for row in rows if row["way"] == "dynamic"), key=lambda kept: abs(kept - 0.1))
        for row in rows:
            if row["seed"] == 0 and "curve" in row and row["kept"] in (1.0, sparse):
                epochs = range(1, len(row["curve"]) + 1)
                line, kept = ("-", "all") if row["way"] == "dense" else (":", f"{row['kept']:g}")
                curve = [100 * value for value in row["curve"]]
                right.plot(epochs, curve, line, color=colors[row["network"]], label=f"{row['network']}, {kept} kept")
        right.set(xlabel="epoch", ylabel="validation accuracy (%)")
        for ax in (left, middle, right):
            ax.legend(fontsize=9)
        headed(figure, title).savefig(path)
        pyplot.close(figure)


def structure(one: Mapping[str, Any], bin_ms: float, title: str, path: Path) -> None:
    """Draw what pruning left of one network.

    Communities and degrees at the neurons' places (4D), the share kept by delay (4E) and by input channel (4F), and
    what was created and removed since the first epoch, by channel (S2).

    Args:
        one: ``kept_by_delay``, ``kept_by_channel``, ``degree``, ``community``, ``positions`` and ``turnover``.
        bin_ms: width of the bins of delays.
        title: above it all.
        path: of the picture.
    """
    with style():
        figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.2))
        _communities(axes[0, 0], one)
        delays = [(k, share) for k, share in enumerate(one["kept_by_delay"]) if share is not None]
        axes[0, 1].bar([bin_ms * (k + 0.5) for k, _ in delays], [s for _, s in delays], 0.9 * bin_ms, color=GREY)
        axes[0, 1].set(xlabel="delay (ms)", ylabel="share of input synapses kept")
        axes[1, 0].plot(one["kept_by_channel"], color=CATEGORIES[0])
        axes[1, 0].set(xlabel="input channel, low to high frequencies", ylabel="share of its synapses kept")
        axes[1, 0].set_ylim(bottom=0)
        change = one["turnover"]
        axes[1, 1].plot(change["created"], color=CATEGORIES[0], label="input: created")
        axes[1, 1].plot([-x for x in change["removed"]], color=CATEGORIES[1], label="input: removed")
        within = f"recurrent: {sum(change['created_within'])} created, {sum(change['removed_within'])} removed"
        axes[1, 1].set(xlabel="input channel", ylabel="synapses, since the first epoch", title=within)
        axes[1, 1].legend(fontsize=9)
        headed(figure, title).savefig(path)
        pyplot.close(figure)


def _communities(ax: Any, one: Mapping[str, Any]) -> None:
    """Place the neurons by the two directions in which they spread most; free delays have no places."""
    degree, group = torch.tensor(one["degree"]), torch.tensor(one["community"])
    if one["positions"] is None:
        ax.bar(range(len(degree)), degree.sort(descending=True).values, color=GREY)
        ax.set(xlabel="neuron, by degree", ylabel="degree")
        return
    places = torch.tensor(one["positions"])
    places = places - places.mean(0)
    flat = places @ torch.linalg.svd(places, full_matrices=False).Vh[:2].T
    for k in range(int(group.max()) + 1):
        mine = group == k
        ax.scatter(*flat[mine].T, s=6 + 6 * degree[mine], color=CATEGORIES[k % len(CATEGORIES)], alpha=0.8)
    ax.set(xlabel="first direction (ms)", ylabel="second direction (ms)", aspect="equal")
    ax.set_title(f"recurrent: {int(group.max()) + 1} communities, size: degree")
