"""Models whose loop is inside, over a segment, with a state that the caller hands on: spikes under way are kept."""

from __future__ import annotations

import copy

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class RecurrentSegments(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.lif1 = snn.RLeaky(beta=0.8, spike_grad=spike, linear_features=HIDDEN)

    def forward(self, x, state):
        out = []
        for step in x:
            state = self.lif1(self.fc1(step), *state)
            out.append(state[0] + state[1])
        return torch.stack(out), state


class Segments(nn.Module):
    """The loop is inside, over a segment; the states come from the caller and go back to him."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8, spike_grad=spike)
        self.fc2 = nn.Linear(HIDDEN, POST)

    def forward(self, x, mem):
        out = []
        for step in x:
            spk, mem = self.lif1(self.fc1(step), mem)
            out.append(self.fc2(spk) + mem[:, :POST])
        return torch.stack(out), mem


def by_segments(net, x):
    mem, out = net.lif1.reset_mem(), []
    for segment in x.split(4):
        y, mem = net(segment, mem)
        out.append(y)
    return torch.cat(out)


def by_segments_from_zeros(net, x):
    mem, out = torch.zeros(x.shape[1], HIDDEN).to(x), []
    for segment in x.split(4):
        y, mem = net(segment, mem)
        out.append(y)
    return torch.cat(out)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_a_sequence_in_several_calls_keeps_its_late_spikes(which):
    hand.check(Segments, by_segments, {"fc1": "axonal", "fc2": "synaptic"}, which)


def test_a_recurrent_sequence_in_several_calls():
    hand.check(RecurrentSegments, by_segments, {"fc1": "axonal", "lif1.recurrent": "axonal"}, "mixed")


def test_a_sequence_in_several_calls_from_zeros_asks_for_manual_resets():
    net, x = Segments().double(), hand.spikes_in()
    plan = dk.plan(net, {"fc*": dk.FreeDelay()}, example=lambda: by_segments_from_zeros(net, x))
    assert len(plan.issues) == 2 and all("dk.reset(net)" in str(i) for i in plan.issues), plan
    sites = {"fc1": "axonal", "fc2": "axonal"}
    hand.check(Segments, by_segments_from_zeros, sites, "mixed", reset="manual", before=dk.reset)


def two_segments(net, x, **options):
    """Feed the second half with the state that the first half left."""
    start = torch.zeros(x.shape[1], HIDDEN).to(x)
    state = (start, start) if isinstance(net, RecurrentSegments) else start
    half = len(x) // 2
    first, state = net(x[:half], state)
    return torch.cat([first, net(x[half:], change_state(state, **options))[0]])


def change_state(state, change=lambda tensor: tensor):
    return tuple(change(s) for s in state) if isinstance(state, tuple) else change(state)


def one_call(net, x):
    mem = torch.zeros(x.shape[1], HIDDEN).to(x)
    return net(x, (mem, mem) if isinstance(net, RecurrentSegments) else mem)[0]


@pytest.mark.parametrize("how", [lambda m: m, torch.Tensor.detach], ids=["as it is", "detached"])
@pytest.mark.parametrize("site", ["fc1", "fc2", "lif1.recurrent"])
def test_an_unplanned_second_segment_is_refused(site, how):
    net, x = (RecurrentSegments if site == "lif1.recurrent" else Segments)().double(), hand.spikes_in()
    dk.wrap_(net, {site: dk.FreeDelay("axonal", init=2.5)}, example=lambda: one_call(net, x))
    one_call(net, x)
    for model in (net, copy.deepcopy(_reset(net))):
        with pytest.raises(dk.HistoryError, match=f"(?s){site}.*'lif1'.*two calls.*reset='manual'"):
            two_segments(model, x, change=how)
        want = one_call(model, x)  # and a new sequence begins as if nothing had happened
        hand.assert_same(one_call(model, x), want)


def _reset(net):
    net.lif1.reset_mem()
    return net


def test_segments_that_lose_nothing_or_were_asked_for_go_on(tmp_path):
    x, started = hand.spikes_in(), torch.zeros_like
    halves = x.split(len(x) // 2)

    def wrapped(component):
        net = Segments().double()
        return dk.wrap_(net, {"fc*": component}, example=lambda: one_call(net, x))

    net = wrapped(dk.FreeDelay("axonal", init=0))
    assert torch.equal(two_segments(net, x), one_call(net, x))
    net = wrapped(dk.FreeDelay("axonal", init=2))
    assert torch.equal(two_segments(net, x, change=started), torch.cat([one_call(net, half) for half in halves]))
    net = wrapped(dk.At(dk.FreeDelay("axonal", init=2), reset="root"))
    cut = two_segments(net, x)  # the membrane goes on, spikes under way are lost, as asked for
    assert torch.equal(cut[: len(halves[0])], one_call(net, halves[0])) and not torch.equal(cut, one_call(net, x))
    dk.save(net, tmp_path / "late")
    loaded = Segments().double()
    loaded.load_state_dict({k: v for k, v in net.state_dict().items() if ".dk." not in k})
    assert torch.equal(two_segments(dk.load(loaded, tmp_path / "late"), x), cut)
    net = wrapped(dk.FreeDelay(init=2))
    with dk.disabled(net):
        assert torch.equal(two_segments(net, x), one_call(net, x))
    mem = net.lif1.reset_mem()
    net(x, mem)
    again = net(x, net.lif1.mem.detach().zero_())[0]
    assert torch.equal(again, one_call(net, x))
