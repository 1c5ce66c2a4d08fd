"""Learned recurrent delays against every control, at equal numbers of parameters.

    python plugins/delrec/reproduce/equal_parameters.py                       # vowels, a labelled reduction
    python plugins/delrec/reproduce/equal_parameters.py --task speech --data FOLDER
    python plugins/delrec/reproduce/equal_parameters.py --task psmnist --data FOLDER      # 14 x 14 pixels
    python plugins/delrec/reproduce/equal_parameters.py --task shd --data FOLDER --full
    python plugins/delrec/reproduce/equal_parameters.py --task ssc --data FOLDER --full
    python plugins/delrec/reproduce/equal_parameters.py --task psmnist --data FOLDER --full

Every finished run is recorded under runs/ and not repeated; an interrupted one resumes at its last epoch. Choices are
made on validation data; the test set is scored once, at the end, at real and at whole delays. Without --full the nets,
the epochs and the training set are smaller than the paper's, and the table says so. Data that are not the published
SHD or SSC files must be called ``speech``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from common.comparison import compared
from common.networks import Net, Shape
from common.records import table
from common.variants import VARIANTS, Variant, count, make
from torch.nn import functional

import delaykit as dk
from delaykit.plotting import accuracies, style
from delaykit_delrec import DCLS, RECIPES, DelRec, Recipe
from delaykit_lab import Resumable, command_line, data_folder, read_options
from delaykit_lab.runner import accuracy, predict
from delaykit_lab.task import Frames, Splits
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels
from delaykit_lab.tasks.mnist import MNIST
from delaykit_lab.tasks.spike_files import SpikeFiles

SPEECH = Shape((64,), (True,), tau=2.0, alpha=5.0, normalize=True, readout="leaky")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One task: its reduction or the paper's configuration."""

    shape: Shape
    recipe: Recipe
    delrec: DelRec
    dcls: DCLS
    epochs: int
    batch_size: int


def plan_of(task: str, full: bool) -> Plan:
    """Return the paper's configuration (specification table) or its reduction."""
    recipe = RECIPES[task if task in RECIPES else "shd"]
    half_normal = DelRec(max_delay=60, init="half-normal", scale=12.0)
    uniform = DelRec(max_delay=40, init="uniform", low=10.0, high=30.0, dropout=0.2)
    if full and task == "shd":
        shape = Shape((256, 256), (False, True), 1.05, True, 5.0, True, 0.4, "leaky")
        return Plan(shape, recipe, uniform, DCLS(25), recipe.epochs, recipe.batch_size)
    if full and task == "ssc":
        delrec = dataclasses.replace(half_normal, learn_spread=True, dropout=0.3)
        shape = Shape((256,) * 3, (True,) * 3, dropout=0.1)
        return Plan(shape, recipe, delrec, DCLS(31), recipe.epochs, recipe.batch_size)
    if full and task == "psmnist":
        delrec = dataclasses.replace(half_normal, learn_spread=True, dropout=0.2)
        shape = Shape((64, 212, 212), (True,) * 3, dropout=0.1, scale=1 / 255)
        return Plan(shape, recipe, delrec, DCLS(31), recipe.epochs, recipe.batch_size)
    small = DelRec(max_delay=25, init="half-normal", scale=8.0, sigma=5.0)
    shape = dataclasses.replace(SPEECH, widths=(32,) if task == "vowels" else (64,))
    if task == "psmnist":
        shape = Shape((64,), (True,), scale=1 / 255)
        recipe = dataclasses.replace(recipe, peak_lr=5e-3)  # for epochs as few as these
    sizes = {"vowels": (40, 32), "psmnist": (8, 64)}
    epochs, batch_size = sizes.get(task, (12, 64))
    return Plan(shape, recipe, small, DCLS(15, sigma=5.0), epochs, batch_size)


def data_of(task: str, folder: str | None, full: bool, seed: int) -> Splits:
    """Read one task."""
    if task == "vowels":
        return JapaneseVowels().splits(seed)
    if task == "psmnist":
        images = MNIST(path=folder, validation=0.17, limit=None if full else 6000).images(seed)

        def scan(part) -> Frames:
            pixels = part.values.unflatten(1, (28, 28))
            if not full:  # a quarter of the steps: every other pixel is the mean of four
                pixels = functional.avg_pool2d(pixels.unsqueeze(1), 2).squeeze(1)
            pixels = (pixels.flatten(1) * 255).round().to(torch.uint8)
            order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(0))
            return Frames(pixels[:, order].T.unsqueeze(-1).contiguous(), part.labels)

        return Splits(scan(images.train), scan(images.validation), scan(images.test))
    options = {"shd": (10.0, 1000.0), "ssc": (5.6, 1400.0), "speech": (10.0, 1000.0)}[task]
    dt_ms, duration = options if full else (20.0, 1000.0)
    limit = None if full else 1500
    return SpikeFiles(folder, dt_ms=dt_ms, duration_ms=duration, limit=limit).splits(seed)


