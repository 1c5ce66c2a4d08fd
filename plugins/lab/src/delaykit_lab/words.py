"""Words of the command line: nearest names, values, and ``name:value,option=value``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from delaykit import ConfigError


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of ``names``, or nothing.

    Example:
        >>> nearest("frozn", ["frozen", "none"])
        "; did you mean 'frozen'?"
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def value_of(word: str) -> Any:
    """Read a value: JSON where it is JSON (``3``, ``true``, ``null``, ``[1, 2]``), ``inf``, else the word itself.

    Example:
        >>> value_of("0.5"), value_of("true"), value_of("axonal")
        (0.5, True, 'axonal')
    """
    try:
        return json.loads(word)
    except ValueError:
        return float("inf") if word == "inf" else word


def options_of(where: str, words: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` words.

    Raises:
        ConfigError: a word without ``=``, or a name twice.

    Example:
        >>> options_of("--set", ["jitter=0.5", "path=data"])
        {'jitter': 0.5, 'path': 'data'}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ConfigError(where, repr(word), "name=value", "e.g. jitter=0.5")
        if name in found:
            raise ConfigError(where, f"{name!r} twice", "each name once", "leave one of them out")
        found[name] = value_of(value.strip())
    return found
