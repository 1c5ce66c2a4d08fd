"""Forecast the Mackey-Glass series: a system with a delay of its own, against networks with and without delays.

    python plugins/delrec/reproduce/mackey_glass.py            # a labelled reduction, minutes
    python plugins/delrec/reproduce/mackey_glass.py --full     # 256 neurons, 200 epochs

From x(t) alone the network says x(t + horizon) at every step. Score: root mean squared error over the series' standard
deviation (NRMSE), on a part of the series that follows training and validation, scored once at the end at real and at
whole delays. Persistence (saying x(t)) and a linear regression on the last 32 values stand beside it. Every finished
run is recorded under runs/ and not repeated.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from common.comparison import compared
from common.networks import Net, Shape
from common.records import table
from common.variants import VARIANTS, Variant, count, make
from torch import Tensor
from tqdm import tqdm

import delaykit as dk
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.plotting import CATEGORIES, style
from delaykit_delrec import DCLS, DelRec
from delaykit_lab import command_line, read_options
from delaykit_lab.data.mackey_glass import mackey_glass

WARM_UP, WINDOW, BATCH, LAGS = 60, 200, 32, 32
LENGTHS = {"train": 3000, "validation": 1000, "test": 1000}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes and rates."""

    width: int = 24
    epochs: int = 25
    steps: int = 12
    horizon: int = 6
    lr: float = 5e-3
    delay_lr: float = 0.1


def series(seed: int) -> dict[str, Tensor]:
    """Return the three parts, one after the other, in standard deviations of the training part."""
    whole = mackey_glass(sum(LENGTHS.values()), generator=torch.Generator().manual_seed(100 + seed)).float()
    parts = dict(zip(LENGTHS, whole.split(list(LENGTHS.values())), strict=True))
    mean, std = parts["train"].mean(), parts["train"].std()
    return {name: (part - mean) / std for name, part in parts.items()}


def forecast(net: Net, x: Tensor) -> Tensor:
    """(time, batch, 1) -> (time, batch): a membrane of the readout that never spikes."""
    current = net.readout(net.hidden(x))
    return rollout(current, None, None, None, LIFDynamics(decay=0.8))[1][..., 0]


def nrmse(found: Tensor, wanted: Tensor) -> float:
    """Root mean squared error over the standard deviation of what was wanted."""
    return float((found - wanted).pow(2).mean().sqrt() / wanted.std())


@torch.no_grad()
def score(net: Net, part: Tensor, horizon: int) -> float:
    """Run once through a whole part of the series."""
    net.eval()
    said = forecast(net, part[:-horizon].view(-1, 1, 1))[:, 0]
    return nrmse(said[WARM_UP:], part[horizon:][WARM_UP:])


def train(net: Net, parts: dict[str, Tensor], plan: Plan, seed: int, label: str) -> dict[str, float]:
    """Train on random windows of the training part; score the others."""
    wrapped = any(isinstance(m, dk.PointDelay) for m in net.modules())
    groups = dk.param_groups(net, plan.lr, plan.delay_lr) if wrapped else net.parameters()
    optimizer = torch.optim.Adam(groups, lr=plan.lr)
    if wrapped:
        dk.attach(optimizer, net)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.epochs)
    generator = torch.Generator().manual_seed(seed)
    x = parts["train"]
    for epoch in tqdm(range(plan.epochs), desc=label, leave=False, mininterval=5):
        net.train()
        for _ in range(plan.steps):
            start = torch.randint(len(x) - WINDOW - plan.horizon, (BATCH,), generator=generator)
            window = torch.stack([x[s : s + WINDOW + plan.horizon] for s in start], 1)
            said = forecast(net, window[: -plan.horizon].unsqueeze(-1))
            loss = (said - window[plan.horizon :])[WARM_UP:].pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        scheduler.step()
        if wrapped:
            dk.advance_(net, (epoch + 1) / plan.epochs)
    result = {"parameters": count(net), "validation": score(net, parts["validation"], plan.horizon)}
    result["test"] = result["whole"] = score(net, parts["test"], plan.horizon)
    if wrapped:
        with dk.discretized(net):
            result["whole"] = score(net, parts["test"], plan.horizon)
    return result


