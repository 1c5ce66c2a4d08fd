"""Laws of scale: processes, compilation, pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import delaykit as dk
from delaykit.errors import DelaykitError
from delaykit.testing.kit import (
    BATCH,
    GRADIENT_TOLERANCE,
    VALUE_TOLERANCE,
    Kit,
    assert_equal,
    gradients,
    law,
    loss_of,
    parts_of,
    require,
    stir_,
)
from delaykit.testing.laws_config import PARTS
from delaykit.testing.nets.tiny import TinyNet, input_spikes, missing, tiny_nets
from delaykit.testing.processes import Job, gradients_of_two_processes

SHORT = 6  # steps: dynamo traces every one of them


class ScaleLaws(Kit):
    """What a wrapped net owes to the tools around it."""

    @law(*PARTS)
    def test_connection_pickles(self, tiny: TinyNet, skip_law: Callable[[str], None]) -> None:
        """A wrapped Linear comes back from a pickle with its class, its parts and an empty history."""
        net = self.wrapped(tiny)
        tiny.run(net, input_spikes())
        linears = [m for m in net.modules() if isinstance(m, nn.Linear) and "dk" in m._modules]
        if not linears:
            skip_law(f"no wrapped nn.Linear in {tiny}")
        for module in linears:
            again: Any = pickle.loads(pickle.dumps(module))
            require(type(again) is type(module), f"{type(module).__name__} came back as {type(again).__name__}")
            require(not again.__dict__["_dk"].sites[""].history.streams, "the history was pickled")
            one, two = (m.dk.impulse_response(m.weight, SHORT) for m in (module, again))  # type: ignore[union-attr, operator]
            require(torch.equal(one, two), "the pickled connection has another impulse response")

    @law(*PARTS, speaks_of=lambda tiny, sites: tiny.loop_inside)
    def test_compiled_equals_eager(self, tiny: TinyNet) -> None:
        """``torch.compile`` (backend ``eager``: dynamo and its graph breaks, no code generation) changes nothing.

        Of a net that is stepped from outside one step is compiled, which holds nothing that could be late.
        """
        net, spikes = self.wrapped(tiny), input_spikes(SHORT, BATCH)
        eager = tiny.run(net, spikes)
        torch.compiler.reset()
        compiled: Any = torch.compile(net, backend="eager")
        trained = [p for p in net.parameters() if p.requires_grad]
        wanted = gradients(loss_of(eager), trained)
        for which in ("first", "repeated"):
            found = tiny.run(compiled, spikes)
            assert_equal(found, eager, VALUE_TOLERANCE, f"{which} compiled sequence")
            assert_equal(gradients(loss_of(found), trained), wanted, GRADIENT_TOLERANCE, "gradient of the compiled net")

    @law(*PARTS)
    def test_compiled_sequences_equal_eager(self, skip_law: Callable[[str], None]) -> None:
        """``torch.compile`` of connections that are fed whole sequences changes neither values nor gradients."""
        spikes = input_spikes(SHORT, BATCH)
        net = nn.Sequential(nn.Linear(spikes.shape[2], 7), nn.Tanh(), nn.Linear(7, 5)).double()
        rule = dk.At(self.config, time_dim=0, reset="root")
        try:
            dk.wrap_(net, {"0": rule, "2": rule}, example=spikes, generator=torch.Generator().manual_seed(0))
        except DelaykitError as error:
            skip_law(f"no part of a net without neurons that takes whole sequences: {error}")
        stir_(parts_of(net))
        torch.compiler.reset()
        compiled: Any = torch.compile(net, backend="aot_eager")
        trained, found = [p for p in net.parameters() if p.requires_grad], []
        for run in (net, compiled, compiled):
            given = spikes.clone().requires_grad_()
            output = run(given)
            found.append([output, *gradients(output.square().sum(), [given, *trained])])
        for again in found[1:]:
            assert_equal(again[:1], found[0][:1], VALUE_TOLERANCE, "the compiled sequence")
            assert_equal(again[1:], found[0][1:], GRADIENT_TOLERANCE, "a gradient of the compiled sequence")

    @law(*PARTS)
    def test_two_processes_equal_one(self, tmp_path: Path, skip_law: Callable[[str], None]) -> None:
        """DistributedDataParallel over two processes (gloo) gives the gradients of one process."""
        nets = [net for name in self.libraries if not missing(name) for net in tiny_nets(name) if net.loop_inside]
        nets = [net for net in nets if self.rules(net, self.config)]
        if not nets:
            skip_law("no net whose forward runs a whole sequence, which is what DistributedDataParallel synchronises")
        spikes = input_spikes(2 * SHORT, 4)
        jobs, wanted = [], []
        for tiny in nets:
            net = self.wrapped(tiny)
            trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
            found = gradients(loss_of(tiny.run(net, spikes)), list(trained.values()))
            wanted.append(dict(zip(trained, found, strict=True)))
            state = {key: value.detach().clone() for key, value in net.state_dict().items()}
            jobs.append(Job(tiny, self.rules(tiny, self.config), state, spikes))
        for tiny, one, two in zip(nets, gradients_of_two_processes(jobs, tmp_path), wanted, strict=True):
            require(one.keys() == two.keys(), f"{tiny} has other parameters in two processes")
            assert_equal([one[name] for name in two], two.values(), GRADIENT_TOLERANCE, f"gradient of {tiny}")
