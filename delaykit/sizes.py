"""What parts must be: parameters of the sizes they were made with, answers of the kind, size and numbers they promise.

A component's methods are held to its interface once, where its class is defined (:func:`hold_component_`), so that an
answer is looked at whoever asks, in a first batch or a later one. That is once a segment, and in no step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from delaykit import checks
from delaykit.checks.answers import Answerer, hold_answers_
from delaykit.errors import DelayRangeError, PluginError, ShapeError

SIZES, SITE = "_dk_sizes", "_dk_site"
MEND = "mend this method of the component"
ONE_A_SYNAPSE = "(1, 1), (1, pre), (post, 1) or (post, pre)"
ONE_A_NEURON = "(1, 1) or (post, 1)"


def remember_sizes_(part: nn.Module) -> None:
    """Write down the sizes of a part's parameters, for :func:`check_sizes`.

    Args:
        part: a delay, a heterogeneity or decays.
    """
    named = part.named_parameters(remove_duplicate=False)
    part.__dict__[SIZES] = {name: (p.shape, p.is_floating_point()) for name, p in named}


def check_sizes(where: str, part: nn.Module) -> None:
    """Refuse a part one of whose parameters was taken out, or replaced by one of another size or kind.

    Args:
        where: the connection or neuron that the part belongs to.
        part: what :func:`remember_sizes_` saw; any other is let through.

    Raises:
        ShapeError: with the parameter's name, its size, and the one that it was made with.

    Example:
        >>> part = nn.Linear(2, 3)
        >>> remember_sizes_(part)
        >>> part.bias = nn.Parameter(torch.zeros(4))
        >>> check_sizes("fc1", part)
        Traceback (most recent call last):
        delaykit.errors.ShapeError: fc1: found parameter bias of shape (4,), torch.float32; expected one of shape ...
    """
    if torch.compiler.is_compiling():  # a graph is guarded by the sizes it was made for
        return
    for name, (shape, floating) in part.__dict__.get(SIZES, {}).items():
        value = part
        for step in name.split("."):  # not by _parameters: a parametrized one is computed
            value = getattr(value, step, None)  # type: ignore[assignment]
        if isinstance(value, Tensor) and value.shape == shape and value.is_floating_point() == floating:
            continue
        found = f"parameter {name} of type {type(value).__name__}"
        if value is None:
            found = f"no parameter {name}"
        elif isinstance(value, Tensor):
            found = f"parameter {name} of shape {tuple(value.shape)}, {value.dtype}"
        expected = f"one of shape {tuple(shape)}, {'floating point' if floating else 'whole numbers'}, as it was made"
        fix = "write new values into it, with torch.no_grad(): parameter.copy_(values); for another size, unwrap the "
        fix += "model and wrap it again"
        raise ShapeError(where, found, expected, fix)


def numbers_of(part: nn.Module, method: str, answer: Any, expected: str) -> Tensor:
    """Return what a method of a part answered, a tensor of real numbers with as many dimensions as its shape says.

    Args:
        part: a delay or a heterogeneity.
        method: name of its method.
        answer: what it answered.
        expected: shapes in words, the first in parentheses.

    Raises:
        PluginError: it is no tensor, or one of other numbers.
        ShapeError: it has another number of dimensions.
    """
    where = f"{type(part).__name__}.{method}()"
    if not isinstance(answer, Tensor) or answer.is_complex() or answer.dtype == torch.bool:
        found = f"a tensor of {answer.dtype}" if isinstance(answer, Tensor) else checks.shown(answer)
        raise PluginError(where, found, f"a tensor of real numbers, {expected}", MEND)
    if answer.ndim != expected.partition(")")[0].count(",") + 1:
        fix = "reshape, so that pre and post cannot be taken for each other"
        raise ShapeError(where, f"shape {tuple(answer.shape)}", expected, fix)
    return answer


def hold_component_(cls: type, interface: type) -> None:
    """Hold what the methods of a component, or of its kernel, answer to what its interface says.

    An error of a method's own becomes a :class:`~delaykit.errors.PluginError` that names the class and the method; a
    :class:`~delaykit.errors.DelaykitError` stays what it is.

    Args:
        cls: a class that was just defined; its methods are replaced.
        interface: one of those of ``delaykit.interfaces``, or a kernel's.
    """
    hold_answers_(cls, interface, COMPONENT)


def finite_response(where: str, response: Tensor, weight: Tensor | None = None) -> None:
    """Raise for a response with numbers that are not finite, where the weight has only finite ones. Host sync.

    Args:
        where: the method that answered.
        response: ``(post, pre, depth)``, or values of taps.
        weight: ``(post, pre)``; where it is NaN, so may be its response.

    Raises:
        DelayRangeError: it holds NaN or an infinity of its own.
    """
    if is_hidden(response) or bool(torch.isfinite(response.detach()).all()):
        return
    if weight is not None and not bool(torch.isfinite(weight.detach()).all()):
        return
    fix = f"look at the component's parameters, which training may have driven there; else {MEND}"
    raise DelayRangeError(where, "NaN or infinite numbers", "a finite response", fix)


def method_of(component: Any, method: str) -> str:
    """Name a method of a component as messages do."""
    return f"{type(component).__name__}.{method}()"


def is_hidden(tensor: Tensor) -> bool:
    """Tell whether nothing can be read of a tensor: in a transform, on no device, or while a graph is recorded."""
    if tensor.is_meta or is_functorch_wrapped_tensor(tensor) or torch.compiler.is_compiling():
        return True
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _one_each(method: str, expected: str, whole: Callable[[Any, Any], tuple[int, ...]]) -> Callable[[Any, Any], None]:
    """Return what looks at the answer of a method that has numbers for pre and post, or one for all of them."""

    def look(part: Any, answer: Any) -> None:
        if answer is None:
            return
        numbers_of(part, method, answer, expected)
        site = vars(part).get(SITE)
        if site is None:
            return
        sizes = whole(part, site)
        if any(found not in (1, size) for found, size in zip(answer.shape, sizes, strict=True)):
            of = f" of a component with granularity={part.granularity!r}" if method == "delays" else ""
            found = f"shape {tuple(answer.shape)}{of}"
            where, wanted = f"{site.name}, {method_of(part, method)}", f"{sizes}, or 1 in the place of a size"
            raise ShapeError(where, found, wanted, f"{MEND}, or name another granularity" if of else MEND)

    return look


def _look_at_delays(part: Any, answer: Tensor) -> None:
    _SHAPED_DELAYS(part, answer)
    if not answer.is_floating_point():
        found = f"a tensor of {answer.dtype}"
        raise PluginError(method_of(part, "delays"), found, "floating point numbers of steps", MEND)


def _look_at_taps(part: Any, answer: Any) -> None:
    finite_response(method_of(part, "taps"), answer.value)


def _look_at_longest(part: Any, answer: int | None) -> None:
    if answer is not None and answer < 0:
        raise PluginError(method_of(part, "longest"), f"{answer} steps", "a number of steps >= 0, or None", MEND)


_SHAPED_DELAYS = _one_each("delays", ONE_A_SYNAPSE, lambda part, site: site.delay_shape(part.granularity))
COMPONENT = Answerer(
    where=method_of, mend=MEND, innocent=lambda error: False, unseen=torch.compiler.is_compiling,
    looks={
        "delays": _look_at_delays,
        "decay": _one_each("decay", ONE_A_SYNAPSE, lambda part, site: (site.post, site.pre)),
        "leak": _one_each("leak", ONE_A_NEURON, lambda part, site: (site.post, 1)),
        "taps": _look_at_taps,
        "longest": _look_at_longest,
    },
)  # fmt: skip
