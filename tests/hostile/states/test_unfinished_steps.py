"""A step that failed in the middle and is tried again, and a second sequence in between: exact, or the true reason."""

from __future__ import annotations

import copy

import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk

norse = pytest.importorskip("norse.torch", reason="wraps norse models")

STEPS, AT = 10, 5
X = 2 * (torch.rand(2, STEPS, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Boom(Exception):
    """What goes wrong in forward."""


class Net(nn.Module):
    """One step a call, the state handed on; ``at`` names the line that fails."""

    def __init__(self, recurrent=False, readout=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2, self.readout, self.at = nn.Linear(4, 5), nn.Linear(5, 3), readout, None
        self.l1 = snn.RLeaky(0.9, linear_features=5) if recurrent else snn.Leaky(0.9)
        self.l2 = snn.Leaky(0.8)

    def fails(self, line):
        if self.at == line:
            raise Boom

    def forward(self, x, state=None):
        if state is None:
            one = self.l1.init_rleaky() if isinstance(self.l1, snn.RLeaky) else (self.l1.init_leaky(),)
            state = tuple(one), self.l2.init_leaky()
        one, two = state
        x = self.fc1(x)
        self.fails(1)
        spikes, *rest = self.l1(x, *one)
        one = (spikes, *rest) if isinstance(self.l1, snn.RLeaky) else tuple(rest)
        self.fails(2)
        x = self.fc2(spikes)
        self.fails(3)
        if self.readout:
            return x, (one, two)
        _, two = self.l2(x, two)
        self.fails(4)
        return two, (one, two)


def run(net, x, state=None):
    out = []
    for step in x:
        seen, state = net(step, state)
        out.append(seen)
    return torch.stack(out), state


def wrapped(sites, **options):
    net = Net(**options)
    rules = {site: dk.FreeDelay("axonal", max_delay=4, init=2.0) for site in sites}
    dk.wrap_(net, rules, example=lambda: run(net, X[0]))
    return net


PLACES = [
    (["fc1"], {}),
    (["fc2"], {}),
    (["fc2"], {"readout": True}),
    (["l1.recurrent"], {"recurrent": True}),
    (["fc1", "l1.recurrent"], {"recurrent": True}),
]


def is_exact_or_told(net, options, line, want):
    before, state = run(net, X[0, :AT])
    net.at = line
    if not (options.get("readout") and line == 4):
        with pytest.raises(Boom):
            net(X[0, AT], state)
    net.at = None
    try:
        got = torch.cat([before, run(net, X[0, AT:], state)[0]])
    except dk.HistoryError as error:
        assert "did not finish (an error in forward?)" in error.found
        assert "dk.reset(net)" in error.fix and "example" not in error.fix
    else:
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("line", [1, 2, 3, 4])
@pytest.mark.parametrize(("sites", "options"), PLACES)
def test_a_step_tried_again(sites, options, line):
    net = wrapped(sites, **options)
    want, again = run(copy.deepcopy(net), X[0])[0], run(copy.deepcopy(net), X[1])[0]
    is_exact_or_told(net, options, line, want)
    dk.reset(net)  # as the error advises
    torch.testing.assert_close(run(net, X[1])[0], again)


@pytest.mark.parametrize(("sites", "options"), PLACES)
def test_an_older_membrane_without_an_error(sites, options):
    """A look ahead: nobody knows what the line was, and no example could show it."""
    net = wrapped(sites, **options)
    _, state = run(net, X[0, :AT])
    net(X[0, AT], state)
    with pytest.raises(dk.HistoryError, match=r"another sequence ran in between.*copy\.deepcopy\(net\)") as refused:
        net(X[0, AT], state)
    assert "example" not in str(refused.value)


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize(("sites", "options"), PLACES)
def test_a_second_sequence_within_one(sites, options, rows, quiet):
    """On a copy, as the error advises, it is exact; its batch does not matter, nor whether its line is empty."""
    net = wrapped(sites, **options)
    other = X[1].repeat(1, 2, 1)[:, :rows] * (torch.arange(STEPS) < (2 if quiet else STEPS))[:, None, None]
    want, alone, twin = run(copy.deepcopy(net), X[0])[0], run(copy.deepcopy(net), other)[0], copy.deepcopy(net)
    before, state = run(net, X[0, :AT])
    torch.testing.assert_close(run(twin, other)[0], alone)
    torch.testing.assert_close(torch.cat([before, run(net, X[0, AT:], state)[0]]), want)
    dk.reset(net)
    _, state = run(net, X[0, :AT])
    run(net, other)
    with pytest.raises(dk.HistoryError, match=r"another sequence.*copy\.deepcopy\(net\)") as refused:
        run(net, X[0, AT:], state)
    assert "example" not in str(refused.value)


@pytest.mark.parametrize("line", [1, 2, 3, 4])
@pytest.mark.parametrize(("sites", "options"), PLACES)
def test_a_step_tried_again_where_the_user_resets(sites, options, line):
    net = Net(**options)
    rules = {site: dk.At(dk.FreeDelay("axonal", max_delay=4, init=2.0), reset="manual") for site in sites}
    dk.wrap_(net, rules, example=lambda: run(net, X[0]))
    dk.reset(net)
    want = run(copy.deepcopy(net), X[0])[0]
    is_exact_or_told(net, options, line, want)
    dk.reset(net)
    torch.testing.assert_close(run(net, X[0])[0], want)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_step_tried_again_without_a_neuron(at):
    """Nothing counts the steps but the calls of the model: the layers before the fault have stepped, the others not."""
    torch.manual_seed(0)
    net, delay = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), dk.FreeDelay("axonal", max_delay=4, init=2.0)
    dk.wrap_(net, {"*": dk.At(delay, reset="manual")}, example=X[0, 0])
    want = torch.stack([net(x) for x in X[0]])
    dk.reset(net)
    got = [net(x) for x in X[0, :AT]]
    handle = net[1].register_forward_hook(fail) if at == 2 else net[at].register_forward_pre_hook(fail)
    with pytest.raises(Boom):
        net(X[0, AT])
    handle.remove()
    try:
        got += [net(x) for x in X[0, AT:]]
    except dk.HistoryError as error:
        assert "did not finish (an error in forward?)" in error.found
        assert "dk.reset(net)" in error.fix
    else:
        torch.testing.assert_close(torch.stack(got), want)
    dk.reset(net)
    torch.testing.assert_close(torch.stack([net(x) for x in X[0]]), want)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_call_that_fails_in_the_layer_itself_counts_for_the_steps_that_it_has_taken(taken):
    """A step that the layer refuses has not been taken; those before it in the same call have."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc = nn.Linear(4, 5)

        def forward(self, xs):
            return torch.stack([self.fc(x) for x in xs])

    net, delay = Loop(), dk.FreeDelay("axonal", max_delay=4, init=2.0)
    dk.wrap_(net, {"*": dk.At(delay, reset="manual")}, example=X[0])
    want = net(X[0])
    dk.reset(net)
    got, wrong = net(X[0, :AT]), torch.zeros(2, 4)  # another batch
    for _ in range(2):
        with pytest.raises(dk.HistoryError, match="a batch of"):
            net([*X[0, AT : AT + taken], wrong])
        if taken:
            break
    if taken:
        with pytest.raises(dk.HistoryError, match="did not finish"):
            net(X[0, AT:])
        dk.reset(net)
        torch.testing.assert_close(net(X[0]), want)
    else:
        torch.testing.assert_close(torch.cat([got, net(X[0, AT:])]), want)


def fail(*_):
    raise Boom


@pytest.mark.parametrize("site", ["0", "1.recurrent", "2"])
def test_a_norse_step_tried_again(site):
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(4, 5), norse.LIFRecurrentCell(5, 5), nn.Linear(5, 3), norse.LICell())
    dk.wrap_(net, {site: dk.FreeDelay("axonal", max_delay=4, init=2.0)}, example=lambda: run(net, X[0]))
    _, state = run(net, X[0, :AT])
    kept, handle = list(state), net[3].register_forward_pre_hook(fail)
    with pytest.raises(Boom):
        net(X[0, AT], state)
    handle.remove()
    with pytest.raises(dk.HistoryError, match=r"did not finish \(an error in forward\?\)") as refused:
        net(X[0, AT], kept)
    assert "None" in refused.value.fix and "example" not in refused.value.fix
    want = run(copy.deepcopy(net), X[0])[0]
    torch.testing.assert_close(run(net, X[0])[0], want)  # from None, as the error advises
