"""Wrong calls, graded: an error says where, what was found, what was expected and how to go on, or it is a fault."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Gaussian, Triangle
from delaykit.testing.messages import check_told

snn = pytest.importorskip("snntorch", reason="rolls a neuron out")


def net():
    return dk.wrap_(nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})


def optimizer():
    return torch.optim.SGD(net().parameters(), lr=0.1)


def entered(manager):
    with manager:
        pass


NO_MODEL = (None, [1], "net", 3)
CONFIG = {
    "granularity": ("axnal", 3, None, ["axonal"]),
    "max_delay": ("9", 0, -1.0, float("nan"), float("inf"), None, [25], True),
    "low": ("0", -1.0, float("nan")),
    "high": ("9", -1.0, 1e9),
    "scale": ("1", 0, float("nan")),
    "learn": (1, None, "yes"),
    "kernel": ("box", None, {"a": 1}),
    "spread": ("1", -1.0, float("nan"), 2.0),
    "spread_decay": (0.0, 1.5, "1"),
    "rounding": ("up", None),
    "estimator": ("exakt", 3),
    "init": ("unifrom", {"a": 1}, 1e9, -1.0, float("nan")),
}
CALLS = {f"FreeDelay {k}={v!r}": lambda k=k, v=v: dk.FreeDelay(**{k: v}) for k, vs in CONFIG.items() for v in vs}
CALLS |= {
    "FreeDelay without a name": lambda: dk.FreeDelay("axonal", 25),
    "FreeDelay of another field": lambda: dk.FreeDelay(max_dealy=25),
    "At reset": lambda: dk.At(dk.FreeDelay(), reset=3),
    "At reset list": lambda: dk.At(dk.FreeDelay(), reset=["root"]),
    "At time_dim": lambda: dk.At(dk.FreeDelay(), time_dim="0"),
    "At component": lambda: dk.At(3),
    "param_groups lr": lambda: dk.param_groups(net(), lr="big"),
    "param_groups lr negative": lambda: dk.param_groups(net(), lr=-1.0),
    "param_groups delay_lr": lambda: dk.param_groups(net(), lr=0.1, delay_lr=float("nan")),
    "attach swapped": lambda: dk.attach(net(), optimizer()),
    "rollout list": lambda: dk.rollout(snn.Leaky(beta=0.9), [1, 2]),
    "rollout no neuron": lambda: dk.rollout([1, 2], torch.zeros(3, 1, 2)),
}
CALLS |= {f"advance_ {value!r}": lambda value=value: dk.advance_(net(), value) for value in
          ("half", None, 1.5, -0.1, float("nan"), True)}  # fmt: skip
CALLS |= {f"{act.__name__} {value!r}": lambda act=act, value=value: act(value) for value in NO_MODEL
          for act in (dk.status, dk.reset, dk.detach, dk.unwrap_, dk.wrapped_sites)}  # fmt: skip
CALLS |= {f"{act.__name__} {value!r}": lambda act=act, value=value: entered(act(value)) for value in NO_MODEL
          for act in (dk.disabled, dk.discretized)}  # fmt: skip
CALLS |= {f"{act.__name__} {value!r}": lambda act=act, value=value: act(value, "x") for value in NO_MODEL
          for act in (dk.save, dk.load)}  # fmt: skip
CALLS |= {f"wrap_ {value!r}": lambda value=value: dk.wrap_(value, {"0": dk.FreeDelay()}) for value in NO_MODEL}


CALLS |= {f"{kind.__name__} {value!r}": lambda kind=kind, value=value: kind(value) for value in ("x", None, [1.0], True)
          for kind in (Triangle, Gaussian)}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])


def test_a_misspelt_field_is_answered_with_the_nearest():
    with pytest.raises(dk.errors.ConfigError, match="did you mean 'max_delay'"):
        dk.FreeDelay(max_dealy=25)
