"""Values that cannot mean anything are refused where they are written."""

from __future__ import annotations

import math

import pytest
import torch
from rigs import late, leaky, looped, ones, outer, snn, spikes
from torch import nn

import delaykit as dk


@pytest.mark.parametrize("time_dim", [-1, -3])
def test_a_negative_time_dim_without_an_example(time_dim):
    """-1 is the channel, whatever comes: refused. -3 of (time, batch, channel) is time."""
    net = nn.Sequential(ones())
    if time_dim == -1:
        with pytest.raises(dk.DelaykitError, match="time_dim"):
            dk.wrap_(net, {"0": dk.At(late(2), time_dim=time_dim)})
        return
    dk.wrap_(net, {"0": dk.At(late(2), time_dim=time_dim)})
    assert float(net(spikes(5, 1))[3].detach()) == 1.0


def test_a_time_dim_beyond_the_input():
    net = nn.Sequential(ones())
    with pytest.raises(dk.DelaykitError, match="time_dim"):
        dk.wrap_(net, {"0": dk.At(late(2), time_dim=7)})
        net(spikes(5, 1))


@pytest.mark.parametrize("value", ["no", "False", 1, 0.0])
def test_normalize_is_true_false_or_none(value):
    with pytest.raises(dk.ConfigError, match="normalize"):
        dk.FreeDelay(normalize=value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -0.001])
