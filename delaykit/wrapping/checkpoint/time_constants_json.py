"""Neurons with learned time constants as JSON, and back: what a checkpoint says of them besides tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delaykit.attaching.adapter import Neuron
from delaykit.errors import CheckpointError
from delaykit.planning.time_constants import ConstantsPlan
from delaykit.time_constants import STATES, TimeConstants
from delaykit.wrapping.checkpoint.container import WRITTEN
from delaykit.wrapping.checkpoint.plan_json import MOST_CHANNELS, THE_MODEL, read_config

MOST_DIMENSIONS = 8


def constants_to_json(entry: ConstantsPlan) -> dict[str, Any]:
    """Write one state of one neuron down."""
    return {"neuron": entry.neuron.path, "shape": list(entry.shape), "config": entry.config.to_json()}


def check_constants(records: Any, where: str) -> None:
    """Refuse what :func:`constants_to_json` never writes, before anything is built from it.

    Raises:
        CheckpointError: a key is missing or of another type, a number out of range, a state named twice.
    """
    good = type(records) is list and all(_is_record(record) for record in records)
    if not good or len({(r["neuron"], r["config"]["state"]) for r in records}) < len(records):
        raise CheckpointError(where, "damaged entries of neurons", WRITTEN, "use an earlier checkpoint")


def check_same_constants(entries: Sequence[ConstantsPlan], records: list[dict[str, Any]], where: str) -> None:
    """Refuse records of other time constants than a model has; where a training begins plays no part.

    Raises:
        CheckpointError: another neuron, state or setting.
    """
    mine = {entry.name: (list(entry.shape), _settings(entry.config)) for entry in entries}
    theirs = {}
    for record in records:
        config = _config(record, where)
        name = ".".join(part for part in (record["neuron"], record["config"]["state"]) if part)
        theirs[name] = (record["shape"], _settings(config))
    if mine != theirs:
        differing = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
        found, expected = (
            ", ".join(f"{name}: {one[name] if name in one else 'none'}" for name in differing)[:300]
            for one in (theirs, mine)
        )
        fix = "wrap the model as it was wrapped when saved, or load into the bare model, which is then wrapped so"
        raise CheckpointError(where, f"time constants {found}", f"this model's {expected}", fix)


def constants_from(
    neurons: Mapping[str, Neuron], records: list[dict[str, Any]], where: str
) -> tuple[ConstantsPlan, ...]:
    """Make the entries of a plan that the records tell of.

    Raises:
        CheckpointError: the model has no such neuron, or one without such a decay.
    """
    entries = []
    for record in records:
        neuron = neurons.get(record["neuron"])
        config = _config(record, where)
        known = {} if neuron is None or neuron.adapter.learned is None else neuron.adapter.decays(neuron.module)
        if neuron is None or config.state not in known:
            found = f"a {config.state} decay of neuron {record['neuron']!r:.80}"
            raise CheckpointError(where, found, "a neuron of this model that has one", THE_MODEL)
        entries.append(ConstantsPlan(neuron, config, tuple(record["shape"])))
    return tuple(entries)


def _config(record: dict[str, Any], where: str) -> TimeConstants:
    config: Any = read_config(TimeConstants, {"name": TimeConstants.name, "config": record["config"]}, where)
    read: TimeConstants = config
    return read


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_json().items() if key not in config.initial}


def _is_record(record: Any) -> bool:
    if type(record) is not dict or type(record.get("neuron")) is not str or type(record.get("config")) is not dict:
        return False
    shape: Any = record.get("shape")
    fits = type(shape) is list and len(shape) <= MOST_DIMENSIONS
    fits = fits and all(type(size) is int and 0 < size <= MOST_CHANNELS for size in shape)
    return fits and record["config"].get("state") in STATES
