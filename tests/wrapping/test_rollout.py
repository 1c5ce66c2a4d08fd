"""``dk.rollout`` equals the step loop, for every neuron, bare and wrapped, gradients included."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, PRE, spike
from torch import nn

import delaykit as dk
from delaykit.functional.recurrence.connection.base import SparseTaps
from delaykit.functional.recurrence.connection.taps import connect
from delaykit.functional.recurrence.connection.torch import PARTS

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
norse = pytest.importorskip("norse.torch", reason="wraps norse models")

NUMBERS = {"beta": 0.8, "spike_grad": spike}
ALPHA = {"alpha": 0.5, **NUMBERS}
SNNTORCH = {
    "Leaky": lambda **k: snn.Leaky(**NUMBERS, **k),
    "Lapicque": lambda **k: snn.Lapicque(**NUMBERS, threshold=0.1, **k),
    "Synaptic": lambda **k: snn.Synaptic(**ALPHA, **k),
    "Alpha": lambda **k: snn.Alpha(alpha=0.7, beta=0.6, spike_grad=spike, threshold=0.6, **k),
    "RLeaky": lambda **k: snn.RLeaky(linear_features=HIDDEN, **NUMBERS, **k),
    "RLeaky one-to-one": lambda **k: snn.RLeaky(all_to_all=False, V=0.5, **NUMBERS, **k),
    "RSynaptic": lambda **k: snn.RSynaptic(linear_features=HIDDEN, **ALPHA, **k),
}
NORSE = [
    "LIFCell",
    "LIFBoxCell",
    "LSNNCell",
    "LIFAdExCell",
    "LIFExCell",
    "IAFCell",
    "LICell",
    "LIFRecurrentCell",
    "LSNNRecurrentCell",
    "LIFAdExRecurrentCell",
    "LIFExRecurrentCell",
    "LIFRefracRecurrentCell",
]


SCALES = {"IAFCell": 1.0, **{kind: 3.0 for kind in NORSE if "Recurrent" in kind}}


def drive(size, seed=0, steps=hand.TIME, batch=hand.BATCH, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * (torch.rand(steps, batch, size, generator=generator).double() - 0.25)


def snntorch_loop(neuron, currents):
    neuron.reset_mem()
    spikes, membranes = [], []
    for current in currents:
        spikes.append(neuron(current))
        membranes.append(neuron.mem)
    return torch.stack(spikes), torch.stack(membranes)


def norse_loop(cell, currents):
    state, spikes, membranes = None, [], []
    for current in currents:
        z, state = cell(current, state)
        spikes.append(z)
        membranes.append(next(s.v for s in (state, *state) if hasattr(s, "v")))
    return torch.stack(spikes), torch.stack(membranes)


def compare(neuron, loop, currents):
    """Outputs, and gradients of the currents and of every parameter."""
    leaves = [currents.requires_grad_(), *[p for p in neuron.parameters() if p.requires_grad]]
    scale = torch.arange(1.0, currents.shape[0] + 1).double()[:, None, None]
    grads = []
    for run in (lambda: dk.rollout(neuron, currents), lambda: loop(neuron, currents)):
        spikes, membrane = run()
        spiking = 0.0 if torch.equal(spikes, membrane) else (spikes * scale).sum()
        total = spiking + (membrane * scale.flip(0)).sum()
        grads.append((spikes, membrane, *torch.autograd.grad(total, leaves, allow_unused=True)))
    rate = float(grads[1][0].detach().mean())
    if torch.equal(grads[1][0], grads[1][1]):  # a readout puts its membrane out and never spikes
        grads[1] = (torch.zeros_like(grads[1][0]), *grads[1][1:])
    else:
        assert 0.02 <= rate <= 0.4, rate
    for one, two in zip(*grads, strict=True):
        if one is None or two is None:
            assert not any(g.any() for g in (one, two) if g is not None)
        else:
            hand.assert_same(one, two, 1e-9)


@pytest.mark.parametrize("kind", SNNTORCH)
def test_bare_snntorch(kind):
    torch.manual_seed(0)
    compare(SNNTORCH[kind](init_hidden=True).double(), snntorch_loop, drive(HIDDEN))


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("kind", [k for k in SNNTORCH if k.startswith("R")])
def test_delayed_recurrence_of_snntorch(kind, reset, granularity):
    if granularity == "synaptic" and "one" in kind:
        return  # refused by the plan: there is no matrix
    torch.manual_seed(0)
    neuron = SNNTORCH[kind](init_hidden=True, reset_mechanism=reset).double()
    shift = (0.2 if "one" in kind else 0.3) if reset == "none" else 0.1  # without a reset a neuron fires for long
    x = drive(HIDDEN) - shift
    rule = dk.FreeDelay(granularity, max_delay=6)
    dk.wrap_(neuron, {"recurrent": rule}, example=lambda: snntorch_loop(neuron, x))
    compare(neuron, snntorch_loop, x)
    compare(neuron, snntorch_loop, drive(HIDDEN, 5, 9, 2) - shift)


@pytest.mark.parametrize("kind", [k for k in SNNTORCH if not k.startswith("R")])
def test_new_recurrence_of_snntorch(kind):
    torch.manual_seed(0)
    neuron, x = SNNTORCH[kind](init_hidden=True).double(), drive(HIDDEN)
    rule = dk.Recurrent(
        dk.FreeDelay("axonal", max_delay=6), bias=True, weight=0.4 * torch.randn(HIDDEN, HIDDEN).double()
    )
    dk.wrap_(neuron, {"": rule}, example=lambda: snntorch_loop(neuron, x))
    compare(neuron, snntorch_loop, x)
    with dk.disabled(neuron):
        compare(neuron, snntorch_loop, drive(HIDDEN, 5, 9, 2))


def cell_of(kind):
    torch.manual_seed(0)
    cls = getattr(norse, kind)
    cell = (cls(PRE, HIDDEN) if "Recurrent" in kind else cls()).double()
    if "Recurrent" in kind:
        with torch.no_grad():
            cell.input_weights.copy_(cell.input_weights.abs())
    return cell, PRE if "Recurrent" in kind else HIDDEN, SCALES.get(kind, 6.0)


@pytest.mark.parametrize("kind", NORSE)
def test_bare_norse(kind):
    cell, size, scale = cell_of(kind)
    compare(cell, norse_loop, drive(size, scale=scale))


@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
@pytest.mark.parametrize("kind", [k for k in NORSE if "Recurrent" in k])
def test_delayed_norse(kind, granularity):
    cell, size, scale = cell_of(kind)
    x = drive(size, scale=scale)
    rules = {slot: dk.FreeDelay(granularity, max_delay=4) for slot in ("input", "recurrent")}
    dk.wrap_(cell, rules, example=lambda: norse_loop(cell, x))
    compare(cell, norse_loop, x)
    compare(cell, norse_loop, drive(size, 5, 9, 2, scale))


@pytest.mark.parametrize("kind", ["LIFCell", "LIFBoxCell", "LSNNCell"])
def test_new_recurrence_of_norse(kind):
    cell, size, scale = cell_of(kind)
    x = drive(size, scale=scale)
    rule = dk.Recurrent(dk.FreeDelay("axonal", max_delay=4), weight=torch.randn(size, size).double())
    dk.wrap_(cell, {"": rule}, example=lambda: norse_loop(cell, x))
    compare(cell, norse_loop, x)
    with dk.disabled(cell):
        compare(cell, norse_loop, drive(size, 5, 9, 2, scale))


def test_a_wrapped_layer_before_the_rollout_takes_the_whole_sequence():
    """The fast way through a network: sequence through the Linear, rollout of the neuron, and so on."""

    class Fast(nn.Module):
        def __init__(self, fused):
            super().__init__()
            self.fused, self.fc = fused, nn.Linear(PRE, HIDDEN)
            self.rlif = snn.RLeaky(linear_features=HIDDEN, init_hidden=True, **NUMBERS)

        def forward(self, x):
            currents = self.fc(x)
            return (dk.rollout(self.rlif, currents) if self.fused else snntorch_loop(self.rlif, currents))[0]

    nets = [Fast(fused).double() for fused in (False, True)]
    x = hand.spikes_in(rate=0.5)
    nets[1].load_state_dict(nets[0].state_dict())
    rules = {"fc": dk.At(dk.FreeDelay("axonal", init=2.5), time_dim=0)}
    rules["rlif.recurrent"] = dk.At(dk.FreeDelay("axonal", init=1.5), reset="root")
    outs = [dk.wrap_(net, rules, example=x)(x) for net in nets]
    hand.assert_same(*outs)


def test_a_connection_with_a_forward_of_its_own_runs_step_by_step():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(1)
    nets = [snn.RLeaky(linear_features=HIDDEN, **NUMBERS).double() for _ in range(2)]
    nets[0].recurrent = Twice(HIDDEN, HIDDEN).double()
    with torch.no_grad():
        nets[1].recurrent.weight.copy_(2 * nets[0].recurrent.weight)
        nets[1].recurrent.bias.copy_(2 * nets[0].recurrent.bias)
        hand.assert_same(*(dk.rollout(net, drive(HIDDEN))[1] for net in nets))


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_a_wrapped_rollout_has_a_reference(granularity):
    torch.manual_seed(2)
    neuron = nn.Sequential(snn.RLeaky(linear_features=HIDDEN, **NUMBERS).double())
    dk.wrap_(neuron, {"0.recurrent": dk.At(dk.FreeDelay(granularity, max_delay=4), reset="manual")})
    currents, results = drive(HIDDEN), []
    for name in ("reference", "torch"):
        with dk.backend(name):
            spikes, membrane = dk.rollout(neuron[0], currents)
        (grad,) = torch.autograd.grad((membrane * currents.detach()).sum(), neuron[0].recurrent.dk.delay.delay)
        results.append((spikes, membrane, grad))
    assert results[0][2].abs().max() > 0
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_the_former_name_of_a_delays_recurrence_still_counts():
    torch.manual_seed(3)
    neuron = nn.Sequential(snn.RLeaky(linear_features=HIDDEN, **NUMBERS).double())
    dk.wrap_(neuron, {"0.recurrent": dk.At(dk.FreeDelay("axonal", max_delay=4), reset="manual")})
    delay, weight, asked = neuron[0].recurrent.dk.delay, neuron[0].recurrent.weight, []

    def connection():
        asked.append(True)
        taps = delay.kernel().taps(delay.delays().detach())
        return connect(PARTS, weight.detach(), SparseTaps.of(taps, drive(HIDDEN)), 99)

    with torch.no_grad():
        want = dk.rollout(neuron[0], drive(HIDDEN))
        delay.rollout_connection = connection
        torch.testing.assert_close(dk.rollout(neuron[0], drive(HIDDEN)), want, rtol=1e-12, atol=1e-12)
    assert asked


def test_what_rollout_refuses():
    with pytest.raises(dk.ConfigError, match="not the net"):
        dk.rollout(nn.Linear(2, 2), torch.rand(3, 2, 2))
    with pytest.raises(dk.ShapeError, match="time, batch"):
        dk.rollout(snn.Leaky(beta=0.9), torch.rand(2, 2))
    with pytest.raises(dk.ShapeError):
        dk.rollout(snn.Leaky(beta=0.9), torch.ones(3, 2, 2, dtype=torch.int64))
    with pytest.raises(dk.ConfigError, match="recurrent_mask"):
        dk.rollout(snn.Alpha(alpha=0.9, beta=0.8), torch.rand(3, 2, 2), recurrent_mask=torch.ones(2, 2))
