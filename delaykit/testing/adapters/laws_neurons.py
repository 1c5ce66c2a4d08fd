"""Laws of neurons: rest, states, an added recurrence, the fused run, and the leak that other parts rely on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import delaykit as dk
from delaykit.attaching.adapter import Neuron
from delaykit.errors import HistoryError
from delaykit.testing.adapters.laws_wrapping import AdapterKit, flat_neurons, takes_recurrence
from delaykit.testing.adapters.library_net import LibraryNet, late
from delaykit.testing.kit import GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_equal, gradients, require

TIME, BATCH = 14, 2


class NeuronLaws(AdapterKit):
    """What an adapter owes about its neurons."""

    def test_rest_is_rest(self, case: LibraryNet) -> None:
        """A neuron brought to rest runs as at first; a membrane that the neuron left itself is no new beginning."""
        for neuron, size in self.step_neurons(case):
            currents = _currents(size)
            if not neuron.follows:
                require(neuron.adapter.begins(None), f"{neuron.path}: None does not begin a sequence")
                _, state = _one(neuron, currents[0], None)
                require(not neuron.adapter.begins(state), f"{neuron.path}: a running state begins a sequence")
                require(_is_membrane(neuron, state), f"{neuron.path}: no membrane in its state")
                _require_fresh(neuron, currents[0], state)
                continue
            first = _steps(neuron, currents)
            require(_is_membrane(neuron), f"{neuron.path}: no membrane after a step")
            left = neuron.adapter.membrane(neuron.module)
            require(neuron.adapter.membrane(neuron.module) is left, f"{neuron.path}: another membrane at each look")
            held = neuron.adapter.held_state(neuron.module)
            require(any(tensor is left for tensor in held), f"{neuron.path}: its membrane is not in held_state()")
            neuron.adapter.reset_(neuron.module)
            require(neuron.adapter.membrane(neuron.module) is not left, f"{neuron.path}: not reset")
            require(torch.equal(_steps(neuron, currents), first), f"{neuron.path}: not at rest after reset_()")

    def test_an_added_recurrence_is_the_output_late(self, case: LibraryNet) -> None:
        """``dk.Recurrent``: the step loop and ``dk.rollout`` equal the bare neuron fed back by hand, with gradients."""
        for neuron, size in self.step_neurons(case):
            if not takes_recurrence(case, neuron):
                continue
            weight = torch.randn(size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.6
            currents = _currents(size).requires_grad_()
            wanted = _fed_back(neuron, currents, weight, 1.5)
            alone = nn.Sequential(neuron.module)
            reset = "follow" if neuron.follows else "carried"
            rule = dk.Recurrent(dk.FreeDelay("layer", max_delay=4.0, init=1.5), weight=weight, reset=reset)
            dk.wrap_(alone, {"0": rule}, example=lambda: _steps(neuron, currents.detach()))  # noqa: B023
            self._compare(neuron, currents, wanted)
            dk.unwrap_(alone)

    def test_rollout_equals_the_step_loop(self, case: LibraryNet) -> None:
        """``dk.rollout`` of a bare neuron, fused where its equations are given, equals its own loop, with gradients."""
        for neuron, size in self.step_neurons(case):
            currents = _currents(size).requires_grad_()
            self._compare(neuron, currents, _steps(neuron, currents))

    def test_leak_is_the_decay_of_what_adds_input_up(self, case: LibraryNet) -> None:
        """The response to a small input decays by the leak, alone or after one other state that decays on its own."""
        for neuron, size in self.step_neurons(case):
            leak = neuron.adapter.leak(neuron.module)
            if leak is None:
                continue
            pulse = torch.zeros(TIME, 1, size, dtype=torch.float64)
            silent = _membranes(neuron, pulse)
            pulse[0] = 1e-3
            response = _membranes(neuron, pulse) - silent
            start = int(response.abs().sum((1, 2)).nonzero()[0])
            response, kept = response[start:], leak.detach().double()
            rest = response[1:] - kept * response[:-1]
            if bool((rest[1:].abs() <= 1e-9 * response.abs().max()).all()):
                continue  # one state, which decays by the leak
            ratio = rest[2:] / rest[1:-1]
            one = torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-6)
            own = response[2:] / response[1:-1]
            require(one and not torch.allclose(own, own[:1].expand_as(own), rtol=1e-6),
                    f"{neuron.path}: its response does not decay by its leak {kept.tolist()}")  # fmt: skip

    def test_a_state_without_its_history_is_refused(self, case: LibraryNet) -> None:
        """A running state that was rebuilt, and so lost the spikes under way, raises instead of losing them."""
        for neuron, size in self.step_neurons(case):
            if neuron.follows or not takes_recurrence(case, neuron):
                continue
            currents = _currents(size)
            alone = nn.Sequential(neuron.module)
            rule = {"0": dk.Recurrent(dk.FreeDelay("layer", init=1.0), weight=torch.eye(size, dtype=torch.float64))}
            dk.wrap_(alone, rule, example=lambda: _steps(neuron, currents))  # noqa: B023
            _, state = neuron.module(currents[0], None)
            rebuilt = type(state).__mro__[1](*state)
            dk.reset(alone)  # what the neuron remembers of its last step would refuse it, whatever the adapter says
            try:
                neuron.module(currents[1], rebuilt)
            except HistoryError:
                continue
            finally:
                dk.unwrap_(alone)
            raise AssertionError(f"{neuron.path}: a rebuilt state went on without its delay history")

    def step_neurons(self, case: LibraryNet) -> list[tuple[Neuron, int]]:
        """Return the neurons that can be stepped alone on flat input, and their input sizes."""
        return flat_neurons(case, case.build())

    def _compare(self, neuron: Neuron, currents: Tensor, wanted: Tensor) -> None:
        weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(7)).to(wanted)
        runs = {"step loop": _steps(neuron, currents), "rollout": dk.rollout(neuron.module, currents)[0]}
        require(bool(wanted.any()), f"{neuron.path} is silent: a silent neuron proves nothing")
        slopes = gradients((wanted * weights).sum(), [currents])
        for which, found in runs.items():
            assert_equal([found], [wanted], VALUE_TOLERANCE, f"{which} of {neuron.path!r}")
            found_slopes = gradients((found * weights).sum(), [currents])
            assert_equal(found_slopes, slopes, GRADIENT_TOLERANCE, f"gradient of the {which} of {neuron.path!r}")
        found, membranes = dk.rollout(neuron.module, currents)[1], _membranes(neuron, currents)
        assert_equal([found], [membranes], VALUE_TOLERANCE, f"membranes of {neuron.path!r}")


def _currents(size: int) -> Tensor:
    return 1.5 * torch.rand(TIME, BATCH, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _is_membrane(neuron: Neuron, state: Any = None) -> bool:
    membrane = neuron.adapter.membrane(neuron.module, state)
    return isinstance(membrane, Tensor) and membrane.shape[:1] == (BATCH,)


def _one(neuron: Neuron, current: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Step a neuron as its adapter says that its user does."""
    output, _, after = neuron.adapter.step(neuron, current, state)
    return output, after


