"""Retype in place: a module keeps its identity and gets a subclass as its ``__class__``.

The same idea as ``torch.nn.utils.parametrize`` and FSDP2's ``fully_shard``: names, optimizers, aliases, shared modules
and ``isinstance`` keep working, and giving the class back undoes everything.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from delaykit.attaching.exporters import refuse_compiling, refuse_placeholders
from delaykit.errors import ConfigError, DelaykitError, PluginError


@functools.cache
def retyped_class(base: type, mixins: tuple[type, ...]) -> type:
    """Make the subclass of ``base`` with ``mixins`` in front, the latest mixin first."""
    name = getattr(mixins[0], "prefix", "") + base.__name__
    members = {"_dk_recipe": ClassRecipe(base, mixins), "__reduce_ex__": _reduce_ex, "__module__": base.__module__}
    members["__prepare_scriptable__"] = refuse_compiling
    cls: Any = type(name, (*_anchor(base), *reversed(mixins), base), members)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # A tracer that takes the module for a leaf, since its base class is one, never gets to forward.
        if "nirtorch" in sys.modules:
            refuse_placeholders(name, *args, *kwargs.values())
        return super(cls, self).__call__(*args, **kwargs)

    cls.__call__ = call
    if any(getattr(mixin, "keeps_signature", False) for mixin in mixins):
        inherited = cls.forward

        # Norse and others ask inspect.signature(module.forward) whether a module takes a state.
        @functools.wraps(base.forward)  # type: ignore[attr-defined]
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return inherited(self, *args, **kwargs)

        cls.forward = forward
    return cls


def _anchor(base: type) -> tuple[type, ...]:
    """Return a first base that gives instances the layout of ``base``, where a mixin in the first place would not.

    Python lets an object change its class only between equal layouts, and takes a class's layout from its first base.
    A class whose own first base is ``abc.ABC`` or ``typing.Generic``, which have no ``__dict__``, needs it.
    """
    first: Any = base
    while first.__base__.__dictoffset__:
        first = first.__base__
    return () if first.__base__ is object else (type(base.__name__, (base,), {"__module__": base.__module__}),)


def retype_(module: nn.Module, mixin: type) -> None:
    """Put ``mixin`` in front of the module's class, in place; mixins stack.

    Args:
        module: what gets the class.
        mixin: goes before all that were put there earlier.

    Raises:
        ConfigError: Python gives objects of that class no other one.
    """
    become_(module, retyped_class(original_class(module), (*mixins_of(module), mixin)))  # type: ignore[arg-type]


def become_(module: nn.Module, cls: type) -> None:
    """Give a module another class, or say why that cannot be."""
    try:
        module.__class__ = cls
    except TypeError as error:
        found = f"a class that Python lets no object change ({error})"
        fix = "derive it from torch.nn.Module first, without __slots__ or bases that are written in C"
        raise ConfigError(original_class(module).__qualname__, found, "a class of Python's usual layout", fix) from None


def untype_(module: nn.Module) -> None:
    """Give the module its original class back."""
    give_class_(module, original_class(module))


def give_class_(module: nn.Module, before: type) -> None:
    """Give a module back the class that it had before it was retyped; a parametrization registered since stays.

    ``torch.nn.utils.parametrize`` makes a subclass of what it finds, delaykit's class. The same subclass is made of
    ``before`` then: copies of the module may share the present one.

    Args:
        module: a module that was retyped.
        before: the class that it had.
    """
    if before is type(module):
        return
    if parametrize.is_parametrized(module) and "_dk_recipe" not in vars(type(module)):
        members = {name: v for name, v in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
        before = type(f"Parametrized{before.__name__}", (before,), members)
    module.__class__ = before


def original_class(module: nn.Module) -> type[nn.Module]:
    """Return the class the module had before it was wrapped.

    Args:
        module: any module, retyped or not.
    """
    recipe: ClassRecipe | None = getattr(type(module), "_dk_recipe", None)
    return type(module) if recipe is None else recipe.base


def mixins_of(module: nn.Module) -> tuple[type, ...]:
    """Return what was put in front of the module's class, the latest last."""
    recipe: ClassRecipe | None = getattr(type(module), "_dk_recipe", None)
    return () if recipe is None else recipe.mixins


def has_mixin(module: nn.Module, mixin: type) -> bool:
    """Tell whether ``mixin``, or a subclass of it, was put in front of the module's class.

    Args:
        module: any module, retyped or not.
        mixin: the class that is looked for.
    """
    return any(issubclass(found, mixin) for found in mixins_of(module))


