"""Spoken digits by a recurrent layer whose delays are positions in 0, 1, 2, 3 and infinite dims; exact gradients.

    python plugins/spatial/reproduce/speech.py --data FOLDER           # a labelled reduction, under a minute a run
    python plugins/spatial/reproduce/speech.py --data FOLDER --coarse  # all samples, Table 2, but 5 ms and 64 neurons
    python plugins/spatial/reproduce/speech.py --data FOLDER --full    # 700 channels, 300 neurons, steps of 0.5 ms

Input and recurrent connection have delays, and share the positions of the hidden neurons. Times of spikes have exact
gradients; the readout, which counts spikes, a SuperSpike surrogate. Loss: cross-entropy of the counts plus
``sum_h (f_h - 0.01)^2`` on the neurons' rates in spikes per ms.

``--coarse`` and ``--full`` train as Table 2 of the paper says: 30 epochs, batch 32, rate 1e-3 with 500 steps of warm-up
and a cosine to a tenth at step 10 000, positions and delays ten times as fast. In the reduction the same three pairs of
rates are tried for every number of dims in one short run each, on held-out samples; then all seeds run with the best.
Of each run the epoch that was best on validation is kept, and the test file is looked at once, with that. Files that
are not the published SHD must not be reported as SHD. Finished runs are kept under ``--out``, interrupted ones go on
where they were.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common.records import Course, dims_name, in_proportion, table
from torch import Tensor, nn
from torch.nn import functional

from delaykit import Site
from delaykit_lab import Resumable, command_line, data_folder, locate, read_options, record_path, remembered
from delaykit_lab.task import Splits
from delaykit_lab.tasks.spike_files import SpikeFiles
from delaykit_lab.training.runner import accuracy, predict
from delaykit_spatial import Spatial
from delaykit_spatial.exact import ExactAdEx, ExactLIF, SuperSpike, exact_arrivals, exact_rollout

DIMS = (0.0, 1.0, 2.0, 3.0, math.inf)
TRIALS = ((2e-3, 10.0), (4e-3, 10.0), (4e-3, 100.0))  # rate of weights; factor of positions and delays
TUNING_EPOCHS, TUNING_SEED = 6, 1000


@dataclasses.dataclass(frozen=True)
class Setting:
    """What makes a run; times in ms. The defaults are the reduction, with time constants stretched like the step.

    Args:
        kept: share of each weight matrix, the readout's apart, that is left after every epoch (Sp2SNN).
        tortuosity: eps, how much longer than the distance a path may be (figure S4).
        adex: adaptive exponential neurons, with the paper's constants, in place of leaky ones (figure S5).
    """

    dims: float = 2.0
    hidden: int = 64
    channels: int = 70
    classes: int = 20
    dt: float = 5.0
    duration: float = 1000.0
    tau_syn: float = 10.0
    tau_mem: float = 20.0
    gain: float = 0.5
    limit: int | None = 1500
    rate: float = 1e-3
    position_factor: float = 10.0
    epochs: int = 18
    batch: int = 32
    seed: int = 0
    frozen: bool = False
    target_rate: float = 0.01
    rate_weight: float = 1.0
    clip: float = 2.0
    rescale_every: int = 10
    min_slope: float = 0.1
    kept: float = 1.0
    tortuosity: float = 0.0
    adex: bool = False

    def name(self) -> str:
        """Return a name for files."""
        kind = ("_frozen" if self.frozen else "") + ("" if self.kept == 1 else f"_kept{self.kept:g}")
        kind += (f"_eps{self.tortuosity:g}" if self.tortuosity else "") + ("_adex" if self.adex else "")
        return (
            f"{dims_name(self.dims)}d_h{self.hidden}_lr{self.rate:g}x{self.position_factor:g}_e{self.epochs}"
            f"_dt{self.dt:g}{kind}_s{self.seed}"
        )

    def record(self) -> dict[str, Any]:
        """Return JSON values."""
        values = {**dataclasses.asdict(self), "dims": dims_name(self.dims)}
        return {key: value for key, value in values.items() if key not in ("tortuosity", "adex") or value}


class Net(nn.Module):
    """Channels, recurrent hidden neurons, and scores of their spike counts."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        s = self.setting = setting
        generator = torch.Generator().manual_seed(s.seed)
        size = 50.0 if s.hidden > 200 else 10.0 if s.hidden > 50 else 3.0

        def weights(post: int, pre: int, factor: float) -> nn.Parameter:
            return nn.Parameter((torch.rand(post, pre, generator=generator) - 0.2).abs() * factor / (post * pre))

        area = s.gain * 2.0 * 10.0 / (s.tau_syn * s.tau_mem)  # longer time constants make more of a spike,
        summed = s.channels / 700.0  # and a channel that sums several units has more of them
        self.into = weights(s.hidden, s.channels, 400.0 * size * area * summed)
        self.recurrent = weights(s.hidden, s.hidden, 35.0 * area)
        self.readout = weights(s.classes, s.hidden, 1.0)
        into = Spatial(s.dims, pre="input", post="hidden", dt_ms=s.dt, learn=not s.frozen, tortuosity=s.tortuosity)
        within = Spatial(s.dims, post="hidden", dt_ms=s.dt, learn=not s.frozen, tortuosity=s.tortuosity)
        self.delay = into.build(Site("hidden", s.channels, s.hidden), generator)
        self.recurrent_delay = within.build(Site("hidden.recurrent", s.hidden, s.hidden, recurrent=True), generator)
        self.recurrent_delay.meet_([self.delay])
        self.neuron = (ExactAdEx if s.adex else ExactLIF)(tau_mem=s.tau_mem, tau_syn=s.tau_syn, dt=s.dt)

    def hidden(self, spikes: Tensor) -> Tensor:
        """Map input spikes to those of the hidden neurons, (time, batch, hidden)."""
        s = self.setting
        jumps = exact_arrivals(spikes, None, self.into, self.delay.delays(), s.tau_syn, s.dt)
        return exact_rollout(
            *jumps, self.neuron, self.recurrent, self.recurrent_delay.delays(), SuperSpike(),
            rescale_every=s.rescale_every, min_slope=s.min_slope, self_connections=False,
        ).spikes  # fmt: skip

    def forward(self, spikes: Tensor) -> Tensor:
        """Map input spikes to class scores, (batch, class)."""
        return self.hidden(spikes).sum(0) @ self.readout.T

    def loss(self, spikes: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy plus the rates' distance from their target."""
        counts = self.hidden(spikes).sum(0)
        rates = counts.mean(0) / self.setting.duration
        off = (rates - self.setting.target_rate).square().sum()
        return functional.cross_entropy(counts @ self.readout.T, labels) + self.setting.rate_weight * off

    def matrices(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the weights of the connections with delays."""
        return self.into, self.recurrent

    def numbers(self) -> tuple[int, int]:
        """Count all parameters, and those that make delays."""
        everything = sum(parameter.numel() for parameter in self.parameters())
        return everything, everything - sum(p.numel() for p in (self.into, self.recurrent, self.readout))


@torch.no_grad()
def clip_adaptively_(parameters: list[nn.Parameter], most: float, least_norm: float = 1e-3) -> None:
    """Shorten each row of a gradient to ``most`` times the norm of the row of its parameter."""
    for parameter in parameters:
        if parameter.grad is not None:
            bound = most * parameter.norm(dim=-1, keepdim=True).clamp(min=least_norm)
            norm = parameter.grad.norm(dim=-1, keepdim=True)
            parameter.grad.mul_((bound / norm.clamp(min=1e-12)).clamp(max=1.0))


def train(setting: Setting, data: Splits, path: Path) -> tuple[Net, list[dict[str, Any]]]:
    """Train one network, or go on with it; return it as it was in its best epoch on validation."""
    net = Net(setting)
    weights = [net.into, net.recurrent, net.readout]
    positions = [p for p in net.parameters() if p.requires_grad and all(p is not w for w in weights)]
    groups = [{"params": weights}] + ([{"params": positions}] if positions else [])
    rates = [setting.rate, setting.position_factor * setting.rate][: len(groups)]
    optimizer = torch.optim.Adam(groups)
    order = torch.Generator().manual_seed(setting.seed)
    training = Resumable(path, net, optimizer, order, setting.record(), best="validation")
    prune = pruner(net, setting.kept)
    batches = math.ceil(len(data.train) / setting.batch)
    steps = setting.epochs * batches
    course = Course() if steps >= Course().steps else in_proportion(steps)
    for epoch in training.epochs(setting.epochs, setting.name()):
        total = 0.0
        for k, index in enumerate(torch.randperm(len(data.train), generator=order).split(setting.batch)):
            course.set_rates(optimizer, rates, epoch * batches + k)
            loss = net.loss(*data.train.batch(index))
            optimizer.zero_grad()
            loss.backward()
            clip_adaptively_([*weights, *positions], setting.clip)
            optimizer.step()
            total += loss.item() / batches
        prune((epoch + 1) / setting.epochs)
        score = accuracy(predict(net, data.validation, 100), data.validation)
        training.history.append({"loss": total, "validation": score})
    training.restore_best()
    return net, training.history


def pruner(net: Net, kept: float) -> Callable[[float], None]:
    """Return what sets the weakest synapses to zero: in each matrix all but ``kept``; nothing where all are kept."""
    if kept == 1:
        return lambda progress: None
    from delaykit_sparsify import DynamicSparsity

    sizes = net.setting.channels, net.setting.hidden
    sites = Site("hidden", *sizes), Site("hidden.recurrent", sizes[1], sizes[1], recurrent=True)
    matrices = [(DynamicSparsity(1 - kept).build(site), w) for site, w in zip(sites, net.matrices(), strict=True)]

    def prune(progress: float) -> None:
        for pruning, weight in matrices:
            pruning.step_(weight, progress)

    return prune


def run(
    setting: Setting, task: SpikeFiles, folder: Path, judge: bool,
    further: Callable[[Net, Splits], dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, and look at the test samples once if ``judge``; ``further`` adds to the result."""

    path = record_path(folder, setting.record(), setting.name())

    def once() -> dict[str, Any]:
        data = task.splits(setting.seed)
        net, history = train(setting, data, path.with_suffix(".safetensors"))
        scores = [one["validation"] for one in history]
        parameters, delays = net.numbers()
        with torch.no_grad():
            some = data.validation.batch(torch.arange(min(100, len(data.validation))))[0]
            hertz = 1000 * net.hidden(some).sum(0).mean() / setting.duration
            late = net.delay.delays_ms()
        result: dict[str, Any] = {
            "rate": setting.rate, "position_factor": setting.position_factor, "parameters": parameters,
            "delays": delays, "validation": max(scores), "best_epoch": scores.index(max(scores)) + 1,
            "last_validation": scores[-1], "curve": scores, "loss": [round(one["loss"], 4) for one in history],
            "cpu_s": sum(one["cpu_s"] for one in history), "hertz": hertz.item(),
            "mean_delay_ms": late.mean().item(), "largest_delay_ms": late.max().item(),
        }  # fmt: skip
        if judge:
            result["test"] = accuracy(predict(net, data.test, 100), data.test)
        return result | (further(net, data) if further else {})

    files = [locate(task.path, part) for part in ("train", "test")]
    return remembered(path, setting.record(), once, files)


def tuned(setting: Setting, task: SpikeFiles, folder: Path) -> Setting:
    """Choose the rates: one short run each, judged on held-out samples."""
    short = dataclasses.replace(setting, epochs=min(TUNING_EPOCHS, setting.epochs), seed=TUNING_SEED)
    trials = [dataclasses.replace(short, rate=rate, position_factor=factor) for rate, factor in TRIALS]
    scores = [run(trial, task, folder / "tuning", judge=False)["validation"] for trial in trials]
    rate, position_factor = TRIALS[scores.index(max(scores))]
    return dataclasses.replace(setting, rate=rate, position_factor=position_factor)


def setting_of(full: bool, coarse: bool, epochs: int | None = None, limit: int | None = None) -> Setting:
    """Return the reduction, Table 2 in coarse steps, or the paper's size."""
    base = Setting()
    if full or coarse:
        base = dataclasses.replace(base, limit=None, rate=1e-3, position_factor=10.0, epochs=30)
    if full:
        base = dataclasses.replace(base, hidden=300, channels=700, dt=0.5, tau_syn=2.0, tau_mem=10.0, gain=1.0)
        base = dataclasses.replace(base, min_slope=1e-3)
    return dataclasses.replace(base, epochs=epochs or base.epochs, limit=limit or base.limit)


def kind_of(setting: Setting, full: bool, coarse: bool) -> str:
    """Say what is the paper's and what is not."""
    if full:
        return "the paper's size"
    if coarse:
        return f"a reduction: Table 2's recipe, but steps of {setting.dt:g} ms, {setting.epochs} epochs"
    return f"a reduction: {setting.limit} samples, {setting.epochs} epochs"


def main() -> None:
    """Run what is missing, then write the table and the picture."""
    data = "folder with a train and a test file in SHD's layout"
    full = "the paper's size and steps (days)"
    parser = command_line(__doc__, out="runs/spatial_speech", full=full, epochs=True, data=data)
    parser.add_argument("--dims", type=float, nargs="+", default=list(DIMS))
    parser.add_argument("--frozen", action="store_true", help="add 2-D with positions as they started")
    parser.add_argument("--coarse", action="store_true", help="all samples and Table 2, in steps of 5 ms")
    parser.add_argument("--limit", type=int, help="training samples other than the configuration's")
    parser.add_argument("--tortuosity", type=float, nargs="+", default=[], help="add 2-D with longer paths: eps")
    parser.add_argument("--adex", action="store_true", help="add 2-D with adaptive exponential neurons")
    parser.add_argument("--min-slope", type=float, nargs="+", default=[], help="add 2-D with other guards")
    given = read_options(parser)
    folder = data_folder(given)
    base = setting_of(given.full, given.coarse, given.epochs, given.limit)
    task = SpikeFiles(folder, dt_ms=base.dt, channels=base.channels, duration_ms=base.duration, limit=base.limit)
    wanted = {f"{dims_name(dims)}-D": dataclasses.replace(base, dims=dims) for dims in given.dims}
    if given.frozen:
        wanted["2-D, frozen"] = dataclasses.replace(base, dims=2.0, frozen=True)
    for eps in given.tortuosity:
        wanted[f"2-D, eps {eps:g}"] = dataclasses.replace(base, dims=2.0, tortuosity=eps)
    if given.adex:
        wanted["2-D, AdEx"] = dataclasses.replace(base, dims=2.0, adex=True)
    for slope in given.min_slope:
        wanted[f"2-D, min_slope {slope:g}"] = dataclasses.replace(base, dims=2.0, min_slope=slope)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, setting in wanted.items():
        setting = setting if given.full or given.coarse else tuned(setting, task, given.out)
        seeds = [dataclasses.replace(setting, seed=seed) for seed in range(given.seeds)]
        rows[name] = [run(one, task, given.out, judge=True) for one in seeds]
    title = f"{task.title()}, {base.hidden} recurrent neurons ({kind_of(base, given.full, given.coarse)})"
    text = f"{title}\n\n{table(rows)}\n"
    (given.out / "table.md").write_text(text)
    print(text)

    from common.plotting import against_dims

    from delaykit.plotting import style

    with style():
        shown = {name: runs for name, runs in rows.items() if "min_slope" not in name}
        ax = against_dims({name: [one["test"] for one in runs] for name, runs in shown.items()}, chance=0.05)
        ax.set_title(title.replace(", ", ",\n", 1), fontsize=9)
        ax.figure.savefig(given.out / "accuracy_against_dims.png")


if __name__ == "__main__":
    main()
