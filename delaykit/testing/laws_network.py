"""Laws of wrapping: a wrapped net is the same net with its synapses replaced, and becomes its old self again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import delaykit as dk
from delaykit.errors import DelaykitError
from delaykit.plugins import registry
from delaykit.testing.kit import (
    BATCH,
    GRADIENT_TOLERANCE,
    TIME,
    VALUE_TOLERANCE,
    Kit,
    anatomy,
    assert_equal,
    gradients,
    law,
    loss_of,
    new_parameters,
    require,
)
from delaykit.testing.laws_config import EVERY_KIND, PARTS
from delaykit.testing.nets.tiny import TinyNet, input_spikes, shared_net
from delaykit.wrapping.controls import wrapped_sites


class NetworkLaws(Kit):
    """What wrapping owes to a net, whichever component it puts in."""

    @law(*PARTS)
    def test_identity_at_init(self, tiny: TinyNet) -> None:
        """At zero delay and spread the net is the bare net: to the bit in float32, HetSyn to 1e-10 in float64."""
        lingers = self.config.kind == "heterogeneity"
        dtype = torch.float64 if lingers else torch.float32
        net, spikes = tiny.build(dtype=dtype), input_spikes(TIME, BATCH, dtype=dtype)
        bare = tiny.run(net, spikes)
        found = tiny.run(self.wrap_(tiny, net, self.identity_config or self.config), spikes)
        self.check_firing(bare)
        fix = "set identity_config to the values at which the component does nothing, or skip this law with a reason"
        require(torch.equal(found.spikes, bare.spikes), f"spikes differ from the bare net's; {fix}")
        if lingers:
            assert_equal([found.membranes], [bare.membranes], VALUE_TOLERANCE, "membranes of the bare net")
        else:
            require(torch.equal(found.membranes, bare.membranes), f"membranes differ from the bare net's; {fix}")

    @law(*EVERY_KIND)
    def test_net_equals_reference(self, tiny: TinyNet) -> None:
        """A first, a repeated and a different-batch-size sequence equal the second implementation to 1e-10."""
        net = self.wrapped(tiny)
        first, other = input_spikes(TIME, BATCH, seed=0), input_spikes(TIME - 5, BATCH + 2, seed=1)
        wanted, wanted_other = self.judge(tiny, net, first), self.judge(tiny, net, other)
        self.check_firing(wanted)
        self.check_firing(wanted_other)
        for which in ("first", "repeated", "different-batch-size", "last"):
            spikes, right = (other, wanted_other) if which.startswith("different") else (first, wanted)
            assert_equal(tiny.run(net, spikes), right, VALUE_TOLERANCE, f"{which} sequence")
        with torch.no_grad():
            assert_equal(tiny.run(net, first), wanted, VALUE_TOLERANCE, "sequence under no_grad")

    @law(*PARTS)
    def test_gradients_equal_reference(self, tiny: TinyNet) -> None:
        """A gradient reaches every new parameter and equals autograd through the second implementation."""
        for stir in (False, True):
            net, spikes = self.wrapped(tiny, stir), input_spikes(TIME, BATCH)
            trained = [p for p in net.parameters() if p.requires_grad]
            found = gradients(loss_of(tiny.run(net, spikes)), trained)
            wanted = gradients(loss_of(self.judge(tiny, net, spikes)), trained)
            assert_equal(found, wanted, GRADIENT_TOLERANCE, "gradient")
            new = {id(p) for p in new_parameters(net)}
            silent = [p.shape for p, g in zip(trained, found, strict=True) if id(p) in new and not bool(g.any())]
            require(not (stir and silent), f"no gradient reaches new parameters of shape {silent}")

    @law(*EVERY_KIND)
    def test_unwrap_returns_the_same_objects(self, tiny: TinyNet) -> None:
        """Unwrapping gives back the same modules, parameters and classes, and the bare outputs to the bit."""
        net, spikes = tiny.build(), input_spikes(TIME, BATCH)
        bare, before = tiny.run(net, spikes), anatomy(net)
        self.wrap_(tiny, net)
        tiny.run(net, spikes)
        require(any("dk" in name.split(".") for name, _ in net.named_modules()), "wrapping put nothing into the net")
        require(dk.unwrap_(net) is net, "unwrap_ returned another object")
        require(anatomy(net) == before, "modules, parameters, classes or attributes are not what they were")
        again = tiny.run(net, spikes)
        require(all(map(torch.equal, again, bare)), "the unwrapped net computes something else than the bare one")

    @law(*EVERY_KIND)
    def test_wrap_leaves_the_original_bare(self, tiny: TinyNet) -> None:
        """``dk.wrap`` wraps a copy: the original keeps its objects and outputs, and shares no parameter."""
        net, spikes = tiny.build(), input_spikes(TIME, BATCH)
        bare, before = tiny.run(net, spikes), anatomy(net)
        tiny.start(net)
        example = input_spikes(4, 2)
        generator = torch.Generator().manual_seed(17)
        rules = self.rules(tiny, self.config)
        twin = dk.wrap(net, rules, example=example if tiny.loop_inside else example[0], generator=generator)
        for _ in range(2):
            assert_equal(tiny.run(twin, spikes), self.judge(tiny, twin, spikes), VALUE_TOLERANCE, "wrapped copy")
        require(anatomy(net) == before, "dk.wrap changed the original")
        require(all(map(torch.equal, tiny.run(net, spikes), bare)), "the original computes something else now")
        shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in twin.parameters()}
        require(not shared, "the copy shares parameters with the original")

    @law(*EVERY_KIND)
    def test_base_checkpoint_loads_strict(self, tiny: TinyNet) -> None:
        """A bare net's state dict loads with ``strict=True`` and leaves the new parameters alone; a full one, too."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        before = [p.detach().clone() for p in new_parameters(net)]
        base = tiny.build(seed=5).state_dict()
        net.load_state_dict(base, strict=True)
        require(all(torch.equal(net.state_dict()[key], base[key]) for key in base), "a base weight was not loaded")
        require(all(map(torch.equal, before, new_parameters(net))), "a base checkpoint changed new parameters")
        assert_equal(tiny.run(net, spikes), self.judge(tiny, net, spikes), VALUE_TOLERANCE, "net after loading")
        fresh = self.wrapped(tiny, stir=False)
        fresh.load_state_dict(net.state_dict(), strict=True)
        require(
            all(map(torch.equal, tiny.run(fresh, spikes), tiny.run(net, spikes))), "a full checkpoint lost something"
        )

    @law(*EVERY_KIND)
    def test_extras_round_trip(self, tiny: TinyNet, tmp_path: Path) -> None:
        """``dk.save`` then ``dk.load`` into a fresh bare net gives identical outputs."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        dk.save(net, tmp_path / "extras")
        fresh = tiny.build()
        if not _is_registered(self.config):  # dk.load finds a component by its registered name
            self.wrap_(tiny, fresh)
        dk.load(fresh, tmp_path / "extras")
        require(len(wrapped_sites(fresh)) == len(wrapped_sites(net)), "dk.load wrapped other sites")
        require(all(map(torch.equal, tiny.run(fresh, spikes), tiny.run(net, spikes))), "the loaded net differs")

    @law(*PARTS)
    def test_shared_module_is_wrapped_once(self, library: str) -> None:
        """A connection under two names gets one set of parts, and each of its two streams its own history."""
        tiny = shared_net(library)
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        require(len(wrapped_sites(net)) == 1, "a shared module was wrapped twice")
        responses = dict.fromkeys(tiny.sites, self.responses(tiny, net)[wrapped_sites(net)[0].name])
        for _ in range(2):
            found, wanted = tiny.run(net, spikes), tiny.reference(net, spikes, responses)
            assert_equal(found, wanted, VALUE_TOLERANCE, "shared connection")
        self.check_firing(wanted)


def _is_registered(config: Any) -> bool:
    try:
        return registry.resolve(config.kind, config.name) is type(config)
    except DelaykitError:
        return False
