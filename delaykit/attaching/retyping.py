"""Retype in place: a module keeps its identity and gets a subclass as its ``__class__``.

The same idea as ``torch.nn.utils.parametrize`` and FSDP2's ``fully_shard``: names, optimizers, aliases, shared modules
and ``isinstance`` keep working, and giving the class back undoes everything.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from torch import nn


@functools.cache
def retyped_class(base: type, mixins: tuple[type, ...]) -> type:
    """Make the subclass of ``base`` with ``mixins`` in front, the latest mixin first."""
    name = getattr(mixins[0], "prefix", "") + base.__name__
    members = {"_dk_base": base, "_dk_mixins": mixins, "__reduce_ex__": _reduce_ex, "__module__": base.__module__}
    cls = type(name, (*reversed(mixins), base), members)
    if any(getattr(mixin, "keeps_signature", False) for mixin in mixins):
        inherited = cls.forward  # type: ignore[attr-defined]

        # Norse and others ask inspect.signature(module.forward) whether a module takes a state.
        @functools.wraps(base.forward)  # type: ignore[attr-defined]
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return inherited(self, *args, **kwargs)

        cls.forward = forward  # type: ignore[attr-defined]
    return cls


def retype_(module: nn.Module, mixin: type) -> None:
    """Put ``mixin`` in front of the module's class, in place; mixins stack."""
    base, mixins = original_class(module), tuple(getattr(type(module), "_dk_mixins", ()))
    module.__class__ = retyped_class(base, (*mixins, mixin))  # type: ignore[arg-type]


def untype_(module: nn.Module) -> None:
    """Give the module its original class back."""
    module.__class__ = original_class(module)


def original_class(module: nn.Module) -> type[nn.Module]:
    """Return the class the module had before it was wrapped."""
    return getattr(type(module), "_dk_base", type(module))


def has_mixin(module: nn.Module, mixin: type) -> bool:
    """Tell whether ``mixin`` was put in front of the module's class."""
    return mixin in getattr(type(module), "_dk_mixins", ())


class Recipe(NamedTuple):
    """Stand for a generated class, which pickle cannot find by its name."""

    base: type
    mixins: tuple[type, ...]

    def make(self) -> type:
        """Return the class."""
        return retyped_class(self.base, self.mixins)


def recipe_of(value: Any) -> Any:
    """Return the recipe of a generated class, and anything else as it is."""
    made = isinstance(value, type) and "_dk_mixins" in vars(value)
    return Recipe(value._dk_base, value._dk_mixins) if made else value


def _reduce_ex(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    # Generated classes cannot be found by name: pickle the recipe (base class, mixins) instead.
    cls = type(self)
    return _revive, (cls._dk_base, cls._dk_mixins), self.__dict__  # type: ignore[attr-defined]


def _revive(base: type, mixins: tuple[type, ...]) -> Any:
    cls: Any = retyped_class(base, mixins)
    return cls.__new__(cls)
