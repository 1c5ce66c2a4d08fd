"""Handwritten digits with exact spike times, 784-400-10: many spikes a neuron against one, over tau.

The recipe (section IV): Adam at a constant rate of 0.001, batches of 100, 100 epochs; weights of both layers from
N(.03, .3), where .3 is read as the standard deviation (the text says variance); lambda .01, sigma 1e-4, dead below a
tenth of a batch; all 60 000 images. ``--full`` adds six values of tau and ten seeds. Default, a labelled reduction: the
same recipe for 10 epochs, tau 0.8, one seed. Every run is saved after each epoch and goes on where it was interrupted,
also with more epochs than before. The test set is looked at once, after the last epoch. With several ``--tau``
the picture is the paper's figures 5 (accuracy over tau, the best one marked), 4 (spikes a neuron over tau) and 3.

    python plugins/timing/reproduce/mnist.py --data FOLDER_OF_IDX_FILES

Without the files (or with ``--data digits``) it runs on scikit-learn's digits, and says so.
Paper (100 epochs, tau 0.8): 98.43 +- .05 % with many spikes, 97.99 % with one.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from delaykit import CheckpointError, FreeDelay
from delaykit_lab import Resumable, command_line, data_folder, read_options, record_path, remembered
from delaykit_lab.records.tables import markdown
from delaykit_lab.tasks.mnist import MNIST, Images
from delaykit_timing import (
    TimingNet,
    latency_encode,
    output_norm,
    potential_cross_entropy,
    project_after_steps,
    spike_count_penalty,
)

BATCH = 100
RATE = 1e-3  # of Adam, constant
WEIGHT_MEAN, WEIGHT_STD = 0.03, 0.3  # of both layers
DELAY_FACTOR = 20.0  # delays count hundredths of the window
TAUS = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


def build(settings: dict[str, Any], pixels: int) -> TimingNet:
    """Make the network of one run."""
    generator = torch.Generator().manual_seed(settings["seed"])
    delay = None
    if settings["delay"] != "none":
        delay = FreeDelay("axonal", max_delay=50, init="uniform", high=10, learn=settings["delay"] == "learned")
    return TimingNet(
        (pixels, settings["hidden"], 10),
        tau_synapse=settings["tau"],
        single_spike=settings["spikes"] == "one",
        delay=delay,
        dt=None if delay is None else 0.01,
        weight_mean=WEIGHT_MEAN,
        weight_std=WEIGHT_STD,
        readout={"weight_mean": WEIGHT_MEAN, "weight_std": WEIGHT_STD},
        generator=generator,
    )


def optimizer_of(net: TimingNet, rate: float) -> torch.optim.Optimizer:
    """Adam, with a rate of their own for delays."""
    delays = [p for name, p in net.named_parameters() if ".delay." in name and p.requires_grad]
    weights = [p for name, p in net.named_parameters() if ".delay." not in name]
    groups = [{"params": weights, "lr": rate}] + ([{"params": delays, "lr": DELAY_FACTOR * rate}] if delays else [])
    return torch.optim.Adam(groups)


@torch.no_grad()
def evaluate(net: TimingNet, images: Images) -> dict[str, Any]:
    """Accuracy and spikes of the hidden neurons."""
    right, counts = 0, []
    for index in torch.arange(len(images)).split(250):
        out = net(latency_encode(images.values[index]))
        right += int((out.scores.argmax(1) == images.labels[index]).sum())
        counts.append(out.hidden[0].spike_counts())
    spikes = torch.cat(counts)
    histogram = torch.bincount(spikes.flatten(), minlength=12).double() / spikes.numel()
    return {
        "test": right / len(images),
        "spikes_a_neuron": float(spikes.double().mean()),
        "most_spikes": int(spikes.max()),
        "histogram": [round(share, 6) for share in histogram.tolist()],
    }


def train_epoch(net: TimingNet, images: Images, optimizer: torch.optim.Optimizer, order: torch.Generator) -> float:
    """One pass; returns the mean cross-entropy in nats."""
    total = 0.0
    for index in torch.randperm(len(images), generator=order).split(BATCH):
        out = net(latency_encode(images.values[index]))
        loss = potential_cross_entropy(out.scores, images.labels[index])
        total += float(loss.detach()) * len(index)
        loss = loss + output_norm(out.scores) + spike_count_penalty(out.hidden[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return total / len(images)


def train_net(settings: dict[str, Any], epochs: int, train: Images, test: Images, path: Path) -> dict[str, Any]:
    """Train one network, or go on with it, and look at the test images."""
    net = build(settings, train.values.shape[1])
    optimizer = optimizer_of(net, settings["rate"])
    project_after_steps(optimizer, net)
    order = torch.Generator().manual_seed(1000 + settings["seed"])
    training = Resumable(path, net, optimizer, order, settings)
    name = f"{settings['spikes']} spike(s), tau {settings['tau']}, delays {settings['delay']}, seed {settings['seed']}"
    for _ in training.epochs(epochs, name):
        training.history.append({"loss": train_epoch(net, train, optimizer, order)})
    history = training.history
    if len(history) > epochs:
        found = f"a run of {len(history)} epochs without its record"
        raise CheckpointError(str(path), found, f"at most {epochs}", "ask for as many epochs, or delete it")
    numbers = sum(p.numel() for p in net.parameters())
    losses = [round(one["loss"], 5) for one in history]
    return {"parameters": numbers, **evaluate(net, test), "loss": losses, "cpu_s": sum(one["cpu_s"] for one in history)}


def run(
    settings: dict[str, Any], epochs: int, train: Images, test: Images, folder: Path, files: list[Path]
) -> dict[str, Any]:
    """Run once, or remember; the state does not know how many epochs there will be, so that there can be more later."""
    name = "-".join(f"{settings[key]}" for key in ("spikes", "tau", "delay", "hidden", "seed"))
    path, state = record_path(folder, {**settings, "epochs": epochs}, name), folder / f"{name}.safetensors"
    found = remembered(
        path, {**settings, "epochs": epochs}, lambda: train_net(settings, epochs, train, test, state), files
    )
    return {**settings, **found}


def named(one: dict[str, Any]) -> str:
    """Name the kind of network of a run."""
    label = {"many": "many spikes", "one": "one spike"}[one["spikes"]]
    return label + ("" if one["delay"] == "none" else f", {one['delay']} delays")


def by_tau(runs: list[dict[str, Any]], key: str) -> dict[str, dict[float, list[float]]]:
    """Return a number of the runs, one a seed, by kind of network and tau."""
    found: dict[str, dict[float, list[float]]] = {}
    for one in runs:
        found.setdefault(named(one), {}).setdefault(one["tau"], []).append(one[key])
    return found


def best_taus(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return for each kind of network the tau with the highest mean accuracy, and that; nothing is chosen by it."""
    means = {name: {tau: mean(values) for tau, values in of.items()} for name, of in by_tau(runs, "test").items()}
    return {name: max(of.items(), key=lambda item: item[1]) for name, of in means.items() if len(of) > 1}


