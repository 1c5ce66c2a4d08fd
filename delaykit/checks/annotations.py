"""Arguments held to their annotations: what a signature says is asked before a call begins. Imports no torch.

Ranges are asked by the call itself, see ``values.py``. What cannot be judged from outside is let through: type
variables, protocols, and names that type checkers alone know.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from delaykit.checks.values import LARGEST, shown
from delaykit.errors import ConfigError, ShapeError

Call = TypeVar("Call", bound=Callable[..., Any])
PLAIN: dict[Any, str] = {
    type(None): "None", bool: "True or False", int: "a whole number", float: "a number", str: "a string",
    os.PathLike: "a path",
}  # fmt: skip
LISTS = (Sequence, collections.abc.Collection, collections.abc.Iterable, list, tuple)
UNIONS = (typing.Union, types.UnionType)


def annotated(call: Call) -> Call:
    """Refuse arguments of another kind than the signature of a function or a class says, before the call begins.

    Args:
        call: a function, or a class whose constructor is meant.

    Returns:
        The same, which raises :class:`~delaykit.errors.ConfigError`, for tensors :class:`~delaykit.errors.ShapeError`.

    Example:
        >>> @annotated
        ... def thin(count: int, share: float = 0.5) -> float:
        ...     return count * share
        >>> thin(4)
        2.0
        >>> thin("4")
        Traceback (most recent call last):
        delaykit.errors.ConfigError: thin count: found '4'; expected a whole number. To go on: correct count=.
    """
    if isinstance(call, type):
        call.__init__ = _held(call.__init__)  # type: ignore[misc]
        return call
    return _held(call)  # type: ignore[return-value]


def _held(function: Callable[..., Any]) -> Callable[..., Any]:
    kinds = functools.cache(lambda: _kinds(function))  # read at the first call: by then a module has all its names
    parameters, refuse = inspect.signature(function).parameters.values(), _refuse_others
    places = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]

    def checked(*values: Any, **named: Any) -> Any:
        refuse(function, kinds(), values, {**dict(zip(places, values, strict=False)), **named})
        return function(*values, **named)

    # In the namespace of the function's own module, where doctest looks for it; it refers to nothing in this one.
    home = inspect.unwrap(function).__globals__
    twin = types.FunctionType(checked.__code__, home, function.__name__, None, checked.__closure__)
    return functools.wraps(function)(twin)


def _refuse_others(
    function: Callable[..., Any], kinds: Mapping[str, Any], values: tuple[Any, ...], given: Mapping[str, Any]
) -> None:
    """Raise for the first of a wrong kind. Too many, too few, unknown: the call itself says it best."""
    for name, value in given.items():
        if name not in kinds or _evidently_fits(value, kinds[name]) or (fits(value, kinds[name]) and _is_sound(value)):
            continue
        where = type(values[0]).__name__ if function.__name__ == "__init__" else function.__qualname__
        error = ShapeError if kinds[name] is _torch("Tensor") else ConfigError
        raise error(f"{where} {name}", _found(value), in_words(kinds[name]), _fix(name, value, kinds[name]))


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what each argument may be; those that cannot be known at run time are left out."""
    torch = sys.modules.get("torch")
    names = {} if torch is None else {"torch": torch, "Tensor": torch.Tensor, "nn": torch.nn}
    names |= inspect.unwrap(function).__globals__  # of torch.no_grad, say
    kinds = {}
    for name, parameter in inspect.signature(function).parameters.items():
        one = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if one and parameter.annotation is not parameter.empty:
            holder = type(name, (), {"__annotations__": {name: parameter.annotation}})
            try:
                kinds[name] = typing.get_type_hints(holder, names)[name]
            except (NameError, TypeError, AttributeError):
                continue
    return kinds


def fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is what an annotation says, as far as can be seen; numbers may be numpy's.

    Args:
        value: what was given.
        kind: an annotation, evaluated.

    Example:
        >>> fits(2, int | None), fits(True, int), fits([1, 2], tuple[int, ...]), fits("ab", Sequence[str])
        (True, False, True, False)
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is None or kind is type(None):
        return value is None
    if origin in UNIONS:
        return any(fits(value, one) for one in inside)
    if origin is typing.Literal:
        return isinstance(value, str | int) and value in inside
    if kind in (int, float):
        return _is_number(value, kind)
    if origin is collections.abc.Callable or kind is collections.abc.Callable:
        return callable(value)
    if (origin or kind) in LISTS:
        return _is_list(value, origin or kind, inside)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items())
    try:
        return isinstance(value, origin or kind) and (kind is not _torch("Tensor") or _holds_numbers(value))
    except TypeError:  # a protocol, a type variable, Any
        return True


def _evidently_fits(value: Any, kind: Any) -> bool:
    """Tell what most calls hand over at once: losses are called for every batch. False says nothing."""
    given = type(value)
    if given is float:
        return kind is float and abs(value) <= LARGEST
    if given is int:
        return (kind is int or kind is float) and abs(value) < 2**63
    if kind is _torch("Tensor"):
        return isinstance(value, kind) and _holds_numbers(value)
    return given is kind and (given is bool or given is str)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)


def _is_sound(value: Any) -> bool:
    """Tell whether torch can hold the numbers in a value: neither NaN nor too large."""
    if isinstance(value, tuple | list):
        return all(map(_is_sound, value))
    if isinstance(value, numbers.Integral):
        return abs(int(value)) < 2**63
    if not isinstance(value, numbers.Real):
        return True
    try:
        real = float(value)
    except OverflowError:  # a fraction
        return False
    return math.isinf(real) or abs(real) <= LARGEST


def _is_list(value: Any, origin: Any, inside: tuple[Any, ...]) -> bool:
    if isinstance(value, str | bytes | Mapping | collections.abc.Set):
        return origin in LISTS[1:3] and not isinstance(value, str | bytes)
    try:
        items = value if origin is collections.abc.Iterable and not hasattr(value, "__len__") else list(value)
    except Exception:  # no list, or a tensor without dimensions or values
        return False
    if not isinstance(items, list) or not inside:
        return hasattr(items, "__iter__")
    if origin is tuple and Ellipsis not in inside:
        return len(items) == len(inside) and all(map(fits, items, inside))
    return all(fits(one, inside[0]) for one in items)


def _holds_numbers(tensor: Any) -> bool:
    return not (tensor.is_nested or tensor.is_meta or tensor.is_complex()) and tensor.layout is _torch("strided")


def _torch(name: str) -> Any:
    return getattr(sys.modules.get("torch"), name, None)


def in_words(kind: Any) -> str:
    """Say an annotation in words.

    Args:
        kind: an annotation, evaluated.

    Example:
        >>> in_words(int | None), in_words(Sequence[float])
        ('a whole number or None', 'a list of numbers')
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in UNIONS:
        words = list(dict.fromkeys(map(in_words, inside)))
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inside))}"
    if kind is Any:
        return "anything"
    if kind in PLAIN or origin in PLAIN:
        return PLAIN[kind if kind in PLAIN else origin]
    if origin is collections.abc.Callable or kind is collections.abc.Callable:
        return "a function"
    if origin is tuple and Ellipsis not in inside:
        return f"({', '.join(map(in_words, inside))})"
    if (origin or kind) in LISTS:
        if not inside or inside[0] is Any:
            return "a list"
        one = in_words(inside[0])
        return f"a list of {one.removeprefix('a ')}s" if inside[0] in PLAIN else f"a list, in it {one}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "values by name" if inside[1] is Any else f"values by name, each {in_words(inside[1])}"
    if kind is _torch("Tensor"):
        return "a dense tensor that holds real numbers"
    name = getattr(origin or kind, "__name__", str(kind))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _found(value: Any) -> str:
    torch = _torch("Tensor")
    if torch is not None and isinstance(value, torch):
        if value.is_nested or value.is_meta or value.layout is not _torch("strided"):
            how = "nested" if value.is_nested else "meta" if value.is_meta else "sparse"
            return f"a {how} tensor"
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"
    return shown(value)


def _fix(name: str, value: Any, kind: Any) -> str:
    if isinstance(value, type) and isinstance(kind, type) and issubclass(value, kind):
        return f"make one first, {value.__name__}(...)"
    return f"correct {name}="
