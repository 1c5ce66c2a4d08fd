"""Which code runs an operator: a small dispatcher from (operator, device) to a backend.

| backend | what it is | devices |
|---|---|---|
| ``reference`` | the dense impulse response with plain autograd: slow, obvious, the judge | all |
| ``torch`` | plain torch with a hand-written adjoint | all |
| ``cpu`` | Numba | cpu |
| ``gpu`` | Triton | cuda (and cpu where ``TRITON_INTERPRET=1``) |

The choice follows the device and what is installed; :func:`backend` overrides it in a ``with`` block. A plugin adds an
operator, or a backend of one, by :func:`register`. An operator without an implementation in the chosen backend runs in
``torch``. Code under ``torch.compile`` is traced down to the operators, so ``reference`` means ``torch`` there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

from delaykit.errors import ConfigError, UnknownNameError

BACKENDS = ("reference", "torch", "cpu", "gpu")
_NEEDS = {"cpu": ("numba", "pip install 'delaykit[fast]'"), "gpu": ("triton", "pip install triton")}
_BUILT_IN = ("delaykit.functional.portable", "delaykit.functional.cpu", "delaykit.functional.gpu")
_implementations: dict[tuple[str, str], Callable[..., Any]] = {}
_chosen: ContextVar[str | None] = ContextVar("delaykit_backend", default=None)
Implementation = TypeVar("Implementation", bound=Callable[..., Any])


def register(operator: str, backend: str) -> Callable[[Implementation], Implementation]:
    """Decorate a function as the implementation of ``operator`` in ``backend``.

    Args:
        operator: name that :func:`resolve` is asked for; a plugin prefixes its own.
        backend: ``torch``, ``cpu`` or ``gpu``. Every operator needs one for ``torch``, which runs on all devices.

    Raises:
        UnknownNameError: there is no such backend.
        ConfigError: another function is registered already.

    Example:
        >>> @register("example_double", "torch")
        ... def double(x):
        ...     return 2 * x
        >>> resolve("example_double", torch.device("cpu"))(torch.ones(2))
        tensor([2., 2.])
    """
    _check_name(f"register({operator!r})", backend)

    def add(implementation: Implementation) -> Implementation:
        known = _implementations.get((operator, backend), implementation)
        if (known.__module__, known.__qualname__) != (implementation.__module__, implementation.__qualname__):
            owners = f"{known.__module__}.{known.__qualname__}"
            where = f"register({operator!r}, {backend!r})"
            raise ConfigError(where, f"the implementation {owners}", "none", "choose another operator name")
        _implementations[operator, backend] = implementation
        return implementation

    return add


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the operators inside the ``with`` block in one backend.

    A backward pass outside the block chooses for itself, and so does one on cuda, which runs in threads of its own.

    Args:
        name: ``reference``, ``torch``, ``cpu`` or ``gpu``.

    Raises:
        UnknownNameError: there is no such backend.
        ConfigError: it needs a package that is not installed.

    Example:
        >>> with backend("torch"):
        ...     chosen()
        'torch'
    """
    _check_name("backend", name)
    if name in _NEEDS and not _installed(name):
        package, install = _NEEDS[name]
        raise ConfigError(f"backend({name!r})", f"no package {package!r}", "it installed", install)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen() -> str | None:
    """Name the backend that a ``with backend(...)`` block asks for, None outside of any."""
    return _chosen.get()


def wants_reference() -> bool:
    """Tell whether an operator should run its plain, dense form; never while it is being traced by a compiler."""
    return not torch.compiler.is_compiling() and _chosen.get() == "reference"


def resolve(operator: str, device: torch.device) -> Callable[..., Any]:
    """Find the function that runs ``operator`` on ``device``.

    Raises:
        UnknownNameError: nobody registered such an operator.
        ConfigError: the backend asked for cannot run on that device.
    """
    for module in _BUILT_IN:
        importlib.import_module(module)
    name = _chosen.get()
    if name is None:
        name = _preferred(operator, device)
    elif not _runs_on(name, device):
        expected = "a cpu tensor" if name == "cpu" else "a cuda tensor (or TRITON_INTERPRET=1 in the environment)"
        raise ConfigError(f"backend({name!r})", f"a {device} tensor", expected, "leave the choice to delaykit")
    found = _implementations.get((operator, name)) or _implementations.get((operator, "torch"))
    if found is None:
        known = sorted({known for known, _ in _implementations})
        raise UnknownNameError("resolve", f"operator {operator!r}", f"one of {known}", "register it for 'torch' first")
    return found


def _preferred(operator: str, device: torch.device) -> str:
    native = {"cpu": "cpu", "cuda": "gpu"}.get(device.type)
    if native and (operator, native) in _implementations and _installed(native):
        return native
    return "torch"


def _runs_on(name: str, device: torch.device) -> bool:
    if name == "gpu":
        return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    return name != "cpu" or device.type == "cpu"


def _installed(name: str) -> bool:
    return importlib.util.find_spec(_NEEDS[name][0]) is not None


def _check_name(where: str, name: str) -> None:
    if name not in BACKENDS:
        raise UnknownNameError(where, f"backend {name!r}", f"one of {BACKENDS}", "spell one of these")
