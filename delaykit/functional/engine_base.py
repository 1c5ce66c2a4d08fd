"""What runs one segment of a connection: a whole sequence at once, or step by step. Tensors in, tensors out."""

from __future__ import annotations

import copy
import ctypes
import functools
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import array


class Stepper(Protocol):
    """The remembered past of one stream in step mode, e.g. a :class:`~delaykit.functional.step_tape.Tape`."""

    def step(self, x: Tensor) -> Tensor:
        """Run one step: ``(batch, pre, *space) -> (batch, post, *space)``."""

    def detach(self) -> None:
        """Cut the graph (truncated BPTT); :meth:`Engine.rebind` hands the parameters over anew."""


class SegmentParameters:
    """Mark what an engine holds of the parameters of one segment, so that a copy of the engine copies it, too."""


class Engine(ABC):
    """One segment's parameters, computed once (from a reset or detach to the next) and ready to run."""

    remember: int | None = None  # how many steps a tape keeps when its graph is cut
    copies: bool = True  # whether it computes with a copy of the weight, made when it was built
    pairs: bool = False  # whether it delays the pairs of channels of a convolution, whose kernel it copies then
    _weight: Tensor | None = None
    _values: Tensor | None = None
    _bits: bytes | None = None  # these values, where they are compared bit by bit
    _live: Any = None  # the bits of the weight itself, and where they are: to view it anew at every step takes longer
    _place = 0
    _bias: Tensor | None = None
    _version: int | None = None

    def read_from(self, weight: Tensor | None, bias: Tensor | None) -> None:
        """Note the weight and bias that this engine was made of."""
        self._weight, self._bias = weight, bias
        self._values = weight.detach().clone() if self.copies and weight is not None else weight
        self._live = bits_of(weight) if self.copies and weight is not None else None
        self._bits = None if self._live is None else self._live.tobytes()
        self._place = 0 if self._live is None or weight is None else weight.data_ptr()
        self._version = None if weight is None else version_of(weight)

    def stale(self, weight: Tensor | None, bias: Tensor | None) -> bool:
        """Tell whether a weight or bias is another one by now, or was written to.

        Where the engine computes with a copy, its values decide. A device other than the CPU is not asked for them (it
        would have to be waited for) as long as the tensor is the same one and its version says that nobody wrote to it;
        what is written through ``weight.data`` there counts from the next reset or detach.
        """
        if weight is not None and self._values is not None:
            same = weight is self._weight and (not self.copies or self._surely_untouched(weight))
            if not same and not self._unchanged(weight):
                return True
        if bias is self._bias:
            return False
        return bias is None or self._bias is None or not torch.equal(bias, self._bias)

    def _unchanged(self, weight: Tensor) -> bool:
        """Compare the values; asked at every step, so what can be known of the copy is known beforehand."""
        place = self._live is not None and weight is self._weight and weight.data_ptr() == self._place
        if place and weight.is_contiguous() and self._live.shape == weight.shape:
            return same_bytes(self._place, self._live, self._bits)  # type: ignore[arg-type]
        return same_values(weight, self._values)  # type: ignore[arg-type]

    def _surely_untouched(self, weight: Tensor) -> bool:
        return weight.device.type != "cpu" and self._version is not None and weight._version == self._version

    @abstractmethod
    def sequence(self, spikes: Tensor) -> Tensor:
        """Run a whole sequence: ``(time, batch, pre, *space) -> (time, batch, post, *space)``, bias included."""

    @abstractmethod
    def tape(self) -> Stepper:
        """Start an empty history for step mode."""

    @abstractmethod
    def rebind(self, tape: Any) -> None:
        """Start a new segment on a tape that keeps its remembered spikes (truncated BPTT)."""

    def step(self, tape: Stepper, spikes: Tensor) -> Tensor:
        """Run one step: ``(batch, pre, *space) -> (batch, post, *space)``, bias included."""
        return tape.step(spikes)

    def reach(self) -> int | None:
        """Return how many of the newest inputs an output may read, this one included; None: no end, or not known."""
        return None

    def holds(self) -> int:
        """Return how many steps its delay line holds for every channel in step mode."""
        return self.reach() or 0


def frozen(part: Any) -> Any:
    """Copy an engine with all it computes with: the parameters may be written to, the copy stays; no graph."""
    if isinstance(part, Tensor):
        return part.detach().clone()
    if isinstance(part, tuple):
        values = [frozen(value) for value in part]
        return type(part)(*values) if hasattr(part, "_fields") else tuple(values)
    if not isinstance(part, (Engine, SegmentParameters)):
        return part
    twin = copy.copy(part)
    twin.__dict__ = {name: frozen(value) for name, value in vars(part).items()}
    return twin


def computes_with(part: Any) -> list[Tensor]:
    """List the tensors that an engine computes with, in the same order for each copy of it."""
    if isinstance(part, Tensor):
        return [part]
    inner = part if isinstance(part, tuple) else ()
    if isinstance(part, (Engine, SegmentParameters)):
        inner = tuple(vars(part).values())
    return [tensor for value in inner for tensor in computes_with(value)]


BITS = {  # of the dtypes that numpy has, too
    torch.bool: np.int8, torch.uint8: np.int8, torch.int8: np.int8, torch.int16: np.int16, torch.float16: np.int16,
    torch.int32: np.int32, torch.float32: np.int32, torch.int64: np.int64, torch.float64: np.int64,
}  # fmt: skip


def same_values(one: Tensor, two: Tensor) -> bool:
    """Tell whether two tensors hold the same values; on the CPU bit by bit, several times faster than torch.equal."""
    if one.shape != two.shape or one.dtype != two.dtype or one.device != two.device:
        return False
    bits, others = bits_of(one), bits_of(two)
    if bits is None or others is None:
        return torch.equal(one, two)
    return bool((bits == others).all())


def same_bytes(place: int, live: Any, before: bytes) -> bool:
    """Tell whether memory still holds what it did; asked at every step, so it goes as fast as it can.

    Args:
        place: address of what is there now.
        live: the same as an array.
        before: what was there.
    """
    compare = memory_comparison()
    if compare is None:
        return bool(live.tobytes() == before)  # takes less time than numpy's comparison
    return bool(compare(place, before, len(before)) == 0)


@functools.cache
def memory_comparison() -> Any:
    """Return C's ``memcmp``; None where the process does not show it (Windows)."""
    try:
        found = ctypes.PyDLL(None).memcmp
    except (TypeError, OSError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return found


def bits_of(tensor: Tensor) -> Any:
    """View a tensor's numbers as an array of whole ones; None where numpy cannot look at them."""
    if torch.compiler.is_compiling():  # a tensor that is being traced has no numbers to look at
        return None
    kind = BITS.get(tensor.dtype)
    if kind is None or tensor.device.type != "cpu" or not _plain(tensor):
        return None
    return array(tensor.detach()).view(kind)


def _plain(tensor: Tensor) -> bool:
    own = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    own = own and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # of torch.func, without numbers
    return own and tensor.is_contiguous()


def version_of(tensor: Tensor) -> int | None:
    """Return how often a tensor was written to, None where that is not known."""
    return None if tensor.is_inference() else tensor._version  # inference tensors do not count their changes
