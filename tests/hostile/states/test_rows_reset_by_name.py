"""``dk.reset(net, rows=done)`` and a handed state whose rows are at zero: the rows begin anew, whatever the synapse."""

from __future__ import annotations

import copy

import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk

STEPS, AT = 9, 5
DONE = torch.tensor([False, True, False])


class Net(nn.Module):
    """Two layers, one step a call; the state is the caller's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(4, 5), snn.Leaky(0.9), nn.Linear(5, 3), snn.Leaky(0.8)

    def forward(self, x, state=None):
        one, two = state or (self.l1.init_leaky(), self.l2.init_leaky())
        spikes, one = self.l1(self.fc1(x), one)
        _, two = self.l2(self.fc2(spikes), two)
        return two, (one, two)


def hetsyn(granularity):
    module = pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    return module.HetSyn(granularity, tau=("uniform", 2.0, 9.0), dt_ms=1.0)


RULES = {
    "delay": lambda: dk.FreeDelay("synaptic", max_delay=4, init=2.5),
    "triangle": lambda: dk.FreeDelay("dendritic", max_delay=4, init=2.5, kernel="triangle", spread=1.0),
    "hetsyn": lambda: hetsyn("synaptic"),
    "hetsyn-post": lambda: hetsyn("dendritic"),
    "hetsyn-pre": lambda: hetsyn("axonal"),
    "hetsyn-layer": lambda: hetsyn("layer"),
    "both": lambda: (dk.FreeDelay("synaptic", max_delay=4, init=2.5), hetsyn("synaptic")),
}


def frames():
    return 2 * (torch.rand(STEPS, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def run(net, x, state=None):
    out = []
    for step in x:
        seen, state = net(step, state)
        out.append(seen)
    return torch.stack(out), state


def wrapped(rule):
    net = Net()
    return dk.wrap_(net, {"fc1": RULES[rule](), "fc2": RULES[rule]()}, example=lambda: run(net, frames()))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("first", ["state", "reset"])
@pytest.mark.parametrize("rule", RULES)
def test_it_begins_anew_and_the_others_go_on(rule, first, grad):
    net, x = wrapped(rule), frames()
    with torch.set_grad_enabled(grad):
        whole, again = run(copy.deepcopy(net), x)[0], run(copy.deepcopy(net), x[AT:])[0]
        want = torch.cat([whole[:AT], torch.where(DONE[:, None], again, whole[AT:])])
        before, state = run(net, x[:AT])
        if first == "reset":
            dk.reset(net, rows=DONE)
        state = tuple(part * ~DONE[:, None] for part in state)
        if first == "state":
            dk.reset(net, rows=DONE)
        got = torch.cat([before, run(net, x[AT:], state)[0]])
    assert bool((again != whole[AT:])[:, DONE].any())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_without_it_nobody_can_tell(rule):
    net, x = wrapped(rule), frames()
    state = tuple(part * ~DONE[:, None] for part in run(net, x[:AT])[1])
    with pytest.raises(dk.HistoryError, match=r"rows=mask"):
        run(net, x[AT:], state)


@pytest.mark.parametrize("rule", RULES)
def test_a_row_that_was_reset_and_stepped_is_no_longer_known(rule):
    net, x = wrapped(rule), frames()
    _, state = run(net, x[: AT - 2])
    dk.reset(net, rows=DONE)
    _, state = run(net, x[AT - 2 : AT], tuple(part * ~DONE[:, None] for part in state))
    with pytest.raises(dk.HistoryError, match=r"rows=mask"):
        run(net, x[AT:], tuple(part * ~DONE[:, None] for part in state))
