"""The plan of a wrapped model as JSON, and back: what a checkpoint says besides tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit.attaching.clocks import LAYOUTS, POLICIES, Timing
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.interfaces import ComponentConfig, Site
from delaykit.planning import survey
from delaykit.planning.plan import Plan, SitePlan, fan_in_of, loop_spot
from delaykit.planning.rules import Recurrent
from delaykit.plugins import registry
from delaykit.wrapping.checkpoint.container import WRITTEN

MOST_CHANNELS, MOST_STREAMS = 2**24, 2**10  # a hostile file must not make us allocate
REQUIRED = ("site", "pre", "post", "neuron", "follows", "components", "reset", "time_dim", "streams")
THE_MODEL = "load into the model that it was saved from"


def to_json(entry: SitePlan) -> dict[str, Any]:
    """Write one site down: where, what, and how it lives in time."""
    components = [{"kind": c.kind, "name": c.name, "config": c.to_json()} for c in entry.configs]
    site, timing = entry.site, entry.timing
    out: dict[str, Any] = {"site": site.name, "pre": site.pre, "post": site.post, "neuron": site.neuron}
    out |= {"components": components, "follows": entry.follows, "drives": list(entry.drives)}
    out |= {"sources": list(entry.sources), "beats": dict(entry.beats)}
    out |= {"reset": timing.policy, "time_dim": timing.time_dim, "streams": timing.streams, "asked": timing.asked}
    out |= {"rows": timing.rows} if timing.rows != "same" else {}
    if entry.recurrent is not None:
        out["recurrent"] = {"neuron": entry.spot.path, "bias": entry.recurrent.bias}
    return out


def is_record(record: Any) -> bool:
    """Check one entry to the last value: whatever is in a file came from somebody else."""
    if not _is(record, dict) or any(key not in record for key in REQUIRED):
        return False
    fits = _is(record.get("site"), str) and _is(record.get("components"), list)
    limits = {"pre": MOST_CHANNELS, "post": MOST_CHANNELS, "streams": MOST_STREAMS}
    fits = fits and all(_is(record.get(key), int) and 0 < record[key] <= most for key, most in limits.items())
    fits = fits and all(_is(record.get(key), str, type(None)) for key in ("neuron", "follows"))
    fits = fits and (record.get("reset") != "follow" or record["follows"] is not None)
    fits = fits and record.get("reset") in POLICIES and _is(record.get("time_dim"), int, type(None))
    fits = fits and _is(record.get("asked", False), bool) and record.get("rows", "same") in LAYOUTS
    paths = [record.get(key, []) for key in ("drives", "sources")]
    fits = fits and all(_is(some, list) and all(_is(path, str) for path in some) for some in paths)
    beats = record.get("beats", {})
    fits = fits and _is(beats, dict) and all(_is(path, str) for path in beats)
    fits = fits and all(_is(each, int) and 0 <= each <= MOST_STREAMS for each in beats.values())
    parts = record["components"] if fits else []
    fits = fits and all(_is(c, dict) and _is(c.get("name"), str) and _is(c.get("config"), dict) for c in parts)
    fits = fits and all(c.get("kind") in ("delay", "heterogeneity", "pruning") for c in parts)
    new = record.get("recurrent", {"neuron": "", "bias": False})
    return fits and _is(new, dict) and _is(new.get("neuron"), str) and _is(new.get("bias"), bool)


def check_records(records: Any, where: str) -> None:
    """Refuse a list of sites that :func:`to_json` never writes, before anything is built from it.

    Raises:
        CheckpointError: a key is missing or of another type, a number out of range, a site named twice.
    """
    if not _is(records, list) or not records or not all(is_record(record) for record in records):
        raise CheckpointError(where, "damaged entries", WRITTEN, "use an earlier checkpoint")
    if len({record["site"] for record in records}) < len(records):
        raise CheckpointError(where, "a site that is named twice", WRITTEN, "use an earlier checkpoint")


def check_same(plans: list[Any], records: list[dict[str, Any]], where: str) -> None:
    """Refuse records of other components than a model is wrapped with; where a training begins plays no part.

    Args:
        plans: of the wrapped model.
        records: of the checkpoint.
        where: name for messages.

    Raises:
        CheckpointError: another site, component or setting; both are named.
    """
    entries = {entry.site.name: entry for plan in plans for entry in plan}
    given = {record["site"]: record for record in records}
    fix = "wrap the model as it was wrapped when saved, or load into the bare model, which is then wrapped so"
    if set(entries) != set(given):
        found = f"sites {', '.join(map(repr, sorted(given)))[:300]}"
        raise CheckpointError(where, found, f"this model's {', '.join(map(repr, sorted(entries)))[:300]}", fix)
    for name, record in given.items():
        entry = entries[name]
        sizes = (record["pre"], record["post"]), (entry.site.pre, entry.site.post)
        if sizes[0] != sizes[1]:
            raise CheckpointError(where, f"{name!r} of {sizes[0]}", f"(pre, post) = {sizes[1]}", THE_MODEL)
        kept = [c for c in entry.configs if c.kind != "pruning" or _has_pruning(record)]
        if len(kept) != len(record["components"]):
            found = f"{name!r} with {[c['name'] for c in record['components']]}"
            raise CheckpointError(where, found, f"{[c.name for c in entry.configs]} as in this model", fix)
        for one, other in zip(record["components"], kept, strict=True):
            difference = _difference(one, other, where)
            if difference:
                found = f"{name!r} with {one['name']} {difference[0]}"
                raise CheckpointError(where, found, f"{other.name} {difference[1]} as in this model", fix)


def _has_pruning(record: dict[str, Any]) -> bool:
    """Tell whether the checkpoint prunes a site; if not, a model that does begins its pruning anew."""
    return any(component["kind"] == "pruning" for component in record["components"])


def _difference(record: dict[str, Any], config: ComponentConfig, where: str) -> tuple[str, str] | None:
    """Return what a component says in a checkpoint and in a model, where that is not the same."""
    if (record["kind"], record["name"]) != (config.kind, config.name):
        return "", ""
    one, other = read_config(type(config), record, where).to_json(), config.to_json()
    differing = [key for key in other if one.get(key) != other[key] and key not in config.initial]
    if not differing:
        return None
    told = ({key: values.get(key) for key in differing} for values in (one, other))
    first, second = (", ".join(f"{key}={value!r:.80}" for key, value in values.items()) for values in told)
    return f"({first})", f"({second})"


def plan_from(net: nn.Module, records: list[dict[str, Any]], tensors: dict[str, Tensor], where: str) -> Plan:
    """Make the plan that the records tell of, for a bare model; no example is needed.

    Raises:
        DelaykitError: the model has no such connection or neuron, or a component is not installed.
    """
    problems = survey.refuse_model(net)
    if problems:
        raise problems[0]
    spots, neurons = survey.survey(net)
    by_name = {spot.name: spot for spot in spots}
    entries = []
    for record in records:
        configs = tuple(_config(c, where) for c in record["components"])
        size, rule = (record["pre"], record["post"]), None
        if "recurrent" in record:
            path = record["recurrent"]["neuron"]
            if path not in neurons or size[0] != size[1]:
                found = f"neuron {path!r:.80} of {size[0]} x {size[1]}"
                raise CheckpointError(where, found, "a neuron of this model", THE_MODEL)
            rule = Recurrent(
                *configs, weight=_loop_weight(path, size[0], tensors, where), bias=record["recurrent"]["bias"]
            )
            spot = loop_spot(neurons[path], size[0], spots)
        else:
            known = by_name.get(record["site"])
            if known is None or (known.pre or size[0], known.post or size[1]) != size:
                found = f"{record['site']!r:.80} of {size[0]} -> {size[1]}"
                raise CheckpointError(where, found, "a connection of this model", THE_MODEL)
            spot = known
            survey.refuse_spot(spot)
        if spot.name != record["site"]:
            found = f"{record['site']!r:.80} for the recurrent connection {spot.name!r}"
            raise CheckpointError(where, found, WRITTEN, THE_MODEL)
        entries.append(_entry(record, spot, configs, rule, neurons, where))
    return Plan(tuple(entries), (), neurons)


def _entry(record: dict[str, Any], spot: Any, configs: Any, rule: Any, neurons: Any, where: str) -> SitePlan:
    neuron, follows = record["neuron"], record["follows"]
    drives, origins = tuple(record.get("drives", [])), tuple(record.get("sources", []))
    beats = record.get("beats", {})
    for path in (neuron, follows, *drives, *origins, *beats):
        if path is not None and path not in neurons:
            raise CheckpointError(where, f"neuron {path!r:.80}", "a neuron of this model", THE_MODEL)
    if record["reset"] == "follow" and not neurons[follows].follows:
        found = f"{record['site']!r} following {follows!r}"
        raise CheckpointError(where, found, "a neuron that can be followed", THE_MODEL)
    if (record["reset"] == "carried") != spot.carried and (record["reset"] == "carried" or spot.owner is not None):
        found = f"{record['site']!r} with reset={record['reset']!r}"
        expected = "'carried' where, and only where, the caller's state carries the history"
        raise CheckpointError(where, found, expected, THE_MODEL)
    dt_ms = neurons[neuron].dt_ms if neuron is not None else None
    name = record["site"]
    sizes = record["pre"], record["post"]
    site = Site(name, *sizes, spot.has_matrix, spot.recurrent, neuron, dt_ms, fan_in_of(spot))
    asked, rows = record.get("asked", False), record.get("rows", "same")
    timing = Timing(record["reset"], record["time_dim"], record["streams"], asked, rows)
    return SitePlan(site, spot, configs, timing, follows, rule, drives, origins, tuple(beats.items()))


def _config(record: dict[str, Any], where: str) -> ComponentConfig:
    try:
        config = registry.resolve(record["kind"], record["name"])
    except DelaykitError as error:
        found = f"component {record['name']!r:.80}, which is not installed"
        raise CheckpointError(where, found, error.expected, error.fix) from error
    return read_config(config, record, where)


def read_config(config: Any, record: dict[str, Any], where: str) -> ComponentConfig:
    """Make a config of its record; whatever it raises is told as damage."""
    try:
        read: ComponentConfig = config.from_json(record["config"])
        return read
    except Exception as error:  # a plugin's config may raise anything on values it never wrote
        found = f"component {record['name']!r} with a config it does not take ({type(error).__name__}: {error!s:.300})"
        raise CheckpointError(where, found, WRITTEN, "install the version of its plugin that wrote it") from error


def _loop_weight(neuron: str, size: int, tensors: dict[str, Tensor], where: str) -> Tensor:
    prefix = f"{neuron}.dk.".lstrip(".")
    for key, value in tensors.items():
        if key.startswith(prefix) and key.endswith("connection.weight") and value.shape == (size, size):
            return value
    found = f"a recurrent connection of {size} neurons on {neuron!r} without its weight"
    raise CheckpointError(where, found, WRITTEN, "use an earlier checkpoint")


def _is(value: Any, *kinds: type) -> bool:
    return type(value) in kinds  # exactly: True is no size
