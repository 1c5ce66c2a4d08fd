"""Wrong calls of the sparsify plugin: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told
from delaykit_sparsify import (
    DelayPruning,
    DynamicSparsity,
    Sparsifier,
    compact_,
    connectivity,
    masks,
    parameter_report,
    published_count,
    sparse_filter,
    turnover,
)
from delaykit_sparsify.sparse import arrivals_of_response

NAN, SPIKES = float("nan"), torch.ones(4, 1, 2)
SPARSITY = {
    "sparsity": (1.0, -0.1, "0.9", NAN, None),
    "scope": ("layer", None),
    "schedule": ("sudden",),
    "ramp": (0.0, 2.0, "1"),
    "regrow": ("never",),
    "drop": (0.0, 1.0, "1"),
    "moments": ("forget",),
    "loses": ("spikes",),
    "sparcity": (0.5,),
}
KEPT = {"kept": (-1.0, 1.5, "half", NAN), "by": ("luck",), "ramp": (-1.0, "1")}
CALLS = {
    f"DynamicSparsity {k}={v!r}": lambda k=k, v=v: DynamicSparsity(**{k: v}) for k, vs in SPARSITY.items() for v in vs
}
CALLS |= {f"DelayPruning {k}={v!r}": lambda k=k, v=v: DelayPruning(**{k: v}) for k, vs in KEPT.items() for v in vs}
ARRIVALS = arrivals_of_response(torch.eye(2).unsqueeze(-1))
CALLS |= {
    "without a name": lambda: DynamicSparsity(0.9, "matrix"),
    "sparse_filter list": lambda: sparse_filter([[1.0]], ARRIVALS),
    "sparse_filter integers": lambda: sparse_filter(SPIKES.long(), ARRIVALS),
    "sparse_filter meta": lambda: sparse_filter(SPIKES.to("meta"), ARRIVALS),
    "sparse_filter width": lambda: sparse_filter(torch.ones(4, 1, 3), ARRIVALS),
    "sparse_filter gradient": lambda: sparse_filter(SPIKES.clone().requires_grad_(), ARRIVALS),
    "compact_ None": lambda: compact_(None),
    "compact_ density": lambda: compact_(nn.Linear(2, 2), density=2.0),
    "masks None": lambda: masks(None),
    "connectivity None": lambda: connectivity(None),
    "parameter_report None": lambda: parameter_report(None),
    "published_count": lambda: published_count(-1, 2),
    "turnover": lambda: turnover({"a": torch.ones(2)}, {"b": torch.ones(2)}),
    "turnover shapes": lambda: turnover({"a": torch.ones(2)}, {"a": torch.ones(3)}),
    "Sparsifier": lambda: Sparsifier(None, DynamicSparsity(0.5)),
    "a convolution": lambda: dk.advance_(nn.Conv1d(2, 2, 1), 0.5),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])
