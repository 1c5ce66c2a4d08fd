"""Random numbers of a sequence: drawn once, the same in all its steps, cuts and pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

Draws = dict[str, Tensor]
_CURRENT: ContextVar[Draws | None] = ContextVar("delaykit_draws", default=None)


@contextlib.contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Let what is drawn meanwhile be that of one sequence.

    Args:
        draws: what it has drawn so far; new numbers go in there.

    Example:
        >>> draws, like = {}, torch.zeros(3)
        >>> with drawing(draws):
        ...     one = drawn("rounding", like)
        >>> with drawing(draws):
        ...     torch.equal(drawn("rounding", like), one)
        True
    """
    token = _CURRENT.set(draws)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def drawn(name: str, like: Tensor) -> Tensor:
    """Return numbers in [0, 1), those of the present sequence where there is one.

    Args:
        name: of what is drawn.
        like: shape, dtype and device; numbers of another shape or device are drawn anew.
    """
    like = like.detach()
    draws = None if torch.compiler.is_compiling() else _CURRENT.get()
    found = None if draws is None else draws.get(name)
    if found is not None and found.shape == like.shape and found.device == like.device:
        return found.to(like.dtype)
    made = torch.rand_like(like)
    if draws is not None:
        draws[name] = made
    return made
