"""What an adapter reports is held to the model: sizes, products, the kind of a state, decays, each by name."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.adapters import ADAPTER_API, Neuron, NeuronAdapter, Product, Spot
from delaykit.errors import PluginError
from delaykit.testing import adapter_on_trial

SPIKES = (torch.rand(5, 2, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Halved(nn.Module):
    """A layer that only its library knows: 6 channels into 4, its input halved."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(torch.rand(4, 6)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x / 2, self.matrix, self.bias)


def halved(module: Any, forward: Any) -> Product:
    weight = module.matrix / 2
    return Product(forward, lambda x: nn.functional.linear(x, weight), weight, module.bias)


class Reports(NeuronAdapter):
    name, api = "reports", ADAPTER_API
    spot: dict[str, Any] = {}

    def find(self, path, module):
        if not isinstance(module, Halved):
            return [], None
        fields = {"path": path, "slot": "", "module": module, "pre": 6, "post": 4, "product": halved}
        return [Spot(**(fields | self.spot))], None


def wrap(net: nn.Module, **spot: Any) -> nn.Module:
    with adapter_on_trial(type("Wrong", (Reports,), {"spot": spot})):
        return dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=3, init=1.0)}, example=SPIKES)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Halved(), Readout())


class Readout(nn.Module):
    """Reads the whole sequence, by which the example tells what is time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([step for step in x])


def with_time(net: nn.Module, **spot: Any) -> nn.Module:
    return wrap(net, time_dim=0, **spot)


def test_what_is_right_is_wrapped_and_delayed() -> None:
    net = layers()
    late = net(torch.cat([torch.zeros(1, 2, 6), SPIKES[:-1]]))
    torch.testing.assert_close(with_time(net)(SPIKES), late)


def of(**changes: Any) -> Any:
    def product(module: Any, forward: Any) -> Product:
        out = halved(module, forward)
        vars(out).update(changes)
        return out

    return product


def slip(module: Any, forward: Any) -> Product:
    return module.no_such_weight


@pytest.mark.parametrize(
    ("product", "found"),
    [
        (lambda *_: 3, "3"),
        (lambda *_: None, "None"),
        (slip, "AttributeError: 'Halved' object has no attribute 'no_such_weight'"),
        (lambda: None, r"TypeError: .*positional.*"),
        (of(weight=torch.zeros(6, 4)), r"a Product with a weight of shape \(6, 4\)"),
        (of(weight=[[0.0]]), r"a Product with a weight \[\[0.0\]\]"),
        (of(weight=None), "a Product without a weight, for a Spot with has_matrix=True"),
        (of(bias=torch.zeros(6)), r"a Product with a bias of shape \(6,\)"),
        (of(with_bias=None), "a Product with with_bias=None"),
        (of(without_bias=1), "a Product with without_bias=1"),
        (of(space=-1), "a Product with space=-1"),
        (of(convolution=2), "a Product with convolution=2"),
    ],
    ids="number none slip arguments turned list weightless bias with without space convolution".split(),
)
def test_a_product_that_is_none_is_the_adapters_before_anything_is_touched(product: Any, found: str) -> None:
    net = layers()
    expected = rf"^adapter 'reports', Wrong\.find\(\): found a Spot for '0' whose product= answers {found}; expected a "
    with pytest.raises(PluginError, match=expected):
        with_time(net, product=product)
    assert type(net[0]) is Halved and "_dk" not in vars(net[0]) and type(net) is nn.Sequential


@pytest.mark.parametrize(("spot", "has"), [({"pre": 3}, 6), ({"post": 5}, 4), ({"pre": 0}, 6)])
@pytest.mark.parametrize("known", [True, False], ids=["Linear", "seen"])
def test_sizes_that_the_connection_has_not_are_the_adapters(spot: dict[str, int], has: int, known: bool) -> None:
    class Lists(Reports):
        def find(self, path, module):
            if isinstance(module, nn.Linear):
                return [Spot(**({"path": path, "slot": "", "module": module, "pre": 6, "post": 4} | spot))], None
            return [], None

    (name, size), net = next(iter(spot.items())), nn.Sequential(nn.Linear(6, 4), Readout()) if known else layers()
    found = rf"find\(\): found a Spot with {name}={size} for '0', which has {has}"
    if known:
        with adapter_on_trial(Lists), pytest.raises(PluginError, match=found):
            dk.plan(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
    else:
        with pytest.raises(PluginError, match=found):
            with_time(net, product=of(weight=None, bias=None), has_matrix=False, **spot)


class Seen(NamedTuple):
    u: Tensor


class Hand(nn.Module):
    state: Any = Seen

    def forward(self, x: Tensor, state: Any = None) -> Any:
        u = x if state is None else 0.5 * state[0] + x
        return (u > 1).to(u) + u - u.detach(), type(self).state(u)


class Loop(nn.Module):
    def __init__(self, hand: nn.Module) -> None:
        super().__init__()
        self.cell = hand

    def forward(self, spikes: Tensor) -> Tensor:
        state, out = None, []
        for step in spikes:
            fired, state = self.cell(step, state)
            out.append(fired)
        return torch.stack(out)


class Hands(NeuronAdapter):
    name, api = "hands", ADAPTER_API

    def find(self, path, module):
        return [], Neuron(path, module, self) if isinstance(module, Hand) else None

    def membrane(self, module, state=None):
        return None if state is None else state[0]


STATES = {"tuple": lambda u: (u,), "list": lambda u: [u], "none": lambda u: None}


@pytest.mark.parametrize("example", [True, False], ids=["in the plan", "in the first step"])
@pytest.mark.parametrize("kind", STATES)
def test_a_state_in_which_no_history_can_ride_is_the_adapters(kind: str, example: bool) -> None:
    net = Loop(type("Other", (Hand,), {"state": staticmethod(STATES[kind])})())
    rules = {"cell": dk.Recurrent(dk.FreeDelay("layer", init=1.0), weight=0.1 * torch.eye(6))}
    found = rf"^adapter 'hands', Hands\.find\(\): found a .*{kind.replace('none', 'NoneType')}.*; expected a NamedTuple"
    with adapter_on_trial(Hands), pytest.raises(PluginError, match=found):
        dk.wrap_(net, rules, SPIKES if example else None)
        assert not example
        net(SPIKES)


def test_a_named_tuple_carries_a_history() -> None:
    with adapter_on_trial(Hands):
        net = dk.wrap_(Loop(Hand()), {"cell": dk.Recurrent(dk.FreeDelay("layer", init=1.0))}, SPIKES)
        assert net(SPIKES).shape == SPIKES.shape


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"membrane": torch.tensor(2.0)}, r"a decay of \[2.0\] of 'membrane'"),
        ({"membrane": torch.tensor(float("nan"))}, r"a decay of \[nan\] of 'membrane'"),
        ({"mem": torch.tensor(0.5)}, r"a decay of \[0.5\] of 'mem'"),
    ],
    ids=["above 1", "nan", "another name"],
)
def test_decays_that_are_none_are_the_adapters(answer: dict[str, Tensor], found: str) -> None:
    learned = type("Learned", (), {})
    wrong = type("Wrong", (Hands,), {"decays": lambda self, module: answer, "learned": learned})
    with adapter_on_trial(wrong), pytest.raises(PluginError, match=rf"Wrong\.decays\(\): found {found} for a Hand"):
        dk.plan(Loop(Hand()), {"cell": dk.TimeConstants("membrane")}, SPIKES)


@pytest.mark.parametrize(("count", "named"), [(3, True), (1, False), (6, False)], ids=["neither", "one", "one each"])
def test_decays_as_many_as_the_neuron_has_nothing_of_are_the_adapters(count: int, named: bool) -> None:
    answer = {"membrane": torch.full((count,), 0.5)}
    wrong = type("Wrong", (Hands,), {"decays": lambda self, module: answer, "learned": type("Learned", (), {})})
    with adapter_on_trial(wrong), contextlib.ExitStack() as stack:
        if named:
            stack.enter_context(pytest.raises(PluginError, match=r"Wrong\.decays\(\): found 3 decays of 'membrane'"))
        plan = dk.plan(Loop(Hand()), {"cell": dk.TimeConstants("membrane", per="neuron")}, SPIKES)
        assert not named and not plan.issues


class Misplaces(NeuronAdapter):
    name, api = "misplaces", ADAPTER_API
    spot: dict[str, Any] = {}

    def find(self, path, module):
        if not isinstance(module, nn.Linear):
            return [], Neuron(path, module, self) if isinstance(module, Hand) else None
        fields: dict[str, Any] = {"path": path, "slot": "", "module": module, "pre": 6, "post": 6}
        return [Spot(**(fields | self.spot))], None


@pytest.mark.parametrize(
    ("spot", "found"),
    [
        ({"path": "nowhere"}, "a Spot with path='nowhere', where its module is not"),
        ({"module": nn.Linear(6, 6)}, "a Spot with path='0', where its module is not"),
        ({"slot": "weight"}, "a Spot with slot='weight' for '0', and no attach_"),
        ({"carried": True}, "a Spot with carried=True and no owner for '0', and no attach_"),
        ({"owner": "gone"}, "a Spot with owner='gone' for '0'"),
        ({"owner": "0"}, "a Spot with owner='0' for '0'"),
    ],
    ids="path module slot carried gone owner".split(),
)
def test_a_connection_that_is_not_where_it_is_said_to_be_is_the_adapters(spot: dict[str, Any], found: str) -> None:
    cls = type("Wrong", (Misplaces,), {"spot": spot})
    with (
        adapter_on_trial(cls),
        pytest.raises(PluginError, match=rf"^adapter 'misplaces', Wrong\.find\(\): found {found}"),
    ):
        dk.plan(nn.Sequential(nn.Linear(6, 6)), {"0": dk.FreeDelay("axonal")}, SPIKES)
