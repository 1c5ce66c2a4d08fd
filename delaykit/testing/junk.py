"""Values of every wrong kind, for each argument of a call: taken, or told in full, and never a raw error."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from delaykit.errors import DelaykitError
from delaykit.testing.messages import check_full


def junk() -> list[Any]:
    """Make values that somebody may pass where another was meant."""
    return [
        "", "x", "é" * 300, b"x", None, True, 0, -1, 3, 10**30, 10**400, 0.0, -1.0, 2.5, 1e300, math.nan, math.inf, 1j,
        [], (), {}, [1], ["a"], [[1.0]], [[[1]]], [math.nan], (1, 2), {"a": 1}, {1}, range(3), object(), int, len,
        np.float64(2.0), np.ones(2), np.array(["a", "b"]), torch.tensor(1.0), torch.ones(3), torch.ones(2, 3) > 0,
        torch.ones(2, device="meta"), torch.eye(2).to_sparse(), torch.ones(2) * 1j, torch.float64, nn.Linear(2, 2),
        nn.Linear, torch.device("cpu"), ".", "/proc/no/such",
    ]  # fmt: skip


def check_arguments(call: Callable[..., Any], base: Callable[[], Mapping[str, Any]], *more: str) -> int:
    """Call something with junk for one argument after the other.

    Args:
        call: what is called with named arguments; a context manager that it returns is entered.
        base: makes a sound set of arguments, anew each time.
        *more: arguments that ``base`` leaves out.

    Returns:
        How many calls were refused.

    Raises:
        AssertionError: an error of another kind than delaykit's, or one that leaves out a part.

    Example:
        >>> import delaykit as dk
        >>> check_arguments(dk.FreeDelay, lambda: {"max_delay": 7.0}) > 30
        True
    """
    refused = 0
    for name in [*base(), *more]:
        for value in junk():
            told = f"{name}={_short(value)}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = call(**{**base(), name: value})
                    if hasattr(made, "__enter__") and not isinstance(made, nn.Module):
                        with made:
                            pass
            except DelaykitError as error:
                refused += 1
                try:
                    check_full(error)
                except AssertionError as fault:
                    raise AssertionError(f"{told}: {fault}") from error
            except Exception as error:
                raise AssertionError(f"{told}: a raw {type(error).__name__}: {error}") from error
    return refused


def check_fields(config: type, **base: Any) -> int:
    """Make a component's config with junk for one field after the other, write it as JSON, and wrap a layer with it.

    Args:
        config: the class.
        **base: fields that have no default.

    Returns:
        How many were refused.

    Raises:
        AssertionError: as for :func:`check_arguments`.

    Example:
        >>> import delaykit as dk
        >>> check_fields(dk.FreeDelay) > 300
        True
    """
    import delaykit as dk

    def wrapped(**fields: Any) -> None:
        made = config(**fields)
        made.to_json()
        dk.wrap_(nn.Sequential(nn.Linear(3, 3)), {"0": dk.At(made, reset="manual")})

    assert dataclasses.is_dataclass(config)
    names = [field.name for field in dataclasses.fields(config) if field.init and field.name not in base]
    return check_arguments(wrapped, lambda: dict(base), *names)


def check_all_called(package: Any, calls: Iterable[str], *apart: str) -> None:
    """Raise where a package has a public function or class that a table of calls leaves out; a former name is no other.

    Args:
        package: with ``__all__``.
        calls: names that are tried; of methods those with a dot, which do not count.
        *apart: names that need not be tried: what calls return, and what nobody makes.

    Raises:
        AssertionError: a name is missing, or is none of the package's.

    Example:
        >>> import delaykit.plotting
        >>> check_all_called(delaykit.plotting, [], *delaykit.plotting.__all__)
    """
    tried = {name for name in calls if "." not in name}
    public = {name for name in package.__all__ if callable(getattr(package, name))}
    public -= {name for name in public if getattr(getattr(package, name), "__name__", name) in public - {name}}
    assert not (public - tried - {*apart}), f"not tried: {', '.join(sorted(public - tried - {*apart}))}"
    unknown = (tried | {*apart}) - {*package.__all__}
    assert not unknown, f"no public name: {', '.join(sorted(unknown))}"


def _short(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # somebody else's
        return type(value).__name__
