"""Wrong answers of an adapter are its own fault by name: before anything is touched, and never a raw error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from wrong_pulse import SPIKES, Listed, broken, constants, delayed, exact, followed, kept, lif, lingering, page, wrong

import delaykit as dk
from delaykit.adapters import Neuron, NeuronAdapter, Spot, Undo, attach_connection_
from delaykit.errors import PluginError
from delaykit.testing import adapter_on_trial
from delaykit.testing.kit import anatomy

ANSWERS = sorted(name for name, m in vars(NeuronAdapter).items() if inspect.isfunction(m) and not name.startswith("_"))
FREE = {"after_copy", "answer", "reset_", "resting"}  # they change something, or return what the library does


@pytest.mark.parametrize("method", ANSWERS)
def test_every_method_is_held_to_what_it_says(method: str) -> None:
    free = inspect.signature(getattr(NeuronAdapter, method)).return_annotation in ("Any", "None")
    assert free == (method in FREE)
    for answer in (broken,) if free else (broken, object()):
        with pytest.raises(PluginError, match=rf"^adapter 'pulse', Wrong\.{method}\(\): found ") as caught:
            getattr(wrong(method, answer)(), method)(page.Keep())
        assert ("ZeroDivisionError for a Keep: slip" if answer is broken else "object object") in caught.value.found
        assert caught.value.expected


ASKED: list[tuple[str, Any, Callable[[nn.Module], Any]]] = [  # method, its answer, and what asks for it
    ("find", None, delayed),
    ("find", [], delayed),
    ("find", (None, None), delayed),
    ("find", ([], "neuron"), delayed),
    ("find", lambda: ([Spot("0", "", nn.Linear(1, 1), "6", 8)], None), delayed),
    ("find", lambda: ([], Neuron("1", nn.Linear(1, 1), Listed(), style="steps")), delayed),  # type: ignore[arg-type]
    ("find", lambda: ([], Neuron("1", "lif", Listed())), delayed),  # type: ignore[arg-type]
    ("find", broken, delayed),
    ("find", None, lambda net: dk.rollout(net[1], SPIKES)),
    ("find", broken, lambda net: dk.fused(net)(SPIKES)),
    ("find", lambda: ([], Neuron("elsewhere", nn.Linear(1, 1), Listed())), delayed),
    ("find", lambda: ([Spot("0", "", nn.Linear(1, 1), -1, 8)], None), delayed),
    ("attach_", None, delayed),
    ("attach_", [], delayed),
    ("attach_", broken, delayed),
    ("add_recurrent_", None, delayed),
    ("add_recurrent_", [], delayed),
    ("membrane", lambda: None, followed),
    ("membrane", lambda: 0.0, followed),
    ("held_state", lambda: None, followed),
    ("given_state", broken, followed),
    ("leak", 0.8, lingering),
    ("leak", broken, lingering),
    ("watch_", None, delayed),
    ("watch_", [], delayed),
    ("count_", broken, delayed),
    ("dynamics", "leaky", lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", broken, lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(decay="a"), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(reset="twice"), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(surrogate=3), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(surrogate=lambda v: None), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(surrogate=lambda v: v.sum()), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(surrogate=lambda v: v.add_(1)), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(decay=5.0), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(synapse_decay=torch.tensor(1.1)), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(gain=float("inf")), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(threshold=torch.tensor([float("nan")])), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(decay=torch.ones(3)), lambda net: dk.rollout(net[1], SPIKES)),
    ("dynamics", lambda: lif(decay="a"), lambda net: dk.fused(net)(SPIKES)),
    ("leak", lambda: torch.tensor(2.0), lingering),
    ("leak", lambda: torch.tensor(float("nan")), lingering),
    ("leak", lambda: torch.tensor(0.5j), lingering),
    ("leak", lambda: torch.ones(3), lingering),
    ("find", lambda: ([], Neuron("", nn.Linear(1, 1), Listed())), delayed),  # of another model
    ("leak_place", lambda: ({}, "beta"), lingering),
    ("leak_place", lambda: ({"beta": 0.8}, "beta"), lingering),
    ("fused_parts", [], lambda net: dk.rollout(net[1], SPIKES)),
    ("decays", None, constants),
    ("decays", {"membrane": 0.5}, constants),
    ("decays", broken, constants),
    ("exact_refusal", None, exact),
    ("exact_refusal", broken, exact),
    ("exact_refusal", "", exact),  # without a synaptic current, or a way to be exact
]


@pytest.mark.parametrize(("method", "answer", "ask"), ASKED)
def test_a_wrong_answer_is_named_before_anything_is_touched(method: str, answer: Any, ask: Any) -> None:
    net = kept()
    before, bare = anatomy(net), page.run(net, SPIKES)
    with adapter_on_trial(wrong(method, answer)), pytest.raises(PluginError, match=r"^adapter 'pulse', Wrong\."):
        ask(net)
    assert anatomy(net) == before and torch.equal(page.run(net, SPIKES), bare)


def test_what_an_adapter_did_before_it_broke_off_is_taken_back() -> None:
    class Breaks(Listed):
        def attach_(self, spot, synapse, attachment):
            attach_connection_(spot.module, synapse, attachment)
            spot.module.register_buffer("kept", torch.zeros(1))
            broken()

    net = kept()
    before = anatomy(net)
    with adapter_on_trial(Breaks), pytest.raises(PluginError, match=r"Breaks\.attach_\(\): found ZeroDivisionError"):
        delayed(net)
    assert anatomy(net) == before
    with adapter_on_trial(Listed):
        assert delayed(net) is net


def test_a_second_wrapping_that_breaks_off_leaves_the_first() -> None:
    net = kept()
    bare = anatomy(net)
    with adapter_on_trial(Listed):
        delayed(net, **{"0": dk.FreeDelay("axonal", init=2.0)})
        before, wanted = anatomy(net), page.run(net, SPIKES)
    with adapter_on_trial(wrong("add_recurrent_", None)), pytest.raises(PluginError, match="found None"):
        delayed(net, **{"3": dk.Recurrent(dk.FreeDelay("layer", init=1.0))})
    assert anatomy(net) == before
    with adapter_on_trial(Listed):
        assert torch.equal(page.run(net, SPIKES), wanted) and anatomy(dk.unwrap_(net)) == bare


LATER: list[tuple[str, Any]] = [
    ("membrane", 0.0), ("begins", None), ("resting", broken), ("step", None), ("step", broken),
]  # fmt: skip


@pytest.mark.parametrize(("method", "answer"), LATER)
def test_a_wrong_answer_of_a_running_network_is_no_raw_error(method: str, answer: Any) -> None:
    torch.manual_seed(0)
    net = page.Loop()
    with adapter_on_trial(Listed):
        delayed(net, fc=dk.FreeDelay("axonal", init=2.0), cell=dk.Recurrent(dk.FreeDelay("layer", init=1.0)))
    with adapter_on_trial(wrong(method, answer)), pytest.raises(PluginError, match=rf"Wrong\.{method}\(\): found "):
        other = page.Loop()
        if method == "step":
            other.cell.register_forward_hook(lambda *_: None)
            dk.rollout(other.cell, torch.rand(4, 2, 8))
        else:
            delayed(other, fc=dk.FreeDelay("axonal", init=2.0), cell=dk.Recurrent(dk.FreeDelay("layer", init=1.0)))
            state = other.cell(torch.rand(2, 8))[1]
            state = other.cell(torch.rand(2, 8), state)[1]
            other.cell(torch.rand(2, 8), state._replace(u=state.u + 0.1))


@pytest.mark.parametrize("cls", [type("Bare", (), {"name": "bare", "api": 1}), int])
def test_what_is_no_adapter_is_refused(cls: type) -> None:
    with adapter_on_trial(cls), pytest.raises(PluginError, match="adapter '"):
        delayed(kept())


def test_an_adapter_that_cannot_be_made_is_refused_by_name() -> None:
    class Needs(Listed):
        def __init__(self, library: str) -> None:
            self.library = library

    class Half(NeuronAdapter):
        name, api = "half", 1

    class Mixed(Listed):
        learned = "Learned"  # type: ignore[assignment]

    for cls, found in ((Needs, "TypeError from Needs"), (Half, "TypeError from Half"), (Mixed, "Mixed.learned")):
        with adapter_on_trial(cls), pytest.raises(PluginError, match=rf"adapter '{cls.name}': found {found}"):
            delayed(kept())


def test_a_way_back_that_raises_is_named() -> None:
    class Stuck(Listed):
        def attach_(self, spot, synapse, attachment):
            return [*super().attach_(spot, synapse, attachment), Undo(broken, ())]

    net = kept()
    with adapter_on_trial(Stuck):
        delayed(net, **{"0": dk.FreeDelay("axonal", init=2.0)})
        found = (
            r"^adapter 'pulse', Stuck\.attach_\(\): found an Undo of broken\(\), which raised ZeroDivisionError: slip"
        )
        with pytest.raises(PluginError, match=found):
            dk.unwrap_(net)


@pytest.mark.parametrize("learned", [nn.Linear, dict, nn.Module])
def test_a_mixin_that_no_neuron_can_be_given_is_refused(learned: type) -> None:
    cls = type("Wrong", (Listed,), {"learned": learned})
    with adapter_on_trial(cls), pytest.raises(PluginError, match=rf"'pulse': found Wrong.learned = {learned.__name__}"):
        delayed(kept())


@pytest.mark.parametrize("fits", [3, {"leak": None}, ["leak"]])
def test_names_of_neurons_are_text_by_method(fits: Any) -> None:
    with adapter_on_trial(type("Wrong", (Listed,), {"fits": fits})):
        with pytest.raises(PluginError, match=r"^adapter 'pulse': found Wrong.fits = "):
            delayed(kept())


@pytest.mark.parametrize("ask", [lingering, exact], ids=["leak", "exact_"])
def test_a_message_names_what_fits_in_the_library_of_the_neuron(ask: Any) -> None:
    names = {"leak": "Round of Pulse", "exact_": "Round of Pulse"}
    for fits, ending in ((names, ", such as Round of Pulse"), ({}, "")):
        fields = {"fits": fits, "leak": lambda *_: None, "exact_refusal": lambda *_: "it is square"}
        with adapter_on_trial(type("Square", (Listed,), fields)), pytest.raises(dk.WrapError) as caught:
            ask(kept())
        assert f"{('linearly', 'current')[ask is exact]}{ending}. To go on" in str(caught.value)


def test_what_a_neuron_lacks_is_said() -> None:
    class Less(Listed):
        reset_ = NeuronAdapter.reset_
        dynamics = NeuronAdapter.dynamics

    with adapter_on_trial(Less), pytest.raises(PluginError, match=r"Less\.reset_\(\): found a neuron that keeps"):
        dk.rollout(page.Keep(), SPIKES)
