"""Write ``delaykit/official.json``, what is said of plugins that are not installed, from the plugins of this tree.

    python tests/packaging/official_plugins.py

A plugin says it in its entry module: the classes of its components, the names in ``DELAYKIT_NAMES`` to begin with
besides these, and in ``DELAYKIT_PAPER`` what to cite for it where no component has a paper.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "delaykit" / "official.json"
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))


def said_by(plugin: str) -> dict[str, Any]:
    """Gather what one plugin says of itself."""
    entry = importlib.import_module(f"delaykit_{plugin}.plugin")
    records = list(entry.delaykit_components())
    classes = [record.config.rpartition(":")[2] for record in records]
    said: dict[str, Any] = {
        "components": sorted(record.name for record in records),
        "names": [*classes, *getattr(entry, "DELAYKIT_NAMES", ())],
    }
    return said | ({"paper": entry.DELAYKIT_PAPER} if hasattr(entry, "DELAYKIT_PAPER") else {})


if __name__ == "__main__":
    FILE.write_text(json.dumps({plugin: said_by(plugin) for plugin in PLUGINS}, indent=1, ensure_ascii=False) + "\n")
