"""Answers held to annotations: what a class of somebody else returns is asked where it is given. Imports no torch.

Arguments of public calls are asked by ``annotations.py``; here it is the other way round. An interface says what its
methods return; a class that implements it is wrapped once, when it is defined, so that no caller can forget to look.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import numbers
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from delaykit.checks.annotations import UNIONS, in_words
from delaykit.checks.values import shown
from delaykit.errors import DelaykitError, PluginError

MEND = "mend this method of the adapter"
MEMORY = ("MemoryError", "OutOfMemoryError")  # errors that no method is to blame for, torch's own included
PAIR = 2


def answer_of(adapter: Any, method: str) -> str:
    """Name a method of an adapter as messages do.

    Args:
        adapter: the adapter, or any object that answers.
        method: name of the method.

    Example:
        >>> answer_of([], "sort")
        "adapter '', list.sort()"
    """
    return f"adapter {getattr(adapter, 'name', '')!r}, {type(adapter).__name__}.{method}()"


def _of_a_module(error: BaseException) -> bool:
    """Tell whether an error came out of a call of a module, whose input may be to blame."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "_call_impl" and "self" in code.co_varnames:
            return True
        trace = trace.tb_next
    return False


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A kind of class whose answers are held: how its methods are named, and what else is asked of them.

    Args:
        where: names a method of an object, as messages do.
        mend: how to go on.
        innocent: tells an error that is not the method's own, and stays what it is.
        unseen: tells that nobody can look now, as while a graph is traced.
        looks: by name of a method, ``look(object, answer)``, which raises for a wrong answer of the right kind.
    """

    where: Callable[[Any, str], str] = answer_of
    mend: str = MEND
    innocent: Callable[[BaseException], bool] = _of_a_module
    unseen: Callable[[], bool] = bool
    looks: Mapping[str, Callable[[Any, Any], None]] = dataclasses.field(default_factory=dict)


ADAPTER = Answerer()


def hold_answers_(cls: type, interface: type, answerer: Answerer = ADAPTER) -> None:
    """Hold what the methods of a class answer to what the annotations of an interface say.

    A wrong answer, and an error of the method's own, becomes a :class:`~delaykit.errors.PluginError` that names both;
    a :class:`~delaykit.errors.DelaykitError` stays what it is, with a note that names the method. What a module raises
    that an adapter's method calls is that module's.

    Args:
        cls: a class that was just defined; its methods are replaced.
        interface: it says by annotations what each method returns. Methods that return None, or Any, may return
            anything.
        answerer: how messages speak of it.
    """
    for name, kind in _kinds(interface).items():
        given = inspect.getattr_static(cls, name)
        abstract = getattr(given, "__isabstractmethod__", False)
        if given is not vars(interface)[name] and not hasattr(given, "held_to") and not abstract:
            setattr(cls, name, _held(name, given, kind, answerer))


@functools.cache
def _kinds(interface: type) -> dict[str, Any]:
    """Return what each public method of an interface returns."""
    methods = {name: m for name, m in vars(interface).items() if inspect.isfunction(m) and not name.startswith("_")}
    return {name: typing.get_type_hints(method).get("return", Any) for name, method in methods.items()}


def _held(name: str, given: Any, kind: Any, by: Answerer) -> Callable[..., Any]:
    function, free, records = _function(given), kind in (Any, type(None)), _records(kind)
    look, unseen = by.looks.get(name), by.unseen
    plain = tuple(one for one in (typing.get_args(kind) if typing.get_origin(kind) in UNIONS else (kind,))
                  if isinstance(one, type) and typing.get_origin(one) is None and not _hints(one))  # fmt: skip

    @functools.wraps(function)
    def held(self: Any, *args: Any, **kwargs: Any) -> Any:
        if unseen():
            return function(self, *args, **kwargs)
        try:
            answer = function(self, *args, **kwargs)
        except DelaykitError as error:
            _note(error, by.where(self, name))
            with blamed_on(self, name, records):
                raise error
        except Exception as error:
            if type(error).__name__ in MEMORY or by.innocent(error):
                raise
            found = f"{type(error).__name__}{_about(args)}: {error}"
            raise PluginError(by.where(self, name), found, _expected(kind), by.mend) from error
        if not free and not isinstance(answer, plain):
            wrong = misfit(answer, kind)
            if wrong is not None:
                raise PluginError(by.where(self, name), f"{wrong[0]}{_about(args)}", wrong[1], by.mend)
        if look is not None:
            look(self, answer)
        return answer

    held.held_to = kind  # type: ignore[attr-defined]
    return held


def _note(error: DelaykitError, method: str) -> None:
    """Say in a traceback out of which method an error came first; Python 3.10 knows no notes."""
    if hasattr(error, "add_note") and not getattr(error, "__notes__", None):
        error.add_note(f"raised in {method}")


def _records(kind: Any) -> frozenset[str]:
    """Return the names of the records that an answer is made of."""
    inside = frozenset(name for one in typing.get_args(kind) for name in _records(one))
    return inside | {kind.__name__} if isinstance(kind, type) and dataclasses.is_dataclass(kind) else inside


@contextlib.contextmanager
def blamed_on(adapter: Any, method: str, fields: Collection[str]) -> Iterator[None]:
    """Let errors about a record, or some fields of one, be those of the method that answered with it.

    Args:
        adapter: who answered.
        method: name of the method.
        fields: where such errors are, ``"LIFDynamics"`` or ``"LIFDynamics.surrogate"``.

    Raises:
        PluginError: in the block, a :class:`~delaykit.errors.DelaykitError` was raised about one of them.

    Example:
        >>> from delaykit.errors import ConfigError
        >>> with blamed_on([], "sort", ["Key"]):
        ...     raise ConfigError("Key.size", "3", "4")
        Traceback (most recent call last):
        delaykit.errors.PluginError: adapter '', list.sort(): found 3 as Key.size; expected 4. To go on: mend this ...
    """
    try:
        yield
    except DelaykitError as error:
        if error.where not in fields and error.where.partition(".")[0] not in fields:
            raise
        found = f"{error.found} as {error.where}"
        raise PluginError(answer_of(adapter, method), found, error.expected, MEND) from error


def _function(given: Any) -> Callable[..., Any]:
    """Return what is called with the object first, of a method of any sort."""
    if inspect.isfunction(given):
        return given

    def bound(self: Any, *args: Any, **kwargs: Any) -> Any:
        getter = getattr(type(given), "__get__", None)
        return (given if getter is None else getter(given, self, type(self)))(*args, **kwargs)

    return bound


def misfit(value: Any, kind: Any) -> tuple[str, str] | None:
    """Say what was found and what an annotation expects, of the first part of a value that is another; None: it fits.

    Unlike arguments, which may be any list, an answer may not be a generator, which can be read once; and a field of a
    record is looked at, too.

    Example:
        >>> misfit([1, "a"], list[int]), misfit(None, int | None), misfit(None, list[int])
        (("'a'", 'a whole number'), None, ('None', 'a list of whole numbers'))
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return None
    if origin in UNIONS:
        each = {one: misfit(value, one) for one in inside}
        nearest = [found for one, found in each.items() if isinstance(one, type) and isinstance(value, one)]
        return next(iter(nearest), None) if nearest or None in each.values() else (shown(value), in_words(kind))
    parts: list[tuple[Any, Any]] = []
    if origin is typing.Literal:
        fits = isinstance(value, str) and value in inside
    elif origin is tuple:
        fits = isinstance(value, tuple) and (Ellipsis in inside or len(value) == len(inside))
        parts = list(zip(value, inside, strict=False)) if fits and Ellipsis not in inside else []
    elif origin is list:
        fits = isinstance(value, list | tuple)
        parts = [(one, inside[0]) for one in value] if fits else []
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        fits = isinstance(value, Mapping)
        parts = [part for pair in value.items() for part in zip(pair, inside, strict=True)] if fits else []
    elif origin is collections.abc.Callable:
        fits = callable(value)
    elif kind in (int, float):
        fits = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    else:
        fits = not isinstance(kind, type) or isinstance(value, kind)
        if fits and dataclasses.is_dataclass(kind):
            return _field(value)
    if not fits:
        return shown(value), _expected(kind)
    return next((wrong for part in parts if (wrong := misfit(*part)) is not None), None)


