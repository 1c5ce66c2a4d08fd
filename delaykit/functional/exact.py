"""The former place of ``delaykit_spatial.exact``, whose names are found here, too, where that plugin is installed."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # asked of every module by those who look at modules
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("delaykit_spatial.exact"), name)
    except ModuleNotFoundError as error:
        if error.name != "delaykit_spatial":
            raise
        fix = f"`pip install delaykit-spatial`, then `from delaykit_spatial.exact import {name}`"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {fix}") from None
