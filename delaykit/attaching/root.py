"""The wrapped root: it sees where a sequence begins, and it knows how to load and to undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.exporters import refuse_exporters, refuse_recordings
from delaykit.attaching.neuron.driven_neuron import DrivenNeuron
from delaykit.attaching.neuron.time_constants import CONSTANTS
from delaykit.attaching.wiring import Wiring, Wrapping, wiring_of
from delaykit.errors import CheckpointError
from delaykit.synapse import Synapse


class WrappedRoot:
    """Mixin for the root: opens and closes the scope of one call, whether ``__call__`` or ``forward`` is used."""

    keeps_signature = True
    _dk: Wiring

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._dk_scoped(super().__call__, args, kwargs)  # type: ignore[misc]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model inside the scope of one call."""
        return self._dk_scoped(super().forward, args, kwargs)  # type: ignore[misc]

    def _dk_scoped(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        root = self._dk.root
        assert root is not None
        if torch.compiler.is_compiling():
            refuse_recordings(type(self).__name__)
            if not (root.scope.histories or root.scope.watches):  # nobody asks when a call begins
                return call(*args, **kwargs)
        refuse_exporters("model", *args, *kwargs.values())
        scope, failed = root.scope, True
        scope.enter()
        try:
            if scope.depth == 1:
                scope.foresee(args, kwargs)
            output = call(*args, **kwargs)
            failed = False
            return output
        finally:
            scope.leave(failed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        modules = dict(self.named_modules(remove_duplicate=False))  # type: ignore[attr-defined]
        for module in modules.values():
            part = module.heterogeneity if isinstance(module, Synapse) else None
            if part is not None and isinstance(part.neuron, DrivenNeuron):
                part.neuron.find_(modules)
            wiring = wiring_of(module)
            if wiring is not None and wiring.watch is not None:  # pickles leave the neuron of a watch out
                wiring.watch.module = module

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: Any, *args: Any) -> None:
        # A checkpoint of the bare model has no delays at all: keep the present ones. One that has some must have all.
        named = self.state_dict(prefix=prefix, keep_vars=True)  # type: ignore[attr-defined]
        own = {key: value for key, value in named.items() if is_extra(key)}
        check_shared(own, state_dict, "load_state_dict")
        if not any(key in state_dict for key in own):
            state_dict.update(own)
        if metadata.get("assign_to_params_buffers", False):
            share_assigned_(own, state_dict)
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)  # type: ignore[misc]


def check_shared(own: Mapping[str, Tensor], given: Mapping[str, Any], where: str) -> None:
    """Raise where a parameter that has several names, such as shared positions, would get different values.

    Args:
        own: the model's tensors by name, the same object under each of its names.
        given: tensors about to be loaded; names that are missing are not looked at.
        where: what is loaded, for the message.

    Raises:
        CheckpointError: two names of one parameter disagree.
    """
    first: dict[int, str] = {}
    for name, tensor in own.items():
        other = first.setdefault(id(tensor), name) if name in given else name
        one, two = given.get(other), given.get(name)
        if one is two or not (isinstance(one, Tensor) and isinstance(two, Tensor)):
            continue
        if one.shape != two.shape or not torch.equal(one, two.to(one)):
            found = f"different values for {other} and {name}"
            fix = "load it into a model whose connections are wrapped as they were when it was saved"
            raise CheckpointError(where, found, "one value: this model shares that parameter", fix)


def share_assigned_(own: Mapping[str, Tensor], given: dict[str, Any]) -> None:
    """Let ``load_state_dict(assign=True)`` put one parameter under all the names that one parameter has in the model.

    Args:
        own: the model's tensors by name, the same object under each of its names.
        given: tensors about to be assigned, changed in place.
    """
    first: dict[int, Any] = {}
    for name, tensor in own.items():
        value = given.get(name)
        if isinstance(tensor, nn.Parameter) and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        if name in given:
            given[name] = first.setdefault(id(tensor), value)


def is_extra(key: str) -> bool:
    """Tell whether a state-dict key belongs to delaykit's parts (``fc1.dk.delay.delay``, ``lif.dk_constants...``)."""
    parts = key.split(".")
    return "dk" in parts or CONSTANTS in parts


def wrapping_of(net: nn.Module) -> Wrapping | None:
    """Return the wrapping record of a root, or None."""
    wiring = wiring_of(net)
    return None if wiring is None else wiring.root
