"""Laws of configs and of the parts they build."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from delaykit.testing.kit import (
    BATCH,
    OPERATOR_SITE,
    TIME,
    VALUE_TOLERANCE,
    Kit,
    LoneOperator,
    assert_equal,
    gradients,
    law,
    require,
)
from delaykit.testing.messages import check_told

EVERY_KIND = ("delay", "heterogeneity", "pruning")
PARTS = ("delay", "heterogeneity")


class ConfigLaws(Kit):
    """A config is data; what it builds depends on nothing else than the site and the generator."""

    @law(*EVERY_KIND)
    def test_config_survives_json(self) -> None:
        """``from_json(json.loads(json.dumps(to_json())))`` is an equal config."""
        again = type(self.config).from_json(json.loads(json.dumps(self.config.to_json())))
        require(again == self.config, f"{self.config} came back from JSON as {again}")

    @law(*PARTS)
    def test_same_seed_builds_the_same(self) -> None:
        """Two builds with equally seeded generators are equal, and leave torch's global generator alone."""
        before = torch.random.get_rng_state()
        first, second = (self.config.build(OPERATOR_SITE, torch.Generator().manual_seed(1)) for _ in range(2))
        require(torch.equal(before, torch.random.get_rng_state()), "build drew from torch's global generator")
        one, two = first.state_dict(), second.state_dict()
        require(one.keys() == two.keys(), "two builds have different parameters")
        for key in one:
            require(torch.equal(one[key], two[key]), f"two builds with one seed differ in {key}")

    @law(*PARTS)
    def test_asking_changes_nothing(self) -> None:
        """A part answers the same however often it is asked and run, in batches of any size, until it is changed."""
        operator = LoneOperator(self.config)
        operator.synapse.eval()
        first = operator.synapse.impulse_response(operator.weight, TIME)
        for batch in (BATCH, 1, BATCH + 2):
            spikes = operator.spikes(batch=batch)
            assert_equal([operator.sequence(spikes)], [operator.judge(spikes)], VALUE_TOLERANCE, f"batch of {batch}")
            operator.steps(spikes)
        last = operator.synapse.impulse_response(operator.weight, TIME)
        require(torch.equal(first, last), "the response is another one after a few runs, though nothing was changed")

    @law("delay")
    def test_longest_is_the_longest(self, skip_law: Callable[[str], None]) -> None:
        """No spike matters more steps back than ``longest()`` says, at neither end of the bounds."""
        for far in (-1e4, 1e4):
            operator = LoneOperator(self.config)
            delay: Any = operator.parts[0]
            longest = delay.longest()
            if longest is None:
                skip_law("its delays have no bound")
            for parameter in delay.parameters():
                parameter.data.fill_(far)
            delay.project_()
            steps = delay.impulse_response(operator.weight).detach().flatten(0, 1).any(0).nonzero()
            reach = int(steps.max()) if len(steps) else 0
            require(reach <= longest, f"a spike matters {reach} steps back, longest() says {longest}")

    @law(*PARTS)
    def test_schedules_keep_parameters_legal(self) -> None:
        """``advance_`` from 0 to 1 keeps every parameter finite and the part runnable."""
        operator = LoneOperator(self.config)
        for progress in (0.0, 0.1, 0.5, 0.9, 1.0):
            for part in operator.parts:
                part.advance_(progress)
            for name, value in operator.synapse.state_dict().items():
                require(bool(torch.isfinite(value).all()), f"{name} is not finite at progress {progress}")
            operator.synapse.check()
            response = operator.synapse.impulse_response(operator.weight, TIME)
            require(bool(torch.isfinite(response).all()), f"the response is not finite at progress {progress}")

    @law(*PARTS)
    def test_replaced_parameters_are_told(self) -> None:
        """A parameter that is taken out, or replaced by one of another size, is refused by its name and never runs."""
        for name, parameter in LoneOperator(self.config).synapse.named_parameters():
            for other in (None, nn.Parameter(torch.zeros(*parameter.shape, 2))):
                operator = LoneOperator(self.config)
                holder, _, last = name.rpartition(".")
                setattr(operator.synapse.get_submodule(holder), last, other)
                told = str(check_told(operator.synapse.check))
                require(last in told and str(tuple(parameter.shape)) in told, f"{name} or its size is not in: {told}")

    @law(*PARTS)
    def test_projection_brings_illegal_values_back(self) -> None:
        """``project_`` makes any finite parameters legal, leaves legal ones alone, and twice is once."""
        operator = LoneOperator(self.config)
        legal = [p.detach().clone() for p in operator.synapse.parameters()]
        for part in operator.parts:
            part.project_()
        for before, after in zip(legal, operator.synapse.parameters(), strict=True):
            require(torch.equal(before, after), "project_ moved a parameter that was legal")
        for far in (-1e4, 1e4):
            for parameter in operator.synapse.parameters():
                parameter.data.fill_(far)
            for part in operator.parts:
                part.project_()
            operator.synapse.check()
            once = [p.detach().clone() for p in operator.synapse.parameters()]
            for part in operator.parts:
                part.project_()
            for before, after in zip(once, operator.synapse.parameters(), strict=True):
                require(torch.equal(before, after), "projecting twice is not projecting once")

    @law(*PARTS)
    def test_bounds_do_not_stop_learning(self, skip_law: Callable[[str], None]) -> None:
        """At both ends of the bounds a gradient still reaches every trained parameter: no clamp in forward."""
        for far in (-1e4, 1e4):
            operator = LoneOperator(self.config)
            trained = [p for p in operator.synapse.parameters() if p.requires_grad]
            if not trained:
                skip_law("nothing here is trained")
            for parameter in trained:
                parameter.data.fill_(far)
            for part in operator.parts:
                part.project_()
            slopes = gradients(operator.loss(operator.judge(operator.spikes())), trained)
            dead = [tuple(g.shape) for g in slopes if not bool(g.any())]
            require(
                not dead,
                f"no gradient reaches parameters of shape {dead} at the {'upper' if far > 0 else 'lower'} bound",
            )
