"""Grade a wrong call: its error says where, what was found, what was expected and how to go on, or it is a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from delaykit.errors import DelaykitError, WrapError

LONGEST = 1000  # characters of a message that somebody reads


def check_told(call: Callable[[], Any]) -> DelaykitError:
    """Run a wrong call, and return the error that tells of it in full.

    Args:
        call: does what a user should not.

    Returns:
        The error.

    Raises:
        AssertionError: nothing was raised, an error of another kind, or one that leaves out a part.

    Example:
        >>> import delaykit as dk
        >>> check_told(lambda: dk.FreeDelay("axnal")).where
        'FreeDelay.granularity'
    """
    try:
        result = call()
    except DelaykitError as error:
        check_full(error)
        return error
    except Exception as error:
        raise AssertionError(f"a raw {type(error).__name__}: {error}") from error
    raise AssertionError(f"no error, but {result!r:.200}")


def check_full(error: DelaykitError) -> None:
    """Raise an AssertionError where an error, or one of those it gathers, leaves out a part or goes on for ever."""
    for one in error.problems if isinstance(error, WrapError) else [error]:
        parts = {"where": one.where, "found": one.found, "expected": one.expected, "how to go on": one.fix}
        missing = [name for name, text in parts.items() if not str(text).strip()]
        assert not missing, f"no word of {', '.join(missing)} in: {one}"
        assert len(str(one)) <= LONGEST, f"a message of {len(str(one))} characters: {str(one)[:200]} ..."
