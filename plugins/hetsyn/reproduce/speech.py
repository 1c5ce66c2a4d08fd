"""Spoken digits: the paper's four models, recurrent, and what they bear at test time: lost spikes and warped time.

    python plugins/hetsyn/reproduce/speech.py --data FOLDER          # a labelled reduction, some minutes a run
    python plugins/hetsyn/reproduce/speech.py --data FOLDER --full   # the paper's configuration (hours to days)

FOLDER holds ``*train*.h5`` and ``*test*.h5`` in the layout of the Heidelberg digits. Numbers are named after the files:
only the published files are the published benchmark. Nothing is chosen on the test samples: epochs are fixed, and the
weights after the last one are scored once. Every finished run is recorded and not repeated.

The recipe (appendix D, table 2): two recurrent layers of 128 and 64; tau_s fixed at 20 ms in homogeneous models, drawn
from U(5, 20) ms in the others; tau_J 20 ms in all; adaptation 100 ms, 0.05; dropout 0.2, with adaptation 0.3; AdamW
2e-3, weight decay 4e-3, rates of decays twice that; a warm-up over 5 % and a cosine a batch, constant after epoch 40;
batch 32, 100 epochs; the loss is the cross-entropy of the sum over time of the readout's softmax.

A tenth of the training samples is held out. In the reduction every model gets the same trials: each of three rates
once, in a third of the epochs and with a seed of its own; the one that is best on held-out samples is then run with
the seeds that are reported. ``--full`` has the paper's one rate for all. Pictures: figures 4A (accuracy on held-out
samples over the epochs), 4C and 4F, A3, and the time constants of 4D and A4.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common.budget import Budget
from common.records import spread
from torch import Tensor

from delaykit_hetsyn.layer import attach, param_groups
from delaykit_hetsyn.models import MODELS, HetSynNet, Neurons
from delaykit_hetsyn.surrogates import MultiGaussian
from delaykit_lab import Resumable, command_line, data_folder, read_options, record_path
from delaykit_lab.data.events import EventSet, bin_events
from delaykit_lab.data.robustness import DELETIONS, delete_spikes, warp_factors, warp_time
from delaykit_lab.data.spike_hdf5 import locate, read_events
from delaykit_lab.records.tables import markdown

RATES = {False: (2e-3, 5e-3, 1e-2), True: (2e-3,)}
HELD = 0.1  # share of the training samples that is held out
WARPS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # log2 of the factors in the reduction; --full draws 20


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Args:
        bin_ms: width of a bin; a step counts as a quarter of it in the decays, as the paper's 4 ms bins count 1 ms.
    """

    model: str = "HetSynLIF"
    hidden: tuple[int, ...] = (64,)
    channels: int = 140
    bin_ms: float = 20.0
    epochs: int = 15
    train: int | None = 1000
    test: int | None = 480
    lr: float = 5e-3
    batch: int = 32
    last_cosine_epoch: int | None = None
    warps: int | None = None
    held: float = HELD
    seed: int = 0

    def title(self) -> str:
        """Name for files and progress bars."""
        return f"R-{self.model} {'+'.join(map(str, self.hidden))}, lr {self.lr:g}, {self.seed}"


FULL = Run(
    hidden=(128, 64),
    channels=700,
    bin_ms=4.0,
    epochs=100,
    train=None,
    test=None,
    lr=2e-3,
    last_cosine_epoch=40,
    warps=20,
)