def blend(spikes: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augment as the SHD recipe does: a third clean, a third with shifted channels, a third same-class blends."""
    kind = torch.randint(3, (len(labels),), generator=generator)
    out = spikes.clone()
    shift = torch.randint(-20, 21, (len(labels),), generator=generator)  # 100 of 700 channels are 20 of 140
    for k in range(len(labels)):
        if kind[k] == 1:
            out[:, k] = spikes[:, k].roll(int(shift[k]), -1)
        elif kind[k] == 2:
            partners = (labels == labels[k]).nonzero()[:, 0]
            partner = partners[torch.randint(len(partners), (1,), generator=generator)]
            take = torch.rand(spikes.shape[0], 1, generator=generator) < 0.5
            out[:, k] = torch.where(take, spikes[:, k], spikes[:, int(partner)])
    return out


def train(net: Net, splits: Splits, plan: Plan, seed: int, state: Path, augment: bool, label: str) -> dict[str, float]:
    """Train one network and score it once on the test set."""
    wrapped = any(isinstance(m, dk.PointDelay) for m in net.modules())
    if wrapped:
        optimizer = plan.recipe.make_optimizer(net)
    else:
        lr = plan.recipe.peak_lr or plan.recipe.lr
        kind = getattr(torch.optim, plan.recipe.optimizer)
        groups = [{"params": list(net.parameters()), "weight_decay": plan.recipe.weight_decay}, {"params": []}]
        optimizer = kind(groups, lr=lr)
    schedule = plan.recipe.make_scheduler(optimizer, plan.epochs)
    generator = torch.Generator().manual_seed(seed)
    training = Resumable(state, net, optimizer, generator, {"plan": repr(plan), "seed": seed})
    for epoch in training.epochs(plan.epochs, label):
        for group, rate, course in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = rate * course(epoch)
        total = 0.0
        net.train()
        for index in torch.randperm(len(splits.train), generator=generator).split(plan.batch_size):
            spikes, labels = splits.train.batch(index)
            loss = functional.cross_entropy(net(blend(spikes, labels, generator) if augment else spikes), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(index) / len(splits.train)
        if wrapped:
            dk.advance_(net, (epoch + 1) / plan.epochs)
        training.history.append({"loss": total})
    result = {"validation": accuracy(predict(net, splits.validation), splits.validation), "parameters": count(net)}
    result["test"] = result["whole"] = accuracy(predict(net, splits.test), splits.test)
    if wrapped:
        with dk.discretized(net):
            result["whole"] = accuracy(predict(net, splits.test), splits.test)
    state.unlink(missing_ok=True)
    return result


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with the data; the vowels need none"
    full = "the paper's configuration (hours to days)"
    parser = command_line(__doc__, out="runs/delrec_{task}", full=full, epochs=True, data=data)
    parser.add_argument("--task", default="vowels", choices=["vowels", "speech", "shd", "ssc", "psmnist"])
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", default=names, choices=names, help="leave the others out")
    args = read_options(parser)
    if args.task in ("speech", "shd", "ssc"):
        data_folder(args)
    plan = plan_of(args.task, args.full)
    plan = dataclasses.replace(plan, epochs=args.epochs or plan.epochs)
    kind = "paper configuration" if args.full else f"reduction: {plan.shape.widths} neurons, {plan.epochs} epochs"
    folder = args.out
    chosen = [variant for variant in VARIANTS if variant.name in args.variants]
    rows: dict[str, list[dict]] = {variant.name: [] for variant in chosen}
    for seed in range(args.seeds):
        splits = data_of(args.task, args.data, args.full, seed)
        channels, classes = splits.train.spikes.shape[-1], int(splits.train.labels.max()) + 1

        def build(variant: Variant, shape: Shape, channels=channels, classes=classes, seed=seed) -> Net:
            return make(variant, channels, classes, shape, plan.delrec, plan.dcls, seed)

        def run(net: Net, variant: Variant, state: Path, splits=splits, seed=seed) -> dict:
            augment = args.full and args.task == "shd"
            return train(net, splits, plan, seed, state, augment, f"{variant.name}, seed {seed}")

        for name, result in compared(chosen, plan.shape, build, run, plan, seed, folder).items():
            rows[name].append(result)
    columns = {"validation": "validation (%)", "test": "test (%)", "whole": "test, whole delays (%)"}
    text = f"{args.task}, {kind}, {args.seeds} seeds, mean ± standard error\n\n{table(rows, columns, 100.0)}\n"
    (folder / "table.md").write_text(text)
    print(text)
    from matplotlib import pyplot

    with style():
        ax = accuracies({name: [run["test"] for run in runs] for name, runs in rows.items()})
        ax.set_title(f"{args.task} ({kind})")
        pyplot.savefig(folder / "accuracies.png")


if __name__ == "__main__":
    main()
