"""What was public once can be imported.

A name that has to go leaves ``public_names.json`` when its warning has been out for a minor version.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

PUBLIC = json.loads((Path(__file__).parent / "public_names.json").read_text(encoding="utf-8"))  # by package


@pytest.mark.parametrize("package", PUBLIC)
def test_names_that_were_public_can_be_imported(package: str) -> None:
    if package.startswith("delaykit_"):
        pytest.importorskip(package.partition(".")[0], reason="is a distribution of its own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(f"from {package} import {', '.join(PUBLIC[package])}", {})


def test_the_list_is_of_all_distributions() -> None:
    plugins = {path.name for path in Path(__file__).parents[2].glob("plugins/*/src/delaykit_*")}
    assert {"delaykit", "delaykit.functional", "delaykit.testing", "delaykit.kernels", *plugins} <= set(PUBLIC)
