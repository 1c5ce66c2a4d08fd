"""Delayed match to sample: the paper's four models, and how HetSyn bears delay, noise, frozen decays and small size.

    python plugins/hetsyn/reproduce/match_to_sample.py            # a labelled reduction, about an hour on one core
    python plugins/hetsyn/reproduce/match_to_sample.py --full     # the paper's recipe, iterations and runs

The recipe (appendix C): dt 5 ms; tau_s fixed at 40 ms in homogeneous models, drawn from N(40, 4) ms in the others;
tau_J 40 ms in all; adaptation 800 ms, 0.15; Adam 5e-3, a fifth less every 100 iterations; 1000 iterations, batch 32.
The paper says nothing about how weights are drawn; the input weights' gain of 3 is ours.

In the reduction every model gets the same budget: each of the learning rates once, with a seed of its own, judged on
500 trials; the best one is then run with the seeds that are reported. Each is tested on 1000 new trials. Every finished
run is recorded and not repeated.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common.budget import Budget
from common.records import spread, thinned
from tqdm import tqdm

from delaykit.plotting import CATEGORIES, style
from delaykit_hetsyn.layer import attach, param_groups
from delaykit_hetsyn.models import MODELS, HetSynNet, Neurons
from delaykit_hetsyn.regularise import rate_penalty
from delaykit_lab import command_line, read_options
from delaykit_lab.tasks.match_to_sample import MatchToSample, iterations_to

RATES = {False: (5e-3, 2e-2), True: (5e-3,)}
# Of the frozen shares the last is ours: no decay learns, what is left is that they differ.
SUCCESS = 0.9  # test accuracy of a run that succeeded
DELAYS, NOISES, FROZEN = (800.0, 1600.0, 2500.0), (0.0, 5.0, 10.0, 20.0), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PARTS = ("headlines", "models", "delay", "frozen", "noise", "size", "noise of all")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Args:
        patience: stop after so many batches in a row without a mistake; None: never.
    """

    model: str = "HetSynLIF"
    recurrent: bool = True
    hidden: int = 100
    delay_ms: float = 800.0
    noise_hz: float = 0.0
    frozen: float = 0.0
    lr: float = 5e-3
    iterations: int = 1000
    patience: int | None = 20
    gain: float = 3.0
    seed: int = 0

    def title(self) -> str:
        """Name for progress bars."""
        grain = f"{'R' if self.recurrent else 'F'}-{self.model} {self.hidden}"
        return (
            f"{grain}, {self.delay_ms:g} ms, {self.noise_hz:g} Hz, frozen {self.frozen:g}, lr {self.lr:g}, {self.seed}"
        )


def network(run: Run, generator: torch.Generator) -> HetSynNet:
    """Build the network of a run, as appendix C says."""
    neurons = Neurons(
        dt_ms=5.0, tau=("normal", 40.0, 4.0), tau_homogeneous=40.0, tau_reset=40.0, tau_adaptation=800.0,
        adaptation=0.15, gain=run.gain, frozen=run.frozen,
    )  # fmt: skip
    return HetSynNet(run.model, (30, run.hidden, 2), run.recurrent, neurons, generator=generator)


