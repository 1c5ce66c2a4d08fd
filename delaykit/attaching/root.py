"""The wrapped root: it sees where a sequence begins, and it knows how to load and to undo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from delaykit.attaching.driven import DrivenNeuron
from delaykit.attaching.histories import RootScope
from delaykit.attaching.retyping import Recipe, recipe_of
from delaykit.errors import CheckpointError
from delaykit.synapse import Synapse

if TYPE_CHECKING:
    from delaykit.wrapping.handover import Handover


@dataclasses.dataclass
class Wrapping:
    """All that :func:`delaykit.unwrap_` needs, kept on the root.

    Args:
        scope: counts root calls.
        plans: the plans that were applied, in order.
        undo: callables that take a change back, applied last first.
        handover: looks for states that go on from call to call, where the plan let delays begin anew with each.
    """

    scope: RootScope
    plans: list[Any] = dataclasses.field(default_factory=list)
    undo: list[Undo] = dataclasses.field(default_factory=list)
    handover: Handover | None = None


@dataclasses.dataclass
class Undo:
    """One change to a module and how to take it back; data instead of a closure, so that copies stay independent."""

    action: Callable[..., None]
    arguments: tuple[Any, ...]

    def run(self) -> None:
        """Take the change back."""
        self.action(*self.arguments)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"arguments": tuple(map(recipe_of, self.arguments))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = (part.make() if isinstance(part, Recipe) else part for part in state["arguments"])
        self.__dict__ |= state | {"arguments": tuple(made)}


class WrappedRoot:
    """Mixin for the root: opens and closes the scope of one call, whether ``__call__`` or ``forward`` is used."""

    keeps_signature = True
    _dk_wrapping: Wrapping

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._dk_scoped(super().__call__, args, kwargs)  # type: ignore[misc]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model inside the scope of one call."""
        return self._dk_scoped(super().forward, args, kwargs)  # type: ignore[misc]

    def _dk_scoped(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scope, failed = self._dk_wrapping.scope, True
        handover = self._dk_wrapping.handover if scope.depth == 0 else None
        if handover is not None:
            handover.begin(self, (args, kwargs))  # type: ignore[arg-type]
        scope.enter()
        try:
            output = call(*args, **kwargs)
            failed = False
            return output
        finally:
            if handover is not None:
                handover.end()
            scope.leave(failed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        modules = dict(self.named_modules(remove_duplicate=False))  # type: ignore[attr-defined]
        for module in modules.values():
            part = module.heterogeneity if isinstance(module, Synapse) else None
            if part is not None and isinstance(part.neuron, DrivenNeuron):
                part.neuron.find_(modules)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A checkpoint of the bare model has no delays at all: keep the present ones. One that has some must have all.
        own = {k for k in self.state_dict(prefix=prefix) if is_extra(k)}  # type: ignore[attr-defined]
        named = self.state_dict(prefix=prefix, keep_vars=True)  # type: ignore[attr-defined]
        check_shared({k: v for k, v in named.items() if k in own}, state_dict, "load_state_dict")
        if not any(k in state_dict for k in own):
            state_dict.update({k: v for k, v in self.state_dict(prefix=prefix).items() if k in own})  # type: ignore[attr-defined]
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


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


def is_extra(key: str) -> bool:
    """Tell whether a state-dict key belongs to delaykit's parts (``fc1.dk.delay.delay``)."""
    return "dk" in key.split(".")


def wrapping_of(net: nn.Module) -> Wrapping | None:
    """Return the wrapping record of a root, or None."""
    return net.__dict__.get("_dk_wrapping")
