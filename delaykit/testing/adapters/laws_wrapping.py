"""Laws of wrapping: what an adapter finds, and that a model becomes its old self again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

import delaykit as dk
from delaykit.attaching.adapter import Neuron, NeuronAdapter
from delaykit.planning import survey
from delaykit.planning.trace import run_example
from delaykit.plugins.records import ADAPTER_API
from delaykit.testing.adapters.library_net import LibraryNet, input_spikes
from delaykit.testing.kit import VALUE_TOLERANCE, anatomy, assert_equal, require


class AdapterKit:
    """The adapter under test and the networks of its library."""

    adapter: ClassVar[type[NeuronAdapter]]
    nets: ClassVar[tuple[LibraryNet, ...]]

    def rules(self, case: LibraryNet, delay: float, granularity: Any = "layer") -> dict[str, Any]:
        """Put one free delay on each site."""
        config = dk.FreeDelay(granularity, max_delay=6.0, init=delay)
        return {site: dk.At(config, **case.options) for site in case.sites}

    def wrapped(self, case: LibraryNet, delay: float, granularity: str = "layer", **build: Any) -> nn.Module:
        """Build a network and wrap it."""
        net = case.build(**build)
        return dk.wrap_(net, self.rules(case, delay, granularity), example=case.example(net))


class WrappingLaws(AdapterKit):
    """What an adapter owes to the models of its library."""

    def test_states_its_interface_version(self) -> None:
        """The class says for which version of the interface it was written, as a number of its own."""
        declared = next((vars(cls)["api"] for cls in self.adapter.__mro__ if "api" in vars(cls)), None)
        require(declared == ADAPTER_API, f"{self.adapter.__name__}.api is {declared!r}, not {ADAPTER_API}")

    def test_finds_what_is_there(self, case: LibraryNet) -> None:
        """Connections and neurons are listed under the names that users write, each once, with their kind."""
        spots, neurons = survey.survey(case.build())
        names = sorted(spot.name for spot in spots if not spot.refusal)
        require(names == sorted(case.sites), f"{case} lists connections {names}, not {sorted(case.sites)}")
        require(
            all(spot.adapter is not None and spot.pre != 0 for spot in spots if not spot.refusal),
            f"{case} lists a connection without its size or its adapter",
        )
        kinds = {
            path: "sequence" if n.style == "sequence" else "kept" if n.follows else "carried"
            for path, n in neurons.items()
        }
        require(kinds == dict(case.neurons), f"{case} lists neurons {kinds}, not {dict(case.neurons)}")

    def test_refuses_with_a_reason(self, case: LibraryNet) -> None:
        """A connection that cannot be delayed is an issue of the plan that names it and says why."""
        for site, words in case.refused.items():
            net = case.build()
            plan = dk.plan(net, {site: dk.FreeDelay("layer", max_delay=3.0)}, example=case.example(net))
            issues = [issue for issue in plan.issues if site in str(issue)]
            require(bool(issues), f"{case} does not refuse {site}")
            require(words in str(issues[0]), f"the refusal of {site} does not say {words!r}: {issues[0]}")

    def test_zero_delay_is_the_bare_net(self, case: LibraryNet) -> None:
        """With all delays zero nothing changes, to the bit, in either precision."""
        for dtype in (torch.float32, torch.float64):
            spikes = input_spikes(dtype=dtype)
            bare = case.run(case.build(dtype=dtype), spikes)
            require(bool(bare.any()), f"{case} is silent: a silent network proves nothing")
            net = self.wrapped(case, 0.0, dtype=dtype)
            for which in ("first", "repeated"):
                require(torch.equal(case.run(net, spikes), bare), f"the {which} sequence of {case} is not the bare one")

    def test_unwrap_returns_the_same_objects(self, case: LibraryNet) -> None:
        """Unwrapping gives back the same modules, parameters, classes and attributes, and the bare outputs.

        While it is wrapped a module has one attribute more, the record ``_dk``: an adapter's own data is in there.
        """
        net, spikes = case.build(), input_spikes()
        bare, before = case.run(net, spikes), anatomy(net)
        rules: dict[str, Any] = self.rules(case, 2.5)
        for path, size in self.loops(case, net).items():
            rules[path] = dk.Recurrent(dk.FreeDelay("layer", init=1.0), weight=torch.eye(size, dtype=torch.float64))
        dk.wrap_(net, rules, example=case.example(net))
        case.run(net, spikes)
        require(any("dk" in name.split(".") for name, _ in net.named_modules()), "wrapping put nothing into the net")
        for name, (_, _, own) in before["modules"].items():
            more = sorted(vars(net.get_submodule(name)).keys() - {*own, "_dk"})
            require(not more, f"{name or 'the net'} got {more} of its own: use delaykit.adapters.keep_()")
        dk.unwrap_(net)
        require(anatomy(net) == before, "modules, parameters, classes or attributes are not what they were")
        require(torch.equal(case.run(net, spikes), bare), "the unwrapped net computes something else than the bare one")

    def loops(self, case: LibraryNet, net: nn.Module) -> dict[str, int]:
        """Return neurons that can be given a recurrent connection, and their numbers."""
        return {n.path: size for n, size in flat_neurons(case, net) if takes_recurrence(case, n)}

    @torch.no_grad()  # PyTorch copies no module that holds a state with a graph
    def test_copies_are_independent(self, case: LibraryNet) -> None:
        """A deep copy and ``dk.wrap``'s twin compute what the wrapped net does, and leave it alone."""
        net, spikes = self.wrapped(case, 2.5), input_spikes()
        wanted = case.run(net, spikes)
        bare = case.build()
        before = anatomy(bare)
        plan = dk.plan(bare, self.rules(case, 2.5), example=case.example(bare))
        twins = {"deepcopy": copy.deepcopy(net), "dk.wrap": dk.wrap(bare, plan)}
        require(anatomy(bare) == before, "dk.wrap changed the original")
        for which, twin in twins.items():
            for _ in range(2):
                assert_equal([case.run(twin, spikes)], [wanted], VALUE_TOLERANCE, f"{which} of {case}")
                assert_equal([case.run(net, spikes)], [wanted], VALUE_TOLERANCE, f"{case} beside its {which}")
            mine = {id(m) for m in net.modules()} & {id(m) for m in twin.modules()}
            require(not mine, f"{which} shares modules with the original")

    def test_checkpoints_come_back(self, case: LibraryNet, tmp_path: Path) -> None:
        """``dk.save`` then ``dk.load`` into a bare net, and bare weights into a wrapped one: the same outputs."""
        net, spikes = self.wrapped(case, 1.5), input_spikes()
        wanted = case.run(net, spikes)
        dk.save(net, tmp_path / "delays")
        again = dk.load(case.build(), tmp_path / "delays")
        require(torch.equal(case.run(again, spikes), wanted), f"the loaded {case} computes something else")
        other = self.wrapped(case, 1.5, seed=3)
        other.load_state_dict(case.build().state_dict(), strict=True)
        require(torch.equal(case.run(other, spikes), wanted), f"{case} with loaded weights computes something else")


def flat_neurons(case: LibraryNet, net: nn.Module) -> list[tuple[Neuron, int]]:
    """Return the neurons of a network that are stepped on ``(batch, neuron)``, and their input sizes."""
    _, neurons = survey.survey(net)
    seen = run_example(net, case.example(net), [], list(neurons.values())).neurons
    shapes = {path: calls[0].input_shape for path, calls in seen.items()}
    return [(n, shapes[p][-1]) for p, n in neurons.items() if n.style == "step" and len(shapes.get(p, ())) == 2]


def takes_recurrence(case: LibraryNet, neuron: Neuron) -> bool:
    """Tell whether ``dk.Recurrent`` fits a neuron: nothing speaks against it, and it has no recurrence yet."""
    return not neuron.recurrent_refusal and f"{neuron.path}.recurrent".lstrip(".") not in case.sites
