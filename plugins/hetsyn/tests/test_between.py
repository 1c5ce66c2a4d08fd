"""HetSyn takes the integration over: anything between its connection and its neuron makes that wrong; it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_hetsyn import HetSyn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class Between(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.fc, self.between, self.lif = nn.Linear(2, 2), between, snn.Leaky(0.9, init_hidden=True)

    def forward(self, x):
        return self.lif(self.between(self.fc(x)))


BETWEEN = {
    "relu": nn.ReLU(),
    "dropout": nn.Dropout(0.5),
    "batch norm": nn.BatchNorm1d(2),
    "functional dropout": type(
        "Dropped", (nn.Module,), {"forward": lambda self, x: nn.functional.dropout(x, 0.5, self.training)}
    )(),
    "relu in place": nn.ReLU(inplace=True),
    "scaled": type("Twice", (nn.Module,), {"forward": lambda self, x: 2 * x})(),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_something_in_between_is_refused_in_the_plan(name):
    plan = dk.plan(Between(BETWEEN[name]), {"fc": HetSyn()}, example=torch.rand(3, 2))
    assert plan.issues and "fc" in str(plan.issues[0]), plan
    with pytest.raises(dk.WrapError):
        dk.wrap_(Between(BETWEEN[name]), plan)


@pytest.mark.parametrize("name", ["identity", "flatten"])
def test_what_changes_no_value_is_let_through(name):
    net = Between(nn.Identity() if name == "identity" else nn.Flatten(1))
    assert not dk.plan(net, {"fc": HetSyn()}, example=torch.rand(3, 2)).issues


def test_a_sum_of_connections_is_let_through():
    """The neuron's input is a sum: each part decays on its own."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.skip, self.lif = nn.Linear(2, 2), nn.Linear(2, 2), snn.Leaky(0.9, init_hidden=True)

        def forward(self, x):
            return self.lif(self.fc(x) + self.skip(x))

    assert not dk.plan(Sum(), {"fc": HetSyn()}, example=torch.rand(3, 2)).issues


def test_a_decay_below_zero_is_refused_and_named():
    """Norse with a ``dt`` larger than its time constant: the leak is negative."""
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    net = norse.SequentialState(nn.Linear(2, 2), norse.LIFCell(dt=0.02))
    plan = dk.plan(net, {"0": HetSyn()}, example=lambda: [net(torch.zeros(1, 2), None), None])
    assert plan.issues and "tau" in str(plan.issues[0]), plan


def decaying(granularity, post, groups=None, delay=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, post), snn.Leaky(0.9, init_hidden=True, threshold=9.0))
    parts = (HetSyn(granularity, tau=("uniform", 2.0, 20.0), dt_ms=1.0, groups=groups), *([delay] if delay else []))
    return dk.wrap_(net, {"0": parts}, example=torch.zeros(1, 2))


def run(net, steps, change=None):
    net[1].reset_mem()
    out = []
    with torch.no_grad():
        for t, step in enumerate(steps):
            if change is not None:
                change(t)
            net(step)
            out.append(net[1].mem.clone())
    return torch.stack(out)


KINDS = [("synaptic", None), ("synaptic", 3), ("post", None), ("pre", None), ("layer", None)]


@pytest.mark.parametrize("post", [1, 3])
@pytest.mark.parametrize(("granularity", "groups"), KINDS)
def test_an_input_buffer_that_is_used_again(granularity, groups, post):
    net, x = decaying(granularity, post, groups), torch.rand(6, 1, 2)
    buffer = torch.zeros(1, 2)
    want = run(net, x)
    torch.testing.assert_close(run(net, (buffer.copy_(step) for step in x)), want)


@pytest.mark.parametrize(("granularity", "groups"), KINDS)
@pytest.mark.parametrize("what", ["the neuron's leak", "its own decays"])
def test_a_leak_that_changes_between_steps(granularity, groups, what):
    """V is the sum of the lingering currents, whatever the leak; decays count from the step of the change."""
    net, x = decaying(granularity, 3, groups), torch.rand(8, 1, 2)
    with torch.no_grad():
        net[0].bias.zero_()  # which the neuron's leak alone acts upon
    want = run(net, x)
    part = net[0].dk.heterogeneity
    learned = [p for p in part.parameters() if p.is_floating_point()]

    def change(t):
        if t == 4 and what == "the neuron's leak":
            net[1].beta.mul_(0.8)
        elif t == 4:
            for p in learned:
                p.mul_(0.5)

    got = run(net, x, change)
    if what == "the neuron's leak":
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    elif learned and not groups:
        torch.testing.assert_close(got[:4], want[:4])
        assert not torch.allclose(got[4], want[4])


@pytest.mark.parametrize("post", [1, 3])
@pytest.mark.parametrize(
    ("granularity", "groups", "delayed"),
    [(*kind, delayed) for kind in KINDS for delayed in (None, "axonal", "dendritic", "synaptic")
     if not (kind[1] and delayed)],
)  # fmt: skip
def test_a_decaying_current_keeps_what_it_has_summed(granularity, groups, post, delayed):
    """The weight is doubled when all spikes have arrived: what lingers was made with the old one."""
    delay = dk.FreeDelay(delayed, max_delay=3, init=1) if delayed else None
    net, x = decaying(granularity, post, groups, delay), torch.zeros(8, 1, 2)
    with torch.no_grad():
        net[0].bias.zero_()
    x[0, 0] = torch.tensor([1.0, 0.5])
    want = run(net, x)

    def change(t):
        if t == 4:
            net[0].weight.mul_(2.0)

    torch.testing.assert_close(run(net, x, change), want)
    with torch.no_grad():
        net[0].weight.div_(2.0)
    x[5] = x[0]  # a spike behind the change is made with the new weight
    late = torch.cat([torch.zeros_like(want[:5]), 2 * want[:3]])
    torch.testing.assert_close(run(net, x, change), want + late)
