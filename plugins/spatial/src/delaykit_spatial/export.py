"""Positions for chip placement: CSV or JSON with units, and back."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import CheckpointError, ConfigError, DataError, checks
from delaykit.sealed import commit, read_file
from delaykit_spatial.config import NAME
from delaykit_spatial.geometry import name_of
from delaykit_spatial.report import SpatialLink, links, populations

FORMAT, AXES = "delaykit-positions 1", ("x", "y", "z")
WRITTEN = "a file written by export_positions"


@checks.annotated
@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the neurons of a net are.

    Args:
        positions: by population, ``(neuron, dims)`` in ``unit``, float64.
        unit: of the positions.
        velocity: by population, in ``unit`` per ms.
        connections: by name, what makes latencies of positions (JSON files only): ``pre``, ``post``, ``velocity``,
            ``dt_ms``, ``floor`` (in unit squared), ``tortuosity``, ``metric``.
    """

    positions: dict[str, Tensor]
    unit: str
    velocity: dict[str, float]
    connections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@checks.annotated
def export_positions(net: nn.Module, path: str | os.PathLike[str], unit: str = "ms") -> None:
    """Write the position of every neuron to a ``.csv`` or ``.json`` file.

    The CSV has one row a neuron: ``population, neuron, x, y, z, unit, velocity, velocity_unit`` (``x1 ... xD`` beyond
    three dimensions). The JSON also says how each connection makes latencies of positions.

    Args:
        net: a net with spatial connections.
        path: ends in ``.csv`` or ``.json``; written whole or not at all.
        unit: name of the length unit, e.g. ``um``; with velocity 1 positions are in ms.

    Raises:
        ConfigError: another ending, no positions, an unsafe unit, NaN positions, or a population whose connections
            have several velocities (CSV only).
        DataError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".json"):
        fix = "give the file such an ending"
        raise ConfigError("export_positions", f"file name {path.name!r}", "one that ends in .csv or .json", fix)
    if not NAME.fullmatch(unit):
        fix = "name the unit by letters and digits"
        raise ConfigError("export_positions unit", repr(unit), "a plain name such as ms or um", fix)
    found = links(net)
    places = {name: values.detach().double().cpu() for name, values in populations(net).items()}
    if not places:
        fix = "wrap with Spatial(dims=2)"
        raise ConfigError("export_positions", "no positions", "connections with 0 < dims < inf", fix)
    for name, values in places.items():
        if not bool(torch.isfinite(values).all()):
            fix = "reload the last checkpoint"
            raise ConfigError(f"export_positions, population {name!r}", "NaN or infinite positions", "finite ones", fix)
    text = _csv(places, found, unit) if path.suffix == ".csv" else _json(places, found, unit)
    if not path.parent.is_dir():
        raise DataError(str(path), "no such folder", "a file in a folder that exists", "make the folder")
    try:
        commit(path, text.encode())
    except CheckpointError as error:
        raise DataError(str(path), error.found, "a file in a folder with space", error.fix) from None


@checks.annotated
def read_positions(path: str | os.PathLike[str]) -> Placement:
    """Read what :func:`export_positions` wrote, or a table like it.

    Args:
        path: of the file.

    Raises:
        DataError: the file is missing, damaged, of another form, or holds NaN; it names the row.
    """
    path = Path(path)
    try:
        text = read_file(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"no readable file ({error})", WRITTEN, "check the path") from None
    return _read_json(path, text) if path.suffix == ".json" else _read_csv(path, text)


def _velocities(found: dict[str, SpatialLink], name: str) -> set[float]:
    return {float(link.delay.config.velocity) for link in found.values() if name in link.delay.positions()}


def _csv(places: dict[str, Tensor], found: dict[str, SpatialLink], unit: str) -> str:
    dims = max(values.shape[1] for values in places.values())
    axes = AXES[:dims] if dims <= len(AXES) else tuple(f"x{k + 1}" for k in range(dims))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["population", "neuron", *axes, "unit", "velocity", "velocity_unit"])
    for name, values in places.items():
        velocities = _velocities(found, name)
        if len(velocities) > 1:
            speeds = f"velocities {sorted(velocities)}"
            raise ConfigError(f"export_positions, population {name!r}", speeds, "one velocity", "write a .json file")
        for neuron, place in enumerate(values.tolist()):
            cells = [repr(x) for x in place] + [""] * (dims - len(place))
            writer.writerow([name, neuron, *cells, unit, repr(*velocities), f"{unit}/ms"])
    return out.getvalue()


def _json(places: dict[str, Tensor], found: dict[str, SpatialLink], unit: str) -> str:
    connections = {}
    for name, link in found.items():
        config, delay = link.delay.config, link.delay
        connections[name] = {
            "pre": delay.pre, "post": delay.post, "recurrent": delay.recurrent, "velocity": config.velocity,
            "dt_ms": delay.dt_ms, "floor": config.floor, "tortuosity": config.tortuosity,
            "metric": name_of(config.metric) or repr(config.metric),
        }  # fmt: skip
    table = {
        name: {"dims": values.shape[1], "velocity": sorted(_velocities(found, name)), "positions": values.tolist()}
        for name, values in places.items()
    }
    units = {"positions": unit, "velocity": f"{unit}/ms", "floor": f"{unit}^2", "dt_ms": "ms"}
    return json.dumps({"format": FORMAT, "units": units, "populations": table, "connections": connections}, indent=1)


def _read_json(path: Path, text: str) -> Placement:
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        table = content["populations"]
        positions = {str(name): _table(path, name, entry["positions"]) for name, entry in table.items()}
        velocity = {str(name): _speed(entry["velocity"][0]) for name, entry in table.items()}
        connections = content["connections"]
        if not isinstance(connections, dict) or not all(isinstance(one, dict) for one in connections.values()):
            raise ValueError("connections that are no tables by name")
        return Placement(positions, str(content["units"]["positions"]), velocity, connections)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        fix = "name a file that export_positions wrote"
        found = f"a damaged or foreign file ({type(error).__name__}: {error})"
        raise DataError(str(path), found, WRITTEN, fix) from None


def _read_csv(path: Path, text: str) -> Placement:
    fix = "name a file that export_positions wrote"
    try:
        reader = csv.DictReader(io.StringIO(text))
        rows, names = list(reader), list(reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(str(path), f"a table that cannot be read ({error})", WRITTEN, fix) from None
    axes = _axes(names)
    if not rows or not {"population", "neuron", "unit", "velocity"} <= set(names) or not axes:
        raise DataError(str(path), "no table with population, neuron, x, unit and velocity", WRITTEN, fix)
    if len(set(names)) < len(names):
        raise DataError(str(path), "a column that is named twice", WRITTEN, fix)
    places: dict[str, list[list[float]]] = {}
    velocity: dict[str, float] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if None in row or None in row.values():
            raise DataError(where, "more or fewer cells than columns", f"{len(names)} cells", "correct the file")
        known = places.setdefault(row["population"], [])
        try:
            place = [float(row[axis]) for axis in axes if row[axis] not in ("", None)]
            speed, neuron = _speed(row["velocity"]), int(row["neuron"])
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(where, f"{error}", "numbers", "correct the file, or export anew") from None
        if neuron != len(known) or row["unit"] != rows[0]["unit"]:
            found = f"neuron {neuron} of {row['population']!r} in {row['unit']!r}"
            raise DataError(where, found, f"neuron {len(known)} in {rows[0]['unit']!r}", "keep the rows' order")
        known.append(place)
        velocity[row["population"]] = speed
    tables = {name: _table(path, name, values) for name, values in places.items()}
    return Placement(tables, rows[0]["unit"], velocity)


def _axes(names: list[str]) -> tuple[str, ...]:
    """Return the columns of coordinates in their order, whatever theirs is in the file; none where one is missing."""
    for axes in (AXES, tuple(f"x{k + 1}" for k in range(len(names)))):
        there = tuple(axis for axis in axes if axis in names)
        if there and there == axes[: len(there)]:
            return there
    return ()


def _speed(value: Any) -> float:
    speed = float(value)
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"velocity {speed}, which is no finite number > 0")
    return speed


def _table(path: Path, name: Any, values: Any) -> Tensor:
    try:
        table = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        fix = "correct the file, or export anew"
        raise DataError(f"{path}, population {name!r}", f"{error}", "one row of numbers a neuron", fix) from None
    if table.ndim != 2 or not table.numel() or not math.isfinite(float(table.abs().sum())):
        found = f"a table of shape {tuple(table.shape)}" if table.ndim != 2 else "no, NaN or infinite positions"
        fix = "correct the file, or export anew"
        raise DataError(f"{path}, population {name!r}", found, "finite positions (neuron, dims)", fix)
    return table
