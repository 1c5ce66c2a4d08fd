"""Whether a connection computes the product of its input and its weight, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.retyping import original_class


def has_own_forward(module: nn.Module) -> bool:
    """Tell whether a Linear is of a class with a forward of its own."""
    return isinstance(module, nn.Linear) and original_class(module).forward is not nn.Linear.forward


def is_product(module: Any, output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether what a module returned is the product of its input and its weight, with its bias."""
    inputs = tensors_in((args, kwargs))
    if len(inputs) != 1 or not isinstance(output, Tensor):
        return False
    product = nn.functional.linear(inputs[0], module.weight, module.bias)
    return product.shape == output.shape and torch.allclose(product, output, rtol=1e-4, atol=1e-6, equal_nan=True)


def stays_product(module: Any, base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether it computes its product in training, too, and of inputs at which little else would be zero."""
    modes = {part: part.training for part in module.modules()}

    def dense(leaf: Any) -> Any:
        return torch.linspace(-1, 2, leaf.numel()).to(leaf).reshape(leaf.shape) if isinstance(leaf, Tensor) else leaf

    args, kwargs = tree_map(dense, (args, kwargs))
    try:
        for training in (False, True):
            module.train(training)
            if not is_product(module, base(*args, **kwargs), args, kwargs):
                return False
    finally:
        for part, mode in modes.items():
            part.training = mode
    return True
