"""``time_dim`` said by the user, checked against what the example's neurons hear; windows within one call."""

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk


def leaky():
    return snn.Leaky(beta=0.5, threshold=99.0)


def at(time_dim=0):
    return dk.At(dk.FreeDelay("layer", max_delay=5, init=1.0), time_dim=time_dim)


def stepped(neuron, currents):
    membrane, out = neuron.reset_mem(), []
    for current in currents:
        _, membrane = neuron(current, membrane)
        out.append(membrane)
    return torch.stack(out)


class Flattened(nn.Module):
    """Time and batch in one dimension of the convolution."""

    def __init__(self, flat):
        super().__init__()
        self.conv, self.lif, self.flat = nn.Conv2d(1, 1, 1, bias=False), leaky(), flat

    def forward(self, x):
        y = self.conv(x.flatten(0, 1))
        return stepped(self.lif, (y.flatten(1) if self.flat else y).unflatten(0, x.shape[:2]))


class Whole(nn.Module):
    """Time first, once for the whole sequence."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(1, 1, bias=False), leaky()

    def forward(self, x):
        return stepped(self.lif, self.fc(x))


class Stepwise(Whole):
    """A call at every step."""

    def forward(self, x):
        return stepped(self.lif, (self.fc(step) for step in x))


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(2, 2, bias=False), snn.LeakyParallel(2, 2)

    def forward(self, x):
        return self.lif(self.fc(x))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("shape", [(6, 1), (1, 3), (1, 1), (6, 2)])
def test_time_and_batch_in_one_dimension_is_no_time(shape, flat):
    with pytest.raises(dk.WrapError, match="move it into the loop|move the layer into the loop|do not flatten it"):
        dk.wrap_(Flattened(flat), {"conv": at()}, example=torch.zeros(*shape, 1, 2, 2))


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_a_batch_is_no_time(batch):
    with pytest.raises(dk.WrapError, match="not a slice of it"):
        dk.wrap_(Stepwise(), {"fc": at()}, example=torch.zeros(6, batch, 1))


def test_the_time_of_a_sequence_neuron_is_its_own():
    with pytest.raises(dk.WrapError, match="whose time is dimension 0"):
        dk.wrap_(Parallel(), {"fc": at(1)}, example=torch.zeros(6, 3, 2))
    dk.wrap_(Parallel(), {"fc": at()}, example=torch.zeros(6, 3, 2))


def test_a_lifted_layer_is_called_at_every_step():
    net = norse.SequentialState(norse.Lift(nn.Linear(1, 1)), norse.LIF())
    with pytest.raises(dk.WrapError, match="called at every step"):
        dk.wrap_(net, {"0.lifted_module": at()}, example=torch.zeros(6, 2, 1))


@pytest.mark.parametrize("shape", [(6, 2, 1), (6, 1, 1), (6, 1)])
def test_time_of_its_own_is_accepted_and_exact(shape):
    net = Whole()
    bare = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(shape)
    dk.wrap_(net, {"fc": at()}, example=torch.zeros(shape))
    want = Whole()
    want.load_state_dict(bare)
    torch.testing.assert_close(net(x), want(torch.cat([torch.zeros_like(x[:1]), x[:-1]])))


class Windows(nn.Module):
    """Several sequences within one call; ``late`` shifts each by hand."""

    def __init__(self, by_hand, late=0):
        super().__init__()
        self.fc, self.lif, self.by_hand, self.late = nn.Linear(1, 1, bias=False), leaky(), by_hand, late
        nn.init.ones_(self.fc.weight)

    def forward(self, *windows):
        out = []
        for x in windows:
            membrane = torch.zeros(x.shape[1], 1) if self.by_hand else self.lif.reset_mem()
            for step in torch.cat([torch.zeros(self.late, *x.shape[1:]), x])[: len(x)]:
                _, membrane = self.lif(self.fc(step), membrane)
                out.append(membrane)
        return torch.stack(out)


@pytest.mark.parametrize("run", [1, 2, 3])
@pytest.mark.parametrize("shown", [1, 2, 3])
@pytest.mark.parametrize("by_hand", [False, True])
def test_windows_within_one_call(by_hand, shown, run):
    """Exact with the library's reset however many the example has; refused where a state is made by hand."""
    windows = [(torch.rand(6, 2, 1, generator=torch.Generator().manual_seed(k)) > 0.5).float() for k in range(run)]
    rules = {"fc": dk.FreeDelay("layer", max_delay=5, init=3.0)}
    net = dk.wrap_(Windows(by_hand), rules, example=tuple(torch.zeros(6, 2, 1) for _ in range(shown)))
    if by_hand and run > 1:
        with pytest.raises(dk.HistoryError, match="while spikes are under way"):
            net(*windows)
    else:
        torch.testing.assert_close(net(*windows), Windows(by_hand, late=3)(*windows), rtol=0, atol=0)


class TwoNeurons(nn.Module):
    """One layer for two neurons, one whole sequence after the other."""

    def __init__(self):
        super().__init__()
        self.fc, self.one, self.two = nn.Linear(1, 1, bias=False), leaky(), leaky()

    def forward(self, x):
        return stepped(self.one, (self.fc(step) for step in x)) + stepped(self.two, (self.fc(step) for step in x))


def test_windows_of_different_neurons_are_refused():
    with pytest.raises(dk.WrapError, match="in no fixed rotation"):
        dk.wrap_(TwoNeurons(), {"fc": dk.FreeDelay("layer", max_delay=5, init=3.0)}, example=torch.zeros(6, 2, 1))


@pytest.mark.parametrize("value", [True, [True, False]])
def test_a_truth_value_is_no_delay(value):
    with pytest.raises(dk.ConfigError, match="FreeDelay.init"):
        dk.FreeDelay(init=value)


def test_a_trial_point_by_hand_is_named():
    """A hand-written SAM step leaves the bounds; the error says how such a step is projected, which then works."""
    net = nn.Sequential(nn.Linear(2, 2), snn.Leaky(beta=0.5, init_hidden=True))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=0.0)}, example=torch.zeros(1, 2))
    dk.attach(torch.optim.SGD(net.parameters(), 0.1), net)
    with torch.no_grad():
        net[0].dk.delay.delay -= 0.1
    net[1].reset_mem()
    with pytest.raises(dk.DelayRangeError, match="written by hand .SAM. is projected by part.project_"):
        net(torch.ones(1, 2))
    net[0].dk.delay.project_()
    net[1].reset_mem()
    net(torch.ones(1, 2))
