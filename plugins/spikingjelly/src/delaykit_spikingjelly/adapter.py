"""The adapter: neurons that keep their state until ``functional.reset_net``, stepped one by one or over a sequence."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from torch import Tensor, nn

from delaykit import HistoryError
from delaykit.adapters import (
    Attachment,
    FollowedNeuron,
    LIFDynamics,
    Neuron,
    NeuronAdapter,
    NeuronWatch,
    Spot,
    Synapse,
    Undo,
    follow_,
    wiring_of,
)
from delaykit_spikingjelly.dynamics import dynamics_of, leak_of
from delaykit_spikingjelly.layers import container_spots, frame_, keep_mode_, layer_spot
from delaykit_spikingjelly.neurons import LIBRARY, REFUSED, kind_of, memories_of


class FollowedNode(FollowedNeuron):
    """Mixin for a node that is followed: it must stay in the mode that it was wrapped in."""

    def forward(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the node in the mode that it was wrapped in."""
        watch = self._dk.watch
        assert watch is not None and isinstance(watch.adapter, SpikingJellyAdapter)
        wrapped, now = watch.adapter.mode, getattr(self, "step_mode", "m")
        if now != wrapped:
            raise HistoryError(
                type(self).__name__,
                f"step_mode={now!r}, but the model was wrapped with step_mode={wrapped!r}",
                "the mode of the example, by which delays count their steps",
                "dk.unwrap_(net), functional.set_step_mode(net, ...), then wrap with an example in that mode",
            )
        return super().forward(input_, *args, **kwargs)

    def functional_forward(self, *_: Any, **__: Any) -> Any:
        """Refuse a call with explicit states: the spikes under way are in none of them."""
        raise HistoryError(
            type(self).__name__,
            "a call with explicit states",
            "a call that goes on with the node's own state, as delays do",
            "call the node or the model itself; use base.to_functional_forward on the unwrapped model",
        )


class FollowedMemory(FollowedNode):
    """Mixin for a node with a state of its own: its resets are seen as they are made."""

    def reset(self) -> None:
        """Reset the node; delays that follow it begin anew."""
        super().reset()  # type: ignore[misc]
        wiring = wiring_of(self)  # type: ignore[arg-type]
        assert wiring is not None and wiring.watch is not None
        wiring.watch.forget()


class SpikingJellyAdapter(NeuronAdapter):
    """Knows SpikingJelly's activation-based neurons, layers and containers.

    Args:
        mode: step mode of the neuron that this adapter watches; None for one that watches none.

    Example:
        >>> import torch, delaykit as dk
        >>> from spikingjelly.activation_based import layer, neuron
        >>> net = torch.nn.Sequential(layer.Linear(3, 2), neuron.LIFNode(step_mode="m"))
        >>> print(dk.plan(net, {"0": dk.FreeDelay("axonal")}, example=torch.zeros(5, 1, 3)).sites[0].timing.policy)
        follow
    """

    name: ClassVar[str] = "spikingjelly"
    api: ClassVar[int] = 1
    fits: ClassVar[dict[str, str]] = {"leak": "IFNode, LIFNode, ParametricLIFNode and CUBALIFNode of SpikingJelly"}

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode
        self.containers: dict[int, nn.Module] = {}

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        if LIBRARY not in sys.modules:
            return [], None
        kind: Any = kind_of(module)
        if kind is not None:
            return self._inner_spots(path, module, kind), self._neuron(path, module, kind)
        spots = list(container_spots(path, module))
        self.containers |= {id(spot.module): module for spot in spots}
        if not spots and (spot := layer_spot(path, module)) is not None:
            spots = [spot]
        return spots, None

    def _neuron(self, path: str, module: Any, kind: str) -> Neuron:
        style = "step" if getattr(module, "step_mode", "m") == "s" else "sequence"
        return Neuron(path, module, self, style, True, goes_on=True, refusal=REFUSED.get(kind, ""))  # type: ignore[arg-type]

    def _inner_spots(self, path: str, module: nn.Module, kind: str) -> list[Spot]:
        inner = [(name, child) for name, child in module.named_modules() if isinstance(child, (nn.Linear, nn.Conv1d))]
        return [
            Spot(f"{path}.{name}".strip("."), "", child, 0, 0, owner=path, refusal=REFUSED.get(kind, _INNER))
            for name, child in inner
        ]

    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        undo = super().attach_(spot, synapse, attachment)
        container = self.containers.get(id(spot.module))
        if container is not None:
            return [*undo, *frame_(spot.module, container)]
        return [*undo, *keep_mode_(spot.module)] if hasattr(spot.module, "step_mode") else undo

    def watch_(self, module: nn.Module) -> tuple[NeuronWatch, list[Undo]]:
        mixin = FollowedMemory if hasattr(module, "reset") else FollowedNode
        return follow_(module, type(self)(getattr(module, "step_mode", "m")), mixin)

    def membrane(self, module: nn.Module, state: Any = None) -> Tensor | None:
        return next(iter(memories_of(module)), None)

    def held_state(self, module: nn.Module) -> list[Tensor]:
        return memories_of(module)

    def given_state(self, module: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
        return []  # a node is called with its input and nothing else

    def reset_(self, module: nn.Module) -> None:
        module.reset()  # type: ignore[operator]

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        return dynamics_of(module)

    def leak(self, module: nn.Module) -> Tensor | None:
        return leak_of(module)


_INNER = "it is a part of its neuron's equations; delay the connection before the neuron instead"
