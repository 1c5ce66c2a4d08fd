"""snnTorch's ``utils.reset(other)`` writes into every neuron; one whose membrane is handed on goes on unharmed."""

from __future__ import annotations

import pytest
import torch
from rigs import HIGH, late, leaky, ones, snn, spikes
from snntorch import utils
from torch import nn

import delaykit as dk

GRANULARITIES = ["axonal", "dendritic", "synaptic"]


def encoder(**options):
    return nn.Sequential(nn.Linear(1, 1), snn.Leaky(0.9, init_hidden=True, **options))


class Nested(nn.Module):
    """An inner spiking encoder is reset for each frame; the outer membrane is the forward's own."""

    def __init__(self, neuron=leaky):
        super().__init__()
        self.encoder, self.fc, self.lif = encoder(), ones(), neuron()

    def forward(self, x, frames=True):
        state, out = self.lif.reset_mem(), []
        state = state if isinstance(state, tuple) else (state,)
        for t in x:
            if frames:
                utils.reset(self.encoder)
                self.encoder(t.detach())
            _, *state = self.lif(self.fc(t), *state)
            out.append(state[-1])
        return torch.stack(out)


def synaptic():
    return snn.Synaptic(0.5, 0.9, threshold=HIGH)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("neuron", [leaky, synaptic])
def test_an_inner_encoder_that_is_reset_for_each_frame_empties_no_line(granularity, neuron):
    x = spikes(10, 1, 4).requires_grad_()
    bare = Nested(neuron)
    want = bare(torch.cat([torch.zeros(3, 1, 1), x])[:10])
    (want_grad,) = torch.autograd.grad(want.sum(), x)
    net = dk.wrap_(bare, {"fc": late(3, granularity, learn=False)}, example=spikes(10))
    got = net(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), x)[0], want_grad)
    assert got[4] > 0 and want_grad.any()


class Actor(nn.Module):
    def __init__(self, neuron=leaky):
        super().__init__()
        self.fc, self.lif = ones(), neuron()

    def forward(self, x, *state):
        return self.lif(self.fc(x), *state)


def episode(actor, x, before=lambda t, mem: mem, begin=lambda lif: lif.reset_mem()):
    mem, out = begin(actor.lif), []
    for t in range(len(x)):
        mem = before(t, mem)
        _, mem = actor(x[t], mem)
        out.append(round(mem.item(), 4))
    return out


def actor(granularity="axonal"):
    net = Actor()
    return dk.wrap_(net, {"fc": late(3, granularity, learn=False)}, example=lambda: episode(net, spikes(6)))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("time", range(1, 9))
def test_an_actor_goes_on_where_its_critic_is_reset(granularity, time):
    net, critic, x = actor(granularity), encoder(), spikes(10, 0, 4)
    want = episode(net, x)

    def between(t, mem):
        if t == time:
            utils.reset(critic)
            critic(x[t])
        return mem

    assert episode(net, x, between) == want
    assert want[3] == 1.0 and want[7] > 1.0


def test_rows_written_in_place_begin_anew_in_spite_of_it():
    net, critic = actor(), encoder()
    x = spikes(8, (3, 0, 0), (3, 1, 0), (0, 0, 0), (0, 1, 0), batch=2)  # arrive at 3 and 6
    mem = net.lif.reset_mem()
    with torch.no_grad():
        for t in range(8):
            if t == 5:
                utils.reset(critic)
                mem[0] = 0.0
            _, mem = net(x[t], mem)
    assert mem[0] == 0.0 and float(mem[1]) == pytest.approx(0.9**4 + 0.9)


def test_its_own_reset_and_one_of_a_model_with_it_begin_anew():
    net = actor()
    x = spikes(10, 0, 4)
    for reset in (lambda: net.lif.reset_mem(), lambda: utils.reset(net)):
        episode(net, x[:6])
        reset()
        got = episode(net, spikes(6, 1), begin=lambda lif: torch.zeros(1, 1))
        assert got[:5] == [0.0, 0.0, 0.0, 0.0, 1.0]


