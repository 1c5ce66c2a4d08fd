"""The package ``nir``, or a sentence that says what to install."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from delaykit.errors import ConfigError


def nir_package() -> Any:
    """Return the package ``nir``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        fix = "pip install 'delaykit[nir]'"
        raise ConfigError("delaykit.nir", f"no package nir ({error})", "nir 1.0.8 or newer", fix) from None
    package: ModuleType = nir
    return package
