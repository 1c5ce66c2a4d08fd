"""Yin-Yang by the first spike: exact gradients of spike times, delays from positions in 0, 1, 2, 3 and infinite dims.

    python plugins/spatial/reproduce/yin_yang.py                  # a labelled reduction: 100 epochs
    python plugins/spatial/reproduce/yin_yang.py --full     # Table 1: 300 epochs; steps, if any, of 0.01 ms
    python plugins/spatial/reproduce/yin_yang.py --dims 2 --seeds 1
    python plugins/spatial/reproduce/yin_yang.py --frozen         # besides, every D-D with the places it started at
    python plugins/spatial/reproduce/yin_yang.py --equal          # besides, 0-D and free delays at 2-D's size
    python plugins/spatial/reproduce/yin_yang.py --hidden 10 20 30 60   # figures 2D and 2E: neurons, parameters

Table 1 of the paper: 300 epochs, batch 150, rate from 5e-5 to 1e-3 tuned for each network, 500 steps of warm-up, a
cosine to a tenth at step 10 000, scale factor 1.0. The reduction moves positions and delays ten times as fast.

4 inputs -> hidden neurons -> 3 outputs; every neuron fires at most once in 12 ms, and the first output names the class.
For every network the same three learning rates are tried in one short run each, on validation points; then all
seeds run with the best. Of each run, those of the rates included, the epoch that was best on validation counts, and
the test points are looked at once, with that. Finished runs are kept under ``--out``, interrupted ones go on where
they were.

``--engine operators`` sends whole sequences through ``exact_arrivals`` and ``exact_rollout``; the default computes the
same from event to event, without steps and five times as fast; ``interp`` trains by interpolated arrivals, in whole
steps, and a surrogate instead.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from common.records import Course, dims_name, in_proportion, table
from common.single_spike import single_spikes
from common.surrogate_spike import surrogate_spikes
from torch import Tensor, nn

from delaykit import Site
from delaykit_lab import Resumable, command_line, read_options, record_path, remembered
from delaykit_lab.tasks.yin_yang import Points, PointSplits, YinYang, first_spike_loss, first_to_spike
from delaykit_spatial import Spatial
from delaykit_spatial.exact import ExactLIF, exact_arrivals, exact_rollout, first_spike_times

DIMS = (0.0, 1.0, 2.0, 3.0, math.inf)
RATES = {False: (8e-4, 1.6e-3, 3.2e-3), True: (1.5e-4, 4e-4, 1e-3)}  # of the reduction, and within Table 1's
TUNING_EPOCHS, TUNING_SEED = {False: 40, True: 100}, 1000


@dataclasses.dataclass(frozen=True)
class Setting:
    """What makes a run; times in ms.

    The paper leaves open: sigma of the first positions, sharpness and margin of the loss, and clipping.
    """

    dims: float = 2.0
    hidden: int = 30
    frozen: bool = False
    rate: float = 2e-4
    epochs: int = 100
    seed: int = 0
    dt: float = 0.05
    batch: int = 150
    engine: str = "events"
    slope: float = 10.0
    position_factor: float = 10.0
    clip: float = 3.0
    min_slope: float = 1e-3
    sigma: float = 0.75
    sharpness: float = 10.0
    margin: float = 0.2
    duration: float = 12.0
    longest: float = 3.5
    tau_syn: float = 2.0
    tau_mem: float = 4.0

    def record(self) -> dict[str, Any]:
        """Return JSON values; the surrogate's steepness only where there is a surrogate."""
        values = {**dataclasses.asdict(self), "dims": dims_name(self.dims)}
        return values if self.engine == "interp" else {k: v for k, v in values.items() if k != "slope"}

    def name(self) -> str:
        """Return a name for files."""
        kind = ("_frozen" if self.frozen else "") + ("" if self.engine == "events" else f"_{self.engine}")
        return f"{dims_name(self.dims)}d_h{self.hidden}_lr{self.rate:g}_e{self.epochs}_dt{self.dt:g}{kind}_s{self.seed}"