def baselines(parts: dict[str, Tensor], horizon: int) -> dict[str, float]:
    """Score persistence and a linear regression on the last values."""

    def lagged(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.double()  # neighbouring values are nearly equal: float32 cannot solve for their weights
        rows = x[:-horizon].unfold(0, LAGS, 1)
        return torch.cat([rows, torch.ones_like(rows[:, :1])], 1), x[LAGS - 1 + horizon :]

    rows, wanted = lagged(parts["train"])
    solution = torch.linalg.lstsq(rows, wanted.unsqueeze(1)).solution
    test_rows, test = lagged(parts["test"])
    return {
        "persistence": nrmse(parts["test"][:-horizon], parts["test"][horizon:]),
        f"linear, {LAGS} lags": nrmse((test_rows @ solution)[:, 0], test),
    }


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    full = "256 neurons, 200 epochs of 50 steps"
    args = read_options(command_line(__doc__, out="runs/delrec_mackey_glass", full=full, epochs=True))
    plan = Plan(width=256, epochs=200, steps=50, delay_lr=5e-2) if args.full else Plan()
    plan = dataclasses.replace(plan, epochs=args.epochs or plan.epochs)
    kind = "full" if args.full else f"reduction: {plan.width} neurons, {plan.epochs * plan.steps} steps"
    shape = Shape((plan.width,), (True,), tau=2.0, alpha=5.0)
    delrec, dcls = DelRec(max_delay=30, scale=10.0, sigma=5.0), DCLS(31, sigma=5.0)
    rows: dict[str, list[dict]] = {variant.name: [] for variant in VARIANTS}
    plain: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        parts = series(seed)
        settings = {"task": "mackey-glass", "full": args.full, "plan": dataclasses.asdict(plan), "seed": seed}
        for name, value in baselines(parts, plan.horizon).items():
            plain.setdefault(name, []).append(value)

        def build(variant: Variant, shape: Shape, seed=seed) -> Net:
            return make(variant, 1, 1, shape, delrec, dcls, seed)

        def run(net: Net, variant: Variant, state: Path, parts=parts, seed=seed) -> dict:
            return train(net, parts, plan, seed, f"{variant.name}, seed {seed}")

        for name, result in compared(VARIANTS, shape, build, run, settings, args.out).items():
            rows[name].append(result)
    columns = {"validation": "validation NRMSE", "test": "test NRMSE", "whole": "test NRMSE, whole delays"}
    text = f"Mackey-Glass, {plan.horizon} steps ahead, {kind}, {args.seeds} seeds, mean ± standard error\n\n"
    text += table(rows, columns, 1.0) + "\n\n"
    text += "; ".join(f"{name}: {sum(values) / len(values):.3g}" for name, values in plain.items()) + "\n"
    (args.out / "table.md").write_text(text)
    print(text)
    draw(rows, args.out / "errors.png", f"Mackey-Glass ({kind})")


def draw(rows: dict[str, list[dict]], path: Path, title: str) -> None:
    """Draw every seed's error as a dot."""
    from matplotlib import pyplot

    with style():
        _, ax = pyplot.subplots(figsize=(6.4, 3.2))
        for k, runs in enumerate(rows.values()):
            ax.plot([run["test"] for run in runs], [k] * len(runs), "o", color=CATEGORIES[0], alpha=0.7)
        ax.set(xlabel="test NRMSE", yticks=range(len(rows)), yticklabels=list(rows), title=title, xlim=(0, None))
        ax.set_ylim(len(rows) - 0.4, -0.6)
        pyplot.savefig(path)


if __name__ == "__main__":
    main()