def train(run: Run) -> dict:
    """Train and test one network."""
    generator = torch.Generator().manual_seed(run.seed)
    task = MatchToSample(delay_ms=run.delay_ms, noise_hz=run.noise_hz)
    net = network(run, generator)
    optimizer = torch.optim.Adam(param_groups(net, run.lr))
    attach(optimizer, net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.8)
    accuracy: list[float] = []
    start, faultless = time.process_time(), 0
    for _ in tqdm(range(run.iterations), desc=run.title(), leave=False, mininterval=10):
        spikes, labels, _ = task.trials(32, generator)
        answer = net(spikes)
        loss = F.cross_entropy(answer.readout[-1], labels) + 0.01 * rate_penalty(answer.spikes[0], task.dt_ms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        accuracy.append(float((answer.readout[-1].argmax(1) == labels).float().mean()))
        faultless = faultless + 1 if accuracy[-1] == 1.0 else 0
        if run.patience is not None and faultless >= run.patience:
            break
    seconds = time.process_time() - start
    return {
        "validation": test(net, task, 500, 10_000 + run.seed),
        "test": test(net, task, 1000, 20_000 + run.seed),
        "iterations_to_95": iterations_to(accuracy),
        "iterations": len(accuracy),
        "parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "cpu_s": seconds,
        "accuracy": thinned(accuracy),
    }


@torch.no_grad()
def test(net: HetSynNet, task: MatchToSample, trials: int, seed: int) -> float:
    """Return the share of right answers in new trials."""
    spikes, labels, _ = task.trials(trials, torch.Generator().manual_seed(seed))
    return float((net(spikes).readout[-1].argmax(1) == labels).float().mean())


def models(budget: Budget, hidden: int) -> list[str]:
    """Compare the four models, feed-forward and recurrent."""
    lines = [
        f"\nFour models, {hidden} hidden neurons, delay 800 ms\n",
        "| model | lr | test accuracy (%) | iterations to 95 % | runs >= 90 % |",
        "|---|---|---|---|---|",
    ]
    for recurrent in (False, True):
        for model in MODELS:
            lr, found = budget.tuned(model=model, recurrent=recurrent, hidden=hidden)
            lines.append(f"| {'R' if recurrent else 'F'}-{model} | {lr:g} | {row(found)} | {successes(found)} |")
    return lines


def noises(budget: Budget, hidden: int, levels: tuple[float, ...], path: Path) -> list[str]:
    """Add noise to every model: share of runs that succeed (as figure 3D counts them), in a table and a picture."""
    lines = [f"\nRuns >= 90 % under added noise, {hidden} hidden neurons\n"]
    lines += ["| model | " + " | ".join(f"{noise:g} Hz" for noise in levels) + " |", "|---|" + "---|" * len(levels)]
    shares: dict[str, list[float]] = {}
    for recurrent in (False, True):
        for model in MODELS:
            given = {"model": model, "recurrent": recurrent, "hidden": hidden}
            runs = [budget.tuned(noise_hz=noise, **given)[1] for noise in levels]
            name = f"{'R' if recurrent else 'F'}-{model}"
            shares[name] = [sum(r["test"] >= SUCCESS for r in found) / len(found) for found in runs]
            lines.append(f"| {name} | " + " | ".join(successes(found) for found in runs) + " |")
    draw_success(shares, levels, hidden, path)
    return lines


def draw_success(shares: dict[str, list[float]], levels: tuple[float, ...], hidden: int, path: Path) -> None:
    """Draw the share of runs that succeed: a group of bars a model, a bar a level of noise."""
    from matplotlib import pyplot

    with style():
        ax = pyplot.subplots(figsize=(10, 3.4))[1]
        width = 0.8 / len(levels)
        for k, (color, noise) in enumerate(zip(CATEGORIES, levels, strict=False)):
            at = [x + (k - (len(levels) - 1) / 2) * width for x in range(len(shares))]
            values = [100 * of[k] for of in shares.values()]
            ax.bar(at, values, 0.9 * width, color=color, label=f"{noise:g} Hz of noise")
            for x, value in zip(at, values, strict=True):  # a bar of no height is to be seen, too
                ax.plot(x, value, "_", color=color, markersize=10, markeredgewidth=2)
        ax.set(xticks=range(len(shares)), xticklabels=[name.replace("-", "-\n") for name in shares])
        ax.set(ylabel="runs of which 90 % are right (%)", ylim=(0, 105), title=f"{hidden} hidden neurons")
        ax.grid(axis="x", visible=False)
        ax.legend(fontsize=9)
        ax.figure.savefig(path)
        pyplot.close(ax.figure)


def sweep(budget: Budget, title: str, name: str, values: tuple, seeds: int | None = None, **fixed) -> list[str]:
    """Vary one thing of R-HetSynLIF or F-HetSynLIF."""
    lines = [f"\n{title}\n", f"| {name} | test accuracy (%) | iterations to 95 % | runs >= 90 % |", "|---|---|---|---|"]
    for value in values:
        found = budget.seeded(seeds, **fixed, **{name: value})
        lines.append(f"| {value:g} | {row(found)} | {successes(found)} |")
    return lines


def successes(found: list[dict]) -> str:
    """Count the runs of which at least nine answers in ten are right."""
    return f"{sum(r['test'] >= SUCCESS for r in found)} of {len(found)}"


def headlines(budget: Budget) -> list[str]:
    """Ask for the two headlines: five recurrent neurons, and a hundred without recurrence."""
    lines = sweep(budget, "R-HetSynLIF, five neurons", "hidden", (5,), 5)
    return lines + sweep(budget, "F-HetSynLIF", "hidden", (100,), recurrent=False)


def delays(budget: Budget, hidden: int) -> list[str]:
    """Lengthen the gap."""
    lines = sweep(budget, f"Delay, R-HetSynLIF {hidden}", "delay_ms", DELAYS, hidden=hidden)
    return lines + sweep(budget, "Delay, F-HetSynLIF 100", "delay_ms", DELAYS, recurrent=False)


def row(found: list[dict]) -> str:
    """Write two cells of a table."""
    steps = [r["iterations_to_95"] for r in found]
    reached = [s for s in steps if s is not None]
    text = spread([float(s) for s in reached], 0) if reached else "-"
    if 0 < len(reached) < len(steps):
        text += f", {len(reached)} of {len(steps)} runs"
    return f"{spread([100 * r['test'] for r in found])} | {text}"


def draw(budget: Budget, hidden: int, path: Path) -> None:
    """Draw the learning curves of the eight models, one line a seed."""
    from matplotlib import pyplot

    with style():
        _, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
        for ax, recurrent in zip(axes, (False, True), strict=True):
            for color, model in zip(CATEGORIES, MODELS, strict=False):
                _, found = budget.tuned(model=model, recurrent=recurrent, hidden=hidden)
                for r in found:  # thinned: a point stands for several iterations
                    at = torch.linspace(0, r["iterations"], len(r["accuracy"]) + 1)[1:]
                    label = model if r is found[0] else None
                    ax.plot(at, [100 * a for a in r["accuracy"]], color=color, alpha=0.7, label=label)
            ax.set(title=f"{'recurrent' if recurrent else 'feed-forward'}, {hidden} hidden", xlabel="iteration")
        axes[0].set(ylabel="accuracy (%)", ylim=(40, 102))
        axes[0].legend(loc="center right")
        pyplot.savefig(path)
        pyplot.close()


def main() -> None:
    """Run what is missing, then write tables and pictures."""
    full = "the paper's recipe, 1000 iterations always, ten runs each"
    parser = command_line(__doc__, out="runs/hetsyn_match_to_sample", full=full, seeds=(3, 10))
    parser.add_argument("--hidden", nargs="+", type=int, help="sizes to compare models at; sweeps take the first")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--noises", nargs="+", type=float, default=list(NOISES), help="Hz; of the part 'noise of all'")
    parser.add_argument("--shares", nargs="+", type=float, default=list(FROZEN), help="of the part 'frozen'")
    args = read_options(parser)
    seeds, folder = args.seeds, args.out
    base = Run(patience=None if args.full else 20)
    # equally good on validation: the one that was quicker
    tuning = {} if args.full else {"iterations": 400}
    better = lambda r: (r["validation"], -r["iterations"])  # noqa: E731
    budget = Budget(base, train, RATES[args.full], better, seeds, folder, tuning)
    sizes = args.hidden or ((100, 5) if args.full else (20,))
    hidden = sizes[0]
    reduced = f"reduction: {hidden} neurons where not said otherwise, 400 iterations for tuning, "
    reduced += "a run ends after 20 batches without a mistake"
    kind = "paper configuration" if args.full else reduced
    text = [f"Delayed match to sample, {kind}; mean (smallest .. largest) of {seeds} seeds, 1000 test trials each"]
    shares, levels = tuple(args.shares), tuple(args.noises)
    parts = {
        "headlines": lambda: headlines(budget),
        "delay": lambda: delays(budget, hidden),
        "models": lambda: [line for n in sizes for line in models(budget, n)],
        "noise": lambda: sweep(budget, f"Added noise, R-HetSynLIF {hidden}", "noise_hz", NOISES, hidden=hidden),
        "frozen": lambda: sweep(budget, f"Frozen decays, R-HetSynLIF {hidden}", "frozen", shares, hidden=hidden),
        "size": lambda: sweep(budget, "Size, R-HetSynLIF", "hidden", (5, 20, 50, 100)),
        "noise of all": lambda: noises(budget, hidden, levels, folder / "success.png"),
    }
    for name in args.parts:
        part = parts[name]()
        text += part
        print("\n".join(text), flush=True)
        (folder / f"{name.replace(' ', '_')}.md").write_text("\n".join(text[:1] + part) + "\n")
    for size in sizes if "models" in args.parts else ():
        draw(budget, size, folder / f"models_{size}.png")


if __name__ == "__main__":
    main()
