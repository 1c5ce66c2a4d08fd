"""The plan of a wrapped model as JSON, and back: what a checkpoint says besides tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit import registry
from delaykit.attaching.clocks import POLICIES, Timing
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.interfaces import ComponentConfig, Site
from delaykit.planning import survey
from delaykit.planning.plan import Plan, SitePlan, loop_spot
from delaykit.planning.rules import Recurrent

MOST_CHANNELS, MOST_STREAMS = 2**24, 2**10  # a hostile file must not make us allocate
WRITTEN = "a checkpoint written by dk.save"


def to_json(entry: SitePlan) -> dict[str, Any]:
    """Write one site down: where, what, and how it lives in time."""
    components = [{"kind": c.kind, "name": c.name, "config": c.to_json()} for c in entry.configs]
    site, timing = entry.site, entry.timing
    out: dict[str, Any] = {"site": site.name, "pre": site.pre, "post": site.post, "neuron": site.neuron}
    out |= {"components": components, "follows": entry.follows, "drives": list(entry.drives)}
    out |= {"sources": list(entry.sources)}
    out |= {"reset": timing.policy, "time_dim": timing.time_dim, "streams": timing.streams, "asked": timing.asked}
    if entry.recurrent is not None:
        out["recurrent"] = {"neuron": entry.spot.path, "bias": entry.recurrent.bias}
    return out


def is_record(record: Any) -> bool:
    """Check one entry to the last value: whatever is in a file came from somebody else."""
    if not _is(record, dict):
        return False
    fits = _is(record.get("site"), str) and _is(record.get("components"), list)
    limits = {"pre": MOST_CHANNELS, "post": MOST_CHANNELS, "streams": MOST_STREAMS}
    fits = fits and all(_is(record.get(key), int) and 0 < record[key] <= most for key, most in limits.items())
    fits = fits and all(_is(record.get(key), str, type(None)) for key in ("neuron", "follows"))
    fits = fits and (record.get("reset") != "follow" or record["follows"] is not None)
    fits = fits and record.get("reset") in POLICIES and _is(record.get("time_dim"), int, type(None))
    fits = fits and _is(record.get("asked", False), bool)
    paths = [record.get(key, []) for key in ("drives", "sources")]
    fits = fits and all(_is(some, list) and all(_is(path, str) for path in some) for some in paths)
    parts = record["components"] if fits else []
    fits = fits and all(_is(c, dict) and _is(c.get("name"), str) and _is(c.get("config"), dict) for c in parts)
    fits = fits and all(c.get("kind") in ("delay", "heterogeneity", "pruning") for c in parts)
    new = record.get("recurrent", {"neuron": "", "bias": False})
    return fits and _is(new, dict) and _is(new.get("neuron"), str) and _is(new.get("bias"), bool)


def plan_from(net: nn.Module, records: list[dict[str, Any]], tensors: dict[str, Tensor], where: str) -> Plan:
    """Make the plan that the records tell of, for a bare model; no example is needed.

    Raises:
        DelaykitError: the model has no such connection or neuron, or a component is not installed.
    """
    problems = survey.refuse_model(net)
    if problems:
        raise problems[0]
    spots, neurons = survey.survey(net)
    entries = []
    for record in records:
        configs = tuple(_config(c, where) for c in record["components"])
        size, rule = (record["pre"], record["post"]), None
        if "recurrent" in record:
            path = record["recurrent"]["neuron"]
            if path not in neurons or size[0] != size[1]:
                raise CheckpointError(where, f"neuron {path!r} of {size[0]} x {size[1]}", "a neuron of this model")
            rule = Recurrent(
                *configs, weight=_loop_weight(path, size[0], tensors, where), bias=record["recurrent"]["bias"]
            )
            spot = loop_spot(neurons[path], size[0], spots)
        else:
            spot = next((s for s in spots if s.name == record["site"]), None)  # type: ignore[assignment]
            if spot is None or (spot.pre or size[0], spot.post or size[1]) != size:
                raise CheckpointError(
                    where, f"{record['site']!r} of {size[0]} -> {size[1]}", "a connection of this model"
                )
            survey.refuse_spot(spot)
        entries.append(_entry(record, spot, configs, rule, neurons, where))
    return Plan(tuple(entries), (), neurons)


def _entry(record: dict[str, Any], spot: Any, configs: Any, rule: Any, neurons: Any, where: str) -> SitePlan:
    neuron, follows = record["neuron"], record["follows"]
    drives, origins = tuple(record.get("drives", [])), tuple(record.get("sources", []))
    for path in (neuron, follows, *drives, *origins):
        if path is not None and path not in neurons:
            raise CheckpointError(
                where, f"neuron {path!r}", "a neuron of this model", "load into the model it was saved from"
            )
    if record["reset"] == "follow" and not neurons[follows].follows:
        raise CheckpointError(where, f"{record['site']!r} following {follows!r}", "a neuron that can be followed")
    dt_ms = neurons[neuron].dt_ms if neuron is not None else None
    name = record["site"]
    site = Site(name, record["pre"], record["post"], spot.has_matrix, spot.recurrent, neuron, dt_ms)
    timing = Timing(record["reset"], record["time_dim"], record["streams"], record.get("asked", False))
    return SitePlan(site, spot, configs, timing, follows, rule, drives, origins)


def _config(record: dict[str, Any], where: str) -> ComponentConfig:
    try:
        config = registry.resolve(record["kind"], record["name"])
    except DelaykitError as error:
        found = f"component {record['name']!r}, which is not installed"
        raise CheckpointError(where, found, error.expected, error.fix) from error
    try:
        return config.from_json(record["config"])  # type: ignore[attr-defined]
    except Exception as error:  # a plugin's config may raise anything on values it never wrote
        found = f"component {record['name']!r} with a config it does not take ({type(error).__name__}: {error})"
        raise CheckpointError(where, found, WRITTEN) from error


def _loop_weight(neuron: str, size: int, tensors: dict[str, Tensor], where: str) -> Tensor:
    prefix = f"{neuron}.dk.".lstrip(".")
    for key, value in tensors.items():
        if key.startswith(prefix) and key.endswith("connection.weight") and value.shape == (size, size):
            return value
    found = f"a recurrent connection of {size} neurons on {neuron!r} without its weight"
    raise CheckpointError(where, found, WRITTEN)


def _is(value: Any, *kinds: type) -> bool:
    return type(value) in kinds  # exactly: True is no size
