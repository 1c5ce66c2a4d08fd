"""Pattern generation: the paper's four models, feed-forward and recurrent, noise, and three targets at once.

    python plugins/hetsyn/reproduce/pattern_generation.py            # a labelled reduction, half an hour on one core
    python plugins/hetsyn/reproduce/pattern_generation.py --full     # the paper's recipe, ten runs each

The recipe (appendix B): dt 1 ms; tau_s fixed at 20 ms in homogeneous models, drawn from N(20, 5) ms in the others;
tau_J 20 ms in all; adaptation 500 ms, 0.01; Adam 1e-3, a fifth less every 100 iterations; 1000 iterations, batch 1. The
paper says nothing about how weights are drawn; the input weights' gain of 3 is ours.

In the reduction every model gets the same budget: each of the learning rates once, with a problem and weights of its
own; the rate with the lowest error is then run with the seeds that are reported. A seed draws the problem and the
weights. Errors are means over 20 new trials. Every finished run is recorded and not repeated.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
from common.budget import Budget
from common.records import spread, thinned
from tqdm import tqdm

from delaykit.plotting import CATEGORIES, INK, style
from delaykit_hetsyn.layer import attach, param_groups
from delaykit_hetsyn.models import MODELS, HetSynNet, Neurons
from delaykit_hetsyn.regularise import rate_penalty
from delaykit_lab import command_line, read_options
from delaykit_lab.tasks.pattern_generation import Pattern, PatternGeneration, distance

RATES = {False: (1e-3, 3e-3), True: (1e-3,)}
PARTS = ("models", "noise", "targets")
THIN = 10  # answers and targets are kept every so many steps


@dataclasses.dataclass(frozen=True)
class Run:
    """One training."""

    model: str = "HetSynLIF"
    recurrent: bool = True
    outputs: int = 1
    noise_hz: float = 2.0
    lr: float = 1e-3
    iterations: int = 1000
    gain: float = 3.0
    seed: int = 0

    def title(self) -> str:
        """Name for progress bars."""
        grain = f"{'R' if self.recurrent else 'F'}-{self.model}, {self.outputs} target(s)"
        return f"{grain}, {self.noise_hz:g} Hz, lr {self.lr:g}, {self.seed}"


def neurons_of(run: Run) -> Neurons:
    """Return what appendix B says about the neurons."""
    return Neurons(
        dt_ms=1.0, tau=("normal", 20.0, 5.0), tau_homogeneous=20.0, tau_reset=20.0, tau_adaptation=500.0,
        adaptation=0.01, gain=run.gain,
    )  # fmt: skip


def train(run: Run) -> dict:
    """Train and test one network."""
    generator = torch.Generator().manual_seed(run.seed)
    task = PatternGeneration(noise_hz=run.noise_hz, outputs=run.outputs)
    pattern = task.pattern(generator)
    net = HetSynNet(run.model, (100, 100, run.outputs), run.recurrent, neurons_of(run), generator=generator)
    optimizer = torch.optim.Adam(param_groups(net, run.lr))
    attach(optimizer, net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.8)
    before = histograms(net)
    losses, start = [], time.process_time()
    for _ in tqdm(range(run.iterations), desc=run.title(), leave=False, mininterval=10):
        answer = net(pattern.trial(generator))
        error = (answer.readout[:, 0] - pattern.target).pow(2).mean()
        loss = error + 0.01 * rate_penalty(answer.spikes[0], task.dt_ms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(error.detach()))
    seconds = time.process_time() - start
    result = test(net, pattern, torch.Generator().manual_seed(20_000 + run.seed))
    keeps = run.seed == 0 and run.outputs == 1  # enough for the pictures
    return {
        **result,
        "losses": thinned(losses),
        "cpu_s": seconds,
        "tau_before": before if keeps else None,
        "tau_after": histograms(net) if keeps else None,
        "target": rounded(pattern.target.T[:, ::THIN].tolist()) if keeps else None,
    }


@torch.no_grad()
def histograms(net: HetSynNet) -> list[list[int]]:
    """Count the time constants of input, recurrent (if any) and readout connections, in bins of 2 ms to 100 ms."""
    layer = net.layers[0]
    found = [c.tau_ms() for c in (layer.input, layer.recurrent, net.readout) if c is not None]
    return [torch.histc(tau.clamp(max=100.0), 50, 0.0, 100.0).int().tolist() for tau in found]


@torch.no_grad()
def test(net: HetSynNet, pattern: Pattern, generator: torch.Generator) -> dict:
    """Score on new noise: error, in the gaps alone, and how differently the network answers the same segment."""
    answers = [net(pattern.trial(generator)) for _ in range(20)]
    said = torch.stack([a.readout[:, 0] for a in answers])
    wrong = (said - pattern.target).pow(2).mean(2)
    one, two, three = pattern.task.windows()
    pairs = [[distance(y, pattern.target, *pair).mean().item() for y in said] for pair in ((one, two), (two, three))]
    gaps = pattern.task.gaps()
    return {
        "mse": wrong.mean().item(),
        "mse_in_gaps": wrong[:, gaps].mean().item(),
        "answer_in_gaps": said[:, gaps].abs().mean().item(),
        "target_in_gaps": pattern.target[gaps].abs().mean().item(),
        "distance_2_1": sum(pairs[0]) / 20,
        "distance_3_2": sum(pairs[1]) / 20,
        "rate_hz": torch.stack([a.spikes[0].mean() for a in answers]).mean().item() * 1000.0,
        "answer": rounded(said[0].T[:, ::THIN].tolist()),
    }


def rounded(lists: list[list[float]]) -> list[list[float]]:
    """Round for small records."""
    return [[round(value, 3) for value in values] for values in lists]


HEAD = "| {} | lr | error | error in the gaps | \\|answer\\| in the gaps | distance 2nd, 1st | distance 3rd, 2nd |"


def row(found: list[dict]) -> str:
    """Write the cells of a table."""
    keys = ("mse", "mse_in_gaps", "answer_in_gaps", "distance_2_1", "distance_3_2")
    return " | ".join(spread([r[key] for r in found], 3) for key in keys)


def models(budget: Budget) -> list[str]:
    """Compare the eight models."""
    lines = ["\nOne target, noise 2 Hz\n", HEAD.format("model"), "|---|---|---|---|---|---|---|"]
    for recurrent in (False, True):
        for model in MODELS:
            lr, found = budget.tuned(model=model, recurrent=recurrent)
            lines.append(f"| {'R' if recurrent else 'F'}-{model} | {lr:g} | {row(found)} |")
    wanted = spread([r["target_in_gaps"] for r in found], 3)
    return [*lines, f"\n|target| in the gaps: {wanted}; an answer of 0 throughout has the error of the target's power"]


def sweep(budget: Budget, title: str, name: str, values: tuple, **fixed) -> list[str]:
    """Vary one thing of R-HetSynLIF."""
    lines = [f"\n{title}\n", HEAD.format(name), "|---|---|---|---|---|---|---|"]
    lr, _ = budget.tuned(model="HetSynLIF", recurrent=True)  # the rate chosen for one target and 2 Hz
    for value in values:
        lines.append(f"| {value:g} | {lr:g} | {row(budget.seeded(lr=lr, **fixed, **{name: value}))} |")
    return lines


def draw(budget: Budget, path: Path) -> None:
    """Draw output against target of the eight models, for the first seed."""
    from matplotlib import pyplot

    with style():
        _, axes = pyplot.subplots(4, 2, figsize=(10, 7), sharex=True, sharey=True)
        for column, recurrent in enumerate((False, True)):
            for ax, color, model in zip(axes[:, column], CATEGORIES, MODELS, strict=False):
                found = budget.tuned(model=model, recurrent=recurrent)[1][0]
                for window in PatternGeneration().windows():
                    ax.axvspan(window.start, window.stop, color="#f2f2f2", linewidth=0)
                time_ms = range(0, THIN * len(found["answer"][0]), THIN)
                ax.plot(time_ms, found["target"][0], color=INK, linewidth=1.2, linestyle="--", label="target")
                ax.plot(time_ms, found["answer"][0], color=color, linewidth=1.3, label="output")
                grain = "R" if recurrent else "F"
                ax.set(title=f"{grain}-{model}: error {found['mse']:.3f}", ylim=(-1.6, 1.6), xlim=(0, 2000))
                ax.grid(False)
        axes[0, 1].legend(loc="upper right", ncols=2, fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("time (ms)")
        pyplot.savefig(path)
        pyplot.close()


def draw_losses(budget: Budget, path: Path) -> None:
    """Draw the error over training: the mean of the seeds, in a band from the best to the worst (figure 2D)."""
    import numpy as np
    from matplotlib import pyplot

    with style():
        _, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True)
        for ax, recurrent in zip(axes, (False, True), strict=True):
            for color, model in zip(CATEGORIES, MODELS, strict=False):
                losses = np.array([one["losses"] for one in budget.tuned(model=model, recurrent=recurrent)[1]])
                at = np.linspace(0, budget.base.iterations, losses.shape[1] + 1)[1:]  # a point stands for several
                ax.plot(at, losses.mean(0), color=color, label=model)
                ax.fill_between(at, losses.min(0), losses.max(0), color=color, alpha=0.15, linewidth=0)
            ax.set(title="recurrent" if recurrent else "feed-forward", xlabel="iteration", yscale="log")
        axes[0].set_ylabel("mean squared error, training")
        axes[0].legend(fontsize=9)
        pyplot.savefig(path)
        pyplot.close()


def main() -> None:
    """Run what is missing, then write tables and pictures."""
    full = "the paper's recipe: 1000 iterations, ten runs each"
    parser = command_line(__doc__, out="runs/hetsyn_pattern_generation", full=full, seeds=(3, 10))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    args = read_options(parser)
    seeds, folder = args.seeds, args.out
    base = Run(iterations=1000 if args.full else 400)
    tuning = {} if args.full else {"iterations": 200}
    budget = Budget(base, train, RATES[args.full], lambda r: -r["mse"], seeds, folder, tuning)
    kind = "paper configuration" if args.full else "reduction: 400 iterations, 200 for tuning"
    text = [f"Pattern generation, {kind}; mean (smallest .. largest) of {seeds} seeds, 20 test trials each"]
    parts = {
        "models": lambda: models(budget),
        "noise": lambda: sweep(budget, "Noise, R-HetSynLIF", "noise_hz", (1.0, 2.0, 3.0, 4.0)),
        "targets": lambda: sweep(budget, "Targets at once, R-HetSynLIF", "outputs", (1, 3)),
    }
    for name in args.parts:
        part = parts[name]()
        text += part
        print("\n".join(text), flush=True)
        (folder / f"{name}.md").write_text("\n".join(text[:1] + part) + "\n")
    if "models" in args.parts:
        draw(budget, folder / "models.png")
        draw_losses(budget, folder / "learning.png")


if __name__ == "__main__":
    main()
