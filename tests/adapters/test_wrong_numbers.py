"""Numbers of an adapter that cannot be its neuron's: rests, spikes, membranes, steps, dynamics not its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from wrong_pulse import SPIKES, Listed, delayed, followed, kept, lif, page, wrong

import delaykit as dk
from delaykit.adapters import Neuron
from delaykit.errors import PluginError
from delaykit.testing import adapter_on_trial
from delaykit.testing.kit import anatomy


@pytest.mark.parametrize("step", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_step_of_no_length_is_refused(step: float) -> None:
    class Timeless(Listed):
        def find(self, path, module):
            spots, neuron = super().find(path, module)
            return spots, None if neuron is None else dataclasses.replace(neuron, dt_ms=step)

    with adapter_on_trial(Timeless), pytest.raises(PluginError, match=r"Timeless.*: found a Neuron with dt_ms="):
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
    before = anatomy(net)
    found = r"^adapter 'pulse', Wrong\.membrane\(\): found a (\w+ )?tensor (behind a step|that none of 6 steps)"
    with adapter_on_trial(type("Wrong", (Listed,), method)), pytest.raises(PluginError, match=found):
        followed(net)
    assert anatomy(net) == before


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


@pytest.mark.parametrize("reset", ["none", "zero"])
def test_a_readout_by_an_infinite_threshold_is_one(reset: str) -> None:
    neuron = pytest.importorskip("snntorch", reason="wraps a neuron of snnTorch").Leaky(
        beta=0.9, threshold=float("inf"), reset_mechanism=reset
    )
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


def test_numbers_that_the_neuron_has_as_many_of_are_no_fault_of_the_adapter() -> None:
    class Sized(Listed):
        def dynamics(self, module):
            return lif(decay=module.rates)

    neuron = page.Keep()
    neuron.rates = torch.full((3,), 0.5)
    with adapter_on_trial(Sized), pytest.raises(dk.ShapeError, match="LIFDynamics.decay: found shape"):
        dk.rollout(neuron, SPIKES)


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


OFF = {
    "decay": {"decay": 0.7}, "threshold": {"threshold": 0.8}, "gain": {"gain": 0.5}, "reset": {"reset": "zero"},
    "rest": {"rest": -0.5}, "when": {"reset_when": "next"},
}  # fmt: skip


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", OFF)
def test_a_rollout_holds_dynamics_to_the_neurons_own_steps(kind: str, recurrent: bool) -> None:
    right = Listed().dynamics(page.Keep())
    assert right is not None
    net = kept()
    cls = type("Wrong", (Listed,), {"dynamics": lambda self, module: dataclasses.replace(right, **OFF[kind])})
    with adapter_on_trial(Listed):
        if recurrent:
            delayed(net)
        wanted = dk.rollout(net[3], torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(3)))
    found = r"Wrong\.dynamics\(\): found a fused run that is .* off"
    with adapter_on_trial(cls), pytest.raises(PluginError, match=found):
        dk.rollout(net[3], torch.rand(9, 2, 4))
    with adapter_on_trial(Listed):
        again = dk.rollout(net[3], torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(3)))
    assert all(map(torch.equal, wanted, again))


def test_a_rollout_in_the_middle_of_a_sequence_leaves_it_as_it_was() -> None:
    twins = kept(), kept()
    with adapter_on_trial(Listed):
        for net in twins:
            delayed(net)
            net[1].clear(), net[3].clear()
        outputs = [[net(step) for step in SPIKES[:3]] for net in twins]
        state = torch.get_rng_state()
        dk.rollout(twins[0][3], torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(3)))
        assert torch.equal(state, torch.get_rng_state())
        outputs = [one + [net(step) for step in SPIKES[3:]] for one, net in zip(outputs, twins, strict=True)]
    assert all(map(torch.equal, *outputs))
