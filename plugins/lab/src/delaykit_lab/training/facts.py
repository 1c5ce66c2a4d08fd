"""What a run is made of besides its settings: the components of its net and its optimizer, as JSON values.

A state that was saved with others is refused; where a component's parameters begin plays no part, nor do learning
rates, which schedules change.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

import delaykit as dk
from delaykit import CheckpointError
from delaykit.time_constants import NeuronDecays
from delaykit_lab.methods import is_wrapped

HOW = ("lr", "foreach", "fused", "capturable", "differentiable")  # of an optimizer: how fast, and by which code


def facts_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Describe a net and its optimizer.

    Returns:
        By ``component NAME`` what each site has, and ``optimizer``.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> facts_of(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))["optimizer"]["momentum"]
        0.9
    """
    found: dict[str, Any] = {}
    for site in dk.wrapped_sites(net) if is_wrapped(net) else ():
        found[f"components of {site.name}"] = [_told(config) for config in site.synapse.configs]
    for part in (module for module in net.modules() if isinstance(module, NeuronDecays)):
        found[f"{part.config.state} of {part.where}"] = _told(part.config)
    own = getattr(optimizer, "optimizer", optimizer)  # in accelerate's
    options = {name: value for name, value in own.defaults.items() if name not in HOW}
    found["optimizer"] = {"class": type(own).__name__, **options}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=repr))
    return plain


def _told(config: Any) -> dict[str, Any]:
    values = config.to_json()
    return {"name": config.name, **{name: values[name] for name in values if name not in config.initial}}


def check_facts(saved: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Refuse a state of other components or of another optimizer; what only one of the two tells is not compared.

    Raises:
        CheckpointError: with what differs in both.
    """
    for name in sorted(saved.keys() & now.keys()):
        one, other = saved[name], now[name]
        if isinstance(one, dict) and isinstance(other, dict):  # later versions of torch have more options
            one, other = ({key: values[key] for key in one.keys() & other.keys()} for values in (one, other))
        if one != other:
            fix = "build and wrap it as it was, or use another output folder"
            raise CheckpointError(where, f"{name}: {_short(one, other)}", f"{_short(other, one)}, as now", fix)
    lost = {name for name in saved.keys() ^ now.keys() if name != "optimizer" and " of " in name}
    if saved and lost:
        found = f"{', '.join(sorted(lost & saved.keys())) or 'no such part'}"
        expected = f"{', '.join(sorted(lost & now.keys())) or 'no such part'}, as now"
        raise CheckpointError(where, found, expected, "build and wrap it as it was, or use another output folder")


def _short(values: Any, others: Any) -> str:
    """Leave out what is equal."""
    if isinstance(values, list) and isinstance(others, list) and len(values) == len(others):
        return "; ".join(_short(*pair) for pair in zip(values, others, strict=True) if pair[0] != pair[1])
    if isinstance(values, dict) and isinstance(others, dict) and values.get("name") == others.get("name"):
        return ", ".join(f"{key}={values[key]!r:.80}" for key in values if values[key] != others.get(key, values))
    return f"{values!r:.200}"