def picture(runs: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the paper's figures 5, 4 and 3: accuracy and spikes over tau, and the histogram of spikes a neuron."""
    from matplotlib import pyplot

    from delaykit.plotting import CATEGORIES, GREY, INK, style
    from delaykit_timing.plotting import accuracy_against_tau, spike_histogram

    with style():
        figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 3.8))
        accuracy_against_tau(by_tau(runs, "test"), left)
        for tau, accuracy in best_taus(runs).values():
            left.plot(tau, 100 * accuracy, "*", color=INK, markersize=13, zorder=5)
            left.annotate(f"best: {tau:g}", (tau, 100 * accuracy), (5, -12), textcoords="offset points", fontsize=8)
        for color, (name, of) in zip(CATEGORIES, by_tau(runs, "spikes_a_neuron").items(), strict=False):
            middle.plot(sorted(of), [mean(of[tau]) for tau in sorted(of)], "o-", color=color, label=name)
        middle.axhline(1.0, color=GREY, linestyle="--", linewidth=1)
        middle.set(xscale="log", xlabel=left.get_xlabel(), ylabel="spikes a hidden neuron")
        middle.set_xticks(left.get_xticks(), [tick.get_text() for tick in left.get_xticklabels()])
        middle.minorticks_off()
        middle.legend()
        for one in runs:
            if one["spikes"] == "many" and one["delay"] == "none" and one["seed"] == 0:
                spike_histogram(one["histogram"], right, label=f"tau {one['tau']:g}")
        figure.suptitle(title, fontsize=10)
        figure.savefig(path)
        pyplot.close(figure)


def arguments() -> Namespace:
    """Read the command line."""
    data = "folder of MNIST's idx files, or 'digits'"
    full = "100 epochs, six values of tau, ten seeds"
    parser = command_line(__doc__, out="runs/timing_mnist", full=full, seeds=(1, 10), epochs=True, data=data)
    parser.add_argument("--tau", type=float, nargs="+")
    parser.add_argument("--spikes", nargs="+", choices=("many", "one"), default=["many", "one"])
    parser.add_argument("--delay", choices=("none", "frozen", "learned"), default="none")
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--limit", type=int, help="so many training images only")
    return read_options(parser)


def main() -> None:
    """Run what the command line asks for and print the table."""
    given = arguments()
    data = None if given.data is None or str(given.data) == "digits" else data_folder(given)
    files = [] if data is None else sorted(data.glob("*ubyte*"))
    task = MNIST(data)
    train, test = task.published()
    if given.limit:
        train = train.subset(torch.arange(min(given.limit, len(train))))
    taus = given.tau or (TAUS if given.full else (0.8,))
    epochs = given.epochs or (100 if given.full else 10)
    runs = []
    for seed in range(given.seeds):
        for tau in taus:
            for spikes in given.spikes:
                settings = {"data": task.title(), "images": len(train), "spikes": spikes, "tau": tau}
                settings |= {"delay": given.delay, "hidden": given.hidden, "rate": given.rate, "seed": seed}
                runs.append(run(settings, epochs, train, test, given.out, files))
    title = f"{task.title()}, {len(train)} images, epochs: {epochs}"
    picture(runs, title, given.out / "accuracy.png")
    text = f"{title}{'' if given.full else '; a reduction of the paper (100 epochs, 10 seeds, 6 values of tau)'}\n\n"
    text += table(runs) + "\n"
    for name, (tau, accuracy) in best_taus(runs).items():
        text += f"\nBest tau, {name}: {tau:g} ({100 * accuracy:.2f} %); shown, not chosen by.\n"
    (given.out / "table.md").write_text(text)
    print(text)


def table(runs: list[dict[str, Any]]) -> str:
    """Write a Markdown table, a run a line."""
    head = ["spikes", "tau", "delays", "hidden", "parameters", "seed", "test accuracy", "spikes per neuron"]
    rows = []
    for one in runs:
        cells = [one["spikes"], f"{one['tau']:g}", one["delay"], one["hidden"], one["parameters"], one["seed"]]
        cells += [f"{100 * one['test']:.2f} %", f"{one['spikes_a_neuron']:.2f}"]
        rows.append(cells)
    return markdown(head, rows)


if __name__ == "__main__":
    main()
