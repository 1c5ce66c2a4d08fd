"""Wrong calls of the delrec plugin: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told
from delaykit_delrec import DCLS, DelRec, discretization_gap, load_published_, read_published, spike_penalty

NAN = float("nan")
DELREC = {
    "granularity": ("axnal", 3, ["axonal"]),
    "max_delay": ("9", 0, -1.0, NAN, None, True),
    "sigma": ("1", -1.0, NAN),
    "rho": (0.0, 1.5, "1"),
    "learn_spread": (1, "yes"),
    "init": ("unifrom", 1e9, -1.0, NAN, [[1.0], [2.0, 3.0]]),
    "low": (-1.0, "0"),
    "high": (1e9, "9"),
    "scale": (0.0, "1"),
    "control": ("frozn",),
    "rounding": ("up",),
    "dropout": (1.0, -0.1, "half"),
    "normalize": (1,),
    "estimator": ("exakt",),
    "max_dealy": (3,),
}
DCLS_FIELDS = {
    "kernel_size": (4, 1, 2.5, "25", True),
    "version": ("guass",),
    "sigma": (0.0, "1", NAN),
    "sigma_end": (-1.0,),
    "anneal": (0.0, 2.0, "1"),
    "init": ("uniform ", -1.0, NAN),
    "granularity": ("axon",),
    "control": ("zero",),
    "estimator": (3,),
}
CALLS = {f"DelRec {k}={v!r}": lambda k=k, v=v: DelRec(**{k: v}) for k, values in DELREC.items() for v in values}
CALLS |= {f"DCLS {k}={v!r}": lambda k=k, v=v: DCLS(**{k: v}) for k, values in DCLS_FIELDS.items() for v in values}
CALLS |= {
    "DelRec without a name": lambda: DelRec("axonal", 25),
    "read_published missing": lambda: read_published("no/such/file.pt"),
    "read_published None": lambda: read_published(None),
    "read_published other": lambda: read_published({"fc.weight": torch.zeros(2, 2)}),
    "load_published_ bare": lambda: load_published_(nn.Linear(2, 2), None),
    "discretization_gap bare": lambda: discretization_gap(nn.Linear(2, 2), lambda net: 1.0),
    "spike_penalty": lambda: spike_penalty(torch.ones(3, 1, 2), -1.0),
    "spike_penalty word": lambda: spike_penalty(torch.ones(3, 1, 2), "strong"),
    "step of integers": lambda: dk.wrap_(
        nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(DelRec(), reset="manual")}
    )(torch.ones(1, 3).long()),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])
