"""Values against the types that a dataclass declares for its fields: told by name, before anything is made of them."""

from __future__ import annotations

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import delaykit as dk

Kind = typing.TypeVar("Kind")
WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", Path: "a path"}


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
        delaykit.errors.ConfigError: read_events path: found None; expected a path. To go on: pass its name.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise dk.ConfigError(where, f"{value!r:.100}", "a path", "pass its name")
    return Path(value)


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
        if field.name in values and not _fits(values[field.name], hints[field.name]):
            found = f"{values[field.name]!r:.100}"
            name = f"{where}.{field.name}" if where else field.name
            raise dk.ConfigError(name, found, _words(hints[field.name]), "correct its value")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        of = inner[0] if len(inner) == 2 and inner[1] is ... else Any
        return isinstance(value, (tuple, list)) and all(_fits(one, of) for one in value)
    if origin is not None:
        mapping = issubclass(origin, Mapping)
        return isinstance(value, origin) and (not mapping or all(isinstance(key, str) for key in value))
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, Real)
    return isinstance(value, Integral if hint is int else hint)


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin is tuple:
        return f"a list of {_words(inner[0]).removeprefix('a ')}s"
    if origin is not None:
        return "values by name"
    return "nothing" if hint is type(None) else WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