def _field(record: Any) -> tuple[str, str] | None:
    """Return the first field of a record that is of another kind than it says."""
    cls: Any = type(record)
    for name, kind in _hints(cls).items():
        wrong = misfit(getattr(record, name), kind)
        if wrong is not None:
            return f"a {type(record).__name__} with {name}={wrong[0]}", wrong[1]
    return None


@functools.cache
def _hints(record: type) -> dict[str, Any]:
    """Return the kinds of a record's fields, where it asks for them to be looked at; others look at their own."""
    if not getattr(record, "fields_are_checked", False):
        return {}
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def _expected(kind: Any) -> str:
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and len(inside) == PAIR and Ellipsis not in inside:
        return f"a pair: {_expected(inside[0])}, and {_expected(inside[1])}"
    if typing.get_origin(kind) is list and isinstance(inside[0], type) and dataclasses.is_dataclass(inside[0]):
        return f"a list of {inside[0].__name__}s"
    return "an answer" if kind is Any else "no error" if kind is type(None) else in_words(kind)


def _about(args: tuple[Any, ...]) -> str:
    """Name the kind of the module that a method was asked about."""
    for given in args:
        module = given if hasattr(given, "named_modules") else getattr(given, "module", None)
        if hasattr(module, "named_modules"):
            return f" for a {type(module).__name__}"
    return ""
