"""Shared layers: another number of streams than in the example, or another order."""

from __future__ import annotations

import pytest
import torch
from rigs import Loop, arrivals, currents, exact_or_refused, late, leaky, ones, spikes
from torch import nn

import delaykit as dk


class Views(Loop):
    """``views`` versions of the input go through the same layer and the same neuron, each with its own membrane."""

    def forward(self, x, views=2, order=None):
        mems = [torch.zeros(x.shape[1], 1) for _ in range(views)]
        for t in range(len(x)):
            for k in order(t) if order else range(views):
                _, mems[k] = self.lif(self.fc(x[t]), mems[k])
        return mems


def views(**options):
    net = Views()
    return dk.wrap_(net, {"fc": dk.At(late(3), **options)}, example=spikes(6))


@pytest.mark.parametrize("time", [9, 10])
def test_one_view_where_the_example_had_two(time):
    """The spike of step 0 arrives at step 3, whether the number of steps is even or odd; or it is refused."""
    net = views()
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(time, 0), 1)
        assert arrivals(seen) == {3: 1.0}


def test_three_views_where_the_example_had_two():
    net = views()
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(6, 0), 3)
        assert arrivals(seen) == {9: 1.0, 10: 1.0, 11: 1.0}


def test_two_views_where_the_example_had_one():
    net = Views()
    dk.wrap_(net, {"fc": late(3)}, example=(spikes(6), 1))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(6, 0), 2)
        assert arrivals(seen) == {6: 1.0, 7: 1.0}


def test_two_views_stay_apart():
    net = views()
    for _ in range(2):
        with currents(net.fc) as seen:
            net(spikes(6, 0))
        assert arrivals(seen) == {6: 1.0, 7: 1.0}


def test_views_that_change_their_order():
    net = views()
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(6, 0), 2, lambda t: (0, 1) if t % 2 else (1, 0))
        assert arrivals(seen) == {6: 1.0, 7: 1.0}


class Held(Loop):
    """Views whose membranes are all alike for long, and may be edited before every step."""

    def forward(self, x, views=2, edit=lambda mem: mem):
        mems = [torch.ones(x.shape[1], 1) for _ in range(views)]
        for t in range(len(x)):
            for k in range(views):
                _, mems[k] = self.lif(self.fc(x[t]), edit(mems[k]))
        return mems


@pytest.mark.parametrize("seen", [1, 2, 3])
@pytest.mark.parametrize("run", [1, 2, 3, 4])
def test_other_views_whose_membranes_have_equal_values(seen, run):
    """Values tell nothing here: the streams are known by the tensors that the neuron left."""
    net = Held()
    dk.wrap_(net, {"fc": late(3)}, example=(spikes(6), seen))
    with exact_or_refused(), currents(net.fc) as seen_currents:
        net(spikes(9, (2, 0, 0)), run)
        assert arrivals(seen_currents) == {5 * run + k: 1.0 for k in range(run)}


def test_views_whose_membranes_are_edited_in_place():
    net = Held()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with torch.no_grad(), currents(net.fc) as seen:
        net(spikes(9, (2, 0, 0)), 2, lambda mem: mem.clamp_(max=0.5))
    assert arrivals(seen) == {10: 1.0, 11: 1.0}


def test_views_whose_membranes_are_replaced_before_every_step():
    """No tensor names its stream then."""
    net = Held()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(9, (2, 0, 0)), 2, lambda mem: mem.clamp(max=0.5))
        assert arrivals(seen) == {10: 1.0, 11: 1.0}


def test_an_older_membrane_handed_on_is_refused():
    """It could be another stream, or a loop that goes back."""

    class Back(Loop):
        def forward(self, x, back=False):
            mem = kept = self.lif.reset_mem()
            for t in range(len(x)):
                _, mem = self.lif(self.fc(x[t]), kept if back and t == 3 else mem)
                kept = mem if t == 1 else kept

    net = Back()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    net(spikes(6, 0))
    with pytest.raises(dk.HistoryError, match="one sequence"):
        net(spikes(6, 1), True)


class Branches(nn.Module):
    """One layer, two neurons; the second branch may be left out."""

    def __init__(self):
        super().__init__()
        self.fc, self.one, self.two = ones(), leaky(), leaky()

    def forward(self, x, both=True):
        one, two = self.one.reset_mem(), self.two.reset_mem()
        for step in x:
            _, one = self.one(self.fc(step), one)
            if both:
                _, two = self.two(self.fc(2 * step), two)
        return one


