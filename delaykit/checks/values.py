"""Values in their range: numbers, one of a few words, True or False, a model. Imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from delaykit.errors import ConfigError
from delaykit.names import nearest

LONG, LARGE = 10_000, 2**30  # steps, and bytes, beyond which a line or a part tells of a slip
LARGEST = 3e38  # what float32 holds


def shown(value: Any) -> str:
    """Return a value as a message has it: short, a model by its kind.

    Args:
        value: what was given, of any kind.

    Example:
        >>> shown("axnal"), shown(range(3)), len(shown([0.0] * 1000))
        ("'axnal'", 'range(0, 3)', 200)
    """
    if hasattr(value, "named_modules"):
        return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    try:
        return f"{value!r:.200}"
    except Exception:  # a number of too many digits, a tensor without values, somebody else's __repr__
        return f"a {type(value).__name__}"


def number(
    where: str, value: Any, *, above: float | None = None, least: float | None = None, below: float | None = None,
    most: float | None = None, what: str = "number", fix: str = "",
) -> None:  # fmt: skip
    """Refuse what is not a finite number in its range, or too large for torch.

    Args:
        where: name of the field, e.g. ``FreeDelay.max_delay``.
        value: what was given.
        above: it must be larger than this.
        least: it must not be smaller than this.
        below: it must be smaller than this.
        most: it must not be larger than this.
        what: what the number is, e.g. ``number of ms`` or ``probability``.
        fix: how to go on.

    Raises:
        ConfigError: another type, NaN, infinite, or out of range.

    Example:
        >>> number("FreeDelay.spread_decay", 1.5, above=0, most=1)
        Traceback (most recent call last):
        delaykit.errors.ConfigError: FreeDelay.spread_decay: found 1.5; expected a number in (0, 1]. To go on: ...
    """
    real = isinstance(value, (int, float)) and not isinstance(value, bool) and _fits(value)
    low = (above is None or real and value > above) and (least is None or real and value >= least)
    high = (below is None or real and value < below) and (most is None or real and value <= most)
    if real and low and high:
        return
    fix = fix or f"correct {_field(where)}"
    bottom, top = (next((x for x in pair if x is not None), None) for pair in ((above, least), (below, most)))
    if bottom is not None and top is not None:
        inside = f"{'[' if above is None else '('}{bottom:g}, {top:g}{']' if below is None else ')'}"
        raise ConfigError(where, shown(value), f"a {what} in {inside}", fix)
    side = "" if bottom is None else f" {'>=' if above is None else '>'} {bottom:g}"
    side += "" if top is None else f" {'<=' if below is None else '<'} {top:g}"
    raise ConfigError(where, shown(value), f"a finite {what}{side}", fix)


def whole(where: str, value: Any, *, least: int = 0, what: str = "whole number", fix: str = "") -> None:
    """Refuse what is not a whole number, ``least`` or more.

    Args:
        where: name of the field.
        value: what was given.
        least: it must not be smaller than this.
        what: what the number is, e.g. ``number of steps``.
        fix: how to go on.

    Raises:
        ConfigError: another type, or a smaller number.

    Example:
        >>> whole("Motif.depth", 0, least=1)
        Traceback (most recent call last):
        delaykit.errors.ConfigError: Motif.depth: found 0; expected a whole number >= 1. To go on: correct depth.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least or not _fits(value):
        raise ConfigError(where, shown(value), f"a {what} >= {least}", fix or f"correct {_field(where)}")


def affordable(where: str, count: int, each: int, what: str, fix: str) -> None:
    """Refuse a count that would take more memory than anybody meant, such as samples taken for steps.

    Args:
        where: name of the field.
        count: how many.
        each: values that one of them takes.
        what: what they are, e.g. ``delays``.
        fix: how to go on.

    Raises:
        ConfigError: they are many, and would take more than a gibibyte.

    Example:
        >>> affordable("fc1 (motif)", 1_000_000, 4096, "delays", "lower depth=")
        Traceback (most recent call last):
        delaykit.errors.ConfigError: fc1 (motif): found 1000000 delays, which would take 15.3 GiB; ...
    """
    size = 4 * count * each
    if count > LONG and size > LARGE:
        found = f"{count} {what}, which would take {size / 2**30:.1f} GiB"
        raise ConfigError(where, found, f"at most {LONG} {what}, or {LARGE / 2**30:g} GiB", fix)


