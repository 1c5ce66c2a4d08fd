"""Learned recurrent delays against every control, at equal numbers of parameters.

    python plugins/delrec/reproduce/equal_parameters.py                       # vowels, a labelled reduction
    python plugins/delrec/reproduce/equal_parameters.py --task speech --data FOLDER
    python plugins/delrec/reproduce/equal_parameters.py --task psmnist --data FOLDER      # 14 x 14 pixels
    python plugins/delrec/reproduce/equal_parameters.py --task speech --data FOLDER --full     # SHD's net and recipe
    python plugins/delrec/reproduce/equal_parameters.py --task shd --data FOLDER --full
    python plugins/delrec/reproduce/equal_parameters.py --task ssc --data FOLDER --full
    python plugins/delrec/reproduce/equal_parameters.py --task psmnist --data FOLDER --full
    python plugins/delrec/reproduce/equal_parameters.py --task speech --data FOLDER --rates 0.5 1 2

With ``--rates`` every row gets the same trials: the recipe's rates, of weights and of delays, times each factor, once,
in half the epochs and with a seed of its own; the factor that is best on validation is then run with all seeds. Else
every row has the recipe's rates.

Every finished run is recorded and not repeated; an interrupted one resumes at its last epoch. Choices are
made on validation data; the weights after the last epoch meet the test set once, at real and at whole delays. Without
--full the nets, the epochs and the training set are smaller than the paper's, and the table says so. ``shd`` and
``ssc`` read ``FOLDER/SHD`` and ``FOLDER/SSC`` and refuse numbers of samples that are not the published ones: other
files must be called ``speech``.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common.augment import Tripled
from common.comparison import compared
from common.networks import Net, Shape
from common.plans import TASKS, Plan, data_of, files_of, plan_of
from common.records import table
from common.variants import VARIANTS, Variant, count, make
from torch.nn import functional

import delaykit as dk
from delaykit.plotting import accuracies, style
from delaykit_lab import Resumable, command_line, data_folder, read_options
from delaykit_lab.task import Splits
from delaykit_lab.training.runner import accuracy, predict

TUNING_SEED = 1000


def optimizer_of(net: Net, plan: Plan) -> torch.optim.Optimizer:
    """Make the recipe's optimizer, also for a net without delays."""
    recipe = plan.recipe
    if wrapped(net):
        return recipe.make_optimizer(net)
    groups = [{"params": list(net.parameters()), "weight_decay": recipe.weight_decay}, {"params": []}]
    return getattr(torch.optim, recipe.optimizer)(groups, lr=recipe.peak_lr or recipe.lr)


def wrapped(net: Net) -> bool:
    """Whether there are delays."""
    return any(isinstance(module, dk.PointDelay) for module in net.modules())


