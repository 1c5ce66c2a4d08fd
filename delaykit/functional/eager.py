"""What ``torch.compile`` leaves to Python: steps that look at identities and versions of tensors, or write things down.

A compiled loop breaks its graph there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keep the compiler out of a function and all that it calls.

    ``torch.compiler.disable`` does so, too, but imports the compiler at once, which takes longer than all of delaykit,
    and costs a microsecond a call where nothing is compiled.

    Example:
        >>> @eager
        ... def version(tensor):
        ...     return tensor._version
        >>> version(torch.zeros(2).add_(1))
        1
    """
    apart = torch._disable_dynamo(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return (apart if torch.compiler.is_compiling() else function)(*args, **kwargs)

    return called