def choice(where: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a word that is none of ``choices``.

    Args:
        where: name of the field, e.g. ``FreeDelay.kernel``.
        value: what was given.
        choices: the words that there are.

    Raises:
        ConfigError: another word, or no word.

    Example:
        >>> choice("FreeDelay.kernel", "box", ("linear", "hard"))
        Traceback (most recent call last):
        delaykit.errors.ConfigError: FreeDelay.kernel: found 'box'; expected one of linear, hard. To go on: ...
    """
    if not isinstance(value, str) or value not in choices:
        near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
        fix = f"did you mean {near[0]!r}?" if near else f"correct {_field(where)}"
        raise ConfigError(where, shown(value), f"one of {', '.join(choices)}", fix)


def flag(where: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Args:
        where: name of the field.
        value: what was given.

    Raises:
        ConfigError: anything else, 0 and 1 included.

    Example:
        >>> flag("FreeDelay.learn", 1)
        Traceback (most recent call last):
        delaykit.errors.ConfigError: FreeDelay.learn: found 1; expected True or False. To go on: correct learn.
    """
    if not isinstance(value, bool):
        raise ConfigError(where, shown(value), "True or False", f"correct {_field(where)}")


def known(where: str, named: Iterable[str], names: Sequence[str]) -> None:
    """Refuse arguments of other names, with the nearest name that there is.

    Args:
        where: what was called.
        named: the names that it was called with.
        names: those that it takes.

    Raises:
        ConfigError: one of them is another.

    Example:
        >>> known("At", {"rest": "auto"}, ("reset", "time_dim"))
        Traceback (most recent call last):
        delaykit.errors.ConfigError: At: found 'rest'; did you mean 'reset'?; expected a field among reset, ...
    """
    unknown = [name for name in named if name not in names]
    if unknown:
        found = f"{unknown[0]!r}{nearest(unknown[0], names)}"
        raise ConfigError(where, found, f"a field among {', '.join(names)}", f"correct {unknown[0]}")


def fields_taken(cls: type, values: Sequence[Any], named: Iterable[str]) -> None:
    """Refuse arguments that the fields of a dataclass do not take; what is none yet takes any.

    Args:
        cls: the dataclass.
        values: arguments without a name.
        named: names of the others.

    Raises:
        ConfigError: too many values, or one of another name.

    Example:
        >>> from delaykit import Target
        >>> fields_taken(Target, (), ("maximal",))
        Traceback (most recent call last):
        delaykit.errors.ConfigError: Target: found 'maximal'...
    """
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    places = [field.name for field in fields if field.init and not field.kw_only]
    names = [field.name for field in fields if field.init]
    if fields and len(values) > len(places):
        found = f"{len(values)} values without a name"
        fix = f"name them, e.g. {cls.__name__}(..., {names[len(places)]}=...)" if len(names) > len(places) else ""
        raise ConfigError(cls.__name__, found, f"at most {places} without a name", fix or "leave the last out")
    if fields:
        known(cls.__name__, named, names)


def is_model(where: str, net: Any) -> None:
    """Refuse what is not a model, such as arguments in another order.

    Args:
        where: what was called, and which argument.
        net: what was given.

    Raises:
        ConfigError: it is no ``torch.nn.Module``.

    Example:
        >>> is_model("status", None)
        Traceback (most recent call last):
        delaykit.errors.ConfigError: status: found a NoneType; expected a torch.nn.Module. To go on: pass the model ...
    """
    if isinstance(net, type):
        fix = f"make one first, {net.__name__}(...)"
        raise ConfigError(where, f"the class {net.__name__}", "a torch.nn.Module", fix)
    if not (hasattr(net, "named_modules") and hasattr(net, "state_dict")):
        raise ConfigError(where, f"a {type(net).__name__}", "a torch.nn.Module", "pass the model where it belongs")


def is_path(value: Any) -> bool:
    r"""Tell whether a value can name a file or a folder.

    Args:
        value: what was given.

    Example:
        >>> is_path("run/delays"), is_path(3), is_path("a\0b"), is_path("\ud800")
        (True, False, False, False)
    """
    try:
        name = os.fspath(value)
        return isinstance(name, str) and b"\0" not in os.fsencode(name)
    except (TypeError, UnicodeEncodeError):  # no path, or half a character
        return False


def _fits(value: float) -> bool:
    """Tell whether torch can hold a number: finite, and a whole one in 64 bits."""
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value) and abs(value) <= LARGEST


def _field(where: str) -> str:
    return where.rpartition(".")[2].rpartition(" ")[2]
