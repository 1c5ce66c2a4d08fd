"""SpikingJelly's layers: what each of them computes, and the containers that merge time and batch before their layers.

In multi-step mode a convolution sees ``(time, batch, channel, *space)``; a ``SeqToANNContainer`` gives its layers
``(time * batch, ...)``, and a layer in it must learn from the container how to take the two apart again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import HistoryError
from delaykit.adapters import (
    CONVOLUTIONS,
    Product,
    Spot,
    Undo,
    give_class_,
    has_mixin,
    keep_,
    kept,
    original_class,
    product_of,
    retype_,
    wiring_of,
)
from delaykit_spikingjelly.neurons import LIBRARY

_TIME_LAST = "it maps over time, which stands last, one step without the others; use a container with time first"
_OWN_FORWARD = "its class has a forward of its own: put what that adds in a module before or behind the layer"


def layer_spot(path: str, module: Any) -> Spot | None:
    """Describe a module if it is one of SpikingJelly's Linear or convolution layers."""
    if not isinstance(module, (nn.Linear, *CONVOLUTIONS)) or not _is_of_the_library(module):
        return None
    time_dim = 0 if module.step_mode == "m" else None
    if isinstance(module, nn.Linear):
        product = _standardised_linear if hasattr(module, "get_weight") else None
        return Spot(path, "", module, module.in_features, module.out_features, time_dim=time_dim, product=product)
    known = original_class(module).forward.__module__.startswith(LIBRARY)
    return Spot(
        path, "", module, module.in_channels, module.out_channels, has_matrix=False, time_dim=time_dim,
        product=_standardised_convolution if hasattr(module, "get_weight") else _convolution,
        refusal="" if known else _OWN_FORWARD,
    )  # fmt: skip


def container_spots(path: str, container: nn.Module) -> Iterator[Spot]:
    """Describe the layers in a container that merges time and batch, or hides time from them."""
    from spikingjelly.activation_based import layer

    hides = isinstance(container, layer.TLastSeqToANNContainer)
    if not hides and not merges(container):
        return
    for name, child in container.named_modules():
        where, refusal = ".".join(part for part in (path, name) if part), _TIME_LAST if hides else ""
        if isinstance(child, nn.Linear):
            yield Spot(where, "", child, child.in_features, child.out_features, time_dim=0, refusal=refusal)
        elif isinstance(child, CONVOLUTIONS):
            found = layer_spot(where, child)
            product = None if found is None else found.product
            channels = child.in_channels, child.out_channels
            yield Spot(
                where, "", child, *channels, has_matrix=False, time_dim=0, product=product,
                refusal=refusal or ("" if found is None else found.refusal),
            )  # fmt: skip


def merges(container: Any) -> bool:
    """Tell whether a container flattens time and batch into one dimension before it calls its layers."""
    from spikingjelly.activation_based import layer

    if isinstance(container, layer.StepModeContainer):
        return container.step_mode == "m" and not container.stateful
    return isinstance(container, layer.SeqToANNContainer)


def _is_of_the_library(module: nn.Module) -> bool:
    return any(base.__module__.startswith(f"{LIBRARY}.layer.") for base in original_class(module).__mro__)


def _convolution(module: Any, forward: Callable[[Tensor], Tensor]) -> Product:
    """Describe a convolution by the forward of torch's own class, which takes a step as well as many side by side."""
    torch_class: Any = next(base for base in type(module).__mro__ if base in CONVOLUTIONS)
    return product_of(module, functools.partial(torch_class.forward, module))


def _standardised_linear(module: Any, forward: Callable[[Tensor], Tensor]) -> Product:
    weight, bias = module.get_weight(), module.bias
    linear = nn.functional.linear
    return Product(lambda x: linear(x, weight, bias), lambda x: linear(x, weight), weight, bias)


def _standardised_convolution(module: Any, forward: Callable[[Tensor], Tensor]) -> Product:
    weight, bias = module.get_weight(), module.bias
    conv = functools.partial(torch.conv2d, stride=module.stride, padding=module.padding)
    both = functools.partial(conv, dilation=module.dilation, groups=module.groups)
    return Product(lambda x: both(x, weight, bias), lambda x: both(x, weight), None, bias, 2)


class Frame:
    """How many steps and rows a container is running now; a copy or a pickle of it knows none."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Frame, ()


class FramingContainer:
    """Mixin for a container: tells the layers in it how time and batch were merged."""

    keeps_signature = True

    def forward(self, x_seq: Tensor) -> Any:
        """Run the container, its frame set."""
        frame: Frame = kept(self, "frame")  # type: ignore[arg-type]
        before, frame.shape = frame.shape, tuple(x_seq.shape[:2]) if merges(self) else None
        try:
            return super().forward(x_seq)  # type: ignore[misc]
        finally:
            frame.shape = before


class FramedConnection:
    """Mixin for a delayed layer in such a container: takes time and batch apart, and merges them again."""

    def forward(self, input: Tensor) -> Tensor:
        """Run the whole sequence through the synapse."""
        wiring, frame = wiring_of(self), kept(self, "frame")  # type: ignore[arg-type]
        assert wiring is not None
        attachment = wiring.sites[""]
        if attachment.off:
            return super().forward(input)  # type: ignore[misc]
        if frame.shape is None:
            raise HistoryError(
                attachment.where,
                "a call without a sequence",
                "calls by the container that it was wrapped in, in multi-step mode",
                "call the container, or unwrap and wrap the model as it runs now",
            )
        return super().forward(input.unflatten(0, frame.shape)).flatten(0, 1)  # type: ignore[misc]


class LayerInMode:
    """Mixin for a delayed layer of the library: it stays in the step mode that it was wrapped in."""

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer through the synapse, in its mode."""
        wiring, wrapped, now = wiring_of(self), kept(self, "mode"), self.step_mode  # type: ignore[arg-type, attr-defined]
        assert wiring is not None
        attachment = wiring.sites[""]
        if now != wrapped and not attachment.off:
            raise HistoryError(
                attachment.where,
                f"step_mode={now!r}, but the model was wrapped with step_mode={wrapped!r}",
                "the mode of the example, by which delays count their steps",
                "dk.unwrap_(net), functional.set_step_mode(net, ...), then wrap with an example in that mode",
            )
        return super().forward(input)  # type: ignore[misc]


def keep_mode_(module: nn.Module) -> list[Undo]:
    """Let a wrapped layer refuse another step mode; return how to take it back."""
    undo = [Undo(give_class_, (module, module.__class__))]
    retype_(module, LayerInMode)
    return [*undo, *keep_(module, "mode", module.step_mode)]


def frame_(module: nn.Module, container: nn.Module) -> list[Undo]:
    """Let a wrapped layer learn from its container how time and batch were merged; return how to take it back."""
    undo = []
    if not has_mixin(container, FramingContainer):
        undo.append(Undo(give_class_, (container, container.__class__)))
        retype_(container, FramingContainer)
        undo += keep_(container, "frame", Frame())
    undo.append(Undo(give_class_, (module, module.__class__)))
    retype_(module, FramedConnection)
    return [*undo, *keep_(module, "frame", kept(container, "frame"))]