def _require_fresh(neuron: Neuron, current: Tensor, state: Any) -> None:
    """Raise where what the adapter calls a fresh state (none said: zeros) is not where a sequence begins."""
    fresh = neuron.adapter.resting(neuron.module, state)
    which = "resting()" if fresh is not None else "a state of zeros, as resting() gives None,"
    fresh = tree_map(torch.zeros_like, state) if fresh is None else fresh
    found, wanted = (tree_leaves(_one(neuron, current, begun)) for begun in (fresh, None))
    same = all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    require(same, f"{neuron.path}: {which} does not run as a fresh state does")


def _steps(neuron: Neuron, currents: Tensor) -> Tensor:
    spikes, state = [], None
    for current in currents:
        spike, state = _one(neuron, current, state)
        spikes.append(spike)
    return torch.stack(spikes)


def _membranes(neuron: Neuron, currents: Tensor) -> Tensor:
    found, state = [], None
    for current in currents:
        _, state = _one(neuron, current, state)
        membrane: Any = neuron.adapter.membrane(neuron.module, state)
        found.append(membrane)
    return torch.stack(found)


def _fed_back(neuron: Neuron, currents: Tensor, weight: Tensor, delay: float) -> Tensor:
    """Run a bare neuron whose own output comes back ``delay`` steps later than it did anyway."""
    spikes: list[Tensor] = []
    state, steps = None, torch.tensor(delay, dtype=torch.float64)
    for current in currents:
        back = late([torch.zeros_like(current), *spikes], steps) @ weight.T
        spike, state = _one(neuron, current + back, state)
        spikes.append(spike)
    return torch.stack(spikes)
