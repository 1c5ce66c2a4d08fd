"""Wrong answers of an adapter are its own fault by name: before anything is touched, and never a raw error."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pulse
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.adapters import LIFDynamics, Neuron, NeuronAdapter, Spot, Undo, attach_connection_
from delaykit.errors import PluginError
from delaykit.testing import adapter_on_trial
from delaykit.testing.adapters.laws_wrapping import _anatomy

page = pulse.load()
SPIKES = (torch.rand(6, 2, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
ANSWERS = sorted(name for name, m in vars(NeuronAdapter).items() if inspect.isfunction(m) and not name.startswith("_"))
FREE = {"after_copy", "answer", "reset_", "resting"}  # they change something, or return what the library does


class Listed(page.PulseAdapter):
    """Lists the Linears, too, so that its own attach_ is asked."""

    def find(self, path, module):
        if type(module) is nn.Linear and not path.endswith("inner"):
            return [Spot(path, "", module, module.in_features, module.out_features)], None
        return super().find(path, module)


def wrong(method: str, answer: Any) -> type[NeuronAdapter]:
    return type("Wrong", (Listed,), {method: lambda self, *args, **kwargs: answer() if callable(answer) else answer})


def kept() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), page.Keep(), nn.Linear(8, 4), page.Keep())


def delayed(net: nn.Module, **rules: Any) -> nn.Module:
    rules = rules or {"0": dk.FreeDelay("axonal", init=2.0), "3": dk.Recurrent(dk.FreeDelay("layer", init=1.0))}
    run = page.run if isinstance(net, nn.Sequential) else lambda net, spikes: net(spikes)
    return dk.wrap_(net, rules, example=lambda: run(net, SPIKES))


def followed(net: nn.Module) -> nn.Module:
    return delayed(net, **{"0": dk.FreeDelay("axonal", init=2.0)})


def lingering(net: nn.Module) -> nn.Module:
    return delayed(net, **{"0": pytest.importorskip("delaykit_hetsyn").HetSyn()})


def constants(net: nn.Module) -> Any:
    return dk.wrap_(net, {"1": dk.TimeConstants("membrane")}, example=lambda: page.run(net, SPIKES))


def exact(net: nn.Module) -> Any:
    return delayed(net, **{"0": dk.FreeDelay("layer", init=1.0, estimator="exact")})


def lif(**fields: Any) -> LIFDynamics:
    return LIFDynamics(**({"decay": 0.8, "surrogate": page.fire, "reset_when": "same"} | fields))


def broken() -> None:
    raise ZeroDivisionError("slip")


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


@pytest.mark.parametrize("step", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_step_of_no_length_is_refused(step: float) -> None:
    class Timeless(Listed):
        def find(self, path, module):
            spots, neuron = super().find(path, module)
            return spots, None if neuron is None else dataclasses.replace(neuron, dt_ms=step)

    with adapter_on_trial(Timeless), pytest.raises(PluginError, match=r"Timeless.*: found a Neuron with dt_ms="):
        delayed(kept())


@pytest.mark.parametrize(("method", "answer", "ask"), ASKED)
def test_a_wrong_answer_is_named_before_anything_is_touched(method: str, answer: Any, ask: Any) -> None:
    net = kept()
    before, bare = _anatomy(net), page.run(net, SPIKES)
    with adapter_on_trial(wrong(method, answer)), pytest.raises(PluginError, match=r"^adapter 'pulse', Wrong\."):
        ask(net)
    assert _anatomy(net) == before and torch.equal(page.run(net, SPIKES), bare)


def test_what_an_adapter_did_before_it_broke_off_is_taken_back() -> None:
    class Breaks(Listed):
        def attach_(self, spot, synapse, attachment):
            attach_connection_(spot.module, synapse, attachment)
            spot.module.register_buffer("kept", torch.zeros(1))
            broken()

    net = kept()
    before = _anatomy(net)
    with adapter_on_trial(Breaks), pytest.raises(PluginError, match=r"Breaks\.attach_\(\): found ZeroDivisionError"):
        delayed(net)
    assert _anatomy(net) == before
    with adapter_on_trial(Listed):
        assert delayed(net) is net


def test_a_second_wrapping_that_breaks_off_leaves_the_first() -> None:
    net = kept()
    bare = _anatomy(net)
    with adapter_on_trial(Listed):
        delayed(net, **{"0": dk.FreeDelay("axonal", init=2.0)})
        before, wanted = _anatomy(net), page.run(net, SPIKES)
    with adapter_on_trial(wrong("add_recurrent_", None)), pytest.raises(PluginError, match="found None"):
        delayed(net, **{"3": dk.Recurrent(dk.FreeDelay("layer", init=1.0))})
    assert _anatomy(net) == before
    with adapter_on_trial(Listed):
        assert torch.equal(page.run(net, SPIKES), wanted) and _anatomy(dk.unwrap_(net)) == bare


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


RESTS = {
    "number": 3, "text": "a", "module": nn.Identity(), "empty": (), "numbers": (1,), "rows": (torch.zeros(3, 8),),
    "width": (torch.zeros(2, 7),), "two": (torch.zeros(2, 8),) * 2, "nan": (torch.full((2, 8), float("nan")),),
}  # fmt: skip


@pytest.mark.parametrize("kind", RESTS)
def test_a_rest_that_is_no_state_is_the_adapters(kind: str) -> None:
    net = page.Loop()
    with adapter_on_trial(wrong("resting", lambda: RESTS[kind])):
        delayed(net, fc=dk.FreeDelay("axonal", init=2.0), cell=dk.Recurrent(dk.FreeDelay("layer", init=1.0)))
        state = net.cell(torch.rand(2, 8), net.cell(torch.rand(2, 8))[1])[1]
        with pytest.raises(PluginError, match=r"Wrong\.resting\(\): found .* expected None, or a state"):
            net.cell(torch.rand(2, 8), state._replace(u=state.u + 0.1))


@pytest.mark.parametrize("rest", [torch.full((2, 8), 0.5), torch.full((8,), 0.5), torch.full((1, 8), 0.5)])
def test_a_rest_of_one_row_or_of_all_is_one(rest: torch.Tensor) -> None:
    net = page.Loop()
    with adapter_on_trial(wrong("resting", lambda: (rest,))):
        delayed(net, fc=dk.FreeDelay("axonal", init=2.0), cell=dk.Recurrent(dk.FreeDelay("layer", init=1.0)))
        state = net.cell(torch.rand(2, 8), net.cell(torch.rand(2, 8))[1])[1]
        fresh = torch.cat([torch.full((1, 8), 0.5), state.u[1:]])
        assert net.cell(torch.rand(2, 8), state._replace(u=fresh))[0].shape == (2, 8)


@pytest.mark.parametrize("kind", ["long", "double", "cfloat", "nan"])
def test_spikes_of_another_dtype_or_none_are_the_steps(kind: str) -> None:
    spikes = (lambda x: x * float("nan")) if kind == "nan" else lambda x: x.to(getattr(torch, kind))
    steps = {"step": lambda self, neuron, x, state: (spikes(x), x, None), "dynamics": lambda *_: None}
    found = r"Wrong\.step\(\): found spikes (of torch|that are NaN)"
    with adapter_on_trial(type("Wrong", (Listed,), steps)):
        with pytest.raises(PluginError, match=found):
            dk.rollout(page.Keep(), torch.rand(3, 2, 8))
        neuron = page.Keep()  # whose own numbers are finer than its input, or NaN
        neuron.gain = torch.full((8,), float("nan"), dtype=torch.double)
        if kind in ("double", "nan"):
            assert len(dk.rollout(neuron, torch.rand(3, 2, 8))[0]) == 3


MEMBRANES = {
    "complex": lambda module: None if module.u is None else torch.complex(module.u, module.u),
    "sparse": lambda module: None if module.u is None else module.u.detach().to_sparse(),
    "meta": lambda module: None if module.u is None else torch.empty(2, 8, device="meta"),
    "weight": lambda module: WEIGHT,
}
WEIGHT = torch.ones(2, 8)


@pytest.mark.parametrize("kind", MEMBRANES)
def test_what_cannot_be_the_membrane_that_a_step_leaves_is_seen_in_the_example(kind: str) -> None:
    method = {"membrane": lambda self, module, state=None: MEMBRANES[kind](module)}
    net = kept()
    before = _anatomy(net)
    found = r"^adapter 'pulse', Wrong\.membrane\(\): found a (\w+ )?tensor (behind a step|that none of 6 steps)"
    with adapter_on_trial(type("Wrong", (Listed,), method)), pytest.raises(PluginError, match=found):
        followed(net)
    assert _anatomy(net) == before


@pytest.mark.parametrize(("shape", "fits"), [((2, 2), False), ((3, 8), False), ((1, 2, 8), False), ((2, 8), True)])
def test_a_given_membrane_is_of_the_neurons_shape(shape: tuple[int, ...], fits: bool) -> None:
    given = {"given_membrane": lambda self, module, args, kwargs: torch.ones(shape)}
    net = nn.Sequential(nn.Linear(6, 8), page.Keep())
    with adapter_on_trial(type("Wrong", (Listed,), given)):
        if fits:
            assert followed(net) is net
            return
        with pytest.raises(PluginError, match=r"Wrong\.given_membrane\(\): found a membrane of shape .*, not \(2, 8\)"):
            followed(net)


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


@pytest.mark.parametrize("reset", ["none", "zero"])
def test_a_readout_by_an_infinite_threshold_is_one(reset: str) -> None:
    neuron = pytest.importorskip("snntorch").Leaky(beta=0.9, threshold=float("inf"), reset_mechanism=reset)
    membrane, steps = neuron.init_leaky(), []
    for current in SPIKES:
        membrane = neuron(current, membrane)[1]
        steps.append(membrane)
    spikes, membranes = dk.rollout(neuron, SPIKES)
    torch.testing.assert_close(membranes, torch.stack(steps))
    assert not spikes.any()


def test_what_a_diverged_network_computes_is_no_fault_of_the_adapter() -> None:
    with adapter_on_trial(type("Stepped", (Listed,), {"dynamics": lambda *_: None})):
        for current in (float("nan"), float("inf")):
            assert dk.rollout(page.Keep(), torch.full((3, 2, 8), current))[0].shape == (3, 2, 8)


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


def test_numbers_that_the_neuron_has_as_many_of_are_no_fault_of_the_adapter() -> None:
    class Sized(Listed):
        def dynamics(self, module):
            return lif(decay=module.rates)

    neuron = page.Keep()
    neuron.rates = torch.full((3,), 0.5)
    with adapter_on_trial(Sized), pytest.raises(dk.ShapeError, match="LIFDynamics.decay: found shape"):
        dk.rollout(neuron, SPIKES)


def test_what_a_neuron_lacks_is_said() -> None:
    class Less(Listed):
        reset_ = NeuronAdapter.reset_
        dynamics = NeuronAdapter.dynamics

    with adapter_on_trial(Less), pytest.raises(PluginError, match=r"Less\.reset_\(\): found a neuron that keeps"):
        dk.rollout(page.Keep(), SPIKES)


STEPS = {
    "spikes": lambda x: (x[:1, :1], x), "membrane": lambda x: (x, x[:1]), "fewer": lambda x: (x[:, :3], x[:, :3]),
    "no batch": lambda x: (x.sum(), x),
}  # fmt: skip


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_that_answers_with_another_shape_is_no_sequence(kind: str) -> None:
    def step(self: Any, neuron: Neuron, input: Any, state: Any) -> Any:
        return *STEPS[kind](input), None

    net, cls = kept(), type("Wrong", (Listed,), {"step": step, "dynamics": lambda self, module: None})
    with adapter_on_trial(cls):
        delayed(net, **{"3": dk.Recurrent(dk.FreeDelay("layer", init=1.0))})
        with pytest.raises(PluginError, match=r"Wrong\.step\(\): found (spikes|membrane) of shape .* for \(2, 4\)"):
            dk.rollout(net[3], torch.rand(5, 2, 4))


def test_steps_of_different_shapes_are_no_sequence() -> None:
    given = iter([3, 8])
    wrong = {"step": lambda self, neuron, x, state: (x[:, : next(given)], x, None), "dynamics": lambda *_: None}
    with adapter_on_trial(type("Wrong", (Listed,), wrong)), pytest.raises(PluginError, match=r"\(2, 3\) and \(2, 8\)"):
        dk.rollout(page.Keep(), torch.rand(2, 2, 8))


def test_a_fused_network_runs_without_a_surrogate_that_is_none_and_names_it() -> None:
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    from delaykit.adapters.snntorch import SnnTorchAdapter

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 8), snn.Leaky(beta=0.9)

        def forward(self, spikes: Any) -> Any:
            mem, out = self.lif.init_leaky(), []
            for step in spikes:
                fired, mem = self.lif(self.fc(step), mem)
                out.append(fired)
            return torch.stack(out)

    net, wrong = Loop(), {"dynamics": lambda self, module: lif(surrogate=lambda v: v.sum())}
    with adapter_on_trial(type("Wrong", (SnnTorchAdapter,), wrong)):
        fused = dk.fused(net)
        assert torch.equal(fused(SPIKES), net(SPIKES))  # by the library's own steps
    assert "Wrong.dynamics(): found a function that turns shape (2, 3) into ()" in fused.report()["lif"]
