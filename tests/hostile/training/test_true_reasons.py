"""What is refused says why, and what it advises can be done; what is exact is not refused."""

from __future__ import annotations

import pytest
import torch
from rigs import late, snn
from torch import nn
from torch.utils.checkpoint import checkpoint

import delaykit as dk


class Net(nn.Module):
    """Two layers in a loop; its weights may fade, or its steps be checkpointed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(6, 8), snn.Leaky(0.9), nn.Linear(8, 4), snn.Leaky(0.9)

    def step(self, x, one, two):
        spikes, one = self.l1(self.fc1(x), one)
        _, two = self.l2(self.fc2(spikes), two)
        return one, two

    def forward(self, x, fades=False, checkpointed=None):
        one, two, out = self.l1.init_leaky(), self.l2.init_leaky(), []
        for step in x:
            if checkpointed is None:
                one, two = self.step(step, one, two)
            else:
                one, two = checkpoint(self.step, step, one, two, use_reentrant=checkpointed)
            out.append(two)
            if fades:
                with torch.no_grad():
                    self.fc1.weight.mul_(0.9)
        return torch.stack(out)


class Slow(Net):
    """The same bare, the first layer's input three steps late."""

    def forward(self, x, **how):
        return super().forward(torch.cat([torch.zeros(3, *x.shape[1:]), x[:-3]]), **how)


def data():
    return 4 * (torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def wrapped(rule=None, net=None):
    net = net or Net()
    return dk.wrap_(net, {"fc1": rule or late(3)}, example=data())


@pytest.mark.parametrize("known", [True, False])
def test_weights_that_change_within_a_fused_run_without_gradients(known):
    """The arrival's weight counts, as in the loop; there is no backward pass that could mind."""
    fast = dk.fused(wrapped(), example=data() if known else None)
    want = Slow()(data(), fades=True).detach()
    with torch.no_grad():
        got = fast(data(), fades=True)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert "weight" in fast.report()["fc1"]
    with torch.no_grad():
        again = fast(data())  # the faded weight, and a run of the other kind, ahead
    assert again.shape == want.shape


def test_weights_that_change_within_a_fused_run_with_gradients_are_refused_as_in_the_loop():
    net = wrapped()
    with pytest.raises(dk.HistoryError, match="changed") as loop:
        net(data(), fades=True).sum().backward()
    net = wrapped()
    with pytest.raises(dk.HistoryError, match="changed") as fused:
        dk.fused(net)(data(), fades=True).sum().backward()
    assert str(fused.value) == str(loop.value)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rules", [{"fc1": late(3)}, {"fc2": late(3)}, {"fc1": dk.At(late(3), reset="manual")}])
def test_a_checkpointed_step(rules, reentrant):
    net = Net()
    dk.wrap_(net, rules, example=data())
    out = net(data().requires_grad_(), checkpointed=reentrant)
    with pytest.raises(dk.HistoryError, match="activation checkpointing"):
        out.sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_step_with_the_loop_outside(reentrant):
    net = nn.Sequential(nn.Linear(6, 8), snn.Leaky(0.9, init_hidden=True), nn.Linear(8, 4))
    dk.wrap_(net, {"0": late(3), "2": late(2)}, example=data()[0])
    net[1].reset_mem()
    out = [checkpoint(net, x.requires_grad_(), use_reentrant=reentrant) for x in data()]
    with pytest.raises(dk.HistoryError, match="activation checkpointing"):
        torch.stack(out).sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rules", [{"0": late(3)}, {"1.recurrent": late(3)}])
def test_a_checkpointed_step_of_norse(rules, reentrant):
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(6, 8), norse.LIFRecurrentCell(8, 8))

    def run(step):
        state, out = None, []
        for x in data():
            y, state = step(x, state)
            out.append(y)
        return torch.stack(out)

    dk.wrap_(net, rules, example=lambda: run(net))
    out = run(lambda x, state: checkpoint(net, x.clone().requires_grad_(), state, use_reentrant=reentrant))
    with pytest.raises(dk.HistoryError, match="activation checkpointing"):
        out.sum().backward()


def test_the_advice_on_a_lifted_layer_in_pieces_can_be_followed():
    """``Lift(Linear)`` says to leave ``Lift`` out: then pieces are exact."""
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    def build(layer):
        torch.manual_seed(0)
        return norse.SequentialState(layer(nn.Linear(6, 8)), norse.LIFRecurrent(8, 8))

    net, whole = build(norse.Lift), build(lambda fc: fc)
    dk.wrap_(net, {"0.lifted_module": late(3)}, example=data())
    with pytest.raises(dk.HistoryError, match=r"without Lift") as refused:
        net(data()[6:], net(data()[:6])[1])
    assert "two calls" not in str(refused.value)
    pieces = build(norse.Lift)
    with pytest.raises(dk.WrapError, match=r"without Lift"):
        dk.wrap_(pieces, {"0.lifted_module": late(3)}, example=lambda: pieces(data()[6:], pieces(data()[:6])[1]))
    dk.wrap_(whole, {"0": late(3)}, example=data())
    first, state = whole(data()[:6])
    both = torch.cat([first, whole(data()[6:], state)[0]])
    torch.testing.assert_close(both, net(data())[0], rtol=1e-5, atol=1e-6)


def test_a_neuron_replaced_by_another_module_is_told():
    """The line still follows the one it was wrapped with."""
    net = wrapped()
    net(data())
    net.l1 = snn.Leaky(0.5)
    with pytest.raises(dk.HistoryError, match="wrap the model anew"):
        net(data())
    with pytest.raises(dk.HistoryError) as left_out:
        twice = wrapped()
        twice.fc1.register_forward_pre_hook(lambda *_: twice.l1(torch.zeros(3, 8), torch.zeros(3, 8)) and None)
        twice(data())
    assert "anew" not in str(left_out.value)
