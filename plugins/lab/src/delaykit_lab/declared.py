"""Values against the types that a dataclass declares for its fields: told by name, before anything is made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import delaykit as dk
from delaykit import checks

Kind = typing.TypeVar("Kind")


class Declared:
    """A dataclass whose values are checked against its annotations when it is made; inherit from it.

    Raises:
        ConfigError: a value is of another type, and the field is named.
    """

    def __post_init__(self) -> None:
        check_declared(type(self), vars(self), type(self).__name__)


def names_of(kind: type) -> list[str]:
    """List a dataclass's fields."""
    return [field.name for field in dataclasses.fields(kind)]


def take(kind: type[Kind], values: dict[str, Any]) -> Kind:
    """Make a dataclass of those ``values`` that are its fields, and take them out.

    Example:
        >>> from delaykit_lab.training.runner import FitConfig
        >>> values = {"epochs": 3, "task": "shd"}
        >>> take(FitConfig, values).epochs, values
        (3, {'task': 'shd'})
    """
    return kind(**{name: values.pop(name) for name in names_of(kind) if name in values})


def path_of(where: str, value: Any) -> Path:
    """Return a path.

    Raises:
        ConfigError: ``value`` is none.

    Example:
        >>> path_of("read_events path", None)
        Traceback (most recent call last):
        delaykit.errors.ConfigError: read_events path: found None; expected a path, of names of at most 255 bytes. ...
    """
    if checks.is_path(value) and all(len(os.fsencode(part)) <= 255 for part in Path(value).parts):
        return Path(value)
    raise dk.ConfigError(where, f"{value!r:.100}", "a path, of names of at most 255 bytes", "pass its name")


def plain(where: str, value: Any) -> Any:
    """Return a value as JSON holds it; numbers and arrays of numpy and torch become numbers and lists.

    Args:
        where: its name, for the error.
        value: numbers, words, lists, and values by name.

    Raises:
        ConfigError: something else, and where in the value.

    Example:
        >>> import torch
        >>> plain("record", {"accuracy": torch.tensor(0.5), "kept": (1, None)})
        {'accuracy': 0.5, 'kept': [1, None]}
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, (str, int)) for name in value):
            found = f"the names {', '.join(map(checks.shown, value)):.100}"
            raise dk.ConfigError(where, found, "words for names", "turn them into words")
        return {str(name): plain(f"{where} {name!r}", one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(f"{where} [{place}]", one) for place, one in enumerate(value)]
    if hasattr(value, "tolist"):
        with contextlib.suppress(Exception):  # one without values
            return plain(where, value.tolist())
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    found, expected = checks.shown(value), "what JSON holds: numbers, words, lists, values by name"
    raise dk.ConfigError(where, found, expected, "turn it into one of these")


def check_declared(kind: type, values: Mapping[str, Any], where: str = "") -> None:
    """Refuse a value that is not of its field's type; numbers may be numpy's.

    Args:
        kind: a dataclass.
        values: by field; names that are no field are not looked at.
        where: what errors name before the field.

    Raises:
        ConfigError: the field, what was found and what its type is.

    Example:
        >>> from delaykit_lab.training.config import Job
        >>> check_declared(Job, {"epochs": 2, "lr": 0.1})
        >>> check_declared(Job, {"epochs": True})
        Traceback (most recent call last):
        delaykit.errors.ConfigError: epochs: found True; expected a whole number. To go on: correct its value.
    """
    hints = _hints(kind)
    for field in dataclasses.fields(kind):
        value = values.get(field.name)
        if field.name in values and not (checks.fits(value, hints[field.name]) and _held(value)):
            found = f"{value!r:.100}"
            name = f"{where}.{field.name}" if where else field.name
            raise dk.ConfigError(name, found, checks.in_words(hints[field.name]), "correct its value")


def _held(value: Any) -> bool:
    """Tell whether floating point holds a whole number: what computes with it would fail."""
    if isinstance(value, (list, tuple)):
        return all(map(_held, value))
    return not isinstance(value, int) or abs(value) <= checks.LARGEST


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
