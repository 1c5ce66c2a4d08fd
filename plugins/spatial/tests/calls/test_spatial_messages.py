"""Wrong calls of the spatial plugin: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told
from delaykit_spatial import (
    LIF,
    Spatial,
    channel_order,
    communities,
    export_positions,
    kept_by_latency,
    populations,
    read_positions,
    register_metric,
    share_positions_,
)
from delaykit_spatial.exact import ExactLIF, exact_arrivals, exact_rollout

NAN, X = float("nan"), torch.ones(4, 1, 2)
FIELDS = {
    "dims": (-1, 2.5, "two", None, True, NAN),
    "pre": ("", "a\nb", 3),
    "post": ("*", ["a"]),
    "velocity": (0.0, "1", NAN),
    "dt_ms": (0.0, "1"),
    "floor": (-1.0, "0"),
    "tortuosity": (-1.0, NAN),
    "metric": ("manhatten", 3),
    "init": ("cicle", [[1.0]], [["a", "b"]], NAN),
    "scale": (-1.0, "20"),
    "mean": (NAN, "8"),
    "max_ms": (0.0, -5.0, "1"),
    "learn": (1,),
    "self_connections": ("no",),
    "estimator": ("exakt", ["exact"]),
    "dimensions": (2,),
}
CALLS = {f"Spatial {k}={v!r}": lambda k=k, v=v: Spatial(**{k: v}) for k, values in FIELDS.items() for v in values}
CALLS |= {
    "without a name": lambda: Spatial(2, "input"),
    "register_metric name": lambda: register_metric(3, lambda post, pre: 0),
    "register_metric taken": lambda: register_metric("euclidean", lambda post, pre: 0),
    "export_positions bare": lambda: export_positions(nn.Linear(2, 2), "positions.csv"),
    "read_positions missing": lambda: read_positions("no/such/positions.csv"),
    "populations None": lambda: populations(None),
    "share_positions_ None": lambda: share_positions_(None),
    "kept_by_latency width": lambda: kept_by_latency(torch.rand(2, 2), torch.ones(2, 2), width_ms=0.0),
    "communities": lambda: communities(torch.rand(2, 3)),
    "channel_order": lambda: channel_order(torch.rand(3)),
    "exact_arrivals integers": lambda: exact_arrivals(X.long(), None, torch.eye(2), torch.zeros(1, 1), 2.0),
    "exact_arrivals meta": lambda: exact_arrivals(X.to("meta"), None, torch.eye(2), torch.zeros(1, 1), 2.0),
    "exact_arrivals delay": lambda: exact_arrivals(X, None, torch.eye(2), torch.full((1, 1), -1.0), 2.0),
    "exact_arrivals clock": lambda: exact_arrivals(X, X, torch.eye(2), torch.zeros(1, 1), 2.0),
    "LIF": lambda: LIF(2, 2, Spatial(2), tau_syn=-1.0),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_told(CALLS[case])


DRIVES = {"list": [[1.0]], "integers": X.long(), "meta": X.to("meta"), "flat": X[0], "None": None}


@pytest.mark.parametrize("drive", DRIVES)
def test_a_wrong_drive_of_a_rollout_is_told_in_full(drive):
    check_told(lambda: exact_rollout(DRIVES[drive], None, ExactLIF(10.0, 2.0)))


def test_a_wrong_step_is_told_in_full():
    net = dk.wrap_(nn.Sequential(nn.Linear(2, 2)), {"0": dk.At(Spatial(2), reset="manual")})
    for x in (torch.ones(1, 3), torch.ones(1, 2).long(), torch.ones(1, 2, device="meta"), [1.0]):
        check_told(lambda x=x: net(x))
