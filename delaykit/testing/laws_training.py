"""Laws of training: truncated BPTT, copies, projection after the step, integer delays for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.interfaces import PointDelay
from delaykit.testing.kit import (
    BATCH,
    GRADIENT_TOLERANCE,
    TIME,
    VALUE_TOLERANCE,
    Kit,
    assert_equal,
    gradients,
    law,
    loss_of,
    new_parameters,
    parts_of,
    require,
)
from delaykit.testing.laws_config import PARTS
from delaykit.testing.nets.tiny import Record, TinyNet, input_spikes
from delaykit.wrapping.controls import wrapped_sites

SEGMENT, RATE, FLOAT32_TOLERANCE = 8, 1e-4, 1e-5


def _outlives_a_call(tiny: TinyNet, sites: Collection[str]) -> bool:
    """Tell whether the history of a wrapped site does."""
    return any(site in tiny.segment_sites for site in sites)


class TrainingLaws(Kit):
    """What a user's training loop relies on."""

    @law(*PARTS, speaks_of=_outlives_a_call)
    def test_truncated_bptt_equals_reference(self, tiny: TinyNet) -> None:
        """Segments with detached states equal the judge's: old spikes are remembered, their graph is not.

        A delay is trained after each segment, and what is remembered arrives by the new parameters; a line behind the
        weights remembers currents, which keep the weight that made them. The state of a decaying current has no second
        way to be written down, so there only values are compared.
        """
        only = tuple(site for site in self.rules(tiny, self.config) if site in tiny.segment_sites)
        net, twin = self.wrapped(tiny, only=only), self.wrapped(tiny, only=only)
        trains = self.config.kind == "delay"
        spikes, run = input_spikes(TIME, BATCH), tiny.reference_run(twin)
        mine, theirs = ([p for p in n.parameters() if p.requires_grad] for n in (net, twin))
        parts = spikes.split(SEGMENT)
        for k, (found, part) in enumerate(zip(tiny.segments(net, spikes, SEGMENT), parts, strict=True)):
            if k:
                run.detach()
            responses, behind = self.responses(tiny, twin), self.lines_behind(tiny, twin)
            wanted = Record.of([run.step(x, responses, behind) for x in part])
            assert_equal(found, wanted, VALUE_TOLERANCE, f"segment {k}")
            if trains:
                one, two = gradients(loss_of(found), mine), gradients(loss_of(wanted), theirs)
                assert_equal(one, two, GRADIENT_TOLERANCE, f"gradient of segment {k}")
                _descend_(net, mine, one)
                _descend_(twin, theirs, two)

    @law(*PARTS)
    def test_copy_trains_alone(self, tiny: TinyNet) -> None:
        """A deep copy of a wrapped net trains, equals its own reference, and leaves the original as it was."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        with torch.no_grad():
            before = tiny.run(net, spikes)
        tiny.start(net)
        twin = copy.deepcopy(net)
        kept = {name: value.clone() for name, value in net.state_dict().items()}
        found, wanted = tiny.run(twin, spikes), self.judge(tiny, twin, spikes)
        assert_equal(found, wanted, VALUE_TOLERANCE, "copy")
        trained = [p for p in twin.parameters() if p.requires_grad]
        require(not {id(p) for p in trained} & {id(p) for p in net.parameters()}, "the copy shares parameters")
        _descend_(twin, trained, gradients(loss_of(found), trained))
        for name, value in net.state_dict().items():
            require(torch.equal(value, kept[name]), f"training the copy changed {name} of the original")
        with torch.no_grad():
            require(all(map(torch.equal, tiny.run(net, spikes), before)), "the original computes something else now")
        if tiny.loop_inside:
            assert_equal(tiny.run(twin, spikes), self.judge(tiny, twin, spikes), VALUE_TOLERANCE, "trained copy")

    @law(*PARTS)
    def test_optimizer_step_stays_in_bounds(self, tiny: TinyNet) -> None:
        """With ``dk.attach``, steps of any size leave legal parameters, and every new parameter that learns moves."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        start = [p.detach().clone() for p in new_parameters(net)]
        optimizer = torch.optim.SGD(dk.param_groups(net, lr=1e-6, delay_lr=1e-3))
        dk.attach(optimizer, net)
        loss_of(tiny.run(net, spikes)).backward()
        optimizer.step()
        for one, two in zip(start, new_parameters(net), strict=True):
            require(not torch.equal(one, two), f"a new parameter of shape {tuple(one.shape)} did not move")
        for group in optimizer.param_groups:
            group["lr"] = 1e6 if group["name"] == "delaykit" else 0.0
        optimizer.step()
        for site in wrapped_sites(net):
            site.synapse.check()
        with torch.no_grad():
            assert_equal(tiny.run(net, spikes), self.judge(tiny, net, spikes), VALUE_TOLERANCE, "net at its bounds")

    @law("delay")
    def test_discretized_restores_exactly(self, tiny: TinyNet) -> None:
        """Inside ``dk.discretized`` delays are whole numbers; afterwards everything is back to the bit."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        before, state = tiny.run(net, spikes), {k: v.clone() for k, v in net.state_dict().items()}
        with dk.discretized(net), torch.no_grad():
            for part in parts_of(net):
                if isinstance(part, PointDelay):
                    delays = part.delays()
                    require(torch.equal(delays, delays.round()), "discretized delays are not whole numbers")
            assert_equal(tiny.run(net, spikes), self.judge(tiny, net, spikes), VALUE_TOLERANCE, "discretized net")
        for key, value in net.state_dict().items():
            require(torch.equal(value, state[key]), f"dk.discretized did not restore {key}")
        require(all(map(torch.equal, tiny.run(net, spikes), before)), "the net computes something else now")

    @law(*PARTS)
    def test_net_moves_between_dtypes(self, tiny: TinyNet) -> None:
        """``net.float()`` runs in float32, ``net.double()`` in float64 again, and no more than rounding is lost."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        tiny.run(net, spikes)
        before = self.responses(tiny, net)
        tiny.start(net.float())
        membranes = tiny.run(net, spikes.float()).membranes
        require(membranes.dtype == torch.float32, f"float() gives membranes of {membranes.dtype}")
        require(bool(torch.isfinite(membranes).all()), "float() gives membranes that are not finite")
        tiny.start(net.double())
        assert_equal(tiny.run(net, spikes), self.judge(tiny, net, spikes), VALUE_TOLERANCE, "net after double()")
        after = self.responses(tiny, net)
        assert_equal(after.values(), before.values(), FLOAT32_TOLERANCE, "impulse response after float() and double()")


def _descend_(net: nn.Module, parameters: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.sub_(RATE * slope)
        part: Any
        for part in parts_of(net):
            part.project_()