def fit(
    net: Net, splits: Splits, plan: Plan, seed: int, state: Path, label: str, after: Callable[[], None] | None = None
) -> Resumable:
    """Train one network, or go on with it; its history has the loss and the score on validation of every epoch.

    ``after`` is called after each step of the optimizer, where something has to stay as it was.
    """
    optimizer = optimizer_of(net, plan)
    schedule = plan.recipe.make_scheduler(optimizer, plan.epochs)
    generator = torch.Generator().manual_seed(seed)
    samples = Tripled(splits.train, generator) if plan.tripled else splits.train
    training = Resumable(state, net, optimizer, generator, {"plan": repr(plan), "seed": seed})
    for epoch in training.epochs(plan.epochs, label):
        for group, rate, course in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = rate * course(epoch)
        torch.manual_seed(1000 * seed + epoch)  # dropout: the same after an interruption
        total = 0.0
        net.train()
        for index in torch.randperm(len(samples), generator=generator).split(plan.batch_size):
            spikes, labels = samples.batch(index)
            loss = functional.cross_entropy(net(spikes), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
            optimizer.step()
            if after is not None:
                after()
            total += loss.item() * len(index) / len(samples)
        if wrapped(net):
            dk.advance_(net, (epoch + 1) / plan.epochs)
        held = accuracy(predict(net, splits.validation), splits.validation)
        training.history.append({"loss": total, "validation": held})
    return training


def train(net: Net, splits: Splits, plan: Plan, seed: int, state: Path, label: str) -> dict[str, float]:
    """Train one network and score it once on the test set."""
    training = fit(net, splits, plan, seed, state, label)
    result = judge(net, splits, training.history)
    state.unlink(missing_ok=True)
    return result


def judge(net: Net, splits: Splits, history: list[dict[str, float]]) -> dict[str, Any]:
    """Score the test set, at real and at whole delays."""
    result: dict[str, Any] = {"parameters": count(net), "validation": history[-1]["validation"]}
    result["test"] = result["whole"] = accuracy(predict(net, splits.test), splits.test)
    if wrapped(net):
        with dk.discretized(net):
            result["whole"] = accuracy(predict(net, splits.test), splits.test)
    result["curve"] = [round(one["validation"], 4) for one in history]
    result["loss"] = [round(one["loss"], 4) for one in history]
    return result | {"cpu_s": sum(one["cpu_s"] for one in history)}


def kind_of(plan: Plan, full: bool) -> str:
    """Say what is the paper's and what is not."""
    if not full:
        return f"reduction: {' and '.join(map(str, plan.shape.widths))} neurons, {plan.epochs} epochs"
    less = [] if plan.epochs == plan.recipe.epochs else [f"{plan.epochs} of {plan.recipe.epochs} epochs"]
    return "paper's network and recipe" + "".join(f", {one}" for one in less)


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with the data; the vowels need none"
    full = "the paper's configuration (hours to days)"
    parser = command_line(__doc__, out="runs/delrec_{task}", full=full, epochs=True, data=data)
    parser.add_argument("--task", default="vowels", choices=TASKS)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", default=names, choices=names, help="leave the others out")
    parser.add_argument("--rates", type=float, nargs="+", default=[], help="factors on the rates to choose from")
    parser.add_argument("--plain", action="store_true", help="without the two altered copies of SHD's recipe")
    args = read_options(parser)
    if args.task != "vowels":
        data_folder(args)
    plan = plan_of(args.task, args.full)
    plan = dataclasses.replace(plan, epochs=args.epochs or plan.epochs, tripled=plan.tripled and not args.plain)
    chosen = [variant for variant in VARIANTS if variant.name in args.variants]
    plans = {variant.name: faster(plan, tuned(variant, plan, args)) for variant in chosen}
    rows: dict[str, list[dict]] = {variant.name: [] for variant in chosen}
    for seed in range(args.seeds):
        splits = data_of(args.task, args.data, args.full, seed)
        for variant in chosen:
            rows[variant.name].append(once(variant, plans[variant.name], splits, seed, args, args.out, train))
    report(rows, f"{args.task}, {kind_of(plan, args.full)}", args.out)


def faster(plan: Plan, factor: float) -> Plan:
    """Multiply the recipe's rates, those of weights and of delays."""
    old = plan.recipe
    peak = None if old.peak_lr is None else old.peak_lr * factor
    recipe = dataclasses.replace(old, lr=old.lr * factor, peak_lr=peak, delay_lr=old.delay_lr * factor)
    return plan if factor == 1 else dataclasses.replace(plan, recipe=recipe)


def tuned(variant: Variant, plan: Plan, args: Namespace) -> float:
    """Return the factor on the recipe's rates that is best on validation; 1 where none are to be tried."""
    if not args.rates:
        return 1.0
    splits = data_of(args.task, args.data, args.full, TUNING_SEED)
    short = dataclasses.replace(plan, epochs=max(1, plan.epochs // 2))

    def trial(net: Net, splits: Splits, plan: Plan, seed: int, state: Path, label: str) -> dict[str, Any]:
        training = fit(net, splits, plan, seed, state, label)
        state.unlink(missing_ok=True)
        spent = sum(one["cpu_s"] for one in training.history)
        return {"validation": training.history[-1]["validation"], "parameters": count(net), "cpu_s": spent}

    scores = {}
    for factor in args.rates:
        one = once(variant, faster(short, factor), splits, TUNING_SEED, args, args.out / "tuning", trial)
        scores[factor] = one["validation"]
    return max(scores, key=lambda factor: scores[factor])


def once(
    variant: Variant, plan: Plan, splits: Splits, seed: int, args: Namespace, folder: Path,
    train: Callable[[Net, Splits, Plan, int, Path, str], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Train one variant at its equal size, or remember."""
    settings = {"task": args.task, "full": args.full, "plan": dataclasses.asdict(plan), "seed": seed}
    settings["samples"] = len(splits.train)
    channels, classes = splits.train.spikes.shape[-1], int(splits.train.labels.max()) + 1

    def build(variant: Variant, shape: Shape) -> Net:
        return make(variant, channels, classes, shape, plan.delrec, plan.dcls, seed)

    def run(net: Net, variant: Variant, state: Path) -> dict[str, Any]:
        state.parent.mkdir(parents=True, exist_ok=True)
        return train(net, splits, plan, seed, state, f"{variant.name}, seed {seed}")

    files = files_of(args.task, args.data)
    return compared([variant], plan.shape, build, run, settings, folder, files)[variant.name]


def report(rows: dict[str, list[dict]], title: str, folder: Path) -> None:
    """Write the table and the picture."""
    columns = {"validation": "validation (%)", "test": "test (%)", "whole": "test, whole delays (%)"}
    seeds = len(next(iter(rows.values())))
    text = f"{title}, {seeds} seed(s), mean ± standard error\n\n{table(rows, columns, 100.0)}\n"
    (folder / "table.md").write_text(text)
    print(text)
    from matplotlib import pyplot

    with style():
        ax = accuracies({name: [run["test"] for run in runs] for name, runs in rows.items()})
        ax.set_title(title)
        pyplot.savefig(folder / "accuracies.png")


if __name__ == "__main__":
    main()
