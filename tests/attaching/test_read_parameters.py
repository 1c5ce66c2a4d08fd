"""What a segment has read of its parameters is compared with what they are: by values, whatever kind they are of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit.attaching.history.parameters import MANY, ReadParameter

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]


def read(values):
    store = {"taps": nn.Parameter(values, requires_grad=False)}
    return store, ReadParameter(store, "taps", store["taps"])


@pytest.mark.parametrize("size", [1, 4097, MANY + 1])
@pytest.mark.parametrize("dtype", KINDS)
def test_the_last_number_tells(dtype, size):
    store, entry = read(torch.zeros(size, dtype=dtype))
    assert not entry.changed()
    with torch.no_grad():
        store["taps"][-1] = 1
    assert entry.changed()


@pytest.mark.parametrize("size", [0, 1, 4097])
def test_another_parameter_of_the_same_values_is_the_same(size):
    store, entry = read(torch.ones(size))
    store["taps"] = nn.Parameter(torch.ones(size))
    assert not entry.changed()
    store["taps"] = nn.Parameter(torch.ones(size + 1))
    assert entry.changed()
    del store["taps"]
    assert entry.changed()


@pytest.mark.parametrize("size", [1, 4097, MANY + 1])
def test_what_is_no_number_has_not_changed(size):
    assert not read(torch.full((size,), float("nan")))[1].changed()


@pytest.mark.parametrize("size", [1, MANY, MANY + 1, 3 * MANY])
def test_what_is_written_to_all_of_them_without_a_trace_is_seen(size):
    store, entry = read(torch.ones(size))
    store["taps"].data.mul_(1.0)
    assert not entry.changed()
    store["taps"].data = store["taps"].data.clone()  # other memory, the same values
    assert not entry.changed()
    store["taps"].data.mul_(1.5)
    assert entry.changed()
    store, entry = read(torch.ones(size))
    store["taps"].data.mul_(1.5)
    assert entry.changed()