class Data:
    """The recordings, read once."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.parts = {}
        for name, count in (("train", run.train), ("test", run.test)):
            events = read_events(locate(folder, name))
            self.parts[name] = events if count is None else drawn(events, count)
        everything = drawn(self.parts["train"], len(self.parts["train"]))
        held = round(run.held * len(everything))
        self.parts["held"], self.parts["train"] = part_of(everything, 0, held), part_of(everything, held, None)
        self.classes = 1 + int(self.parts["train"].labels.max())

    def frames(self, part: str, run: Run, factor: float = 1.0) -> Tensor:
        """Bin one part, warped by ``factor``: ``(time, sample, channel)``, uint8."""
        events = self.parts[part] if factor == 1.0 else warp_time(self.parts[part], factor)
        return torch.from_numpy(bin_events(events, run.bin_ms, run.channels, 1000.0 * factor).frames)

    def labels(self, part: str) -> Tensor:
        """Class of every sample."""
        return torch.from_numpy(self.parts[part].labels)


def drawn(events: EventSet, count: int) -> EventSet:
    """Draw ``count`` samples, the same for every run."""
    index = np.random.default_rng(0).permutation(len(events))[:count]
    return EventSet(
        [events.times[k] for k in index], [events.units[k] for k in index], events.labels[index], events.n_units
    )


def part_of(events: EventSet, start: int, stop: int | None) -> EventSet:
    """Return the samples from one place to another."""
    some = slice(start, stop)
    return EventSet(events.times[some], events.units[some], events.labels[some], events.n_units)


def neurons_of(run: Run) -> Neurons:
    """Return what appendix D says about the neurons."""
    return Neurons(
        dt_ms=run.bin_ms / 4, tau=("uniform", 5.0, 20.0), tau_homogeneous=20.0, tau_reset=20.0, tau_adaptation=100.0,
        adaptation=0.05, surrogate=MultiGaussian(),
    )  # fmt: skip


def train(run: Run, data: Data, state: Path, score: bool = True) -> dict:
    """Train one network, or go on with it; ``score`` it on the test samples, undisturbed and disturbed."""
    generator = torch.Generator().manual_seed(run.seed)
    adaptive = run.model == "HomNeuALIF"
    sizes, dropout = (run.channels, *run.hidden, data.classes), 0.3 if adaptive else 0.2
    net = HetSynNet(run.model, sizes, True, neurons_of(run), dropout=dropout, generator=generator)
    optimizer = torch.optim.AdamW(param_groups(net, run.lr, 2 * run.lr), weight_decay=4e-3)
    attach(optimizer, net)
    before = time_constants(net)
    rates = [group["lr"] for group in optimizer.param_groups]
    frames, labels = data.frames("train", run), data.labels("train")
    steps = math.ceil(len(labels) / run.batch)
    training = Resumable(state, net, optimizer, generator, dataclasses.asdict(run))
    for epoch in training.epochs(run.epochs, f"{run.model}, seed {run.seed}"):
        torch.manual_seed(1000 * run.seed + epoch)  # dropout: the same after an interruption
        total = 0.0
        net.train()
        for k, index in enumerate(torch.randperm(len(labels), generator=generator).split(run.batch)):
            for group, highest in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = highest * rate(epoch * steps + k, run, steps)
            loss = F.cross_entropy(logits(net, frames[:, index].float()), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) / steps
        held = accuracy(net.eval(), data.frames("held", run), data.labels("held"))
        training.history.append({"loss": total, "held": held})
    history = training.history
    result = {
        "losses": [round(one["loss"], 4) for one in history], "curve": [round(one["held"], 4) for one in history],
        "validation": history[-1]["held"], "cpu_s": sum(one["cpu_s"] for one in history), "lr": run.lr,
        "parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
    }  # fmt: skip
    if score:
        result |= {**judge(net.eval(), run, data), "tau_before": before, "tau_after": time_constants(net)}
    state.unlink()
    return result


def rate(step: int, run: Run, steps: int) -> float:
    """Warm up over 5 % of the training, then follow a cosine; constant after the epoch that the run names."""
    last = (run.last_cosine_epoch or run.epochs) * steps
    warm = 0.05 * run.epochs * steps
    if step < warm:
        return (step + 1) / warm
    progress = (min(step, last) - warm) / (run.epochs * steps - warm)
    return 0.5 * (1 + math.cos(math.pi * progress))


def logits(net: HetSynNet, spikes: Tensor) -> Tensor:
    """Sum the softmax of the readout over time."""
    return net(spikes).readout.softmax(-1).sum(0)


@torch.no_grad()
def accuracy(net: HetSynNet, frames: Tensor, labels: Tensor, lost: float = 0.0, seed: int = 0) -> float:
    """Return the share of right answers, with a share of the spikes lost."""
    generator, right = torch.Generator().manual_seed(seed), 0
    for index in torch.arange(len(labels)).split(120):
        spikes = delete_spikes(frames[:, index].float(), lost, generator)
        right += int((logits(net, spikes).argmax(1) == labels[index]).sum())
    return right / len(labels)


def judge(net: HetSynNet, run: Run, data: Data) -> dict:
    """Score undisturbed, with lost spikes and in warped time."""
    frames, labels = data.frames("test", run), data.labels("test")
    logs = list(WARPS)
    if run.warps is not None:
        logs = sorted(math.log2(f) for f in warp_factors(run.warps, torch.Generator().manual_seed(run.seed)))
    return {
        "test": accuracy(net, frames, labels),
        "deletion": {f"{p:g}": accuracy(net, frames, labels, p, run.seed) for p in DELETIONS},
        "warp": {f"{k:.3f}": accuracy(net, data.frames("test", run, 2.0**k), labels) for k in logs},
        "rate": [float(s.mean()) for s in _spikes(net, frames)],
    }


def time_constants(net: HetSynNet) -> dict[str, list[int]]:
    """Count the time constants of every connection, by its name."""
    found = {}
    for k, layer in enumerate(net.layers):
        found[f"into layer {k + 1}"] = tau_histogram(layer.input.tau_ms())
        if layer.recurrent is not None:
            found[f"within layer {k + 1}"] = tau_histogram(layer.recurrent.tau_ms())
    return {**found, "readout": tau_histogram(net.readout.tau_ms())}


def tau_histogram(tau: Tensor) -> list[int]:
    """Count time constants in bins of 2 ms to 100 ms."""
    return torch.histc(tau.clamp(max=100.0), 50, 0.0, 100.0).int().tolist()


@torch.no_grad()
def _spikes(net: HetSynNet, frames: Tensor) -> list[Tensor]:
    return net(frames[:, :64].float()).spikes


def compared(
    models: list[str], base: Run, recordings: Path, full: bool, seeds: int, folder: Path
) -> tuple[dict[str, list[dict]], dict[str, float]]:
    """Run what is missing; return the results and the rate of each model."""
    data = Data(recordings, base)

    def go(run: Run, score: bool = True) -> dict:
        place = folder if score else folder / "tuning"
        place.mkdir(parents=True, exist_ok=True)
        return train(run, data, record_path(place, run).with_suffix(".safetensors"), score)

    tuning = {"epochs": max(1, base.epochs // 3)}
    files = [locate(recordings, part) for part in ("train", "test")]
    better = lambda result: result["validation"]  # noqa: E731
    budget = Budget(
        base, go, RATES[full], better, seeds, folder, tuning, trial=lambda run: go(run, score=False), data=files
    )
    tuned = {model: budget.tuned(model=model) for model in models}
    return {model: runs for model, (_, runs) in tuned.items()}, {model: rate for model, (rate, _) in tuned.items()}


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with *train*.h5 and *test*.h5 in the layout of the Heidelberg digits"
    full = "the paper's configuration (hours to days)"
    parser = command_line(__doc__, out="runs/hetsyn_speech", full=full, epochs=True, data=data)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--hidden", nargs="+", type=int, help="numbers of neurons other than the configuration's")
    parser.add_argument("--train", type=int, help="training samples other than the configuration's")
    parser.add_argument("--test", type=int, help="test samples")
    args = read_options(parser)
    recordings, folder = data_folder(args), args.out
    base = FULL if args.full else Run()
    hidden = tuple(args.hidden or base.hidden)
    sizes = {"train": args.train or base.train, "test": args.test or base.test}
    base = dataclasses.replace(base, epochs=args.epochs or base.epochs, hidden=hidden, **sizes)
    found, rates = compared(args.models, base, recordings, args.full, args.seeds, folder)
    name = locate(recordings, "train").stem
    kind = (
        "paper configuration"
        if args.full
        else f"reduction: {base.train} training samples, {'+'.join(map(str, hidden))} neurons, {base.epochs} epochs"
    )
    title = f"{name}, {kind}, {args.seeds} seeds, mean (smallest .. largest) of the test accuracy (%)"
    rows = []
    for model, runs in found.items():
        ends = [list(r["warp"].values()) for r in runs]
        cells = [
            [r["test"] for r in runs], [r["deletion"]["0.16"] for r in runs], [r["deletion"]["0.64"] for r in runs],
            [e[0] for e in ends], [e[-1] for e in ends],
        ]  # fmt: skip
        rows.append([f"R-{model}", f"{rates[model]:g}", *(spread([100 * v for v in cell]) for cell in cells)])
    head = ["model", "rate", "undisturbed", "16 % lost", "64 % lost", "warp -0.5", "warp +0.5"]
    text = f"{title}\n\n{markdown(head, rows)}\n"
    (folder / "table.md").write_text(text)
    print(text)
    from common import speech_pictures as pictures

    title = f"{name} ({kind})"
    pictures.robustness(found, title, folder / "robustness.png")
    pictures.learning_curves(found, title, folder / "learning.png")
    pictures.conditions(found, title, folder / "conditions.png")
    learned = [model for model in ("HetSynLIF", "HetNeuLIF") if model in found][:1]
    for model in learned:  # homogeneous ones have nothing to show
        pictures.time_constants(found[model][0], f"R-{model}, {title}", folder / "time_constants.png")


if __name__ == "__main__":
    main()