class Net(nn.Module):
    """Inputs, hidden neurons and outputs; the hidden ones have one set of positions."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        generator = torch.Generator().manual_seed(setting.seed)
        self.into = weights(setting.hidden, 4, 400.0, generator)
        self.out = weights(3, setting.hidden, 35.0, generator)
        sites = Site("hidden", 4, setting.hidden), Site("output", setting.hidden, 3)
        first, last = (self._spatial(*names) for names in (("input", "hidden", 0.5), ("hidden", "output", 0.0)))
        self.first, self.last = first.build(sites[0], generator), last.build(sites[1], generator)
        self.last.meet_([self.first])

    def _spatial(self, pre: str, post: str, mean: float) -> Spatial:
        free = math.isinf(self.setting.dims)
        return Spatial(
            self.setting.dims, pre=pre, post=post, dt_ms=self.setting.dt, max_ms=self.setting.longest, mean=mean,
            scale=0.5 if free else self.setting.sigma, learn=not self.setting.frozen,
        )  # fmt: skip

    def forward(self, times: Tensor) -> Tensor:
        """Map input times in ms, (batch, 4), to the outputs' first spikes in ms, (batch, 3)."""
        s = self.setting
        steps = round(s.duration / s.dt)
        neuron = ExactLIF(tau_mem=s.tau_mem, tau_syn=s.tau_syn, dt=s.dt)
        layers = ((self.into, self.first.delays()), (self.out, self.last.delays()))
        first = times / s.dt
        if s.engine == "events":
            for weight, delay in layers:
                first = single_spikes(first, weight, delay, neuron, steps, s.min_slope)
            return first * s.dt
        after = first.ceil()
        spikes = torch.zeros(steps, *times.shape).scatter_(0, after.long().unsqueeze(0), 1.0)
        if s.engine == "interp":
            for weight, delay in layers:
                spikes, first = surrogate_spikes(spikes, weight, delay, neuron, s.slope)
            return first * s.dt
        clock: Tensor | None = torch.zeros_like(spikes).scatter_(0, after.long().unsqueeze(0), (first - after)[None])
        for weight, delay in layers:
            jumps = exact_arrivals(spikes, clock, weight, delay, s.tau_syn, s.dt)
            spikes, clock, _ = exact_rollout(*jumps, neuron, once=True, min_slope=s.min_slope)
        return first_spike_times(spikes, clock, silent=steps + 1) * s.dt

    def numbers(self) -> tuple[int, int]:
        """Count all parameters, and those that make delays."""
        weights = self.into.numel() + self.out.numel()
        everything = sum(parameter.numel() for parameter in self.parameters())
        return everything, everything - weights


def weights(post: int, pre: int, factor: float, generator: torch.Generator) -> nn.Parameter:
    """Draw weights from U(-0.2, 0.8), scaled by ``factor / (post pre)``."""
    return nn.Parameter((torch.rand(post, pre, generator=generator) - 0.2) * factor / (post * pre))


@torch.no_grad()
def answers(net: Net, points: Points) -> Tensor:
    """Return the class that each point is taken for, -1 for none."""
    return torch.cat([first_to_spike(net(times)) for times in points.times_ms().split(500)])


def accuracy(net: Net, points: Points) -> float:
    """Return the fraction of points told right."""
    return (answers(net, points) == points.labels).double().mean().item()


def train(setting: Setting, data: PointSplits, path: Path) -> tuple[Net, list[dict[str, Any]]]:
    """Train one network, or go on with it; return it as it was in its best epoch on validation."""
    net = Net(setting)
    positions = [p for p in net.parameters() if p.requires_grad and p is not net.into and p is not net.out]
    groups = [{"params": [net.into, net.out]}] + ([{"params": positions}] if positions else [])
    rates = [setting.rate, setting.position_factor * setting.rate][: len(groups)]
    optimizer = torch.optim.Adam(groups)
    order = torch.Generator().manual_seed(setting.seed)
    training = Resumable(path, net, optimizer, order, setting.record(), best="validation")
    times, labels = data.train.times_ms(), data.train.labels
    batches = math.ceil(len(labels) / setting.batch)
    steps = setting.epochs * batches
    course = Course() if steps >= Course().steps else in_proportion(steps)
    for epoch in training.epochs(setting.epochs, setting.name()):
        total = 0.0
        for k, index in enumerate(torch.randperm(len(labels), generator=order).split(setting.batch)):
            course.set_rates(optimizer, rates, epoch * batches + k)
            shape = setting.sharpness, setting.margin, setting.duration
            loss = first_spike_loss(net(times[index]), labels[index], *shape)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), setting.clip)
            optimizer.step()
            total += loss.item() / batches
        training.history.append({"loss": total, "validation": accuracy(net, data.validation)})
    training.restore_best()
    return net, training.history


def run(setting: Setting, folder: Path, judge: bool) -> dict[str, Any]:
    """Train, and look at the test points once if ``judge``."""

    path = record_path(folder, setting.record(), setting.name())

    def once() -> dict[str, Any]:
        data = YinYang().points(setting.seed)
        net, history = train(setting, data, path.with_suffix(".safetensors"))
        scores = [one["validation"] for one in history]
        parameters, delays = net.numbers()
        result: dict[str, Any] = {
            "rate": setting.rate, "parameters": parameters, "delays": delays, "validation": max(scores),
            "best_epoch": scores.index(max(scores)) + 1, "last_validation": scores[-1], "curve": scores,
            "loss": [round(one["loss"], 4) for one in history], "cpu_s": sum(one["cpu_s"] for one in history),
        }  # fmt: skip
        if judge:
            given = answers(net, data.test)
            result["test"] = (given == data.test.labels).double().mean().item()
            result["answers"] = given.tolist()
        return result

    return remembered(path, setting.record(), once)


