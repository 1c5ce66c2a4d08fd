"""A connection without a current of its own that lingers: point delays, any response, and lines around any module."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from delaykit.errors import PluginError, ShapeError
from delaykit.functional.delay_line.operator import delay_line
from delaykit.functional.delayed_convolution import Convolution, delayed_convolution
from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.engine_base import Engine, Stepper
from delaykit.functional.reference import causal_convolution
from delaykit.functional.step_tape.convolutions import ConvolutionTape
from delaykit.functional.step_tape.operator import LinearTape, LineTape, ResponseTape
from delaykit.functional.taps import Taps
from delaykit.interfaces import Delay
from delaykit.sizes import MEND, finite_response, method_of, numbers_of


class Product:
    """The wrapped module's own linear map, seen from the synapse.

    Args:
        with_bias: the module's untouched forward.
        without_bias: the same map without its bias.
        weight: the ``(post, pre)`` matrix, or None for convolutions and element-wise connections.
        bias: the module's bias, or None.
        space: number of dimensions behind the channel (0 for Linear, 2 for Conv2d).
        convolution: the convolution that it is, if its pairs of channels may be delayed one by one.
    """

    def __init__(
        self,
        with_bias: Callable[[Tensor], Tensor],
        without_bias: Callable[[Tensor], Tensor],
        weight: Tensor | None,
        bias: Tensor | None,
        space: int = 0,
        convolution: Convolution | None = None,
    ) -> None:
        self.with_bias, self.without_bias = with_bias, without_bias
        self.weight, self.bias, self.space, self.convolution = weight, bias, space, convolution

    def weight_of(self, engine: Engine) -> Tensor | None:
        """Return the weight that an engine may hold a copy of."""
        return self.convolution.weight if engine.pairs and self.convolution is not None else self.weight


class MatrixEngine(Engine):
    """A point delay on a ``(post, pre)`` matrix, any granularity.

    Args:
        taps: of the layer, its inputs, its outputs or its synapses.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
        behind: whether the line lies behind the product (dendritic), which the shape of one output's taps does not say.
    """

    def __init__(self, taps: Taps, weight: Tensor, bias: Tensor | None, behind: bool = False) -> None:
        self.parameters, self.behind = (taps, weight, bias), behind
        self.copies = taps.shape[0] > 1 and not behind  # other lines multiply with the weight itself

    def sequence(self, spikes: Tensor) -> Tensor:
        taps, weight, bias = self.parameters
        return delayed_linear(spikes, weight, taps, bias)

    def tape(self) -> Stepper:
        return LinearTape(*self.parameters, behind=self.behind, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)

    def reach(self) -> int:
        return reach_of(self.parameters[0])


def response_of(delay: Delay, weight: Tensor) -> Tensor:
    """Ask a delay for its impulse response on a weight ``(post, pre)``: ``(post, pre, depth)``.

    Raises:
        PluginError: it is no tensor, or one of another kind of numbers than the weight.
        ShapeError: its shape is another, or of no step.
        DelayRangeError: it is NaN or infinite where the weight is not.
    """
    expected = f"(post, pre, depth), of one step at least, here ({weight.shape[0]}, {weight.shape[1]}, depth)"
    response = numbers_of(delay, "impulse_response", delay.impulse_response(weight), expected)
    where = method_of(delay, "impulse_response")
    if response.shape[:2] != weight.shape or not response.shape[2]:
        raise ShapeError(where, f"shape {tuple(response.shape)}", expected, "tau is the last dimension")
    if response.dtype != weight.dtype and not torch.is_autocast_enabled(weight.device.type):
        raise PluginError(where, f"a tensor of {response.dtype}", f"{weight.dtype}, as the weight", MEND)
    finite_response(where, response, weight)
    return response


class ResponseEngine(Engine):
    """Any impulse response on a matrix: the general, slow fallback."""

    def __init__(self, response: Tensor, bias: Tensor | None) -> None:
        self.parameters = (response, bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        response, bias = self.parameters
        current = causal_convolution(spikes, response)
        return current if bias is None else current + bias

    def tape(self) -> Stepper:
        return ResponseTape(*self.parameters, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)

    def reach(self) -> int:
        return self.parameters[0].shape[2]


class LineEngine(Engine):
    """A delay line before (layer, axonal) or behind (dendritic) any linear module, e.g. a convolution."""

    copies = False

    def __init__(self, taps: Taps, product: Product, before: bool) -> None:
        self.taps, self.product, self.before = taps, product, before
        self.identity = taps.is_identity()

    def sequence(self, spikes: Tensor) -> Tensor:
        if self.before:
            late = delay_line(spikes, self.taps)
            return self.product.with_bias(late.flatten(0, 1)).unflatten(0, spikes.shape[:2])
        return self.piece(spikes, None)[0]

    def piece(self, spikes: Tensor, late: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run a piece of a sequence; a current under way keeps the weight that made it (a line behind the product).

        Args:
            spikes: (time, batch, pre, *space).
            late: (time, batch, post, *space), what the product gave in the pieces before; None in the first.

        Returns:
            The output of this piece, and all that the product gave so far.
        """
        time, batch = spikes.shape[:2]
        made = self.product.without_bias(spikes.flatten(0, 1)).unflatten(0, (time, batch))
        made = made if late is None else torch.cat([late, made])
        delayed = delay_line(made.detach() if self.identity else made, self.taps)[len(made) - time :]
        if not self.identity:
            return self._add_bias(delayed), made
        whole = self.product.with_bias(spikes.flatten(0, 1)).unflatten(0, (time, batch))
        return self.same_value(whole, delayed), made

    def tape(self) -> Stepper:
        return LineTape(self.taps, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.taps)

    def step(self, tape: Stepper, spikes: Tensor) -> Tensor:
        if self.before:
            return self.product.with_bias(tape.step(spikes))
        current = self.product.without_bias(spikes)
        if self.identity:
            return self.same_value(self.product.with_bias(spikes), tape.step(current.detach()))
        return self._add_bias(tape.step(current))

    def reach(self) -> int:
        return reach_of(self.taps)

    @staticmethod
    def same_value(current: Tensor, delayed: Tensor) -> Tensor:
        """Return the module's own result to the bit, as it is at zero delay; the delays still get their gradient."""
        return current + (delayed - delayed.detach())

    def _add_bias(self, current: Tensor) -> Tensor:
        bias = self.product.bias
        return current if bias is None else current + bias.reshape(-1, *[1] * self.product.space)


