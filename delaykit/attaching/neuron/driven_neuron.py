"""The neuron that a connection drives, as far as a lingering current must know it: how fast its own state decays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.adapter import Neuron, NeuronAdapter
from delaykit.attaching.neuron.reported_numbers import has_as_many
from delaykit.attaching.retyping import original_class
from delaykit.checks.answers import MEND, answer_of
from delaykit.errors import ConfigError, PluginError

FITS = "a neuron whose first state adds its input up linearly"


class DrivenNeuron:
    """Read the leak of the neuron behind a connection, always as it is now.

    It refers to the module itself, so a copy of the model reads its own neuron. A pickle of the connection alone does
    not take the neuron along: the leak is then the number that it was, until the whole model is there again.

    Args:
        where: site name of the connection, for messages.
        neurons: the neurons that hear it. A connection that is shared drives several, and their leaks must agree.
        post: number of neurons that the connection leads to.

    Raises:
        ConfigError: a neuron whose state does not take its input in linearly, or neurons that differ.
        PluginError: an adapter answers with a leak that is none, or with a place where none lies.
    """

    def __init__(self, where: str, neurons: list[Neuron], post: int) -> None:
        self.where, self.post = where, post
        self.path, self._adapter = neurons[0].path, type(neurons[0].adapter)
        self.module: nn.Module | None = neurons[0].module
        first = self.leak()
        _check_leak(neurons[0], first)
        self.leak_place()
        self._kept = first.detach()
        for other in neurons[1:]:
            leak = _leak(where, other.path, other.module, type(other.adapter), post)
            _check_leak(other, leak)
            if other.module is not self.module and (leak.requires_grad or not torch.equal(leak, first)):
                found = f"a connection shared by {self.path!r} and {other.path!r}, whose leaks differ or learn apart"
                raise ConfigError(where, found, "one leak", "use one connection for each, or neurons of one fixed leak")

    def leak(self) -> Tensor:
        """Return the decay a step of the state that takes the input in, (1, 1) or (post, 1), differentiable."""
        if self.module is None:
            return self._kept
        return _leak(self.where, self.path, self.module, self._adapter, self.post)

    def leak_place(self) -> tuple[dict[str, Any], str] | None:
        """Return where the tensor lies that alone decides the leak; None where it has to be computed.

        Raises:
            PluginError: there is no tensor of that name.
        """
        if self.module is None:
            return None
        adapter = self._adapter()
        place = adapter.leak_place(self.module)
        if place is not None and not isinstance(place[0].get(place[1]), Tensor):
            found = f"{place[1]!r} for a {original_class(self.module).__name__}, where no tensor lies"
            fix = "answer with a dict of a module and a name in it, or None"
            raise PluginError(answer_of(adapter, "leak_place"), found, "the place of the tensor that is the leak", fix)
        return place

    def find_(self, modules: Mapping[str, nn.Module]) -> None:
        """Take the neuron of this model, after a pickle has left it out."""
        if self.module is None:
            self.module = modules.get(self.path)

    def __deepcopy__(self, memo: dict[int, Any]) -> DrivenNeuron:
        twin = memo[id(self)] = object.__new__(DrivenNeuron)
        twin.__dict__.update(self.__dict__)
        twin.module = copy.deepcopy(self.module, memo)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**self.__dict__, "module": None, "_kept": self.leak().detach()}
        return object.__new__, (DrivenNeuron,), state


def _check_leak(neuron: Neuron, leak: Tensor) -> None:
    """Raise for a leak that is none; a negative one is, of a neuron whose step is longer than its time constant."""
    if leak.is_complex() or not bool((torch.isfinite(leak) & (leak <= 1)).all()):
        kind, values = original_class(neuron.module).__name__, leak.detach().flatten()[:4].tolist()
        found = f"{', '.join(f'{value:g}' for value in values)} for a {kind}"
        fix = f"{MEND}, or the neuron's time constant"
        raise PluginError(answer_of(neuron.adapter, "leak"), found, "what is kept each step, finite and at most 1", fix)


def such_as(adapter: type[NeuronAdapter], method: str) -> str:
    """Name the neurons of a library that a method of its adapter has an answer for, to go on a sentence with."""
    return f", such as {adapter.fits[method]}" if method in adapter.fits else ""


def _leak(where: str, path: str, module: nn.Module, adapter: type[NeuronAdapter], post: int) -> Tensor:
    leak: Tensor | None = adapter().leak(module)
    kind = original_class(module).__name__
    if leak is None:
        fix = "leave this connection out, or put it before a neuron that fits"
        raise ConfigError(where, f"{kind} {path!r} behind it", FITS + such_as(adapter, "leak"), fix)
    if leak.numel() not in (1, post):
        if not has_as_many(module, leak.numel()):
            found = f"{leak.numel()} leaks for a {kind}"
            raise PluginError(answer_of(adapter(), "leak"), found, f"one, or {post}", MEND)
        raise ConfigError(where, f"{leak.numel()} leaks in {kind} {path!r}", f"one, or {post}", "check the sizes")
    return leak.reshape(-1, 1)