def library_class(module: nn.Module, library: str) -> str | None:
    """Name the library's class of a module; None for a subclass that is neither the library's nor delaykit's.

    Args:
        module: any module, retyped or not.
        library: name of the package, e.g. ``snntorch``.
    """
    return library_name(type(module), library)


def library_name(cls: type, library: str) -> str | None:
    """Name the library's class that a class is, or that delaykit made it of; None where it is another."""
    for base in cls.__mro__:
        root = base.__module__.split(".")[0]
        if root == library:
            return base.__name__
        if root != "delaykit":
            return None
    return None


def as_written(module: nn.Module, library: str) -> bool:
    """Tell whether all methods of a library's module are the library's own: none was replaced, on it or on its class.

    A ``forward`` of the module's own is not asked for here: a fused network lends one while it runs.

    Example:
        >>> relu = nn.ReLU()
        >>> as_written(relu, "torch")
        True
        >>> relu.extra_repr = str
        >>> as_written(relu, "torch")
        False
    """
    for base in original_class(module).__mro__:
        if base.__module__.split(".")[0] == library and base is not nn.Module:
            for name, method in vars(base).items():
                if isinstance(method, FunctionType):
                    theirs = method.__module__.split(".")[0] == library and not hasattr(method, "__wrapped__")
                    if not theirs or (name != "forward" and name in vars(module)):
                        return False
    return True


class ClassRecipe(NamedTuple):
    """Stand for a generated class, which pickle cannot find by its name."""

    base: type
    mixins: tuple[type, ...]

    def make(self) -> type:
        """Return the class."""
        return retyped_class(self.base, self.mixins)


Recipe = ClassRecipe  # its former name, which pickled models hold


def _recipe_of(value: Any) -> Any:
    """Return the recipe of a generated class, and anything else as it is."""
    made = isinstance(value, type) and "_dk_recipe" in vars(value)
    return value._dk_recipe if made else value


@dataclasses.dataclass
class Undo:
    """One change to a module and how to take it back; data instead of a closure, so that copies stay independent.

    Args:
        action: a function that can be found by its name; it may be run again where it was interrupted.
        arguments: what it is called with.
        by: who answered with it, for messages; set where an adapter did.
    """

    action: Callable[..., None]
    arguments: tuple[Any, ...]
    by: str = ""

    def run(self) -> None:
        """Take the change back; an error of an adapter's own way back is a PluginError that names it."""
        try:
            self.action(*self.arguments)
        except DelaykitError:
            raise
        except Exception as error:  # whatever an author's function does
            if not self.by:
                raise
            action = getattr(self.action, "__name__", type(self.action).__name__)
            found = f"an Undo of {action}(), which raised {type(error).__name__}: {error}"
            expected = "a way back that can be run, and run again"
            raise PluginError(self.by, found, expected, "mend that function") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"arguments": tuple(map(_recipe_of, self.arguments))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = (part.make() if isinstance(part, ClassRecipe) else part for part in state["arguments"])
        self.__dict__ |= state | {"arguments": tuple(made)}


def _reduce_ex(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    # Generated classes cannot be found by name: pickle the recipe (base class, mixins) instead.
    cls = type(self)
    return _revive, tuple(cls._dk_recipe), self.__dict__  # type: ignore[attr-defined]


def _revive(base: type, mixins: tuple[type, ...]) -> Any:
    cls: Any = retyped_class(base, mixins)
    return cls.__new__(cls)


class Anatomy:
    """The classes and parts of all modules of a model, to be given back where a change to them broke off.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> before = Anatomy(net)
        >>> del net[0]
        >>> before.restore()
        >>> net
        Sequential(
          (0): Linear(in_features=2, out_features=1, bias=True)
        )
    """

    def __init__(self, net: nn.Module) -> None:
        self._modules = [(module, module.__class__, dict(module.__dict__)) for module in net.modules()]
        held = [value for _, _, own in self._modules for value in own.values() if isinstance(value, dict)]
        for wiring in (own["_dk"] for _, _, own in self._modules if "_dk" in own):
            held += [vars(wiring), wiring.sites]
        self._contents = [(value, dict(value)) for value in held]

    def restore(self) -> None:
        """Give them back."""
        for module, cls, own in self._modules:
            module.__class__ = cls
            module.__dict__.clear()
            module.__dict__.update(own)
        for held, content in self._contents:
            held.clear()
            held.update(content)
