"""The floor: the dense products alone, over the whole sequence; and with streams of memory.

A layer's membranes and spikes have to be written, and read by the backward pass: ``streams`` passes every current twice
through memory, forward and backward, which costs what the machine's bandwidth allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measure import Way
from torch import Tensor
from work import Work

PACKAGES: list[str] = []


def ways(work: Work, tensors: dict[str, Tensor]) -> Iterator[Way]:
    """One product a layer, its weight's gradient, and the gradient of the input of every layer that has one."""
    recurs = work.kind == "recurrent"
    names = ["recurrent"] if recurs else [f"weight{k}" for k in range(len(work.sizes) - 1)]
    weights = [tensors[name].clone().requires_grad_() for name in names]

    def over(layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            x = x.detach().requires_grad_(recurs)
            for weight in weights:
                x = layer(x @ weight.t())
            return x

        return run

    yield Way("products", over(lambda current: current), weights, "")
    yield Way("products and streams", over(lambda current: (current * 2.0) * 0.5), weights, "")
