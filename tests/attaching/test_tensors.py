"""Tensors in nested values, found as torch's own tree functions find them."""

from __future__ import annotations

from collections import OrderedDict, deque, namedtuple

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from delaykit.attaching.batch.tensors import tensors_in, with_tensors

Pair = namedtuple("Pair", "v i")
A, B, C = torch.zeros(1), torch.ones(2), torch.full((3,), 2.0)
VALUES = [
    A,
    None,
    3,
    (A, [B, {"c": C, "d": 1}]),
    Pair(A, Pair(B, None)),
    OrderedDict(b=B, a=[A]),
    deque([A, (B,)]),
    (),
    {},
    (torch.float32, torch.device("cpu"), slice(1, 2), [A, A]),
    torch.nn.Linear(1, 1),
    [torch.Size([1, 2]), B],
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: type(values).__name__)
def test_tensors_are_those_of_the_tree_in_its_order(values) -> None:
    tree = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    assert list(map(id, tensors_in(values))) == list(map(id, tree))


@pytest.mark.parametrize("values", VALUES, ids=lambda values: type(values).__name__)
def test_each_is_replaced_in_its_place_and_containers_stay_what_they_are(values) -> None:
    def twice(tensor):
        return tensor.tolist() * 2

    expected = tree_map(lambda leaf: twice(leaf) if isinstance(leaf, torch.Tensor) else leaf, values)
    found = with_tensors(twice, values)
    assert found == expected and type(found) is type(expected)
