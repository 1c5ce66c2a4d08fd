"""Back into the bounds: what :func:`delaykit.attach` hangs into an optimizer."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from delaykit.interfaces import Pruning


class Projection(RemovableHandle):
    """Project delays and other bounded parameters after each step of optimizers, and wherever a closure tries.

    The closure of ``optimizer.step(closure)`` may be called at a trial point (LBFGS's line search, sharpness-aware
    steps): parameters go back into their bounds before the model runs there.

    Args:
        optimizers: who steps.
        parts: what has bounds, by a method ``project_``.
        prunings: prunings that keep their zeros, with their weights.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        parts: Sequence[Any],
        prunings: Sequence[tuple[Pruning, Tensor]],
    ) -> None:
        super().__init__(OrderedDict())  # nothing there: the hooks are in several dicts
        self.parts, self.prunings = list(parts), list(prunings)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._handles = [optimizer.register_step_pre_hook(self._before) for optimizer in optimizers]
        self._handles += [optimizer.register_step_post_hook(self._after) for optimizer in optimizers]
        self.project()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return those that are still there."""
        return [optimizer for known in self._optimizers if (optimizer := known()) is not None]

    @torch.no_grad()
    def project(self) -> None:
        """Bring everything back into its bounds now."""
        for part in self.parts:
            part.project_()
        for pruning, weight in self.prunings:
            pruning.project_(weight)

    def remove(self) -> None:
        """Project no more."""
        for handle in self._handles:
            handle.remove()

    def forget(self, modules: Sequence[nn.Module], weights: Sequence[Tensor]) -> None:
        """Project these no more: their model is unwrapped. With nothing left, go."""
        gone, bare = set(map(id, modules)), set(map(id, weights))
        self.parts = [part for part in self.parts if id(part) not in gone]
        self.prunings = [(pruning, weight) for pruning, weight in self.prunings if id(weight) not in bare]
        if not self.parts and not self.prunings:
            self.remove()

    def _after(self, *_: Any) -> None:
        self.project()

    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if callable(kwargs.get("closure")):
            return args, kwargs | {"closure": self._projected(kwargs["closure"])}
        if len(args) > 1 and callable(args[1]):  # the optimizer itself comes first
            return (args[0], self._projected(args[1]), *args[2:]), kwargs
        return None

    def _projected(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def at_a_trial_point() -> Any:
            self.project()
            return closure()

        return at_a_trial_point
