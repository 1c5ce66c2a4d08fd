"""Norse cells without weights in loops, and cells that are refused, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")
from norse.torch.functional.izhikevich import tonic_spiking  # noqa: E402

SCALE = 8.0  # Norse's membranes move by a tenth of the current a step


def call(net, x):
    return net(x)


class Net(nn.Module):
    """fc1 -> cell -> fc2 -> LI, the loop with ``s = None``."""

    def __init__(self, cell):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN, bias=False), cell
        self.fc2, self.li = nn.Linear(HIDDEN, POST), norse.LICell()

    def forward(self, x):
        s1 = s2 = None
        out = []
        for t in range(x.shape[0]):
            z, s1 = self.cell(self.fc1(x[t]), s1)
            v, s2 = self.li(self.fc2(z), s2)
            out.append(v)
        return torch.stack(out)


CELLS = ["LIFCell", "LIFBoxCell", "LSNNCell", "LIFAdExCell", "LIFExCell", "IAFCell", "LIFRefracCell"]
CELLS += ["LIFAdExRefracCell"]
IN = {"fc1": "axonal", "fc2": "axonal"}


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("cell", CELLS)
def test_delayed_inputs(cell, which):
    hand.check(
        lambda: Net(getattr(norse, cell)()), call, IN, which, scale=1.0 if cell == "IAFCell" else SCALE, rate=0.5
    )


@pytest.mark.parametrize("kind", ["layer", "dendritic", "synaptic"])
def test_delayed_inputs_of_every_granularity(kind):
    hand.check(lambda: Net(norse.LIFCell()), call, {"fc1": kind, "fc2": kind}, "mixed", scale=SCALE, rate=0.5)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_izhikevich(which):
    hand.check(lambda: Net(norse.IzhikevichCell(tonic_spiking)), call, IN, which, scale=60.0, rate=0.5)


class OneStep(nn.Module):
    """One step a call; the caller carries the state, and there is nobody to follow."""

    def __init__(self):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN, bias=False), norse.LIFCell()

    def forward(self, x, s=None):
        return self.cell(self.fc1(x), s)


def carry_state(net, x):
    s, out = None, []
    for step in x:
        z, s = net(step, s)
        out.append(z + s.v)
    return torch.stack(out)


def test_loop_outside_is_refused_and_works_with_manual_resets():
    net, x = OneStep().double(), hand.spikes_in()
    plan = dk.plan(net, {"fc1": dk.FreeDelay()}, example=lambda: carry_state(net, x))
    assert len(plan.issues) == 1 and "dk.reset(net)" in str(plan.issues[0])
    options = {"reset": "manual", "before": dk.reset, "scale": SCALE, "rate": 0.5}
    hand.check(OneStep, carry_state, {"fc1": "axonal"}, "mixed", **options)


class TwoStreams(nn.Module):
    """One cell and one Linear on two streams that take turns, a state each."""

    def __init__(self):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN, bias=False), norse.LIFCell()

    def forward(self, x):
        left = right = None
        out = []
        for step in x:
            z1, left = self.cell(self.fc1(step), left)
            z2, right = self.cell(self.fc1(step.flip(-1)), right)
            out.append(torch.cat([z1 + left.v, z2 - right.v], -1))
        return torch.stack(out)


@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
def test_one_cell_on_two_streams(kind):
    hand.check(TwoStreams, call, {"fc1": kind}, "mixed", scale=SCALE, rate=0.5, fc1={"streams": 2})


REFUSED = {
    "LIFMCRecurrentCell": (lambda: norse.LIFMCRecurrentCell(PRE, HIDDEN), "input", "compartments"),
    "LIFMCRefracRecurrentCell": (lambda: norse.LIFMCRefracRecurrentCell(PRE, HIDDEN), "input", "compartments"),
    "CobaLIFCell": (lambda: norse.CobaLIFCell(PRE, HIDDEN), "input", "conductances"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_its_reason(kind):
    build, slot, reason = REFUSED[kind]
    cell = build()
    plan = dk.plan(cell, {slot: dk.FreeDelay()}, example=(hand.spikes_in().float()[0],))
    assert any(reason in str(i) for i in plan.issues), plan


class Correlated(nn.Module):
    """A cell that is handed its weights in every call."""

    def __init__(self):
        super().__init__()
        self.fc1, self.cell = nn.Linear(PRE, HIDDEN), norse.LIFCorrelation(HIDDEN, 2)
        self.weights = nn.ParameterList([torch.ones(2, HIDDEN), torch.ones(2, 2)])
        nn.init.uniform_(self.fc1.weight, 0.1, 0.5)  # excitatory: the cells fire whatever is drawn

    def forward(self, x):
        s, out = None, []
        for step in x:
            z, s = self.cell(self.fc1(step), *self.weights, s)
            out.append(z)
        return torch.stack(out)


def test_lif_correlation_is_refused_with_its_reason_under_every_name():
    rules = {"cell.input": dk.FreeDelay(), "cell.recurrent": dk.FreeDelay(), "cell": dk.Recurrent(dk.FreeDelay())}
    plan = dk.plan(Correlated(), rules, example=hand.spikes_in(batch=1).float())
    assert len(plan.issues) == 3 and all("arguments of every call" in str(i) for i in plan.issues), plan


def test_the_input_of_lif_correlation_can_be_late():
    net, x = Correlated(), 20 * hand.spikes_in(batch=1, rate=0.5).float()  # Norse knows one sample
    bare = net(hand.HandDelayed(nn.Identity(), torch.tensor(2.0), "layer", time_dim=0)(x)).detach()
    assert bool(bare.any())
    dk.wrap_(net, {"fc1": dk.FreeDelay("axonal", init=2)}, example=x)
    for _ in range(2):
        torch.testing.assert_close(net(x), bare)
