"""The invented library of docs/howto/write_an_adapter.md, its adapter and its networks, as the page has them."""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write_an_adapter.md"


def load() -> types.ModuleType:
    """Define what the page's blocks define as one module, once; ``tests/docs`` runs them as they are."""
    if "pulse_page" not in sys.modules:
        page = types.ModuleType("pulse_page")
        sys.modules["pulse_page"] = page
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
            body = [node for node in ast.parse(block).body if not isinstance(node, (ast.With, ast.Expr))]
            exec(compile(ast.Module(body, []), str(PAGE), "exec"), vars(page))
    return sys.modules["pulse_page"]
