"""The invented library of docs/howto/write_an_adapter.md, its adapter and its networks, as the page has them."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write_an_adapter.md"


def load() -> types.ModuleType:
    """Run the page's blocks as one module, once."""
    if "pulse_page" not in sys.modules:
        page = types.ModuleType("pulse_page")
        sys.modules["pulse_page"] = page
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
            exec(compile(block, str(PAGE), "exec"), vars(page))
    return sys.modules["pulse_page"]
