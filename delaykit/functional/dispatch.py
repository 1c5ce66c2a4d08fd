"""Which code runs an operator: a small dispatcher from (operator, device) to a backend.

| backend | what it is | devices |
|---|---|---|
| ``reference`` | plain loops as the definition says: slow, obvious, the judge | all |
| ``torch`` | plain torch with a hand-written adjoint | all |
| ``cpu`` | Numba | cpu |
| ``gpu`` | Triton | cuda (and cpu where ``TRITON_INTERPRET=1``) |

The choice follows the device and what is installed; :func:`backend` overrides it in a ``with`` block. Who runs what is
a table of strings, ``("operator", "backend") -> "package.module:function"``, to which the core and every plugin add
through the hook ``delaykit_operators``; a function is imported when it first runs. A device of another kind runs the
backend of its own name, e.g. ``mps``, where somebody wrote one. An operator without an implementation for a chip runs
in ``torch``, and so does everything where Numba or Triton is installed and broken, after one warning; one without a
judge is refused under ``backend("reference")``: nothing but a judge answers for one.
Kernels in vector registers are one folder, ``delaykit.functional.llvm``: without it the backend ``cpu`` runs Numba's
plain loops, or torch where it has none. `delaykit doctor` tells what is there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

from delaykit.errors import ConfigError, UnknownNameError
from delaykit.plugins import registry
from delaykit.plugins.records import BACKENDS

FEW = 1 << 17  # multiply-adds for which nothing is compiled
_NATIVE = {"cpu": "cpu", "cuda": "gpu"}
_NEEDS = {"cpu": ("numba", "pip install 'delaykit[fast]'"), "gpu": ("triton", "pip install triton")}
_found: dict[tuple[str, str], Callable[..., Any] | None] = {}
_chosen: ContextVar[str | None] = ContextVar("delaykit_backend", default=None)
Implementation = TypeVar("Implementation", bound=Callable[..., Any])


def register(operator: str, backend: str) -> Callable[[Implementation], Implementation]:
    """Decorate a function as the implementation of ``operator`` in ``backend``, for this process.

    For notebooks and tests. A plugin yields :class:`~delaykit.plugins.records.Operator` records from its hook
    ``delaykit_operators`` instead, so that its functions are found whoever was imported first.

    Args:
        operator: name that :func:`implementation_of` is asked for; choose one that no plugin begins with.
        backend: ``reference``, ``torch``, ``cpu`` or ``gpu``. Every operator needs one for ``torch``, which runs on all
            devices; without one for ``reference`` it is refused there.

    Raises:
        UnknownNameError: there is no such backend.
        ConfigError: another function is registered already.

    Example:
        >>> @register("example_double", "torch")
        ... def double(x):
        ...     return 2 * x
        >>> implementation_of("example_double", torch.device("cpu"))(torch.ones(2))
        tensor([2., 2.])
    """
    _check_name(f"register({operator!r})", backend)

    def add(implementation: Implementation) -> Implementation:
        known = _function(operator, backend) or implementation
        if (known.__module__, known.__qualname__) != (implementation.__module__, implementation.__qualname__):
            owners = f"{known.__module__}.{known.__qualname__}"
            where = f"register({operator!r}, {backend!r})"
            raise ConfigError(where, f"the implementation {owners}", "none", "choose another operator name")
        _found[operator, backend] = implementation
        return implementation

    return add


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the operators inside the ``with`` block in one backend.

    A backward pass outside the block chooses for itself, and so does one on cuda, which runs in threads of its own;
    that of a recurrence runs where its forward pass did.

    Args:
        name: ``reference``, ``torch``, ``cpu`` or ``gpu``.

    Raises:
        UnknownNameError: there is no such backend.
        ConfigError: it needs a package that is not installed, or cannot be imported.

    Example:
        >>> with backend("torch"):
        ...     chosen()
        'torch'
    """
    _check_name("backend", name)
    if name in _NEEDS and (fault := _fault(name)):
        package, install = _NEEDS[name]
        raise ConfigError(f"backend({name!r})", fault, f"{package} installed and working", install)
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


