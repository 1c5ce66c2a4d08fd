"""Every error in the source says where, what was found, what was expected and how to go on: no part is left out."""

from __future__ import annotations

import ast
from pathlib import Path

from delaykit import errors

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("delaykit/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
TOLD = {
    name for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.DelaykitError) and kind is not errors.WrapError
}  # fmt: skip


def incomplete(tree):
    """List the lines that make an error of fewer than four parts, or of an empty one."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        parts = [*call.args, *(keyword.value for keyword in call.keywords)]
        if name in TOLD and not any(isinstance(part, ast.Starred) for part in parts):
            if len(parts) < 4 or any(isinstance(part, ast.Constant) and not part.value for part in parts):
                yield call.lineno


def test_no_part_of_an_error_is_left_out():
    found = {str(path.relative_to(ROOT)): list(incomplete(ast.parse(path.read_text()))) for path in FILES}
    assert FILES and {path: lines for path, lines in found.items() if lines} == {}


def test_what_is_left_out_is_found():
    wrong = ("ShapeError('a', 'b')", "dk.ConfigError('a', 'b', 'c')", "DataError('a', 'b', '', 'd')")
    assert all(list(incomplete(ast.parse(text))) == [1] for text in wrong)
    assert list(incomplete(ast.parse("ShapeError('a', 'b', 'c', 'd')"))) == []
