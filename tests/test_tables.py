"""Tables as plain text."""

from __future__ import annotations

import pytest

from delaykit.tables import text_table

ROWS = [["net", "size", "note"], ["small", "12", ""], ["x", "1234", "ok"]]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() -> None:
    assert text_table(ROWS) == "net    size  note\nsmall  12\nx      1234  ok"
    assert text_table(ROWS, right=True) == "net    size  note\nsmall    12\nx      1234    ok"


def test_rows_of_other_lengths_are_no_table() -> None:
    with pytest.raises(ValueError):
        text_table([["a", "b"], ["c"]])