class ConvolutionEngine(Engine):
    """A delay of each pair of channels of a convolution."""

    pairs = True

    def __init__(self, taps: Taps, convolution: Convolution, bias: Tensor | None) -> None:
        self.parameters = (taps, convolution, bias)
        self.identity = taps.is_identity()

    def sequence(self, spikes: Tensor) -> Tensor:
        taps, convolution, bias = self.parameters
        if not self.identity:
            return delayed_convolution(spikes, convolution, taps, bias)
        current = convolution.whole(spikes.flatten(0, 1), bias).unflatten(0, spikes.shape[:2])
        fixed = dataclasses.replace(convolution, weight=convolution.weight.detach())
        late = delayed_convolution(spikes.detach(), fixed, taps)
        return LineEngine.same_value(current, late)

    def reach(self) -> int:
        return reach_of(self.parameters[0])

    def tape(self) -> Stepper:
        return ConvolutionTape(*self.parameters, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)


def identity_taps(like: Tensor | None = None) -> Taps:
    """Return the taps of no delay at all, one tap of 1 at tau 0, on the device and in the dtype of ``like``."""
    value = torch.ones(1, 1, 1) if like is None else like.new_ones(1, 1, 1)
    return Taps(value.new_zeros(1, 1, 1, dtype=torch.int64), value, 0)


def reach_of(taps: Taps) -> int:
    """Count the newest inputs that taps may read. Host sync."""
    return int(taps.index.max()) + 1 if taps.index.numel() else 0