def tuned(setting: Setting, full: bool, folder: Path) -> Setting:
    """Choose the learning rate: one short run each, judged as runs are scored, by the best epoch on validation."""
    epochs, rates = min(TUNING_EPOCHS[full], setting.epochs), RATES[full]
    trials = [dataclasses.replace(setting, rate=rate, epochs=epochs, seed=TUNING_SEED) for rate in rates]
    scores = [run(trial, folder / "tuning", judge=False)["validation"] for trial in trials]
    return dataclasses.replace(setting, rate=rates[scores.index(max(scores))])


def networks(base: Setting, dims: list[float], frozen: bool, equal: bool) -> dict[str, Setting]:
    """Return what is compared, by name."""
    wanted = {f"{dims_name(one)}-D": dataclasses.replace(base, dims=one) for one in dims}
    for one in dims if frozen else ():
        if one > 0:
            wanted[f"{dims_name(one)}-D, frozen"] = dataclasses.replace(base, dims=one, frozen=True)
    if equal:
        size = Net(base).numbers()[0]
        for one, a_neuron in ((0.0, 7), (math.inf, 14)):
            hidden = round(size / a_neuron)
            wanted[f"{dims_name(one)}-D, {hidden} hidden"] = dataclasses.replace(base, dims=one, hidden=hidden)
    return wanted


def setting_of(full: bool, **given: Any) -> Setting:
    """Return Table 1 or the reduction, with what the command line changes."""
    base = Setting(epochs=300, dt=0.01, position_factor=1.0) if full else Setting()
    return dataclasses.replace(base, **{key: value for key, value in given.items() if value is not None})


def main() -> None:
    """Run what is missing, then write the table and the pictures."""
    full = "Table 1 of the paper: 300 epochs, scale factor 1"
    parser = command_line(__doc__, out="runs/spatial_yin_yang", full=full, epochs=True)
    parser.add_argument("--dims", type=float, nargs="+", default=list(DIMS))
    parser.add_argument("--frozen", action="store_true", help="add each with positions or delays as they started")
    parser.add_argument("--equal", action="store_true", help="add 0-D and inf at the parameters of 2-D")
    parser.add_argument("--hidden", type=int, nargs="+", default=[30])
    parser.add_argument("--dt", type=float)
    parser.add_argument("--engine", choices=("events", "operators", "interp"), default="events")
    given = read_options(parser)
    rows: dict[str, list[dict[str, Any]]] = {}
    for hidden in given.hidden:
        base = setting_of(given.full, hidden=hidden, engine=given.engine, dt=given.dt, epochs=given.epochs)
        for name, setting in networks(base, given.dims, given.frozen, given.equal).items():
            setting = tuned(setting, given.full, given.out)
            name = name if len(given.hidden) == 1 else f"{name}, {hidden}"
            rows[name] = [run(dataclasses.replace(setting, seed=k), given.out, judge=True) for k in range(given.seeds)]
    kind = "the paper's configuration" if given.full else "a reduction"
    steps = "from event to event" if base.engine == "events" else f"steps of {base.dt:g} ms"
    title = f"Yin-Yang, {' '.join(map(str, given.hidden))} hidden, {steps}, {base.epochs} epochs ({kind})"
    text = f"{title}\n\n{table(rows)}\n"
    (given.out / "table.md").write_text(text)
    print(text)
    pictures(rows, title, given.out)
    if len(given.hidden) > 1:
        sizes(rows, title, given.out)


def sizes(rows: dict[str, list[dict[str, Any]]], title: str, folder: Path) -> None:
    """Draw accuracy against the number of hidden neurons, and of parameters: a line for each kind of network."""
    from common.plotting import against_size, headed
    from matplotlib import pyplot

    from delaykit.plotting import style

    with style():
        figure = headed(against_size(rows), title)
        figure.savefig(folder / "accuracy_against_size.png")
        pyplot.close(figure)


def pictures(rows: dict[str, list[dict[str, Any]]], title: str, folder: Path) -> None:
    """Draw accuracy against dims, and what the first seeds of up to five networks get wrong."""
    from common.plotting import against_dims, headed, mistakes
    from matplotlib import pyplot

    from delaykit.plotting import style

    test = YinYang().points(0).test
    with style():
        ax = against_dims({name: [one["test"] for one in runs] for name, runs in rows.items()})
        headed(ax.figure, title).savefig(folder / "accuracy_against_dims.png")
        firsts = {name: torch.tensor(runs[0]["answers"]) for name, runs in list(rows.items())[:5]}
        figure = mistakes(test.places, test.labels, firsts)
        figure.savefig(folder / "mistakes.png")
        pyplot.close("all")


if __name__ == "__main__":
    main()
