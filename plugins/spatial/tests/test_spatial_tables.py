"""Tables of positions that others wrote: read by the names of their columns, or refused."""

from __future__ import annotations

import json

import pytest

import delaykit as dk
from delaykit.testing.messages import check_told
from delaykit_spatial import read_positions

HEAD, ROW = "population,neuron,{},unit,velocity", "a,{},{},ms,1.0"


def read(folder, columns, *rows):
    lines = [HEAD.format(columns), *(ROW.format(number, row) for number, row in enumerate(rows))]
    (folder / "places.csv").write_text("\n".join([*lines, ""]))
    return read_positions(folder / "places.csv")


@pytest.mark.parametrize(("columns", "row"), [("x,y", "1,2"), ("y,x", "2,1"), ("x1,x2", "1,2"), ("x2,x1", "2,1")])
def test_columns_are_known_by_their_names(tmp_path, columns, row):
    assert read(tmp_path, columns, row).positions["a"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("columns", "row"), [
    ("x,x", "1,2"), ("xylophone", "1"), ("y", "1"), ("x2", "1"), ("x", "1,2"), ("x,y", "1"), ("x", f"1{'0' * 400}"),
    ("x", "nan"),
])  # fmt: skip
def test_other_tables_are_refused(tmp_path, columns, row):
    assert isinstance(check_told(lambda: read(tmp_path, columns, row)), dk.DataError)


@pytest.mark.parametrize("change", [
    {"connections": ["ab"]}, {"connections": {"a": 3}}, {"populations": {"a": {"velocity": [10**400]}}},
    {"populations": {"a": {"velocity": [1.0], "positions": [[10**400]]}}}, {"format": 3},
])  # fmt: skip
def test_other_json_is_refused(tmp_path, change):
    table = {"a": {"dims": 1, "velocity": [1.0], "positions": [[0.5]]}}
    content = {"format": "delaykit-positions 1", "units": {"positions": "ms"}, "populations": table, "connections": {}}
    path = tmp_path / "places.json"
    path.write_text(json.dumps(content))
    assert read_positions(path).positions["a"].tolist() == [[0.5]]
    path.write_text(json.dumps(content | change))
    assert isinstance(check_told(lambda: read_positions(path)), dk.DataError)


@pytest.mark.parametrize("path", [None, 3, "a\0b", "a\ud800"])
def test_no_path_is_told(path):
    check_told(lambda: read_positions(path))