@pytest.mark.parametrize("time", [9, 10])
def test_a_branch_left_out(time):
    net = Branches()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(time, 0), False)
        assert arrivals(seen) == {3: 1.0}


def test_views_of_a_siamese_pair_one_after_the_other():
    """The whole first view, then the whole second, in one root call, where the example showed one view."""

    class Siamese(Loop):
        def forward(self, x, pair=False):
            out = []
            for part in (x, 2 * x) if pair else (x,):
                mem = torch.zeros(x.shape[1], 1)
                for step in part:
                    _, mem = self.lif(self.fc(step), mem)
                out.append(mem)
            return out

    net = Siamese()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    with exact_or_refused(), currents(net.fc) as seen:
        net(spikes(6, 0, 5), True)  # the second is still under way when the second view begins
        assert arrivals(seen) == {3: 1.0, 9: 2.0}


def test_norse_views():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")

    class NorseViews(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.li = ones(), norse.LICell()

        def forward(self, x, views=2):
            states = [None] * views
            for step in x:
                for k in range(views):
                    _, states[k] = self.li(self.fc(step), states[k])

    net = NorseViews()
    dk.wrap_(net, {"fc": late(3)}, example=spikes(6))
    for time in (9, 10):
        with exact_or_refused(), currents(net.fc) as seen:
            net(spikes(time, 0), 1)
            assert arrivals(seen) == {3: 1.0}
    with currents(net.fc) as seen:
        net(spikes(6, 0))
    assert arrivals(seen) == {6: 1.0, 7: 1.0}


def test_a_shared_cell_with_two_states():
    """A wrapped Norse cell on two streams: each state carries its own history, in any order and number."""
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    torch.manual_seed(0)
    cell = norse.LIFRecurrentCell(2, 3)
    with torch.no_grad():
        cell.input_weights.abs_().mul_(9)
    dk.wrap_(cell, {"*": late(2)}, example=lambda: cell(torch.zeros(1, 2)))
    x = torch.rand(10, 2, 1, 2)
    with torch.no_grad():
        alone = []
        for k in (0, 1):
            s = None
            for step in x:
                _, s = cell(step[k], s)
            alone.append(s.v)
        states = [None, None]
        for t, step in enumerate(x):
            for k in ((0, 1), (1, 0))[t % 2]:
                _, states[k] = cell(step[k], states[k])
    torch.testing.assert_close([s.v for s in states], alone)


class Parallel(nn.Module):
    """One layer before two neurons, called once a step; the loop is outside."""

    def __init__(self):
        super().__init__()
        self.fc = ones()
        self.fast, self.slow = leaky(0.5, init_hidden=True, output=True), leaky(0.9, init_hidden=True, output=True)

    def forward(self, x):
        current = self.fc(x)
        return self.fast(current)[1] + self.slow(current)[1]


@pytest.mark.parametrize("steps", [1, 6])
def test_one_layer_before_two_neurons_in_a_model_of_one_step(steps):
    """It is called at every step, though its call is heard twice."""
    net = Parallel()
    dk.wrap_(net, {"fc": late(3)}, example=lambda: [net(x) for x in spikes(steps)])
    for _ in (0, 1):
        net.fast.reset_mem(), net.slow.reset_mem()
        with currents(net.fc) as seen:
            for x in spikes(8, 1):
                net(x)
        assert arrivals(seen) == {4: 1.0}


class Lazy(Loop):
    """A forward that returns a generator: its loop runs when the call is over."""

    def forward(self, x):
        def run():
            mem = torch.zeros(x.shape[1], 1)
            for step in x:
                _, mem = self.lif(self.fc(step), mem)
                yield mem

        return run()


def test_a_forward_that_returns_a_generator_is_refused_in_the_plan():
    net = Lazy()
    with pytest.raises(dk.WrapError, match="returns a generator"):
        dk.wrap_(net, {"fc": late(3)}, example=lambda: list(net(spikes(6))))
    dk.wrap_(net, {"fc": dk.At(late(3), reset="manual")}, example=lambda: list(net(spikes(6))))
    with currents(net.fc) as seen:
        list(net(spikes(8, 1)))
    assert arrivals(seen) == {4: 1.0}