RUNS_ON = {
    "itself": lambda mem: mem,
    "detached": lambda mem: mem.detach(),
    "a detached clone": lambda mem: mem.detach().clone(),
}
RESETS = {
    "of itself": lambda net: net.lif.reset_mem(),
    "of a model with it": lambda net: utils.reset(net),
    "of the class": lambda net: snn.Leaky.reset_hidden(),
}


@pytest.mark.parametrize("runs_on", RUNS_ON)
@pytest.mark.parametrize("reset", RESETS)
def test_a_running_membrane_behind_a_reset_of_its_own_is_refused(runs_on, reset):
    net = actor()

    def between(t, mem):
        if t == 6:
            RESETS[reset](net)
            return RUNS_ON[runs_on](mem)
        return mem

    with pytest.raises(dk.HistoryError, match="a running membrane handed to neuron 'lif' behind a reset of it"):
        episode(net, spikes(10, 0, 4), between)
    dk.reset(net)
    assert episode(net, spikes(6, 1))[4] == 1.0


def test_an_edited_one_is_refused_behind_a_reset_of_the_whole_model():
    net = actor()

    def between(t, mem):
        if t == 6:
            utils.reset(net)
            return mem * 0.5
        return mem

    with pytest.raises(dk.HistoryError, match="behind a reset of it"):
        episode(net, spikes(10, 0, 4), between)


def test_with_nothing_under_way_a_running_membrane_goes_on():
    net = actor()

    def between(t, mem):
        if t == 7:
            utils.reset(net)
        return mem

    x = spikes(11, 0, 7)
    want = episode(actor(), x)
    assert episode(net, x, between) == want
    assert want[10] > 1.0


def test_values_of_ones_own_begin_behind_reset_mem_or_dk_reset():
    net = actor()
    for reset in (lambda: net.lif.reset_mem(), lambda: (utils.reset(net), dk.reset(net))):
        episode(net, spikes(6, 0, 4))
        reset()
        got = episode(net, spikes(6, 1), begin=lambda lif: torch.full((1, 1), 0.25))
        assert got[4] == round(0.25 * 0.9**5 + 1.0, 4)


def test_a_neuron_that_keeps_its_membrane_loses_it_to_any_reset():
    """The library writes into it, so the bare one begins anew, too."""
    net = nn.Sequential(ones(), leaky(init_hidden=True, output=True))
    dk.wrap_(net, {"0": late(3)}, example=spikes(1)[0])
    critic, x, out = encoder(), spikes(10, 0, 4), []
    for t in range(10):
        if t == 6:
            utils.reset(critic)
        out.append(round(net(x[t])[1].item(), 4))
    assert out == [0, 0, 0, 1, 0.9, 0.81, 0, 0, 0, 0]


def test_one_that_takes_up_what_the_reset_wrote_is_refused_while_spikes_are_under_way():
    """The connection was stepped on before anybody saw that no membrane is handed in."""
    net, critic, x = actor(), encoder(), spikes(8, 0, 4)
    mem = net.lif.reset_mem()
    with pytest.raises(dk.HistoryError, match="dk.reset"):
        for t in range(8):
            if t == 6:
                utils.reset(critic)
            _, mem = net(x[t], mem) if t < 6 else net(x[t])


def test_a_recurrent_neurons_own_line_goes_on_with_the_membrane():
    def run(net, x, reset):
        critic, out = nn.Sequential(nn.Linear(1, 1), snn.RLeaky(0.9, init_hidden=True, linear_features=1)), []
        spk, mem = net.reset_mem()
        for t in range(len(x)):
            if reset and t == 3:
                utils.reset(critic)
            spk, mem = net(x[t], spk, mem)
            out.append(round(mem.item(), 4))
        return out

    net = snn.RLeaky(0.9, threshold=0.5, linear_features=1)
    with torch.no_grad():
        net.recurrent.weight.fill_(1.0), net.recurrent.bias.zero_()
    dk.wrap_(net, {"recurrent": late(3)}, example=lambda: run(net, spikes(4), False))
    with torch.no_grad():
        want = run(net, spikes(10, 1), False)
        assert run(net, spikes(10, 1), True) == want
    assert len({value > 0.9 for value in want}) == 2
