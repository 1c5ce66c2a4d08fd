"""Junk for every argument of every public call: taken, or told in full."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
import delaykit_sparsify as sparsify
from delaykit.testing.junk import check_all_called, check_arguments, check_fields
from delaykit_sparsify import DelayPruning, DynamicSparsity, Sparsifier
from delaykit_sparsify.sparse import arrivals_of_response

SITE = dk.Site("fc", 3, 4)
APART = (  # what calls return, which nobody makes
    "SparseSynapses", "CompactDelay", "CompactLinear", "CompactReport", "Compacted", "Connectivity", "ParameterReport",
    "SiteParameters", "Turnover",
)  # fmt: skip


def net():
    rule = (dk.FreeDelay("synaptic"), DynamicSparsity(0.5))
    return dk.wrap_(nn.Sequential(nn.Linear(3, 4)), {"0": dk.At(*rule, reset="manual")})


def masks():
    return {"fc": torch.tensor([True, False])}


def arrivals():
    return arrivals_of_response(torch.rand(4, 3, 1))


CALLS = {
    "compact_": (lambda: {"net": net()}, "density"),
    "PrunedDelays": (lambda: {"config": DelayPruning(), "site": SITE}, "generator"),
    "connectivity": (lambda: {"net": net()}, "communities", "seed"),
    "kept_by_delay": (lambda: {"delays": torch.rand(4, 3), "kept": torch.rand(4, 3) > 0.5}, "bins", "largest"),
    "DynamicPruning": (lambda: {"config": DynamicSparsity(), "site": SITE}, "generator"),
    "masks": (lambda: {"net": net()},),
    "parameter_report": (lambda: {"net": net()}, "exclude"),
    "published_count": (lambda: {"inputs": 3, "hidden": 4}, "dimensions", "kept"),
    "turnover": (lambda: {"before": masks(), "after": masks()},),
    "sparse_filter": (lambda: {"spikes": torch.rand(4, 2, 3), "arrivals": arrivals()}, "bias"),
    "Sparsifier": (
        lambda: {"net": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "config": DynamicSparsity()}, "include",
        "exclude", "optimizer", "generator",
    ),
    "Sparsifier.step_": (lambda: {"progress": 0.5},),
    "connection_weights": (lambda: {"net": net()},),
}  # fmt: skip


def call_of(name):
    if name == "Sparsifier.step_":
        return Sparsifier(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), DynamicSparsity()).step_
    if name == "Sparsifier":  # what is made has to run, too
        return lambda **given: Sparsifier(**given).step_(0.5)
    return getattr(sparsify, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_of_a_call_raises_a_raw_error(name):
    assert check_arguments(call_of(name), *CALLS[name]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("config", [DelayPruning, DynamicSparsity])
def test_no_field_of_a_config_raises_a_raw_error(config):
    assert check_fields(config) > 0


def test_all_public_calls_are_tried():
    check_all_called(sparsify, CALLS, "DelayPruning", "DynamicSparsity", *APART)