@pytest.mark.parametrize("kernel", ["linear", "triangle", "gaussian", "hard"])
def test_delays_that_are_no_delays(kernel, value):
    from delaykit import kernels

    make = {"linear": lambda: kernels.Linear(), "hard": lambda: kernels.Hard(),
            "triangle": lambda: kernels.Triangle(torch.ones(())),
            "gaussian": lambda: kernels.Gaussian(torch.ones(()))}[kernel]  # fmt: skip
    with pytest.raises(dk.DelayRangeError):
        make().taps(torch.tensor([[value, 1.0]]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_recurrent_weight_that_is_not_finite(value):
    with pytest.raises(dk.ConfigError, match="weight"):
        dk.Recurrent(late(1), weight=torch.tensor([[value]]))


@pytest.mark.parametrize("hidden", [True, False])
def test_a_recurrent_weight_of_another_size(hidden):
    net = nn.Sequential(nn.Linear(3, 4), leaky(init_hidden=True))
    with pytest.raises(dk.DelaykitError, match=r"5.*4|4.*5"):
        dk.wrap_(net, {"1": dk.Recurrent(late(1), weight=torch.eye(5))}, example=torch.zeros(1, 3))


def test_recurrent_on_a_neuron_that_the_example_never_called():
    """Not "pass example=": there was one."""

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.other = ones(), leaky(init_hidden=True), leaky(init_hidden=True)

        def forward(self, x):
            return self.lif(self.fc(x))

    with pytest.raises(dk.WrapError, match="never called") as caught:
        dk.wrap_(Unused(), {"other": dk.Recurrent(late(1))}, example=torch.zeros(1, 1))
    assert "pass example=" not in str(caught.value)


@pytest.mark.parametrize("kind", ["nan", "negative", "inf"])
def test_delays_that_went_wrong_are_refused_at_the_next_segment(kind):
    value = {"nan": math.nan, "negative": -1.0, "inf": math.inf}[kind]
    net = looped(2)
    with torch.no_grad():
        net.fc.dk.delay.delay.fill_(value)
    with pytest.raises(dk.DelayRangeError):
        net(spikes(4))


def test_manual_on_whole_sequences_is_refused():
    """Each call began anew, though it had been asked for a line that goes on."""
    with pytest.raises(dk.ConfigError, match="time_dim=0.*reset='root'"):
        dk.At(late(2), time_dim=0, reset="manual")
    root = dk.wrap_(nn.Sequential(ones()), {"0": dk.At(late(2), time_dim=0, reset="root")})
    x = torch.zeros(4, 1, 1)
    x[3] = 1.0
    assert not root(x).any() and not root(torch.zeros(4, 1, 1)).any()

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = ones(), leaky()

        def forward(self, x):
            mem, out = self.lif.reset_mem(), []
            for current in self.fc(x):
                spk, mem = self.lif(current, mem)
                out.append(spk)
            return torch.stack(out)

    with pytest.raises(dk.WrapError, match="whole sequences.*reset='root'"):
        dk.wrap_(Whole(), {"fc": dk.At(late(2), reset="manual")}, example=x)
    assert dk.plan(Whole(), {"fc": dk.At(late(2), reset="root")}, example=x).issues == ()


def test_a_users_module_that_is_called_dk():
    """His module named ``dk`` is his own: listed, kept, loaded; never taken for delaykit's."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.dk, self.fc, self.lif = nn.Linear(1, 1), ones(), leaky(init_hidden=True)

        def forward(self, x):
            return self.lif(self.fc(self.dk(x)))

    net = Mine()
    state = {k: torch.full_like(v, 0.5) for k, v in net.state_dict().items()}
    try:
        dk.wrap_(net, {"fc": late(2), "dk": late(1)}, example=torch.zeros(1, 1))
    except dk.DelaykitError as error:
        assert "'dk'" in str(error) and "rename" in str(error)
        return
    net.load_state_dict(state)
    assert float(net.dk.weight) == 0.5


def test_loading_by_assignment_keeps_shared_positions_shared():
    spatial = pytest.importorskip("delaykit_spatial", reason="needs shared positions")

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(3, 4), leaky(init_hidden=True)
            self.fc2, self.lif2 = nn.Linear(4, 2), leaky(init_hidden=True)

        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))

    def build():
        net = Two()
        rules = {
            "fc1": spatial.Spatial(dims=2, pre="input", post="hidden"),
            "fc2": spatial.Spatial(dims=2, pre="hidden", post="out"),
        }
        return dk.wrap_(net, rules, example=torch.zeros(1, 3))

    net = build()
    shared = _shared(net)
    assert shared
    try:
        net.load_state_dict({k: v.clone() for k, v in build().state_dict().items()}, assign=True)
    except dk.DelaykitError as error:
        assert "assign" in str(error) or "shared" in str(error)
    else:
        assert _shared(net) == shared


def _shared(net):
    names: dict[int, list[str]] = {}
    for name, p in net.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    return sorted(sorted(v) for v in names.values() if len(v) > 1)


def test_one_stateless_neuron_for_all_layers_shares_no_positions_in_silence():
    """A functional neuron is reused for all layers: Spatial positions named after it would be shared by accident."""
    spatial = pytest.importorskip("delaykit_spatial", reason="needs positions")

    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.lif = nn.Linear(3, 3), nn.Linear(3, 3), leaky()

        def forward(self, x):
            one, two, out = torch.zeros(1, 3), torch.zeros(1, 3), []
            for step in x:
                spk, one = self.lif(self.fc1(step), one)
                spk, two = self.lif(self.fc2(spk), two)
                out.append(two)
            return torch.stack(out)

    net = Reused()
    try:
        dk.wrap_(net, {"fc*": spatial.Spatial(dims=2)}, example=torch.zeros(4, 1, 3))
    except dk.DelaykitError as error:
        assert "lif" in str(error)
    else:
        posts = [_shared(net)]
        assert posts == [[]], "fc1 and fc2 lead to two populations, which have no positions in common"


def test_resetting_parameters_says_what_becomes_of_delays():
    """``fc.reset_parameters()`` draws weights anew: delays are drawn anew too, or stay and it is said."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 9), leaky(init_hidden=True))
    dk.wrap_(net, {"0": dk.FreeDelay(max_delay=5)}, example=torch.zeros(1, 9))
    before = net[0].dk.delay.delay.detach().clone()
    net[0].reset_parameters()
    after = net[0].dk.delay.delay
    assert not torch.equal(before, after) and float(after.min()) >= 0 and float(after.max()) <= 5


def test_reset_parameters_under_the_other_libraries():
    lif = snn.RLeaky(0.9, linear_features=4, init_hidden=True)
    net = nn.Sequential(lif)
    dk.wrap_(net, {"0.recurrent": dk.FreeDelay(max_delay=5)}, example=torch.zeros(1, 4))
    before = lif.recurrent.dk.delay.delay.detach().clone()
    lif.recurrent.reset_parameters()
    assert not torch.equal(before, lif.recurrent.dk.delay.delay)


def test_outer_loops_still_wrap():
    assert dk.status(outer(2)).sites[0].reset.startswith("follow")


def test_a_users_attribute_that_is_called_dk():
    """delaykit hangs its part into a module under this name."""

    class Constant(nn.Linear):
        dk = 0.5

    with pytest.raises(dk.WrapError, match="called 'dk'.*rename"):
        dk.wrap_(nn.Sequential(Constant(1, 1)), {"0": dk.At(late(2), reset="manual")})
    lif = leaky(init_hidden=True)
    lif.dk = 0.5
    with pytest.raises(dk.WrapError, match="called 'dk'.*rename"):
        dk.wrap_(nn.Sequential(ones(), lif), {"1": dk.Recurrent(late(1))}, example=torch.zeros(1, 1))


@pytest.mark.parametrize("options", [{"weight": [[1.0]]}, {"weight": None}, {"bias": 1}, {"bias": "no"}])
def test_recurrent_takes_tensors_and_flags(options):
    """A weight of another type used to become zeros without a word."""
    with pytest.raises(dk.ConfigError, match=next(iter(options))):
        dk.Recurrent(late(1), **options)


@pytest.mark.parametrize("time_dim", [1, 2, -1])
def test_a_time_dim_that_is_the_channel_of_this_input(time_dim):
    """It was right for another rank: the channel must not become time."""
    net = nn.Sequential(ones(3, 1))
    x = spikes(3, 1, pre=3)[:, 0]  # (time, channel), both 3
    with pytest.raises(dk.DelaykitError, match="time_dim"):
        dk.wrap_(net, {"0": dk.At(late(2), time_dim=time_dim)})
        net(x)


@pytest.mark.parametrize("layer", ["fc", "dk"])
def test_reset_parameters_draws_what_the_configs_say(layer):
    """Given delays come back, spreads begin anew, shared positions stay shared; also by ``net.apply``."""
    net = nn.Sequential(nn.Linear(2, 2), leaky(init_hidden=True))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=[1.0, 2.5])}, example=torch.zeros(1, 2))
    delay = net[0].dk.delay.delay
    with torch.no_grad():
        delay.fill_(4.0)
    (net[0] if layer == "fc" else net[0].dk).reset_parameters()
    assert net[0].dk.delay.delay is delay and delay.tolist() == [1.0, 2.5]
    net.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    assert delay.tolist() == [1.0, 2.5]


def test_loading_the_bare_model_by_assignment_keeps_the_delays_themselves():
    """An optimizer that holds them goes on training them."""
    net = looped(2)
    delay = net.fc.dk.delay.delay
    net.load_state_dict({"fc.weight": torch.full((1, 1), 0.5)} | {
        k: v for k, v in net.state_dict().items() if k.startswith("lif")}, assign=True)  # fmt: skip
    assert net.fc.dk.delay.delay is delay and float(net.fc.weight.detach()) == 0.5