def implementation_of(operator: str, device: torch.device, work: int | None = None) -> Callable[..., Any]:
    """Find the function that runs ``operator`` on ``device``.

    Args:
        operator: its name.
        device: where its tensors are.
        work: its multiply-adds, if known. Few of them run in plain torch on the CPU, which is as fast there, unless
            somebody chose a backend: a small model then need not wait for kernels to be compiled.

    Raises:
        UnknownNameError: nobody registered such an operator.
        ConfigError: the backend asked for cannot run on that device; or ``reference`` was asked for, and the operator
            has none.
        PluginError: a plugin's record points at nothing that can be imported.
    """
    name = _chosen.get()
    few = work is not None and work < FEW and name is None and _NATIVE.get(device.type) == "cpu"
    found = None if few else kernel_of(operator, device)
    if found is not None:
        return found
    if name is not None and not _runs_on(name, device):
        expected = "a cpu tensor" if name == "cpu" else "a cuda tensor (or TRITON_INTERPRET=1 in the environment)"
        raise ConfigError(f"backend({name!r})", f"a {device} tensor", expected, "leave the choice to delaykit")
    found = _function(operator, "reference") if name == "reference" else None
    if found is not None:
        return found
    found = _function(operator, "torch")
    if name == "reference" and found is not None:
        where, fix = f"operator {operator!r}", "give its plugin's Operator record, or leave the choice to delaykit"
        raise ConfigError(where, "no implementation in 'reference'", "a judge of its own", fix)
    if found is None:
        known = {known for known, _ in registry.loader().operators} | {key[0] for key, f in _found.items() if f}
        raise registry.missing_operator(operator, known)
    return found


def kernel_of(operator: str, device: torch.device) -> Callable[..., Any] | None:
    """Find a chip's own function for ``operator`` on ``device``; None where plain torch would run it, or a judge.

    For what pays off by such a kernel alone, and has another way else: who gets an answer then asks
    :func:`implementation_of`.

    Args:
        operator: its name.
        device: where its tensors are.

    Raises:
        PluginError: a plugin's record points at nothing that can be imported.

    Example:
        >>> with backend("torch"):
        ...     kernel_of("tape_tents", torch.device("cpu")) is None
        True
    """
    name = _chosen.get()
    if name is None:
        name = _NATIVE.get(device.type, device.type)
        return _function(operator, name) if works(name) else None
    return None if name in ("reference", "torch") or not _runs_on(name, device) else _function(operator, name)


resolve = implementation_of  # its former name; delaykit.resolve finds a component


def works(backend: str) -> bool:
    """Tell whether what a backend needs can be imported; where it is installed and cannot, warn once.

    Args:
        backend: ``cpu`` needs Numba, ``gpu`` Triton; others need nothing.
    """
    return backend not in _NEEDS or not _fault(backend)


@functools.cache
def _fault(name: str) -> str:
    """Say why a backend's package cannot be used; empty where it can."""
    package, install = _NEEDS[name]
    if importlib.util.find_spec(package) is None:
        return f"no package {package!r}"
    try:
        importlib.import_module(package)
    except Exception as error:  # broken binaries raise nearly anything
        fault = f"package {package!r}, which cannot be imported ({type(error).__name__}: {error})"
        warnings.warn(
            f"backend {name!r}: found {fault}. Operators run in plain torch, slower and with the same results. To go "
            f"on: reinstall it ({install} --force-reinstall) or remove it; `delaykit doctor` tells more",
            RuntimeWarning,
            stacklevel=2,
        )
        return fault
    return ""


def _function(operator: str, backend: str) -> Callable[..., Any] | None:
    """Look one implementation up, and remember it, also where there is none."""
    key = operator, backend
    if key not in _found:
        _found[key] = registry.implementation(operator, backend)
    return _found[key]


def _runs_on(name: str, device: torch.device) -> bool:
    if name == "gpu":
        return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    return name != "cpu" or device.type == "cpu"


def _check_name(where: str, name: str) -> None:
    if not isinstance(name, str) or name not in BACKENDS:
        raise UnknownNameError(where, f"backend {name!r:.200}", f"one of {BACKENDS}", "spell one of these")
